package model

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// balanced is a Service with load-balancer addresses.
func balanced(name, clusterIP string, vips ...string) Service {
	return web(name, func(s *Service) {
		s.ClusterIPs = addrs(clusterIP)
		s.LoadBalancerIPs = addrs(vips...)
	})
}

// vipText is an address as a person would write it: each Service with its nodes,
// in brackets those that only have terminating endpoints.
func vipText(v VIP) string {
	var parts []string
	for _, s := range v.Services {
		part := s.Service.Name
		if s.Local {
			part += " local"
		}
		for _, node := range slices.Sorted(maps.Keys(s.Usable)) {
			if s.Usable[node] {
				part += fmt.Sprintf(" %q", node)
			} else {
				part += fmt.Sprintf(" (%q)", node)
			}
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

// TestVIP is who answers on a load-balancer address, and from which nodes.
func TestVIP(t *testing.T) {
	local := balanced("api", "10.96.0.2", "192.0.2.1")
	local.ExternalLocal, local.Created = true, time.Unix(1, 0)
	local.Ports[0].Port = 443
	s := newStore(
		balanced("web", "10.96.0.1", "192.0.2.1", "192.0.2.2"), local,
		slice("a", "web", ep("10.1.0.1", "node1", "rs"), ep("10.1.0.2", "node2", "st"), ep("10.1.0.3", "", "rs"), ep("10.1.0.4", "node3", "s")),
		slice("b", "api", ep("10.1.0.5", "node2", "st"), ep("10.1.0.6", "node2", "rs")),
		EndpointSlice{Name: Name{"default", "c"}, Service: "api", Family: IPv6, Endpoints: []Endpoint{ep("fd00::1", "node9", "rs")}},
	)
	for at, want := range map[string]string{
		"192.0.2.1": `api local "node2", web "" "node1" ("node2")`,
		"192.0.2.2": `web "" "node1" ("node2")`,
		"192.0.2.3": "",
	} {
		if got := vipText(s.VIP(addr(at))); got != want {
			t.Errorf("%s: %s\nwant %s", at, got, want)
		}
	}
}

// TestTouchedVIPs: a change of facts touches the addresses whose routes may
// depend on it, and no others.
func TestTouchedVIPs(t *testing.T) {
	node := func(change func(*Node)) Node {
		n := Node{Name: "node2", Addrs: addrs("198.51.100.2"), Labels: map[string]string{"a": "b"}}
		if change != nil {
			change(&n)
		}
		return n
	}
	all := "192.0.2.1 192.0.2.2 192.0.2.3"
	s := newStore(Node{Name: "node1", Addrs: addrs("198.51.100.1")}, node(nil),
		balanced("web", "10.96.0.1", "192.0.2.1", "192.0.2.2"), slice("a", "web"),
		balanced("api", "10.96.0.2", "192.0.2.3"), web("plain", func(s *Service) { s.ClusterIPs = addrs("10.96.0.3") }))
	s.TakeVIPs()
	for _, c := range []struct {
		what    string
		event   Event
		touched string
		network bool
	}{
		{"nothing", Event{}, "", false},
		{"an endpoint", Event{Put: slice("a", "web", ep("10.1.0.1", "node1", "rs"))}, "192.0.2.1 192.0.2.2", false},
		{"a slice is gone", Event{Delete: EndpointSliceKey{Name{"default", "a"}}}, "192.0.2.1 192.0.2.2", false},
		{"one more address, one less", Event{Put: balanced("web", "10.96.0.1", "192.0.2.2", "192.0.2.4")}, "192.0.2.1 192.0.2.2 192.0.2.4", false},
		{"back", Event{Put: balanced("web", "10.96.0.1", "192.0.2.1", "192.0.2.2")}, "192.0.2.1 192.0.2.2 192.0.2.4", false},
		{"a Service without any", Event{Delete: ServiceKey{Name{"default", "plain"}}}, "", false},
		{"a Node as it was", Event{Put: node(nil)}, "", false},
		{"a Node that drains", Event{Put: node(func(n *Node) { n.Drained = "asked for" })}, all, true},
		{"a Node that is not ready", Event{Put: node(func(n *Node) { n.NotReady = time.Unix(5, 0) })}, all, true},
		{"its labels", Event{Put: node(func(n *Node) { n.Labels = nil })}, all, true},
		{"a Node is gone", Event{Delete: NodeKey{"node2"}}, all, true},
		{"our own address", Event{Put: Node{Name: "node1", Addrs: addrs("198.51.100.9")}}, all, true},
		{"a pool", Event{Put: AddressPool{Name: "p"}}, all, true},
		{"a peer", Event{Put: Peer{Name: "p"}}, all, true},
		{"an advertisement", Event{Put: Advertisement{Name: "p"}}, all, true},
		{"a Secret", Event{Put: Secret{Name: "p"}}, all, true},
		{"it is gone", Event{Delete: SecretKey{"p"}}, all, true},
		{"a Service is gone", Event{Delete: ServiceKey{Name{"default", "api"}}}, "192.0.2.3", false},
	} {
		s.Apply(c.event)
		touched, network := s.TakeVIPs()
		slices.SortFunc(touched, netip.Addr.Compare)
		if got := strings.Trim(fmt.Sprint(touched), "[]"); got != c.touched || network != c.network {
			t.Errorf("%s: touched %s, the network %v, want %s, %v", c.what, got, network, c.touched, c.network)
		}
	}
	if n := s.Network(); n.Node != "node1" || len(n.Pools)+len(n.Peers)+len(n.Advertisements) != 3 || len(n.Secrets) != 0 || len(n.Nodes) != 1 {
		t.Errorf("the network is %+v", n)
	}
}

// TestSelectors is the meaning of label selectors.
func TestSelectors(t *testing.T) {
	labels := map[string]string{"app": "web", "tier": "front"}
	one := func(key string, op Operator, values ...string) Selector {
		return Selector{Requirements: []Requirement{{key, op, values}}}
	}
	for what, c := range map[string]struct {
		s    Selector
		want bool
	}{
		"empty: everything":             {Selector{}, true},
		"in":                            {one("app", In, "api", "web"), true},
		"in, another value":             {one("app", In, "api"), false},
		"in, absent":                    {one("zone", In, ""), false},
		"not in":                        {one("app", NotIn, "api"), true},
		"not in, but it is":             {one("app", NotIn, "web"), false},
		"not in, absent":                {one("zone", NotIn, "a"), true},
		"exists":                        {one("app", Exists), true},
		"exists, absent":                {one("zone", Exists), false},
		"does not exist":                {one("zone", DoesNotExist), true},
		"does not exist, but it does":   {one("app", DoesNotExist), false},
		"both requirements":             {Selector{Requirements: []Requirement{{"app", In, []string{"web"}}, {"tier", Exists, nil}}}, true},
		"one of two requirements fails": {Selector{Requirements: []Requirement{{"app", In, []string{"web"}}, {"zone", Exists, nil}}}, false},
		"an operator that is none":      {one("app", Operator(9)), false},
	} {
		if got := c.s.Matches(labels); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
	if !Selected(nil, labels) || !Selected([]Selector{one("zone", Exists), one("app", Exists)}, labels) || Selected([]Selector{one("zone", Exists)}, labels) {
		t.Error("several selectors: one has to match, and none selects all")
	}
}
