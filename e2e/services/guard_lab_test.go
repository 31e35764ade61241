//go:build lab

package services

import (
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// TestGuard: what listens on all addresses of a node is not reached through a
// Service's address, which yet answers to ping.
func TestGuard(t *testing.T) {
	const port = 22222
	w := enter(t)
	for _, n := range w.nodes {
		for _, protocol := range []string{topo.TCP, topo.UDP} {
			stop, err := n.Serve(protocol, port)
			suite.Must(t, err)
			t.Cleanup(func() { suite.Must(t, stop()) })
		}
	}
	w.routeClusterIPs(t)
	a := w.create(t, "guarded", ready(w.web[:2]...), everything)
	a.balance(t, balancerIPs...)
	w.follows(t, a)
	node1 := w.nodes[0]
	for _, c := range []struct {
		name string
		from *topo.Host
		via  *node
	}{
		{"pod", w.near, node1},
		{"pod elsewhere", w.far, w.nodes[2]},
		{"outside", w.Client, node1},
		{"node itself", node1.Host, node1},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, addr := range []netip.Addr{c.via.V4, c.via.V6} {
				for _, protocol := range []string{topo.TCP, topo.UDP} {
					if got, err := ask(t, c.from, protocol, netip.AddrPortFrom(addr, port)); err != nil || got.Pod != c.via.Name {
						t.Errorf("the node's own address: %v, %v", got, err)
					}
				}
			}
			for _, f := range a.frontends(c.via) {
				if f.port.Name != "tcp" || f.kind == nodePort {
					continue
				}
				refused(t, c.from, topo.TCP, netip.AddrPortFrom(f.at.Addr(), port), quickly)
				refused(t, c.from, topo.UDP, netip.AddrPortFrom(f.at.Addr(), port), quickly)
				if err := c.from.Ping(f.at.Addr()); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestNoEndpoints: a Service that nobody serves says so.
func TestNoEndpoints(t *testing.T) {
	// The kernel refuses by ICMP, which a socket that is just sending loses: a
	// TCP client may learn of it only when it tries again, a second later.
	const soon = 2500 * time.Millisecond
	w := enter(t)
	node1 := w.nodes[0]
	a := w.create(t, "unserved", nil, everything)
	a.balance(t, balancerIPs...)
	for _, c := range []struct {
		name      string
		endpoints []endpoint
		from      *topo.Host
		via       *node
		kinds     []string
	}{
		{"none, from a pod", nil, w.near, node1, []string{clusterIP, nodePort, balancerIP}},
		{"one that is not ready, from a node", []endpoint{{pod: w.web[0], unready: true}}, node1.Host, node1, []string{clusterIP, nodePort}},
		{"one that has ended, from outside", []endpoint{{pod: w.web[0], unready: true, terminating: true}}, w.Client, node1, []string{nodePort, externalIP, balancerIP}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a.scale(t, c.endpoints...)
			w.follows(t, a)
			for _, kind := range c.kinds {
				for _, like := range []netip.Addr{node1.V4, node1.V6} {
					refused(t, c.from, topo.TCP, a.at(t, c.via, kind, "tcp", like), soon)
					refused(t, c.from, topo.UDP, a.at(t, c.via, kind, "udp", like), soon)
				}
			}
		})
	}
	t.Run("one family has some, the other none", func(t *testing.T) {
		a.scale(t, ready(w.web[0])...)
		six := a.slice(corev1.IPv6Protocol)
		six.Endpoints = six.Endpoints[:0]
		w.putSlice(t, six)
		at4, at6 := a.at(t, node1, clusterIP, "tcp", node1.V4), a.at(t, node1, clusterIP, "tcp", node1.V6)
		suite.Await(t, 5*time.Second, func() error { return node1.lists("-a "+kernelPort(corev1.ProtocolTCP, at4)+" ", 1) })
		suite.Await(t, 5*time.Second, func() error { return node1.lists("-a "+kernelPort(corev1.ProtocolTCP, at6)+" ", 0) })
		answers(t, w.near, topo.TCP, at4, w.web[:1], nil)
		refused(t, w.near, topo.TCP, at6, soon)
	})
}
