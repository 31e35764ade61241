//go:build lab

package services

import (
	"context"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// TestAPIServerGone: without an API server everything goes on as it was, even
// across a restart, and when it is back its word counts again.
func TestAPIServerGone(t *testing.T) {
	w := enter(t)
	node1, node2, node3 := w.nodes[0], w.nodes[1], w.nodes[2]
	a := w.create(t, "outlives", ready(w.web[:3]...), func(svc *corev1.Service) {
		everything(svc)
		// One node may follow most of a minute after another, and the held
		// connection may be with an endpoint that leaves.
		svc.Annotations = map[string]string{drainAnnotation: "5m"}
	})
	a.balance(t, balancerIPs...)
	doomed := w.create(t, "doomed", ready(w.web[0]), nil)
	w.follows(t, a, doomed)
	w.settled(t)
	was := map[*node]topo.Tables{}
	for _, n := range w.nodes {
		was[n] = suite.Tables(t, n.Host)
	}
	loads := []*load{
		connect(t, w.near, a.at(t, node1, clusterIP, "tcp", node1.V4)).load,
		requests(t, w.near, topo.TCP, a.at(t, node1, clusterIP, "tcp", node1.V6)),
		requests(t, w.far, topo.UDP, a.at(t, node3, balancerIP, "udp", node1.V4)),
		requests(t, w.Client, topo.HTTP, a.at(t, node1, nodePort, "http", node1.V4)),
	}

	back := w.cutOff(t)
	// What the nodes are not to know.
	a.scale(t, ready(w.web[1], w.web[3])...)
	doomed.remove(t)
	suite.Must(t, node2.Agent.Stop())
	suite.Must(t, node2.StartAgent(w.bin, w.flags()...))
	suite.Must(t, node3.Agent.Kill())
	suite.Must(t, node3.StartAgent(w.bin, w.flags()...))
	for _, n := range []*node{node2, node3} {
		suite.Await(t, 20*time.Second, func() error { return n.running() })
	}
	// Longer than sluice waits for its sources before it begins.
	audited(t, 3, w.nodes...)
	for _, n := range []*node{node2, node3} {
		if err := n.Probe("/readyz"); err == nil {
			t.Errorf("%s says it is ready, having heard nothing of the API server", n.Name)
		}
		suite.Must(t, n.Probe("/livez")) // a restart would not help
	}
	for _, n := range w.nodes {
		if err := was[n].Same(n.Host); err != nil {
			t.Errorf("without API server: %v", err)
		}
	}
	for _, l := range loads {
		l.more(t, 10)
	}

	back()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, n := range w.nodes {
		suite.Must(t, n.Agent.Ready(ctx))
	}
	// A client that heard nothing at all gives its connection up only after 45 s.
	suite.Await(t, time.Minute, func() error { return w.gone(doomed) })
	t.Logf("nodes followed %v after the API server was back", time.Since(begin).Round(time.Millisecond))
	w.follows(t, a)
	for _, l := range loads {
		l.more(t, 10)
		l.end(t)
	}
	a.update(t, func(svc *corev1.Service) { svc.Annotations = nil }) // those that have ended are not waited for so long
	w.follows(t, a)
}

// cutOff makes the API server unreachable: connections of node2 and node3 are
// reset, node1's packets get lost.
func (w *world) cutOff(t *testing.T) (back func()) {
	t.Helper()
	const reject = " -p tcp -j REJECT --reject-with tcp-reset"
	blackhole := func(verb string) { byHand(t, w.nodes[0].Host, "ip route "+verb+" blackhole 192.0.2.1") }
	reset := func(verb string) {
		// In both directions, or an event could still come in before the
		// node's answer to it is rejected.
		byHand(t, w.Router, "iptables -w "+verb+" FORWARD -d 192.0.2.1"+reject+"; iptables -w "+verb+" FORWARD -s 192.0.2.1"+reject)
	}
	blackhole("add")
	reset("-I")
	back = sync.OnceFunc(func() {
		blackhole("del")
		reset("-D")
	})
	t.Cleanup(back)
	return back
}

// gone reports whether no node has a deleted Service any more.
func (w *world) gone(a *app) error {
	for _, n := range w.nodes {
		for _, line := range a.servers(n) {
			if err := n.lists(line, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// running reports whether sluice answers at all.
func (n *node) running() error {
	_, err := n.Agent.State(context.Background())
	return err
}
