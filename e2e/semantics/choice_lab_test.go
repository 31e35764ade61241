//go:build lab

package semantics

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/topo"
)

// TestEndpointChoice: which endpoints count, by their conditions, for the
// cluster and for a node alone. A fallback of one list is none of the other's.
func TestEndpointChoice(t *testing.T) {
	w := enter(t)
	ok := func(p *topo.Host) endpoint { return endpoint{pod: p} }
	not := func(p *topo.Host) endpoint { return endpoint{pod: p, unready: true} }
	leaving := func(p *topo.Host) endpoint { return endpoint{pod: p, terminating: true} }
	gone := func(p *topo.Host) endpoint { return endpoint{pod: p, terminating: true, unready: true} }
	rows := []struct {
		name           string
		endpoints      []endpoint
		cluster, local string // those reached, on node1
		service        *service
	}{
		{name: "ready", endpoints: []endpoint{ok(w.a1), ok(w.a2), ok(w.b1)}, cluster: "a1 a2 b1", local: "a1 a2"},
		{name: "one not ready", endpoints: []endpoint{not(w.a1), ok(w.a2), ok(w.b1)}, cluster: "a2 b1", local: "a2"},
		{name: "one leaving", endpoints: []endpoint{leaving(w.a1), ok(w.a2), ok(w.b1)}, cluster: "a2 b1", local: "a2"},
		{name: "all here leaving", endpoints: []endpoint{leaving(w.a1), leaving(w.a2), ok(w.b1)}, cluster: "b1", local: "a1 a2"},
		{name: "all leaving", endpoints: []endpoint{leaving(w.a1), leaving(w.b1)}, cluster: "a1 b1", local: "a1"},
		{name: "leaving, not ready and gone", endpoints: []endpoint{leaving(w.a1), not(w.a2), gone(w.b1)}, cluster: "a1", local: "a1"},
		{name: "all here gone", endpoints: []endpoint{gone(w.a1), not(w.a2), ok(w.b1)}, cluster: "b1", local: silent},
		{name: "leaving elsewhere", endpoints: []endpoint{leaving(w.b1), leaving(w.c1)}, cluster: "b1 c1", local: silent},
		{name: "gone and not ready", endpoints: []endpoint{gone(w.a1), not(w.b1)}, cluster: refused, local: refused},
	}
	for i := range rows {
		rows[i].service = w.serve(t, fmt.Sprintf("choice-%d", i), rows[i].endpoints, externalLocal)
	}
	w.settle(t)
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			var wg sync.WaitGroup // silence takes its time
			for _, like := range w.families() {
				for _, protocol := range []string{topo.TCP, topo.UDP} {
					reached(t, way{protocol: protocol, from: w.near, to: r.service.at(clusterIP, protocol, like, nil)}, r.cluster)
					wg.Go(func() {
						reached(t, way{protocol: protocol, from: w.Client, to: r.service.at(balancerIP, protocol, like, nil)}, r.local)
					})
				}
			}
			wg.Wait()
		})
	}
}

// reached checks who is reached, in the words of tables.
func reached(t *testing.T, c way, want string) {
	t.Helper()
	if want == silent || want == refused {
		if got := c.gets(t.Context()); got != want {
			t.Errorf("%v: %s, want %s", c, got, want)
		}
		return
	}
	seen, err := c.reaches(t, 2*len(strings.Fields(want)))
	if err != nil || !slices.Equal(seen, strings.Fields(want)) {
		t.Errorf("%v: %v answered, %v; want %s", c, seen, err, want)
	}
}

