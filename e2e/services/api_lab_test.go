//go:build lab

package services

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/util/retry"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

const (
	namespace           = metav1.NamespaceDefault
	schedulerAnnotation = "sluice.dev/scheduler"
	drainAnnotation     = "sluice.dev/drain-timeout"
	proxyNameLabel      = "service.kubernetes.io/service-proxy-name"
)

// register makes the Node object that a kubelet would.
func (w *world) register(n *node) error {
	_, err := w.api.CoreV1().Nodes().Create(context.Background(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeHostName, Address: n.Name},
			{Type: corev1.NodeInternalIP, Address: n.V4.String()},
			{Type: corev1.NodeInternalIP, Address: n.V6.String()},
		}},
	}, metav1.CreateOptions{})
	return err
}

// app is a Service and the pods behind it.
type app struct {
	w         *world
	svc       *corev1.Service // as the API server last returned it
	endpoints []endpoint
}

// endpoint is a pod in the state that its conditions say.
type endpoint struct {
	pod         *topo.Host
	unready     bool
	terminating bool // but still serving
}

func ready(pods ...*topo.Host) []endpoint {
	var list []endpoint
	for _, p := range pods {
		list = append(list, endpoint{pod: p})
	}
	return list
}

// create makes a dual-stack Service with a port 80 of each protocol and an HTTP
// port 8080, and its EndpointSlices. The test's end takes it away.
func (w *world) create(t *testing.T, name string, endpoints []endpoint, edit func(*corev1.Service)) *app {
	t.Helper()
	dual := corev1.IPFamilyPolicyRequireDualStack
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			IPFamilyPolicy: &dual,
			Ports: []corev1.ServicePort{
				{Name: "tcp", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromInt32(webPort)},
				{Name: "udp", Protocol: corev1.ProtocolUDP, Port: 80, TargetPort: intstr.FromInt32(webPort)},
				{Name: "sctp", Protocol: corev1.ProtocolSCTP, Port: 80, TargetPort: intstr.FromInt32(webPort)},
				{Name: "http", Protocol: corev1.ProtocolTCP, Port: 8080, TargetPort: intstr.FromInt32(httpPort)},
			},
		},
	}
	if edit != nil {
		edit(svc)
	}
	made, err := w.api.CoreV1().Services(namespace).Create(t.Context(), svc, metav1.CreateOptions{})
	suite.Must(t, err)
	a := &app{w: w, svc: made}
	t.Cleanup(func() { a.remove(t) })
	a.scale(t, endpoints...)
	return a
}

// remove deletes the Service and, as the controller would after it, its slices.
// Removing again is fine.
func (a *app) remove(t *testing.T) {
	t.Helper()
	ctx := context.Background() // a cleanup's test context has ended
	err := a.w.api.CoreV1().Services(namespace).Delete(ctx, a.svc.Name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
	for _, family := range families {
		err := a.w.api.DiscoveryV1().EndpointSlices(namespace).Delete(ctx, a.sliceName(family), metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	}
}

// update changes the Service's spec and metadata.
func (a *app) update(t *testing.T, edit func(*corev1.Service)) {
	t.Helper()
	api := a.w.api.CoreV1().Services(namespace)
	suite.Must(t, retry.RetryOnConflict(retry.DefaultRetry, func() error {
		svc, err := api.Get(t.Context(), a.svc.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		edit(svc)
		svc, err = api.Update(t.Context(), svc, metav1.UpdateOptions{})
		if err == nil {
			a.svc = svc
		}
		return err
	}))
}

// balance has a load balancer hand over its addresses.
func (a *app) balance(t *testing.T, addrs ...string) {
	t.Helper()
	var list []corev1.LoadBalancerIngress
	for _, ip := range addrs {
		list = append(list, corev1.LoadBalancerIngress{IP: ip, IPMode: new(corev1.LoadBalancerIPModeVIP)})
	}
	a.report(t, list...)
}

// report sets a load balancer's status.
func (a *app) report(t *testing.T, ingress ...corev1.LoadBalancerIngress) {
	t.Helper()
	a.svc.Status.LoadBalancer.Ingress = ingress
	svc, err := a.w.api.CoreV1().Services(namespace).UpdateStatus(t.Context(), a.svc, metav1.UpdateOptions{})
	suite.Must(t, err)
	a.svc = svc
}

// families are the address types of slices and the families of ClusterIPs.
var families = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}

func (a *app) sliceName(family corev1.IPFamily) string {
	return a.svc.Name + "-" + strings.ToLower(string(family))
}

// scale says which pods are behind the Service, in one slice of each family.
func (a *app) scale(t *testing.T, endpoints ...endpoint) {
	t.Helper()
	a.endpoints = endpoints
	for _, family := range families {
		a.w.putSlice(t, a.slice(family))
	}
}

// slice is what the endpoint slice controller makes of the pods.
func (a *app) slice(family corev1.IPFamily) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name: a.sliceName(family),
			Labels: map[string]string{
				discoveryv1.LabelServiceName: a.svc.Name,
				discoveryv1.LabelManagedBy:   "endpointslice-controller.k8s.io",
			},
		},
		AddressType: discoveryv1.AddressType(family),
		Endpoints:   []discoveryv1.Endpoint{},
	}
	for _, p := range a.svc.Spec.Ports {
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{
			Name: new(p.Name), Protocol: new(p.Protocol), Port: new(int32(targetPort(p))),
		})
	}
	for _, e := range a.endpoints {
		addr := e.pod.V4
		if family == corev1.IPv6Protocol {
			addr = e.pod.V6
		}
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{addr.String()},
			Conditions: discoveryv1.EndpointConditions{
				Ready: new(!e.unready && !e.terminating), Serving: new(!e.unready), Terminating: new(e.terminating),
			},
			NodeName: new(a.w.nodeOf(e.pod)),
		})
	}
	return s
}

