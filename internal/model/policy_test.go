package model

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// hintedEp is a ready endpoint with hints: "z:zone" and "n:node".
func hintedEp(a, node string, hints ...string) Endpoint {
	e := ep(a, node, "rs")
	for _, h := range hints {
		kind, name, _ := strings.Cut(h, ":")
		if kind == "z" {
			e.ForZones = append(e.ForZones, name)
		} else {
			e.ForNodes = append(e.ForNodes, name)
		}
	}
	return e
}

// TestTopology is the row "Topology mode" of section 1.3. This is node1 in
// zone a; the lists are cluster, then local.
func TestTopology(t *testing.T) {
	for name, c := range map[string]struct {
		endpoints []Endpoint
		zoneless  bool
		want      string
	}{
		"no hints": {
			[]Endpoint{hintedEp("10.1.0.1", "node1"), hintedEp("10.1.0.2", "node2")}, false,
			"[10.1.0.1 10.1.0.2] [10.1.0.1]"},
		"zone hints": {
			[]Endpoint{hintedEp("10.1.0.1", "node1", "z:b"), hintedEp("10.1.0.2", "node2", "z:a"), hintedEp("10.1.0.3", "node3", "z:b", "z:a")}, false,
			"[10.1.0.2 10.1.0.3] [10.1.0.1]"},
		"one endpoint without hints turns them off": {
			[]Endpoint{hintedEp("10.1.0.1", "node1", "z:b"), hintedEp("10.1.0.2", "node2", "z:a"), hintedEp("10.1.0.3", "node3")}, false,
			"[10.1.0.1 10.1.0.2 10.1.0.3] [10.1.0.1]"},
		"one that is not ready and has none does not": {
			[]Endpoint{hintedEp("10.1.0.1", "node2", "z:a"), ep("10.1.0.2", "node2", "st"), hintedEp("10.1.0.3", "node2", "z:b")}, false,
			"[10.1.0.1] []"},
		"no hint names this zone": {
			[]Endpoint{hintedEp("10.1.0.1", "node1", "z:b"), hintedEp("10.1.0.2", "node2", "z:c")}, false,
			"[10.1.0.1 10.1.0.2] [10.1.0.1]"},
		"a node without a zone": {
			[]Endpoint{hintedEp("10.1.0.1", "node1", "z:b"), hintedEp("10.1.0.2", "node2", "z:a")}, true,
			"[10.1.0.1 10.1.0.2] [10.1.0.1]"},
		"node hints before zone hints": {
			[]Endpoint{hintedEp("10.1.0.1", "node1", "n:node1", "z:b"), hintedEp("10.1.0.2", "node2", "n:node2", "z:a")}, false,
			"[10.1.0.1] [10.1.0.1]"},
		"no node hint names this node: the zone's": {
			[]Endpoint{hintedEp("10.1.0.1", "node2", "n:node2", "z:b"), hintedEp("10.1.0.2", "node3", "n:node3", "z:a")}, false,
			"[10.1.0.2] []"},
		"an endpoint without a node hint: the zone's": {
			[]Endpoint{hintedEp("10.1.0.1", "node1", "n:node1", "z:b"), hintedEp("10.1.0.2", "node3", "z:a")}, false,
			"[10.1.0.2] [10.1.0.1]"},
		"none ready: hints do not apply": {
			[]Endpoint{func() Endpoint {
				e := ep("10.1.0.1", "node2", "st")
				e.ForZones = []string{"b"}
				return e
			}()}, false, "[10.1.0.1(leaving)] []"},
	} {
		t.Run(name, func(t *testing.T) {
			node := Node{Name: "node1", Labels: map[string]string{zoneLabel: "a"}}
			if c.zoneless {
				node.Labels = nil
			}
			s := newStore(web("web", nil), node, slice("a", "web", c.endpoints...))
			want := "ClusterIP TCP 10.96.0.1:80 " + c.want + "\n"
			if got := text(Resolve(s, Name{"default", "web"})); got != want {
				t.Errorf("got  %swant %s", got, want)
			}
		})
	}
}

// TestZoneOfTheNodeChanges: its Services follow without a restart.
func TestZoneOfTheNodeChanges(t *testing.T) {
	node := func(zone string) Node { return Node{Name: "node1", Labels: map[string]string{zoneLabel: zone}} }
	s := newStore(web("web", nil), node("a"), slice("a", "web", hintedEp("10.1.0.1", "node2", "z:a"), hintedEp("10.1.0.2", "node3", "z:b")))
	s.TakeDirty(nil)
	s.Apply(Event{Put: node("b")})
	if got := s.TakeDirty(nil); len(got) != 1 {
		t.Errorf("dirty %v, want the Service", got)
	}
	if got, want := text(Resolve(s, Name{"default", "web"})), "ClusterIP TCP 10.96.0.1:80 [10.1.0.2] []\n"; got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}

