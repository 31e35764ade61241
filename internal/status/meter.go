package status

import (
	"errors"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/model"
)

// Meter measures what a snapshot of the loops cannot tell: how long things took
// and how often they happened. It is told
//
//	by the sources' sink  Event       a fact is on its way to the engine
//	by the engine         CaughtUp    every Service touched so far has been worked out
//	                      Resolved    what a Service means in one family
//	                      Queued      what it wants of the tables has changed
//	                      Synced      the tables hold what it wants
//	                      Programmed  how long ago the endpoints changed that they hold now
//	                      Enforced    how long a change of what policies want took
//	by the loops          Applied, Failed
//	by conntrack          Swept
//
// and shows it as a prometheus.Collector. All methods may be called from any
// goroutine.
type Meter struct {
	families []model.Family

	synced, network  *prometheus.HistogramVec // by family
	apply            *prometheus.HistogramVec // by table
	failed           *prometheus.CounterVec   // by table and errno
	probes           map[string]*prometheus.CounterVec
	enforced         prometheus.Histogram // shown where policy is enforced
	conntrack        prometheus.Histogram
	conntrackDeleted prometheus.Counter
	descs            changeDescs

	mu      sync.Mutex
	changes changes
}

// changes are the changes that are under way, and what there was of them.
type changes struct {
	services, slices tally
	since            map[part]time.Time // queued and not in the tables yet
	queued           map[model.Family]time.Time
	vacant           map[vacancy]map[model.Name]struct{}
}

// tally counts events of one kind.
type tally struct{ total, pending int }

// part is one family of a Service, which goes into the tables as a whole.
type part struct {
	name   model.Name
	family model.Family
}

// vacancy is a policy of Local under which a family of a Service is not served
// on this node, though it is on another one.
type vacancy struct {
	family   model.Family
	external bool
}

// NewMeter makes a Meter for a node that serves the given families.
func NewMeter(families []model.Family) *Meter {
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	seconds := prometheus.ExponentialBuckets(0.001, 2, 15) // kube-proxy's
	m := &Meter{
		families: families,
		synced: histogram("kubeproxy_sync_proxy_rules_duration_seconds",
			"From a change of what a Service wants to all tables holding it.", seconds, "ip_family"),
		network: histogram("kubeproxy_network_programming_duration_seconds",
			"From a change of endpoints (its trigger time) to all tables holding it.", networkBuckets(), "ip_family"),
		apply: histogram("sluice_table_apply_duration_seconds",
			"Duration of a batch written to a table.", prometheus.ExponentialBuckets(0.0001, 2, 18), "table"),
		failed: counter("sluice_kernel_errors_total",
			"Keys that could not be written and listings that failed, by the kernel's reason.", "table", "errno"),
		probes: map[string]*prometheus.CounterVec{
			"healthz": counter("kubeproxy_proxy_healthz_total", "Answers of /healthz by HTTP status.", "code"),
			"livez":   counter("kubeproxy_proxy_livez_total", "Answers of /livez by HTTP status.", "code"),
		},
		enforced: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "sluice_policy_enforcement_seconds",
			Help:    "From a change of what policies want of the rules to the kernel holding it.",
			Buckets: seconds,
		}),
		conntrack: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "kubeproxy_conntrack_reconciler_sync_duration_seconds",
			Help:    "Duration of one search for stale UDP connection entries.",
			Buckets: seconds,
		}),
		conntrackDeleted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kubeproxy_conntrack_reconciler_deleted_entries_total",
			Help: "Stale UDP connection entries deleted.",
		}),
		descs: newChangeDescs(),
		changes: changes{
			since:  map[part]time.Time{},
			queued: map[model.Family]time.Time{},
			vacant: map[vacancy]map[model.Name]struct{}{},
		},
	}
	m.begin()
	return m
}

// begin has every series there before anything happens: the first one of a
// rate would be lost.
func (m *Meter) begin() {
	for _, f := range m.families {
		m.synced.WithLabelValues(f.String())
		m.network.WithLabelValues(f.String())
		m.changes.vacant[vacancy{f, false}] = map[model.Name]struct{}{}
		m.changes.vacant[vacancy{f, true}] = map[model.Name]struct{}{}
	}
	for _, c := range m.probes {
		for _, code := range []int{http.StatusOK, http.StatusServiceUnavailable} {
			c.WithLabelValues(strconv.Itoa(code))
		}
	}
}

