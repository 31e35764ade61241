package status

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/internal/reconcile"
)

// failing is a table with a change that has failed to reach it for so long.
func failing(name string, now time.Time, long time.Duration) reconcile.Status {
	return reconcile.Status{
		Name: name, Listed: true, Synced: true, Puts: 1,
		FailingCount: 1, FailingSince: now.Add(-long),
		Failing: []reconcile.Failure{{Key: "k", Error: "refused"}},
	}
}

func TestHealthJudgesTheNamedTables(t *testing.T) {
	tables := []string{"ipvs", "vip"}
	blocked := failing("healthcheck", t0, time.Hour)
	for name, c := range map[string]struct {
		loops []reconcile.Status
		names []string
		want  string
	}{
		"all as wanted":                        {[]reconcile.Status{good(), {Name: "vip"}}, tables, ""},
		"a foreign process on a health port":   {[]reconcile.Status{good(), {Name: "vip"}, blocked}, tables, ""},
		"the same, where everything is judged": {[]reconcile.Status{good(), blocked}, nil, "healthcheck: 1 failing, first k: refused, for 1h0m0s"},
		"a table of the kernel fails":          {[]reconcile.Status{good(), failing("vip", t0, 2*time.Minute), blocked}, tables, "vip: 1 failing, first k: refused, for 2m0s"},
		"a name that no loop has":              {[]reconcile.Status{good(), blocked}, tables, "vip: no such table"},
	} {
		t.Run(name, func(t *testing.T) {
			h := Health{Loops: func() []reconcile.Status { return c.loops }, Tables: c.names, Limit: time.Minute}
			r := h.Check(t0)
			if got := strings.Join(r.Reasons, "; "); got != c.want || r.Healthy != (c.want == "") || h.Healthy(t0) != r.Healthy {
				t.Errorf("healthy %v: %q, want %q", r.Healthy, got, c.want)
			}
		})
	}
}

func TestReadyLooksAtTheNamedTables(t *testing.T) {
	loops := []reconcile.Status{good(), failing("healthcheck", t0, time.Hour)}
	h := Health{Loops: func() []reconcile.Status { return loops }, Tables: []string{"ipvs"}}
	if code, body := get(t, HealthHandler(h), "/readyz"); code != http.StatusOK {
		t.Errorf("%d %s", code, body)
	}
	h.Tables = []string{"ipvs", "vip"}
	if code, body := get(t, HealthHandler(h), "/readyz"); code != http.StatusServiceUnavailable || body != "vip: no such table\n" {
		t.Errorf("%d %s", code, body)
	}
}

