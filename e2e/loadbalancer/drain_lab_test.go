//go:build lab

package loadbalancer

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

const (
	// every is the pause between two new connections of one client.
	every = 10 * time.Millisecond
	// atOnce is how far apart a packet on its way and the word of a route's
	// change may be seen here.
	atOnce = 100 * time.Millisecond
)

// load has the client behind each router ask a Service.
func (s *service) load(t *testing.T) (end func() []topo.Request) {
	t.Helper()
	var loads []*topo.Load
	for _, r := range s.w.towers() {
		loads = append(loads, r.client.StartLoad(topo.TCP, every, s.frontends()...))
	}
	end = func() (all []topo.Request) {
		for _, l := range loads {
			all = append(all, l.End()...)
		}
		return all
	}
	t.Cleanup(func() { end() })
	return end
}

// failed are the requests that nobody answered.
func failed(requests []topo.Request) (list []topo.Request) {
	for _, r := range requests {
		if r.Err != nil {
			list = append(list, r)
		}
	}
	return list
}

// none checks that no request failed, and that there was a load to speak of.
func none(t *testing.T, requests []topo.Request, least int) {
	t.Helper()
	lost := failed(requests)
	t.Logf("%d requests, %d lost", len(requests), len(lost))
	for _, r := range lost[:min(5, len(lost))] {
		t.Errorf("lost: %v", r)
	}
	if len(requests) < least {
		t.Errorf("%d requests are no load to speak of, want %d", len(requests), least)
	}
}

// TestDrain: a node is drained under load. Its routes go; what it has it ends.
func TestDrain(t *testing.T) {
	w := enter(t)
	// With routers that keep a connection where it is, as resilient hashing does,
	// all depends on the node.
	t.Run("routers keep connections", func(t *testing.T) {
		for _, r := range w.towers() {
			undo, err := w.Stick(r.Host)
			suite.Must(t, err)
			t.Cleanup(func() { suite.Must(t, undo()) })
		}
		all, _ := w.drains(t, 10)
		none(t, all, 10*200)
	})
	// With routers that hash anew, connections that are open at that moment move
	// to nodes that know nothing of them, from those that stay as well: no node
	// can do anything for them. None may be lost at any other time.
	t.Run("routers hash anew", func(t *testing.T) {
		all, changes := w.drains(t, rounds(3, 10))
		lost := failed(all)
		t.Logf("%d requests, %d lost", len(all), len(lost))
		lost = slices.DeleteFunc(lost, func(r topo.Request) bool { return during(r, changes) })
		for _, r := range lost[:min(5, len(lost))] {
			t.Errorf("%d lost although no route changed: %v", len(lost), r)
		}
	})
}

// during reports whether a route changed while a request was under way.
func during(r topo.Request, changes []topo.RouteChange) bool {
	for _, c := range changes {
		if c.At.After(r.Begin.Add(-atOnce)) && c.At.Before(r.End.Add(atOnce)) {
			return true
		}
	}
	return false
}

// drains drains the nodes in turn, each time under load of a Service of its own,
// and returns what became of requests and which routes changed.
func (w *world) drains(t *testing.T, times int) (all []topo.Request, changes []topo.RouteChange) {
	t.Helper()
	for i := range times {
		t.Run(fmt.Sprintf("drain %d", i+1), func(t *testing.T) {
			number := i%len(w.nodes) + 1
			s := w.serve(t, "drained", w.ready(1, 2, 3), nil)
			s.told(t, w.nodes...)
			marks := w.marks()
			end := s.load(t)
			time.Sleep(500 * time.Millisecond)
			w.editNode(t, w.nodes[number-1], drained("true"))
			var stay []*node
			for _, n := range w.nodes {
				if n != w.nodes[number-1] {
					stay = append(stay, n)
				}
			}
			s.told(t, stay...)
			time.Sleep(time.Second)
			all = append(all, end()...)
			for r, mark := range marks {
				since, err := r.Since(mark)
				suite.Must(t, err)
				changes = append(changes, since...)
			}
		})
	}
	return all, changes
}
