//go:build lab

package services

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// quickly is how long a refusal may take that a reset brings.
const quickly = time.Second

// TestPorts changes the numbers a Service is reached under; its other ports
// are not disturbed.
func TestPorts(t *testing.T) {
	w := enter(t)
	node1 := w.nodes[0]
	a := w.create(t, "ports", ready(w.web[:2]...), func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeNodePort })
	w.follows(t, a)
	for _, row := range []struct {
		name, kind string
		edit       func(*corev1.ServicePort)
		from       *topo.Host
	}{
		{"port", clusterIP, func(p *corev1.ServicePort) { p.Port = 81 }, w.near},
		{"nodePort", nodePort, func(p *corev1.ServicePort) { p.NodePort = 30999 }, w.Client},
	} {
		t.Run(row.name, func(t *testing.T) {
			other := requests(t, row.from, topo.HTTP, a.at(t, node1, row.kind, "http", w.near.V4))
			old4, old6 := a.at(t, node1, row.kind, "tcp", w.near.V4), a.at(t, node1, row.kind, "tcp", w.near.V6)
			answers(t, row.from, topo.TCP, old4, w.web[:2], nil)
			a.update(t, func(svc *corev1.Service) { row.edit(&svc.Spec.Ports[0]) })
			w.follows(t, a)
			answers(t, row.from, topo.TCP, a.at(t, node1, row.kind, "tcp", w.near.V4), w.web[:2], nil)
			answers(t, row.from, topo.TCP, a.at(t, node1, row.kind, "tcp", w.near.V6), w.web[:2], nil)
			refused(t, row.from, topo.TCP, old4, quickly)
			refused(t, row.from, topo.TCP, old6, quickly)
			other.more(t, 5)
		})
	}
}

// TestScheduler: the annotation reaches the kernel without disturbing anyone,
// and a wrong one is told where its author looks.
func TestScheduler(t *testing.T) {
	w := enter(t)
	a := w.create(t, "scheduler", ready(w.web[:2]...), nil)
	w.follows(t, a)
	at := a.at(t, w.nodes[0], clusterIP, "tcp", w.near.V4)
	kept := connect(t, w.near, at)
	l := requests(t, w.near, topo.TCP, at)
	for _, name := range []string{"wlc", "sh", "fastest", "wlc", ""} {
		t.Run("to "+name, func(t *testing.T) {
			a.update(t, func(svc *corev1.Service) { svc.Annotations = map[string]string{schedulerAnnotation: name} })
			w.follows(t, a)
			if name == "fastest" {
				w.warned(t, "scheduler", "UnknownScheduler", "fastest")
			}
			kept.more(t, 5)
			l.more(t, 5)
		})
	}
}

// TestAffinity: one client stays with one endpoint for as long as it is asked
// for.
func TestAffinity(t *testing.T) {
	w := enter(t)
	a := w.create(t, "affinity", ready(w.web[:3]...), nil)
	w.follows(t, a)
	affinity := func(kind corev1.ServiceAffinity, seconds int32) {
		a.update(t, func(svc *corev1.Service) {
			svc.Spec.SessionAffinity, svc.Spec.SessionAffinityConfig = kind, nil
			if seconds > 0 {
				svc.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
			}
		})
		w.follows(t, a)
	}
	for _, c := range []struct {
		from     *topo.Host
		via      *node
		protocol string
		like     netip.Addr
	}{
		{w.near, w.nodes[0], topo.TCP, w.near.V4},
		{w.near, w.nodes[0], topo.UDP, w.near.V6},
		{w.far, w.nodes[2], topo.UDP, w.near.V4},
		{w.far, w.nodes[2], topo.TCP, w.near.V6},
	} {
		at := a.at(t, c.via, clusterIP, c.protocol, c.like)
		t.Run(fmt.Sprintf("%s %s %s", c.from.Name, c.protocol, at.Addr()), func(t *testing.T) {
			affinity(corev1.ServiceAffinityClientIP, 600)
			first, err := ask(t, c.from, c.protocol, at)
			suite.Must(t, err)
			stays := slices.IndexFunc(w.web, func(p *topo.Host) bool { return p.Name == first.Pod })
			for range 6 {
				answers(t, c.from, c.protocol, at, w.web[stays:stays+1], nil)
			}
			affinity(corev1.ServiceAffinityNone, 0)
			answers(t, c.from, c.protocol, at, w.web[:3], nil)
		})
	}
	t.Run("its endpoint leaves", func(t *testing.T) {
		at := a.at(t, w.nodes[0], clusterIP, "udp", w.near.V4)
		affinity(corev1.ServiceAffinityClientIP, 700)
		first, err := ask(t, w.near, topo.UDP, at)
		suite.Must(t, err)
		rest := slices.DeleteFunc(slices.Clone(w.web[:3]), func(p *topo.Host) bool { return p.Name == first.Pod })
		a.scale(t, ready(rest...)...)
		w.follows(t, a)
		for range 3 {
			got, err := ask(t, w.near, topo.UDP, at)
			if err != nil || got.Pod == first.Pod {
				t.Errorf("%v, %v; want an answer of another than %s", got, err, first.Pod)
			}
		}
	})
}

