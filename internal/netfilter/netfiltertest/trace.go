package netfiltertest

import (
	"fmt"
	"net/netip"
	"strings"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
)

// The protocols of packets that are no Service's.
const (
	ICMP   model.Protocol = 1
	ICMPv6 model.Protocol = 58
)

// Packet is a packet that a trace follows.
type Packet struct {
	Src, Dst netip.AddrPort
	Protocol model.Protocol
	Echo     bool            // ICMP, ICMPv6: an echo request
	State    netfilter.State // zero: the first of a connection
	Mark     uint32
	ConnMark uint32 // of its connection; in the states invalid and untracked it has none
	// In is the interface it comes in by; "": one that no rule names. What the
	// node sends to itself comes in by lo, whatever stands here.
	In       string
	FromNode bool // sent by a process of the node itself
	Excess   bool // over every rule's Limit
	// Translated is where conntrack sends a packet that is not its connection's
	// first, because a rule did so with the first; invalid: nowhere else.
	Translated netip.AddrPort
}

// Host is what of a node is not in the rules.
type Host struct {
	// Local are the addresses that packets are delivered to here: the node's
	// own and those on our device.
	Local []netip.Addr
	// Servers are the virtual servers, each with the server that it picks; an
	// invalid one stands for none.
	Servers map[model.FrontendKey]netip.AddrPort
}

// Fate is where a packet ends.
type Fate string

// The fates.
const (
	ToProcess Fate = "reaches a process of the node"
	Sent      Fate = "is sent on"
	Rejected  Fate = "is rejected"
	Dropped   Fate = "is dropped"
)

// Outcome is what became of a packet.
type Outcome struct {
	Fate        Fate
	Dst         netip.AddrPort // where it goes in the end
	Server      netip.AddrPort // the virtual server that took it; invalid: none
	Masqueraded bool
	Mark        uint32
	// Verdict and Rule are those that rejected or dropped it, the rule as
	// "mangle SLUICE-FIREWALL: …"; zero where no rule did.
	Verdict netfilter.Verdict
	Rule    string
	Path    []string // hooks that hold rules and rules that it met, in order
	Logged  []netfilter.Verdict
}

// Trace follows a packet through the rules, as the kernel takes it. A hook's
// tables come in the order mangle, nat, filter; only a connection's first
// packet meets the nat table, and from then on conntrack does with all what
// its rules did with the first. IPVS comes after the filter table's INPUT, or
// after the nat table's OUTPUT, and what it sends to a server leaves through
// OUTPUT and POSTROUTING. It panics at a rule that netfilter.Rule cannot say.
func (k *Kernel) Trace(h Host, p Packet) Outcome {
	if p.State == 0 {
		p.State = netfilter.StateNew
	}
	t := &tracer{kernel: k, host: h, packet: p, family: model.FamilyOf(p.Dst.Addr())}
	t.out.Fate = t.follow()
	t.out.Dst, t.out.Mark = t.packet.Dst, t.packet.Mark
	return t.out
}

type tracer struct {
	kernel *Kernel
	host   Host
	packet Packet
	family model.Family
	hook   netfilter.Hook // that it is in
	last   string         // the rule whose verdict ended the last chain
	out    Outcome
}

func (t *tracer) follow() Fate {
	if t.packet.FromNode {
		return t.fromNode()
	}
	if fate := t.pass(netfilter.Prerouting, "mangle", "nat"); fate != "" {
		return fate
	}
	if !t.local() {
		return t.leave(netfilter.Forward, "mangle", "filter")
	}
	return t.deliver()
}

func (t *tracer) fromNode() Fate {
	if fate := t.pass(netfilter.Output, "mangle", "nat"); fate != "" {
		return fate
	}
	if fate, ours := t.server(); ours {
		return fate
	}
	if fate := t.leave(netfilter.Output, "filter"); fate != Sent || !t.local() {
		return fate
	}
	// It comes back over lo. Its connection has been through the nat table.
	t.packet.In = "lo"
	if fate := t.pass(netfilter.Prerouting, "mangle"); fate != "" {
		return fate
	}
	return t.deliver()
}

