//go:build lab

package loadbalancer

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"sluice.dev/sluice/e2e/agent"
)

// graceful are the lines of a BGPPeer that let an agent restart unnoticed.
const graceful = "gracefulRestart: {restartTime: 15s}"

// TestUpgrade: with graceful restart nobody notices that an agent was told to
// end and started again, or was killed: no router loses a route, no client an
// answer.
func TestUpgrade(t *testing.T) {
	w := enter(t)
	for _, r := range w.towers() {
		w.editPeer(t, r, graceful)
	}
	s := w.serve(t, "upgraded", w.ready(1, 2, 3), nil)
	w.settle(t, s)
	marks := w.marks()
	end := s.load(t)
	for _, way := range []struct {
		name string
		end  func(*agent.Agent) error
	}{{"told to end", (*agent.Agent).Stop}, {"killed", (*agent.Agent).Kill}} {
		for _, n := range w.nodes {
			begin := time.Now()
			must(t, way.end(n.agent))
			must(t, w.start(n))
			w.settle(t, s)
			t.Logf("%s: %s, back after %v", n.Name, way.name, time.Since(begin).Round(time.Millisecond))
		}
	}
	none(t, end(), 1000)
	s.quiet(t, marks)

	// The way to end for good is to be drained first.
	node1 := w.nodes[0]
	w.editNode(t, node1, drained("true"))
	s.told(t, w.numbered(2, 3)...)
	must(t, node1.agent.Stop())
	s.stays(t, time.Second)
	must(t, w.start(node1))
}

// settle waits until every node has its sessions and routers have heard all of
// it, so that no route is one they only keep.
func (w *world) settle(t *testing.T, s *service) {
	t.Helper()
	for _, r := range w.towers() {
		await(t, soon, func() error { return errors.Join(r.established(w.nodes...), s.fresh(r)) })
	}
	s.told(t, w.nodes...)
}

// fresh says which of the paths to a Service a router only keeps for the time
// being.
func (s *service) fresh(r *tower) error {
	for _, p := range s.routes() {
		routes, err := r.Routes(p.Addr().Is6())
		if err != nil {
			return err
		}
		for _, path := range routes[p] {
			if path.Stale {
				return fmt.Errorf("%s: %v by way of %v is stale", r.Name, p, path.NextHop)
			}
		}
	}
	return nil
}

// TestStop: without graceful restart an agent that ends takes its routes back
// before it does, and clients do not notice.
func TestStop(t *testing.T) {
	w := enter(t)
	s := w.serve(t, "stopped", w.ready(1, 2, 3), nil)
	s.told(t, w.nodes...)
	for _, n := range w.nodes {
		marks := w.marks()
		must(t, n.agent.Stop())
		ended := time.Now()
		for _, r := range w.towers() {
			for _, p := range s.routes() {
				if at := r.left(t, marks[r], p, n); at.After(ended) {
					t.Errorf("%s: %v withdrawn by %s %v after it ended", r.Name, p, n.Name, at.Sub(ended))
				} else {
					t.Logf("%s: %v withdrawn by %s %v before it ended", r.Name, p, n.Name, ended.Sub(at).Round(time.Millisecond))
				}
			}
		}
		must(t, w.start(n))
		s.told(t, w.nodes...)
	}
}