// TestPolicies: which list a frontend uses, where in-cluster clients are sent,
// and what becomes of connections when the list is empty (spec 1.4 and 1.5).
func TestPolicies(t *testing.T) {
	here, there := ep("10.1.0.1", "node1", "rs"), ep("10.1.0.2", "node2", "rs")
	const both, remote, none = "both", "remote", "none"
	endpoints := map[string][]Endpoint{both: {here, there}, remote: {there}, none: nil}
	for name, c := range map[string]struct {
		external, internal bool // Local
		endpoints          string
		want               []string
	}{
		"Cluster": {false, false, both, []string{
			"ClusterIP 10.96.0.1:80 all",
			"NodePort 192.168.10.11:30080 all",
			"ExternalIP 203.0.113.1:80 all",
			"LoadBalancer 203.0.113.2:80 all"}},
		"external Local": {true, false, both, []string{
			"ClusterIP 10.96.0.1:80 all",
			"NodePort 192.168.10.11:30080 local, in the cluster 10.96.0.1:80",
			"ExternalIP 203.0.113.1:80 local, in the cluster 10.96.0.1:80",
			"LoadBalancer 203.0.113.2:80 local, in the cluster 10.96.0.1:80"}},
		"internal Local": {false, true, both, []string{
			"ClusterIP 10.96.0.1:80 local",
			"NodePort 192.168.10.11:30080 all",
			"ExternalIP 203.0.113.1:80 all",
			"LoadBalancer 203.0.113.2:80 all"}},
		"both Local": {true, true, both, []string{
			"ClusterIP 10.96.0.1:80 local",
			"NodePort 192.168.10.11:30080 local, in the cluster 10.96.0.1:65534",
			"ExternalIP 203.0.113.1:80 local, in the cluster 10.96.0.1:65534",
			"LoadBalancer 203.0.113.2:80 local, in the cluster 10.96.0.1:65534",
			"Shortcut 10.96.0.1:65534 all"}},
		"Cluster, none anywhere": {false, false, none, []string{
			"ClusterIP 10.96.0.1:80 refused",
			"NodePort 192.168.10.11:30080 refused",
			"ExternalIP 203.0.113.1:80 refused",
			"LoadBalancer 203.0.113.2:80 refused"}},
		"both Local, none here": {true, true, remote, []string{
			"ClusterIP 10.96.0.1:80 dropped",
			"NodePort 192.168.10.11:30080 dropped, in the cluster 10.96.0.1:65534",
			"ExternalIP 203.0.113.1:80 dropped, in the cluster 10.96.0.1:65534",
			"LoadBalancer 203.0.113.2:80 dropped, in the cluster 10.96.0.1:65534",
			"Shortcut 10.96.0.1:65534 all"}},
		"both Local, none anywhere": {true, true, none, []string{
			"ClusterIP 10.96.0.1:80 refused",
			"NodePort 192.168.10.11:30080 refused, in the cluster 10.96.0.1:65534",
			"ExternalIP 203.0.113.1:80 refused, in the cluster 10.96.0.1:65534",
			"LoadBalancer 203.0.113.2:80 refused, in the cluster 10.96.0.1:65534",
			"Shortcut 10.96.0.1:65534 refused"}},
	} {
		t.Run(name, func(t *testing.T) {
			svc := web("web", func(s *Service) {
				s.ExternalLocal, s.InternalLocal = c.external, c.internal
				s.ExternalIPs, s.LoadBalancerIPs = addrs("203.0.113.1"), addrs("203.0.113.2")
				// A port of the Service's own is not used as a shortcut.
				s.Ports = []ServicePort{{"taken", UDP, 65535, 0}, {"http", TCP, 80, 30080}}
			})
			s := newStore(Node{Name: "node1", Addrs: addrs("192.168.10.11")}, svc, slice("a", "web", endpoints[c.endpoints]...))
			var got []string
			for _, f := range Resolve(s, svc.Name).Frontends {
				if f.Protocol == TCP {
					got = append(got, outcome(f))
				}
			}
			// The shortcuts are counted down in the order of the ports.
			want := strings.ReplaceAll(strings.Join(c.want, "\n"), ":65534", ":65533")
			if g := strings.Join(got, "\n"); g != want {
				t.Errorf("got\n%s\nwant\n%s", g, want)
			}
		})
	}
}

