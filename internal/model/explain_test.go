package model

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// why is an explanation's endpoints as a person would write them: of each record
// its address, whether it is in the list of policy Cluster and of policy Local,
// and why.
func why(x Explanation) string {
	var b strings.Builder
	for _, p := range x.Ports {
		for _, e := range p.Endpoints {
			fmt.Fprintf(&b, "%s: %s; %s\n", e.Addr, e.Cluster.text(), e.Local.text())
		}
	}
	return b.String()
}

func (m Membership) text() string {
	in := "out"
	if m.In {
		in = "in"
	}
	return fmt.Sprintf("%s %s (%s)", in, m.Code, m.Text)
}

// hint adds hints to an endpoint: "zone-a" is a zone, all else a node.
func hint(e Endpoint, names ...string) Endpoint {
	for _, n := range names {
		if strings.HasPrefix(n, "zone-") {
			e.ForZones = append(e.ForZones, n)
		} else {
			e.ForNodes = append(e.ForNodes, n)
		}
	}
	return e
}

func ofFamily6(s EndpointSlice) EndpointSlice {
	s.Family = IPv6
	return s
}

func serving(s EndpointSlice, ports ...EndpointPort) EndpointSlice {
	s.Ports = ports
	return s
}

// TestWhyAnEndpointIsInOrOut has a row for each reason. This is node1 in zone-a.
func TestWhyAnEndpointIsInOrOut(t *testing.T) {
	const remote = "out Remote (on node2, not on this node)"
	for name, c := range map[string]struct {
		slices []EndpointSlice
		want   string
	}{
		"ready, here and elsewhere": {
			[]EndpointSlice{slice("a", "web", ep("10.1.0.1", "node1", "rs"), ep("10.1.0.2", "node2", "rs"))},
			"10.1.0.1: in Ready (ready); in Ready (ready on this node)\n" +
				"10.1.0.2: in Ready (ready); " + remote + "\n"},
		"not ready": {
			[]EndpointSlice{slice("a", "web", ep("10.1.0.1", "node1", ""), ep("10.1.0.2", "node1", "s"))},
			"10.1.0.1: out NotReady (not ready); out NotReady (not ready)\n" +
				"10.1.0.2: out NotReady (not ready); out NotReady (not ready)\n"},
		"terminating and serving no more": {
			[]EndpointSlice{slice("a", "web", ep("10.1.0.1", "node1", "t"))},
			"10.1.0.1: out TerminatingNotServing (terminating, and serves no more); out TerminatingNotServing (terminating, and serves no more)\n"},
		"terminating, and others are ready: elsewhere, not here": {
			[]EndpointSlice{slice("a", "web", ep("10.1.0.1", "node1", "st"), ep("10.1.0.2", "node2", "rs"))},
			"10.1.0.1: out TerminatingSpared (terminating, and others are ready); " +
				"in TerminatingServing (terminating, but serves, and none on this node is ready)\n" +
				"10.1.0.2: in Ready (ready); " + remote + "\n"},
		"terminating, and others here are ready": {
			[]EndpointSlice{slice("a", "web", ep("10.1.0.1", "node1", "st"), ep("10.1.0.2", "node1", "rs"))},
			"10.1.0.1: out TerminatingSpared (terminating, and others are ready); out TerminatingSpared (terminating, and others on this node are ready)\n" +
				"10.1.0.2: in Ready (ready); in Ready (ready on this node)\n"},
		"all are terminating": {
			[]EndpointSlice{slice("a", "web", ep("10.1.0.1", "node2", "st"))},
			"10.1.0.1: in TerminatingServing (terminating, but serves, and none is ready); " + remote + "\n"},
		"a node that nobody names": {
			[]EndpointSlice{slice("a", "web", ep("10.1.0.1", "", "rs"))},
			"10.1.0.1: in Ready (ready); out NodeUnknown (it names no node, and so is not known to be on this one)\n"},
		"hints for zones": {
			[]EndpointSlice{slice("a", "web", hint(ep("10.1.0.1", "node1", "rs"), "zone-a", "zone-c"), hint(ep("10.1.0.2", "node2", "rs"), "zone-b"),
				hint(ep("10.1.0.3", "node2", "rs"), "zone-b", "zone-c"))},
			"10.1.0.1: in Hinted (ready, and hints name zone zone-a); in Ready (ready on this node)\n" +
				"10.1.0.2: out HintedElsewhere (kept by hints for zone zone-b; this node is in zone zone-a); " + remote + "\n" +
				"10.1.0.3: out HintedElsewhere (kept by hints for zones zone-b, zone-c; this node is in zone zone-a); " + remote + "\n"},
		"hints for nodes": {
			[]EndpointSlice{slice("a", "web", hint(ep("10.1.0.1", "node1", "rs"), "node1"), hint(ep("10.1.0.2", "node2", "rs"), "node2"))},
			"10.1.0.1: in Hinted (ready, and hints name this node); in Ready (ready on this node)\n" +
				"10.1.0.2: out HintedElsewhere (kept by hints for node node2; this is node1); " + remote + "\n"},
		"hints that one has not": {
			[]EndpointSlice{slice("a", "web", hint(ep("10.1.0.1", "node2", "rs"), "zone-b"), ep("10.1.0.2", "node2", "rs"))},
			"10.1.0.1: in Ready (ready; hints do not count: a ready endpoint has none); " + remote + "\n" +
				"10.1.0.2: in Ready (ready); " + remote + "\n"},
		"hints for other zones alone": {
			[]EndpointSlice{slice("a", "web", hint(ep("10.1.0.1", "node2", "rs"), "zone-b"))},
			"10.1.0.1: in Ready (ready; hints do not count: none is for zone zone-a); " + remote + "\n"},
		"hints for other nodes alone": {
			[]EndpointSlice{slice("a", "web", hint(ep("10.1.0.1", "node2", "rs"), "node2"))},
			"10.1.0.1: in Ready (ready; hints do not count: none is for node node1); " + remote + "\n"},
		"hints do not keep a local endpoint from policy Local": {
			[]EndpointSlice{slice("a", "web", hint(ep("10.1.0.1", "node1", "rs"), "zone-b"), hint(ep("10.1.0.2", "node2", "rs"), "zone-a"))},
			"10.1.0.1: out HintedElsewhere (kept by hints for zone zone-b; this node is in zone zone-a); in Ready (ready on this node)\n" +
				"10.1.0.2: in Hinted (ready, and hints name zone zone-a); " + remote + "\n"},
		"told twice, ready once": {
			[]EndpointSlice{slice("a", "web", ep("10.1.0.1", "node2", "")), slice("b", "web", ep("10.1.0.1", "node2", "rs"))},
			"10.1.0.1: in Ready (ready); " + remote + "\n" +
				"10.1.0.1: out Duplicate (duplicate of another record of 10.1.0.1:8080, which counts and is ready); " +
				"out Duplicate (duplicate of another record of 10.1.0.1:8080, which counts and is ready)\n"},
		"told twice, here once": {
			[]EndpointSlice{slice("a", "web", ep("10.1.0.1", "node2", "rs")), slice("b", "web", ep("10.1.0.1", "node1", "rs"))},
			"10.1.0.1: in Ready (ready); in Ready (ready on this node)\n" +
				"10.1.0.1: out Duplicate (duplicate of another record of 10.1.0.1:8080, which counts and is on this node); " +
				"out Duplicate (duplicate of another record of 10.1.0.1:8080, which counts and is on this node)\n"},
		"told twice the same": {
			[]EndpointSlice{slice("b", "web", ep("10.1.0.1", "node2", "rs")), slice("a", "web", ep("10.1.0.1", "node2", "rs"))},
			"10.1.0.1: in Ready (ready); " + remote + "\n" +
				"10.1.0.1: out Duplicate (duplicate of another record of 10.1.0.1:8080, which counts and comes first); " +
				"out Duplicate (duplicate of another record of 10.1.0.1:8080, which counts and comes first)\n"},
		"a slice without the port": {
			[]EndpointSlice{serving(slice("a", "web", ep("10.1.0.1", "node1", "rs")), EndpointPort{"http", UDP, 8080}, EndpointPort{"metrics", TCP, 9090})},
			`10.1.0.1: out NoSuchPort (EndpointSlice default/a has no TCP port named "http"); out NoSuchPort (EndpointSlice default/a has no TCP port named "http")` + "\n"},
		"a family that the Service has not": {
			[]EndpointSlice{ofFamily6(slice("a", "web", ep("fd00::1", "node1", "rs")))},
			"fd00::1: out NoClusterIP (the Service has no IPv6 cluster IP); out NoClusterIP (the Service has no IPv6 cluster IP)\n"},
		"none at all": {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			facts := []any{web("web", nil), Node{Name: "node1", Labels: map[string]string{zoneLabel: "zone-a"}}}
			for _, s := range c.slices {
				facts = append(facts, s)
			}
			for range 2 { // whatever the order
				x, ok := Explain(newStore(facts...), Name{"default", "web"})
				if got := why(x); got != c.want || !ok {
					t.Errorf("got\n%swant\n%s", got, c.want)
				}
				slices.Reverse(facts)
			}
		})
	}
}

