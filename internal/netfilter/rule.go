package netfilter

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// Rule is one rule: what has to be true of a packet, all of it, and what
// happens then. It is comparable and the same for every backend, and for both
// families unless it names an address.
type Rule struct {
	Protocol model.Protocol // TCP, UDP or SCTP; 0: not looked at
	To       netip.AddrPort // beside Protocol: the destination; invalid: not looked at
	Ports    PortRange      // beside Protocol, instead of To: the destination port
	ICMP     ICMP           // instead of Protocol
	NotFrom  string         // the interface it did not come in by; "": not looked at
	Sets     [2]InSet       // those in use come first
	Mark     HasMark
	ConnMark HasMark // of the connection's mark
	State    State
	// Limit is how many packets a second of one source, destination and
	// destination port match, after as many at once; 0: all.
	Limit uint16
	Do    Verdict
}

// PortRange are the ports from First to Last, both included. The zero value is
// no match.
type PortRange struct{ First, Last uint16 }

// ICMP is a match on the family's ICMP protocol.
type ICMP uint8

// The ICMP matches.
const (
	NotLookedAt ICMP = iota
	AnyICMP
	EchoRequest
)

// Side is which end of the packet a set's dimension is compared with: its
// address, or its port with its protocol, as the set's type has it.
type Side uint8

// The sides.
const (
	Src Side = iota + 1
	Dst
)

// InSet is a match on membership of a set: one side for each dimension.
type InSet struct {
	Set   string
	Sides [3]Side
	Not   bool
}

// In matches packets that a set holds.
func In(set string, sides ...Side) InSet {
	m := InSet{Set: set}
	copy(m.Sides[:], sides)
	return m
}

// NotIn matches packets that a set does not hold.
func NotIn(set string, sides ...Side) InSet {
	m := In(set, sides...)
	m.Not = true
	return m
}

// HasMark is a match on bits of the packet's mark. Without a mask it is none.
type HasMark struct {
	Value, Mask uint32
	Not         bool
}

// State is a set of connection states, one of which must hold; none: not
// looked at.
type State uint8

// The states.
const (
	StateInvalid State = 1 << iota
	StateNew
	StateRelated
	StateEstablished
	StateUntracked
	StateDNAT // the destination was rewritten; holds beside one of the others
)

// Action is what a verdict does.
type Action uint8

// The actions. SetMark and Log are the only ones after which the next rule is
// looked at.
const (
	Accept Action = iota + 1
	Drop
	Reject // with a port-unreachable
	Reset  // TCP only: with a reset, which reaches the client at once
	Return
	Jump
	SetMark
	MasqueradeAs // the outgoing interface's address
	DNAT         // nat only, reached from Prerouting and Output only
	Goto         // as Jump, but what returns there returns to who jumped here
	Log          // to the NFLOG group, under the prefix; the next rule is looked at
)

// Verdict is what happens to a packet that matches.
type Verdict struct {
	Action      Action
	Chain       string         // Jump, Goto
	Group       uint16         // Log
	Prefix      string         // Log: at most 63 characters, no spaces
	Mark, Mask  uint32         // SetMark: the bits in Mask become Mark's
	RandomPorts bool           // MasqueradeAs: choose ports fully at random
	To          netip.AddrPort // DNAT
}

// MarkBits sets bits of the packet's mark.
func MarkBits(bits uint32) Verdict { return Verdict{Action: SetMark, Mark: bits, Mask: bits} }

// ClearBits clears bits of the packet's mark.
func ClearBits(bits uint32) Verdict { return Verdict{Action: SetMark, Mask: bits} }

// Masquerade gives the packet this node's address as source and a random port,
// so that two clients of one port do not take turns at the same one.
func Masquerade() Verdict { return Verdict{Action: MasqueradeAs, RandomPorts: true} }

// DNATTo rewrites the connection's destination, port included. The rule has to
// name a Protocol, and the address has to be of the chain's family.
func DNATTo(to netip.AddrPort) Verdict { return Verdict{Action: DNAT, To: to} }

// To jumps to another chain of ours.
func To(chain string) Verdict { return Verdict{Action: Jump, Chain: chain} }

// GoTo goes to another chain of ours for good: a packet that it does not decide
// about goes on where the chain that this rule stands in was jumped from.
func GoTo(chain string) Verdict { return Verdict{Action: Goto, Chain: chain} }

