package bgp

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/internal/model"
)

const patience = 30 * time.Second

// share reads "web Local n1:ready n2:serving ?:ready", a Service and the nodes
// where it has endpoints; "?" are those that name no node.
func share(text string) model.Share {
	words := strings.Fields(text)
	s := model.Share{
		Service: model.Name{Namespace: "default", Name: words[0]}, UID: "uid-" + words[0],
		Labels: map[string]string{"app": words[0]}, Local: words[1] == "Local", Usable: map[string]bool{},
	}
	for _, w := range words[2:] {
		node, state, _ := strings.Cut(w, ":")
		s.Usable[strings.TrimPrefix(node, "?")] = state == "ready"
	}
	return s
}

// vip reads an address and its Services, separated by commas.
func vip(addr, services string) model.VIP {
	v := model.VIP{Addr: netip.MustParseAddr(addr)}
	for text := range strings.SplitSeq(services, ",") {
		v.Services = append(v.Services, share(text))
	}
	return v
}

// cluster reads "n1 drained, n2 notready 40s, n3": the nodes there are, as
// n1 sees them at start. There is a pool, a peer, and an advertisement for all.
func cluster(nodes string) model.Network {
	n := model.Network{
		Node: "n1", Nodes: map[string]model.Node{},
		Source: [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
	}
	for text := range strings.SplitSeq(nodes, ",") {
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		node := model.Node{Name: words[0], Labels: map[string]string{"name": words[0]},
			Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::9")}}
		switch state := strings.Join(words[1:], " "); {
		case state == "drained":
			node.Drained = "annotation sluice.dev/drain"
		case state == "leaving":
			node.Leaving = "it is being deleted"
		case strings.HasPrefix(state, "notready "):
			since, err := time.ParseDuration(words[2])
			if err != nil {
				panic(err)
			}
			node.NotReady = start().Add(-since)
		}
		n.Nodes[node.Name] = node
	}
	add(&n, pools("default", "203.0.113.0-203.0.113.255", "2001:db8:f::-2001:db8:f::ffff"), peer("tor1"), model.Advertisement{Name: "all"})
	return n
}

// add puts objects into a network.
func add(n *model.Network, objects ...any) {
	for _, o := range objects {
		switch o := o.(type) {
		case model.AddressPool:
			n.Pools = with(n.Pools, o.Name, o)
		case model.Peer:
			n.Peers = with(n.Peers, o.Name, o)
		case model.Advertisement:
			n.Advertisements = with(n.Advertisements, o.Name, o)
		case model.Secret:
			n.Secrets = with(n.Secrets, o.Name, o)
		default:
			panic(fmt.Sprintf("%T", o))
		}
	}
}

func with[T any](m map[string]T, name string, o T) map[string]T {
	if m == nil {
		m = map[string]T{}
	}
	m[name] = o
	return m
}

func pools(name string, ranges ...string) model.AddressPool {
	p := model.AddressPool{Name: name, Labels: map[string]string{"pool": name}}
	for _, r := range ranges {
		from, to, _ := strings.Cut(r, "-")
		p.Ranges = append(p.Ranges, model.AddrRange{First: netip.MustParseAddr(from), Last: netip.MustParseAddr(to)})
	}
	return p
}

// peer is a router of an AS of its own, at an address made of its name's
// length.
func peer(name string) model.Peer {
	return model.Peer{Name: name, UID: "uid-" + name, ASN: 64500, MyASN: 64512, Hold: 9 * time.Second,
		Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 100 + name[len(name)-1] - '0'}), 179)}
}

// announcer makes one that knows a network.
func announcer(n model.Network) *Announcer {
	a := NewAnnouncer(AnnouncerOptions{NotReadyAfter: patience})
	a.Network(n)
	return a
}

// text is what Rows says of an address after a decision: "told" or "no", and why.
func text(a *Announcer) string {
	var lines []string
	for _, r := range a.Rows() {
		what := "no"
		if r.Told {
			what = "told"
		}
		if r.Peer != "" && r.Peer != "tor1" {
			what += " " + r.Peer
		}
		lines = append(lines, what+": "+r.Reason)
	}
	return strings.Join(lines, "\n")
}