// deliver gives the packet to this node.
func (t *tracer) deliver() Fate {
	if fate := t.pass(netfilter.Input, "mangle", "filter"); fate != "" {
		return fate
	}
	if fate, ours := t.server(); ours {
		return fate
	}
	return ToProcess
}

func (t *tracer) local() bool {
	for _, a := range t.host.Local {
		if a == t.packet.Dst.Addr() {
			return true
		}
	}
	return false
}

// server gives the packet to IPVS.
func (t *tracer) server() (Fate, bool) {
	to, ours := t.host.Servers[model.FrontendKey{Addr: t.packet.Dst, Protocol: t.packet.Protocol}]
	if !ours {
		return "", false
	}
	t.out.Server = t.packet.Dst
	if !to.IsValid() {
		t.out.Path = append(t.out.Path, "ipvs: no server")
		return Rejected, true
	}
	t.out.Path = append(t.out.Path, "ipvs: "+to.String())
	t.packet.Dst = to
	return t.leave(netfilter.Output, "mangle", "filter"), true
}

// leave is a hook on the way out, and POSTROUTING.
func (t *tracer) leave(h netfilter.Hook, tables ...string) Fate {
	if fate := t.pass(h, tables...); fate != "" {
		return fate
	}
	if fate := t.pass(netfilter.Postrouting, "mangle", "nat"); fate != "" {
		return fate
	}
	return Sent
}

// pass runs a builtin chain of each table; "" lets the packet go on.
func (t *tracer) pass(h netfilter.Hook, tables ...string) Fate {
	for _, table := range tables {
		if table == "nat" && t.packet.State&netfilter.StateNew == 0 {
			t.translated(h)
			continue
		}
		if fate := t.run(table, h); fate != "" {
			return fate
		}
	}
	return ""
}

// translated does what conntrack does with all packets of a connection but the
// first.
func (t *tracer) translated(h netfilter.Hook) {
	if t.packet.Translated.IsValid() && (h == netfilter.Prerouting || h == netfilter.Output) {
		t.translate(t.packet.Translated)
	}
}

func (t *tracer) translate(to netip.AddrPort) {
	if to == t.packet.Dst {
		return
	}
	t.packet.Dst = to
	t.packet.State |= netfilter.StateDNAT
}

// run runs a builtin chain; "" lets the packet go on.
func (t *tracer) run(table string, h netfilter.Hook) Fate {
	t.hook = h
	c := t.kernel.rules[t.family][table][h.String()]
	if len(c.rules) > 0 {
		t.out.Path = append(t.out.Path, table+" "+h.String())
	}
	v := t.chain(table, h.String())
	if v.Action == 0 && c.policy == "DROP" {
		v, t.last = netfilter.Do(netfilter.Drop), table+" "+h.String()+": policy"
	}
	switch v.Action {
	case netfilter.Drop:
		t.out.Verdict, t.out.Rule = v, t.last
		return Dropped
	case netfilter.Reject, netfilter.Reset:
		t.out.Verdict, t.out.Rule = v, t.last
		return Rejected
	case netfilter.DNAT:
		t.translate(v.To)
	case netfilter.MasqueradeAs:
		t.out.Masqueraded = true
	}
	return ""
}

// chain runs a chain; a verdict without action means that its end was reached.
func (t *tracer) chain(table, name string) netfilter.Verdict {
	for _, r := range t.kernel.rules[t.family][table][name].rules {
		if !r.known {
			panic(fmt.Sprintf("%s %s: the tracer does not know %q", table, name, r.text))
		}
		if !t.matches(r.parsed) {
			continue
		}
		said := name + ": " + r.parsed.Render(t.family)
		t.out.Path = append(t.out.Path, "  "+said)
		v := r.parsed.Do
		switch v.Action {
		case netfilter.Return:
			return netfilter.Verdict{}
		case netfilter.SetMark:
			t.packet.Mark = t.packet.Mark&^v.Mask ^ v.Mark
			continue
		case netfilter.Log:
			t.out.Logged = append(t.out.Logged, v)
			continue
		case netfilter.Goto:
			return t.chain(table, v.Chain) // nobody comes back here
		case netfilter.Jump:
			v = t.chain(table, v.Chain)
		default:
			t.last = table + " " + said
		}
		if v.Action != 0 {
			return v
		}
	}
	return netfilter.Verdict{}
}