// TestEligibility: a node that load balancers are to leave answers 503 to them
// and nobody else (KEP-3836).
func TestEligibility(t *testing.T) {
	const tables = `"status":{"ipvs":{"lastUpdated":"T","healthy":true}}`
	const bad = `"status":{"ipvs":{"lastUpdated":"T","healthy":false}},"reasons":["ipvs: 1 failing, first k: refused, for 1h0m0s"`
	for name, c := range map[string]struct {
		leaving        string
		fails          bool
		healthz, livez int
		health, live   string // bodies, T for every time
	}{
		"all is well": {
			"", false, http.StatusOK, http.StatusOK,
			`{"lastUpdated":"T","currentTime":"T","nodeEligible":true,"healthy":true,` + tables + `}`,
			`{"lastUpdated":"T","currentTime":"T","healthy":true,` + tables + `}`,
		},
		"the node is being deleted": {
			"it is being deleted", false, http.StatusServiceUnavailable, http.StatusOK,
			`{"lastUpdated":"T","currentTime":"T","nodeEligible":false,"healthy":true,` + tables + `,"reasons":["node: it is being deleted"]}`,
			`{"lastUpdated":"T","currentTime":"T","healthy":true,` + tables + `}`,
		},
		"a table fails": {
			"", true, http.StatusServiceUnavailable, http.StatusServiceUnavailable,
			`{"lastUpdated":"T","currentTime":"T","nodeEligible":true,"healthy":false,` + bad + `]}`,
			`{"lastUpdated":"T","currentTime":"T","healthy":false,` + bad + `]}`,
		},
		"both": {
			"tainted", true, http.StatusServiceUnavailable, http.StatusServiceUnavailable,
			`{"lastUpdated":"T","currentTime":"T","nodeEligible":false,"healthy":false,` + bad + `,"node: tainted"]}`,
			`{"lastUpdated":"T","currentTime":"T","healthy":false,` + bad + `]}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := good()
			if c.fails {
				s = failing("ipvs", time.Now(), time.Hour)
			}
			h := HealthHandler(Health{
				Loops: func() []reconcile.Status { return []reconcile.Status{s} }, Limit: time.Minute,
				Node: func() string { return c.leaving },
			})
			for path, want := range map[string]struct {
				code int
				body string
			}{"/healthz": {c.healthz, c.health}, "/livez": {c.livez, c.live}} {
				code, body := get(t, h, path)
				if got := timeless(t, body); code != want.code || got != want.body {
					t.Errorf("%s: %d\n%s\nwant %d\n%s", path, code, got, want.code, want.body)
				}
			}
		})
	}
}

// timeless is a report with T for every time.
func timeless(t *testing.T, body string) string {
	t.Helper()
	var r Report
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	times := []time.Time{r.LastUpdated, r.CurrentTime}
	for _, s := range r.Status {
		times = append(times, s.LastUpdated)
	}
	for _, at := range times {
		text, _ := at.MarshalText()
		body = strings.ReplaceAll(body, string(text), "T")
	}
	return strings.TrimSuffix(body, "\n")
}

// TestLastUpdated: now for what is well, else since when it is not.
func TestLastUpdated(t *testing.T) {
	loops := []reconcile.Status{good(), failing("vip", t0, 2*time.Minute), failing("netfilter", t0, time.Hour)}
	r := Health{Loops: func() []reconcile.Status { return loops }, Limit: time.Minute}.Check(t0)
	want := []time.Time{t0.Add(-time.Hour), t0, t0.Add(-2 * time.Minute), t0.Add(-time.Hour)}
	got := []time.Time{r.LastUpdated, r.Status["ipvs"].LastUpdated, r.Status["vip"].LastUpdated, r.Status["netfilter"].LastUpdated}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestNodeIsEligibleUnlessSomebodySaysOtherwise(t *testing.T) {
	h := HealthHandler(Health{Loops: func() []reconcile.Status { return []reconcile.Status{good()} }, Limit: time.Minute})
	if code, body := get(t, h, "/healthz"); code != http.StatusOK || !strings.Contains(body, `"nodeEligible":true`) {
		t.Errorf("%d %s", code, body)
	}
}

func TestAsWanted(t *testing.T) {
	starting, waiting := good(), good()
	starting.Listed, waiting.Synced = false, false
	busy := good()
	busy.BusySince = t0.Add(-3 * time.Second)
	for name, c := range map[string]struct {
		loops []reconcile.Status
		want  time.Time
	}{
		"as wanted, idle for hours":  {[]reconcile.Status{good()}, t0},
		"a change is missing":        {[]reconcile.Status{good(), failing("vip", t0, time.Second)}, t0.Add(-time.Second)},
		"a write is under way":       {[]reconcile.Status{busy, good()}, t0.Add(-3 * time.Second)},
		"not listed":                 {[]reconcile.Status{good(), starting}, time.Time{}},
		"sources have not told all":  {[]reconcile.Status{good(), waiting}, time.Time{}},
		"the oldest of two failures": {[]reconcile.Status{failing("a", t0, time.Minute), failing("b", t0, time.Hour)}, t0.Add(-time.Hour)},
	} {
		h := Health{Loops: func() []reconcile.Status { return c.loops }}
		if got := h.asWanted(t0); !got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
