//go:build lab

package semantics

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"sluice.dev/sluice/e2e/agent"
	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// nodeObject is the Node that a kubelet would register; its zone is its own.
func (w *world) nodeObject(n *node, number int) *corev1.Node {
	o := agent.Node(n.Host)
	o.Labels[corev1.LabelTopologyZone] = zone(number)
	return o
}

// zone is the name of node number's zone, counted from 0.
func zone(number int) string { return "zone-" + string(rune('a'+number)) }

// editNode changes a Node object until the test ends.
func (w *world) editNode(t *testing.T, n *node, edit func(*corev1.Node)) {
	t.Helper()
	o := w.nodeObject(n, slices.Index(w.nodes, n))
	if edit != nil {
		edit(o)
	}
	suite.Must(t, w.manifests.Write(o))
	t.Cleanup(func() { suite.Must(t, w.manifests.Write(w.nodeObject(n, slices.Index(w.nodes, n)))) })
}

// endpoint is a pod in the state that its conditions say.
type endpoint struct {
	pod         *topo.Host
	unready     bool
	terminating bool // and not ready; serving unless unready is set too
	zones       []string
	nodes       []string
}

func ready(pods ...*topo.Host) []endpoint {
	var list []endpoint
	for _, p := range pods {
		list = append(list, endpoint{pod: p})
	}
	return list
}

// service is a Service and the pods behind it.
type service struct {
	w         *world
	object    *corev1.Service
	endpoints []endpoint
}

// The kinds of frontend.
const (
	clusterIP  = "ClusterIP"
	nodePort   = "NodePort"
	balancerIP = "LB IP"
	externalIP = "externalIP"
)

var kinds = []string{clusterIP, nodePort, balancerIP, externalIP}

// The protocols every Service is served in, by a port of the protocol's name.
var protocols = []string{topo.TCP, topo.UDP, topo.SCTP}

// serve makes a dual-stack Service with a frontend of every kind and a port of
// every protocol. The test's end takes it away. See settle.
func (w *world) serve(t *testing.T, name string, endpoints []endpoint, edit func(*corev1.Service)) *service {
	t.Helper()
	w.services++
	n := w.services
	svc := &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceDefault, Name: name, UID: types.UID(fmt.Sprintf("uid-%d", n)),
			CreationTimestamp: metav1.Time{Time: time.Unix(int64(1700000000+n), 0)},
		},
		Spec: corev1.ServiceSpec{
			Type:           corev1.ServiceTypeLoadBalancer,
			ClusterIPs:     []string{fmt.Sprintf("10.96.1.%d", n), fmt.Sprintf("fd00:10:96::1%02x", n)},
			ExternalIPs:    []string{fmt.Sprintf("198.51.100.%d", n), fmt.Sprintf("2001:db8:1::%x", n)},
			IPFamilies:     []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol},
			IPFamilyPolicy: new(corev1.IPFamilyPolicyRequireDualStack),
		},
		Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{
			{IP: fmt.Sprintf("203.0.113.%d", n)}, {IP: fmt.Sprintf("2001:db8:2::%x", n)},
		}}},
	}
	svc.Spec.ClusterIP = svc.Spec.ClusterIPs[0]
	for i, p := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP} {
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{
			Name: protocols[i], Protocol: p, Port: 80, TargetPort: intstr.FromInt32(podPort), NodePort: int32(30000 + 10*n + i),
		})
	}
	if edit != nil {
		edit(svc)
	}
	s := &service{w: w, object: svc}
	t.Cleanup(func() { s.remove(t) })
	s.scale(t, endpoints...)
	suite.Must(t, w.manifests.Write(svc))
	return s
}

// update changes the Service. See settle.
func (s *service) update(t *testing.T, edit func(*corev1.Service)) {
	t.Helper()
	edit(s.object)
	suite.Must(t, s.w.manifests.Write(s.object))
}

// scale says which pods are behind the Service. See settle.
func (s *service) scale(t *testing.T, endpoints ...endpoint) {
	t.Helper()
	s.endpoints = endpoints
	suite.Must(t, s.w.manifests.Write(s.slice(discoveryv1.AddressTypeIPv4), s.slice(discoveryv1.AddressTypeIPv6)))
}

