//go:build lab

package loadbalancer

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
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

// The ports of every Service and of the pods behind it.
const port, podPort = 80, 8080

const (
	addressesAnnotation = "sluice.dev/load-balancer-ips"
	sharingAnnotation   = "sluice.dev/allow-shared-ip"
	poolAnnotation      = "sluice.dev/address-pool"
	drainAnnotation     = "sluice.dev/drain"
	advertiseLabel      = "advertise" // of Services that an advertisement of a test's own is for
)

// configure writes what tests find: the pools, an advertisement of all
// Services without advertiseLabel, and a peer for each router.
//
// Pool main is given in order; what is asked for by name comes from byName, so
// that no two Services ever have the same address: a route that comes back is
// told later than one that comes first.
func (w *world) configure() error {
	return errors.Join(
		w.manifests.WriteText("pools.yaml", `
apiVersion: sluice.dev/v1alpha1
kind: AddressPool
metadata: {name: main}
spec: {addresses: [203.0.113.1-203.0.113.99, "2001:db8:1::1-2001:db8:1::99"]}
---
apiVersion: sluice.dev/v1alpha1
kind: AddressPool
metadata: {name: by-name}
spec: {autoAssign: false, addresses: [198.51.100.0/24, "2001:db8:2::/64"]}
`),
		w.manifests.WriteText("advertisement.yaml", `
apiVersion: sluice.dev/v1alpha1
kind: BGPAdvertisement
metadata: {name: all}
spec:
  serviceSelectors:
  - matchExpressions: [{key: `+advertiseLabel+`, operator: DoesNotExist}]
`),
		w.peer(w.tor1, ""), w.peer(w.tor2, ""),
	)
}

// peer writes a router's BGPPeer; more are lines of its spec.
func (w *world) peer(r *tower, more ...string) error {
	return w.manifests.WriteText("peer-"+r.Name+".yaml", fmt.Sprintf(`
apiVersion: sluice.dev/v1alpha1
kind: BGPPeer
metadata: {name: %s}
spec:
  peerAddress: %s
  peerASN: %d
  myASN: %d
  holdTime: %s
  connectRetryTime: 1s
  %s
`, r.Name, r.V4, r.asn, nodesASN, r.hold, strings.Join(more, "\n  ")))
}

// editPeer changes a router's BGPPeer for the length of a test.
func (w *world) editPeer(t *testing.T, r *tower, more ...string) {
	t.Helper()
	suite.Must(t, w.peer(r, more...))
	t.Cleanup(func() { suite.Must(t, w.peer(r)) })
}

// writeText writes a file for the length of a test.
func (w *world) writeText(t *testing.T, name, text string) {
	t.Helper()
	suite.Must(t, w.manifests.WriteText(name, text))
	t.Cleanup(func() { suite.Must(t, w.manifests.EraseText(name)) })
}

// endpoint is a pod in the state that its conditions say.
type endpoint = agent.Endpoint

func (w *world) ready(pods ...int) (list []endpoint) {
	for _, number := range pods {
		list = append(list, w.on(number))
	}
	return list
}

// on is the endpoint on node number, counted from 1.
func (w *world) on(number int) endpoint {
	return endpoint{Pod: w.pods[number-1], Node: w.nodes[number-1].Name}
}

func (w *world) unready(number int) endpoint {
	e := w.on(number)
	e.Unready = true
	return e
}

func (w *world) leaving(number int) endpoint {
	e := w.on(number)
	e.Terminating = true
	return e
}

// service is a dual-stack Service of type LoadBalancer.
type service struct {
	w      *world
	object *corev1.Service
	V4, V6 netip.Addr // what it asks for
}

// families are those of every Service's slices.
var families = []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6}