// TestPartialFacts: nobody is refused before it is known that there are no
// endpoints.
func TestPartialFacts(t *testing.T) {
	svc := web("web", func(s *Service) { s.InternalLocal = true })
	s := newStore(svc)
	s.Partial(true)
	if got := text(Resolve(s, svc.Name)); got != "" {
		t.Errorf("with facts missing:\n%swant nothing said of it", got)
	}
	s.TakeDirty(nil)
	s.Partial(false)
	if got := Resolve(s, svc.Name).Frontends[0].Vacancy(); got != Refused || len(s.TakeDirty(nil)) != 1 {
		t.Errorf("with all facts: vacancy %d, want %d, and the Service looked at again", got, Refused)
	}
	s.Partial(true)
	s.Apply(Event{Put: slice("a", "web", ep("10.1.0.1", "node1", "rs"))})
	if got := text(Resolve(s, svc.Name)); !strings.Contains(got, "[10.1.0.1] [10.1.0.1]") {
		t.Errorf("with an endpoint known and facts missing:\n%s", got)
	}
}

func outcome(f Frontend) string {
	text := fmt.Sprint(f.Kind, " ", f.Addr, " ")
	switch f.Vacancy() {
	case Refused:
		text += "refused"
	case Dropped:
		text += "dropped"
	case Served:
		local := !slices.ContainsFunc(f.Backends(), func(b Backend) bool { return !b.Local })
		text += map[bool]string{true: "local", false: "all"}[local]
	}
	if f.Shortcut.IsValid() {
		text += ", in the cluster " + f.Shortcut.String()
	}
	return text
}

// TestSourceRanges: they are of the load balancer's addresses alone, and those
// of one family close the other's.
func TestSourceRanges(t *testing.T) {
	svc := web("web", func(s *Service) {
		s.ClusterIPs = addrs("10.96.0.1", "fd00::1")
		s.ExternalIPs = addrs("203.0.113.1", "203.0.113.2")
		s.LoadBalancerIPs = addrs("203.0.113.2", "2001:db8::2")
		s.SourceRanges = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	})
	var got []string
	for _, f := range Resolve(newStore(svc), svc.Name).Frontends {
		got = append(got, fmt.Sprint(f.Addr.Addr(), " ", f.Restricted, " ", f.SourceRanges))
	}
	want := []string{
		"10.96.0.1 false []", "fd00::1 false []", "203.0.113.1 false []",
		"203.0.113.2 true [198.51.100.0/24]", "2001:db8::2 true []",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestAllowedExternalIPs(t *testing.T) {
	svc := web("web", func(s *Service) { s.ExternalIPs = addrs("203.0.113.1", "198.51.100.1") })
	for name, c := range map[string]struct {
		allowed []netip.Prefix
		want    string
	}{
		"by default all": {nil, "ClusterIP TCP 10.96.0.1:80 [] []\nExternalIP TCP 203.0.113.1:80 [] []\nExternalIP TCP 198.51.100.1:80 [] []\n"},
		"a range": {[]netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
			"ClusterIP TCP 10.96.0.1:80 [] []\nExternalIP TCP 203.0.113.1:80 [] []\n! ExternalIPNotAllowed\n"},
		"none": {[]netip.Prefix{}, "ClusterIP TCP 10.96.0.1:80 [] []\n! ExternalIPNotAllowed\n! ExternalIPNotAllowed\n"},
	} {
		s := NewStore(StoreOptions{NodeName: "node1", ExternalIPs: c.allowed})
		s.Apply(Event{Put: svc})
		if got := text(Resolve(s, svc.Name)); got != c.want {
			t.Errorf("%s: got\n%swant\n%s", name, got, c.want)
		}
	}
}

// TestAPIServersAddress: a Service that claims it would cut every node off from
// the API server.
func TestAPIServersAddress(t *testing.T) {
	svc := web("web", func(s *Service) { s.ExternalIPs = addrs("192.0.2.1") })
	api := slice("kubernetes", "kubernetes", ep("192.0.2.1", "", "rs"))
	s := newStore(svc, api)
	if got := text(Resolve(s, svc.Name)); !strings.Contains(got, "! AddressIsNodes") {
		t.Errorf("got\n%swant the external IP refused", got)
	}
	s.TakeDirty(nil)
	s.Apply(Event{Delete: EndpointSliceKey{api.Name}})
	if !slices.Contains(s.TakeDirty(nil), svc.Name) || strings.Contains(text(Resolve(s, svc.Name)), "!") {
		t.Error("the API server has moved and the external IP is still refused")
	}
}

// TestHealthChecks: only ready endpoints of this node count, each once.
func TestHealthChecks(t *testing.T) {
	publish := ep("10.1.0.5", "node1", "rst") // publishNotReadyAddresses
	svc := web("web", func(s *Service) { s.ExternalLocal, s.HealthPort = true, 31000 })
	twoPorts := slice("b", "web", ep("10.1.0.1", "node1", "rs"))
	twoPorts.Ports = []EndpointPort{{"other", TCP, 9}}
	s := newStore(Node{Name: "node1", Addrs: addrs("192.168.10.11", "fd00:a::11")}, svc, twoPorts,
		slice("a", "web", ep("10.1.0.1", "node1", "rs"), ep("10.1.0.2", "node1", "rs"), ep("10.1.0.3", "node2", "rs"), ep("10.1.0.4", "node1", "st"), publish))
	want := []HealthCheck{{netip.MustParseAddrPort("192.168.10.11:31000"), 2}}
	if got := Resolve(s, svc.Name).Health; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v: one for the Service's only family", got, want)
	}
}

// TestContestedHealthPort: it is one Service's, as a frontend is.
func TestContestedHealthPort(t *testing.T) {
	with := func(name string, created int64, port uint16) Service {
		return web(name, func(s *Service) {
			s.Created, s.ExternalLocal, s.HealthPort = time.Unix(created, 0), true, 31000
			s.ClusterIPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 0, byte(created)})}
			s.Ports[0].NodePort = port
		})
	}
	old, young := with("old", 1, 30001), with("young", 2, 31000)
	s := newStore(Node{Name: "node1", Addrs: addrs("192.168.10.11")}, young, old)
	if v := Resolve(s, old.Name); len(v.Health) != 1 || len(v.Problems) != 0 {
		t.Errorf("the older has %v, problems %v", v.Health, v.Problems)
	}
	if v := Resolve(s, young.Name); len(v.Health) != 0 || len(v.Problems) != 2 {
		t.Errorf("the younger has %v, problems %v, want none and two: its NodePort is the older's health check too", v.Health, v.Problems)
	}
}

