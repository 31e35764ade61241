//go:build lab

package semantics

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// askers are who asks in node1's name, or through it.
func (w *world) askers() []*topo.Host { return []*topo.Host{w.near, w.nodes[0].Host, w.Client} }

// ways are all the ways of these hosts to a Service's frontends of these kinds
// on node1, in every protocol and family.
func (s *service) ways(kinds []string, from ...*topo.Host) []way {
	var list []way
	for _, h := range from {
		for _, kind := range kinds {
			for _, protocol := range protocols {
				for _, like := range s.w.families() {
					list = append(list, way{protocol: protocol, from: h, to: s.at(kind, protocol, like, s.w.nodes[0])})
				}
			}
		}
	}
	return list
}

// TestMissingEndpoints: who cannot be served is told so at once, unless another
// node could serve; then silence has the load balancer go there.
func TestMissingEndpoints(t *testing.T) {
	w := enter(t)
	bothLocal := policies[3].edit
	none := w.serve(t, "none", nil, nil)
	noneLocal := w.serve(t, "none-local", nil, bothLocal)
	unusable := w.serve(t, "unusable", []endpoint{{pod: w.a1, unready: true}, {pod: w.b1, unready: true, terminating: true}}, nil)
	elsewhere := w.serve(t, "elsewhere", ready(w.b1), bothLocal)
	served := w.serve(t, "served", ready(w.a1), nil)
	w.settle(t)

	t.Run("none anywhere: refused", func(t *testing.T) {
		fast(t, none.ways(kinds, w.askers()...)...)
	})
	t.Run("none anywhere under Local: refused", func(t *testing.T) {
		fast(t, noneLocal.ways(kinds, w.askers()...)...)
	})
	t.Run("none that serves: refused", func(t *testing.T) {
		fast(t, unusable.ways(kinds, w.askers()...)...)
	})
	t.Run("elsewhere only, internally: silent", func(t *testing.T) {
		all(t, silent, elsewhere.ways([]string{clusterIP}, w.askers()...)...)
	})
	t.Run("elsewhere only, externally: silent", func(t *testing.T) {
		all(t, silent, elsewhere.ways([]string{nodePort, balancerIP, externalIP}, w.Client)...)
		all(t, silent, elsewhere.ways([]string{nodePort}, w.nodes[1].Host)...)
	})
	t.Run("elsewhere only, in-cluster clients of external addresses: answered", func(t *testing.T) {
		for _, c := range elsewhere.ways([]string{nodePort, balancerIP, externalIP}, w.near, w.nodes[0].Host) {
			answers(t, c, w.b1)
		}
	})
	t.Run("a port that is not served: refused", func(t *testing.T) {
		for _, s := range []*service{served, none, elsewhere} {
			for _, c := range s.ways([]string{clusterIP, balancerIP, externalIP}, w.askers()...) {
				c.to = netip.AddrPortFrom(c.to.Addr(), 81)
				fast(t, c)
			}
		}
	})
	t.Run("ping: answered", func(t *testing.T) {
		for _, s := range []*service{served, none, elsewhere} {
			for _, from := range w.askers() {
				for _, kind := range []string{clusterIP, balancerIP, externalIP} {
					for _, like := range w.families() {
						if err := from.Ping(s.at(kind, topo.TCP, like, nil).Addr()); err != nil {
							t.Error(err)
						}
					}
				}
			}
		}
	})
}

// TestEndpointsComeAndGo: the two kinds of having none, and back, each in the
// moment it comes about; and of one family only.
func TestEndpointsComeAndGo(t *testing.T) {
	w := enter(t)
	s := w.serve(t, "come-and-go", ready(w.a1), externalLocal)
	inside := []string{clusterIP}
	outside := []string{nodePort, balancerIP, externalIP}
	for _, step := range []struct {
		name            string
		endpoints       []endpoint
		inside, outside func(*testing.T, ...way)
	}{
		{"here", ready(w.a1), by(w.a1), by(w.a1)},
		{"moved", ready(w.b1), by(w.b1), quiet},
		{"gone", nil, fast, fast},
		{"elsewhere", ready(w.b1), by(w.b1), quiet},
		{"back", ready(w.a1), by(w.a1), by(w.a1)},
		{"gone again", nil, fast, fast},
	} {
		t.Run(step.name, func(t *testing.T) {
			s.scale(t, step.endpoints...)
			w.settle(t)
			step.inside(t, s.ways(inside, w.near, w.nodes[0].Host)...)
			step.outside(t, s.ways(outside, w.Client)...)
		})
	}
	t.Run("in IPv4 only", func(t *testing.T) {
		s.scale(t, ready(w.a1)...)
		six := s.slice(discoveryv1.AddressTypeIPv6)
		six.Endpoints = six.Endpoints[:0]
		suite.Must(t, w.manifests.Write(six))
		w.settle(t)
		for _, c := range append(s.ways(inside, w.near, w.nodes[0].Host), s.ways(outside, w.Client)...) {
			if c.to.Addr().Is4() {
				answers(t, c, w.a1)
			} else {
				fast(t, c)
			}
		}
	})
	t.Run("of a Service that becomes Local", func(t *testing.T) {
		s.scale(t, ready(w.b1)...)
		s.update(t, func(svc *corev1.Service) { svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster })
		w.settle(t)
		by(w.b1)(t, s.ways(outside, w.Client)...)
		s.update(t, externalLocal)
		w.settle(t)
		quiet(t, s.ways(outside, w.Client)...)
	})
}

// by expects answers of one endpoint, quiet none and no refusal either.
func by(pod *topo.Host) func(*testing.T, ...way) {
	return func(t *testing.T, ways ...way) {
		t.Helper()
		for _, c := range ways {
			answers(t, c, pod)
		}
	}
}

func quiet(t *testing.T, ways ...way) {
	t.Helper()
	all(t, silent, ways...)
}
