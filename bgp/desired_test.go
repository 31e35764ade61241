package bgp

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/internal/model"
)

// on selects by one label.
func on(key string, values ...string) []model.Selector {
	return []model.Selector{{Requirements: []model.Requirement{{Key: key, Values: values}}}}
}

// described is what a problem says, in short.
func described(problems []model.Problem) (out []string) {
	for _, p := range problems {
		out = append(out, p.Kind+" "+p.Object.Name+" "+p.Reason+": "+p.Message)
	}
	return out
}

// same compares lines with what they have to begin with.
func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("%s\n     %s\nwant %s", what, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}

// TestSessions is which peers a node has sessions with, and what is wrong with
// the others.
func TestSessions(t *testing.T) {
	at := func(p model.Peer, addr string) model.Peer {
		p.Addr = netip.MustParseAddrPort(addr)
		return p
	}
	for _, c := range []struct {
		name     string
		nodes    string
		objects  []any
		sessions string
		problems []string
	}{
		{"one", "n1", nil, "tor1", nil},
		{"of other nodes", "n1", []any{model.Peer{Name: "tor1", Nodes: on("name", "n2")}}, "", nil},
		{"of this one", "n1", []any{model.Peer{Name: "tor1", Nodes: on("name", "n2", "n1")}}, "tor1", nil},
		{"labels unknown", "", []any{model.Peer{Name: "tor1", Nodes: []model.Selector{{Requirements: []model.Requirement{{Key: "rack", Op: model.DoesNotExist}}}}}}, "", nil},
		{"the same twice: the older", "n1", []any{
			at(peer("tor1"), "192.0.2.254:179"),
			model.Peer{Name: "a", Created: start(), Addr: netip.MustParseAddrPort("192.0.2.254:179"), UID: "1"},
		}, "tor1", []string{"BGPPeer a DuplicatePeer: 192.0.2.254:179 is the BGPPeer tor1 already, which is older and counts, so there is no session with the peer; remove one of them"}},
		{"the same thrice", "n1", []any{at(peer("tor3"), "192.0.2.101:179"), at(peer("tor2"), "192.0.2.101:179")}, "tor1",
			[]string{"BGPPeer tor2 DuplicatePeer: 192.0.2.101:179 is the BGPPeer tor1", "BGPPeer tor3 DuplicatePeer: 192.0.2.101:179 is the BGPPeer tor1"}},
		{"the same age: the first by name", "n1", []any{at(peer("tor1"), "192.0.2.254:179"), at(peer("tor0"), "192.0.2.254:179")},
			"tor0", []string{"BGPPeer tor1 DuplicatePeer"}},
		{"the same address, another port", "n1", []any{at(peer("tor1"), "192.0.2.254:179"), at(peer("tor2"), "192.0.2.254:180")}, "tor1 tor2", nil},
		{"the same twice, one of them for other nodes", "n1", []any{
			at(peer("tor1"), "192.0.2.254:179"),
			model.Peer{Name: "a", Addr: netip.MustParseAddrPort("192.0.2.254:179"), Nodes: on("name", "n2")},
		}, "tor1", nil},
		{"Secret", "n1", []any{model.Peer{Name: "tor1", Secret: "pw"}, model.Secret{Name: "pw", Password: "x"}}, "tor1:x", nil},
		{"password of a file", "n1", []any{model.Peer{Name: "tor1", Password: "y"}}, "tor1:y", nil},
		{"Secret missing", "n1", []any{peer("tor2"), model.Peer{Name: "tor1", Secret: "pw", UID: "1"}}, "tor2",
			[]string{"BGPPeer tor1 SecretMissing: there is no Secret pw, which passwordSecret names, so there is no session with the peer; create it"}},
		{"Secret missing, also with a password", "n1", []any{model.Peer{Name: "tor1", Secret: "pw", Password: "y"}}, "", []string{"BGPPeer tor1 SecretMissing"}},
		{"Secret empty", "n1", []any{model.Peer{Name: "tor1", Secret: "pw"}, model.Secret{Name: "pw"}}, "",
			[]string{"BGPPeer tor1 SecretEmpty: the Secret pw, which passwordSecret names, has no password"}},
		{"unknown names", "n1", []any{model.Advertisement{Name: "all", Pools: []string{"default", "gone"}, Peers: []string{"tor9"}}}, "tor1", []string{
			"BGPAdvertisement all UnknownPool: addressPools names gone, and there is no such AddressPool; correct the name, or create it",
			"BGPAdvertisement all UnknownPeer: peers names tor9, and there is no such BGPPeer"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := cluster(c.nodes)
			add(&n, c.objects...)
			sessions, problems := NewAnnouncer(AnnouncerOptions{}).Network(n)
			var names []string
			for k, spec := range sessions {
				if spec.Session.Password != "" {
					k.Peer += ":" + string(spec.Session.Password)
				}
				names = append(names, k.Peer)
			}
			slices.Sort(names)
			if got := strings.Join(names, " "); got != c.sessions {
				t.Errorf("sessions %q, want %q", got, c.sessions)
			}
			same(t, "problems", described(problems), c.problems)
		})
	}
}

