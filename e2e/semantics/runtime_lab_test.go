//go:build lab

package semantics

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// bystanders are clients of a Service that nobody changes: connections that are
// kept and ones that are made all the time. None of them may notice anything,
// and no agent may end meanwhile.
type bystanders struct {
	w    *world
	held []*held
	pids []int
}

func (w *world) bystanders(t *testing.T) *bystanders {
	t.Helper()
	s := w.serve(t, "bystander", ready(w.a1, w.b1), nil)
	local := w.serve(t, "bystander-local", ready(w.a1), externalLocal)
	w.settle(t)
	b := &bystanders{w: w}
	for _, like := range w.families() {
		b.held = append(b.held,
			w.hold(t, w.near, s.at(clusterIP, topo.TCP, like, nil)),
			w.hold(t, w.near, local.at(balancerIP, topo.TCP, like, nil)),
			w.hold(t, w.Client, s.at(balancerIP, topo.TCP, like, nil)),
			w.hold(t, w.Client, local.at(nodePort, topo.TCP, like, w.nodes[0])))
	}
	w.load(t, way{protocol: topo.TCP, from: w.far, to: s.at(clusterIP, topo.TCP, w.near.V4, nil)})
	w.load(t, way{protocol: topo.UDP, from: w.Client, to: s.at(balancerIP, topo.UDP, w.near.V6, nil)})
	w.load(t, way{protocol: topo.TCP, from: w.Client, to: local.at(externalIP, topo.TCP, w.near.V4, nil)})
	for _, n := range w.nodes {
		b.pids = append(b.pids, n.Agent.Pid())
	}
	return b
}

func (b *bystanders) unharmed(t *testing.T) {
	t.Helper()
	for _, h := range b.held {
		h.alive(t)
	}
	for i, n := range b.w.nodes {
		select {
		case <-n.Agent.Done():
			t.Fatalf("sluice on %s has ended", n.Name)
		default:
		}
		if n.Agent.Pid() != b.pids[i] {
			t.Errorf("sluice on %s has another pid", n.Name)
		}
	}
}

// nobody checks that no way leads anywhere any more, be it refused or lost.
func nobody(t *testing.T, ways ...way) {
	t.Helper()
	var wg sync.WaitGroup
	for _, c := range ways {
		wg.Go(func() {
			if got := c.getsWithin(t.Context(), 300*time.Millisecond); slices.Contains([]string{"a1", "a2", "b1", "c1"}, got) {
				t.Errorf("%v: %s, want nobody", c, got)
			}
		})
	}
	wg.Wait()
}

// tcp are the ways to a Service's frontends of these kinds, from a pod in the
// cluster and from outside.
func (s *service) tcp(kinds ...string) []way {
	return slices.DeleteFunc(s.ways(kinds, s.w.near, s.w.Client), func(c way) bool { return c.protocol != topo.TCP })
}

// TestTypes takes a Service from every type to every other.
func TestTypes(t *testing.T) {
	w := enter(t)
	b := w.bystanders(t)
	s := w.serve(t, "typed", ready(w.a1), nil)
	full := s.object.DeepCopy()
	types := []string{"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"}
	has := map[string][]string{
		"ClusterIP": {clusterIP, externalIP}, "NodePort": {clusterIP, externalIP, nodePort}, "LoadBalancer": kinds,
	}
	become := func(kind string) {
		s.update(t, func(svc *corev1.Service) {
			full.DeepCopyInto(svc)
			svc.Spec.Type = corev1.ServiceType(kind)
			if kind == "ExternalName" {
				svc.Spec.ClusterIP, svc.Spec.ClusterIPs, svc.Spec.ExternalName = "", nil, "elsewhere.example"
				svc.Spec.IPFamilies, svc.Spec.IPFamilyPolicy = nil, nil
			}
			if kind != "LoadBalancer" {
				svc.Status = corev1.ServiceStatus{}
			}
			if !slices.Contains(has[kind], nodePort) {
				for i := range svc.Spec.Ports {
					svc.Spec.Ports[i].NodePort = 0
				}
			}
		})
		w.settle(t)
	}
	all := *s
	all.object = full // knows every address
	at := "LoadBalancer"
	for _, to := range tour(types, at) {
		t.Run(at+" to "+to, func(t *testing.T) {
			become(to)
			var gone []string
			for _, k := range kinds {
				if !slices.Contains(has[to], k) {
					gone = append(gone, k)
				}
			}
			for _, c := range all.tcp(has[to]...) {
				answers(t, c, w.a1)
			}
			nobody(t, all.tcp(gone...)...)
			b.unharmed(t)
		})
		at = to
	}
}

// tour is a way that begins at one of the names and goes from every name to
// every other exactly once.
func tour(names []string, begin string) []string {
	var way []string
	gone := map[[2]string]bool{}
	var visit func(string)
	visit = func(at string) {
		for _, to := range names {
			if e := [2]string{at, to}; to != at && !gone[e] {
				gone[e] = true
				visit(to)
			}
		}
		way = append(way, at)
	}
	visit(begin)
	slices.Reverse(way)
	return way[1:]
}

