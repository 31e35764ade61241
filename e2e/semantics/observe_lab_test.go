//go:build lab

package semantics

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// timeouts is how the kernel says how long it keeps idle connections: of TCP,
// of TCP after a FIN and of UDP, in seconds.
func (n *node) timeouts(t *testing.T) string {
	t.Helper()
	out, err := n.Tool("ipvsadm", "-L", "--timeout")
	suite.Must(t, err)
	_, seconds, _ := strings.Cut(strings.TrimSpace(out), ": ")
	return seconds
}

// TestIdleTimeout: by default an idle TCP connection outlives the kernel's
// keepalives. What no flag names is left alone.
func TestIdleTimeout(t *testing.T) {
	w := enter(t)
	for _, n := range w.nodes {
		// The last two are the kernel's own.
		if got, want := n.timeouts(t), "8100 120 300"; got != want {
			t.Errorf("%s: by default %s, want %s", n.Name, got, want)
		}
	}
	node1 := w.nodes[0]
	set := func(seconds ...string) {
		_, err := node1.Tool("ipvsadm", append([]string{"--set"}, seconds...)...)
		suite.Must(t, err)
	}
	t.Cleanup(func() { set("8100", "120", "300") })
	set("900", "77", "333")
	w.restartOn(t, w.nodes[:1], append(detector(), "--ipvs-tcp-timeout", "20m")...)
	if got, want := node1.timeouts(t), "1200 77 333"; got != want {
		t.Errorf("with --ipvs-tcp-timeout 20m: %s, want %s", got, want)
	}
}

// counted says how a frontend's connections in /connections differ from the
// right number: those established.
func (n *node) counted(service string, at netip.AddrPort, want int) error {
	text, err := get(n.Host, "http://127.0.0.1:10249/connections")
	if err != nil {
		return err
	}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 4 && f[0] == service && f[1] == at.String()+"/TCP" && f[2] == fmt.Sprint(want) {
			return nil
		}
	}
	return fmt.Errorf("%s: /connections has no %d established ones of %s at %s:\n%s", n.Name, want, service, at, text)
}

// metric is the sum of an agent's series of a name with these labels, given as
// pairs.
func (n *node) metric(name string, labels ...string) (float64, error) {
	with := map[string]string{}
	for i := 0; i < len(labels); i += 2 {
		with[labels[i]] = labels[i+1]
	}
	return n.Agent.Metric(context.Background(), name, with)
}

// becomes waits until a metric has a value.
func (n *node) becomes(t *testing.T, want float64, name string, labels ...string) {
	t.Helper()
	suite.Await(t, soon, func() error {
		got, err := n.metric(name, labels...)
		if err == nil && got != want {
			err = fmt.Errorf("%s: %s %v is %v, want %v", n.Name, name, labels, got, want)
		}
		return err
	})
}

func (n *node) mustMetric(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	got, err := n.metric(name, labels...)
	suite.Must(t, err)
	return got
}

// TestConnections: what an operator reads off a node is what is there.
func TestConnections(t *testing.T) {
	w := enter(t)
	t.Run("destinations", w.testDestinations)
	t.Run("established", w.testEstablished)
	t.Run("no local endpoints", w.testNoLocalEndpoints)
	t.Run("time from the trigger", w.testTriggered)
}

func (w *world) testEstablished(t *testing.T) {
	node1 := w.nodes[0]
	s := w.serve(t, "counted", ready(w.a1, w.b1), drainedWithin("0"))
	w.settle(t)
	for _, like := range w.families() {
		inside, outside := s.at(clusterIP, topo.TCP, like, nil), s.at(nodePort, topo.TCP, like, node1)
		for i := 1; i <= 3; i++ {
			h := w.hold(t, w.near, inside)
			suite.Await(t, soon, func() error { return node1.counted("default/counted", inside, i) })
			h.alive(t)
		}
		h := w.hold(t, w.Client, outside)
		suite.Await(t, soon, func() error { return node1.counted("default/counted", outside, 1) })
		suite.Must(t, h.conn.Close())
		suite.Await(t, soon, func() error { return node1.counted("default/counted", outside, 0) })
		suite.Await(t, soon, func() error { return node1.counted("default/counted", inside, 3) })
	}
}

func (w *world) testNoLocalEndpoints(t *testing.T) {
	const name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total"
	expect := func(on *node, want float64) {
		t.Helper()
		for _, family := range []string{"IPv4", "IPv6"} {
			for _, policy := range []string{"internal", "external"} {
				on.becomes(t, want, name, "ip_family", family, "traffic_policy", policy)
			}
		}
	}
	expect(w.nodes[0], 0)
	s := w.serve(t, "elsewhere", ready(w.b1), func(svc *corev1.Service) {
		externalLocal(svc)
		svc.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
	})
	expect(w.nodes[0], 1)
	expect(w.nodes[1], 0)
	s.scale(t, ready(w.a1)...)
	expect(w.nodes[0], 0)
	expect(w.nodes[1], 1)
	s.remove(t)
	expect(w.nodes[1], 0)
}

func (w *world) testDestinations(t *testing.T) {
	const name = "sluice_ipvs_destinations"
	node1 := w.nodes[0]
	serving := node1.mustMetric(t, name, "state", "serving")
	s := w.serve(t, "destinations", ready(w.a1, w.b1), drainedWithin("1m"))
	w.settle(t)
	frontends := float64(len(kinds) * len(protocols) * len(w.families()))
	node1.becomes(t, serving+2*frontends, name, "state", "serving")
	node1.becomes(t, 0, name, "state", "draining")
	at := s.at(clusterIP, topo.TCP, w.near.V4, nil)
	for range 2 { // one with each
		w.hold(t, w.near, at)
	}
	s.scale(t, ready(w.a1)...)
	node1.becomes(t, serving+frontends, name, "state", "serving")
	node1.becomes(t, 1, name, "state", "draining")
}

// testTriggered: the time from a change of endpoints, as the slice tells it, to
// the kernel having it is measured on every node.
func (w *world) testTriggered(t *testing.T) {
	const name, ago = "kubeproxy_network_programming_duration_seconds", 2 * time.Second
	s := w.serve(t, "triggered", ready(w.a1), drainedWithin("0"))
	w.settle(t)
	var count, sum []float64
	for _, n := range w.nodes {
		count = append(count, n.mustMetric(t, name+"_count", "ip_family", "IPv4"))
		sum = append(sum, n.mustMetric(t, name+"_sum", "ip_family", "IPv4"))
	}
	s.endpoints = ready(w.a1, w.b1)
	slice := s.slice(discoveryv1.AddressTypeIPv4)
	slice.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: time.Now().Add(-ago).UTC().Format(time.RFC3339Nano)}
	suite.Must(t, w.manifests.Write(slice))
	for i, n := range w.nodes {
		n.becomes(t, count[i]+1, name+"_count", "ip_family", "IPv4")
		if took := n.mustMetric(t, name+"_sum", "ip_family", "IPv4") - sum[i]; took < ago.Seconds() || took > (ago+soon).Seconds() {
			t.Errorf("%s: %v s since what happened %v before the slice was written", n.Name, took, ago)
		} else {
			t.Logf("%s: the kernel has it %.0f ms after the slice was written", n.Name, 1000*(took-ago.Seconds()))
		}
	}
}