func TestHintsWithoutAZone(t *testing.T) {
	s := newStore(web("web", nil), slice("a", "web", hint(ep("10.1.0.1", "node2", "rs"), "zone-b")))
	x, _ := Explain(s, Name{"default", "web"})
	const want = "10.1.0.1: in Ready (ready; hints do not count: the zone of this node is not known); out Remote (on node2, not on this node)\n"
	if got := why(x); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}

// TestWhyAFrontendIsWithheld: each is there, with the Service's other ones.
func TestWhyAFrontendIsWithheld(t *testing.T) {
	old := web("old", func(s *Service) {
		s.Created = time.Unix(1, 0)
		s.ExternalIPs = addrs("203.0.113.9")
		s.HealthPort = 31000
	})
	for name, c := range map[string]struct {
		change  func(*Service)
		partial bool
		want    string
	}{
		"another Service has it": {
			func(s *Service) { s.ClusterIPs, s.ExternalIPs = addrs("10.96.0.2"), addrs("203.0.113.9") }, false,
			"ClusterIP 10.96.0.2:80 \nExternalIP 203.0.113.9:80 FrontendInUse default/old, which is older\n"},
		"a family it has not": {
			func(s *Service) { s.ClusterIPs, s.ExternalIPs = addrs("10.96.0.2"), addrs("2001:db8::1") }, false,
			"ClusterIP 10.96.0.2:80 \nExternalIP [2001:db8::1]:80 FamilyMismatch has no IPv6 cluster IP\n"},
		"a node's address": {
			func(s *Service) { s.ClusterIPs, s.LoadBalancerIPs = addrs("10.96.0.2"), addrs("192.0.2.10") }, false,
			"ClusterIP 10.96.0.2:80 \nLoadBalancer 192.0.2.10:80 AddressIsNodes is an address of a node\n"},
		"a range that is not allowed, on both ports": {
			func(s *Service) {
				s.ClusterIPs, s.ExternalIPs = addrs("10.96.0.2"), addrs("198.51.100.1")
				s.Ports = append(s.Ports, ServicePort{"dns", UDP, 53, 0})
			}, false,
			"ClusterIP 10.96.0.2:80 \nClusterIP 10.96.0.2:53 \n" +
				"ExternalIP 198.51.100.1:80 ExternalIPNotAllowed --allow-external-ips\nExternalIP 198.51.100.1:53 ExternalIPNotAllowed --allow-external-ips\n"},
		"endpoints that may be told of yet": {
			func(s *Service) { s.ClusterIPs = addrs("10.96.0.2") }, true,
			"ClusterIP 10.96.0.2:80 NotAllTold not every source has told\n"},
		"a health check that another has": {
			func(s *Service) { s.ClusterIPs, s.HealthPort = addrs("10.96.0.2"), 31000 }, false,
			"ClusterIP 10.96.0.2:80 \nhealth 192.0.2.10:31000 FrontendInUse default/old, which is older\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewStore(StoreOptions{NodeName: "node1", ExternalIPs: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32")}})
			for _, fact := range []any{Node{Name: "node1", Addrs: addrs("192.0.2.10")}, web("young", c.change), old} {
				s.Apply(Event{Put: fact})
			}
			s.Partial(c.partial)
			x, _ := Explain(s, Name{"default", "young"})
			var got strings.Builder
			line := func(what string, at netip.AddrPort, r Reason) {
				_, want, _ := strings.Cut(c.want, " "+r.Code+" ")
				want, _, _ = strings.Cut(want, "\n")
				if r.Code != "" && strings.Contains(r.Text, want) {
					r.Text = want // the rest is Resolve's to test
				}
				fmt.Fprintf(&got, "%s %s %s\n", what, at, strings.TrimSpace(r.Code+" "+r.Text))
			}
			for _, f := range x.Frontends {
				line(f.Kind.String(), f.Addr, f.Withheld)
			}
			for _, h := range x.Health {
				line("health", h.Addr, h.Withheld)
			}
			if got.String() != c.want {
				t.Errorf("got\n%swant\n%s", got.String(), c.want)
			}
			if v := Resolve(s, Name{"default", "young"}); !reflect.DeepEqual(x.Problems, v.Problems) {
				t.Errorf("problems %v, of the view %v", x.Problems, v.Problems)
			}
		})
	}
}

