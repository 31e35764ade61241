package nodeport

import (
	"net/netip"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
)

// DefaultMark is kube-proxy's masquerade mark, bit 14.
const DefaultMark uint32 = 1 << 14

// Config is what the rules depend on.
type Config struct {
	Families []model.Family
	// Mark has the one bit of packet marks that says "to be masqueraded"; 0
	// means DefaultMark.
	Mark uint32
	// ClusterCIDRs are where pods are. A family without one has no detector.
	ClusterCIDRs []netip.Prefix
	// PodInterface is the interface that packets of this node's pods come in by,
	// with which every family has a detector; ClusterCIDRs are not looked at
	// then. A name that ends in "+" stands for all that begin so. "": none.
	PodInterface string
	// MasqueradeAll masquerades all traffic to ClusterIPs, that of pods too.
	MasqueradeAll bool
}

// The names of our sets and chains. A set whose type changes needs another
// name: see package netfilter.
const (
	setClusterIP = netfilter.Prefix + "CLUSTER-IP"
	setExternal  = netfilter.Prefix + "EXTERNAL"
	setLocal     = netfilter.Prefix + "LOCAL"
	setShortcut  = netfilter.Prefix + "SHORTCUT"
	setReject    = netfilter.Prefix + "REJECT"
	setDrop      = netfilter.Prefix + "DROP"
	setRanged    = netfilter.Prefix + "RANGED"
	setAllowed   = netfilter.Prefix + "ALLOWED"
	setHealth    = netfilter.Prefix + "HEALTH"
	setHairpin   = netfilter.Prefix + "HAIRPIN"
	setVIPs      = netfilter.Prefix + "VIPS"
	setPods      = netfilter.Prefix + "PODS"

	chainFirewall    = netfilter.Prefix + "FIREWALL"
	chainServices    = netfilter.Prefix + "SERVICES"
	chainOutput      = netfilter.Prefix + "OUTPUT"
	chainShortcuts   = netfilter.Prefix + "SHORTCUTS"
	chainPostrouting = netfilter.Prefix + "POSTROUTING"
	chainInput       = netfilter.Prefix + "INPUT"
	chainForward     = netfilter.Prefix + "FORWARD"
)

// jumpOrder leaves room for jumps that have to come before ours or after.
const jumpOrder = 100

// Static are the sets, chains and jumps of the node: what Services' members
// are looked up in.
func Static(cfg Config) map[netfilter.Key]netfilter.Spec {
	out := map[netfilter.Key]netfilter.Spec{}
	for _, f := range cfg.Families {
		r := rules{out: out, family: f, mark: cfg.Mark, all: cfg.MasqueradeAll, iface: cfg.PodInterface}
		if r.mark == 0 {
			r.mark = DefaultMark
		}
		r.sets()
		if r.iface == "" {
			r.detect(cfg.ClusterCIDRs)
		}
		r.firewall()
		r.services()
		r.output()
		r.postrouting()
		r.input()
		r.forward()
	}
	return out
}

// rules collects one family's rules.
type rules struct {
	out      map[netfilter.Key]netfilter.Spec
	family   model.Family
	mark     uint32
	iface    string // pods'; "": set PODS tells them
	detector bool   // there is a set PODS
	all      bool   // masquerade all
}

func (r *rules) sets() {
	for name, t := range map[string]netfilter.SetType{
		setClusterIP: netfilter.HashIPPort,
		setExternal:  netfilter.HashIPPort,
		setLocal:     netfilter.HashIPPort,
		setShortcut:  netfilter.HashIPPort,
		setReject:    netfilter.HashIPPort,
		setDrop:      netfilter.HashIPPort,
		setRanged:    netfilter.HashIPPort,
		setAllowed:   netfilter.HashIPPortNet,
		setHealth:    netfilter.HashIPPort,
		setHairpin:   netfilter.HashIPPortIP,
		setVIPs:      netfilter.HashIP,
	} {
		r.out[netfilter.SetKey(r.family, name)] = netfilter.SetSpec(t)
	}
}

