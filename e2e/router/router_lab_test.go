//go:build lab

package router

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"sluice.dev/sluice/e2e/topo"
)

// A load-balancer address of each family, as its route.
var (
	vip4 = netip.MustParsePrefix("203.0.113.1/32")
	vip6 = netip.MustParsePrefix("2001:db8:2::1/128")
)

const nodesASN, towerASN = 64512, 64500

// world is three nodes, with BIRD in the place of sluice, and two routers.
type world struct {
	*topo.Topology
	nodes   []*BIRD
	towers  []Router // FRR, then BIRD
	hosts   []*topo.Host
	watches []*topo.RouteWatch
}

func build(t *testing.T) *world {
	t.Helper()
	begin := time.Now()
	net, err := topo.New(3)
	must(t, err)
	w := &world{Topology: net}
	t.Cleanup(func() { must(t, net.Close()) })
	second, _, err := net.AddRouter("tor2")
	must(t, err)
	w.hosts = []*topo.Host{net.Router, second}
	log := logFile(t)
	for _, h := range w.hosts {
		watch, err := h.WatchRoutes()
		must(t, err)
		w.watches = append(w.watches, watch)
	}
	o := Options{ASN: towerASN, Log: log}
	for _, n := range net.Nodes {
		o.Neighbors = append(o.Neighbors, Neighbor{Addr: n.V4, ASN: nodesASN})
	}
	frr, err := StartFRR(net.Router, o)
	must(t, err)
	t.Cleanup(func() { must(t, frr.Stop()) })
	bird, err := StartBIRD(second, o)
	must(t, err)
	t.Cleanup(func() { must(t, bird.Stop()) })
	w.towers = []Router{frr, bird}
	for _, n := range net.Nodes {
		// BIRD would tell its link-local address too, and routers prefer that.
		_, err := n.Tool("ip", "-6", "addr", "flush", "dev", "eth0", "scope", "link")
		must(t, err)
		b, err := StartBIRD(n, Options{ASN: nodesASN, Tells: true, Log: log, Neighbors: []Neighbor{
			{Addr: net.Router.V4, ASN: towerASN}, {Addr: second.V4, ASN: towerASN},
		}})
		must(t, err)
		t.Cleanup(func() { must(t, b.Stop()) })
		w.nodes = append(w.nodes, b)
	}
	for _, r := range w.towers {
		within(t, 20*time.Second, func() error { return w.established(r) })
	}
	t.Logf("3 nodes and 2 routers with their sessions after %v", time.Since(begin).Round(time.Millisecond))
	return w
}

func logFile(t *testing.T) io.Writer {
	t.Helper()
	dir := os.Getenv("SLUICE_LAB_OUT")
	if dir == "" {
		dir = t.TempDir()
	}
	f, err := os.Create(filepath.Join(dir, "router.log"))
	must(t, err)
	t.Cleanup(func() {
		if text, err := os.ReadFile(f.Name()); err == nil && t.Failed() {
			t.Logf("what the routers said:\n%s", text)
		}
	})
	return f
}

func (w *world) established(r Router) error {
	states, err := r.Sessions()
	if err != nil {
		return err
	}
	for _, n := range w.Nodes {
		if states[n.V4] != "Established" {
			return fmt.Errorf("sessions: %v", states)
		}
	}
	return nil
}

// hops waits until every router's kernel has these next hops, and says when.
func (w *world) hops(t *testing.T, marks []int, p netip.Prefix, want ...netip.Addr) (at []time.Time) {
	t.Helper()
	for i, watch := range w.watches {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		c, err := watch.Await(ctx, marks[i], p, func(hops []netip.Addr) bool { return slices.Equal(hops, want) })
		cancel()
		must(t, err)
		at = append(at, c.At)
	}
	return at
}

func (w *world) marks() (marks []int) {
	for _, watch := range w.watches {
		marks = append(marks, watch.Mark())
	}
	return marks
}

// TestRoutes: what nodes tell is in the routers' own words and in their
// kernels, of both families over one session; a withdrawal is seen when it
// happens, of one node and of all.
func TestRoutes(t *testing.T) {
	w := build(t)
	told := []Origin{{Prefix: vip4, Communities: []string{"64512:1", "64512:2"}, LargeCommunities: []string{"64512:1:2"}, MED: 7}, {Prefix: vip6}}
	marks := w.marks()
	for _, n := range w.nodes {
		must(t, n.Originate(told...))
	}
	four, six := []netip.Addr{}, []netip.Addr{}
	for _, n := range w.Nodes {
		four, six = append(four, n.V4), append(six, n.V6)
	}
	w.hops(t, marks, vip4, four...)
	w.hops(t, marks, vip6, six...)
	for _, r := range w.towers {
		w.paths(t, r, told[0], four)
		w.paths(t, r, told[1], six)
	}

	for i, n := range w.nodes {
		marks, begin := w.marks(), time.Now()
		must(t, n.Originate())
		for j, at := range w.hops(t, marks, vip4, four[i+1:]...) {
			took := at.Sub(begin).Round(time.Millisecond)
			t.Logf("%T: withdrawn by node%d after %v", w.towers[j], i+1, took)
			if took <= 0 || took > 5*time.Second {
				t.Errorf("%T: a withdrawal %v after it was asked for", w.towers[j], took)
			}
		}
		w.hops(t, marks, vip6, six[i+1:]...)
	}
	for i, r := range w.towers {
		routes, err := r.Routes(false)
		must(t, err)
		if len(routes) != 0 {
			t.Errorf("%T still knows %v", r, routes)
		}
		w.once(t, i)
	}
}