// TestSession: what a peer says reaches its session as it is.
func TestSession(t *testing.T) {
	n := cluster("n1")
	p := model.Peer{
		Name: "tor1", Addr: netip.MustParseAddrPort("198.51.100.1:1179"), ASN: 1, MyASN: 2,
		Hold: 3 * time.Second, Keepalive: time.Second, ConnectRetry: 2 * time.Second, Restart: 4 * time.Second,
		Source: netip.MustParseAddr("192.0.2.7"), Hops: 5, TTLSecurity: true, Password: "x", Families: []model.Family{model.IPv6},
	}
	add(&n, p)
	sessions, _ := NewAnnouncer(AnnouncerOptions{}).Network(n)
	want := Session{
		Peer: p.Addr, ASN: 1, MyASN: 2, RouterID: netip.MustParseAddr("192.0.2.1"),
		Hold: 3 * time.Second, Keepalive: time.Second, ConnectRetry: 2 * time.Second, Restart: 4 * time.Second,
		Source: p.Source, Hops: 5, TTLSecurity: true, Password: "x", IPv6: true,
	}
	if got := sessions[Key{Peer: "tor1"}].Session; got != want {
		t.Errorf("session %+v\nwant    %+v", got, want)
	}
	p.Families = nil
	add(&n, p)
	sessions, _ = NewAnnouncer(AnnouncerOptions{}).Network(n)
	if got := sessions[Key{Peer: "tor1"}].Session; !got.IPv4 || !got.IPv6 {
		t.Errorf("without families: %+v", got)
	}
}

// TestRouterID: a node without IPv4 has one all the same, its own and always
// the same.
func TestRouterID(t *testing.T) {
	if got := routerID("n1", netip.MustParseAddr("192.0.2.1")); got != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("with an IPv4 address: %s", got)
	}
	seen := map[netip.Addr]bool{}
	for i := range 1000 {
		id := routerID("node-"+time.Duration(i).String(), netip.Addr{})
		if first := id.As4()[0]; first < 1 || first > 126 {
			t.Errorf("%s is no unicast address", id)
		}
		if seen[id] || id != routerID("node-"+time.Duration(i).String(), netip.Addr{}) {
			t.Errorf("%s is two nodes', or changes", id)
		}
		seen[id] = true
	}
}