// detect makes the set of pods' addresses, if anyone says where they are.
func (r *rules) detect(cidrs []netip.Prefix) {
	for _, c := range cidrs {
		if model.FamilyOf(c.Addr()) != r.family {
			continue
		}
		if !r.detector {
			r.out[netfilter.SetKey(r.family, setPods)] = netfilter.SetSpec(netfilter.HashNet)
			r.detector = true
		}
		for _, half := range settable(c) {
			r.out[netfilter.MemberKey(r.family, setPods, netfilter.Net(half))] = netfilter.Spec{}
		}
	}
}

// settable is a prefix as a set takes it: everything goes in as two halves.
func settable(p netip.Prefix) []netip.Prefix {
	if p.Bits() > 0 {
		return []netip.Prefix{p}
	}
	low := netip.PrefixFrom(p.Masked().Addr(), 1)
	high := netip.PrefixFrom(netip.AddrFrom4([4]byte{128}), 1)
	if p.Addr().Is6() {
		high = netip.PrefixFrom(netip.AddrFrom16([16]byte{128}), 1)
	}
	return []netip.Prefix{low, high}
}

func (r *rules) chain(t netfilter.Table, name string, hooks []netfilter.Hook, c netfilter.Chain) {
	r.out[netfilter.ChainKey(r.family, t, name)] = c.Spec(r.family)
	for _, h := range hooks {
		r.out[netfilter.JumpKey(r.family, t, h, name)] = netfilter.JumpSpec(jumpOrder)
	}
}

// to is a match on a Service's address and port.
func to(set string) netfilter.InSet { return netfilter.In(set, netfilter.Dst, netfilter.Dst) }

// first are the states of a connection's first packet. An untracked packet
// counts as one, or whoever turns connection tracking off for an address would
// open the node through it.
const first = netfilter.StateNew | netfilter.StateUntracked

// firewall drops what comes from outside a load-balancer address's source
// ranges. It stands where the packet still has the address it was sent to,
// before any translation and before IPVS takes packets of the node's own: pods
// and nodes have to be in a range as everyone else.
func (r *rules) firewall() {
	stranger := netfilter.NotIn(setAllowed, netfilter.Dst, netfilter.Dst, netfilter.Src)
	r.chain(netfilter.Mangle, chainFirewall, []netfilter.Hook{netfilter.Prerouting, netfilter.Output}, netfilter.Chain{
		{Sets: [2]netfilter.InSet{to(setRanged), stranger}, Do: netfilter.Do(netfilter.Drop)},
	})
}

// services marks what has to leave with this node's address, so that answers
// come back through the virtual server here, and has pods take the shortcut.
func (r *rules) services() {
	var c netfilter.Chain
	mark := netfilter.MarkBits(r.mark)
	switch {
	case r.all:
		c = append(c, netfilter.Rule{Sets: [2]netfilter.InSet{to(setClusterIP)}, Do: mark})
	case r.iface != "":
		c = append(c, netfilter.Rule{NotFrom: r.iface, Sets: [2]netfilter.InSet{to(setClusterIP)}, Do: mark})
	case r.detector:
		notPod := netfilter.NotIn(setPods, netfilter.Src)
		c = append(c, netfilter.Rule{Sets: [2]netfilter.InSet{to(setClusterIP), notPod}, Do: mark})
	}
	notLocal := netfilter.NotIn(setLocal, netfilter.Dst, netfilter.Dst)
	c = append(c, netfilter.Rule{Sets: [2]netfilter.InSet{to(setExternal), notLocal}, Do: mark})
	if r.iface != "" {
		c = append(c, netfilter.Rule{From: r.iface, Sets: [2]netfilter.InSet{to(setLocal)}, Do: netfilter.To(chainShortcuts)})
	}
	if r.detector {
		pod := netfilter.In(setPods, netfilter.Src)
		c = append(c, netfilter.Rule{Sets: [2]netfilter.InSet{to(setLocal), pod}, Do: netfilter.To(chainShortcuts)})
	}
	r.chain(netfilter.NAT, chainServices, []netfilter.Hook{netfilter.Prerouting}, c)
	r.chain(netfilter.NAT, chainShortcuts, nil, nil) // a map, see Desired
}

