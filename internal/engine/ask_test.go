package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice.dev/sluice/internal/engine"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/ipvs/ipvstest"
)

// stages is how far a Service has come: a line for each frontend, and for each
// health check.
func (r *run) stages(t *testing.T, service string) string {
	t.Helper()
	s, err := r.Service(t.Context(), name(service))
	if err != nil {
		return err.Error() + "\n"
	}
	var b strings.Builder
	for i, f := range s.Frontends {
		x := s.Explained.Frontends[i]
		fmt.Fprintf(&b, "%s %s: %s", x.Kind, x.Addr, f.Progress)
		if f.Why != "" {
			fmt.Fprintf(&b, " (%s)", f.Why)
		}
		for _, l := range f.Leaving {
			fmt.Fprintf(&b, " -%s", l)
		}
		b.WriteString("\n")
	}
	for i, h := range s.Health {
		fmt.Fprintf(&b, "health %s: %s", s.Explained.Health[i].Addr, h.Progress)
		if h.Why != "" {
			fmt.Fprintf(&b, " (%s)", h.Why)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// TestHowFarAServiceHasCome: of each frontend by itself, whatever becomes of the
// others, with the table's own error.
func TestHowFarAServiceHasCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.working(t, node1(), service("web", "10.96.0.1"), endpoints("web", "10.1.2.1", "10.1.2.2"))
		expect := func(when, service, want string) {
			t.Helper()
			synctest.Wait()
			if got := r.stages(t, service); got != unindent(want) {
				t.Errorf("%s:\n%swant\n%s", when, got, unindent(want))
			}
		}
		expect("all is well", "web", "ClusterIP 10.96.0.1:80: programmed")
		expect("no such Service", "wob", "Service default/wob: "+engine.ErrNoService.Error())

		w.fail(refuse("vip add 203.0.113.7"))
		r.tell(service("web", "10.96.0.1", external("203.0.113.7")))
		expect("one address is refused", "web", `
			ClusterIP 10.96.0.1:80: programmed
			ExternalIP 203.0.113.7:80: failing (vip: 1 of 1 fail, such as 203.0.113.7: add address 203.0.113.7: fault (1 tries, since 2000-01-01T00:00:00Z))`)
		w.fail(nil)
		time.Sleep(time.Minute)
		expect("no more", "web", `
			ClusterIP 10.96.0.1:80: programmed
			ExternalIP 203.0.113.7:80: programmed`)

		w.fail(refuse("ipvs change TCP 203.0.113.7:80"))
		r.tell(service("web", "10.96.0.1", external("203.0.113.7"), func(s *model.Service) { s.Scheduler = "lc" }))
		synctest.Wait()
		got := r.stages(t, "web")
		if !strings.Contains(got, "ClusterIP 10.96.0.1:80: programmed\n") || !strings.Contains(got, "ExternalIP 203.0.113.7:80: failing (ipvs: 1 of 3 fail, such as TCP 203.0.113.7:80: ") {
			t.Errorf("what is there cannot be changed:\n%s", got)
		}
		w.fail(nil)
		time.Sleep(time.Minute)

		w.fail(refuse("filter add SLUICE-EXTERNAL 203.0.113.8"))
		r.tell(service("web", "10.96.0.1", external("203.0.113.7", "203.0.113.8")))
		synctest.Wait()
		got = r.stages(t, "web")
		if !strings.Contains(got, "ExternalIP 203.0.113.7:80: programmed\n") ||
			!strings.Contains(got, "ExternalIP 203.0.113.8:80: failing (netfilter: ") || !strings.Contains(got, "member 203.0.113.8,tcp:80: ") {
			t.Errorf("a member of a set is refused, and the tables above wait:\n%s", got)
		}
	})
}

