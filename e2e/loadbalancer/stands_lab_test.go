//go:build lab

package loadbalancer

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// step is something that happens, and from which nodes the route stands then.
type step struct {
	name      string
	endpoints []endpoint           // of the Service, from now on
	node      int                  // whose Node object changes
	edit      func(o *corev1.Node) // how
	want      []int                // nodes
}

func drained(value string) func(*corev1.Node) {
	return func(o *corev1.Node) { o.Annotations = map[string]string{drainAnnotation: value} }
}

func excluded(o *corev1.Node) { o.Labels[corev1.LabelNodeExcludeBalancers] = "" }

func cordoned(o *corev1.Node) { o.Spec.Unschedulable = true }

func notReady(o *corev1.Node) {
	o.Status.Conditions = []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: corev1.ConditionUnknown, LastTransitionTime: metav1.Now(), Reason: "NodeStatusUnknown",
	}}
}

func isReady(o *corev1.Node) {
	o.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
}

// TestWhenARouteStands: every row at both routers and in both families. Each
// has a Service of its own, as routes that come and go come back late.
func TestWhenARouteStands(t *testing.T) {
	w := enter(t)
	all := []int{1, 2, 3}
	for _, row := range []struct {
		name  string
		edit  func(*service)
		steps []step
	}{
		{"policy Local: where endpoints are ready", local, []step{
			{name: "on two nodes", endpoints: w.ready(1, 2), want: []int{1, 2}},
			{name: "moved", endpoints: w.ready(3), want: []int{3}},
			{name: "all gone", endpoints: w.ready()},
		}},
		{"policy Local: one not ready", local, []step{
			{name: "both ready", endpoints: w.ready(1, 2), want: []int{1, 2}},
			{name: "one is not", endpoints: []endpoint{w.unready(1), w.on(2)}, want: []int{2}},
			{name: "none is", endpoints: []endpoint{w.unready(1), w.unready(2)}},
		}},
		{"policy Local: terminating ones only when none is ready anywhere", local, []step{
			{name: "all ready", endpoints: w.ready(1, 2, 3), want: all},
			{name: "one terminates", endpoints: []endpoint{w.leaving(1), w.on(2), w.on(3)}, want: []int{2, 3}},
			{name: "two terminate, the third is gone", endpoints: []endpoint{w.leaving(2), w.leaving(3)}, want: []int{2, 3}},
			{name: "and end", endpoints: nil},
		}},
		{"policy Cluster: while anybody has an endpoint", nil, []step{
			{name: "one", endpoints: w.ready(2), want: all},
			{name: "terminating", endpoints: []endpoint{w.leaving(2)}, want: all},
			{name: "not ready", endpoints: []endpoint{w.unready(2)}},
			{name: "again", endpoints: w.ready(3), want: all},
		}},
		{"a drained node", nil, []step{
			{name: "before", endpoints: w.ready(2), want: all},
			{name: "drained", node: 2, edit: drained("true"), want: []int{1, 3}},
			{name: "no longer", node: 2, edit: drained("false"), want: all},
		}},
		{"an excluded node", nil, []step{
			{name: "before", endpoints: w.ready(2), want: all},
			{name: "excluded", node: 3, edit: excluded, want: []int{1, 2}},
		}},
		{"a cordoned node", nil, []step{
			{name: "before", endpoints: w.ready(2), want: all},
			{name: "cordoned", node: 1, edit: cordoned, want: all},
		}},
	} {
		t.Run(row.name, func(t *testing.T) { w.walk(t, row.edit, row.steps) })
	}
	t.Run("a node that is not ready", w.testNotReady)
	t.Run("kept without endpoints", w.testKept)
	t.Run("a shared address", w.testShared)
	t.Run("an aggregate", w.testAggregate)
}

// walk takes the steps of a row.
func (w *world) walk(t *testing.T, edit func(*service), steps []step) {
	t.Helper()
	var s *service
	for i, step := range steps {
		switch {
		case i == 0:
			s = w.serve(t, "stands", step.endpoints, edit)
		case step.edit != nil:
			w.editNode(t, w.nodes[step.node-1], step.edit)
		default:
			s.scale(t, step.endpoints...)
		}
		s.told(t, w.numbered(step.want...)...)
		if i > 0 && len(step.want) == len(w.nodes) {
			s.stays(t, time.Second) // nothing may have happened yet
		}
		if len(step.want) > 0 {
			for _, r := range w.towers() {
				s.reaches(t, r.client, 2, 1, 2, 3)
			}
		}
	}
}