func TestWhyThereIsNoLoadBalancerIP(t *testing.T) {
	pool := AddressPool{Name: "lan", AutoAssign: true}
	for name, c := range map[string]struct {
		change func(*Service)
		pools  []AddressPool
		want   string // the code, and a word of the text
	}{
		"it does not ask":           {func(s *Service) { s.Balancer.Wanted = false }, nil, ""},
		"it has one":                {func(s *Service) { s.LoadBalancerIPs = addrs("203.0.113.1") }, nil, ""},
		"ranges that are none":      {func(s *Service) { s.Balancer.Withheld, s.Balancer.Status = true, addrs("203.0.113.1") }, nil, "SourceRangesUnusable ranges"},
		"the balancer is a proxy":   {func(s *Service) { s.Balancer.Status = addrs("203.0.113.1") }, nil, "ThroughBalancer 203.0.113.1"},
		"it asks unclearly":         {func(s *Service) { s.Balancer.Unclear = true }, []AddressPool{pool}, "RequestUnclear Events"},
		"a pool that there is not":  {func(s *Service) { s.Balancer.Pool = "wan" }, []AddressPool{pool}, "NoSuchPool wan"},
		"a pool that gives nothing": {func(s *Service) { s.Balancer.Pool = "lan" }, []AddressPool{{Name: "lan", Disabled: true}}, "PoolDisabled lan"},
		"no pool at all":            {func(*Service) {}, nil, "NoPool AddressPool"},
		"another's class":           {func(s *Service) { s.Balancer.Class = "example.com/lb" }, nil, "NotGivenYet example.com/lb"},
		"not given yet":             {func(*Service) {}, []AddressPool{pool}, "NotGivenYet controller"},
	} {
		t.Run(name, func(t *testing.T) {
			svc := web("web", func(s *Service) { s.Balancer.Wanted = true; c.change(s) })
			s := newStore(svc)
			for _, p := range c.pools {
				s.Apply(Event{Put: p})
			}
			x, _ := Explain(s, svc.Name)
			code, word, _ := strings.Cut(c.want, " ")
			if got := x.Unbalanced; got.Code != code || !strings.Contains(got.Text, word) {
				t.Errorf("%+v, want %s", got, c.want)
			}
			if sum, _ := Summarize(s, svc.Name); sum.Unbalanced != x.Unbalanced {
				t.Errorf("in a list %+v", sum.Unbalanced)
			}
		})
	}
}