// newService makes a Service without writing it. It asks for addresses of its
// own by name.
func (w *world) newService(name string) *service {
	w.services++
	n := w.services
	s := &service{
		w:  w,
		V4: netip.AddrFrom4([4]byte{198, 51, 100, byte(n)}),
		V6: netip.MustParseAddr(fmt.Sprintf("2001:db8:2::%x", n)),
	}
	s.object = &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceDefault, Name: name, UID: types.UID(fmt.Sprintf("uid-%d", n)),
			CreationTimestamp: metav1.Time{Time: time.Unix(int64(1700000000+n), 0)},
			Labels:            map[string]string{}, Annotations: map[string]string{},
		},
		Spec: corev1.ServiceSpec{
			Type:       corev1.ServiceTypeLoadBalancer,
			ClusterIPs: []string{fmt.Sprintf("10.96.%d.%d", n/250, 1+n%250), fmt.Sprintf("fd00:10:96::1:%x", n)},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol},
			Ports: []corev1.ServicePort{{
				Name: "web", Protocol: corev1.ProtocolTCP, Port: port, TargetPort: intstr.FromInt32(podPort),
			}},
			IPFamilyPolicy:                new(corev1.IPFamilyPolicyRequireDualStack),
			AllocateLoadBalancerNodePorts: new(false),
		},
	}
	s.object.Spec.ClusterIP = s.object.Spec.ClusterIPs[0]
	s.at(s.V4, s.V6)
	return s
}

// at has the Service ask for addresses; for none it takes any.
func (s *service) at(addrs ...netip.Addr) {
	var list []string
	for _, a := range addrs {
		list = append(list, a.String())
		if a.Is4() {
			s.V4 = a
		} else {
			s.V6 = a
		}
	}
	s.object.Annotations[addressesAnnotation] = strings.Join(list, ",")
	if len(list) == 0 {
		delete(s.object.Annotations, addressesAnnotation)
	}
}

// serve makes a Service that the test's end takes away.
func (w *world) serve(t *testing.T, name string, endpoints []endpoint, edit func(*service)) *service {
	t.Helper()
	s := w.newService(name)
	if edit != nil {
		edit(s)
	}
	t.Cleanup(func() { s.remove(t) })
	s.scale(t, endpoints...)
	suite.Must(t, w.manifests.Write(s.object))
	return s
}

func local(s *service) {
	s.object.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
}

// scale says which pods are behind the Service.
func (s *service) scale(t *testing.T, endpoints ...endpoint) {
	t.Helper()
	for _, family := range families {
		suite.Must(t, s.w.manifests.Write(agent.Slice(s.object, family, endpoints)))
	}
}

// remove takes the Service away, and its slices. Removing again is fine.
func (s *service) remove(t *testing.T) {
	t.Helper()
	suite.Must(t, s.w.manifests.Erase(s.object))
	for _, family := range families {
		suite.Must(t, s.w.manifests.Erase(agent.Slice(s.object, family, nil)))
	}
}

// routes are the prefixes of the Service's addresses.
func (s *service) routes() []netip.Prefix { return []netip.Prefix{route(s.V4), route(s.V6)} }

func route(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// frontends are the Service's addresses with its port.
func (s *service) frontends() []netip.AddrPort {
	return []netip.AddrPort{netip.AddrPortFrom(s.V4, port), netip.AddrPortFrom(s.V6, port)}
}

// numbered are nodes by number, counted from 1.
func (w *world) numbered(numbers ...int) (nodes []*node) {
	for _, n := range numbers {
		nodes = append(nodes, w.nodes[n-1])
	}
	return nodes
}

// hops are the next hops of a prefix that is told by nodes.
func hops(p netip.Prefix, nodes []*node) []netip.Addr {
	list := []netip.Addr{}
	for _, n := range nodes {
		list = append(list, n.Addr(p.Addr()))
	}
	return list
}

// reaches checks that a client gets an answer from one of the pods at each of a
// Service's addresses, and returns how often each node's pod answered.
func (s *service) reaches(t *testing.T, client *topo.Host, times int, pods ...int) map[string]int {
	t.Helper()
	allowed, seen := map[string]bool{}, map[string]int{}
	for _, number := range pods {
		allowed[s.w.pods[number-1].Name] = true
	}
	for _, at := range s.frontends() {
		for range times {
			got, err := client.Ask(t.Context(), topo.TCP, at)
			if err != nil || !allowed[got.Pod] {
				t.Errorf("%s asks %v: %v, %v; want one of %v", client.Name, at, got, err, allowed)
				return seen
			}
			seen[got.Pod]++
		}
	}
	return seen
}
