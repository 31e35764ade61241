package bgp

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"sluice.dev/sluice/internal/model"
)

const (
	webHere   = "web Local n1:ready"
	webThere  = "web Local n2:ready"
	thatAddr  = "203.0.113.7"
	toldHere  = "told: ready endpoint here (default/web)"
	toldLater = "no: waits until this node's tables have all that the address needs"
	notHere   = "no: no endpoint here (default/web, policy Local)"
)

// step is one decision in the life of an address.
type step struct {
	after    time.Duration // since the last one
	services string        // "": as before
	nodes    string        // "": as before
	hold     bool          // the tables lack something
	want     string        // what Rows begins with
	again    time.Duration // from now on; 0: never
}

// TestLife: what is told stays while tables are written, goes at once when the
// facts say so, and comes back the later the more it flaps.
func TestLife(t *testing.T) {
	flap := func(wait time.Duration) []step {
		return []step{
			{services: webThere, want: notHere},
			{services: webHere, want: fmt.Sprintf("no: waits for %v until ", wait), again: wait},
			{after: wait - 1, want: "no: waits", again: 1},
			{after: 1, want: toldHere},
		}
	}
	for name, steps := range map[string][]step{
		"additions wait for the tables, standing routes do not": {
			{services: webHere, hold: true, want: toldLater}, {hold: true, want: toldLater}, {want: toldHere}, {hold: true, want: toldHere}, {want: toldHere},
			{services: webThere, hold: true, want: notHere}, {after: time.Minute, services: webHere, hold: true, want: toldLater}, {want: toldHere},
		},
		"one more Service on a standing address": {
			{services: "web Cluster n1:ready", want: "told: "}, {services: "web Cluster n1:ready,dns Cluster n1:ready", hold: true, want: "told: "},
		},
		"flaps": append(append(append([]step{{services: webHere, want: toldHere}}, flap(time.Second)...), flap(2*time.Second)...), flap(4*time.Second)...),
		"peace": append(append(append([]step{{services: webHere, want: toldHere}}, flap(time.Second)...), flap(2*time.Second)...),
			append([]step{{after: peace, want: toldHere}}, flap(time.Second)...)...),
		"away for longer than the wait": {
			{services: webHere, want: toldHere}, {services: webThere, want: notHere}, {after: time.Second, want: notHere}, {services: webHere, want: toldHere},
		},
		"both the tables and flaps": {
			{services: webHere, want: toldHere}, {services: webThere, want: notHere}, {services: webHere, hold: true, want: toldLater},
			{want: "no: waits for 1s", again: time.Second}, {after: time.Second, hold: true, want: toldLater}, {want: toldHere},
		},
		"drained and back": {
			{services: webHere, want: toldHere}, {nodes: "n1 drained, n2", want: "no: Node n1 is drained"}, {nodes: "n1, n2", want: "no: waits for 1s", again: time.Second},
			{after: time.Second, want: toldHere}, {nodes: "n1 drained, n2", want: "no: Node n1 is drained"},
			{nodes: "n1, n2", want: "no: waits for 1s", again: time.Second}, {after: time.Second, want: toldHere},
		},
		"webThere's for a while: forgotten": {
			{services: webHere, want: toldHere}, {services: "-", want: ""}, {services: webHere, want: toldHere},
		},
		"NotReady for too long, and back": {
			{services: "web Cluster n2:ready", nodes: "n1 notready 0s, n2", want: "told: default/web has endpoints; until 12:00:30", again: patience},
			{after: patience - 1, want: "told: ", again: 1}, {after: 1, want: "no: Node n1 is NotReady for longer than 30s, and others could lead"},
			{after: time.Minute, nodes: "n1, n2", want: "told: "},
		},
		"no route through an edit of peers": {
			{services: webHere, want: toldHere}, {nodes: "no peer", want: "no: there is no BGPPeer"}, {after: time.Minute, nodes: "n1", want: toldHere},
		},
	} {
		t.Run(name, func(t *testing.T) {
			now, services := start(), ""
			a := announcer(cluster("n1, n2"))
			for i, s := range steps {
				now = now.Add(s.after)
				if s.services != "" {
					services = s.services
				}
				switch s.nodes {
				case "":
				case "no peer":
					n := cluster("n1")
					n.Peers = nil
					a.Network(n)
				default:
					a.Network(cluster(s.nodes))
				}
				v := model.VIP{Addr: netip.MustParseAddr(thatAddr)}
				if services != "-" {
					v = vip(thatAddr, services)
				}
				got := a.Decide(now, v, !s.hold)
				if !strings.HasPrefix(text(a), s.want) || s.want == "" && text(a) != "" {
					t.Errorf("step %d: got  %s\nwant %s", i+1, text(a), s.want)
				}
				if s.again == 0 != got.Again.IsZero() || s.again != 0 && !got.Again.Equal(now.Add(s.again)) {
					t.Errorf("step %d: again at %v, want in %v", i+1, got.Again, s.again)
				}
				if told := strings.HasPrefix(s.want, "told"); told != (len(got.Routes) > 0) {
					t.Errorf("step %d: routes %v", i+1, got.Routes)
				}
			}
		})
	}
}

