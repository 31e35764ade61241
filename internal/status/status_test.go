package status

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/internal/reconcile"
)

var t0 = time.Unix(1_000_000, 0)

func good() reconcile.Status {
	return reconcile.Status{Name: "ipvs", Listed: true, Synced: true, Wanted: 3, Present: 3}
}

func TestHealthComesFromWhatTheTablesHold(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*reconcile.Status)
		want   string // "" when healthy
	}{
		"as wanted": {func(*reconcile.Status) {}, ""},
		"idle for hours": {func(s *reconcile.Status) {
			s.LastApply = t0.Add(-5 * time.Hour)
		}, ""},
		"a change that has just failed": {func(s *reconcile.Status) {
			s.FailingCount, s.FailingSince = 1, t0.Add(-10*time.Second)
			s.Failing = []reconcile.Failure{{Key: "k", Error: "refused"}}
		}, ""},
		"a change that fails for longer than the limit": {func(s *reconcile.Status) {
			s.FailingCount, s.FailingSince = 2, t0.Add(-61*time.Second)
			s.Failing = []reconcile.Failure{{Key: "k", Error: "refused"}}
		}, "ipvs: 2 failing, first k: refused, for 1m1s"},
		"a kernel call that never returns": {func(s *reconcile.Status) {
			s.BusySince = t0.Add(-2 * time.Minute)
		}, "ipvs: a kernel call has not returned, for 2m0s"},
		"destinations that drain": {func(s *reconcile.Status) { s.Dels, s.Deferred = 2, 2 }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := good()
			c.change(&s)
			h := Health{Loops: func() []reconcile.Status { return []reconcile.Status{s, good()} }, Limit: time.Minute}
			r := h.Check(t0)
			if got := strings.Join(r.Reasons, "; "); got != c.want || r.Healthy != (c.want == "") {
				t.Errorf("healthy %v: %q, want %q", r.Healthy, got, c.want)
			}
		})
	}
}

func TestReady(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*reconcile.Status)
		want   string
	}{
		"as wanted":      {func(*reconcile.Status) {}, ""},
		"not listed":     {func(s *reconcile.Status) { s.Listed = false }, "ipvs: not listed yet"},
		"not synced":     {func(s *reconcile.Status) { s.Synced = false }, "ipvs: waiting for the sources"},
		"work to do":     {func(s *reconcile.Status) { s.Puts, s.Dels, s.Deferred = 1, 3, 2 }, "ipvs: 1 to write, 1 to delete"},
		"only draining":  {func(s *reconcile.Status) { s.Dels, s.Deferred = 2, 2 }, ""},
		"never mind why": {func(s *reconcile.Status) { s.Drift = 7 }, ""},
	} {
		s := good()
		c.change(&s)
		if ready, reason := Ready([]reconcile.Status{s}); reason != c.want || ready != (c.want == "") {
			t.Errorf("%s: ready %v %q, want %q", name, ready, reason, c.want)
		}
	}
}

func get(t *testing.T, h http.Handler, path string) (code int, body string) {
	t.Helper()
	server := httptest.NewServer(h)
	defer server.Close()
	resp, err := http.Get(server.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestHealthOverHTTP(t *testing.T) {
	s := good()
	h := HealthHandler(Health{Loops: func() []reconcile.Status { return []reconcile.Status{s} }, Limit: time.Minute})
	if code, body := get(t, h, "/healthz"); code != http.StatusOK || !strings.Contains(body, `"healthy":true`) {
		t.Errorf("healthy: %d %s", code, body)
	}
	s.BusySince = time.Now().Add(-time.Hour)
	code, body := get(t, h, "/livez")
	var r Report
	if err := json.Unmarshal([]byte(body), &r); err != nil || code != http.StatusServiceUnavailable || len(r.Reasons) != 1 {
		t.Errorf("unhealthy: %d %s (%v)", code, body, err)
	}
	if code, _ := get(t, h, "/readyz"); code != http.StatusOK {
		t.Errorf("ready: %d", code)
	}
}

func TestMetricsAndState(t *testing.T) {
	s := good()
	s.Drift, s.FailingCount = 4, 22
	s.Failing = []reconcile.Failure{{Key: "10.96.0.1:80/TCP", Error: "no such scheduler", Since: time.Now().Add(-3 * time.Second), Tries: 2}}
	h := MetricsHandler(Metrics{
		Loops:   func() []reconcile.Status { return []reconcile.Status{s} },
		Calls:   func() []Calls { return []Calls{{Table: "ipvs", Commands: 17}} },
		Version: "v0",
	})
	_, metrics := get(t, h, "/metrics")
	for _, want := range []string{
		`sluice_table_keys{state="wanted",table="ipvs"} 3`,
		`sluice_table_drift_total{table="ipvs"} 4`,
		`sluice_kernel_commands_total{table="ipvs"} 17`,
		`sluice_build_info{version="v0"} 1`,
		`go_goroutines `,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	_, state := get(t, h, "/state")
	want := "TABLE  WANTED  PRESENT  DIRTY  DRAINING  FAILING  DRIFT  SYNCED  LAST APPLIED\n" +
		"ipvs   3       3        0      0         22       4      true    never\n" +
		"ipvs: 10.96.0.1:80/TCP: no such scheduler (2 tries, for 3s)\n" +
		"ipvs: and 21 more\n"
	if state != want {
		t.Errorf("state:\n%swant:\n%s", state, want)
	}
}