// TestLabels: labels that take a Service from us while it runs, and give it
// back.
func TestLabels(t *testing.T) {
	w := enter(t)
	b := w.bystanders(t)
	s := w.serve(t, "labelled", ready(w.a1), externalLocal)
	for _, label := range []string{"service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"} {
		t.Run(label, func(t *testing.T) {
			s.update(t, func(svc *corev1.Service) { svc.Labels = map[string]string{label: ""} })
			w.settle(t)
			nobody(t, s.tcp(kinds...)...)
			s.update(t, func(svc *corev1.Service) { svc.Labels = nil })
			w.settle(t)
			by(w.a1)(t, s.tcp(kinds...)...)
			b.unharmed(t)
		})
	}
}

// TestExternalIPs come and go, one at a time.
func TestExternalIPs(t *testing.T) {
	w := enter(t)
	b := w.bystanders(t)
	s := w.serve(t, "external", ready(w.a1), nil)
	first := s.object.Spec.ExternalIPs
	second := []string{"198.51.100.201", "2001:db8:1::201"}
	other := *s
	other.object = s.object.DeepCopy()
	other.object.Spec.ExternalIPs = second
	for _, step := range []struct {
		name        string
		ips         []string
		here, there bool // whether the first and the second are served
	}{
		{"another", slices.Concat(first, second), true, true},
		{"the first gone", second, false, true},
		{"none", nil, false, false},
		{"the first back", first, true, false},
	} {
		t.Run(step.name, func(t *testing.T) {
			s.update(t, func(svc *corev1.Service) { svc.Spec.ExternalIPs = step.ips })
			w.settle(t)
			for _, want := range []struct {
				s      *service
				served bool
			}{{&service{w: w, object: withExternal(s.object, first)}, step.here}, {&other, step.there}} {
				if want.served {
					by(w.a1)(t, want.s.tcp(externalIP)...)
				} else {
					nobody(t, want.s.tcp(externalIP)...)
				}
			}
			by(w.a1)(t, s.tcp(clusterIP, nodePort, balancerIP)...)
			b.unharmed(t)
		})
	}
}

func withExternal(svc *corev1.Service, ips []string) *corev1.Service {
	svc = svc.DeepCopy()
	svc.Spec.ExternalIPs = ips
	return svc
}

// TestNodeChanges: what the node is may change under the agent's feet.
func TestNodeChanges(t *testing.T) {
	w := enter(t)
	b := w.bystanders(t)
	s := w.serve(t, "on-a-node", ready(w.a1, w.b1), nil)
	w.settle(t)
	node2 := w.nodes[1]
	port := func(addr string) way {
		number := uint16(s.object.Spec.Ports[0].NodePort)
		return way{protocol: topo.TCP, from: w.Client, to: netip.AddrPortFrom(netip.MustParseAddr(addr), number)}
	}
	named := func(addrs ...string) {
		w.editNode(t, node2, func(o *corev1.Node) {
			o.Status.Addresses = nil
			for _, a := range addrs {
				o.Status.Addresses = append(o.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
			}
		})
		w.settle(t)
	}
	const new4, new6 = "192.168.10.112", "fd00:192:168:10::112"
	old4, old6 := node2.V4.String(), node2.V6.String()
	ip := func(t *testing.T, verb, options string) {
		t.Helper()
		_, err := node2.Tool("sh", "-ec", fmt.Sprintf("ip addr %s %s/24 dev eth0; ip addr %[1]s %[3]s/64 dev eth0 %[4]s", verb, new4, new6, options))
		suite.Must(t, err)
	}
	t.Run("an address is added", func(t *testing.T) {
		ip(t, "add", "nodad")
		named(old4, old6, new4, new6)
		for _, a := range []string{old4, old6} {
			answers(t, port(a), w.a1, w.b1)
		}
		nobody(t, port(new4), port(new6)) // the first of a family is the one for NodePorts
		b.unharmed(t)
	})
	t.Run("it becomes the node's first", func(t *testing.T) {
		named(new4, new6, old4, old6)
		for _, a := range []string{new4, new6} {
			answers(t, port(a), w.a1, w.b1)
		}
		nobody(t, port(old4), port(old6))
		b.unharmed(t)
	})
	t.Run("it goes", func(t *testing.T) {
		named(old4, old6)
		ip(t, "del", "")
		w.settle(t)
		for _, a := range []string{old4, old6} {
			answers(t, port(a), w.a1, w.b1)
		}
		b.unharmed(t)
	})
	t.Run("the Node is deleted and comes back", func(t *testing.T) {
		for range 2 {
			for i, n := range w.nodes {
				suite.Must(t, w.manifests.Erase(w.nodeObject(n, i)))
			}
			w.settle(t)
			by4 := way{protocol: topo.TCP, from: w.near, to: s.at(clusterIP, topo.TCP, w.near.V4, nil)}
			answers(t, by4, w.a1, w.b1)
			for _, a := range []string{old4, old6} {
				answers(t, port(a), w.a1, w.b1) // as long as the machine is there
			}
			b.unharmed(t)
			for i, n := range w.nodes {
				suite.Must(t, w.manifests.Write(w.nodeObject(n, i)))
			}
			w.settle(t)
			answers(t, by4, w.a1, w.b1)
			for _, a := range []string{old4, old6} {
				answers(t, port(a), w.a1, w.b1)
			}
			b.unharmed(t)
		}
	})
	t.Run("labels change", func(t *testing.T) {
		for _, zone := range []string{"zone-x", "zone-y", ""} {
			w.editNode(t, node2, func(o *corev1.Node) { o.Labels = map[string]string{corev1.LabelTopologyZone: zone, "other": zone} })
			w.settle(t)
			answers(t, port(old4), w.a1, w.b1)
		}
		b.unharmed(t)
	})
}