// TestHealthCheckOfAnAddressElsewhere: what is not on an interface cannot be
// listened on (an address behind NAT that the Node names).
func TestHealthCheckOfAnAddressElsewhere(t *testing.T) {
	svc := web("web", func(s *Service) { s.ExternalLocal, s.HealthPort = true, 31000 })
	s := newStore(svc, Node{Name: "node1", Addrs: addrs("198.51.100.1", "192.168.10.11")}, LocalAddrs{Addrs: addrs("192.168.10.11")})
	want := []HealthCheck{{netip.MustParseAddrPort("192.168.10.11:31000"), 0}}
	if got := Resolve(s, svc.Name).Health; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestLeaving(t *testing.T) {
	there := Node{Name: "node1"}
	leaves := Node{Name: "node1", Leaving: "it is being deleted"}
	put := func(n Node) Event { return Event{Put: n} }
	for name, c := range map[string]struct {
		objects bool
		events  []Event
		leaving bool
	}{
		"no Node was ever told of, and none would be": {false, nil, false},
		"no Node was told of, and all are":            {true, nil, true},
		"it is there":                                 {true, []Event{put(there)}, false},
		"it says that it leaves":                      {true, []Event{put(leaves)}, true},
		"it stays after all":                          {true, []Event{put(leaves), put(there)}, false},
		"it was deleted":                              {false, []Event{put(there), {Delete: NodeKey{"node1"}}}, true},
		"and came back":                               {false, []Event{put(there), {Delete: NodeKey{"node1"}}, put(there)}, false},
		"another node was":                            {false, []Event{put(there), {Delete: NodeKey{"node2"}}}, false},
	} {
		s := NewStore(StoreOptions{NodeName: "node1", NodeObjects: c.objects})
		for _, e := range c.events {
			s.Apply(e)
		}
		if got := s.Leaving(); (got != "") != c.leaving {
			t.Errorf("%s: leaving %q, want %v", name, got, c.leaving)
		}
	}
}

func TestTriggersAreTakenOnce(t *testing.T) {
	at := func(sec int64) EndpointSlice {
		s := slice("a", "web", ep("10.1.0.1", "node1", "rs"))
		s.Triggered = time.Unix(sec, 0)
		return s
	}
	s := newStore(web("web", nil), at(1), at(1), at(2))
	want := []time.Time{time.Unix(1, 0), time.Unix(2, 0)}
	if got := s.TakeTriggers(Name{"default", "web"}, IPv4); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := s.TakeTriggers(Name{"default", "web"}, IPv4); len(got) != 0 {
		t.Errorf("taken again: %v", got)
	}
}
