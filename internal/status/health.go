package status

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"sluice.dev/sluice/internal/reconcile"
)

// Health judges the loops.
type Health struct {
	// Loops are the tables' loops; read at every request.
	Loops func() []reconcile.Status
	// Limit is how long a wanted change may fail to reach the kernel, or a
	// kernel call take, before the node is unhealthy.
	Limit time.Duration
}

// Report is the JSON body of /healthz and /livez. Field names are kube-proxy's
// where the meaning is the same.
type Report struct {
	LastUpdated time.Time `json:"lastUpdated"` // now when healthy, else when it began to fail
	CurrentTime time.Time `json:"currentTime"`
	Healthy     bool      `json:"healthy"`
	Reasons     []string  `json:"reasons,omitempty"`
}

// Check is the verdict at one moment.
func (h Health) Check(now time.Time) Report {
	r := Report{LastUpdated: now, CurrentTime: now, Healthy: true}
	for _, s := range h.Loops() {
		since, reason := ailing(s)
		if since.IsZero() || now.Sub(since) <= h.Limit {
			continue
		}
		r.Healthy = false
		r.Reasons = append(r.Reasons, fmt.Sprintf("%s: %s, for %v", s.Name, reason, now.Sub(since).Round(time.Second)))
		if since.Before(r.LastUpdated) {
			r.LastUpdated = since
		}
	}
	return r
}

// ailing says since when and why a loop does not do its work; the zero time
// when it does.
func ailing(s reconcile.Status) (since time.Time, reason string) {
	if !s.FailingSince.IsZero() {
		first := s.Failing[0]
		since, reason = s.FailingSince, fmt.Sprintf("%d failing, first %s: %s", s.FailingCount, first.Key, first.Error)
	}
	if !s.BusySince.IsZero() && (since.IsZero() || s.BusySince.Before(since)) {
		since, reason = s.BusySince, "a kernel call has not returned"
	}
	return since, reason
}

// Ready reports whether every table holds what is wanted, all sources told.
func Ready(loops []reconcile.Status) (ready bool, reason string) {
	for _, s := range loops {
		switch {
		case !s.Listed:
			return false, s.Name + ": not listed yet"
		case !s.Synced:
			return false, s.Name + ": waiting for the sources"
		case s.Puts > 0 || s.Dels > s.Deferred:
			return false, fmt.Sprintf("%s: %d to write, %d to delete", s.Name, s.Puts, s.Dels-s.Deferred)
		}
	}
	return true, ""
}

func (h Health) serveHealth(w http.ResponseWriter, _ *http.Request) {
	report := h.Check(time.Now())
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !report.Healthy {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(report) // the client went away: nobody to tell
}

func (h Health) serveReady(w http.ResponseWriter, _ *http.Request) {
	ready, reason := Ready(h.Loops())
	if !ready {
		http.Error(w, reason, http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

// HealthHandler serves /healthz, /livez and /readyz.
func HealthHandler(h Health) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", h.serveHealth)
	mux.HandleFunc("GET /livez", h.serveHealth)
	mux.HandleFunc("GET /readyz", h.serveReady)
	return mux
}
