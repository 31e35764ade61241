package policy_test

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/policy"
)

// The proxy's sets, as far as policy looks into them.
const (
	proxyFrontends = "SLUICE-CLUSTER-IP"
	proxyNodePorts = "SLUICE-EXTERNAL"
	proxyVIPs      = "SLUICE-VIPS"
	proxyHairpin   = "SLUICE-HAIRPIN"
)

// The Service of all worlds, by family: a cluster IP and a NodePort that a
// virtual server answers at, over all protocols.
func vipOf(f model.Family) netip.Addr {
	if f == model.IPv6 {
		return netip.MustParseAddr("fd00:96::10")
	}
	return netip.MustParseAddr("10.96.0.10")
}

func nodeOf(f model.Family) netip.Addr {
	if f == model.IPv6 {
		return netip.MustParseAddr("fd00:a::1")
	}
	return netip.MustParseAddr("192.168.0.1")
}

const (
	vipPort  = 8000
	nodePort = 30080
)

func families() []model.Family { return []model.Family{model.IPv4, model.IPv6} }

// planned is a node n1 whose kernel holds what a planner wishes.
type planned struct {
	planner *policy.Planner
	facts   *policy.Facts
	kernel  *netfiltertest.Kernel
	target  *netfilter.Target
	now     time.Time

	wished map[policy.Owner]map[netfilter.Key]netfilter.Spec
	have   map[netfilter.Key]netfilter.Spec
	Takes  []policy.Wish // all wishes since someone last emptied it
}

func plannedConfig(change ...func(*policy.Config)) policy.Config {
	cfg := policy.Config{
		Families: families(), Node: "n1", Frontends: []string{proxyFrontends, proxyNodePorts}, VIPs: proxyVIPs, Hairpin: proxyHairpin,
		Revoked: 1 << 15, LogGroup: 100,
	}
	for _, fn := range change {
		fn(&cfg)
	}
	return cfg
}

func newPlanned(change ...func(*policy.Config)) *planned {
	cfg := plannedConfig(change...)
	k := netfiltertest.New()
	w := &planned{
		planner: policy.NewPlanner(cfg), facts: policy.NewFacts("n1"), kernel: k,
		target: netfilter.New(netfilter.Options{Runner: k, Sets: k, Families: cfg.Families}),
		now:    time.Unix(1000, 0), have: map[netfilter.Key]netfilter.Spec{},
	}
	w.wished = map[policy.Owner]map[netfilter.Key]netfilter.Spec{{Kind: "Proxy"}: proxyKeys()}
	w.tell(model.Service{Name: nameOf("default/web"), ClusterIPs: []netip.Addr{vipOf(model.IPv4), vipOf(model.IPv6)}})
	return w
}

// proxyKeys are the proxy's sets with the Service of the worlds.
func proxyKeys() map[netfilter.Key]netfilter.Spec {
	out := map[netfilter.Key]netfilter.Spec{}
	for _, f := range families() {
		for name, t := range map[string]netfilter.SetType{
			proxyFrontends: netfilter.HashIPPort, proxyNodePorts: netfilter.HashIPPort, proxyVIPs: netfilter.HashIP, proxyHairpin: netfilter.HashIPPortIP,
		} {
			out[netfilter.SetKey(f, name)] = netfilter.SetSpec(t)
		}
		for _, p := range []model.Protocol{model.TCP, model.UDP, model.SCTP} {
			at := netip.AddrPortFrom(vipOf(f), vipPort)
			out[netfilter.MemberKey(f, proxyFrontends, netfilter.AddrPort(at, p))] = netfilter.Spec{}
			at = netip.AddrPortFrom(nodeOf(f), nodePort)
			out[netfilter.MemberKey(f, proxyNodePorts, netfilter.AddrPort(at, p))] = netfilter.Spec{}
		}
		out[netfilter.MemberKey(f, proxyVIPs, netfilter.Addr(vipOf(f)))] = netfilter.Spec{}
	}
	return out
}

// hairpin has the proxy know an endpoint that may meet itself.
func (w *planned) hairpin(at netip.AddrPort, p model.Protocol) {
	k := netfilter.MemberKey(model.FamilyOf(at.Addr()), proxyHairpin, netfilter.AddrPortAddr(at, p, at.Addr()))
	w.wished[policy.Owner{Kind: "Proxy"}][k] = netfilter.Spec{}
}

func (w *planned) tell(facts ...any) {
	for _, fact := range facts {
		w.facts.Apply(event(fact))
		w.planner.Apply(event(fact))
	}
}

// take is one Take of which everything comes true at once.
func (w *planned) take() []policy.Wish {
	wishes, _ := w.planner.Take(w.now, func(policy.Owner) bool { return true })
	for _, wish := range wishes {
		w.wish(wish)
	}
	w.Takes = append(w.Takes, wishes...)
	return wishes
}

func (w *planned) wish(wish policy.Wish) {
	w.wished[wish.Owner] = wish.Keys
	if len(wish.Keys) == 0 {
		delete(w.wished, wish.Owner)
	}
}

