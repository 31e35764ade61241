//go:build lab

package services

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// TestDelete: a deleted Service leaves nothing in any table, and nobody behind
// its addresses.
func TestDelete(t *testing.T) {
	w := enter(t)
	was := map[*node]topo.Tables{}
	for _, n := range w.nodes {
		was[n] = suite.Tables(t, n.Host)
	}
	a := w.create(t, "deleted", ready(w.web[:3]...), everything)
	a.balance(t, balancerIPs...)
	w.follows(t, a)
	node1 := w.nodes[0]
	answers(t, w.near, topo.TCP, a.at(t, node1, clusterIP, "tcp", w.near.V4), w.web[:3], nil)
	for _, n := range w.nodes {
		// Addresses come last, see follows.
		suite.Await(t, 5*time.Second, func() error {
			st, err := n.Tables()
			if err != nil {
				return err
			}
			for _, f := range a.frontends(n) {
				if !st.Has("ipset", f.at.Addr().String()) {
					return fmt.Errorf("%s: %s is in no set", n.Name, f.at.Addr())
				}
				if !st.Has("local routes", f.at.Addr().String()) {
					return fmt.Errorf("%s: %s is not routed", n.Name, f.at.Addr())
				}
			}
			return nil
		})
	}
	a.remove(t)
	for _, n := range w.nodes {
		suite.Await(t, 10*time.Second, func() error { return was[n].Same(n.Host) })
	}
	for _, f := range a.frontends(node1) {
		if f.protocol != corev1.ProtocolTCP || f.port.Name == "http" {
			continue
		}
		for _, from := range []*topo.Host{w.near, node1.Host} {
			silent(t, from, topo.TCP, f.at)
		}
	}
}
