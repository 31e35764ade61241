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

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func addrs(ss ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range ss {
		out = append(out, addr(s))
	}
	return out
}

// web is a Service with a ClusterIP and one port, changed as the case wants.
func web(name string, change func(*Service)) Service {
	svc := Service{
		Name:       Name{"default", name},
		Created:    time.Unix(1000, 0),
		ClusterIPs: addrs("10.96.0.1"),
		Ports:      []ServicePort{{Name: "http", Protocol: TCP, Port: 80}},
	}
	if change != nil {
		change(&svc)
	}
	return svc
}

func slice(name, service string, endpoints ...Endpoint) EndpointSlice {
	return EndpointSlice{
		Name: Name{"default", name}, Service: service, Family: IPv4,
		Ports:     []EndpointPort{{Name: "http", Protocol: TCP, Port: 8080}},
		Endpoints: endpoints,
	}
}

// ep is an endpoint: its flags are r(eady), s(erving), t(erminating).
func ep(a, node, flags string) Endpoint {
	has := func(f string) bool { return strings.Contains(flags, f) }
	return Endpoint{Addr: addr(a), Node: node, Ready: has("r"), Serving: has("s"), Terminating: has("t")}
}

func newStore(facts ...any) *Store {
	s := NewStore(StoreOptions{NodeName: "node1"})
	for _, f := range facts {
		s.Apply(Event{Put: f})
	}
	return s
}

// text is a view as a person would write it: one line a frontend.
func text(v View) string {
	var b strings.Builder
	for _, f := range v.Frontends {
		fmt.Fprintf(&b, "%s %s %s", f.Kind, f.Protocol, f.Addr)
		for _, list := range [][]Backend{f.Cluster, f.Local} {
			b.WriteString(" [")
			for i, be := range list {
				if i > 0 {
					b.WriteString(" ")
				}
				b.WriteString(be.Addr.Addr().String())
				if be.Terminating {
					b.WriteString("(leaving)")
				}
			}
			b.WriteString("]")
		}
		b.WriteString("\n")
	}
	for _, p := range v.Problems {
		fmt.Fprintf(&b, "! %s\n", p.Reason)
	}
	return b.String()
}

// TestEndpointChoice is section 1.3 of the specification, a row a rule. The
// lists are cluster, then local.
func TestEndpointChoice(t *testing.T) {
	for name, c := range map[string]struct {
		slices []EndpointSlice
		want   string
	}{
		"no endpoints at all": {nil, "[] []"},
		"ready ones, here and elsewhere": {
			[]EndpointSlice{slice("a", "web", ep("10.1.0.1", "node1", "rs"), ep("10.1.0.2", "node2", "rs"))},
			"[10.1.0.1 10.1.0.2] [10.1.0.1]"},
		"a terminating one is left out while another is ready": {
			[]EndpointSlice{slice("a", "web", ep("10.1.0.1", "node2", "rs"), ep("10.1.0.2", "node2", "st"))},
			"[10.1.0.1] []"},
		"none ready: those that still serve": {
			[]EndpointSlice{slice("a", "web", ep("10.1.0.1", "node1", "st"), ep("10.1.0.2", "node2", "st"))},
			"[10.1.0.1(leaving) 10.1.0.2(leaving)] [10.1.0.1(leaving)]"},
		"the lists fall back independently": {
			[]EndpointSlice{slice("a", "web", ep("10.1.0.1", "node1", "st"), ep("10.1.0.2", "node2", "rs"))},
			"[10.1.0.2] [10.1.0.1(leaving)]"},
		"terminating and not serving: never": {
			[]EndpointSlice{slice("a", "web", ep("10.1.0.1", "node1", "t"))}, "[] []"},
		"neither ready nor terminating: never": {
			[]EndpointSlice{slice("a", "web", ep("10.1.0.1", "node1", "s"))}, "[] []"},
		"one address in two slices counts once, the ready record": {
			[]EndpointSlice{
				slice("a", "web", ep("10.1.0.1", "node1", "")),
				slice("b", "web", ep("10.1.0.1", "node1", "rs"))},
			"[10.1.0.1] [10.1.0.1]"},
		"one address in two slices, in use in one of them": {
			[]EndpointSlice{
				slice("a", "web", ep("10.1.0.1", "node1", "s")),
				slice("b", "web", ep("10.1.0.1", "node1", "st"))},
			"[10.1.0.1(leaving)] [10.1.0.1(leaving)]"},
		"another Service's slice": {
			[]EndpointSlice{slice("a", "other", ep("10.1.0.1", "node1", "rs"))}, "[] []"},
		"a slice of the other family": {
			[]EndpointSlice{func() EndpointSlice {
				s := slice("a", "web", ep("fd00::1", "node1", "rs"))
				s.Family = IPv6
				return s
			}()}, "[] []"},
		"a port of the same name and another protocol": {
			[]EndpointSlice{func() EndpointSlice {
				s := slice("a", "web", ep("10.1.0.1", "node1", "rs"))
				s.Ports[0].Protocol = UDP
				return s
			}()}, "[] []"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(web("web", nil))
			for _, sl := range c.slices {
				s.Apply(Event{Put: sl})
			}
			want := "ClusterIP TCP 10.96.0.1:80 " + c.want + "\n"
			if got := text(Resolve(s, Name{"default", "web"})); got != want {
				t.Errorf("got  %swant %s", got, want)
			}
		})
	}
}

