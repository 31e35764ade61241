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
	FromNode bool // sent by a process of the node itself
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
	Masqueraded bool
	Mark        uint32
	Path        []string // hooks and rules that it met, in order
}

// Trace follows a packet through the rules, as the kernel takes it: IPVS comes
// after the filter table's INPUT, or after the nat table's OUTPUT, and what it
// sends to a server leaves through OUTPUT and POSTROUTING. It panics at a rule
// that netfilter.Rule cannot say.
func (k *Kernel) Trace(h Host, p Packet) Outcome {
	if p.State == 0 {
		p.State = netfilter.StateNew
	}
	t := &tracer{kernel: k, host: h, packet: p, family: model.FamilyOf(p.Dst.Addr())}
	t.out.Fate = t.run()
	t.out.Dst, t.out.Mark = t.packet.Dst, t.packet.Mark
	return t.out
}

type tracer struct {
	kernel *Kernel
	host   Host
	packet Packet
	family model.Family
	out    Outcome
}

func (t *tracer) run() Fate {
	if t.packet.FromNode {
		return t.fromNode()
	}
	if fate := t.hook("nat", netfilter.Prerouting); fate != "" {
		return fate
	}
	if !t.local() {
		return t.through("filter", netfilter.Forward)
	}
	if fate := t.hook("filter", netfilter.Input); fate != "" {
		return fate
	}
	if fate, ours := t.server(); ours {
		return fate
	}
	return ToProcess
}

func (t *tracer) fromNode() Fate {
	if fate := t.hook("nat", netfilter.Output); fate != "" {
		return fate
	}
	if fate, ours := t.server(); ours {
		return fate
	}
	if fate := t.through("filter", netfilter.Output); fate != Sent || !t.local() {
		return fate
	}
	if fate := t.hook("filter", netfilter.Input); fate != "" {
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
	switch {
	case !ours:
		return "", false
	case !to.IsValid():
		t.out.Path = append(t.out.Path, "ipvs: no server")
		return Rejected, true
	}
	t.out.Path = append(t.out.Path, "ipvs: "+to.String())
	t.packet.Dst = to
	return t.through("filter", netfilter.Output), true
}

// through is a hook on the way out, and POSTROUTING.
func (t *tracer) through(table string, h netfilter.Hook) Fate {
	if fate := t.hook(table, h); fate != "" {
		return fate
	}
	if fate := t.hook("nat", netfilter.Postrouting); fate != "" {
		return fate
	}
	return Sent
}

// hook runs a builtin chain; "" lets the packet go on. Only a connection's
// first packet meets the nat table.
func (t *tracer) hook(table string, h netfilter.Hook) Fate {
	if table == "nat" && t.packet.State != netfilter.StateNew {
		return ""
	}
	t.out.Path = append(t.out.Path, table+" "+h.String())
	switch v := t.chain(table, h.String()); v.Action {
	case netfilter.Drop:
		return Dropped
	case netfilter.Reject, netfilter.Reset:
		return Rejected
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
		t.out.Path = append(t.out.Path, "  "+name+": "+r.parsed.Render(t.family))
		v := r.parsed.Do
		switch v.Action {
		case netfilter.Return:
			return netfilter.Verdict{}
		case netfilter.SetMark:
			t.packet.Mark = t.packet.Mark&^v.Mask ^ v.Mark
			continue
		case netfilter.Jump:
			v = t.chain(table, v.Chain)
		}
		if v.Action != 0 {
			return v
		}
	}
	return netfilter.Verdict{}
}

func (t *tracer) matches(r netfilter.Rule) bool {
	p := t.packet
	icmp := p.Protocol == ICMP || p.Protocol == ICMPv6
	switch {
	case r.Protocol != 0 && r.Protocol != p.Protocol,
		r.ICMP == netfilter.AnyICMP && !icmp,
		r.ICMP == netfilter.EchoRequest && (!icmp || !p.Echo),
		r.State != 0 && r.State&p.State == 0,
		r.Mark.Mask != 0 && (p.Mark&r.Mark.Mask == r.Mark.Value) == r.Mark.Not:
		return false
	}
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
	if s.Type == netfilter.HashNet {
		return s.holds(e.First.Addr())
	}
	_, in := s.members[e]
	return in
}

// holds looks an address up in a hash:net: the longest prefix decides.
func (s *set) holds(a netip.Addr) bool {
	for bits := a.BitLen(); bits > 0; bits-- {
		p, err := a.Prefix(bits)
		if err != nil {
			return false
		}
		if nomatch, in := s.members[netfilter.Net(p)]; in {
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
