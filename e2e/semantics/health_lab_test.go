//go:build lab

package semantics

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

const (
	healthPort = 32100
	// soon is within what a load balancer's next probe would see it.
	soon = 3 * time.Second
)

// checked is what a health check node port answered.
type checked struct {
	status  int
	weight  string // of the header
	Service struct{ Namespace, Name string }
	Local   int  `json:"localEndpoints"`
	Healthy bool `json:"serviceProxyHealthy"`
}

// check asks a health check node port, as a load balancer does.
func check(from *topo.Host, at netip.AddrPort) (c checked, err error) {
	resp, err := from.HTTPClient().Get("http://" + at.String() + "/")
	if err != nil {
		return c, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(body, &c); err != nil {
		return c, fmt.Errorf("%s: %w: %s", at, err, body)
	}
	c.status, c.weight = resp.StatusCode, resp.Header.Get("X-Load-Balancing-Endpoint-Weight")
	return c, nil
}

// TestHealthCheckNodePort: load balancers learn from every node, in both
// families, how many endpoints it has that take new connections.
func TestHealthCheckNodePort(t *testing.T) {
	w := enter(t)
	s := w.serve(t, "checked", ready(w.a1, w.a2, w.b1), func(svc *corev1.Service) {
		externalLocal(svc)
		svc.Spec.HealthCheckNodePort = healthPort
	})
	w.settle(t)
	for _, step := range []struct {
		name      string
		endpoints []endpoint
		want      [3]int // by node
	}{
		{"two here, one there", ready(w.a1, w.a2, w.b1), [3]int{2, 1, 0}},
		{"one turns not ready", []endpoint{{pod: w.a1}, {pod: w.a2, unready: true}, {pod: w.b1}}, [3]int{1, 1, 0}},
		{"it becomes ready again", ready(w.a1, w.a2, w.b1), [3]int{2, 1, 0}},
		{"those here terminate and serve", []endpoint{{pod: w.a1, terminating: true}, {pod: w.a2, terminating: true}, {pod: w.b1}}, [3]int{0, 1, 0}},
		{"all terminate", []endpoint{{pod: w.a1, terminating: true}, {pod: w.b1, terminating: true}}, [3]int{0, 0, 0}},
		{"one comes where none was", ready(w.c1), [3]int{0, 0, 1}},
		{"none is left", nil, [3]int{0, 0, 0}},
	} {
		t.Run(step.name, func(t *testing.T) {
			s.scale(t, step.endpoints...)
			for i, n := range w.nodes {
				for _, like := range w.families() {
					at := netip.AddrPortFrom(n.Addr(like), healthPort)
					suite.Await(t, soon, func() error { return counts(w.Client, at, step.want[i]) })
				}
			}
			if t.Failed() {
				t.FailNow()
			}
			if step.name == "those here terminate and serve" {
				w.settle(t)
				answers(t, way{protocol: topo.TCP, from: w.Client, to: s.at(balancerIP, topo.TCP, w.near.V4, nil)}, w.a1, w.a2)
			}
		})
		if t.Failed() {
			break
		}
	}
	for _, from := range []*topo.Host{w.near, w.nodes[0].Host, w.nodes[1].Host} {
		if err := counts(from, netip.AddrPortFrom(w.nodes[0].V4, healthPort), 0); err != nil {
			t.Errorf("from %s: %v", from.Name, err)
		}
	}
	t.Run("policy Cluster has none", func(t *testing.T) {
		s.update(t, func(svc *corev1.Service) {
			svc.Spec.ExternalTrafficPolicy, svc.Spec.HealthCheckNodePort = corev1.ServiceExternalTrafficPolicyCluster, 0
		})
		w.settle(t)
		for _, like := range w.families() {
			at := way{protocol: topo.TCP, from: w.Client, to: netip.AddrPortFrom(w.nodes[0].Addr(like), healthPort)}
			suite.Await(t, soon, func() error {
				if got := at.gets(t.Context()); got != refused {
					return fmt.Errorf("%v: %s, want it refused", at, got)
				}
				return nil
			})
		}
	})
}

// counts says how a health check node port's answer differs from the right one
// for so many endpoints.
func counts(from *topo.Host, at netip.AddrPort, want int) error {
	got, err := check(from, at)
	if err != nil {
		return err
	}
	right := checked{status: http.StatusOK, weight: strconv.Itoa(want), Local: want, Healthy: true}
	right.Service.Namespace, right.Service.Name = "default", "checked"
	if want == 0 {
		right.status = http.StatusServiceUnavailable
	}
	if got != right {
		return fmt.Errorf("%s: %+v, want %+v", at, got, right)
	}
	return nil
}

// TestHealthCheckPortTaken: a port that somebody else has keeps no Service from
// being served, and is taken when it becomes free.
func TestHealthCheckPortTaken(t *testing.T) {
	w := enter(t)
	node1 := w.nodes[0]
	stop, err := node1.Serve(topo.TCP, healthPort)
	suite.Must(t, err)
	t.Cleanup(func() { suite.Must(t, stop()) })
	s := w.serve(t, "checked", ready(w.a1), func(svc *corev1.Service) {
		externalLocal(svc)
		svc.Spec.HealthCheckNodePort = healthPort
	})
	suite.Await(t, soon, func() error { // not settled: what waits for the port is not as wanted
		_, err := w.Client.Ask(t.Context(), topo.TCP, s.at(balancerIP, topo.TCP, w.near.V4, nil))
		return err
	})
	suite.Await(t, soon, func() error { return counts(w.Client, netip.AddrPortFrom(w.nodes[1].V4, healthPort), 0) })
	suite.Must(t, stop())
	// Tried again by itself, with a pause that grows.
	suite.Await(t, 15*time.Second, func() error { return counts(w.Client, netip.AddrPortFrom(node1.V4, healthPort), 1) })
}

// TestNodeEligibility: a node that is about to go tells load balancers of policy
// Cluster by /healthz; /livez is about the program only.
func TestNodeEligibility(t *testing.T) {
	w := enter(t)
	node2 := w.nodes[1]
	probe := func(n *node, path string) (int, bool, error) {
		resp, err := n.HTTPClient().Get("http://127.0.0.1:10256" + path)
		if err != nil {
			return 0, false, err
		}
		defer resp.Body.Close()
		var body struct {
			NodeEligible *bool `json:"nodeEligible"`
		}
		err = json.NewDecoder(resp.Body).Decode(&body)
		return resp.StatusCode, body.NodeEligible != nil && *body.NodeEligible, err
	}
	expect := func(t *testing.T, n *node, eligible bool) {
		t.Helper()
		want := map[bool]int{true: http.StatusOK, false: http.StatusServiceUnavailable}[eligible]
		suite.Await(t, soon, func() error {
			status, says, err := probe(n, "/healthz")
			if err == nil && (status != want || says != eligible) {
				err = fmt.Errorf("%s: /healthz: %d, nodeEligible %v; want %d", n.Name, status, says, want)
			}
			return err
		})
		if status, _, err := probe(n, "/livez"); err != nil || status != http.StatusOK {
			t.Errorf("%s: /livez: %d, %v", n.Name, status, err)
		}
	}
	for _, n := range w.nodes {
		expect(t, n, true)
	}
	tainted := func(keys ...string) {
		w.editNode(t, node2, func(o *corev1.Node) {
			for _, k := range keys {
				o.Spec.Taints = append(o.Spec.Taints, corev1.Taint{Key: k, Value: "1", Effect: corev1.TaintEffectNoSchedule})
			}
		})
		w.settle(t)
	}
	tainted("node.kubernetes.io/unschedulable")
	expect(t, node2, true)
	tainted("other", "ToBeDeletedByClusterAutoscaler")
	expect(t, node2, false)
	expect(t, w.nodes[0], true)
	tainted()
	expect(t, node2, true)
	suite.Must(t, w.manifests.Erase(w.nodeObject(node2, 1)))
	expect(t, node2, false)
	tainted()
	expect(t, node2, true)
}
