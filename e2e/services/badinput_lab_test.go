//go:build lab

package services

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// TestFrontendInUse: of two Services that want one address and port the older
// one has it, the younger one's author is told, and it takes over in the end.
func TestFrontendInUse(t *testing.T) {
	w := enter(t)
	const shared4, shared6 = "198.51.100.20", "2001:db8:1::20"
	both := func(svc *corev1.Service) { svc.Spec.ExternalIPs = []string{shared4, shared6} }
	older := w.create(t, "zz-older", ready(w.web[0]), both) // its name would lose
	var younger *app
	// Age is in whole seconds.
	suite.Await(t, 5*time.Second, func() error {
		if younger != nil {
			younger.remove(t)
		}
		younger = w.create(t, "younger", ready(w.web[2]), both)
		if !younger.svc.CreationTimestamp.After(older.svc.CreationTimestamp.Time) {
			return fmt.Errorf("created at the same time")
		}
		return nil
	})
	served := *younger
	served.svc = younger.svc.DeepCopy()
	served.svc.Spec.ExternalIPs = nil
	w.follows(t, older, &served)
	node1 := w.nodes[0]
	for _, addr := range []string{shared4, shared6} {
		at := netip.AddrPortFrom(netip.MustParseAddr(addr), 80)
		w.warned(t, "younger", "FrontendInUse", addr)
		for _, from := range []*topo.Host{w.near, w.Client, node1.Host} {
			answers(t, from, topo.TCP, at, w.web[:1], nil)
		}
	}
	answers(t, w.near, topo.TCP, younger.at(t, node1, clusterIP, "tcp", w.near.V4), w.web[2:3], nil)

	older.remove(t)
	w.follows(t, younger)
	for _, addr := range []string{shared4, shared6} {
		at := netip.AddrPortFrom(netip.MustParseAddr(addr), 80)
		for _, from := range []*topo.Host{w.near, w.Client, node1.Host} {
			answers(t, from, topo.TCP, at, w.web[2:3], nil)
		}
	}
}

// TestSharedAddress: two Services may share an address by different ports, and
// the one that goes does not take it along.
func TestSharedAddress(t *testing.T) {
	w := enter(t)
	const shared4, shared6 = "198.51.100.30", "2001:db8:1::30"
	first := w.create(t, "first", ready(w.web[0]), func(svc *corev1.Service) {
		svc.Spec.ExternalIPs = []string{shared4, shared6}
		svc.Spec.Ports = svc.Spec.Ports[:1]
	})
	second := w.create(t, "second", ready(w.web[2]), func(svc *corev1.Service) {
		svc.Spec.ExternalIPs = []string{shared4, shared6}
		svc.Spec.Ports = svc.Spec.Ports[3:]
	})
	w.follows(t, first, second)
	var loads []*load
	for _, addr := range []string{shared4, shared6} {
		a := netip.MustParseAddr(addr)
		answers(t, w.Client, topo.TCP, netip.AddrPortFrom(a, 80), w.web[:1], nil)
		loads = append(loads, requests(t, w.Client, topo.HTTP, netip.AddrPortFrom(a, 8080)))
	}
	first.remove(t)
	w.follows(t, second)
	for i, addr := range []string{shared4, shared6} {
		loads[i].more(t, 5)
		refused(t, w.Client, topo.TCP, netip.AddrPortFrom(netip.MustParseAddr(addr), 80), quickly)
	}
}

// TestAddressIsNodes: a Service that claims the address of a node must not cut
// it off, neither from itself nor from the other nodes.
func TestAddressIsNodes(t *testing.T) {
	const port = 22223
	w := enter(t)
	for _, n := range w.nodes {
		stop, err := n.Serve(topo.TCP, port)
		suite.Must(t, err)
		t.Cleanup(func() { suite.Must(t, stop()) })
	}
	claimed := w.nodes[1]
	a := w.create(t, "greedy", ready(w.web[0]), func(svc *corev1.Service) {
		svc.Spec.ExternalIPs = []string{claimed.V4.String(), claimed.V6.String(), "198.51.100.40"}
	})
	served := *a
	served.svc = a.svc.DeepCopy()
	served.svc.Spec.ExternalIPs = []string{"198.51.100.40"}
	for _, addr := range []netip.Addr{claimed.V4, claimed.V6} {
		w.warned(t, "greedy", "AddressIsNodes", addr.String())
	}
	for _, n := range w.nodes {
		t.Run("on "+n.Name, func(t *testing.T) {
			n.follows(t, &served)
			for _, addr := range []netip.Addr{claimed.V4, claimed.V6} {
				if n != claimed && suite.Tables(t, n.Host).Has("local routes", addr.String()) {
					t.Errorf("%s has taken %s of %s", n.Name, addr, claimed.Name)
				}
				for _, from := range []*topo.Host{n.Host, w.podOn(n), w.Client} {
					got, err := ask(t, from, topo.TCP, netip.AddrPortFrom(addr, port))
					if err != nil || got.Pod != claimed.Name {
						t.Errorf("%s to %s: %v, %v", from.Name, addr, got, err)
					}
				}
			}
		})
	}
	answers(t, w.Client, topo.TCP, netip.MustParseAddrPort("198.51.100.40:80"), w.web[:1], nil)
}

