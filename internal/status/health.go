package status

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"sluice.dev/sluice/internal/reconcile"
)

// Health judges the loops of the kernel's tables, and knows whether the node is
// to be used at all.
type Health struct {
	// Loops are all loops; read at every request.
	Loops func() []reconcile.Status
	// Tables names the loops that are judged: those of the kernel's tables,
	// without which no Service is served. A loop that others can keep from its
	// work, as a process on a Service's health-check port can, must not be
	// among them: it would take the node away from every Service. A name
	// without a loop makes the node unhealthy. Nil: all loops are judged.
	Tables []string
	// Limit is how long a wanted change may fail to reach the kernel, or a
	// kernel call take, before the node is unhealthy.
	Limit time.Duration
	// Node says why load balancers are to use this node no more (KEP-3836):
	// it is being deleted, or marked to be. "": they may. It must not block.
	// Nil: they may.
	Node func() string
	// Rising counts Services whose last change has not come true in every
	// table yet: they go from table to table, and between two of them no table
	// has anything to do. For /readyz alone. Nil: there are none.
	Rising func() int
	// Problems are why the node does not do what it is there for, though its
	// tables hold all that is wanted: one line each. They keep it from being
	// ready and have load balancers leave it, and make nobody restart the
	// agent, who would find the same. They must not block. Nil: there are none.
	Problems func() []string
	// Meter counts the answers; nil: nobody does.
	Meter *Meter
}

// Report is the JSON body of /healthz and /livez. Field names are kube-proxy's
// where the meaning is the same.
type Report struct {
	LastUpdated time.Time `json:"lastUpdated"` // now when healthy, else when it began to fail
	CurrentTime time.Time `json:"currentTime"`
	// NodeEligible says whether load balancers may use the node; only in
	// /healthz.
	NodeEligible *bool `json:"nodeEligible,omitempty"`
	// Healthy speaks of the tables, and in /healthz of the node's problems,
	// but not of its eligibility, as kube-proxy's: a healthy node may be
	// ineligible.
	Healthy bool                   `json:"healthy"`
	Status  map[string]TableReport `json:"status"` // by table, where kube-proxy's is by family
	Reasons []string               `json:"reasons,omitempty"`
}

// TableReport is one table's part of a Report.
type TableReport struct {
	LastUpdated time.Time `json:"lastUpdated"`
	Healthy     bool      `json:"healthy"`
}

// Check is the verdict on the tables at one moment.
func (h Health) Check(now time.Time) Report {
	r := Report{LastUpdated: now, CurrentTime: now, Healthy: true, Status: map[string]TableReport{}}
	loops, missing := h.judged()
	for _, s := range loops {
		since, reason := ailing(s)
		if since.IsZero() || now.Sub(since) <= h.Limit {
			r.Status[s.Name] = TableReport{LastUpdated: now, Healthy: true}
			continue
		}
		r.Status[s.Name] = TableReport{LastUpdated: since}
		r.fail(fmt.Sprintf("%s: %s, for %v", s.Name, reason, now.Sub(since).Round(time.Second)))
		if since.Before(r.LastUpdated) {
			r.LastUpdated = since
		}
	}
	for _, name := range missing {
		r.fail(name + ": no such table")
	}
	return r
}

func (r *Report) fail(reason string) {
	r.Healthy = false
	r.Reasons = append(r.Reasons, reason)
}

// Healthy reports whether the tables are as wanted, or have not been otherwise
// for long, and the node has no problems. The node's eligibility is no part of
// it.
func (h Health) Healthy(now time.Time) bool { return len(h.problems()) == 0 && h.Check(now).Healthy }

func (h Health) problems() []string {
	if h.Problems == nil {
		return nil
	}
	return h.Problems()
}

// judged are the loops that count, and names that no loop has.
func (h Health) judged() (loops []reconcile.Status, missing []string) {
	all := h.Loops()
	if h.Tables == nil {
		return all, nil
	}
	for _, name := range h.Tables {
		i := slices.IndexFunc(all, func(s reconcile.Status) bool { return s.Name == name })
		if i < 0 {
			missing = append(missing, name)
			continue
		}
		loops = append(loops, all[i])
	}
	return loops, missing
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

// asWanted is the last moment at which the judged tables held all that was
// wanted: now, or when the oldest change that is missing began to be; the zero
// time before they ever did.
func (h Health) asWanted(now time.Time) time.Time {
	loops, missing := h.judged()
	if len(missing) > 0 {
		return time.Time{}
	}
	last := now
	for _, s := range loops {
		if !s.Listed || !s.Synced {
			return time.Time{}
		}
		if since, _ := ailing(s); !since.IsZero() && since.Before(last) {
			last = since
		}
	}
	return last
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

// serveHealth is for load balancers: tables and node.
func (h Health) serveHealth(w http.ResponseWriter, _ *http.Request) {
	report := h.report(time.Now())
	h.write(w, "healthz", report.Healthy && *report.NodeEligible, report)
}

// report is the verdict on tables and node.
func (h Health) report(now time.Time) Report {
	report := h.Check(now)
	for _, problem := range h.problems() {
		report.fail(problem)
	}
	why := ""
	if h.Node != nil {
		why = h.Node()
	}
	eligible := why == ""
	report.NodeEligible = &eligible
	if !eligible {
		report.Reasons = append(report.Reasons, "node: "+why)
	}
	return report
}

// serveLive is for who would restart the agent, which makes no node eligible.
func (h Health) serveLive(w http.ResponseWriter, _ *http.Request) {
	report := h.Check(time.Now())
	h.write(w, "livez", report.Healthy, report)
}

func (h Health) write(w http.ResponseWriter, probe string, good bool, r Report) {
	code := http.StatusOK
	if !good {
		code = http.StatusServiceUnavailable
	}
	h.Meter.probed(probe, code)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(r) // the client went away: nobody to tell
}

func (h Health) rising() int {
	if h.Rising == nil {
		return 0
	}
	return h.Rising()
}

// Ready reports whether the tables hold what is wanted now, and why not.
func (h Health) Ready() (ready bool, reason string) {
	loops, missing := h.judged()
	ready, reason = Ready(loops)
	if len(missing) > 0 {
		ready, reason = false, missing[0]+": no such table"
	}
	if n := h.rising(); ready && n > 0 {
		ready, reason = false, fmt.Sprintf("%d Services on their way", n)
	}
	if list := h.problems(); ready && len(list) > 0 {
		ready, reason = false, list[0]
	}
	return ready, reason
}

func (h Health) serveReady(w http.ResponseWriter, _ *http.Request) {
	if ready, reason := h.Ready(); !ready {
		http.Error(w, reason, http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

// HealthHandler serves /healthz, /livez and /readyz.
func HealthHandler(h Health) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", h.serveHealth)
	mux.HandleFunc("GET /livez", h.serveLive)
	mux.HandleFunc("GET /readyz", h.serveReady)
	return mux
}
