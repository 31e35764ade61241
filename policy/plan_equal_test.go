package policy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
	"sluice.dev/sluice/policy"
)

// The cluster of the random worlds: pods of three namespaces on two nodes, with
// few labels, addresses and names of ports, so that policies meet them. Some of
// the addresses are nobody's.
//
//	10.1.0.0/24 fd00:1::/112 on n1, this node    10.1.1.0/24 fd00:1::1:0/112 on n2
func worldAddrs(node, n int) []netip.Addr {
	return addrList(fmt.Sprintf("10.1.%d.%d fd00:1::%d:%d", node-1, n, node-1, n))
}

func strangers() []netip.Addr {
	return addrList("10.1.0.200 10.2.0.9 203.0.113.9 192.168.0.2 fd00:1::c8 fd00:2::9 2001:db8::9 fd00:a::2")
}

func worldPeer(t *rapid.T) string {
	return draw(t, "peer", "app=a", "app!=a", "appin(a|b)", "!app", "app,tier", "all", "ns:all", "ns:team=a", "ns:team!=a", "ns:!team tier",
		"ns:kubernetes.io/metadata.name=y", "ns:team app=b", "unknown", "app=none",
		"0.0.0.0/0", "::/0", "0.0.0.0/0 except 10.1.0.0/16", "0.0.0.0/0 except 0.0.0.0/1 203.0.113.0/24", "0.0.0.0/0 except 128.0.0.0/1",
		"::/0 except fd00::/8", "::/0 except 8000::/1 fd00:1::/64",
		"10.1.0.0/16 except 10.1.0.0/24", "10.1.0.0/24", "10.1.0.0/24 except 10.1.0.2/32 10.1.0.4/31", "10.1.1.1/32", "10.0.0.0/8 except 10.1.0.0/16 10.1.0.1/32",
		"10.0.0.0/8", "203.0.113.0/24", "fd00:1::/64", "fd00:1::/64 except fd00:1::1:0/112", "fd00:1::1/128", "192.168.0.2/32")
}

func worldPort(t *rapid.T) string {
	return draw(t, "port", "TCP 80", "TCP 80-81", "TCP 82-90", "TCP", "UDP", "UDP 53", "SCTP 80", "SCTP 1-65535", "UDP 1-65535", "TCP web", "UDP web", "TCP dns", "UDP dns", "TCP nope", "SCTP web")
}

func worldRule(t *rapid.T) model.PolicyRule {
	return rule(anyList(t, "peers", worldPeer), anyList(t, "ports", worldPort))
}

func worldPolicy(t *rapid.T, names ...string) model.NetworkPolicy {
	parts := []func(*model.NetworkPolicy){draw(t, "types", types(), types("Ingress"), types("Egress"), types("Ingress", "Egress"))}
	for range rapid.IntRange(0, 2).Draw(t, "ingress rules") {
		parts = append(parts, in(worldRule(t)))
	}
	for range rapid.IntRange(0, 2).Draw(t, "egress rules") {
		parts = append(parts, out(worldRule(t)))
	}
	return policyOf(draw(t, "namespace", "x", "x", "y")+"/"+draw(t, "name", names...), draw(t, "selects", "all", "all", "app=a", "app!=a", "tier", "appnotin(a|b)"), parts...)
}

// worldPod is a pod of a name and an address out of a few.
func worldPod(t *rapid.T, n int) model.Pod {
	node := draw(t, "node", 1, 1, 2)
	p := model.Pod{
		Name: nameOf(draw(t, "namespace", "x", "x", "y", "z") + fmt.Sprintf("/p%d", n)), UID: draw(t, "uid", "1", "2"),
		Node: fmt.Sprintf("n%d", node), Addrs: worldAddrs(node, n), Labels: map[string]string{},
	}
	if app := draw(t, "app", "", "a", "b"); app != "" {
		p.Labels["app"] = app
	}
	if rapid.Bool().Draw(t, "tier") {
		p.Labels["tier"] = "1"
	}
	switch draw(t, "kind", "", "", "", "", "", "", "host", "done", "v4", "v6", "none") {
	case "host":
		p.HostNetwork, p.Addrs = true, addrList(fmt.Sprintf("192.168.0.%d fd00:a::%d", node, node))
	case "done":
		p.Done = true
	case "v4":
		p.Addrs = p.Addrs[:1]
	case "v6":
		p.Addrs = p.Addrs[1:]
	case "none":
		p.Addrs = nil
	}
	for range rapid.IntRange(0, 2).Draw(t, "ports") {
		p.Ports = append(p.Ports, model.ContainerPort{
			Name: draw(t, "port", "web", "dns"), Protocol: draw(t, "protocol", model.TCP, model.UDP), Port: draw(t, "number", uint16(80), 81, 53),
		})
	}
	return p
}

func worldNamespace(t *rapid.T) model.Namespace {
	return model.Namespace{Name: draw(t, "namespace", "x", "y", "z"), Labels: draw(t, "labels", map[string]string(nil), map[string]string{"team": "a"}, map[string]string{"team": "b"})}
}

const worldPods = 7