// TestType takes a Service through all types and back.
func TestType(t *testing.T) {
	w := enter(t)
	node1 := w.nodes[0]
	a := w.create(t, "type", ready(w.web[:2]...), nil)
	w.follows(t, a)
	for _, step := range []struct {
		to   corev1.ServiceType
		edit func(*corev1.Service)
		then func()
	}{
		{to: corev1.ServiceTypeNodePort},
		{to: corev1.ServiceTypeLoadBalancer, then: func() { a.balance(t, balancerIPs...) }},
		{to: corev1.ServiceTypeClusterIP},
		{to: corev1.ServiceTypeExternalName, edit: func(svc *corev1.Service) { svc.Spec.ExternalName = "elsewhere.example" }},
		{to: corev1.ServiceTypeClusterIP, edit: func(svc *corev1.Service) { svc.Spec.ExternalName = "" }},
	} {
		t.Run("to "+string(step.to), func(t *testing.T) {
			was := a.frontends(node1)
			a.update(t, func(svc *corev1.Service) {
				svc.Spec.Type = step.to
				if step.edit != nil {
					step.edit(svc)
				}
				if step.to == corev1.ServiceTypeClusterIP {
					dual := corev1.IPFamilyPolicyRequireDualStack
					svc.Spec.IPFamilyPolicy = &dual // an ExternalName has none
				}
			})
			if step.then != nil {
				step.then()
			}
			w.follows(t, a)
			now := a.frontends(node1)
			for _, f := range now {
				if f.port.Name != "http" {
					answers(t, w.near, network(f.protocol), f.at, w.web[:2], nil)
				}
			}
			for _, f := range was {
				if !slices.ContainsFunc(now, func(n frontend) bool { return n.at == f.at }) && f.protocol == corev1.ProtocolTCP {
					silent(t, w.near, topo.TCP, f.at)
				}
			}
		})
	}
	if len(a.frontends(node1)) == 0 {
		t.Error("nothing was tested")
	}
}

// TestProxyName: the label takes a Service away from us while it runs, and
// gives it back.
func TestProxyName(t *testing.T) {
	w := enter(t)
	node1 := w.nodes[0]
	a := w.create(t, "labelled", ready(w.web[:2]...), nil)
	other := w.create(t, "unlabelled", ready(w.web[0]), nil)
	w.follows(t, a, other)
	l := requests(t, w.near, topo.TCP, other.at(t, node1, clusterIP, "tcp", w.near.V4))
	at := a.at(t, node1, clusterIP, "tcp", w.near.V4)
	for _, step := range []struct {
		name string
		edit func(*corev1.Service)
		ours bool
	}{
		{"taken away", func(svc *corev1.Service) { svc.Labels = map[string]string{proxyNameLabel: "another"} }, false},
		{"changed meanwhile", func(svc *corev1.Service) { svc.Spec.Ports[1].Port = 82 }, false},
		{"given back", func(svc *corev1.Service) { svc.Labels = nil }, true},
	} {
		t.Run(step.name, func(t *testing.T) {
			a.update(t, step.edit)
			if !step.ours {
				w.follows(t, other)
				silent(t, w.near, topo.TCP, at)
				return
			}
			w.follows(t, a, other)
			answers(t, w.near, topo.TCP, at, w.web[:2], nil)
			answers(t, w.near, topo.UDP, a.at(t, node1, clusterIP, "udp", w.near.V6), w.web[:2], nil)
		})
	}
	l.more(t, 5)
}

// TestIngressOfOthers: an address that a load balancer keeps for itself is not
// taken from it, and one that it hands over is served.
func TestIngressOfOthers(t *testing.T) {
	w := enter(t)
	node1 := w.nodes[0]
	a := w.create(t, "balanced", ready(w.web[0]), everything)
	addr := balancerIPs[0]
	for _, step := range []struct {
		name    string
		ingress corev1.LoadBalancerIngress
		ours    bool
	}{
		{"mode Proxy", corev1.LoadBalancerIngress{IP: addr, IPMode: new(corev1.LoadBalancerIPModeProxy)}, false},
		{"no mode", corev1.LoadBalancerIngress{IP: addr}, true},
		{"a host name", corev1.LoadBalancerIngress{Hostname: "balancer.example"}, false},
		{"mode VIP", corev1.LoadBalancerIngress{IP: addr, IPMode: new(corev1.LoadBalancerIPModeVIP)}, true},
	} {
		t.Run(step.name, func(t *testing.T) {
			a.report(t, step.ingress)
			if !step.ours {
				theirs := *a
				theirs.svc = a.svc.DeepCopy()
				theirs.svc.Status = corev1.ServiceStatus{}
				w.follows(t, &theirs)
				suite.Await(t, 5*time.Second, func() error {
					if suite.Tables(t, node1.Host).Has("local routes", addr) {
						return fmt.Errorf("%s has taken %s", node1.Name, addr)
					}
					return nil
				})
				return
			}
			w.follows(t, a)
			answers(t, w.Client, topo.TCP, a.at(t, node1, balancerIP, "tcp", node1.V4), w.web[:1], nil)
		})
	}
}