func TestFrontends(t *testing.T) {
	node := Node{Name: "node1", Addrs: addrs("192.168.10.11", "fd00:a::11")}
	local := LocalAddrs{Addrs: addrs("192.168.10.11", "fd00:a::11", "172.17.0.1")}
	for name, c := range map[string]struct {
		change func(*Service)
		want   []string
	}{
		"a cluster IP": {nil, []string{"ClusterIP TCP 10.96.0.1:80"}},
		"several ports and protocols, the same number twice": {
			func(s *Service) {
				s.Ports = []ServicePort{{"a", TCP, 53, 0}, {"b", UDP, 53, 0}, {"c", SCTP, 9, 0}}
			},
			[]string{"ClusterIP TCP 10.96.0.1:53", "ClusterIP UDP 10.96.0.1:53", "ClusterIP SCTP 10.96.0.1:9"}},
		"a node port in the Service's family only": {
			func(s *Service) { s.Ports[0].NodePort = 30080 },
			[]string{"ClusterIP TCP 10.96.0.1:80", "NodePort TCP 192.168.10.11:30080", "NodePort TCP 172.17.0.1:30080"}},
		"both families": {
			func(s *Service) { s.ClusterIPs = addrs("10.96.0.1", "fd00::1"); s.Ports[0].NodePort = 30080 },
			[]string{"ClusterIP TCP 10.96.0.1:80", "ClusterIP TCP [fd00::1]:80", "NodePort TCP 192.168.10.11:30080",
				"NodePort TCP [fd00:a::11]:30080", "NodePort TCP 172.17.0.1:30080"}},
		"external and load-balancer IPs, one address twice": {
			func(s *Service) {
				s.ExternalIPs = addrs("203.0.113.1", "203.0.113.2")
				s.LoadBalancerIPs = addrs("203.0.113.2", "203.0.113.3")
			},
			[]string{"ClusterIP TCP 10.96.0.1:80", "ExternalIP TCP 203.0.113.1:80", "LoadBalancer TCP 203.0.113.2:80",
				"LoadBalancer TCP 203.0.113.3:80"}},
		"an external IP of a family the Service has not": {
			func(s *Service) { s.ExternalIPs = addrs("2001:db8::1") },
			[]string{"ClusterIP TCP 10.96.0.1:80", "! FamilyMismatch"}},
		"an external IP that is a node's": {
			func(s *Service) { s.ExternalIPs = addrs("172.17.0.1", "203.0.113.1") },
			[]string{"ClusterIP TCP 10.96.0.1:80", "ExternalIP TCP 203.0.113.1:80", "! AddressIsNodes"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(node, local, web("web", c.change))
			got := strings.ReplaceAll(text(Resolve(s, Name{"default", "web"})), " [] []", "")
			if want := strings.Join(c.want, "\n") + "\n"; got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

func TestSourceIPIsTheNodesOwnAndHere(t *testing.T) {
	svc := web("web", func(s *Service) { s.ClusterIPs = addrs("10.96.0.1", "fd00::1") })
	s := newStore(svc,
		Node{Name: "node1", Addrs: addrs("198.51.100.1", "192.168.10.11")}, // the first is behind NAT
		LocalAddrs{Addrs: addrs("172.17.0.1", "192.168.10.11", "fd00:a::11")})
	v := Resolve(s, svc.Name)
	if got := v.Frontends[0].SourceIP; got != addr("192.168.10.11") {
		t.Errorf("IPv4 source %s, want the node's address that is on this host", got)
	}
	if got := v.Frontends[1].SourceIP; got != addr("fd00:a::11") {
		t.Errorf("IPv6 source %s, want the host's own where the Node names none", got)
	}
}

// TestADeletedNodeKeepsItsNodePorts: without the Node nobody says which of the
// host's addresses serve NodePorts; they stay where they were, connections with
// them.
func TestADeletedNodeKeepsItsNodePorts(t *testing.T) {
	svc := web("web", func(s *Service) { s.Ports[0].NodePort = 30080 })
	s := NewStore(StoreOptions{NodeName: "node1", NodePorts: func(a []netip.Addr) []netip.Addr { return a[:1] }})
	for _, fact := range []any{
		svc, slice("x", "web", ep("10.1.0.1", "node1", "rs")), LocalAddrs{Addrs: addrs("10.99.0.1", "192.168.10.11")},
		Node{Name: "node1", Addrs: addrs("192.168.10.11"), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}},
	} {
		s.Apply(Event{Put: fact})
	}
	was := text(Resolve(s, svc.Name))
	s.Apply(Event{Delete: NodeKey{"node1"}})
	if got := text(Resolve(s, svc.Name)); got != was || !strings.Contains(was, "192.168.10.11:30080") {
		t.Errorf("with the Node\n%swithout\n%s", was, got)
	}
	if len(s.PodCIDRs()) != 1 {
		t.Error("nobody knows where the pods are")
	}
	if s.Leaving() == "" {
		t.Error("load balancers may go on using a node that is deleted")
	}
	s.Apply(Event{Put: LocalAddrs{Addrs: addrs("10.99.0.1")}})
	s.Apply(Event{Put: Node{Name: "node1", Addrs: addrs("10.99.0.1")}})
	if got := text(Resolve(s, svc.Name)); !strings.Contains(got, "10.99.0.1:30080") {
		t.Errorf("the Node is back with another address:\n%s", got)
	}
}

// TestContestedFrontend: the oldest wins whatever the order of events, and the
// other takes over when it goes.
func TestContestedFrontend(t *testing.T) {
	old := web("old", func(s *Service) { s.Created = time.Unix(1, 0); s.ExternalIPs = addrs("203.0.113.1") })
	young := web("young", func(s *Service) { s.ClusterIPs = addrs("10.96.0.2"); s.ExternalIPs = addrs("203.0.113.1") })
	for _, order := range [][]any{{old, young}, {young, old}} {
		s := newStore(order...)
		if got := text(Resolve(s, young.Name)); got != "ClusterIP TCP 10.96.0.2:80 [] []\n! FrontendInUse\n" {
			t.Errorf("the younger has\n%s", got)
		}
		if got := text(Resolve(s, old.Name)); strings.Contains(got, "!") || !strings.Contains(got, "ExternalIP") {
			t.Errorf("the older has\n%s", got)
		}
		s.TakeDirty(nil)
		s.Apply(Event{Delete: ServiceKey{old.Name}})
		if dirty := s.TakeDirty(nil); !slices.Contains(dirty, young.Name) {
			t.Errorf("the rival is not looked at again when the winner goes: dirty %v", dirty)
		}
		if got := text(Resolve(s, young.Name)); !strings.Contains(got, "ExternalIP") || strings.Contains(got, "!") {
			t.Errorf("the younger did not take over:\n%s", got)
		}
	}
}

func TestOneChangeDirtiesOnlyItsService(t *testing.T) {
	s := newStore(Node{Name: "node1", Addrs: addrs("192.168.10.11")})
	for i := range 100 {
		s.Apply(Event{Put: web(fmt.Sprint("s", i), func(s *Service) {
			s.ClusterIPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 1, byte(i)})}
		})})
	}
	s.TakeDirty(nil)
	for name, c := range map[string]struct {
		event Event
		want  []Name
	}{
		"an endpoint":          {Event{Put: slice("x", "s7", ep("10.1.0.1", "node1", "rs"))}, []Name{{"default", "s7"}}},
		"an unchanged node":    {Event{Put: Node{Name: "node1", Addrs: addrs("192.168.10.11")}}, nil},
		"another node's label": {Event{Put: Node{Name: "node1", Labels: map[string]string{"a": "b"}, Addrs: addrs("192.168.10.11")}}, nil},
	} {
		s.Apply(c.event)
		if got := s.TakeDirty(nil); !slices.Equal(got, c.want) {
			t.Errorf("%s: dirty %v, want %v", name, got, c.want)
		}
	}
	s.Apply(Event{Put: slice("x", "s8", ep("10.1.0.1", "node1", "rs"))})
	if got := s.TakeDirty(nil); len(got) != 2 {
		t.Errorf("a slice that changed hands: dirty %v, want both Services", got)
	}
	s.Apply(Event{Put: Node{Name: "node1", Addrs: addrs("192.168.10.12")}})
	if got := len(s.TakeDirty(nil)); got != 100 {
		t.Errorf("the node's address changed: %d Services dirty, want all", got)
	}
}