func (t *tracer) matches(r netfilter.Rule) bool {
	return t.matchesHeaders(r) && t.matchesMarks(r) && t.matchesSets(r) && (r.Limit == 0 || !t.packet.Excess)
}

func (t *tracer) matchesHeaders(r netfilter.Rule) bool {
	p := t.packet
	icmp := p.Protocol == ICMP || p.Protocol == ICMPv6
	switch {
	case r.Protocol != 0 && r.Protocol != p.Protocol,
		r.To.IsValid() && r.To != p.Dst,
		r.Ports != (netfilter.PortRange{}) && (p.Dst.Port() < r.Ports.First || p.Dst.Port() > r.Ports.Last),
		r.ICMP == netfilter.AnyICMP && !icmp,
		r.ICMP == netfilter.EchoRequest && (!icmp || !p.Echo),
		r.From != "" && !named(r.From, t.in()),
		r.NotFrom != "" && named(r.NotFrom, t.in()):
		return false
	}
	return true
}

// named reports whether an interface has a name, or begins with it where that
// ends in "+". What came in by none has no name, and yet begins with nothing.
func named(name, in string) bool {
	begin, many := strings.CutSuffix(name, "+")
	return in == name || many && strings.HasPrefix(in, begin)
}

// in is the interface that the packet came in by, as far as the hook knows it.
func (t *tracer) in() string {
	if t.hook == netfilter.Output || t.hook == netfilter.Postrouting {
		return ""
	}
	return t.packet.In
}

func (t *tracer) matchesMarks(r netfilter.Rule) bool {
	p := t.packet
	has := func(m netfilter.HasMark, mark uint32) bool { return (mark&m.Mask == m.Value) != m.Not }
	connected := p.State&(netfilter.StateInvalid|netfilter.StateUntracked) == 0
	return (r.State == 0 || r.State&p.State != 0) &&
		(r.Mark.Mask == 0 || has(r.Mark, p.Mark)) &&
		(r.ConnMark.Mask == 0 || connected && has(r.ConnMark, p.ConnMark))
}

func (t *tracer) matchesSets(r netfilter.Rule) bool {
	for _, m := range r.Sets {
		if m.Set != "" && t.inSet(m) == m.Not {
			return false
		}
	}
	return true
}

// inSet looks a packet up. A set of the other family, or one with more
// dimensions than the rule names sides for, matches nothing.
func (t *tracer) inSet(m netfilter.InSet) bool {
	s := t.kernel.sets[netfilter.KernelSet(t.family, m.Set)]
	if s.Family != t.family {
		return false
	}
	var e netfilter.Entry
	for i, d := range dimensions(s.Type) {
		var end netip.AddrPort
		switch m.Sides[i] {
		case netfilter.Src:
			end = t.packet.Src
		case netfilter.Dst:
			end = t.packet.Dst
		default:
			return false
		}
		full := netip.PrefixFrom(end.Addr(), end.Addr().BitLen())
		switch {
		case d == "port":
			e.Port, e.Protocol = end.Port(), t.packet.Protocol
		case i == 0:
			e.First = full
		default:
			e.Second = full
		}
	}
	return s.holds(e)
}

// holds looks addresses up. In a set with a net the longest prefix decides.
func (s *set) holds(e netfilter.Entry) bool {
	net := &e.Second
	switch s.Type {
	case netfilter.HashNet:
		net = &e.First
	case netfilter.HashIPPortNet:
	default:
		_, in := s.members[e]
		return in
	}
	a := net.Addr()
	for bits := a.BitLen(); bits > 0; bits-- {
		*net = netip.PrefixFrom(a, bits).Masked()
		if nomatch, in := s.members[e]; in {
			return !nomatch
		}
	}
	return false
}

// String tells the story in one line for each step.
func (o Outcome) String() string {
	end := fmt.Sprintf("%s at %s", o.Fate, o.Dst)
	if o.Masqueraded {
		end += ", masqueraded"
	}
	return strings.Join(append(o.Path, end), "\n")
}