// worldFacts are a random cluster.
func worldFacts(t *rapid.T) []any {
	facts := []any{
		model.Node{Name: "n1", Addrs: addrList("192.168.0.1 fd00:a::1"), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00:1::/112")}},
		model.Node{Name: "n2", Addrs: addrList("192.168.0.2 fd00:a::2")},
		model.LocalAddrs{Addrs: addrList("192.168.0.1 fd00:a::1")},
	}
	for range rapid.IntRange(0, 3).Draw(t, "namespaces") {
		facts = append(facts, worldNamespace(t))
	}
	for n := 1; n <= worldPods; n++ {
		facts = append(facts, worldPod(t, n))
	}
	for range rapid.IntRange(2, 6).Draw(t, "policies") {
		facts = append(facts, worldPolicy(t, "p", "q", "r", "s"))
	}
	return facts
}

// endsOf are the addresses that facts speak of, and some that are nobody's: two
// pods' for each of these.
func endsOf(facts []any) []netip.Addr {
	var pods []netip.Addr
	for _, fact := range facts {
		if p, is := fact.(model.Pod); is && !p.HostNetwork {
			pods = append(pods, p.Addrs...)
		}
	}
	return slices.Concat(pods, pods, strangers())
}

// probes are packets worth a look between two addresses.
func probes(src, dst netip.Addr) []policy.Packet {
	icmp := netfiltertest.ICMP
	if src.Is6() {
		icmp = netfiltertest.ICMPv6
	}
	out := []policy.Packet{{Protocol: icmp}}
	for _, port := range []uint16{53, 80, 81, 82, 443} {
		out = append(out, policy.Packet{Protocol: model.TCP, Port: port})
	}
	for _, port := range []uint16{53, 80} {
		out = append(out, policy.Packet{Protocol: model.UDP, Port: port}, policy.Packet{Protocol: model.SCTP, Port: port})
	}
	for i := range out {
		out[i].Src, out[i].Dst = src, dst
	}
	return out
}

// anyProbe is a packet that a world may see, and the way it takes.
func anyProbe(t *rapid.T, all []netip.Addr) (policy.Packet, way) {
	f := draw(t, "family", families()...)
	of := func(ends []netip.Addr) []netip.Addr {
		return slices.DeleteFunc(slices.Clone(ends), func(a netip.Addr) bool { return model.FamilyOf(a) != f })
	}
	ends := of(all)
	on := draw(t, "way", forwarded, forwarded, forwarded, viaVIP, viaVIP, viaPort, viaPort, fromNode, fromVIP, toNode, toVIP)
	src, dst := draw(t, "from", ends...), draw(t, "to", ends...)
	switch on {
	case fromNode:
		src = nodeOf(f)
	case fromVIP:
		src = vipOf(f)
	case toNode:
		dst = nodeOf(f)
	case toVIP:
		dst = vipOf(f)
	case forwarded:
		if src == dst {
			dst = draw(t, "another", of(strangers())...)
		}
	}
	packets := probes(src, dst)
	if on == viaVIP || on == viaPort || on == fromVIP {
		packets = packets[1:] // no virtual server takes ICMP
	}
	return draw(t, "packet", packets...), on
}

// agree compares the kernel with the oracle.
func (w *planned) agree(t *rapid.T, p policy.Packet, on way, hairpin bool) (allowed bool) {
	want := w.facts.AllowsHere(p, hairpin)
	got := w.trace(p, on)
	if passes(got) != want {
		d := w.facts.Allows(p)
		t.Fatalf("%v %s: allowed is %v, want %v\nby %s\nby %s\n%s\n%s", p, on, passes(got), want, d.Egress.Why, d.Ingress.Why, got, w.kernel.Dump())
	}
	return want
}

// equivalence has the kernel and the oracle agree about random packets in random
// clusters: what rules and sets do is what the API says.
func equivalence(t *rapid.T) (n tally) {
	hairpin := rapid.Bool().Draw(t, "enforce hairpin")
	w := newPlanned(func(c *policy.Config) {
		c.EnforceHairpin = hairpin
		c.Drop = rapid.Bool().Draw(t, "drop")
		c.Accept = rapid.Bool().Draw(t, "accept")
	})
	facts := worldFacts(t)
	w.tell(facts...)
	ends := endsOf(facts)
	for _, a := range ends {
		for _, p := range probes(a, a)[1:] {
			w.hairpin(netip.AddrPortFrom(a, p.Port), p.Protocol)
		}
	}
	w.settle(t)
	for range 60 {
		p, on := anyProbe(t, ends)
		n.cases++
		switch d := w.facts.Allows(p); {
		case !w.agree(t, p, on, hairpin):
			n.denied++
		case d.Egress.Policy != model.Name{} || d.Ingress.Policy != model.Name{}:
			n.granted++
		}
	}
	return n
}

// tally counts cases: those that policies deny, and those that one allows by a
// rule.
type tally struct{ cases, denied, granted int }

// TestKernelAgreesWithOracle: 10,000 cases at least.
func TestKernelAgreesWithOracle(t *testing.T) {
	var all tally
	for all.cases < 20_000 && !t.Failed() {
		rapid.Check(t, func(t *rapid.T) {
			n := equivalence(t)
			all = tally{all.cases + n.cases, all.denied + n.denied, all.granted + n.granted}
		})
	}
	t.Logf("%d cases, of which %d are denied and %d granted", all.cases, all.denied, all.granted)
	if all.denied < all.cases/8 || all.granted < all.cases/20 {
		t.Errorf("%+v: the clusters say little", all)
	}
}

func FuzzKernelAgreesWithOracle(f *testing.F) {
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) { equivalence(t) }))
}

// TestNamesFit: in the kernel.
func TestNamesFit(t *testing.T) {
	w := newPlanned(func(c *policy.Config) { c.Accept, c.UnknownDeny = true, true })
	w.tell(podOf("x/a"), podOf("x/b"), podOf("y/a"), policyOf("x/"+strings.Repeat("p", 63), "all",
		in(rule("pod=a; ns:all; 10.0.0.0/8; 10.0.0.0/8 except 10.1.0.0/16", "TCP serve-80-tcp; UDP 1-65535")), out(rule("pod=a", "TCP nope"))))
	w.settle(t) // the Target refuses names that do not fit
}