// putSlice creates or replaces a slice.
func (w *world) putSlice(t *testing.T, s *discoveryv1.EndpointSlice) {
	t.Helper()
	api := w.api.DiscoveryV1().EndpointSlices(namespace)
	_, err := api.Update(t.Context(), s, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(t.Context(), s, metav1.CreateOptions{})
	}
	suite.Must(t, err)
}

// nodeOf is the name of a pod's node, which its address tells.
func (w *world) nodeOf(pod *topo.Host) string {
	return fmt.Sprintf("node%d", pod.V4.As4()[2])
}

func targetPort(p corev1.ServicePort) uint16 {
	if p.Name == "http" {
		return httpPort
	}
	return webPort
}

// usable are the endpoints that get new connections: the ready ones, or if
// there are none those that still serve while they terminate.
func (a *app) usable() []endpoint {
	only := func(terminating bool) []endpoint {
		return slices.DeleteFunc(slices.Clone(a.endpoints), func(e endpoint) bool {
			return e.unready || e.terminating != terminating
		})
	}
	if ready := only(false); len(ready) > 0 {
		return ready
	}
	return only(true)
}

// scheduler is what the annotation asks for, if sluice can know it.
func (a *app) scheduler() string {
	if s := a.svc.Annotations[schedulerAnnotation]; slices.Contains([]string{"rr", "wlc", "lc", "sh"}, s) {
		return s
	}
	return "rr"
}

// frontend is one address, port and protocol of an app.
type frontend struct {
	kind     string
	protocol corev1.Protocol
	at       netip.AddrPort
	port     corev1.ServicePort
}

// The kinds of frontend.
const (
	clusterIP  = "ClusterIP"
	nodePort   = "NodePort"
	externalIP = "externalIP"
	balancerIP = "LoadBalancer"
)

// frontends are where an app answers on a node.
func (a *app) frontends(n *node) []frontend {
	addrs := map[string][]string{clusterIP: a.svc.Spec.ClusterIPs, externalIP: a.svc.Spec.ExternalIPs}
	for _, f := range a.svc.Spec.IPFamilies {
		node := n.V4
		if f == corev1.IPv6Protocol {
			node = n.V6
		}
		addrs[nodePort] = append(addrs[nodePort], node.String())
	}
	for _, in := range a.svc.Status.LoadBalancer.Ingress {
		addrs[balancerIP] = append(addrs[balancerIP], in.IP)
	}
	var list []frontend
	for _, kind := range slices.Sorted(maps.Keys(addrs)) {
		for _, addr := range addrs[kind] {
			for _, p := range a.svc.Spec.Ports {
				port := p.Port
				if kind == nodePort {
					port = p.NodePort
				}
				if port == 0 {
					continue
				}
				at := netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(port))
				list = append(list, frontend{kind: kind, protocol: p.Protocol, at: at, port: p})
			}
		}
	}
	return list
}

// at is the app's one frontend of a kind, port name and family, on a node.
func (a *app) at(t *testing.T, n *node, kind, port string, like netip.Addr) netip.AddrPort {
	t.Helper()
	for _, f := range a.frontends(n) {
		if f.kind == kind && f.port.Name == port && f.at.Addr().Is4() == like.Is4() {
			return f.at
		}
	}
	t.Fatalf("%s has no %s with port %s in the family of %s", a.svc.Name, kind, port, like)
	return netip.AddrPort{}
}

// warned waits for a Warning Event about an object.
func (w *world) warned(t *testing.T, object, reason, message string) {
	t.Helper()
	suite.Await(t, 10*time.Second, func() error {
		events, err := w.api.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{
			FieldSelector: "involvedObject.name=" + object,
		})
		if err != nil {
			return err
		}
		var seen []string
		for _, e := range events.Items {
			if e.Type == corev1.EventTypeWarning && e.Reason == reason && strings.Contains(e.Message, message) {
				return nil
			}
			seen = append(seen, fmt.Sprintf("%s %s: %s", e.Type, e.Reason, e.Message))
		}
		return fmt.Errorf("no Event %s about %s with %q, only %q", reason, object, message, seen)
	})
}
