package status

import (
	"maps"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice.dev/sluice/internal/model"
)

// changeDescs are the series that are read off a Meter's changes.
type changeDescs struct {
	serviceTotal, servicePending *prometheus.Desc
	sliceTotal, slicePending     *prometheus.Desc
	queued, asWanted, vacant     *prometheus.Desc
}

func newChangeDescs() changeDescs {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("kubeproxy_sync_proxy_rules_"+name, help, labels, nil)
	}
	return changeDescs{
		serviceTotal:   desc("service_changes_total", "Services told of as new, changed or gone."),
		servicePending: desc("service_changes_pending", "Of these, those not worked out yet."),
		sliceTotal:     desc("endpoint_changes_total", "EndpointSlices told of as new, changed or gone."),
		slicePending:   desc("endpoint_changes_pending", "Of these, those not worked out yet."),
		queued:         desc("last_queued_timestamp_seconds", "Unix time when what a Service wants last changed.", "ip_family"),
		asWanted: desc("last_timestamp_seconds",
			"Unix time when the tables last held all that was wanted: now, or since when a change is missing.", "ip_family"),
		vacant: desc("no_local_endpoints_total",
			"Services that a Local policy leaves without endpoints here while there are some elsewhere.", "ip_family", "traffic_policy"),
	}
}

// Describe implements prometheus.Collector.
func (m *Meter) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, out) }

// Collect implements prometheus.Collector.
func (m *Meter) Collect(out chan<- prometheus.Metric) {
	for _, c := range []prometheus.Collector{
		m.synced, m.network, m.apply, m.failed,
		m.probes["healthz"], m.probes["livez"],
		m.conntrack, m.conntrackDeleted,
	} {
		c.Collect(out)
	}
	m.collectChanges(out)
}

func (m *Meter) collectChanges(out chan<- prometheus.Metric) {
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	d, s := m.descs, m.snapshot()
	emit := func(desc *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, kind, v, labels...)
	}
	emit(d.serviceTotal, counter, float64(s.services.total))
	emit(d.servicePending, gauge, float64(s.services.pending))
	emit(d.sliceTotal, counter, float64(s.slices.total))
	emit(d.slicePending, gauge, float64(s.slices.pending))
	for f, at := range s.queued {
		emit(d.queued, gauge, unixSeconds(at), f.String())
	}
	for v, n := range s.vacant {
		policy := "internal"
		if v.external {
			policy = "external"
		}
		emit(d.vacant, gauge, float64(n), v.family.String(), policy)
	}
}

// collectAsWanted says of every family when the tables last held all that was
// wanted. They are the same tables for all families.
func (m *Meter) collectAsWanted(out chan<- prometheus.Metric, at time.Time) {
	if at.IsZero() {
		return // never yet, as kube-proxy before its first synchronization
	}
	for _, f := range m.families {
		out <- prometheus.MustNewConstMetric(m.descs.asWanted, prometheus.GaugeValue, unixSeconds(at), f.String())
	}
}

// snapshot is what is shown of the changes.
type snapshot struct {
	services, slices tally
	queued           map[model.Family]time.Time
	vacant           map[vacancy]int
}

func (m *Meter) snapshot() snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := snapshot{
		services: m.changes.services,
		slices:   m.changes.slices,
		queued:   maps.Clone(m.changes.queued),
		vacant:   make(map[vacancy]int, len(m.changes.vacant)),
	}
	for v, names := range m.changes.vacant {
		s.vacant[v] = len(names)
	}
	return s
}
