package policy

import (
	"fmt"
	"maps"
	"slices"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
)

// The names of our fixed sets and chains. A set whose type changes needs
// another name: see package netfilter.
const (
	setNode  = prefix + "-NODE"
	setPods  = prefix + "-PODS"
	setKnown = prefix + "-KNOWN"
	setRange = prefix + "-RANGE"

	chainForward = prefix + "-FORWARD"
	chainOutput  = prefix + "-OUTPUT"
	chainInput   = prefix + "-INPUT"
	chainPass    = prefix + "-PASS"
	chainRevoked = prefix + "-REVOKED"
	chainUnknown = prefix + "-UNKNOWN"
)

// The prefixes under which listeners of the NFLOG group hear of what is denied.
const (
	LogEgress  = "sluice-egress"
	LogIngress = "sluice-ingress"
	LogUnknown = "sluice-unknown"
	LogRevoked = "sluice-revoked"
)

// logLimit is how many packets a second of one source, destination and port
// they hear of.
const logLimit = 10

// jumpOrder has policy come before what the proxy does with a packet.
const jumpOrder = 50

// chainSide is the dispatch of a side: which class a packet's pod is under.
func chainSide(s Side) string {
	if s == Ingress {
		return prefix + "-INGRESS"
	}
	return prefix + "-EGRESS"
}

// nameBucket is the name of a part of the dispatch, and of the set of the pods
// whose class is there.
func nameBucket(s Side, n int) string { return fmt.Sprintf("%s-%X", chainSide(s), n) }

// chainDeny refuses what no class of a side allows.
func chainDeny(s Side) string { return prefix + "-DENY-" + letter(s) }

// setNone is the set of the pods that are cut off.
func setNone(s Side) string { return prefix + letter(s) + "-NONE" }

// static is what the owner "Policy" wishes: all but what pods and classes do.
func (p *Planner) static() map[netfilter.Key]netfilter.Spec {
	out := map[netfilter.Key]netfilter.Spec{}
	var parts [2][buckets][]*class
	for _, hash := range slices.Sorted(maps.Keys(p.classes)) {
		c := p.classes[hash]
		if c.dispatch = c.dispatched(); c.dispatch {
			parts[c.side][c.bucket()] = append(parts[c.side][c.bucket()], c)
		}
	}
	for _, f := range p.cfg.Families {
		r := rules{out: out, family: f, cfg: p.cfg}
		r.set(setNode, netfilter.HashIP)
		for _, a := range p.local {
			r.member(setNode, netfilter.Addr(a))
		}
		if p.cfg.Accept {
			r.set(setPods, netfilter.HashIP)
		}
		if p.cfg.UnknownDeny {
			p.known(&r)
		}
		for _, s := range [...]Side{Egress, Ingress} {
			r.dispatch(s, parts[s])
		}
		r.forward()
		r.output()
		r.input()
	}
	return out
}

// refusals are the chains that refuse, which all others lead to in the end.
func (p *Planner) refusals() map[netfilter.Key]netfilter.Spec {
	out := map[netfilter.Key]netfilter.Spec{}
	for _, f := range p.cfg.Families {
		r := rules{out: out, family: f, cfg: p.cfg}
		r.refusals()
	}
	return out
}

// known makes the sets that tell pods from addresses of nobody. An address of
// the node's own in the range (a bridge's) is not nobody's.
func (p *Planner) known(r *rules) {
	r.set(setKnown, netfilter.HashIP)
	r.set(setRange, netfilter.HashNet)
	for _, all := range p.ranges {
		for _, part := range settable(all.Masked()) {
			r.member(setRange, netfilter.Net(part))
		}
	}
	for _, a := range p.local {
		if p.inRange(a) {
			r.member(setKnown, netfilter.Addr(a))
		}
	}
}

// rules collects one family's rules.
type rules struct {
	out    map[netfilter.Key]netfilter.Spec
	family model.Family
	cfg    Config
}

func (r *rules) set(name string, t netfilter.SetType) {
	r.out[netfilter.SetKey(r.family, name)] = netfilter.SetSpec(t)
}

// member adds an entry of the family's; of the other's none.
func (r *rules) member(set string, e netfilter.Entry) {
	if model.FamilyOf(e.First.Addr()) == r.family {
		r.out[netfilter.MemberKey(r.family, set, e)] = netfilter.Spec{}
	}
}

func (r *rules) chain(name string, c netfilter.Chain) {
	r.out[netfilter.ChainKey(r.family, netfilter.Filter, name)] = c.Spec(r.family)
}

func (r *rules) hook(h netfilter.Hook, name string, c netfilter.Chain) {
	r.chain(name, c)
	r.out[netfilter.JumpKey(r.family, netfilter.Filter, h, name)] = netfilter.JumpSpec(jumpOrder)
}

// from is a match on the packet's source.
func from(set string) netfilter.InSet { return netfilter.In(set, netfilter.Src) }

// to is a match on where the packet goes, address and port.
func to(set string) netfilter.InSet { return netfilter.In(set, netfilter.Dst, netfilter.Dst) }

// when is a rule for what is in sets.
func when(do netfilter.Verdict, sets ...netfilter.InSet) netfilter.Rule {
	r := netfilter.Rule{Do: do}
	copy(r.Sets[:], sets)
	return r
}

