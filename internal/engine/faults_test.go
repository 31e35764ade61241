package engine_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/ipvs"
)

// destination is a destination of a virtual server of TCP.
func destination(t *testing.T, vs, rs string) ipvs.Key {
	t.Helper()
	k, err := serverKey("TCP", vs, rs)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestADrainHoldsUpNothingElse: while a virtual server that a Service has lost
// waits for its connections, what the Service gets meanwhile comes at once.
func TestADrainHoldsUpNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		port := func(n uint16, more ...string) model.Service {
			return service("web", "10.96.0.1", external(more...), func(s *model.Service) { s.Ports[0].NodePort = n })
		}
		r := w.working(t, node1(), port(30080), endpoints("web", "10.1.2.1"))
		w.table.Connect(destination(t, "192.0.2.10:30080", "10.1.2.1:8080"), 1)
		r.tell(port(30081))
		time.Sleep(5 * time.Second)
		r.tell(port(30081, "198.51.100.1"))
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := w.state(); !strings.Contains(got, "TCP 192.0.2.10:30080 rr\n-> 10.1.2.1:8080 Masq 0") || !strings.Contains(got, "address 198.51.100.1") {
			t.Errorf("while the old NodePort's connection runs:\n%s", got)
		}
		w.orderly(t, "drain")
	})
}

// TestARestartLeavesRulesAlone, however long the sources take, and whichever
// Services are urgent.
func TestARestartLeavesRulesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		node := node1()
		node.PodCIDRs = prefixes("10.1.1.0/24", "fd00:1::/64")
		local := func(s *model.Service) { s.ExternalLocal = true }
		facts := []any{
			node, service("web", "10.96.0.1", external("198.51.100.1"), local), endpoints("web", "10.1.2.1@node1"),
			service("dns", "10.96.0.10", external("198.51.100.2"), local, func(s *model.Service) { s.Urgent = true }), endpoints("dns", "10.1.2.2@node1"),
		}
		run := func(pause time.Duration) {
			r := w.start(t, conditions{sources: 1, nodeCIDR: true})
			time.Sleep(pause)
			r.tell(facts...)
			r.tell(synced)
			synctest.Wait()
			r.stop()
		}
		run(0)
		for _, pause := range []time.Duration{0, 100 * time.Millisecond, 3 * time.Second} {
			if _, log := w.since(func() { run(pause) }); len(log) != 0 {
				t.Errorf("facts %v after the start: the restart writes\n%s", pause, strings.Join(log, "\n"))
			}
		}
	})
}

// TestARestartRefusesBeforeItDeletes: a Service lost its endpoints while no
// engine ran. Its virtual server stays until its frontend is refused, or
// whatever listens on all addresses of the node would answer in its place.
func TestARestartRefusesBeforeItDeletes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.working(t, node1(), service("web", "10.96.0.1"), endpoints("web", "10.1.2.1")).stop()
		w.fail(refuse("filter add SLUICE-REJECT"))
		w.working(t, node1(), service("web", "10.96.0.1"))
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := w.state(); !strings.Contains(got, "TCP 10.96.0.1:80") {
			t.Errorf("it is not refused, and has no virtual server any more:\n%s", got)
		}
		w.fail(nil)
		time.Sleep(time.Minute)
		w.shows(t, "mended", `
			CLUSTER-IP 10.96.0.1,tcp:80
			REJECT 10.96.0.1,tcp:80
			VIPS 10.96.0.1
			address 10.96.0.1
			local 10.96.0.1 src 192.0.2.10`)
	})
}