// LogTo tells who listens to an NFLOG group, under a prefix.
func LogTo(group uint16, prefix string) Verdict {
	return Verdict{Action: Log, Group: group, Prefix: prefix}
}

// Do is a verdict without arguments.
func Do(a Action) Verdict { return Verdict{Action: a} }

// Chain is a chain's rules, in order.
type Chain []Rule

// Spec renders the chain for iptables: the form in which chains are compared
// and written.
func (c Chain) Spec(f model.Family) Spec {
	lines := make([]string, len(c))
	for i, r := range c {
		lines[i] = r.Render(f)
	}
	return Spec{Rules: strings.Join(lines, "\n")}
}

// Render is the rule in iptables' words, in the one order and spelling that
// stands for it here.
func (r Rule) Render(f model.Family) string {
	var w words
	w.transport(r.Protocol, r.To)
	w.icmp(f, r.ICMP)
	for _, s := range r.Sets {
		w.set(f, s)
	}
	w.mark(r.Mark)
	w.state(r.State)
	w.verdict(r.Do)
	return strings.Join(w, " ")
}

// words collects a rule's words.
type words []string

func (w *words) add(s ...string) { *w = append(*w, s...) }

func (w *words) transport(p model.Protocol, to netip.AddrPort) {
	if to.IsValid() {
		w.add("-d", host(to.Addr()).String())
	}
	if p != 0 {
		w.add("-p", protocolText(p))
	}
	if to.IsValid() {
		w.add("-m", protocolText(p), "--dport", strconv.Itoa(int(to.Port())))
	}
}

func (w *words) icmp(f model.Family, m ICMP) {
	switch {
	case m == NotLookedAt:
	case f == model.IPv4 && m == AnyICMP:
		w.add("-p", "icmp")
	case f == model.IPv4:
		w.add("-p", "icmp", "-m", "icmp", "--icmp-type", icmp4EchoRequest)
	case m == AnyICMP:
		w.add("-p", "ipv6-icmp")
	default:
		w.add("-p", "ipv6-icmp", "-m", "icmp6", "--icmpv6-type", icmp6EchoRequest)
	}
}

// The types of an echo request.
const (
	icmp4EchoRequest = "8"
	icmp6EchoRequest = "128"
)

func (w *words) set(f model.Family, m InSet) {
	if m.Set == "" {
		return
	}
	w.add("-m", "set")
	if m.Not {
		w.add("!")
	}
	w.add("--match-set", KernelSet(f, m.Set), sidesText(m.Sides))
}

func sidesText(sides [3]Side) string {
	var s []string
	for _, side := range sides {
		switch side {
		case Src:
			s = append(s, "src")
		case Dst:
			s = append(s, "dst")
		}
	}
	return strings.Join(s, ",")
}

func (w *words) mark(m HasMark) {
	if m.Mask == 0 {
		return
	}
	w.add("-m", "mark")
	if m.Not {
		w.add("!")
	}
	w.add("--mark", maskedText(m.Value, m.Mask))
}

func maskedText(value, mask uint32) string { return fmt.Sprintf("0x%x/0x%x", value, mask) }

func (w *words) state(s State) {
	if s == 0 {
		return
	}
	var names []string
	for i, name := range stateNames() {
		if s&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	w.add("-m", "conntrack", "--ctstate", strings.Join(names, ","))
}

func stateNames() []string {
	return []string{"INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED", "DNAT"}
}

func (w *words) verdict(v Verdict) {
	switch v.Action {
	case Jump:
		w.add("-j", v.Chain)
	case SetMark:
		w.add("-j", "MARK", "--set-xmark", maskedText(v.Mark, v.Mask))
	case Reset:
		w.add("-j", "REJECT", "--reject-with", tcpReset)
	case MasqueradeAs:
		w.add("-j", "MASQUERADE")
		if v.RandomPorts {
			w.add("--random-fully")
		}
	case DNAT:
		w.add("-j", "DNAT", toDestination, v.To.String())
	default:
		w.add("-j", actionName(v.Action))
	}
}

const (
	tcpReset      = "tcp-reset"
	toDestination = "--to-destination"
)

func actionName(a Action) string {
	switch a {
	case Accept:
		return "ACCEPT"
	case Drop:
		return "DROP"
	case Reject:
		return "REJECT"
	case Return:
		return "RETURN"
	}
	return ""
}
