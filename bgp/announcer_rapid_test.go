package bgp

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice.dev/sluice/internal/model"
)

// world is a cluster as all its nodes see it.
type world struct {
	model.Network
	nodes []string // those that have agents, some of them without a Node
	own   map[string][2]netip.Addr
	vips  []model.VIP
}

// seenFrom is what a node's agent is told.
func (w world) seenFrom(node string) model.Network {
	n := w.Network
	n.Node, n.Source = node, w.own[node]
	return n
}

func some[T any](t *rapid.T, what string, from ...T) T { return rapid.SampledFrom(from).Draw(t, what) }

// anySelectors are none, by rack, or what also a node without labels meets.
func anySelectors(t *rapid.T, what string) []model.Selector {
	return some(t, what, nil, nil, on("rack", "a"), on("rack", "b"),
		[]model.Selector{{Requirements: []model.Requirement{{Key: "rack", Op: model.NotIn, Values: []string{"a"}}}}})
}

// anyWorld draws a cluster.
func anyWorld(t *rapid.T) world {
	w := world{own: map[string][2]netip.Addr{}}
	w.Nodes = map[string]model.Node{}
	for i := range rapid.IntRange(1, 4).Draw(t, "nodes") {
		w.addNode(t, fmt.Sprintf("n%d", i+1))
	}
	add(&w.Network, pools("default", "203.0.113.0-203.0.113.255", "2001:db8:f::-2001:db8:f::ffff"), model.Secret{Name: "pw", Password: "x"})
	for i := range rapid.IntRange(0, 3).Draw(t, "peers") {
		p := peer(fmt.Sprintf("tor%d", i))
		p.Created = start().Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "age")))
		p.Addr = netip.MustParseAddrPort(some(t, "at", "192.0.2.101:179", "192.0.2.102:179", "192.0.2.103:179", "[2001:db8::101]:179"))
		p.Nodes = anySelectors(t, p.Name+" for")
		p.Secret = some(t, "secret", "", "", "", "pw", "missing")
		p.Families = some(t, "families", nil, nil, []model.Family{model.IPv4}, []model.Family{model.IPv6})
		add(&w.Network, p)
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "advertisements") {
		add(&w.Network, model.Advertisement{
			Name: fmt.Sprint(i), Created: start().Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "age"))),
			Pools:    some(t, "pools", nil, nil, []string{"default"}, []string{"other"}),
			Services: some(t, "services", nil, nil, on("app", "s0"), on("app", "s1")),
			Nodes:    anySelectors(t, "from"),
			Peers:    some(t, "to", nil, nil, []string{"tor0"}, []string{"tor1", "tor2"}),
			Length4:  some(t, "length", uint8(0), 24, 20), KeepEmpty: rapid.Bool().Draw(t, "keep"),
			MED: some(t, "med", nil, new(uint32(1)), new(uint32(2))), Communities: some(t, "communities", nil, []model.Community{1}, []model.Community{1, 2}),
		})
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "addresses") {
		addr := some(t, "family", netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8:f::1"))
		for range i {
			addr = addr.Next()
		}
		w.vips = append(w.vips, model.VIP{Addr: addr, Services: anyServices(t, w.nodes)})
	}
	return w
}

func (w *world) addNode(t *rapid.T, name string) {
	w.nodes = append(w.nodes, name)
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	w.own[name] = some(t, name+"'s addresses", [2]netip.Addr{four, six}, [2]netip.Addr{four, six}, [2]netip.Addr{four}, [2]netip.Addr{1: six})
	node := model.Node{Name: name, Labels: map[string]string{"rack": some(t, name+"'s rack", "a", "b")}}
	for _, a := range w.own[name] {
		if a.IsValid() {
			node.Addrs = append(node.Addrs, a)
		}
	}
	switch state := some(t, name, "ready", "ready", "notready", "notready", "drained", "leaving", "unknown"); state {
	case "notready":
		node.NotReady = start().Add(-some(t, name+" since", 0, 10*time.Second, patience-1, patience, time.Hour))
	case "drained":
		node.Drained = "somebody said so"
	case "leaving":
		node.Leaving = "it is being deleted"
	case "unknown":
		return
	}
	w.Nodes[name] = node
}

func anyServices(t *rapid.T, nodes []string) (services []model.Share) {
	for i := range rapid.IntRange(1, 3).Draw(t, "sharing") {
		name := fmt.Sprintf("s%d", i)
		s := model.Share{Service: model.Name{Name: name}, Labels: map[string]string{"app": name}, Local: rapid.Bool().Draw(t, "local"), Usable: map[string]bool{}}
		for _, node := range append(slices.Clone(nodes), "", "n9") {
			switch some(t, name+" on "+node, "none", "ready", "serving") {
			case "ready":
				s.Usable[node] = true
			case "serving":
				s.Usable[node] = false
			}
		}
		services = append(services, s)
	}
	return services
}

// The oracle says the rules once more, in the plainest way: for one node and
// one address, without anything worked out before.

// servable reports whether policy has a node lead traffic to an address, and
// whether that takes an advertisement that keeps empty ones.
func servable(v model.VIP, node string) (yes, kept bool) {
	anyLocal, anyEndpoint := false, false
	for _, s := range v.Services {
		anyEndpoint = anyEndpoint || len(s.Usable) > 0
		if !s.Local {
			continue
		}
		anyLocal = true
		good := []string{}
		for _, wanted := range []bool{true, false} {
			for n, ready := range s.Usable {
				if n != "" && ready == wanted && (wanted || len(good) == 0 || !s.Usable[good[0]]) {
					good = append(good, n)
				}
			}
			if len(good) > 0 {
				break
			}
		}
		if !slices.Contains(good, node) {
			return false, false
		}
	}
	return true, !anyLocal && !anyEndpoint
}

