//go:build lab

package semantics

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// The client's second addresses, and the networks it is in.
const (
	second4, second6   = "192.168.20.3", "fd00:192:168:20::3"
	network4, network6 = "192.168.20.0/24", "fd00:192:168:20::/64"
)

// TestSourceRanges: a load balancer's address with ranges answers those in them
// and nobody else, be it a pod or a node; the Service's other addresses answer
// everyone.
func TestSourceRanges(t *testing.T) {
	w := enter(t)
	addresses := "ip addr %s " + second4 + "/24 dev eth0; ip addr %s " + second6 + "/64 dev eth0"
	script := func(verb, options string) {
		_, err := w.Client.Tool("sh", "-ec", words(addresses, verb)+options)
		suite.Must(t, err)
	}
	script("add", " nodad preferred_lft 0") // the kernel is not to choose it
	t.Cleanup(func() { script("del", "") })

	limited := func(svc *corev1.Service, ranges ...string) { svc.Spec.LoadBalancerSourceRanges = ranges }
	cluster := w.serve(t, "ranged", ready(w.a1, w.b1), func(svc *corev1.Service) { limited(svc, second4+"/32", " "+second6+"/128 ") })
	local := w.serve(t, "ranged-local", ready(w.a1), func(svc *corev1.Service) {
		externalLocal(svc)
		limited(svc, second4+"/32", second6+"/128")
	})
	onlyFour := w.serve(t, "ranged-v4", ready(w.a1), func(svc *corev1.Service) { limited(svc, "0.0.0.0/0") })
	open := w.serve(t, "open", ready(w.a1), func(svc *corev1.Service) { limited(svc, "0.0.0.0/0", "::/0") })
	w.settle(t)
	second := map[bool]netip.Addr{true: netip.MustParseAddr(second4), false: netip.MustParseAddr(second6)}
	as := func(source netip.Addr, ways ...way) []way { // of the source's family
		var list []way
		for _, c := range ways {
			if c.to.Addr().Is4() == source.Is4() && c.protocol != topo.SCTP {
				c.source = source
				list = append(list, c)
			}
		}
		return list
	}
	balancer := []string{balancerIP}

	t.Run("allowed", func(t *testing.T) {
		for _, source := range second {
			for _, c := range as(source, cluster.ways(balancer, w.Client)...) {
				answers(t, c, w.a1, w.b1)
			}
			by(w.a1)(t, as(source, local.ways(balancer, w.Client)...)...)
		}
	})
	t.Run("closed", func(t *testing.T) {
		quiet(t, append(cluster.ways(balancer, w.askers()...), local.ways(balancer, w.askers()...)...)...)
	})
	t.Run("other addresses open", func(t *testing.T) {
		for _, from := range w.askers() {
			for _, c := range cluster.ways([]string{clusterIP, nodePort, externalIP}, from) {
				answers(t, c, w.a1, w.b1)
			}
			by(w.a1)(t, local.ways([]string{clusterIP, nodePort, externalIP}, from)...)
		}
	})
	t.Run("ranges of the other family", func(t *testing.T) {
		for _, c := range onlyFour.ways(balancer, w.askers()...) {
			if c.to.Addr().Is4() {
				answers(t, c, w.a1)
			}
		}
		var six []way
		for _, c := range onlyFour.ways(balancer, w.askers()...) {
			if c.to.Addr().Is6() {
				six = append(six, c)
			}
		}
		quiet(t, six...)
	})
	t.Run("ranges of everyone", func(t *testing.T) {
		by(w.a1)(t, open.ways(balancer, w.askers()...)...)
	})
	t.Run("changed", func(t *testing.T) {
		kept := w.hold(t, w.Client, local.at(nodePort, topo.TCP, w.near.V4, w.nodes[0]))
		for _, step := range []struct {
			name    string
			ranges  []string
			allowed []*topo.Host
			closed  []*topo.Host
		}{
			{"widened to the client's network", []string{network4, network6}, []*topo.Host{w.Client}, []*topo.Host{w.near, w.nodes[0].Host}},
			{"narrowed again", []string{second4 + "/32", second6 + "/128"}, nil, w.askers()},
			{"pods only", []string{topo.ClusterCIDR4, topo.ClusterCIDR6}, []*topo.Host{w.near}, []*topo.Host{w.Client, w.nodes[0].Host}},
			{"taken away", nil, w.askers(), nil},
			{"given back", []string{second4 + "/32"}, nil, w.askers()},
		} {
			t.Run(step.name, func(t *testing.T) {
				for _, s := range []*service{cluster, local} {
					s.update(t, func(svc *corev1.Service) { limited(svc, step.ranges...) })
				}
				w.settle(t)
				for _, c := range cluster.ways(balancer, step.allowed...) {
					answers(t, c, w.a1, w.b1)
				}
				by(w.a1)(t, local.ways(balancer, step.allowed...)...)
				quiet(t, append(cluster.ways(balancer, step.closed...), local.ways(balancer, step.closed...)...)...)
			})
		}
		kept.alive(t)
	})
}