// TestOrderOfEventsDoesNotMatter replays random histories and compares with
// the final facts told to a fresh store.
func TestOrderOfEventsDoesNotMatter(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		s, fresh := history(rnd)
		for i := range 4 {
			name := Name{"default", fmt.Sprint("s", i)}
			if a, b := Resolve(s, name), Resolve(fresh, name); !reflect.DeepEqual(a, b) {
				t.Fatalf("seed %d, %s: by history\n%sfresh\n%s", seed, name, text(a), text(b))
			}
		}
		if len(s.claimants) != len(fresh.claimants) || len(s.claims) != len(fresh.claims) {
			t.Fatalf("seed %d: index leaks: %d claimants, fresh %d", seed, len(s.claimants), len(fresh.claimants))
		}
	}
}

// history is a store after a random history, and one that was told only what is
// left of it.
func history(rnd *rand.Rand) (s, fresh *Store) {
	s, fresh = newStore(), newStore()
	final := map[string]Event{}
	for range 40 {
		key, e := randomEvent(rnd)
		s.Apply(e)
		final[key] = e
		if n, is := e.Put.(Node); is && n.Name == "node1" {
			fresh.Apply(e) // what is remembered of it after it is gone
		}
	}
	for _, e := range final {
		fresh.Apply(e)
	}
	return s, fresh
}