// TestAFrontendThatChangesHandsStaysOurs: it goes to a Service of another
// policy, whose set cannot be written to. What is in no set of ours is nobody's
// after the next restart.
func TestAFrontendThatChangesHandsStaysOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		older := service("older", "10.96.0.1", external("198.51.100.1"), created(1), func(s *model.Service) { s.ExternalLocal = true })
		younger := service("younger", "10.96.0.2", external("198.51.100.1"), created(2))
		r := w.working(t, node1(), younger, endpoints("younger", "10.1.2.2"), endpoints("older", "10.1.2.1@node1"))
		w.fail(refuse("filter add SLUICE-LOCAL"))
		r.tell(older)
		time.Sleep(time.Minute)
		w.orderly(t, "changing hands")
		r.stop()
		w.fail(nil)
		w.working(t, node1())
		if got := w.state(); strings.Contains(got, "TCP 198.51.100.1:80") {
			t.Errorf("all Services are gone:\n%s", got)
		}
	})
}

// TestTwoRecordsOfOneAddress that differ in nothing but their hints: which of
// them counts is not chance.
func TestTwoRecordsOfOneAddress(t *testing.T) {
	near, far := endpoints("web", "10.1.2.1"), endpoints("web", "10.1.2.1", "10.1.2.2")
	far.Name = name("web-y")
	near.Endpoints[0].ForNodes = []string{"node1"}
	for i := range far.Endpoints {
		far.Endpoints[i].ForNodes = []string{"node2"}
	}
	h := history{"node": node1(), "service": service("web", "10.96.0.1"), "near": near, "far": far}
	var seen []string
	for range 50 {
		if s := h.state(); !slices.Contains(seen, s) {
			seen = append(seen, s)
		}
	}
	if len(seen) != 1 {
		t.Errorf("%d different outcomes:\n%s", len(seen), strings.Join(seen, "\n"))
	}
}

// TestUrgentServicesComeFirst when a node starts: nothing of another Service is
// written before all of theirs is, unless theirs fails for longer than anybody
// should wait.
func TestUrgentServicesComeFirst(t *testing.T) {
	cold := func(t *testing.T, fault string) []string {
		t.Helper()
		w := newWorld()
		if fault != "" {
			w.fail(refuse(fault))
		}
		facts := []any{node1()}
		for i := range 100 {
			n, ip := fmt.Sprintf("s%d", i), fmt.Sprintf("10.96.1.%d", i)
			svc := service(n, ip, func(s *model.Service) {
				if s.Urgent = i%33 == 7; s.Urgent {
					s.ClusterIPs = addrs(fmt.Sprintf("10.96.0.%d", i))
				}
			})
			facts = append(facts, svc, endpoints(n, fmt.Sprintf("10.1.2.%d", i)))
		}
		_, log := w.since(func() {
			w.working(t, facts...)
			time.Sleep(2 * time.Second)
		})
		w.orderly(t, "cold start")
		return log
	}
	of := func(log []string, ip string) (first, last, n int) {
		first = -1
		for i, line := range log {
			if strings.Contains(line, ip) {
				if first < 0 {
					first = i
				}
				last, n = i, n+1
			}
		}
		return first, last, n
	}
	synctest.Test(t, func(t *testing.T) {
		log := cold(t, "")
		first, _, others := of(log, " 10.96.1.")
		_, last, urgent := of(log, " 10.96.0.")
		if urgent == 0 || others == 0 || first < last {
			t.Errorf("%d writes for urgent Services, the last at %d, and %d for others, the first at %d", urgent, last, others, first)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		if _, _, others := of(cold(t, "ipvs create TCP 10.96.0.7:80"), " 10.96.1."); others == 0 {
			t.Error("one urgent Service that fails holds up all others")
		}
	})
}

// TestTheNodesSetsComeFirst, also when it is the Node that says where pods are:
// nothing is put into a set that is not there.
func TestTheNodesSetsComeFirst(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			node := node1()
			node.PodCIDRs = prefixes("10.1.1.0/24")
			r := w.start(t, conditions{sources: 1, nodeCIDR: true})
			r.tell(node, service("web", "10.96.0.1"), endpoints("web", "10.1.2.1"), synced)
			synctest.Wait()
			for _, l := range r.Status() {
				for _, f := range l.Failing {
					t.Errorf("%s: %s", f.Key, f.Error)
				}
			}
		})
		if t.Failed() {
			return
		}
	}
}
