package bgp_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	api "github.com/osrg/gobgp/v3/api"

	"sluice.dev/sluice/bgp"
	"sluice.dev/sluice/bgp/bgptest"
)

// node is one that speaks, and what it has told about its sessions.
type node struct {
	*bgp.GoBGP
	mu      sync.Mutex
	changes []bgp.PeerState
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{}
	n.GoBGP = bgp.NewGoBGP(bgp.GoBGPOptions{Changed: func(s bgp.PeerState) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.changes = append(n.changes, s)
	}})
	t.Cleanup(func() {
		for _, p := range n.Peers() {
			n.Close(p.Peer)
		}
	})
	return n
}

func (n *node) told() []bgp.PeerState {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changes
}

func (n *node) state() bgp.PeerState { return bgptest.State(n, "tor") }

func (n *node) awaitUp(t *testing.T) {
	t.Helper()
	bgptest.Await(t, "established", func() bool { return n.state().Established() })
}

func (n *node) awaitError(t *testing.T, want string) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !strings.Contains(n.state().Error, want) {
		if time.Now().After(deadline) {
			t.Fatalf("error %q never came; state %+v", want, n.state())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func tor(p netip.Prefix) bgp.Key { return bgp.Key{Peer: "tor", Prefix: p} }

func TestFakeConformance(t *testing.T) {
	bgptest.Conformance(t, func(*testing.T) bgptest.Subject {
		s := bgptest.New()
		routers := map[string]string{"a": "tor", "b": "two"}
		return bgptest.Subject{
			Server: s,
			Session: func(name string) bgp.Session {
				n := byte(len(routers[name]) + int(name[0]))
				x := (&router{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, n}), 179), asn: 65001}).session()
				return x
			},
			Heard: func(name string) map[netip.Prefix]bgp.Route {
				for _, p := range s.Peers() {
					if byte(p.Addr.Addr().As4()[3]) == byte(len(routers[name])+int(name[0])) {
						return s.Heard(p.Peer)
					}
				}
				return map[netip.Prefix]bgp.Route{}
			},
		}
	})
}

func TestGoBGPConformance(t *testing.T) {
	t.Parallel()
	bgptest.Conformance(t, func(t *testing.T) bgptest.Subject {
		t.Helper()
		routers := map[string]*router{"a": startRouter(t), "b": startRouter(t)}
		return bgptest.Subject{
			Server:  newNode(t),
			Session: func(name string) bgp.Session { return routers[name].session() },
			Heard:   func(name string) map[netip.Prefix]bgp.Route { return routers[name].heard(t) },
		}
	})
}

// A changed attribute is one update, and no withdrawal.
func TestChangeIsOneUpdate(t *testing.T) {
	t.Parallel()
	r, n := startRouter(t), newNode(t)
	must(t, n.Tell(tor(bgptest.Prefix4(1)), bgptest.Hop4()))
	must(t, n.Open("tor", r.session()))
	bgptest.Await(t, "route", func() bool { return len(r.heard(t)) == 1 })
	before := r.state(t).State.Messages.Received.Update
	med := bgptest.Hop4()
	med.MED, med.HasMED = 9, true
	must(t, n.Tell(tor(bgptest.Prefix4(1)), med))
	must(t, n.Tell(tor(bgptest.Prefix4(1)), med)) // nothing new
	bgptest.Await(t, "changed route", func() bool { return r.heard(t)[bgptest.Prefix4(1)] == med })
	if got := r.state(t).State.Messages.Received.Update - before; got != 1 {
		t.Errorf("%d updates for one change", got)
	}
	if got := r.withdrawn(t); got != 0 {
		t.Errorf("%d withdrawals for a change", got)
	}
}

func TestInternalBGP(t *testing.T) {
	t.Parallel()
	r, n := startRouter(t, func(r *router) { r.asn = 4200000001; r.expects = r.asn }), newNode(t)
	s := r.session()
	s.MyASN = s.ASN // also of four bytes
	must(t, n.Open("tor", s))
	pref := bgptest.Hop4()
	pref.LocalPref = 250
	must(t, n.Tell(tor(bgptest.Prefix4(1)), pref))
	must(t, n.Tell(tor(bgptest.Prefix4(2)), bgptest.Hop4()))
	bgptest.Await(t, "local preferences", func() bool {
		got := r.heard(t)
		return got[bgptest.Prefix4(1)].LocalPref == 250 && got[bgptest.Prefix4(2)].LocalPref == 100
	})
}

func TestLocalPrefStaysInside(t *testing.T) {
	t.Parallel()
	r, n := startRouter(t), newNode(t)
	pref := bgptest.Hop4()
	pref.LocalPref = 250
	must(t, n.Tell(tor(bgptest.Prefix4(1)), pref))
	must(t, n.Open("tor", r.session()))
	bgptest.Await(t, "route", func() bool { return r.heard(t)[bgptest.Prefix4(1)] == bgptest.Hop4() })
}

