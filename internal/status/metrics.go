package status

import (
	"context"
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

// Servers counts what the kernel's IPVS table has of ours.
type Servers struct {
	VirtualServers int
	Serving        int // destinations that get new connections
	Draining       int // destinations on their way out: weight 0, until their connections end
}

// Metrics are what MetricsHandler shows. Only Loops is required.
type Metrics struct {
	Loops   func() []reconcile.Status
	Calls   func() []Calls
	Servers func() Servers
	// Connections are counted when somebody asks for /connections, which may
	// cost a read of the whole IPVS table.
	Connections func(context.Context) ([]Connections, error)
	// SysctlDrift counts the kernel's switches that others changed: they are a
	// table of their own in the drift metric.
	SysctlDrift func() uint64
	Node        *Node   // nil: Services are not explained
	BGP         *BGP    // nil: no BGP is spoken
	Policy      *Policy // nil: NetworkPolicy is not enforced
	Meter       *Meter
	Health      Health // what the tables are judged by, beside Meter
	Version     string
}

// MetricsHandler serves /metrics, /proxyMode, /state, /healthz and, where
// Services are explained, /services and /names, where connections can be
// counted, /connections, where BGP is spoken, /bgp/peers and
// /bgp/routes, and where NetworkPolicy is enforced, /policy/explain and
// /policy/denied.
func MetricsHandler(m Metrics) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newCollector(m),
	)
	if m.Meter != nil {
		registry.MustRegister(m.Meter)
	}
	if m.BGP != nil {
		registry.MustRegister(newBGPCollector(m.BGP))
	}
	if m.Policy != nil {
		registry.MustRegister(newPolicyCollector(m.Policy, m.Meter))
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /proxyMode", text("ipvs"))
	mux.HandleFunc("GET /healthz", text("ok")) // as kube-proxy's here: it answers
	mux.HandleFunc("GET /state", m.serveState)
	if m.Connections != nil {
		mux.HandleFunc("GET /connections", serveConnections(m.Connections))
	}
	m.Node.serve(mux, m.BGP)
	m.BGP.serve(mux, m.Loops)
	m.Policy.serve(mux)
	return mux
}

func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(s)) // the client went away: nobody to tell
	}
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
	servers        *prometheus.Desc
	destinations   *prometheus.Desc
	drift          *prometheus.Desc
	info           *prometheus.Desc
}

func newCollector(m Metrics) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("sluice_"+name, help, append([]string{"table"}, labels...), nil)
	}
	keys := desc("table_keys", "Keys of a kernel table: wanted by anyone, and present as far as is known.", "state")
	pending := desc("table_pending_keys", "Keys that differ from what is wanted, by what is to be done.", "op")
	written := desc("table_writes_total", "Keys written to and deleted from a kernel table.", "op")
	drift := desc("table_drift_total", "Keys that an audit found changed by others and put right.")
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
				func(s reconcile.Status) float64 { return unixSeconds(s.FailingSince) }},
			{desc("table_deferred_keys", "Deletions under way that take their time: destinations that drain."), gauge, "",
				func(s reconcile.Status) float64 { return float64(s.Deferred) }},
			{drift, counter, "",
				func(s reconcile.Status) float64 { return float64(s.Drift) }},
			{desc("table_applies_total", "Batches written to a kernel table."), counter, "",
				func(s reconcile.Status) float64 { return float64(s.Applies) }},
			{desc("table_audits_total", "Complete audits of a kernel table."), counter, "",
				func(s reconcile.Status) float64 { return float64(s.Audits) }},
			{desc("table_last_apply_seconds", "Duration of the last batch."), gauge, "",
				func(s reconcile.Status) float64 { return s.LastApplyTook.Seconds() }},
			{desc("table_last_apply_timestamp_seconds", "Unix time of the last batch."), gauge, "",
				func(s reconcile.Status) float64 { return unixSeconds(s.LastApply) }},
		},
		servers:      prometheus.NewDesc("sluice_ipvs_virtual_servers", "Virtual servers of ours.", nil, nil),
		destinations: prometheus.NewDesc("sluice_ipvs_destinations", "Destinations of ours, by whether they get new connections.", []string{"state"}, nil),
		drift:        drift,
		commands:     desc("kernel_commands_total", "Netlink commands that write to a kernel table."),
		exec:         desc("execs_total", "Programs run for a kernel table (iptables-save and iptables-restore)."),
		info:         prometheus.NewDesc("sluice_build_info", "Always 1; the version is a label.", []string{"version"}, nil),
	}
}

func unixSeconds(t time.Time) float64 {
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
	c.collectKernel(out)
	if m := c.metrics; m.Meter != nil && m.Health.Loops != nil {
		m.Meter.collectAsWanted(out, m.Health.asWanted(time.Now()))
	}
	out <- prometheus.MustNewConstMetric(c.info, prometheus.GaugeValue, 1, c.metrics.Version)
}

// collectKernel shows what the handles and the IPVS table say of themselves.
func (c *collector) collectKernel(out chan<- prometheus.Metric) {
	if c.metrics.Calls != nil {
		for _, calls := range c.metrics.Calls() {
			out <- prometheus.MustNewConstMetric(c.commands, prometheus.CounterValue, float64(calls.Commands), calls.Table)
			out <- prometheus.MustNewConstMetric(c.exec, prometheus.CounterValue, float64(calls.Execs), calls.Table)
		}
	}
	if c.metrics.Servers != nil {
		s := c.metrics.Servers()
		out <- prometheus.MustNewConstMetric(c.servers, prometheus.GaugeValue, float64(s.VirtualServers))
		out <- prometheus.MustNewConstMetric(c.destinations, prometheus.GaugeValue, float64(s.Serving), "serving")
		out <- prometheus.MustNewConstMetric(c.destinations, prometheus.GaugeValue, float64(s.Draining), "draining")
	}
	if c.metrics.SysctlDrift != nil {
		out <- prometheus.MustNewConstMetric(c.drift, prometheus.CounterValue, float64(c.metrics.SysctlDrift()), "sysctl")
	}
}
