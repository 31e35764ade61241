package bgp_test

import (
	"context"
	"testing"
	"time"

	"sluice.dev/sluice/bgp"
	"sluice.dev/sluice/bgp/bgptest"
)

const many = 100

// restarting is a router with graceful restart behind a relay, and the session
// with it.
func restarting(t *testing.T) (*router, *relay, bgp.Session) {
	t.Helper()
	r := startRouter(t, func(r *router) { r.restart = true })
	x := startRelay(t, r)
	s := r.session()
	s.Peer, s.Restart = x.addr, 60*time.Second
	return r, x, s
}

func (n *node) tellMany(t *testing.T, count int) {
	t.Helper()
	for i := range count {
		must(t, n.Tell(tor(bgptest.Prefix4(i)), bgptest.Hop4()))
	}
}

// awaitSettled waits until the router has heard all there is, and keeps nothing
// of an earlier session.
func (r *router) awaitSettled(t *testing.T, routes int) {
	t.Helper()
	bgptest.Await(t, "settled", func() bool {
		p := r.state(t)
		return bgp.Count(r.bgp) == routes && !p.GracefulRestart.GetPeerRestarting() && p.State.SessionState.String() == "ESTABLISHED"
	})
}

// The agent is restarted: the router withdraws nothing, but what the new one does
// not tell any more.
func TestRestart(t *testing.T) {
	t.Parallel()
	r, x, s := restarting(t)
	old := newNode(t)
	old.tellMany(t, many)
	must(t, old.Open("tor", s))
	old.awaitUp(t)
	r.awaitSettled(t, many)

	must(t, old.Stop(t.Context(), true))
	if got := bgp.Count(r.bgp); got != many || !old.state().Established() {
		t.Fatalf("after stopping %d routes at the router, state %+v", got, old.state())
	}
	x.cut()
	bgptest.Await(t, "the router keeps for us", func() bool { return r.state(t).GracefulRestart.GetPeerRestarting() })
	old.Die()

	n := newNode(t)
	n.tellMany(t, many-1)
	must(t, n.Open("tor", s))
	began := time.Now()
	n.awaitUp(t)
	t.Logf("up again after %v (the router, also GoBGP, refuses for 5 s)", time.Since(began))
	r.awaitSettled(t, many-1)
	if _, forwarding := r.said(t); !forwarding {
		t.Error("we do not say that we have forwarded meanwhile: other routers withdraw at once what they kept")
	}
	if got := r.withdrawn(t); got != 1 {
		t.Errorf("%d routes withdrawn, want the one that is told no more", got)
	}
}

// The connection breaks off: neither does that withdraw anything.
func TestReconnect(t *testing.T) {
	t.Parallel()
	r, x, s := restarting(t)
	n := newNode(t)
	n.tellMany(t, many)
	must(t, n.Open("tor", s))
	n.awaitUp(t)
	r.awaitSettled(t, many)
	x.cut()
	bgptest.Await(t, "loss", func() bool { return n.state().Lost == 1 })
	must(t, n.Withdraw(tor(bgptest.Prefix4(0)))) // while it is down
	n.awaitUp(t)
	r.awaitSettled(t, many-1)
	if _, forwarding := r.said(t); !forwarding {
		t.Error("we do not say that we have forwarded meanwhile: other routers withdraw at once what they kept")
	}
	if got := r.withdrawn(t); got != 1 {
		t.Errorf("%d routes withdrawn, want the one that was taken back meanwhile", got)
	}
}

// Stopping without keeping withdraws and says farewell, whatever was agreed.
func TestStop(t *testing.T) {
	t.Parallel()
	r, _, s := restarting(t)
	n := newNode(t)
	n.tellMany(t, many)
	must(t, n.Open("tor", s))
	n.awaitUp(t)
	r.awaitSettled(t, many)
	must(t, n.WithdrawAll(t.Context(), false))
	bgptest.Await(t, "withdrawal", func() bool { return bgp.Count(r.bgp) == 0 })
	if !n.state().Established() {
		t.Error("the session ended with the withdrawal: routers could not converge before it")
	}
	must(t, n.Stop(t.Context(), false))
	bgptest.Await(t, "farewell", func() bool {
		p := r.state(t)
		return p.State.SessionState.String() != "ESTABLISHED" && !p.GracefulRestart.GetPeerRestarting()
	})
}

// A session without graceful restart is withdrawn also by who keeps, and before
// it ends: the router has got the withdrawals, not only the end.
func TestStopKeepsOnlyWhatRestarts(t *testing.T) {
	t.Parallel()
	r, n := startRouter(t), newNode(t)
	n.tellMany(t, many)
	must(t, n.Open("tor", r.session()))
	n.awaitUp(t)
	r.awaitSettled(t, many)
	must(t, n.Stop(t.Context(), true))
	bgptest.Await(t, "end", func() bool { return r.state(t).State.SessionState.String() != "ESTABLISHED" })
	if got := r.state(t).State.Messages.Received.WithdrawPrefix; got != many {
		t.Errorf("%d routes withdrawn before the end, want %d", got, many)
	}
}

// A router that is stuck does not keep the others from stopping, nor us for ever.
func TestStopWithStuckRouter(t *testing.T) {
	t.Parallel()
	r, n := startRouter(t), newNode(t)
	n.tellMany(t, 1)
	must(t, n.Open("tor", r.session()))
	n.awaitUp(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Stop(ctx, false); err == nil {
		t.Error("stopped in no time without an error")
	}
}

// One that takes the connection and does not speak is told of, and dialled again.
func TestMuteRouter(t *testing.T) {
	t.Parallel()
	r, n := newRouter(t), newNode(t)
	x := startRelay(t, r) // of a router that is not there: connections are closed
	s := r.session()
	s.Peer, s.Hold = x.addr, 3*time.Second
	must(t, n.Open("tor", s))
	n.awaitError(t, "the router ended the session before it was up")

	l := listen(t, newRouter(t).addr)
	s.Peer = l
	must(t, n.Open("tor", s))
	n.awaitError(t, l.String()+" takes the connection but has not said a word for 3s")
}