// A next hop that is not given is the session's own address.
func TestOwnNextHop(t *testing.T) {
	t.Parallel()
	r, n := startRouter(t), newNode(t)
	must(t, n.Tell(tor(bgptest.Prefix4(1)), bgp.Route{}))
	must(t, n.Open("tor", r.session()))
	bgptest.Await(t, "route", func() bool { return r.heard(t)[bgptest.Prefix4(1)].NextHop == r.node })
}

// Both families over an IPv6 session, by their own next hops.
func TestOverIPv6(t *testing.T) {
	t.Parallel()
	r, n := startRouter(t, overIPv6(t)), newNode(t)
	must(t, n.Open("tor", r.session()))
	must(t, n.Tell(tor(bgptest.Prefix4(1)), bgptest.Hop4()))
	must(t, n.Tell(tor(bgptest.Prefix6(1)), bgptest.Hop6()))
	must(t, n.Tell(tor(bgptest.Prefix4(2)), bgptest.Hop6())) // RFC 8950
	bgptest.Await(t, "routes", func() bool {
		got := r.heard(t)
		return got[bgptest.Prefix4(1)] == bgptest.Hop4() && got[bgptest.Prefix6(1)] == bgptest.Hop6() && got[bgptest.Prefix4(2)] == bgptest.Hop6()
	})
	must(t, n.Withdraw(tor(bgptest.Prefix4(1))))
	must(t, n.Withdraw(tor(bgptest.Prefix4(2))))
	must(t, n.Withdraw(tor(bgptest.Prefix6(1))))
	bgptest.Await(t, "no route", func() bool { return len(r.heard(t)) == 0 })
}

// Nothing that a router tells is taken, nor told back to it.
func TestImportsNothing(t *testing.T) {
	t.Parallel()
	r, n := startRouter(t), newNode(t)
	must(t, n.Open("tor", r.session()))
	n.awaitUp(t)
	foreign, err := bgp.Path(tor(bgptest.Prefix4(1)), bgp.Route{NextHop: netip.MustParseAddr("192.0.2.7")})
	must(t, err)
	_, err = r.bgp.AddPath(context.Background(), &api.AddPathRequest{Path: foreign})
	must(t, err)
	bgptest.Await(t, "the router has told it", func() bool { return n.Received("tor") == 1 })
	if got := n.Imported("tor"); got != 0 {
		t.Errorf("%d routes taken", got)
	}
	must(t, n.Tell(tor(bgptest.Prefix4(1)), bgptest.Hop4())) // ours is told all the same
	bgptest.Await(t, "our own", func() bool {
		return r.state(t).AfiSafis[0].State.Received == 1
	})
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		router func(*router)
		absent bool // the router does not run
		change func(*bgp.Session)
		want   string
	}{
		{name: "another ASN", router: func(r *router) { r.asn = 65002 }, change: func(s *bgp.Session) { s.ASN = 65000 },
			want: "the router says its ASN is 65002, not 65000: correct spec.peerASN"},
		{name: "we have another ASN", change: func(s *bgp.Session) { s.MyASN = 64999 },
			want: "another ASN than spec.myASN (64999)"},
		{name: "not its neighbor", change: func(s *bgp.Session) { s.Source = netip.MustParseAddr("127.0.0.1") },
			want: "the router ended the session before it was up"},
		{name: "nobody listens", absent: true, want: "connection refused: nothing listens on 127.77."},
		{name: "not our address", change: func(s *bgp.Session) { s.Source = netip.MustParseAddr("198.51.100.7") },
			want: "this node has no address 198.51.100.7: correct spec.sourceAddress"},
		{name: "our router ID", router: func(r *router) { r.expects = 65001 },
			change: func(s *bgp.Session) { s.MyASN, s.RouterID = 65001, netip.MustParseAddr("192.0.2.254") },
			want:   "each has to have its own"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var changes []func(*router)
			if row.router != nil {
				changes = append(changes, row.router)
			}
			r, n := newRouter(t, changes...), newNode(t)
			if !row.absent {
				r.start(t)
			}
			s := r.session()
			if row.change != nil {
				row.change(&s)
			}
			must(t, n.Open("tor", s))
			n.awaitError(t, row.want)
			if got := n.state(); got.Established() || got.Lost != 0 || got.Told != 0 {
				t.Errorf("state %+v", got)
			}
		})
	}
}