// podOn is any pod of a node.
func (w *world) podOn(n *node) *topo.Host {
	return w.web[slices.IndexFunc(w.web, func(p *topo.Host) bool { return w.nodeOf(p) == n.Name })]
}

// TestBadEndpoints: what the API server lets through and nobody can use does
// no harm to what stands beside it.
func TestBadEndpoints(t *testing.T) {
	w := enter(t)
	node1 := w.nodes[0]
	a := w.create(t, "messy", ready(w.web[0]), nil)
	w.follows(t, a)
	own := a.at(t, node1, clusterIP, "tcp", node1.V4).Addr().String()
	for i, row := range []struct {
		name   string
		family corev1.IPFamily
		change func(*discoveryv1.EndpointSlice)
		reason string // of a Warning Event about the slice, if there is one
	}{
		{"broadcast", corev1.IPv4Protocol, withAddress("255.255.255.255"), "InvalidAddress"},
		{"IPv4 in IPv6", corev1.IPv6Protocol, withAddress("::ffff:10.244.1.2"), "InvalidAddress"},
		{"leading zeros", corev1.IPv4Protocol, withAddress("010.244.001.002"), ""},
		{"twice", corev1.IPv4Protocol, withAddress(w.web[0].V4.String()), ""},
		{"loopback", corev1.IPv4Protocol, withAddress("127.0.0.1"), "InvalidAddress"},
		{"multicast", corev1.IPv6Protocol, withAddress("ff02::1"), "InvalidAddress"},
		{"nobody's port", corev1.IPv4Protocol, func(s *discoveryv1.EndpointSlice) {
			s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: new("other"), Port: new(int32(1)), Protocol: new(corev1.ProtocolTCP)})
		}, ""},
		{"a port without a number", corev1.IPv4Protocol, func(s *discoveryv1.EndpointSlice) {
			s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: new("tcp"), Protocol: new(corev1.ProtocolTCP)})
		}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := a.slice(row.family)
			s.Name = fmt.Sprintf("messy-%d", i) // a second slice beside the good one
			row.change(s)
			api := w.api.DiscoveryV1().EndpointSlices(namespace)
			if _, err := api.Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
				t.Logf("the API server does not let it through: %v", err)
				return
			}
			gone := sync.OnceFunc(func() {
				suite.Must(t, api.Delete(context.Background(), s.Name, metav1.DeleteOptions{}))
			})
			t.Cleanup(gone)
			if row.reason != "" {
				w.warned(t, s.Name, row.reason, s.Endpoints[len(s.Endpoints)-1].Addresses[0])
			}
			a.scale(t, ready(w.web[0], w.web[2])...) // and what comes after it is still followed
			w.follows(t, a)
			answers(t, w.near, topo.TCP, a.at(t, node1, clusterIP, "tcp", node1.V4), slices.Concat(w.web[:1], w.web[2:3]), nil)
			answers(t, w.near, topo.TCP, a.at(t, node1, clusterIP, "tcp", node1.V6), slices.Concat(w.web[:1], w.web[2:3]), nil)
			gone()
			a.scale(t, ready(w.web[0])...)
			w.follows(t, a)
		})
	}
	t.Run("the Service's own address", func(t *testing.T) {
		// A destination like any other to the kernel; it must not loop.
		s := a.slice(corev1.IPv4Protocol)
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{own}})
		w.putSlice(t, s)
		suite.Await(t, 10*time.Second, func() error {
			return node1.lists("-a "+kernelPort(corev1.ProtocolTCP, netip.MustParseAddrPort(own+":80"))+" -r "+own+":", 1)
		})
		for range 4 {
			if got, err := ask(t, w.near, topo.TCP, netip.MustParseAddrPort(own+":80")); err == nil && got.Pod != "web-1" {
				t.Errorf("%s answered", got.Pod)
			}
		}
		for _, n := range w.nodes {
			suite.Must(t, n.Probe("/healthz"))
		}
	})
}

func withAddress(addr string) func(*discoveryv1.EndpointSlice) {
	return func(s *discoveryv1.EndpointSlice) {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{addr}})
	}
}
