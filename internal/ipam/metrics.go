package ipam

import "github.com/prometheus/client_golang/prometheus"

// Counts is what metrics show of a Controller.
type Counts struct {
	Leading     bool
	Waiting     int
	Allocations int // times that a Service was told addresses
	Conflicts   int // times that somebody else turned out to have given an address
	Pools       []PoolCounts
}

// Counts is how things are.
func (c *Controller) Counts() Counts { return *c.metrics.Load() }

// collector shows Counts.
type collector struct {
	counts                                            func() Counts
	addresses, waiting, allocations, conflict, leader *prometheus.Desc
}

// NewCollector shows counts as metrics.
func NewCollector(counts func() Counts) prometheus.Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("sluice_ipam_"+name, help, labels, nil)
	}
	return collector{
		counts:      counts,
		addresses:   desc("addresses", "Addresses of a pool that are assigned or available.", "pool", "family", "state"),
		waiting:     desc("waiting_services", "Services that lack an address that they ask for."),
		allocations: desc("allocations_total", "Times that a Service was told addresses."),
		conflict:    desc("conflicts_total", "Times that somebody else turned out to have given an address."),
		leader:      desc("leader", "1 while this controller gives addresses."),
	}
}

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.addresses, c.waiting, c.allocations, c.conflict, c.leader} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	now := c.counts()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, p := range now.Pools {
		for i, family := range []string{"IPv4", "IPv6"} {
			gauge(c.addresses, float64(p.Assigned[i]), p.Name, family, "assigned")
			gauge(c.addresses, float64(p.Available[i]), p.Name, family, "available")
		}
	}
	leader := 0.0
	if now.Leading {
		leader = 1
	}
	gauge(c.leader, leader)
	gauge(c.waiting, float64(now.Waiting))
	out <- prometheus.MustNewConstMetric(c.allocations, prometheus.CounterValue, float64(now.Allocations))
	out <- prometheus.MustNewConstMetric(c.conflict, prometheus.CounterValue, float64(now.Conflicts))
}