// TestDecide is the table of decide's doc comment, and section 1C of the
// requirement, from n1's side.
func TestDecide(t *testing.T) {
	for _, c := range []struct {
		name     string
		services string
		nodes    string
		want     string
	}{
		// policy Cluster
		{"Cluster: an endpoint here", "web Cluster n1:ready", "n1, n2", "told: default/web has endpoints"},
		{"Cluster: an endpoint elsewhere", "web Cluster n2:ready", "n1, n2", "told: default/web has endpoints"},
		{"Cluster: only terminating ones", "web Cluster n2:serving", "n1, n2", "told: default/web has endpoints"},
		{"Cluster: one that names no node", "web Cluster ?:ready", "n1, n2", "told: default/web has endpoints"},
		{"Cluster: none", "web Cluster", "n1, n2", "no: default/web has no endpoints"},

		// policy Local
		{"Local: ready here", "web Local n1:ready", "n1, n2", "told: ready endpoint here (default/web)"},
		{"Local: ready elsewhere", "web Local n2:ready", "n1, n2", "no: no endpoint here (default/web, policy Local)"},
		{"Local: terminating here, ready elsewhere", "web Local n1:serving n2:ready", "n1, n2",
			"no: only a terminating endpoint here, and ready ones on other nodes (default/web, policy Local)"},
		{"Local: terminating here, none ready anywhere", "web Local n1:serving n2:serving", "n1, n2",
			"told: terminating endpoint here, and no ready one anywhere (default/web)"},
		{"Local: terminating elsewhere, none ready anywhere", "web Local n2:serving", "n1, n2", "no: no endpoint here (default/web, policy Local)"},
		{"Local: none at all", "web Local", "n1, n2", "no: default/web (policy Local) has no endpoints"},
		{"Local: no endpoint names a node", "web Local ?:ready", "n1, n2", "no: no endpoint of default/web (policy Local) says on which node it is"},
		{"Local: a ready one that names no node is nobody's", "web Local n1:serving ?:ready", "n1, n2",
			"told: terminating endpoint here, and no ready one anywhere (default/web)"},

		// shared addresses
		{"shared, Cluster: all with endpoints", "web Cluster n2:ready,dns Cluster n1:ready", "n1, n2", "told: 2 Services, all with endpoints"},
		{"shared, Cluster: one with endpoints", "web Cluster,dns Cluster n2:ready", "n1, n2",
			"told: default/dns has endpoints, as the only one of 2 Services"},
		{"shared, Cluster: some with endpoints", "web Cluster n1:ready,dns Cluster n2:ready,ftp Cluster", "n1, n2",
			"told: 2 of 3 Services have endpoints"},
		{"shared, Cluster: none", "web Cluster,dns Cluster", "n1, n2", "no: none of 2 Services has endpoints"},
		{"shared, Local: all here", "web Local n1:ready,dns Local n1:ready n2:ready", "n1, n2",
			"told: 2 Services of policy Local, all with endpoints here"},
		{"shared, Local: one of them here", "web Local n1:ready,dns Local n2:ready", "n1, n2", "no: no endpoint here (default/dns, policy Local)"},
		{"shared, Local: one without endpoints", "web Local n1:ready,dns Local", "n1, n2", "no: default/dns (policy Local) has no endpoints"},
		{"shared, Local: each falls back by itself", "web Local n1:serving,dns Local n1:ready n2:ready", "n1, n2",
			"told: 2 Services of policy Local, all with endpoints here"},
		{"shared, mixed: the Local one here", "web Local n1:ready,dns Cluster n2:ready", "n1, n2", "told: ready endpoint here (default/web)"},
		{"shared, mixed: the Cluster one has none", "web Local n1:ready,dns Cluster", "n1, n2", "told: ready endpoint here (default/web)"},
		{"shared, mixed: the Local one elsewhere", "web Local n2:ready,dns Cluster n1:ready", "n1, n2", "no: no endpoint here (default/web, policy Local)"},

		// the Node: drained and leaving, absolutely
		{"drained", "web Local n1:ready", "n1 drained, n2", "no: Node n1 is drained: annotation sluice.dev/drain"},
		{"drained, as the last", "web Cluster n1:ready", "n1 drained", "no: Node n1 is drained: annotation sluice.dev/drain"},
		{"leaving, as the last", "web Cluster n1:ready", "n1 leaving", "no: Node n1 is leaving: it is being deleted"},
		{"another one is drained", "web Cluster n2:ready", "n1, n2 drained", "told: default/web has endpoints"},
		{"drained, and its ready endpoint keeps terminating ones from leading", "web Local n1:serving n2:ready", "n1, n2 drained",
			"no: only a terminating endpoint here, and ready ones on other nodes (default/web, policy Local)"},

		// the Node: NotReady, but never the last
		{"NotReady, a short time", "web Cluster n1:ready", "n1 notready 29s, n2",
			"told: default/web has endpoints; until 12:00:01, when Node n1 has been NotReady for 30s"},
		{"NotReady, long", "web Cluster n1:ready", "n1 notready 30s, n2", "no: Node n1 is NotReady for longer than 30s, and others could lead"},
		{"NotReady, and all others too", "web Cluster n1:ready", "n1 notready 1h, n2 notready 31s",
			"told: default/web has endpoints; Node n1 is NotReady for longer than 30s, but no other could lead"},
		{"NotReady, and the other for a shorter time", "web Cluster n1:ready", "n1 notready 31s, n2 notready 1s",
			"told: default/web has endpoints; Node n1 is NotReady for longer than 30s, but no other could lead"},
		{"NotReady, and the others drained or leaving", "web Cluster n1:ready", "n1 notready 1h, n2 drained, n3 leaving",
			"told: default/web has endpoints; Node n1 is NotReady for longer than 30s, but no other could lead"},
		{"NotReady, Local, ready endpoints on another", "web Local n1:ready n9:ready n8:ready n7:ready n6:ready n5:ready n2:ready", "n1 notready 1h, n9, n8, n7, n6, n5, n2",
			"no: Node n1 is NotReady for longer than 30s, and n2 could lead"},
		{"NotReady, Local, no endpoints on others", "web Local n1:ready", "n1 notready 1h, n2",
			"told: ready endpoint here (default/web); Node n1 is NotReady for longer than 30s, but no other could lead"},
		{"NotReady, Local, only terminating ones on others", "web Local n1:ready n2:serving", "n1 notready 1h, n2",
			"told: ready endpoint here (default/web); Node n1 is NotReady for longer than 30s, but no other could lead"},
		{"NotReady, Local, another that nobody knows", "web Local n1:ready n9:ready", "n1 notready 1h",
			"told: ready endpoint here (default/web); Node n1 is NotReady for longer than 30s, but no other could lead"},
		{"NotReady, shared, Local: another has one of the two", "web Local n1:ready n2:ready,dns Local n1:ready", "n1 notready 1h, n2",
			"told: 2 Services of policy Local, all with endpoints here; Node n1 is NotReady for longer than 30s, but no other could lead"},
		{"NotReady, and policy has it lead nothing", "web Local n2:ready", "n1 notready 1h, n2", "no: no endpoint here (default/web, policy Local)"},

		{"unknown: fail static", "web Cluster n2:ready", "", "told: default/web has endpoints"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := announcer(cluster(c.nodes))
			got := a.Decide(start(), vip("203.0.113.7", c.services), true)
			if text(a) != c.want {
				t.Errorf("got  %s\nwant %s", text(a), c.want)
			}
			if told := strings.HasPrefix(c.want, "told"); told != (len(got.Routes) == 1) {
				t.Errorf("routes %v", got.Routes)
			}
			if until := strings.Contains(c.want, "until"); until != got.Again.Equal(start().Add(time.Second)) || until == got.Again.IsZero() {
				t.Errorf("decide again at %v", got.Again)
			}
		})
	}
}

