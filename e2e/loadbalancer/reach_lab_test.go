//go:build lab

package loadbalancer

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"sluice.dev/sluice/e2e/router"
	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// told waits until every router's kernel has exactly these nodes as the ways to
// the Service's addresses.
func (s *service) told(t *testing.T, nodes ...*node) {
	t.Helper()
	for _, r := range s.w.towers() {
		for _, p := range s.routes() {
			r.has(t, p, nodes...)
			if t.Failed() {
				t.FailNow()
			}
		}
	}
}

// has waits until a router's kernel has exactly these nodes as the ways to a
// prefix.
func (r *tower) has(t *testing.T, p netip.Prefix, nodes ...*node) {
	t.Helper()
	want := hops(p, nodes)
	suite.Await(t, soon, func() error {
		got, err := r.NextHops(p)
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("%s: %v by way of %v, want %v", r.Name, p, got, want)
		}
		return err
	})
}

// stays checks that the ways to a Service's addresses do not change for a while
// at any router: no event says that nothing will happen.
func (s *service) stays(t *testing.T, while time.Duration) {
	t.Helper()
	marks := s.w.marks()
	time.Sleep(while)
	s.quiet(t, marks)
}

// marks are where the watches of the routers are.
func (w *world) marks() map[*tower]int {
	marks := map[*tower]int{}
	for _, r := range w.towers() {
		marks[r] = r.Mark()
	}
	return marks
}

// quiet checks that the ways to a Service's addresses have not changed since.
func (s *service) quiet(t *testing.T, since map[*tower]int) {
	t.Helper()
	for r, mark := range since {
		changes, err := r.Since(mark)
		suite.Must(t, err)
		for _, c := range changes {
			if slices.Contains(s.routes(), c.Prefix) {
				t.Errorf("%s: %v", r.Name, c)
			}
		}
	}
}

// changed waits for the first time that a router's kernel has exactly these
// nodes as the ways to a prefix, after a mark.
func (r *tower) changed(t *testing.T, mark int, p netip.Prefix, nodes ...*node) time.Time {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon+r.hold)
	defer cancel()
	want := hops(p, nodes)
	c, err := r.Await(ctx, mark, p, func(hops []netip.Addr) bool { return slices.Equal(hops, want) })
	suite.Must(t, err)
	return c.At
}

// TestReach: a Service gets addresses from the pool, the lowest free ones, the
// same on all nodes; routers spread over all nodes; clients behind them get
// answers by way of each.
func TestReach(t *testing.T) {
	w := enter(t)
	s := w.serve(t, "reached", w.ready(1, 2, 3), func(s *service) {
		local(s) // so that who answers tells by which node
		s.at()
	})
	s.V4, s.V6 = netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8:1::1")
	s.told(t, w.nodes...)
	for _, r := range w.towers() {
		seen := s.reaches(t, r.client, 20, 1, 2, 3)
		for _, p := range w.pods {
			if seen[p.Name] == 0 {
				t.Errorf("%s got no answer by way of %s's node: %v", r.client.Name, p.Name, seen)
			}
		}
	}
	plain := w.serve(t, "plain", w.ready(2), nil)
	plain.told(t, w.nodes...)
	for _, r := range w.towers() {
		plain.reaches(t, r.client, 6, 2)
	}
	s.remove(t)
	s.told(t)
	if got, err := w.Client.Ask(t.Context(), topo.TCP, s.frontends()[0]); err == nil {
		t.Errorf("a removed Service answers: %v", got)
	}
}

// TestAttributes: what an advertisement says is in the routers' own words, over
// sessions of both kinds.
func TestAttributes(t *testing.T) {
	w := enter(t)
	w.writeText(t, "attributes.yaml", `
apiVersion: sluice.dev/v1alpha1
kind: BGPAdvertisement
metadata: {name: attributes}
spec:
  serviceSelectors: [{matchLabels: {`+advertiseLabel+`: attributes}}]
  communities: ["64512:1", "64512:65000"]
  largeCommunities: ["64512:7:9"]
  localPref: 250
  med: 70
`)
	s := w.serve(t, "attributes", w.ready(1), func(s *service) { s.object.Labels[advertiseLabel] = "attributes" })
	s.told(t, w.nodes...)
	for _, r := range w.towers() {
		want := router.Path{Communities: []string{"64512:1", "64512:65000"}, LargeCommunities: []string{"64512:7:9"}, MED: 70}
		if r == w.tor1 {
			want.ASPath = fmt.Sprint(nodesASN)
		} else {
			want.LocalPref = 250
		}
		s.described(t, r, want)
	}
	// Other values reach the routers without a withdrawal. With another MED or
	// local preference ways would be unequal until all nodes have told theirs.
	marks := w.marks()
	w.writeText(t, "attributes.yaml", `
apiVersion: sluice.dev/v1alpha1
kind: BGPAdvertisement
metadata: {name: attributes}
spec:
  serviceSelectors: [{matchLabels: {`+advertiseLabel+`: attributes}}]
  communities: ["large:64512:1:2", "64512:3"]
  med: 70
  peers: [tor1]
`)
	s.described(t, w.tor1, router.Path{
		ASPath: fmt.Sprint(nodesASN), Communities: []string{"64512:3"}, LargeCommunities: []string{"64512:1:2"}, MED: 70,
	})
	for _, p := range s.routes() {
		w.tor2.has(t, p)
	}
	s.quiet(t, map[*tower]int{w.tor1: marks[w.tor1]})
}

// described waits until a router says the same of every node's path to the
// Service's addresses.
func (s *service) described(t *testing.T, r *tower, want router.Path) {
	t.Helper()
	for _, p := range s.routes() {
		suite.Await(t, soon, func() error {
			routes, err := r.Routes(p.Addr().Is6())
			if err != nil {
				return err
			}
			var all []router.Path
			for _, hop := range hops(p, s.w.nodes) {
				want.NextHop = hop
				all = append(all, want)
			}
			if got := routes[p]; !reflect.DeepEqual(got, all) {
				return fmt.Errorf("%s says of %v:\n%+v\nwant\n%+v", r.Name, p, got, all)
			}
			return nil
		})
	}
}
