package bgp_test

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/bgp"
	"sluice.dev/sluice/bgp/bgptest"
	"sluice.dev/sluice/internal/reconcile"
)

type (
	put    = reconcile.Put[bgp.Key, bgp.Spec]
	change = reconcile.Change[bgp.Key, bgp.Spec]
)

// someSession is a session that is in order.
func someSession(last byte) bgp.Session {
	return bgp.Session{
		Peer: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, last}), 179), ASN: 65001, MyASN: 64512,
		RouterID: netip.MustParseAddr("192.0.2.1"),
		Hold:     9 * time.Second, Keepalive: 3 * time.Second, ConnectRetry: 2 * time.Second, IPv4: true, IPv6: true,
	}
}

func sessionPut(peer string, s bgp.Session) put {
	return put{Key: bgp.Key{Peer: peer}, Spec: bgp.Spec{Session: s}}
}

func routePut(peer string, n int, r bgp.Route) put {
	return put{Key: bgp.Key{Peer: peer, Prefix: bgptest.Prefix4(n)}, Spec: bgp.Spec{Route: r}}
}

func listing(t *testing.T, target *bgp.Target) map[bgp.Key]bgp.Spec {
	t.Helper()
	for section, err := range target.List(t.Context(), nil) {
		if err != nil || !section.Covers(bgp.Key{Peer: "any"}) {
			t.Fatalf("section %v, error %v", section, err)
		}
		return section.Present
	}
	return nil
}

// In whatever order keys come: withdraw, close, tell, open.
func TestTargetOrder(t *testing.T) {
	s := bgptest.New()
	target := bgp.NewTarget(s)
	if errs := target.Apply(t.Context(), change{Puts: []put{
		sessionPut("old", someSession(2)), routePut("old", 1, bgptest.Hop4()), routePut("tor", 1, bgptest.Hop4()),
	}}); len(errs) != 0 {
		t.Fatal(errs)
	}
	want := []string{"tell old 10.0.0.1/32", "tell tor 10.0.0.1/32", "open old"}
	if got := s.TakeCalls(); !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
	target.Apply(t.Context(), change{
		Puts: []put{sessionPut("tor", someSession(2)), routePut("tor", 2, bgptest.Hop4())},
		Dels: []bgp.Key{{Peer: "old"}, {Peer: "old", Prefix: bgptest.Prefix4(1)}},
	})
	want = []string{"withdraw old 10.0.0.1/32", "close old", "tell tor 10.0.0.2/32", "open tor"}
	if got := s.TakeCalls(); !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
	wantRows := map[bgp.Key]bgp.Spec{
		{Peer: "tor"}: {Session: someSession(2)},
		{Peer: "tor", Prefix: bgptest.Prefix4(1)}: {Route: bgptest.Hop4()},
		{Peer: "tor", Prefix: bgptest.Prefix4(2)}: {Route: bgptest.Hop4()},
	}
	if got := listing(t, target); !maps.Equal(got, wantRows) {
		t.Errorf("rows %v, want %v", got, wantRows)
	}
	if got := s.Heard("tor"); len(got) != 2 {
		t.Errorf("the router holds %v", got)
	}
}

// A changed route is told, and its session not touched; a changed session is
// opened anew, and its routes not told again.
func TestTargetTouchesOnlyItsOwn(t *testing.T) {
	s := bgptest.New()
	target := bgp.NewTarget(s)
	target.Apply(t.Context(), change{Puts: []put{
		sessionPut("one", someSession(2)), sessionPut("two", someSession(3)),
		routePut("one", 1, bgptest.Hop4()), routePut("two", 1, bgptest.Hop4()),
	}})
	s.TakeCalls()
	other := bgptest.Hop4()
	other.Communities = "64512:1"
	target.Apply(t.Context(), change{Puts: []put{routePut("one", 1, other)}})
	if got, want := s.TakeCalls(), []string{"tell one 10.0.0.1/32"}; !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
	changed := someSession(3)
	changed.Hold = time.Minute
	target.Apply(t.Context(), change{Puts: []put{sessionPut("two", changed)}})
	if got, want := s.TakeCalls(), []string{"open two"}; !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
	if got := s.Heard("two"); len(got) != 1 {
		t.Errorf("the router holds %v", got)
	}
}