// settle takes until nothing is wished any more, and has the kernel hold it.
func (w *planned) settle(t rapid.TB) {
	t.Helper()
	for n := 0; len(w.take()) > 0; n++ {
		if n > 10 {
			t.Fatal("the planner wishes something new all the time")
		}
	}
	w.write(t)
}

// write has the kernel hold what all wish.
func (w *planned) write(t rapid.TB) {
	t.Helper()
	want := w.union()
	if errs := w.target.Apply(context.Background(), difference(want, w.have)); len(errs) > 0 {
		for _, err := range errs {
			t.Error(err)
		}
		t.FailNow()
	}
	w.have = want
}

// union is what all owners wish. Those who wish the same wish it alike.
func (w *planned) union() map[netfilter.Key]netfilter.Spec {
	out := map[netfilter.Key]netfilter.Spec{}
	for _, keys := range w.wished {
		maps.Copy(out, keys)
	}
	return out
}

// mine are the wishes of the planner.
func (w *planned) mine() map[policy.Owner]map[netfilter.Key]netfilter.Spec {
	out := maps.Clone(w.wished)
	delete(out, policy.Owner{Kind: "Proxy"})
	return out
}

func difference(want, have map[netfilter.Key]netfilter.Spec) reconcile.Change[netfilter.Key, netfilter.Spec] {
	var c reconcile.Change[netfilter.Key, netfilter.Spec]
	for k, v := range want {
		if is, present := have[k]; !present || is != v {
			c.Puts = append(c.Puts, reconcile.Put[netfilter.Key, netfilter.Spec]{Key: k, Spec: v, Present: present})
		}
	}
	for k := range have {
		if _, wanted := want[k]; !wanted {
			c.Dels = append(c.Dels, k)
		}
	}
	return c
}

// host is the node, its virtual servers lead to one endpoint.
func host(to netip.AddrPort) netfiltertest.Host {
	h := netfiltertest.Host{Servers: map[model.FrontendKey]netip.AddrPort{}}
	for _, f := range families() {
		h.Local = append(h.Local, vipOf(f), nodeOf(f))
		for _, p := range []model.Protocol{model.TCP, model.UDP, model.SCTP} {
			for _, at := range []netip.AddrPort{netip.AddrPortFrom(vipOf(f), vipPort), netip.AddrPortFrom(nodeOf(f), nodePort)} {
				h.Servers[model.FrontendKey{Addr: at, Protocol: p}] = to
			}
		}
	}
	return h
}

// way is how a packet gets to where it is judged.
type way string

// The ways, as probes name them.
const (
	forwarded way = ""
	viaVIP    way = "vip"      // to the Service, which has the destination as endpoint
	viaPort   way = "nodeport" // to the Service's NodePort
	fromNode  way = "host"     // sent by a process of the node
	fromVIP   way = "host-vip" // likewise, to the Service
	toNode    way = "node"     // to a port of the node, or
	toVIP     way = "vip-port" // to one of the virtual address that is not the Service's
)

const clientPort = 40000

// trace sends a packet on its way. What it is judged as is the packet itself,
// whichever way it takes.
func (w *planned) trace(p policy.Packet, on way) netfiltertest.Outcome {
	f := model.FamilyOf(p.Dst)
	dst := netip.AddrPortFrom(p.Dst, p.Port)
	packet := netfiltertest.Packet{Src: netip.AddrPortFrom(p.Src, clientPort), Dst: dst, Protocol: p.Protocol, In: "veth0"}
	switch on {
	case viaVIP:
		packet.Dst = netip.AddrPortFrom(vipOf(f), vipPort)
	case viaPort:
		packet.Dst = netip.AddrPortFrom(nodeOf(f), nodePort)
	case fromNode:
		packet.FromNode = true
	case fromVIP:
		packet.Dst, packet.FromNode = netip.AddrPortFrom(vipOf(f), vipPort), true
	}
	return w.kernel.Trace(host(dst), packet)
}

// passes reports whether a packet got where it was to go.
func passes(o netfiltertest.Outcome) bool {
	return o.Fate == netfiltertest.Sent || o.Fate == netfiltertest.ToProcess
}

// see compares probes with what the kernel does: "x/a > y/b TCP 80 vip: no". An
// end is a pod of the fixture, in both families, or an address.
func (w *planned) see(tb testing.TB, lines ...string) {
	tb.Helper()
	for _, line := range lines {
		probe, want, _ := strings.Cut(line, ": ")
		words := strings.Fields(probe)
		on := forwarded
		if len(words) == 6 {
			on = way(words[5])
		}
		found := packets(&testing.T{}, strings.Join(words[:min(5, len(words))], " "))
		if len(found) == 0 {
			tb.Errorf("%s: no packet", line)
		}
		for _, p := range found {
			if got := w.trace(p, on); passes(got) != (want == "yes") {
				tb.Errorf("%s (%s > %s):\n%s", line, p.Src, p.Dst, got)
			}
		}
	}
}

// ownersOf are who wished something, in order.
func ownersOf(wishes []policy.Wish) []string {
	var out []string
	for _, w := range wishes {
		out = append(out, w.Owner.Kind+" "+w.Owner.Name.String())
	}
	slices.SortFunc(out, func(a, b string) int { return cmp.Compare(a, b) })
	return out
}