// A silent peer: segments that go nowhere, as with a wrong password.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	s := newRouter(t).session()
	for _, row := range []struct {
		change func(*bgp.Session)
		err    error
		want   string
	}{
		{err: context.DeadlineExceeded, want: "no answer from 127.77."},
		{err: syscall.ETIMEDOUT, want: "want a password, or be more than one hop away (then set spec.ebgpMultiHop)"},
		{err: syscall.ETIMEDOUT, change: func(s *bgp.Session) { s.Password = "x" }, want: "the password may be wrong"},
		{err: syscall.ETIMEDOUT, change: func(s *bgp.Session) { s.TTLSecurity = true }, want: "or lack TTL security"},
		{err: syscall.EHOSTUNREACH, want: "no route to 127.77."},
		{err: errors.New("odd"), want: "cannot connect to 127.77."},
	} {
		x := s
		if row.change != nil {
			row.change(&x)
		}
		if got := bgp.DialFailed(x, row.err); !strings.Contains(got, row.want) {
			t.Errorf("%v: %q, want %q", row.err, got, row.want)
		}
	}
}

// What a router says when it ends an established session is told, the loss is
// counted, and the session comes back soon after the router does.
func TestLossAndReturn(t *testing.T) {
	t.Parallel()
	r, n := startRouter(t), newNode(t)
	must(t, n.Tell(tor(bgptest.Prefix4(1)), bgptest.Hop4()))
	must(t, n.Open("tor", r.session()))
	n.awaitUp(t)
	bgptest.Await(t, "route, so that the session is up at the router too", func() bool { return len(r.heard(t)) == 1 })
	must(t, r.bgp.ShutdownPeer(context.Background(), &api.ShutdownPeerRequest{Address: r.node.String(), Communication: "maintenance"}))
	n.awaitError(t, `the router's operator shut the session down, saying "maintenance"`)
	if got := n.state(); got.Lost != 1 || got.Told != 0 || got.Established() {
		t.Errorf("state %+v, want lost once", got)
	}
	r.end(t)
	n.awaitError(t, "connection refused")
	r.start(t)
	n.awaitUp(t) // GoBGP by itself would try again after two minutes
	bgptest.Await(t, "route", func() bool { return len(r.heard(t)) == 1 })
	bgptest.Await(t, "three changes", func() bool { return len(n.told()) == 3 })
	for i, up := range []bool{true, false, true} {
		if got := n.told()[i]; got.Established() != up || (got.Error == "") != up {
			t.Errorf("change %d: %+v", i, got)
		}
	}
}

// A router that comes up late is connected within about the retry time.
func TestLateRouter(t *testing.T) {
	t.Parallel()
	r, n := newRouter(t), newNode(t)
	must(t, n.Open("tor", r.session()))
	n.awaitError(t, "connection refused")
	r.start(t)
	began := time.Now()
	n.awaitUp(t) // GoBGP by itself would try again after two minutes
	t.Logf("connected %v after it was up", time.Since(began))
}

// Of a family that the router does not take nothing is told.
func TestFamilyNotTaken(t *testing.T) {
	t.Parallel()
	r, n := startRouter(t, func(r *router) { r.only4 = true }), newNode(t)
	must(t, n.Tell(tor(bgptest.Prefix4(1)), bgptest.Hop4()))
	must(t, n.Tell(tor(bgptest.Prefix6(1)), bgptest.Hop6()))
	must(t, n.Open("tor", r.session()))
	bgptest.Await(t, "route", func() bool { return len(r.heard(t)) == 1 })
	n.awaitUp(t)
	if got := n.state().Told; got != 1 {
		t.Errorf("told %d, want 1: the router takes IPv4 only", got)
	}
	must(t, n.WithdrawAll(t.Context(), false)) // does not wait for what is never sent
}

// A session that is closed gives its server to the next.
func TestServersAreUsedAgain(t *testing.T) {
	r, n := startRouter(t), newNode(t)
	for i := range 4 {
		s := r.session()
		s.Hold += time.Duration(i) * time.Second
		must(t, n.Tell(tor(bgptest.Prefix4(i)), bgptest.Hop4()))
		must(t, n.Open("tor", s))
		must(t, n.Withdraw(tor(bgptest.Prefix4(i))))
		must(t, n.Close("tor"))
		bgptest.Await(t, "the server is back", func() bool { return bgp.Resting() > 0 })
	}
	if before, after := bgp.Speakers(), func() int { must(t, n.Open("tor", r.session())); return bgp.Speakers() }(); after != before {
		t.Errorf("%d servers, then %d", before, after)
	}
	must(t, n.Tell(tor(bgptest.Prefix4(77)), bgptest.Hop4()))
	bgptest.Await(t, "only what it is told now", func() bool { return len(r.heard(t)) == 1 })
}

// Peers may be asked at any time, by many.
func TestPeersFromAnywhere(t *testing.T) {
	t.Parallel()
	r, n := startRouter(t), newNode(t)
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					n.Peers()
				}
			}
		})
	}
	must(t, n.Open("tor", r.session()))
	for i := range 50 {
		must(t, n.Tell(tor(bgptest.Prefix4(i)), bgptest.Hop4()))
	}
	n.awaitUp(t)
	close(stop)
	all.Wait()
}