// TestStagesWithoutATable: what is not asked of any table.
func TestStagesWithoutATable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.start(t, conditions{sources: 1, families: []model.Family{model.IPv4}})
		both := func(s *model.Service) { s.ClusterIPs = addrs("10.96.0.1", "fd00::1"); s.HealthPort = 31000 }
		r.tell(node1(), service("web", "10.96.0.1", both), service("young", "10.96.0.2", created(2000), external("10.96.0.1")))
		synctest.Wait()
		const waits = "sources are to tell all they know first, and what all Services depend on is programmed"
		if got, want := r.stages(t, "web"), unindent(`
			ClusterIP 10.96.0.1:80: waiting (`+waits+`)
			ClusterIP [fd00::1]:80: unserved (this node's kernel does not serve IPv6)
			health 192.0.2.10:31000: waiting (`+waits+`)
			health [fd00:a::10]:31000: unserved (this node's kernel does not serve IPv6)`); got != want {
			t.Errorf("before all is told:\n%swant\n%s", got, want)
		}
		r.tell(synced)
		synctest.Wait()
		if got := r.stages(t, "web"); !strings.Contains(got, "ClusterIP 10.96.0.1:80: programmed\n") || !strings.Contains(got, "health 192.0.2.10:31000: programmed\n") {
			t.Errorf("when it is:\n%s", got)
		}
		if got := r.stages(t, "young"); !strings.Contains(got, "ExternalIP 10.96.0.1:80: withheld (ExternalIP 10.96.0.1:80 TCP already belongs to Service default/web, which is older; ") {
			t.Errorf("what another Service has:\n%s", got)
		}
	})
}

// TestAHealthCheckThatCannotListen is a state of its own.
func TestAHealthCheckThatCannotListen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.fail(refuse("health listen"))
		r := w.working(t, node1(), service("web", "10.96.0.1", func(s *model.Service) { s.HealthPort = 31000 }))
		got := r.stages(t, "web")
		if !strings.Contains(got, "ClusterIP 10.96.0.1:80: programmed\nhealth 192.0.2.10:31000: failing (healthcheck: 1 of 1 fail") {
			t.Errorf("%s", got)
		}
	})
}

// TestWhatDrains: an endpoint that is not wanted any more is told of until its
// connections have ended, and with the Service's last one also then.
func TestWhatDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.working(t, node1(), service("web", "10.96.0.1"), endpoints("web", "10.1.2.1", "10.1.2.2"))
		vs := ipvs.VirtualServer{Addr: netip.MustParseAddrPort("10.96.0.1:80"), Protocol: model.TCP}
		w.table.Connect(ipvs.Key{VirtualServer: vs, RealServer: netip.MustParseAddrPort("10.1.2.1:8080")}, 3)
		r.tell(endpoints("web", "10.1.2.2"))
		time.Sleep(10 * time.Second)
		if got, want := r.stages(t, "web"), "ClusterIP 10.96.0.1:80: programmed -10.1.2.1:8080\n"; got != want {
			t.Errorf("%swant %s", got, want)
		}
		r.tell(endpoints("web"))
		time.Sleep(10 * time.Second)
		if got, want := r.stages(t, "web"), "ClusterIP 10.96.0.1:80: programmed -10.1.2.1:8080\n"; got != want {
			t.Errorf("without an endpoint: %swant %s", got, want)
		}
	})
}

// TestALoopThatHangs: the others answer, and the engine goes on.
func TestALoopThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.working(t, node1(), service("web", "10.96.0.1"), endpoints("web", "10.1.2.1"))
		release := make(chan struct{})
		hangs := sync.OnceFunc(func() { <-release })
		w.table.FailBefore(func(c ipvstest.Call) error {
			if c.Verb == "create" {
				hangs()
			}
			return nil
		})
		r.tell(endpoints("web", "10.1.2.1", "10.1.2.2"))
		began := time.Now()
		got := r.stages(t, "web")
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("the answer came after %v", took)
		}
		if !strings.HasPrefix(got, "ClusterIP 10.96.0.1:80: unknown (table ipvs: no answer in time: ") || !strings.Contains(got, "a kernel call has not returned since") {
			t.Errorf("%s", got)
		}
		close(release)
		synctest.Wait()
		if got := r.stages(t, "web"); got != "ClusterIP 10.96.0.1:80: programmed\n" {
			t.Errorf("when it is back: %s", got)
		}
	})
}

