//go:build lab

package services

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// listsAsIPVSAdm compares the two listings of one table, byte for byte. Traffic
// may change it between them.
func (w *world) listsAsIPVSAdm(t *testing.T, n *node) {
	t.Helper()
	suite.Await(t, 10*time.Second, func() error {
		want, err := tool(n.Host, "ipvsadm", "-Ln")
		if err != nil {
			return err
		}
		got, err := tool(n.Host, w.bin, "ipvs", "-Ln")
		if err == nil && got != want {
			err = fmt.Errorf("%s: sluice ipvs -Ln:\n%s\nipvsadm -Ln:\n%s", n.Name, got, want)
		}
		return err
	})
}

// TestListing: `sluice ipvs -Ln` is `ipvsadm -Ln`, on a table with everything.
func TestListing(t *testing.T) {
	w := enter(t)
	a := w.create(t, "listed", ready(w.web...), func(svc *corev1.Service) {
		everything(svc)
		svc.Annotations = map[string]string{drainAnnotation: "1m"} // longer than looking at it takes
	})
	a.balance(t, balancerIPs...)
	sticky := w.create(t, "sticky", ready(w.web[:2]...), func(svc *corev1.Service) {
		svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		svc.Annotations = map[string]string{schedulerAnnotation: "lc"}
	})
	w.follows(t, a, sticky)
	node1 := w.nodes[0]
	kept := connect(t, w.near, a.at(t, node1, clusterIP, "tcp", node1.V4))
	for _, f := range a.frontends(node1) {
		if f.port.Name != "http" {
			answers(t, w.near, network(f.protocol), f.at, w.web, nil)
		}
	}
	for _, n := range w.nodes {
		w.listsAsIPVSAdm(t, n)
	}
	a.scale(t) // all of them drain
	at := kernelPort(corev1.ProtocolTCP, a.at(t, node1, clusterIP, "tcp", node1.V4))
	suite.Await(t, 10*time.Second, func() error {
		have, err := node1.servers()
		if err == nil && !slices.ContainsFunc(have, func(l string) bool { return strings.HasPrefix(l, "-a "+at) && strings.HasSuffix(l, " -w 0") }) {
			err = fmt.Errorf("no destination of %s drains", at)
		}
		return err
	})
	w.listsAsIPVSAdm(t, node1)
	kept.reset(t)
	a.update(t, func(svc *corev1.Service) { svc.Annotations = nil })
	w.follows(t, a, sticky)
}

// TestRulesAreStatic: Services move members of sets, never a rule.
func TestRulesAreStatic(t *testing.T) {
	w := enter(t)
	const many = 60
	rules := map[int]string{}
	var apps []*app
	for _, count := range []int{2, many} {
		for len(apps) < count {
			a := w.create(t, fmt.Sprintf("static-%d", len(apps)), ready(w.web[len(apps)%4], w.web[0]), func(svc *corev1.Service) {
				svc.Spec.Type = corev1.ServiceTypeNodePort
			})
			apps = append(apps, a)
		}
		w.follows(t, apps...)
		st := suite.Tables(t, w.nodes[0].Host)
		rules[count] = strings.Join(slices.Concat(st["iptables"], st["ip6tables"]), "\n")
	}
	if rules[2] != rules[many] {
		t.Errorf("with 2 Services:\n%s\nwith %d:\n%s", rules[2], many, rules[many])
	}
	if n := strings.Count(rules[many], "SLUICE-"); n == 0 {
		t.Error("there are no rules of sluice's at all")
	}
	for _, n := range w.nodes {
		w.listsAsIPVSAdm(t, n)
	}
	last := apps[many-1]
	answers(t, w.far, topo.TCP, last.at(t, w.nodes[2], clusterIP, "tcp", w.far.V6), podsOf(last), nil)
	answers(t, w.Client, topo.UDP, last.at(t, w.nodes[1], nodePort, "udp", w.far.V4), podsOf(last), nil)
}

func podsOf(a *app) (pods []*topo.Host) {
	for _, e := range a.endpoints {
		pods = append(pods, e.pod)
	}
	return pods
}

// TestCleanup: `sluice cleanup` takes away all that sluice made, and nothing
// else: the node is as it was before sluice came.
func TestCleanup(t *testing.T) {
	w := enter(t)
	a := w.create(t, "cleaned", ready(w.web[:3]...), everything)
	a.balance(t, balancerIPs...)
	w.follows(t, a)
	open, err := w.near.Dial(t.Context(), topo.TCP, a.at(t, w.nodes[0], clusterIP, "tcp", w.near.V4))
	suite.Must(t, err)
	defer open.Close() // cleanup must not wait for it
	for _, n := range w.nodes {
		suite.Must(t, n.Agent.Stop())
		out, err := tool(n.Host, w.bin, "cleanup")
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		if err := n.Before.Same(n.Host); err != nil {
			t.Errorf("after cleanup: %v", err)
		}
		if _, err := tool(n.Host, w.bin, "cleanup"); err != nil {
			t.Errorf("again: %v", err)
		}
	}
	silent(t, w.near, topo.TCP, a.at(t, w.nodes[0], clusterIP, "tcp", w.near.V4))
	suite.Must(t, w.start(w.nodes...))
	w.follows(t, a)
	answers(t, w.Client, topo.TCP, a.at(t, w.nodes[0], balancerIP, "tcp", w.near.V4), w.web[:3], nil)
}
