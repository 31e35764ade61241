package status

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sluice.dev/sluice/internal/reconcile"
)

// Calls counts what one table's handle asked of the kernel.
type Calls struct {
	Table    string
	Commands uint64 // netlink messages that write
	Execs    uint64 // programs run
}

// Metrics are what MetricsHandler shows.
type Metrics struct {
	Loops   func() []reconcile.Status
	Calls   func() []Calls
	Version string
}

// MetricsHandler serves /metrics, /proxyMode and /state.
func MetricsHandler(m Metrics) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newCollector(m),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /proxyMode", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ipvs")) // the client went away: nobody to tell
	})
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) {
		WriteState(w, m.Loops(), time.Now())
	})
	return mux
}

// series is one metric and how to read it off a loop's status.
type series struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	label string // the second label's value, if the metric has one
	value func(reconcile.Status) float64
}

type collector struct {
	metrics        Metrics
	series         []series
	commands, exec *prometheus.Desc
	info           *prometheus.Desc
}

func newCollector(m Metrics) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("sluice_"+name, help, append([]string{"table"}, labels...), nil)
	}
	keys := desc("table_keys", "Keys of a kernel table: wanted by anyone, and present as far as is known.", "state")
	pending := desc("table_pending_keys", "Keys that differ from what is wanted, by what is to be done.", "op")
	written := desc("table_writes_total", "Keys written to and deleted from a kernel table.", "op")
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	return &collector{
		metrics: m,
		series: []series{
			{keys, gauge, "wanted", func(s reconcile.Status) float64 { return float64(s.Wanted) }},
			{keys, gauge, "present", func(s reconcile.Status) float64 { return float64(s.Present) }},
			{pending, gauge, "put", func(s reconcile.Status) float64 { return float64(s.Puts) }},
			{pending, gauge, "delete", func(s reconcile.Status) float64 { return float64(s.Dels) }},
			{written, counter, "put", func(s reconcile.Status) float64 { return float64(s.Written) }},
			{written, counter, "delete", func(s reconcile.Status) float64 { return float64(s.Deleted) }},
			{desc("table_failing_keys", "Keys that could not be written, and listings that failed."), gauge, "",
				func(s reconcile.Status) float64 { return float64(s.FailingCount) }},
			{desc("table_failing_since_seconds", "Unix time since when the oldest failing key fails; 0: none."), gauge, "",
				func(s reconcile.Status) float64 { return unix(s.FailingSince) }},
			{desc("table_deferred_keys", "Deletions under way that take their time: destinations that drain."), gauge, "",
				func(s reconcile.Status) float64 { return float64(s.Deferred) }},
			{desc("table_drift_total", "Keys that an audit found changed by others and put right."), counter, "",
				func(s reconcile.Status) float64 { return float64(s.Drift) }},
			{desc("table_applies_total", "Batches written to a kernel table."), counter, "",
				func(s reconcile.Status) float64 { return float64(s.Applies) }},
			{desc("table_audits_total", "Complete audits of a kernel table."), counter, "",
				func(s reconcile.Status) float64 { return float64(s.Audits) }},
			{desc("table_last_apply_seconds", "Duration of the last batch."), gauge, "",
				func(s reconcile.Status) float64 { return s.LastApplyTook.Seconds() }},
			{desc("table_last_apply_timestamp_seconds", "Unix time of the last batch."), gauge, "",
				func(s reconcile.Status) float64 { return unix(s.LastApply) }},
		},
		commands: desc("kernel_commands_total", "Netlink commands that write to a kernel table."),
		exec:     desc("execs_total", "Programs run for a kernel table (iptables-save and iptables-restore)."),
		info:     prometheus.NewDesc("sluice_build_info", "Always 1; the version is a label.", []string{"version"}, nil),
	}
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, out) }

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	for _, status := range c.metrics.Loops() {
		for _, s := range c.series {
			labels := []string{status.Name}
			if s.label != "" {
				labels = append(labels, s.label)
			}
			out <- prometheus.MustNewConstMetric(s.desc, s.kind, s.value(status), labels...)
		}
	}
	for _, calls := range c.metrics.Calls() {
		out <- prometheus.MustNewConstMetric(c.commands, prometheus.CounterValue, float64(calls.Commands), calls.Table)
		out <- prometheus.MustNewConstMetric(c.exec, prometheus.CounterValue, float64(calls.Execs), calls.Table)
	}
	out <- prometheus.MustNewConstMetric(c.info, prometheus.GaugeValue, 1, c.metrics.Version)
}