// TestTopologyHints: hints keep traffic in a zone or on a node, if every
// endpoint has one and one names the client's; Local policies take no notice.
func TestTopologyHints(t *testing.T) {
	w := enter(t)
	in := func(p *topo.Host, zones ...string) endpoint { return endpoint{pod: p, zones: zones} }
	on := func(e endpoint, nodes ...string) endpoint { e.nodes = nodes; return e }
	everyone := "a1 b1 c1"
	rows := []struct {
		name      string
		endpoints []endpoint
		want      [3]string // by node
		service   *service
	}{
		{name: "a zone each", endpoints: []endpoint{in(w.a1, "zone-a"), in(w.b1, "zone-b"), in(w.c1, "zone-c")}, want: [3]string{"a1", "b1", "c1"}},
		{name: "one without", endpoints: []endpoint{in(w.a1, "zone-a"), in(w.b1, "zone-b"), in(w.c1)}, want: [3]string{everyone, everyone, everyone}},
		{name: "none for a zone", endpoints: []endpoint{in(w.a1, "zone-a"), in(w.b1, "zone-b"), in(w.c1, "zone-b")}, want: [3]string{"a1", "b1 c1", everyone}},
		{name: "for several zones", endpoints: []endpoint{in(w.a1, "zone-a", "zone-c"), in(w.b1, "zone-b", "zone-c")}, want: [3]string{"a1", "b1", "a1 b1"}},
		{name: "not ready ones do not count", endpoints: []endpoint{in(w.a1, "zone-a"), in(w.b1, "zone-b"), {pod: w.c1, unready: true}}, want: [3]string{"a1", "b1", "a1 b1"}},
		{name: "leaving ones ignore them", endpoints: []endpoint{
			{pod: w.a1, terminating: true, zones: []string{"zone-a"}}, {pod: w.b1, terminating: true, zones: []string{"zone-b"}},
		}, want: [3]string{"a1 b1", "a1 b1", "a1 b1"}},
		{name: "a node each", endpoints: []endpoint{on(in(w.a1, "zone-a"), "node1"), on(in(w.b1, "zone-b"), "node2"), on(in(w.c1, "zone-c"), "node3")}, want: [3]string{"a1", "b1", "c1"}},
		{name: "nodes before zones", endpoints: []endpoint{on(in(w.a1, "zone-b"), "node1"), on(in(w.b1, "zone-b"), "node2"), on(in(w.c1, "zone-b"), "node2")}, want: [3]string{"a1", "b1 c1", everyone}},
		{name: "no node named: zones", endpoints: []endpoint{on(in(w.a1, "zone-c"), "node1"), on(in(w.b1, "zone-b"), "node1")}, want: [3]string{"a1 b1", "b1", "a1"}},
		{name: "one without a node: zones", endpoints: []endpoint{on(in(w.a1, "zone-b"), "node1"), in(w.b1, "zone-a")}, want: [3]string{"b1", "a1", "a1 b1"}},
	}
	for i := range rows {
		rows[i].service = w.serve(t, fmt.Sprintf("hints-%d", i), rows[i].endpoints, nil)
	}
	local := w.serve(t, "hints-local", []endpoint{in(w.a1, "zone-b"), in(w.b1, "zone-a")}, policies[3].edit)
	w.settle(t)
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			for i, from := range []*topo.Host{w.near, w.nodes[1].Host, w.far} {
				for _, like := range w.families() {
					reached(t, way{protocol: topo.TCP, from: from, to: r.service.at(clusterIP, topo.TCP, like, nil)}, r.want[i])
				}
			}
		})
	}
	t.Run("Local policies ignore them", func(t *testing.T) {
		reached(t, way{protocol: topo.TCP, from: w.near, to: local.at(clusterIP, topo.TCP, w.near.V4, nil)}, "a1")
		reached(t, way{protocol: topo.TCP, from: w.Client, to: local.at(balancerIP, topo.TCP, w.near.V4, nil)}, "a1")
	})
	t.Run("the node's zone changes", func(t *testing.T) {
		for _, step := range []struct{ zone, want string }{{"zone-c", "c1"}, {"zone-z", everyone}, {"", everyone}, {"zone-b", "b1"}, {"zone-a", "a1"}} {
			w.editNode(t, w.nodes[0], func(o *corev1.Node) {
				o.Labels = map[string]string{"other": "label"}
				if step.zone != "" {
					o.Labels[corev1.LabelTopologyZone] = step.zone
				}
			})
			w.settle(t)
			for _, like := range w.families() {
				reached(t, way{protocol: topo.TCP, from: w.near, to: rows[0].service.at(clusterIP, topo.TCP, like, nil)}, step.want)
			}
		}
	})
}