// TestAttributesAreNoFlap: what changes a route does not withdraw it.
func TestAttributesAreNoFlap(t *testing.T) {
	n := cluster("n1")
	a := announcer(n)
	v := vip(thatAddr, webHere)
	a.Decide(start(), v, true)
	for i := range uint32(20) {
		add(&n, model.Advertisement{Name: "all", Length4: uint8(25 + i%8), MED: &i}, peer(fmt.Sprintf("tor%d", 1+i%9)))
		a.Network(n)
		if got := a.Decide(start(), v, i%2 == 0); len(got.Routes) != len(n.Peers) || !got.Again.IsZero() {
			t.Fatalf("after change %d: routes %v, again %v", i, got.Routes, got.Again)
		}
	}
}

// TestRows: ordered, with what is told and what is not, and readable while
// decisions are made.
func TestRows(t *testing.T) {
	n := cluster("n1, n2")
	add(&n, peer("tor2"), model.Peer{Name: "tor0", Secret: "pw"}, model.Peer{Name: "tor3", Nodes: on("name", "n2")},
		model.Advertisement{Name: "more", Length4: 24, Peers: []string{"tor2"}, Communities: []model.Community{1}})
	a := announcer(n)
	a.Decide(start(), vip("203.0.113.9", "web Cluster n1:ready,dns Cluster n1:ready"), true)
	a.Decide(start(), vip("203.0.113.8", "ftp Local n2:ready"), true)
	a.Decide(start(), vip("2001:db8:f::1", "six Cluster"), true)
	var got []string
	for _, r := range a.Rows() {
		got = append(got, fmt.Sprintf("%s %s %s %v %s %v %s", r.Addr, r.Prefix, r.Peer, r.Told, r.Route.Communities, r.Services, r.Reason))
	}
	const local, secret = " false  [default/ftp] no endpoint here (default/ftp, policy Local)", "no session with peer tor0: there is no Secret pw, which passwordSecret names"
	same(t, "rows", got, []string{
		"203.0.113.8 203.0.113.8/32 tor0" + local, "203.0.113.8 203.0.113.8/32 tor1" + local,
		"203.0.113.8 203.0.113.8/32 tor2 false 0:1 [default/ftp] no endpoint here",
		"203.0.113.9 203.0.113.9/32 tor0 false  [default/web default/dns] " + secret,
		"203.0.113.9 203.0.113.9/32 tor1 true  [default/web default/dns] 2 Services, all with endpoints",
		"203.0.113.9 203.0.113.0/24 tor2 true 0:1 [default/web default/dns] 2 Services, all with endpoints",
		"203.0.113.9 203.0.113.9/32 tor2 true  [default/web default/dns] 2 Services, all with endpoints",
		"2001:db8:f::1 2001:db8:f::1/128 tor0 false  [default/six] default/six has no endpoints",
		"2001:db8:f::1 2001:db8:f::1/128 tor1 false", "2001:db8:f::1 2001:db8:f::1/128 tor2 false",
	})

	a.Decide(start(), vip("203.0.113.8", "dns Local n2:ready"), true)
	if got := a.Rows()[0].Services; len(got) != 1 || got[0].Name != "dns" {
		t.Errorf("after another Service has taken its place: %v", got)
	}

	var readers sync.WaitGroup
	readers.Go(func() {
		for range 100 {
			a.Rows()
		}
	})
	for i := range 100 {
		a.Decide(start(), vip("203.0.113.9", []string{webHere, webThere}[i%2]), true)
		a.Network(n)
	}
	readers.Wait()
}