// One key's error is its own, and names the peer.
func TestTargetErrors(t *testing.T) {
	s := bgptest.New()
	target := bgp.NewTarget(s)
	busy := errors.New("busy")
	s.Fail = func(call string, k bgp.Key) error {
		if k.Peer == "bad" {
			return busy
		}
		return nil
	}
	all := []put{
		sessionPut("bad", someSession(2)), routePut("bad", 1, bgptest.Hop4()),
		sessionPut("good", someSession(3)), routePut("good", 1, bgptest.Hop4()),
	}
	errs := target.Apply(t.Context(), change{Puts: all})
	if len(errs) != 2 || len(s.Heard("good")) != 1 {
		t.Fatalf("errors %v; the good one's router holds %v", errs, s.Heard("good"))
	}
	for k, err := range errs {
		if k.Peer != "bad" || !errors.Is(err, busy) || !strings.Contains(err.Error(), "BGP peer bad: ") {
			t.Errorf("%s: %v", k, err)
		}
	}
	// A refused session is there, as something that nobody wants.
	if got, there := listing(t, target)[bgp.Key{Peer: "bad"}]; !there || got != (bgp.Spec{}) {
		t.Errorf("row %v %v, want an empty one", got, there)
	}
	s.Fail = nil
	if errs := target.Apply(t.Context(), change{Puts: all[:2]}); len(errs) != 0 || len(s.Heard("bad")) != 1 {
		t.Errorf("errors %v; its router holds %v", errs, s.Heard("bad"))
	}
}

// The loop drives it: a peer's routes stand before its session, and go with it.
func TestTargetInLoop(t *testing.T) {
	s := bgptest.New()
	settled := make(chan struct{}, 10)
	loop := reconcile.NewLoop(bgp.NewTarget(s), reconcile.Options[string, bgp.Key]{
		Name: "bgp", Less: func(a, b string) bool { return a < b },
		Settled: func([]reconcile.Settlement[string]) { settled <- struct{}{} },
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	loop.Claim("peer", reconcile.Claim[bgp.Key, bgp.Spec]{Put: map[bgp.Key]bgp.Spec{{Peer: "tor"}: {Session: someSession(2)}}})
	loop.Claim("vip", reconcile.Claim[bgp.Key, bgp.Spec]{Put: map[bgp.Key]bgp.Spec{
		{Peer: "tor", Prefix: bgptest.Prefix4(1)}: {Route: bgptest.Hop4()},
	}})
	loop.Synced()
	go func() {
		defer close(done)
		loop.Run(ctx)
	}()
	<-settled
	if got, want := s.TakeCalls(), []string{"tell tor 10.0.0.1/32", "open tor"}; !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
	loop.Claim("vip", reconcile.Claim[bgp.Key, bgp.Spec]{})
	loop.Claim("peer", reconcile.Claim[bgp.Key, bgp.Spec]{})
	bgptest.Await(t, "nothing left", func() bool { return len(s.Rows()) == 0 })
	cancel()
	<-done
}

// What a session has lost and got again is told, in order.
func TestFakeChanges(t *testing.T) {
	s := bgptest.New()
	var changes []bgp.PeerState
	s.Changed = func(p bgp.PeerState) { changes = append(changes, p) }
	if err := s.Open("tor", someSession(2)); err != nil {
		t.Fatal(err)
	}
	s.Hold("tor", "nothing heard")
	s.Hold("tor", "")
	if len(changes) != 3 || !changes[0].Established() || changes[1].Error != "nothing heard" || changes[1].Lost != 1 || !changes[2].Established() {
		t.Errorf("changes %+v", changes)
	}
}