// TestExplanationsAgreeWithViews: whatever the facts and the order they came in,
// an explanation says of every endpoint that is in a view that it is in, and of
// no other; the same by history and fresh.
func TestExplanationsAgreeWithViews(t *testing.T) {
	in, out := 0, map[string]int{}
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		s, fresh := history(rnd)
		s.Partial(seed%2 == 0)
		fresh.Partial(seed%2 == 0)
		for i := range 4 {
			name := Name{"default", fmt.Sprint("s", i)}
			x, ok := Explain(s, name)
			if y, too := Explain(fresh, name); ok != too || !reflect.DeepEqual(x, y) {
				t.Fatalf("seed %d, %s: by history\n%+v\nfresh\n%+v", seed, name, x, y)
			}
			sum, _ := Summarize(s, name)
			if a, b := Resolve(s, name), agreed(t, x); !reflect.DeepEqual(a.Frontends, b) || !reflect.DeepEqual(a, sum.View) && ok {
				t.Fatalf("seed %d, %s: the view has\n%+v\nthe explanation\n%+v\nthe summary\n%+v", seed, name, a.Frontends, b, sum.View)
			}
			for _, p := range x.Ports {
				for _, e := range p.Endpoints {
					if e.Cluster.Code == "" || e.Cluster.Text == "" || e.Local.Code == "" || e.Local.Text == "" {
						t.Fatalf("seed %d, %s: %s has no reason: %+v", seed, name, e.At, e)
					}
					if e.Cluster.In {
						in++
					} else {
						out[e.Cluster.Code]++
					}
				}
			}
		}
	}
	t.Logf("%d in, out %v", in, out)
	for _, code := range []string{"NotReady", "Duplicate", "HintedElsewhere", "TerminatingSpared"} {
		if in == 0 || out[code] == 0 {
			t.Errorf("no %s among them", code)
		}
	}
}