// output is services for what this node itself sends: it is in the cluster
// without being a pod.
func (r *rules) output() {
	mine := [2]netfilter.InSet{to(setLocal)}
	r.chain(netfilter.NAT, chainOutput, []netfilter.Hook{netfilter.Output}, netfilter.Chain{
		{Sets: mine, Do: netfilter.MarkBits(r.mark)},
		{Sets: mine, Do: netfilter.To(chainShortcuts)},
		{Do: netfilter.To(chainServices)},
	})
}

// postrouting masquerades. The mark is cleared first, so that what a tunnel
// makes of the packet is not masqueraded once more.
func (r *rules) postrouting() {
	itself := netfilter.In(setHairpin, netfilter.Dst, netfilter.Dst, netfilter.Src)
	r.chain(netfilter.NAT, chainPostrouting, []netfilter.Hook{netfilter.Postrouting}, netfilter.Chain{
		{Sets: [2]netfilter.InSet{itself}, Do: netfilter.Masquerade()},
		{Mark: netfilter.HasMark{Value: r.mark, Mask: r.mark, Not: true}, Do: netfilter.Do(netfilter.Return)},
		{Do: netfilter.ClearBits(r.mark)},
		{Do: netfilter.Masquerade()},
	})
}

// input decides about connections that IPVS would take next, and about those
// that it would not.
//
//   - Without an endpoint they are refused, or dropped (see model.Vacancy).
//     There is no virtual server then, so that what this node itself sends
//     comes here too, over the loopback device.
//   - An address of a Service answers on its ports only. On a shortcut's it
//     answers those that were sent there.
//
// TCP is reset: a socket takes a reset even while it is busy sending, when it
// loses an ICMP error and learns nothing before it tries again a second later.
func (r *rules) input() {
	ping := netfilter.EchoRequest
	if r.family == model.IPv6 {
		ping = netfilter.AnyICMP // neighbour discovery and packet-too-big too
	}
	only := func(m netfilter.InSet) [2]netfilter.InSet { return [2]netfilter.InSet{m} }
	back, reset, reject := netfilter.Do(netfilter.Return), netfilter.Do(netfilter.Reset), netfilter.Do(netfilter.Reject)
	r.chain(netfilter.Filter, chainInput, []netfilter.Hook{netfilter.Input}, netfilter.Chain{
		{State: netfilter.StateEstablished | netfilter.StateRelated, Do: back},
		{Protocol: model.TCP, Sets: only(to(setHealth)), Do: netfilter.Do(netfilter.Accept)},
		{Sets: only(to(setDrop)), State: first, Do: netfilter.Do(netfilter.Drop)},
		{Protocol: model.TCP, Sets: only(to(setReject)), State: first, Do: reset},
		{Sets: only(to(setReject)), State: first, Do: reject},
		{Sets: only(netfilter.NotIn(setVIPs, netfilter.Dst)), Do: back},
		{Sets: only(to(setClusterIP)), Do: back},
		{Sets: only(to(setExternal)), Do: back},
		{Sets: only(to(setShortcut)), State: netfilter.StateDNAT, Do: back},
		{ICMP: ping, Do: back},
		{Protocol: model.TCP, State: first, Do: reset},
		{State: first, Do: reject},
	})
}

// forward lets through what we send to endpoints and what they answer, on a
// node whose policy is to drop what it forwards.
func (r *rules) forward() {
	accept := netfilter.Do(netfilter.Accept)
	r.chain(netfilter.Filter, chainForward, []netfilter.Hook{netfilter.Forward}, netfilter.Chain{
		{Mark: netfilter.HasMark{Value: r.mark, Mask: r.mark}, Do: accept},
		{State: netfilter.StateRelated | netfilter.StateEstablished, Do: accept},
	})
}