func randomEvent(rnd *rand.Rand) (key string, e Event) {
	gone := rnd.IntN(4) == 0
	switch i := rnd.IntN(4); rnd.IntN(3) {
	case 0:
		svc := web(fmt.Sprint("s", i), func(s *Service) {
			s.Created = time.Unix(int64(rnd.IntN(3)), 0)
			s.ClusterIPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 0, byte(i)})}
			s.ExternalIPs = []netip.Addr{netip.AddrFrom4([4]byte{203, 0, 113, byte(rnd.IntN(3))})}
			s.Ports[0].NodePort = uint16(30000 + rnd.IntN(3))
			s.ExternalLocal, s.InternalLocal = rnd.IntN(2) == 0, rnd.IntN(2) == 0
			s.HealthPort = uint16(rnd.IntN(2) * 31000)
		})
		if gone {
			return "svc" + svc.Name.Name, Event{Delete: ServiceKey{svc.Name}}
		}
		return "svc" + svc.Name.Name, Event{Put: svc}
	case 1:
		sl := slice(fmt.Sprint("x", i), fmt.Sprint("s", rnd.IntN(4)),
			ep(fmt.Sprint("10.1.0.", rnd.IntN(4)), fmt.Sprint("node", rnd.IntN(2)), []string{"rs", "st", ""}[rnd.IntN(3)]))
		if rnd.IntN(2) == 0 {
			sl.Endpoints[0].ForZones = []string{fmt.Sprint("zone", rnd.IntN(2))}
		}
		if gone {
			return "slice" + sl.Name.Name, Event{Delete: EndpointSliceKey{sl.Name}}
		}
		return "slice" + sl.Name.Name, Event{Put: sl}
	default:
		name := fmt.Sprint("node", i)
		if gone {
			return name, Event{Delete: NodeKey{name}}
		}
		return name, Event{Put: Node{
			Name: name, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{203, 0, 113, byte(rnd.IntN(5))})},
			Labels: map[string]string{zoneLabel: fmt.Sprint("zone", rnd.IntN(2))},
		}}
	}
}