// tellable reports whether a node has somebody to tell an address to.
func (w world) tellable(v model.VIP, node string, kept bool) bool {
	object, known := w.Nodes[node]
	chosen := func(s []model.Selector) bool { return len(s) == 0 || known && model.Selected(s, object.Labels) }
	rival := func(p model.Peer) bool {
		for _, q := range w.Peers {
			older := q.Created.Before(p.Created) || q.Created.Equal(p.Created) && q.Name < p.Name
			if q.Addr == p.Addr && older && chosen(q.Nodes) {
				return true
			}
		}
		return false
	}
	f := model.FamilyOf(v.Addr)
	for _, a := range w.Advertisements {
		service := func(s model.Share) bool { return model.Selected(a.Services, s.Labels) }
		if len(a.Pools) > 0 && a.Pools[0] == "other" || !slices.ContainsFunc(v.Services, service) || !chosen(a.Nodes) || kept && !a.KeepEmpty {
			continue
		}
		for _, p := range w.Peers {
			switch {
			case len(a.Peers) > 0 && !slices.Contains(a.Peers, p.Name):
			case !chosen(p.Nodes), p.Secret == "missing", rival(p):
			case len(p.Families) > 0 && p.Families[0] != f:
			case model.FamilyOf(p.Addr.Addr()) != f && !w.own[node][slot(v.Addr)].IsValid():
			default:
				return true
			}
		}
	}
	return false
}

// could reports whether a node could tell an address, whether it is ready or not.
func (w world) could(v model.VIP, node string) bool {
	yes, kept := servable(v, node)
	return yes && w.Nodes[node].Drained == "" && w.Nodes[node].Leaving == "" && w.tellable(v, node, kept)
}

// TestCluster: with an Announcer on each node that is told the same facts, an
// address that any node could serve is told by at least one, and by none that
// has no business to.
func TestCluster(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := anyWorld(t)
		for _, v := range w.vips {
			var tell, could, best []string
			for _, node := range w.nodes {
				a := announcer(w.seenFrom(node))
				if len(a.Decide(start(), v, true).Routes) > 0 {
					tell = append(tell, node)
				}
				if !w.could(v, node) {
					continue
				}
				could = append(could, node)
				// One that nobody knows cannot be relied on, but relies on itself.
				if object, known := w.Nodes[node]; known && object.NotReady.IsZero() {
					best = append(best, node)
				}
			}
			if len(tell) == 0 && len(could) > 0 {
				t.Errorf("%s: nobody tells it, and %v could", v.Addr, could)
			}
			for _, node := range could {
				late := !w.Nodes[node].NotReady.IsZero() && start().Sub(w.Nodes[node].NotReady) >= patience
				if told := slices.Contains(tell, node); told == (late && len(best) > 0) {
					t.Errorf("%s: %s told %v; NotReady for too long %v; ready ones %v", v.Addr, node, told, late, best)
				}
			}
			for _, node := range tell {
				if !slices.Contains(could, node) {
					t.Errorf("%s: %s tells it, which it must not", v.Addr, node)
				}
			}
		}
	})
}

// TestHistory: whatever was told before, in whatever order, what is told in the
// end depends on the last facts alone, once flaps are forgotten.
func TestHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		old := NewAnnouncer(AnnouncerOptions{NotReadyAfter: patience})
		now := start()
		for range rapid.IntRange(1, 4).Draw(t, "changes") {
			w := anyWorld(t)
			old.Network(w.seenFrom("n1"))
			for range rapid.IntRange(0, 6).Draw(t, "decisions") {
				now = now.Add(some(t, "pause", 0, time.Second, time.Minute, time.Hour))
				old.Decide(now, some(t, "address", w.vips...), rapid.Bool().Draw(t, "programmed"))
			}
		}
		for _, r := range old.Rows() {
			old.Decide(now, model.VIP{Addr: r.Addr}, true)
			break // one is nobody's for a while
		}
		now = now.Add(peace)
		w := anyWorld(t)
		old.Network(w.seenFrom("n1"))
		fresh := announcer(w.seenFrom("n1"))
		want := map[netip.Addr]Announcement{}
		byAddr := map[netip.Addr]model.VIP{}
		for _, v := range w.vips {
			byAddr[v.Addr] = v
			want[v.Addr] = fresh.Decide(now, v, true)
		}
		for _, v := range rapid.Permutation(w.vips).Draw(t, "order") {
			if got := old.Decide(now, byAddr[v.Addr], true); !reflect.DeepEqual(got, want[v.Addr]) {
				t.Errorf("%s: with a history %+v\nwithout %+v", v.Addr, got, want[v.Addr])
			}
		}
		for _, r := range old.Rows() { // those of former worlds are nobody's now
			if _, there := byAddr[r.Addr]; !there {
				old.Decide(now, model.VIP{Addr: r.Addr}, true)
			}
		}
		if !reflect.DeepEqual(old.Rows(), fresh.Rows()) {
			t.Errorf("rows with a history %+v\nwithout %+v", old.Rows(), fresh.Rows())
		}
	})
}
