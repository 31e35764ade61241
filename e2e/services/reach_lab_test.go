//go:build lab

package services

import (
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// everything makes a Service of every kind.
func everything(svc *corev1.Service) {
	svc.Spec.Type = corev1.ServiceTypeLoadBalancer
	svc.Spec.ExternalIPs = []string{"198.51.100.10", "2001:db8:1::10"}
}

// balancerIPs are what a load balancer gives to it.
var balancerIPs = []string{"203.0.113.10", "2001:db8:2::10"}

// TestReach is the column "Policy Cluster" of the truth table: who reaches what
// from where, and as whom the pods see it.
func TestReach(t *testing.T) {
	w := enter(t)
	// Also from outside to ClusterIPs, which some clusters route to nodes.
	w.routeClusterIPs(t)
	a := w.create(t, "reach", ready(w.web[:3]...), everything)
	a.balance(t, balancerIPs...)
	w.follows(t, a)

	node1, node2, node3 := w.nodes[0], w.nodes[1], w.nodes[2]
	for _, c := range []struct {
		name  string
		from  *topo.Host
		via   *node // whose IPVS takes it
		kinds []string
	}{
		{"pod beside endpoints", w.near, node1, []string{clusterIP, nodePort, externalIP, balancerIP}},
		{"pod beside none", w.far, node3, []string{clusterIP, nodePort, externalIP, balancerIP}},
		{"endpoint, also to itself", w.web[0], node1, []string{clusterIP, nodePort, externalIP, balancerIP}},
		{"pod to another node's port", w.near, node2, []string{nodePort}},
		{"node with endpoints", node1.Host, node1, []string{clusterIP, nodePort, externalIP, balancerIP}},
		{"node without endpoints", node3.Host, node3, []string{clusterIP, nodePort, externalIP, balancerIP}},
		{"node to another node's port", node1.Host, node3, []string{nodePort}},
		{"outside", w.Client, node1, []string{clusterIP, nodePort, externalIP, balancerIP}},
		{"outside to a node without endpoints", w.Client, node3, []string{nodePort}},
	} {
		for _, kind := range c.kinds {
			t.Run(c.name+"/"+kind, func(t *testing.T) {
				for _, f := range a.frontends(c.via) {
					if f.kind != kind || f.port.Name == "http" {
						continue
					}
					answers(t, c.from, network(f.protocol), f.at, w.web[:3], func(got topo.Answer) {
						if want := w.source(c.from, c.via, kind, got, f.at.Addr()); got.Client.Addr() != want {
							t.Errorf("%s %s: %s saw %s, want %s", f.protocol, f.at, got.Pod, got.Client.Addr(), want)
						}
					})
				}
			})
		}
	}
	t.Run("the API server from a node", func(t *testing.T) {
		conn, err := node2.Dial(t.Context(), topo.TCP, netip.MustParseAddrPort("10.96.0.1:443"))
		suite.Must(t, err)
		conn.Close()
	})
}

// source is the address a pod is to see: the client's own where a pod goes to a
// ClusterIP, but not to itself; else one of the node that took the connection,
// towards that pod.
func (w *world) source(from *topo.Host, via *node, kind string, got topo.Answer, like netip.Addr) netip.Addr {
	fromPod := from.V4.As4()[0] == 10
	if kind == clusterIP && fromPod && got.Pod != from.Name {
		return from.Addr(like)
	}
	for _, p := range w.web {
		if p.Name == got.Pod && w.nodeOf(p) == via.Name {
			return w.Gateway(via.Host, like)
		}
	}
	return via.Addr(like)
}

func (w *world) routeClusterIPs(t *testing.T) {
	t.Helper()
	script := fmt.Sprintf("ip route %%[1]s 10.96.0.0/12 via %s; ip route %%[1]s fd00:10:96::/112 via %s", w.Nodes[0].V4, w.Nodes[0].V6)
	byHand(t, w.Router, fmt.Sprintf(script, "add"))
	t.Cleanup(func() { byHand(t, w.Router, fmt.Sprintf(script, "del")) })
}