// TestForgets: an address that webThere answers on takes no memory.
func TestForgets(t *testing.T) {
	a := announcer(cluster("n1"))
	v := vip(thatAddr, webHere)
	a.Decide(start(), v, true)
	v.Services = nil
	if got := a.Decide(start(), v, true); len(got.Routes)+len(got.Discard)+len(got.Problems) != 0 || !got.Again.IsZero() {
		t.Errorf("it wants %+v", got)
	}
	if len(a.states) != 0 || len(a.Rows()) != 0 {
		t.Errorf("left: %v", a.Rows())
	}
}

// many are addresses of Services in a large cluster: 10,000 addresses, 100
// nodes, 4 peers for this node out of 100, 8 advertisements of which 2 are for
// each address.
func many() (n model.Network, vips []model.VIP) {
	n = cluster("n1, n2, n3")
	n.Peers = nil
	for i := range 100 {
		p := peer(fmt.Sprintf("tor%d", i%10))
		p.Name, p.Addr = fmt.Sprintf("tor%03d", i), netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 3, byte(i)}), 179)
		if i >= 4 {
			p.Nodes = on("name", "n2")
		}
		add(&n, p)
	}
	n.Advertisements = nil
	for i := range 4 {
		pool := fmt.Sprintf("pool%d", i)
		add(&n, pools(pool, fmt.Sprintf("10.%d.0.0-10.%d.255.255", i, i)),
			model.Advertisement{Name: pool, Pools: []string{pool}, Communities: []model.Community{model.Community(i)}},
			model.Advertisement{Name: pool + "-all", PoolSelectors: on("pool", pool), Length4: 16, LocalPref: 7})
	}
	usable := map[string]bool{}
	for node := range 100 {
		usable[fmt.Sprintf("n%d", node)] = true
	}
	for i := range 10000 {
		s := model.Share{Service: model.Name{Namespace: "default", Name: fmt.Sprintf("service-%d", i)}, Local: i%2 == 0, Usable: usable}
		addr := netip.AddrFrom4([4]byte{10, byte(i % 4), byte(i >> 8), byte(i)})
		vips = append(vips, model.VIP{Addr: addr, Services: []model.Share{s}})
	}
	return n, vips
}

// TestBudget: an address costs a few allocations, however many there are, and
// little memory.
func TestBudget(t *testing.T) {
	n, vips := many()
	a := announcer(n)
	told := 0
	for _, v := range vips {
		told += len(a.Decide(start(), v, true).Routes)
	}
	if want := 10000 * 4 * 3 / 2; told != want {
		t.Errorf("%d routes, want %d", told, want)
	}
	if got := len(a.network.plans); got > 8 {
		t.Errorf("%d plans for 4 pools and 2 policies", got)
	}
	i := 0
	allocations := testing.AllocsPerRun(1000, func() {
		a.Decide(start(), vips[i%len(vips)], true)
		i++
	})
	if allocations > 16 {
		t.Errorf("a decision allocates %v times", allocations)
	}
	if size := unsafe.Sizeof(line{}); size > 64 {
		t.Errorf("a line takes %d bytes", size)
	}
}

// BenchmarkNetwork is a change that concerns all: 10,000 addresses are decided
// anew.
func BenchmarkNetwork(b *testing.B) {
	n, vips := many()
	a := announcer(n)
	b.ReportAllocs()
	for b.Loop() {
		a.Network(n)
		for _, v := range vips {
			a.Decide(start(), v, true)
		}
	}
}