// remove takes the Service away, and its slices. Removing again is fine.
func (s *service) remove(t *testing.T) {
	t.Helper()
	suite.Must(t, errors.Join(
		s.w.manifests.Erase(s.object), s.w.manifests.Erase(s.slice(discoveryv1.AddressTypeIPv4)), s.w.manifests.Erase(s.slice(discoveryv1.AddressTypeIPv6))))
}

// slice is what the endpoint slice controller makes of the pods.
func (s *service) slice(family discoveryv1.AddressType) *discoveryv1.EndpointSlice {
	var list []agent.Endpoint
	for _, e := range s.endpoints {
		list = append(list, agent.Endpoint{
			Pod: e.pod, Node: s.w.nodeOf(e.pod).Name, Unready: e.unready, Terminating: e.terminating, ForZones: e.zones, ForNodes: e.nodes,
		})
	}
	return agent.Slice(s.object, family, list)
}

// nodeOf is a pod's node, which its address tells, or a node itself; nil for
// who is neither.
func (w *world) nodeOf(h *topo.Host) *node {
	for i, n := range w.nodes {
		if n.Host == h || h.V4.As4()[0] == 10 && int(h.V4.As4()[2]) == i+1 {
			return n
		}
	}
	return nil
}

// at is the Service's frontend of a kind and protocol in a family, on a node.
func (s *service) at(kind, protocol string, like netip.Addr, on *node) netip.AddrPort {
	family := 0
	if like.Is6() {
		family = 1
	}
	port := s.object.Spec.Ports[slices.Index(protocols, protocol)]
	number, addr := port.Port, ""
	switch kind {
	case clusterIP:
		addr = s.object.Spec.ClusterIPs[family]
	case balancerIP:
		addr = s.object.Status.LoadBalancer.Ingress[family].IP
	case externalIP:
		addr = s.object.Spec.ExternalIPs[family]
	case nodePort:
		addr, number = on.Addr(like).String(), port.NodePort
	}
	return netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(number))
}

// families are an address of each family, for functions that want one like it.
func (w *world) families() []netip.Addr { return []netip.Addr{w.near.V4, w.near.V6} }

// markAt is the address of the mark, a Service of its own that moves with every
// change of the files: who serves it there has read them.
func markAt(number int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(10 + number/250), byte(1 + number%250)}), 80)
}

// writeMark writes the mark last of all: whoever serves it has read the rest.
func (w *world) writeMark(number int) error {
	meta := metav1.ObjectMeta{Namespace: "zz-mark", Name: "mark", UID: "uid-mark"}
	at := markAt(number)
	return w.manifests.Write(
		&discoveryv1.EndpointSlice{
			TypeMeta:    metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
			ObjectMeta:  metav1.ObjectMeta{Namespace: meta.Namespace, Name: meta.Name, Labels: map[string]string{discoveryv1.LabelServiceName: meta.Name}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: new(""), Protocol: new(corev1.ProtocolTCP), Port: new(int32(podPort))}},
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{w.c1.V4.String()}, NodeName: new("node3")}},
		},
		&corev1.Service{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
			ObjectMeta: meta,
			Spec: corev1.ServiceSpec{
				Type: corev1.ServiceTypeClusterIP, ClusterIP: at.Addr().String(), ClusterIPs: []string{at.Addr().String()},
				Ports: []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: int32(at.Port()), TargetPort: intstr.FromInt32(podPort)}},
			},
		},
	)
}

// settle waits until every agent has read what was written before, and its
// node's tables are what it wants of them.
func (w *world) settle(t *testing.T) {
	t.Helper()
	w.marks++
	suite.Must(t, w.writeMark(w.marks))
	at := markAt(w.marks)
	for _, n := range w.nodes {
		suite.Await(t, 15*time.Second, func() error {
			_, err := n.Ask(t.Context(), topo.TCP, at)
			return err
		})
	}
	for range 3 { // between two tables of one Service an agent is ready for a moment
		for _, n := range w.nodes {
			suite.Await(t, 15*time.Second, func() error { return n.Probe("/readyz") })
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}