// agreed are the frontends of an explanation that are not withheld. Their lists
// have to be those of the endpoints that are said to be in.
func agreed(t *testing.T, x Explanation) (list []Frontend) {
	t.Helper()
	for _, f := range x.Frontends {
		if f.Withheld != (Reason{}) {
			continue
		}
		list = append(list, f.Frontend)
		i := slices.IndexFunc(x.Ports, func(p ExplainedPort) bool {
			return p.Name == f.PortName && p.Protocol == f.Protocol && p.Family == FamilyOf(f.Addr.Addr())
		})
		var cluster, local []netip.AddrPort
		for _, e := range x.Ports[i].Endpoints {
			if e.Cluster.In {
				cluster = append(cluster, e.At)
			}
			if e.Local.In {
				local = append(local, e.At)
			}
		}
		if !slices.Equal(cluster, at(f.Cluster)) || !slices.Equal(local, at(f.Local)) {
			t.Errorf("%s %s has %v and %v, the endpoints in are %v and %v", x.Service.Name, f.Addr, f.Cluster, f.Local, cluster, local)
		}
	}
	return list
}

func at(backends []Backend) (list []netip.AddrPort) {
	for _, b := range backends {
		list = append(list, b.Addr)
	}
	return list
}

func TestNoExplanation(t *testing.T) {
	s := newStore(slice("a", "web", ep("10.1.0.1", "node1", "rs")))
	if x, ok := Explain(s, Name{"default", "web"}); ok {
		t.Errorf("of no Service: %+v", x)
	}
	if n := NamesOf(s, Name{"default", "web"}); len(n.Frontends)+len(n.Endpoints) > 0 {
		t.Errorf("names of no Service: %+v", n)
	}
	if _, ok := Summarize(s, Name{"default", "web"}); ok || len(ServiceNames(s)) > 0 {
		t.Error("a summary of no Service")
	}
}

// TestNames: what a Service has lost to another has that one's name alone.
func TestNames(t *testing.T) {
	old := web("old", func(s *Service) { s.Created = time.Unix(1, 0); s.ExternalIPs = addrs("203.0.113.9") })
	young := web("young", func(s *Service) {
		s.ClusterIPs, s.ExternalIPs = addrs("10.96.0.2"), addrs("203.0.113.9")
		s.Ports = append(s.Ports, ServicePort{"", UDP, 53, 0})
	})
	pod := ep("10.1.0.1", "node2", "")
	pod.Pod = "young-0"
	s := newStore(young, old, slice("a", "young", pod, ep("10.1.0.2", "", "rs")), slice("b", "old", ep("10.1.0.3", "node1", "rs")))
	n := NamesOf(s, young.Name)
	wantFrontends := map[FrontendKey]string{
		{netip.MustParseAddrPort("10.96.0.2:80"), TCP}: "http", {netip.MustParseAddrPort("10.96.0.2:53"), UDP}: "",
		{netip.MustParseAddrPort("203.0.113.9:53"), UDP}: "", // of 203.0.113.9:80 the older has TCP
	}
	wantEndpoints := []NamedEndpoint{{netip.MustParseAddrPort("10.1.0.1:8080"), "young-0", "node2"}}
	if !reflect.DeepEqual(n.Frontends, wantFrontends) || !reflect.DeepEqual(n.Endpoints, wantEndpoints) {
		t.Errorf("%+v, want %v and %v", n, wantFrontends, wantEndpoints)
	}
	if got := NamesOf(s, old.Name).Frontends; len(got) != 2 {
		t.Errorf("the older has %v", got)
	}
	if got := ServiceNames(s); !slices.Equal(got, []Name{old.Name, young.Name}) {
		t.Errorf("Services %v", got)
	}
}