// testNotReady: a node keeps its routes for a while, and for good when no other
// is better.
func (w *world) testNotReady(t *testing.T) {
	s := w.serve(t, "patient", w.ready(2), nil)
	s.told(t, w.nodes...)
	marks, begin := w.marks(), time.Now()
	w.editNode(t, w.nodes[0], notReady)
	for _, r := range w.towers() {
		for _, p := range s.routes() {
			took := r.changed(t, marks[r], p, w.numbered(2, 3)...).Sub(begin)
			// LastTransitionTime has no fractions of a second.
			if took < notReadyAfter-time.Second-100*time.Millisecond {
				t.Errorf("%s: %v withdrawn after %v, want about %v", r.Name, p, took, notReadyAfter)
			}
		}
	}
	w.editNode(t, w.nodes[1], notReady)
	s.told(t, w.numbered(3)...)
	w.editNode(t, w.nodes[2], notReady)
	s.told(t, w.nodes...) // nobody is better than the others
	for r, mark := range marks {
		changes, err := r.Since(mark)
		suite.Must(t, err)
		for _, c := range changes {
			if len(c.After) == 0 {
				t.Errorf("%s: nobody led: %v", r.Name, c)
			}
		}
	}
	w.editNode(t, w.nodes[0], isReady)
	s.told(t, w.numbered(1)...)
}

// testKept: an advertisement may keep the route of an empty Service; clients are
// then refused by a node.
func (w *world) testKept(t *testing.T) {
	w.writeText(t, "kept.yaml", `
apiVersion: sluice.dev/v1alpha1
kind: BGPAdvertisement
metadata: {name: kept}
spec:
  serviceSelectors: [{matchLabels: {`+advertiseLabel+`: kept}}]
  keepWithoutEndpoints: true
`)
	s := w.serve(t, "kept", w.ready(1), func(s *service) { s.object.Labels[advertiseLabel] = "kept" })
	s.told(t, w.nodes...)
	s.scale(t)
	s.stays(t, 2*time.Second)
	s.told(t, w.nodes...)
}

// testShared: Services that share an address lead together: with policy Cluster
// where one has endpoints, with policy Local where all have.
func (w *world) testShared(t *testing.T) {
	pair := func(edit func(*service), one, two []endpoint) (first, second *service) {
		first = w.serve(t, "sharing-1", one, func(s *service) {
			s.object.Annotations[sharingAnnotation] = "key"
			if edit != nil {
				edit(s)
			}
		})
		second = w.serve(t, "sharing-2", two, func(s *service) {
			s.object.Annotations[sharingAnnotation] = "key"
			s.at(first.V4, first.V6)
			s.object.Spec.Ports[0].Port = port + 1
			if edit != nil {
				edit(s)
			}
		})
		return first, second
	}
	first, second := pair(nil, w.ready(), w.ready(2))
	first.told(t, w.nodes...)
	second.scale(t)
	first.told(t)
	first.remove(t)
	second.remove(t)

	first, second = pair(local, w.ready(1, 2), w.ready(2, 3))
	first.told(t, w.numbered(2)...)
	first.scale(t, w.ready(1)...)
	first.told(t)
	second.remove(t)
	first.told(t, w.numbered(1)...)
}

// testAggregate: routers are told a prefix in the place of its addresses; what
// is for none of them ends at a node and goes round in no circle.
func (w *world) testAggregate(t *testing.T) {
	w.writeText(t, "aggregate.yaml", `
apiVersion: sluice.dev/v1alpha1
kind: AddressPool
metadata: {name: aggregated}
spec: {autoAssign: false, addresses: [203.0.113.192/26, "2001:db8:3::/120"]}
---
apiVersion: sluice.dev/v1alpha1
kind: BGPAdvertisement
metadata: {name: aggregated}
spec:
  serviceSelectors: [{matchLabels: {`+advertiseLabel+`: aggregated}}]
  addressPools: [aggregated]
  aggregationLength: 26
  aggregationLengthV6: 120
`)
	s := w.serve(t, "aggregated", w.ready(1), func(s *service) {
		s.object.Labels[advertiseLabel] = "aggregated"
		s.at(netip.MustParseAddr("203.0.113.200"), netip.MustParseAddr("2001:db8:3::c8"))
	})
	for _, r := range w.towers() {
		r.has(t, netip.MustParsePrefix("203.0.113.192/26"), w.nodes...)
		r.has(t, netip.MustParsePrefix("2001:db8:3::/120"), w.nodes...)
		for _, p := range s.routes() {
			r.has(t, p)
		}
		s.reaches(t, r.client, 6, 1)
		for _, unused := range []string{"203.0.113.210", "2001:db8:3::d2"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			fate, err := r.client.Fate(ctx, netip.MustParseAddr(unused))
			cancel()
			suite.Must(t, err)
			t.Logf("%s sends to unused %s: %s", r.client.Name, unused, fate)
			if fate != topo.Silence && fate != topo.Unreachable {
				t.Errorf("%s sends to unused %s: %s", r.client.Name, unused, fate)
			}
		}
	}
	for _, n := range w.nodes {
		if n.nothingDiscarded() == nil {
			t.Errorf("%s has no route that discards", n.Name)
		}
	}
	s.remove(t)
	for _, r := range w.towers() {
		r.has(t, netip.MustParsePrefix("203.0.113.192/26"))
		r.has(t, netip.MustParsePrefix("2001:db8:3::/120"))
	}
	for _, n := range w.nodes {
		suite.Await(t, soon, func() error {
			if err := n.nothingDiscarded(); err != nil {
				return fmt.Errorf("the aggregate is gone: %w", err)
			}
			return nil
		})
	}
}