// TestMeant is which advertisements an address is told by, and what is said
// when there is none.
func TestMeant(t *testing.T) {
	const leads = "told: default/web has endpoints"
	with := func(change func(*model.Advertisement)) []any {
		a := model.Advertisement{Name: "all"}
		change(&a)
		return []any{a}
	}
	for _, c := range []struct {
		name    string
		addr    string
		objects []any
		remove  string
		want    string
	}{
		{"all pools", "203.0.113.7", nil, "", leads},
		{"no pool, all pools", "198.51.100.7", nil, "", leads},
		{"by name", "203.0.113.7", with(func(a *model.Advertisement) { a.Pools = []string{"default"} }), "", leads},
		{"by label", "203.0.113.7", with(func(a *model.Advertisement) { a.PoolSelectors = on("pool", "default") }), "", leads},
		{"by name or label", "203.0.113.7", with(func(a *model.Advertisement) { a.Pools, a.PoolSelectors = []string{"default"}, on("pool", "x") }), "", leads},
		{"another pool", "203.0.113.7", with(func(a *model.Advertisement) { a.Pools = []string{"other"} }), "", "no: no BGPAdvertisement selects pool default"},
		{"another label", "203.0.113.7", with(func(a *model.Advertisement) { a.PoolSelectors = on("pool", "x") }), "", "no: no BGPAdvertisement selects pool default"},
		{"two pools, none of them", "203.0.113.7", append(with(func(a *model.Advertisement) { a.PoolSelectors = on("pool", "x") }), pools("also", "203.0.113.0-203.0.113.9")), "",
			"no: no BGPAdvertisement selects any of the pools also, default"},
		{"two pools, one of them", "203.0.113.7", append(with(func(a *model.Advertisement) { a.Pools = []string{"also"} }), pools("also", "203.0.113.0-203.0.113.9")), "", leads},
		{"no pool, by name", "198.51.100.7", with(func(a *model.Advertisement) { a.Pools = []string{"default"} }), "",
			"no: no AddressPool has the address, and no BGPAdvertisement is for those without a pool"},
		{"Services", "203.0.113.7", with(func(a *model.Advertisement) { a.Services = on("app", "web") }), "", leads},
		{"other Services", "203.0.113.7", with(func(a *model.Advertisement) { a.Services = on("app", "dns") }), "",
			"no: BGPAdvertisement all's serviceSelectors leave out default/web"},
		{"nodes", "203.0.113.7", with(func(a *model.Advertisement) { a.Nodes = on("name", "n1") }), "", leads},
		{"other nodes", "203.0.113.7", with(func(a *model.Advertisement) { a.Nodes = on("name", "n2") }), "",
			"no: BGPAdvertisement all's nodeSelectors leave out this node"},
		{"peers", "203.0.113.7", append(with(func(a *model.Advertisement) { a.Peers = []string{"tor2"} }), peer("tor2")), "", "told tor2: default/web has endpoints"},
		{"all peers", "203.0.113.7", []any{peer("tor2")}, "", leads + "\ntold tor2: default/web has endpoints"},
		{"a peer that is not there", "203.0.113.7", with(func(a *model.Advertisement) { a.Peers = []string{"tor9"} }), "",
			"no: BGPAdvertisement all is for peer tor9, and there is no such BGPPeer"},
		{"a peer for other nodes", "203.0.113.7", []any{model.Peer{Name: "tor1", Nodes: on("name", "n2")}}, "", "no: peer tor1's nodeSelectors leave out this node"},
		{"peers for other nodes", "203.0.113.7", []any{model.Peer{Name: "tor1", Nodes: on("name", "n2")}, model.Peer{Name: "tor2", Nodes: on("name", "n2")}}, "",
			"no: the nodeSelectors of peer tor1, and of 1 more, leave out this node"},
		{"no advertisement", "203.0.113.7", nil, "advertisement", "no: there is no BGPAdvertisement"},
		{"no peer", "203.0.113.7", nil, "peer", "no: there is no BGPPeer"},
		{"what comes closest is named", "203.0.113.7", append(with(func(a *model.Advertisement) { a.Pools = []string{"x"} }),
			model.Advertisement{Name: "rack2", Nodes: on("name", "n2"), Created: start()}), "", "no: BGPAdvertisement rack2's nodeSelectors leave out this node"},
		{"no session", "203.0.113.7", []any{model.Peer{Name: "tor1", Secret: "pw"}}, "", "no: no session with peer tor1: there is no Secret pw, which passwordSecret names"},
		{"not the family", "203.0.113.7", []any{model.Peer{Name: "tor1", Families: []model.Family{model.IPv6}}}, "", "no: peer tor1 is told no IPv4 routes (families)"},
		{"the family", "2001:db8:f::7", []any{model.Peer{Name: "tor1", Families: []model.Family{model.IPv6}}}, "", leads},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := cluster("n1")
			add(&n, c.objects...)
			switch c.remove {
			case "advertisement":
				n.Advertisements = nil
			case "peer":
				n.Peers = nil
			}
			a := announcer(n)
			a.Decide(start(), vip(c.addr, "web Cluster n2:ready"), true)
			if got := text(a); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	t.Run("one of the sharing Services is enough", func(t *testing.T) {
		n := cluster("n1")
		add(&n, with(func(a *model.Advertisement) { a.Services = on("app", "dns") })...)
		a := announcer(n)
		a.Decide(start(), vip("203.0.113.7", "web Cluster n2:ready,dns Cluster"), true)
		if got := text(a); got != "told: default/web has endpoints, as the only one of 2 Services" {
			t.Error(got)
		}
		a.Decide(start(), vip("203.0.113.7", "web Cluster n2:ready,ftp Cluster"), true)
		if got := text(a); got != "no: BGPAdvertisement all's serviceSelectors leave out all 2 Services" {
			t.Error(got)
		}
	})
	t.Run("no Node, selectors", func(t *testing.T) {
		n := cluster("")
		add(&n, with(func(a *model.Advertisement) { a.Nodes = on("name", "n1") })...)
		a := announcer(n)
		a.Decide(start(), vip("203.0.113.7", "web Cluster n2:ready"), true)
		if got := text(a); got != "no: BGPAdvertisement all's nodeSelectors leave out this node, whose labels are unknown without a Node n1" {
			t.Error(got)
		}
	})
}

// TestNextHop: routes of the session's own family have its local address, those
// of the other one the node's.
func TestNextHop(t *testing.T) {
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, c := range []struct {
		name, peer, addr string
		source           [2]netip.Addr
		want             string
	}{
		{"IPv4 over IPv4", "192.0.2.101:179", "203.0.113.7", [2]netip.Addr{four, six}, "invalid IP"},
		{"IPv6 over IPv6", "[2001:db8::9]:179", "2001:db8:f::7", [2]netip.Addr{four, six}, "invalid IP"},
		{"IPv6 over IPv4", "192.0.2.101:179", "2001:db8:f::7", [2]netip.Addr{four, six}, "2001:db8::1"},
		{"IPv4 over IPv6", "[2001:db8::9]:179", "203.0.113.7", [2]netip.Addr{four, six}, "192.0.2.1"},
		{"the node has no IPv6", "192.0.2.101:179", "2001:db8:f::7", [2]netip.Addr{four}, "no: this node has no IPv6 address that could be the next hop of what peer tor1 is told"},
		{"the node has no IPv4", "[2001:db8::9]:179", "203.0.113.7", [2]netip.Addr{1: six}, "no: this node has no IPv4 address that could be the next hop of what peer tor1 is told"},
		{"the session's own family needs none", "[2001:db8::9]:179", "2001:db8:f::7", [2]netip.Addr{}, "invalid IP"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := cluster("n1")
			n.Source = c.source
			p := peer("tor1")
			p.Addr = netip.MustParseAddrPort(c.peer)
			add(&n, p)
			a := announcer(n)
			got := text(a)
			for _, spec := range a.Decide(start(), vip(c.addr, "web Cluster n2:ready"), true).Routes {
				got = spec.Route.NextHop.String()
			}
			if got == "" {
				got = text(a)
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestOthers is who counts as another node while this one, n1 in rack a, is
// NotReady: those that would tell somebody else, if not the same peer.
func TestOthers(t *testing.T) {
	rack := func(name string) []model.Selector { return on("rack", name) }
	racks := []any{
		model.Peer{Name: "tor1", Nodes: rack("a")},
		model.Peer{Name: "tor2", Nodes: rack("b"), Addr: netip.MustParseAddrPort("192.0.2.102:179")},
	}
	for _, c := range []struct {
		name    string
		objects []any
		n2      model.Node
		want    bool // n2 counts, so that n1 gives up
	}{
		{"a peer of its own", racks, model.Node{}, true},
		{"an advertisement and a peer of its own", append([]any{
			model.Advertisement{Name: "all", Nodes: rack("a")}, model.Advertisement{Name: "b", Nodes: rack("b")}}, racks...), model.Node{}, true},
		{"no advertisement", append([]any{model.Advertisement{Name: "all", Nodes: rack("a")}}, racks...), model.Node{}, false},
		{"an advertisement of other pools", append([]any{model.Advertisement{Name: "all", Nodes: rack("a")},
			model.Advertisement{Name: "b", Nodes: rack("b"), Pools: []string{"x"}}}, racks...), model.Node{}, false},
		{"an advertisement of other Services", append([]any{model.Advertisement{Name: "all", Nodes: rack("a")},
			model.Advertisement{Name: "b", Nodes: rack("b"), Services: on("app", "x")}}, racks...), model.Node{}, false},
		{"no peer", []any{model.Peer{Name: "tor1", Nodes: rack("a")}}, model.Node{}, false},
		{"no peer of the advertisement", append([]any{model.Advertisement{Name: "all", Peers: []string{"tor1"}}}, racks...), model.Node{}, false},
		{"no session: a Secret is missing", []any{racks[0], model.Peer{Name: "tor2", Nodes: rack("b"), Secret: "pw"}}, model.Node{}, false},
		{"no next hop", []any{racks[0], model.Peer{Name: "tor2", Nodes: rack("b"), Addr: netip.MustParseAddrPort("[2001:db8::102]:179")}},
			model.Node{Addrs: []netip.Addr{netip.MustParseAddr("2001:db8::2")}}, false},
		{"drained", racks, model.Node{Drained: "x"}, false},
		{"leaving", racks, model.Node{Leaving: "x"}, false},
		{"NotReady", racks, model.Node{NotReady: start()}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := cluster("n1 notready 1h")
			n1 := n.Nodes["n1"]
			n1.Labels = map[string]string{"rack": "a"}
			c.n2.Name, c.n2.Labels = "n2", map[string]string{"rack": "b"}
			n.Nodes["n1"], n.Nodes["n2"] = n1, c.n2
			add(&n, c.objects...)
			for _, services := range []string{"web Cluster n2:ready", "web Local n1:ready n2:ready"} {
				a := announcer(n)
				if told := len(a.Decide(start(), vip("203.0.113.7", services), true).Routes) > 0; told == c.want {
					t.Errorf("%s: told %v: %s", services, told, text(a))
				}
			}
		})
	}
	t.Run("its own advertisement does not keep empty addresses", func(t *testing.T) {
		n := cluster("n1 notready 1h, n2")
		add(&n, model.Advertisement{Name: "all", Nodes: on("name", "n1"), KeepEmpty: true}, model.Advertisement{Name: "b", Nodes: on("name", "n2")})
		a := announcer(n)
		for services, want := range map[string]bool{"web Cluster": true, "web Cluster n1:ready": false} {
			if told := len(a.Decide(start(), vip("203.0.113.7", services), true).Routes) > 0; told != want {
				t.Errorf("%s: told %v: %s", services, told, text(a))
			}
		}
	})
}