// refusals are the chains that end a packet's way. A packet of no connection is
// never answered: it may be a stray one of a connection that is allowed.
func (r *rules) refusals() {
	drop := netfilter.Do(netfilter.Drop)
	for name, tell := range map[string]string{
		chainDeny(Egress): LogEgress, chainDeny(Ingress): LogIngress, chainUnknown: LogUnknown, chainRevoked: LogRevoked,
	} {
		if name == chainUnknown && !r.cfg.UnknownDeny {
			continue
		}
		c := netfilter.Chain{{Limit: logLimit, Do: netfilter.LogTo(r.cfg.LogGroup, tell)}}
		if !r.cfg.Drop {
			c = append(
				c, netfilter.Rule{State: netfilter.StateInvalid, Do: drop},
				netfilter.Rule{Protocol: model.TCP, Do: netfilter.Do(netfilter.Reset)},
				netfilter.Rule{Do: netfilter.Do(netfilter.Reject)},
			)
		} else {
			c = append(c, netfilter.Rule{Do: drop})
		}
		r.chain(name, c)
	}
	if r.cfg.Accept {
		accept := netfilter.Do(netfilter.Accept)
		r.chain(chainPass, netfilter.Chain{when(accept, from(setPods)), when(accept, netfilter.In(setPods, netfilter.Dst))})
	}
}

// dispatch leads to the class of the packet's pod. A part of it is jumped to,
// so that a pod that is about to leave it, and in no class there any more, is
// still looked for in the others.
func (r *rules) dispatch(s Side, parts [buckets][]*class) {
	end := subjectOf(s)
	var all netfilter.Chain
	for n, classes := range parts {
		if len(classes) == 0 {
			continue
		}
		name := nameBucket(s, n)
		r.set(name, netfilter.HashIP)
		all = append(all, when(netfilter.To(name), netfilter.In(name, end)))
		var part netfilter.Chain
		for _, c := range classes {
			part = append(part, when(netfilter.GoTo(c.name()), netfilter.In(c.name(), end)))
		}
		r.chain(name, part)
	}
	r.set(setNone(s), netfilter.HashIP)
	r.chain(chainSide(s), append(all, when(netfilter.GoTo(chainDeny(s)), netfilter.In(setNone(s), end))))
}

// judged are the rules on what needs no verdict because it has one. IPv6's
// neighbour discovery is of no connection.
func (r *rules) judged(pass netfilter.Verdict) netfilter.Chain {
	c := netfilter.Chain{
		{ConnMark: netfilter.HasMark{Value: r.cfg.Revoked, Mask: r.cfg.Revoked}, Do: netfilter.GoTo(chainRevoked)},
		{State: netfilter.StateEstablished | netfilter.StateRelated, Do: pass},
	}
	if r.family == model.IPv6 {
		c = append(c, netfilter.Rule{ICMP: netfilter.AnyICMP, State: netfilter.StateUntracked, Do: netfilter.Do(netfilter.Return)})
	}
	return c
}

// pass is what becomes of what is allowed.
func (r *rules) pass() netfilter.Verdict {
	if r.cfg.Accept {
		return netfilter.GoTo(chainPass)
	}
	return netfilter.Do(netfilter.Return)
}

// sides asks the policies of both ends, and who an address is.
func (r *rules) sides() netfilter.Chain {
	c := netfilter.Chain{{Do: netfilter.To(chainSide(Egress))}, {Do: netfilter.To(chainSide(Ingress))}}
	if r.cfg.UnknownDeny {
		c = append(c, unknown(netfilter.Src), unknown(netfilter.Dst))
	}
	if r.cfg.Accept {
		c = append(c, netfilter.Rule{Do: r.pass()})
	}
	return c
}

// unknown denies what has an address at one end that would be a pod's of this
// node, if only one were known that has it.
func unknown(end netfilter.Side) netfilter.Rule {
	return when(netfilter.GoTo(chainUnknown), netfilter.In(setRange, end), netfilter.NotIn(setKnown, end))
}

// forward judges what goes from pod to pod, or between a pod and the world.
func (r *rules) forward() {
	r.hook(netfilter.Forward, chainForward, append(r.judged(r.pass()), r.sides()...))
}

// output judges what came through a virtual server, and meets it with the
// endpoint's address and still the client's. What this node's own processes
// send cannot be kept from its pods; one that talked to a virtual address has
// that as its source.
func (r *rules) output() {
	back := netfilter.Do(netfilter.Return)
	c := append(r.judged(r.pass()), when(back, from(setNode)), when(back, from(r.cfg.VIPs)))
	if !r.cfg.EnforceHairpin {
		c = append(c, when(back, netfilter.In(r.cfg.Hairpin, netfilter.Dst, netfilter.Dst, netfilter.Src)))
	}
	r.hook(netfilter.Output, chainOutput, append(c, r.sides()...))
}

// input judges what is for this node itself. What a virtual server will take is
// judged when that has chosen an endpoint: exactly that, for a Service's
// address is this node's own on all other ports. What says that it comes from
// this node's address would go as the node's own then, and did not come from
// it: IPv6 does not look.
func (r *rules) input() {
	back, drop := netfilter.Do(netfilter.Return), netfilter.Do(netfilter.Drop)
	c := r.judged(back)
	for _, frontends := range r.cfg.Frontends {
		for _, own := range [...]string{setNode, r.cfg.VIPs} {
			spoofed := when(drop, from(own), to(frontends))
			spoofed.NotFrom = "lo"
			c = append(c, spoofed)
		}
	}
	for _, frontends := range r.cfg.Frontends {
		c = append(c, when(back, to(frontends)))
	}
	c = append(c, netfilter.Rule{Do: netfilter.To(chainSide(Egress))})
	if r.cfg.UnknownDeny {
		c = append(c, unknown(netfilter.Src))
	}
	r.hook(netfilter.Input, chainInput, c)
}
