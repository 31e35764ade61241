//go:build lab

package loadbalancer

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"sluice.dev/sluice/e2e/agent"
	"sluice.dev/sluice/e2e/suite"
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
			suite.Must(t, way.end(n.Agent))
			suite.Must(t, w.start(n))
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
	suite.Must(t, node1.Agent.Stop())
	s.stays(t, time.Second)
	suite.Must(t, w.start(node1))
}

// TestPeerGoes: a session that is not wanted any more, or cannot be any more,
// takes its routes with it at once, with graceful restart too: that is for
// agents that come back.
func TestPeerGoes(t *testing.T) {
	w := enter(t)
	for _, r := range w.towers() {
		w.editPeer(t, r, graceful)
	}
	s := w.serve(t, "left", w.ready(1, 2, 3), nil)
	for _, way := range []struct {
		name string
		end  func(*tower) error
	}{
		{"the BGPPeer is deleted", func(r *tower) error { return w.manifests.EraseText("peer-" + r.Name + ".yaml") }},
		{"its Secret is missing", func(r *tower) error { return w.peer(r, graceful, "passwordSecret: missing") }},
		{"it has another source", func(r *tower) error { return w.peer(r, graceful, "sourceAddress: 192.0.2.99") }},
	} {
		t.Run(way.name, func(t *testing.T) {
			for range rounds(1, 10) {
				w.settle(t, s)
				marks, begin := w.marks(), time.Now()
				for _, r := range w.towers() {
					suite.Must(t, way.end(r))
				}
				for _, r := range w.towers() {
					for _, p := range s.routes() {
						took := r.changed(t, marks[r], p).Sub(begin)
						t.Logf("%s: %v is gone after %v", r.Name, p, took.Round(time.Millisecond))
						if took > absurd {
							t.Errorf("%s: %v stood for %v more", r.Name, p, took)
						}
					}
				}
				for _, r := range w.towers() {
					suite.Must(t, w.peer(r, graceful))
				}
			}
		})
	}
}

// TestPasswordGoes: so does one whose password is taken away, which is signed to
// its end.
func TestPasswordGoes(t *testing.T) {
	w := enter(t)
	w.sign(t, "right")
	w.editPeer(t, w.tor1, graceful, "passwordSecret: tor1")
	const secret = "secret.yaml"
	give := func() {
		suite.Must(t, w.manifests.WriteText(secret, `
apiVersion: v1
kind: Secret
metadata: {namespace: kube-system, name: tor1}
type: kubernetes.io/basic-auth
stringData: {password: right}
`))
	}
	t.Cleanup(func() { suite.Must(t, w.manifests.EraseText(secret)) })
	s := w.serve(t, "signed", w.ready(1, 2, 3), nil)
	for range rounds(1, 10) {
		give()
		w.settle(t, s)
		mark, begin := w.tor1.Mark(), time.Now()
		suite.Must(t, w.manifests.EraseText(secret))
		for _, p := range s.routes() {
			took := w.tor1.changed(t, mark, p).Sub(begin)
			t.Logf("%v is gone after %v", p, took.Round(time.Millisecond))
			if took > absurd {
				t.Errorf("%v stood for %v more", p, took)
			}
		}
	}
}

// settle waits until every node has its sessions and routers have heard all of
// it, so that no route is one they only keep.
func (w *world) settle(t *testing.T, s *service) {
	t.Helper()
	for _, r := range w.towers() {
		suite.Await(t, soon, func() error { return errors.Join(r.established(w.nodes...), s.fresh(r)) })
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
		suite.Must(t, n.Agent.Stop())
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
		suite.Must(t, w.start(n))
		s.told(t, w.nodes...)
	}
}
