package engine_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice.dev/sluice/internal/engine"
	"sluice.dev/sluice/internal/model"
)

// balanced is a Service that load balancers ask for.
func balanced(s *model.Service) {
	s.ExternalLocal, s.HealthPort, s.Ports[0].NodePort = true, 32000, 30080
}

// TestANewHealthCheckWaitsForTheTables: a load balancer that heard 200 sends
// clients at once. One that is answered already tells of a change at once.
func TestANewHealthCheckWaitsForTheTables(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.fail(refuse("vip add 10.96.0.1"))
		r := w.working(t, node1(), service("web", "10.96.0.1", balanced), endpoints("web", "10.1.1.1@node1"))
		expect := func(when, want string) {
			t.Helper()
			synctest.Wait()
			if got := strings.TrimSpace(w.health()); got != want {
				t.Errorf("%s: %q, want %q", when, got, want)
			}
		}
		expect("while an address cannot be bound", "")
		w.fail(nil)
		time.Sleep(time.Minute)
		expect("when everything stands", "192.0.2.10:32000 200 default/web 1")
		w.fail(refuse("ipvs change"))
		r.tell(endpoints("web", "10.1.2.1@node2"))
		expect("the endpoint has gone, and its destination cannot be drained", "192.0.2.10:32000 503 default/web 0")
	})
}

// TestProgrammingLatency: it is measured when every table has what a change of
// endpoints added, once, and not for what happened before the start.
func TestProgrammingLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var said []string
		say := func(what string) func(engine.Owner) {
			return func(o engine.Owner) { said = append(said, what+" "+o.Name.Name) }
		}
		at := func(age time.Duration, addrs ...string) model.EndpointSlice {
			s := endpoints("web", addrs...)
			s.Triggered = time.Now().Add(-age)
			return s
		}
		r := w.start(t, conditions{sources: 1, families: []model.Family{model.IPv4}, hooks: engine.Hooks{
			Queued: say("queued"), Synced: say("synced"),
			Programmed: func(o engine.Owner, took time.Duration) {
				said = append(said, fmt.Sprint("programmed ", o.Name.Name, " ", took))
			},
		}})
		expect := func(when string, want ...string) {
			t.Helper()
			synctest.Wait()
			if !slices.Equal(said, want) {
				t.Errorf("%s: %q, want %q", when, said, want)
			}
			said = nil
		}
		r.tell(node1(), service("web", "10.96.0.1"), at(time.Hour, "10.1.2.1"), synced)
		expect("what happened before the start", "queued web", "synced web")
		time.Sleep(time.Minute)
		r.tell(at(2*time.Second, "10.1.2.1", "10.1.2.2"))
		expect("an endpoint comes", "queued web", "programmed web 2s", "synced web")

		w.fail(refuse("vip add 10.96.0.2"))
		slow := endpoints("slow", "10.1.2.9")
		slow.Triggered = time.Now()
		r.tell(service("slow", "10.96.0.2"), slow)
		time.Sleep(100 * time.Millisecond)
		expect("an address cannot be bound", "queued slow")
		w.fail(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(said) != 2 || !strings.HasPrefix(said[0], "programmed slow 250ms") || said[1] != "synced slow" {
			t.Errorf("it can: %q", said)
		}
	})
}