// networkBuckets are kube-proxy's: 0.25, 0.5, 1 to 59 by 1, 60 to 115 by 5, 120
// to 300 by 30.
func networkBuckets() []float64 {
	buckets := prometheus.LinearBuckets(0.25, 0.25, 2)
	buckets = append(buckets, prometheus.LinearBuckets(1, 1, 59)...)
	buckets = append(buckets, prometheus.LinearBuckets(60, 5, 12)...)
	return append(buckets, prometheus.LinearBuckets(120, 30, 7)...)
}

// Event takes note of a fact that is on its way to the engine. Only Services and
// EndpointSlices count.
func (m *Meter) Event(e model.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e.Put.(type) {
	case model.Service:
		m.changes.services.add()
	case model.EndpointSlice:
		m.changes.slices.add()
	}
	switch e.Delete.(type) {
	case model.ServiceKey:
		m.changes.services.add()
	case model.EndpointSliceKey:
		m.changes.slices.add()
	}
}

func (t *tally) add() { t.total, t.pending = t.total+1, t.pending+1 }

// CaughtUp takes note that the engine has worked out every Service that the
// events so far have touched.
func (m *Meter) CaughtUp() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes.services.pending, m.changes.slices.pending = 0, 0
}

// Resolved takes note of what a Service means in one family.
func (m *Meter) Resolved(family model.Family, view model.View) {
	var internal, external bool
	for _, f := range view.Frontends {
		switch {
		case model.FamilyOf(f.Addr.Addr()) != family || f.Vacancy() != model.Dropped:
		case f.Kind == model.ClusterIP:
			internal = true
		default:
			external = true
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes.vacate(vacancy{family, false}, view.Service, internal)
	m.changes.vacate(vacancy{family, true}, view.Service, external)
}

func (c *changes) vacate(v vacancy, name model.Name, vacant bool) {
	names := c.vacant[v]
	switch {
	case names == nil: // a family that is not served
	case vacant:
		names[name] = struct{}{}
	default:
		delete(names, name)
	}
}

// Queued takes note that what a Service wants of the tables in one family has
// changed.
func (m *Meter) Queued(name model.Name, family model.Family) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.changes.queued[family] = now
	if _, under := m.changes.since[part{name, family}]; !under {
		m.changes.since[part{name, family}] = now
	}
}

// Synced takes note that the tables hold all that a Service wants in one
// family. It may be told when nothing was queued.
func (m *Meter) Synced(name model.Name, family model.Family) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if since, under := m.changes.since[part{name, family}]; under {
		delete(m.changes.since, part{name, family})
		m.synced.WithLabelValues(family.String()).Observe(time.Since(since).Seconds())
	}
}

// Programmed takes note of how long ago the endpoints changed in the way that
// the tables now follow: the network programming latency. It may be below 0,
// when the clock of the machine that told of the change is ahead.
func (m *Meter) Programmed(family model.Family, took time.Duration) {
	m.network.WithLabelValues(family.String()).Observe(max(took, 0).Seconds())
}

// Applied takes note of a batch that was written to a table.
func (m *Meter) Applied(table string, took time.Duration) {
	m.apply.WithLabelValues(table).Observe(took.Seconds())
}

// Failed takes note of a key that could not be written, or a listing that failed.
func (m *Meter) Failed(table string, err error) {
	m.failed.WithLabelValues(table, errnoName(err)).Inc()
}

// errnoName is the kernel's reason as errno.h has it, or "other": a program's
// failure, or a refusal of our own.
func errnoName(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		if name := unix.ErrnoName(errno); name != "" {
			return name
		}
	}
	return "other"
}

// Swept takes note of one search for stale connection entries, and of how many
// were deleted.
func (m *Meter) Swept(took time.Duration, deleted int) {
	m.conntrack.Observe(took.Seconds())
	m.conntrackDeleted.Add(float64(deleted))
}

// probed takes note of an answer to a health probe.
func (m *Meter) probed(path string, code int) {
	if m != nil {
		m.probes[path].WithLabelValues(strconv.Itoa(code)).Inc()
	}
}