// TestKeepEmpty: an advertisement may keep what nobody serves, for as long as it
// is of policy Cluster.
func TestKeepEmpty(t *testing.T) {
	const kept = "told: kept without endpoints, as a BGPAdvertisement has keepWithoutEndpoints"
	for _, c := range []struct{ name, services, nodes, want string }{
		{"Cluster: none", "web Cluster", "n1", kept + "\nno tor2: default/web has no endpoints"},
		{"Cluster: one", "web Cluster n2:ready", "n1", "told: default/web has endpoints\ntold tor2: default/web has endpoints"},
		{"Local: none", "web Local", "n1", "no: default/web (policy Local) has no endpoints"},
		{"mixed: none", "web Local,dns Cluster", "n1", "no: default/web (policy Local) has no endpoints"},
		{"drained", "web Cluster", "n1 drained", "no: Node n1 is drained: annotation sluice.dev/drain"},
		{"NotReady", "web Cluster", "n1 notready 1h, n2", "no: Node n1 is NotReady for longer than 30s, and others could lead"},
		{"NotReady, as the last", "web Cluster", "n1 notready 1h",
			kept + "; Node n1 is NotReady for longer than 30s, but no other could lead\nno tor2: default/web has no endpoints"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := cluster(c.nodes)
			add(&n, peer("tor2"), model.Advertisement{Name: "all", KeepEmpty: true, Peers: []string{"tor1"}},
				model.Advertisement{Name: "other", Peers: []string{"tor2"}})
			a := announcer(n)
			a.Decide(start(), vip("203.0.113.7", c.services), true)
			if !strings.Contains(c.want, "tor2") { // it is as tor1 is
				c.want += "\n" + strings.Replace(c.want, "no:", "no tor2:", 1)
			}
			if got := text(a); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	t.Run("attributes are those of what keeps it", func(t *testing.T) {
		n := cluster("n1")
		add(&n, model.Advertisement{Name: "keep", KeepEmpty: true, Communities: []model.Community{2}},
			model.Advertisement{Name: "all", Communities: []model.Community{1}})
		a := announcer(n)
		for services, want := range map[string]string{"web Cluster n1:ready": "0:1 0:2", "web Cluster": "0:2"} {
			for k, spec := range a.Decide(start(), vip("203.0.113.7", services), true).Routes {
				if spec.Route.Communities != want {
					t.Errorf("%s with %s: communities %q, want %q", k, services, spec.Route.Communities, want)
				}
			}
		}
	})
}

// TestApart: Services of policy Local that share an address and no node are a
// problem of the youngest.
func TestApart(t *testing.T) {
	for services, want := range map[string]string{
		"web Local n1:ready,dns Local n2:ready":                    "default/dns with default/web",
		"web Local n1:ready,dns Local n2:ready,ftp Local n3:ready": "default/ftp with default/web and 1 more",
		"web Local n1:ready n2:serving,dns Local n2:ready":         "default/dns with default/web",
		"web Local n1:ready ?:ready,dns Local n2:ready ?:ready":    "default/dns with default/web",
		"web Local n1:ready,dns Local n2:ready,ftp Cluster":        "default/dns with default/web",
		"web Local n1:ready,dns Local n1:ready n2:ready":           "",
		"web Local n3:ready,dns Local n3:ready":                    "", // a node of which nobody here knows
		"web Local n1:ready,dns Local":                             "", // it has no endpoints, which is another thing
		"web Local n1:ready,dns Local ?:ready":                     "",
		"web Local n1:ready,dns Cluster n2:ready":                  "",
		"web Cluster n1:ready,dns Cluster n2:ready":                "",
	} {
		a := announcer(cluster("n1, n2"))
		problems := a.Decide(start(), vip("203.0.113.7", services), true).Problems
		if want == "" {
			if len(problems) != 0 {
				t.Errorf("%s: %v", services, problems)
			}
			continue
		}
		who, with, _ := strings.Cut(want, " with ")
		if len(problems) != 1 {
			t.Errorf("%s: problems %v, want one of %s", services, problems, who)
			continue
		}
		p := problems[0]
		if p.Kind != "Service" || p.Object.String() != who || p.UID != "uid-"+p.Object.Name || p.Reason != "NoCommonNode" ||
			!strings.Contains(p.Message, "203.0.113.7 (with "+with+")") {
			t.Errorf("%s: %+v, want %s", services, p, want)
		}
	}
}

// TestApartBesideOthers: each address has its own problems, also where they
// share those of their advertisements.
func TestApartBesideOthers(t *testing.T) {
	n := cluster("n1")
	n.Advertisements = nil
	for i := range uint32(4) { // three contradict the first
		add(&n, model.Advertisement{Name: fmt.Sprint(i), MED: &i})
	}
	a := announcer(n)
	const services = "web Local n1:ready,dns Local n2:ready"
	first := a.Decide(start(), vip("203.0.113.7", services), true).Problems
	a.Decide(start(), vip("203.0.113.8", services), true)
	if len(first) != 4 || !strings.Contains(first[3].Message, "203.0.113.7") {
		t.Errorf("problems of 203.0.113.7: %v", first)
	}
}