// TestLists: of the Services that are chosen, in order, and their names.
func TestLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		facts := []any{node1()}
		for i := range 300 {
			facts = append(facts, service(fmt.Sprintf("s%03d", i), fmt.Sprintf("10.96.%d.%d", 1+i/200, 1+i%200)))
		}
		r := w.working(t, append(facts, endpoints("s007", "10.1.2.1", "10.1.2.2@node1"))...)
		all, err := r.Services(t.Context(), func(model.Name) bool { return true })
		if err != nil || len(all) != 300 || all[0].Service.Name != name("s000") || all[299].Service.Name != name("s299") {
			t.Errorf("%d Services, %v", len(all), err)
		}
		w.fail(refuse("ipvs create"))
		r.tell(endpoints("s008", "10.1.2.3"), service("late", "10.96.9.9"))
		synctest.Wait()
		some, err := r.Services(t.Context(), func(n model.Name) bool { return n.Name == "s007" || n.Name == "s008" || n.Name == "late" })
		var got strings.Builder
		for _, s := range some {
			fmt.Fprintf(&got, "%s: %d of %d, rising %v, waiting %v\n", s.Service.Name.Name, s.Used, s.Told, s.Rising, s.Waiting)
		}
		const want = "late: 0 of 0, rising [], waiting false\ns007: 2 of 2, rising [], waiting false\ns008: 1 of 1, rising [IPv4], waiting false\n"
		if err != nil || got.String() != want {
			t.Errorf("%v\n%swant\n%s", err, got.String(), want)
		}
		names, err := r.Names(t.Context())
		if err != nil || len(names) != 301 || len(names[8].Endpoints) != 2 || names[8].Service != name("s007") {
			t.Errorf("%d names, %v", len(names), err)
		}
	})
}

// TestAnEngineThatHasEnded answers nobody, and keeps nobody waiting.
func TestAnEngineThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.working(t, node1(), service("web", "10.96.0.1"))
		r.stop()
		never := func(*model.Store) { t.Error("it answers") }
		if err := r.Ask(t.Context(), never); !errors.Is(err, reconcile.ErrEnded) {
			t.Errorf("%v", err)
		}
		if _, err := r.Services(t.Context(), func(model.Name) bool { return true }); !errors.Is(err, reconcile.ErrEnded) {
			t.Errorf("a list: %v", err)
		}
	})
}

// TestAskingWhileEverythingChanges is for the race detector: many ask, some give
// up, while Services and endpoints come and go.
func TestAskingWhileEverythingChanges(t *testing.T) {
	w := newWorld()
	r := w.start(t, conditions{sources: 1})
	r.tell(node1(), synced)
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	var world sync.WaitGroup
	world.Go(func() {
		for i := range 200 {
			n := fmt.Sprint("s", i%5)
			r.tell(service(n, fmt.Sprint("10.96.0.", 1+i%5), external(fmt.Sprint("203.0.113.", i%3))), endpoints(n, fmt.Sprint("10.1.2.", 1+i%7)))
			if i%4 == 0 {
				r.tell(model.ServiceKey{Name: name(n)})
			}
		}
	})
	for i := range 8 {
		world.Go(func() {
			for j := range 20 {
				asking, cancel := context.WithCancel(ctx)
				if j%4 == i%4 {
					go cancel()
				}
				s, err := r.Service(asking, name(fmt.Sprint("s", j%5)))
				if err == nil && len(s.Explained.Frontends) != len(s.Frontends) {
					t.Errorf("%d frontends, %d states", len(s.Explained.Frontends), len(s.Frontends))
				}
				if err != nil && !errors.Is(err, engine.ErrNoService) && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				if _, err := r.Services(asking, func(model.Name) bool { return true }); err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				if _, err := r.Names(asking); err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	world.Wait()
}