// paths checks what a router says of a route.
func (w *world) paths(t *testing.T, r Router, o Origin, hops []netip.Addr) {
	t.Helper()
	routes, err := r.Routes(o.Prefix.Addr().Is6())
	must(t, err)
	var want []Path
	for _, h := range hops {
		want = append(want, Path{
			NextHop: h, ASPath: fmt.Sprint(nodesASN), Communities: o.Communities, LargeCommunities: o.LargeCommunities, MED: o.MED,
		})
	}
	got := slices.Clone(routes[o.Prefix])
	for i := range got {
		got[i].LocalPref = 0 // BIRD invents one
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%T says of %v:\n%+v\nwant\n%+v", r, o.Prefix, got, want)
	}
}

// once checks that a router's kernel lost no way but those withdrawn.
func (w *world) once(t *testing.T, router int) {
	t.Helper()
	changes, err := w.watches[router].Since(0)
	must(t, err)
	lost := map[netip.Addr]int{}
	for _, c := range changes {
		if c.Prefix == vip4 || c.Prefix == vip6 {
			for _, hop := range c.Lost() {
				lost[hop]++
			}
		}
	}
	for _, n := range w.Nodes {
		if lost[n.V4] != 1 || lost[n.V6] != 1 {
			t.Errorf("%T: ways lost %v, want each once; changes:", w.towers[router], lost)
			for _, c := range changes {
				t.Log(c)
			}
			return
		}
	}
}

// TestKilled: a neighbor that restarts gracefully keeps its routes while it is
// away, one that says goodbye does not; a router that was killed learns all
// anew.
func TestKilled(t *testing.T) {
	w := build(t)
	marks := w.marks()
	for _, n := range w.nodes {
		must(t, n.Originate(Origin{Prefix: vip4}))
	}
	all := []netip.Addr{w.Nodes[0].V4, w.Nodes[1].V4, w.Nodes[2].V4}
	w.hops(t, marks, vip4, all...)

	marks = w.marks()
	must(t, w.nodes[0].KillBGP())
	within(t, 10*time.Second, func() error {
		routes, err := w.towers[0].Routes(false)
		if err == nil && !slices.ContainsFunc(routes[vip4], func(p Path) bool { return p.Stale }) {
			err = fmt.Errorf("no path is stale: %v", routes[vip4])
		}
		return err
	})
	must(t, w.nodes[0].StartBGP())
	within(t, 20*time.Second, func() error { return w.established(w.towers[0]) })
	if changes, err := w.watches[0].Since(marks[0]); err != nil || len(changes) != 0 {
		t.Errorf("FRR: %v, %v while a neighbor restarted", changes, err)
	}

	marks = w.marks()
	must(t, w.towers[0].KillBGP())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := w.watches[0].Await(ctx, marks[0], vip4, func(hops []netip.Addr) bool { return len(hops) == 0 })
	must(t, err)
	must(t, w.towers[0].StartBGP())
	_, err = w.watches[0].Await(ctx, marks[0], vip4, func(hops []netip.Addr) bool { return slices.Equal(hops, all) })
	must(t, err)
	changes, err := w.watches[1].Since(marks[1])
	must(t, err)
	for _, c := range changes {
		// The first node's own return may reach BIRD as late as this.
		if lost := c.Lost(); slices.ContainsFunc(lost, func(a netip.Addr) bool { return a != w.Nodes[0].V4 }) {
			t.Errorf("BIRD: %v while FRR was away", c)
		}
	}
}

// TestPassword: a neighbor has to know it.
func TestPassword(t *testing.T) {
	w := build(t)
	frr, ok := w.towers[0].(*FRR)
	if !ok {
		t.Fatalf("%T is not FRR", w.towers[0])
	}
	must(t, frr.Configure(fmt.Sprintf("neighbor %s password secret", w.Nodes[0].V4)))
	down := func() error {
		states, err := frr.Sessions()
		if err == nil && states[w.Nodes[0].V4] == "Established" {
			err = fmt.Errorf("established without the password")
		}
		return err
	}
	within(t, 15*time.Second, down)
	time.Sleep(3 * time.Second) // it tries again and again
	must(t, down())
	must(t, frr.Configure(fmt.Sprintf("no neighbor %s password", w.Nodes[0].V4)))
	within(t, 20*time.Second, func() error { return w.established(frr) })
}

// TestCommandsFail: what a daemon refuses is an error.
func TestCommandsFail(t *testing.T) {
	w := build(t)
	if err := w.towers[0].(*FRR).Configure("neighbor nonsense"); err == nil {
		t.Error("FRR took nonsense")
	}
	if err := w.nodes[0].Originate(Origin{Prefix: vip4, Communities: []string{"nonsense"}}); err == nil {
		t.Error("BIRD took nonsense")
	}
}

func within(t *testing.T, limit time.Duration, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	must(t, topo.Eventually(ctx, f))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
