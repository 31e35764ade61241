package netfilter

import (
	"fmt"
	"math"
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
	// From is the interface it came in by, NotFrom the one it did not; "": not
	// looked at, and one of them at most. A name that ends in "+" stands for all
	// that begin so. What the node sends came in by none.
	From     string
	NotFrom  string
	Sets     [2]InSet // those in use come first
	Mark     HasMark
	ConnMark HasMark // of the connection's mark; a packet of no connection never matches
	State    State
	// Limit is how many packets a second of one source, destination and
	// destination port match, after as many at once; 0: all. It is looked at
	// after all else. While 65536 of these are counted (fewer in a node of less
	// than 1 GiB), the packets of another are dropped: it is for rules before a
	// refusal. The kernel's module is xt_hashlimit.
	Limit uint16
	Do    Verdict
}

// PortRange are the ports from First to Last, both included. The zero value is
// no match, nor are all ports; port 0 alone cannot be said.
type PortRange struct{ First, Last uint16 }

func (r PortRange) none() bool {
	return r == PortRange{} || r == PortRange{Last: math.MaxUint16}
}

// MaxLimit is the highest Limit: one above is not printed as it was given.
const MaxLimit = 999

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
	Log          // to the NFLOG group, under the prefix
)

// Verdict is what happens to a packet that matches.
type Verdict struct {
	Action      Action
	Chain       string         // Jump, Goto
	Group       uint16         // Log
	Prefix      string         // Log: at most MaxPrefix characters, no spaces or quotes
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

// MaxPrefix is how long a prefix may be.
const MaxPrefix = 63

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
	w.ends(r)
	w.transport(r)
	w.icmp(f, r.ICMP)
	for _, s := range r.Sets {
		w.set(f, s)
	}
	w.mark("mark", r.Mark)
	w.mark("connmark", r.ConnMark)
	w.state(r.State)
	w.limit(f, r)
	w.verdict(r.Do)
	return strings.Join(w, " ")
}

// words collects a rule's words.
type words []string

func (w *words) add(s ...string) { *w = append(*w, s...) }

func (w *words) ends(r Rule) {
	if r.To.IsValid() {
		w.add("-d", host(r.To.Addr()).String())
	}
	if r.From != "" {
		w.add("-i", r.From)
	}
	if r.NotFrom != "" {
		w.add("!", "-i", r.NotFrom)
	}
}

func (w *words) transport(r Rule) {
	if r.Protocol == 0 {
		return
	}
	p := protocolText(r.Protocol)
	w.add("-p", p)
	switch {
	case r.To.IsValid():
		w.add("-m", p, "--dport", portText(r.To.Port()))
	case r.Ports.none():
	case r.Ports.First == r.Ports.Last:
		w.add("-m", p, "--dport", portText(r.Ports.First))
	default:
		w.add("-m", p, "--dport", portText(r.Ports.First)+":"+portText(r.Ports.Last))
	}
}

func portText(port uint16) string { return strconv.Itoa(int(port)) }

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

func (w *words) mark(module string, m HasMark) {
	if m.Mask == 0 {
		return
	}
	w.add("-m", module)
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

func (w *words) limit(f model.Family, r Rule) {
	if r.Limit == 0 {
		return
	}
	n := strconv.Itoa(int(r.Limit))
	w.add("-m", "hashlimit", "--hashlimit-upto", n+perSecond, "--hashlimit-burst", n,
		"--hashlimit-mode", limitMode, "--hashlimit-name", r.limitName(f))
}

const (
	perSecond = "/sec"
	limitMode = "srcip,dstip,dstport"
)

// limitName is the name of the kernel's table for a rule's Limit. It is the
// rule's own, because rules of one name share the counts and the limit of the
// one that came first; and the same whenever the rule is written, so that a
// chain written anew goes on counting. At most 15 characters.
func (r Rule) limitName(f model.Family) string {
	n := r.Limit
	r.Limit = 0
	return "sluice-" + hashOf(fmt.Sprintf("%d %s", n, r.Render(f)))[:8]
}

func (w *words) verdict(v Verdict) {
	switch v.Action {
	case Jump:
		w.add("-j", v.Chain)
	case Goto:
		w.add("-g", v.Chain)
	case Log:
		w.log(v)
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

// log leaves out what iptables-save does.
func (w *words) log(v Verdict) {
	w.add("-j", "NFLOG")
	if v.Prefix != "" {
		w.add(logPrefix, v.Prefix)
	}
	if v.Group != 0 {
		w.add(logGroup, strconv.Itoa(int(v.Group)))
	}
}

const (
	logPrefix     = "--nflog-prefix"
	logGroup      = "--nflog-group"
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
