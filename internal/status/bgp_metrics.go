package status

import (
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"

	"sluice.dev/sluice/bgp"
	"sluice.dev/sluice/internal/model"
)

// routeSeries bounds the series of single routes that one node shows: each is
// kept by Prometheus once for each node. Above it none are shown, since a part
// of them would make an alert silent rather than absent.
const routeSeries = 5000

// bgpCollector shows sessions and routes.
type bgpCollector struct {
	bgp *BGP

	up, since, lost         *prometheus.Desc
	told, waiting, withheld *prometheus.Desc
	advertised, hidden      *prometheus.Desc
}

func newBGPCollector(b *BGP) *bgpCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("sluice_bgp_"+name, help, labels, nil)
	}
	return &bgpCollector{
		bgp:        b,
		up:         desc("session_up", "1: the session with a peer is established.", "peer"),
		since:      desc("session_since_seconds", "Unix time since when a session is established, or is not.", "peer"),
		lost:       desc("session_lost_total", "Established sessions that broke off.", "peer"),
		told:       desc("routes_told", "Addresses whose route a peer has.", "peer", "family"),
		waiting:    desc("routes_waiting", "Addresses whose route would be told if the session were established.", "peer", "family"),
		withheld:   desc("routes_withheld", "Addresses whose route a peer is not to have.", "peer", "family"),
		advertised: desc("route_advertised", "1: a peer has the route; 0: it has not. None are shown where there are too many.", "peer", "prefix"),
		hidden:     desc("route_advertised_hidden", "Routes that sluice_bgp_route_advertised does not show since there are too many; 0: all are shown."),
	}
}

// Describe implements prometheus.Collector.
func (c *bgpCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.up, c.since, c.lost, c.told, c.waiting, c.withheld, c.advertised, c.hidden} {
		out <- d
	}
}

// Collect implements prometheus.Collector. A node without sessions has no
// series.
func (c *bgpCollector) Collect(out chan<- prometheus.Metric) {
	sessions := c.bgp.sessions()
	if len(sessions) == 0 {
		return
	}
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	for peer, s := range sessions {
		out <- prometheus.MustNewConstMetric(c.up, gauge, oneIf(s.Established()), peer)
		out <- prometheus.MustNewConstMetric(c.since, gauge, unixSeconds(s.Since), peer)
		out <- prometheus.MustNewConstMetric(c.lost, counter, float64(s.Lost), peer)
	}
	c.collectRoutes(out, sessions)
}

// counted is what routes are counted by: addresses, so that an aggregate
// counts for each of its own.
type counted struct {
	peer   string
	family model.Family
	state  string
}

// collectRoutes counts routes and shows single ones. Those that no peer is
// meant for have the empty peer.
func (c *bgpCollector) collectRoutes(out chan<- prometheus.Metric, sessions sessions) {
	const gauge = prometheus.GaugeValue
	descs := map[string]*prometheus.Desc{RouteTold: c.told, RouteWaiting: c.waiting, RouteWithheld: c.withheld}
	counts, told := map[counted]int{}, map[bgp.Key]bool{}
	for peer := range sessions {
		for _, f := range []model.Family{model.IPv4, model.IPv6} {
			for state := range descs {
				counts[counted{peer, f, state}] = 0 // a series that comes and goes is one that no alert can trust
			}
		}
	}
	for _, row := range c.bgp.Routes() {
		state, _ := sessions.judge(row)
		counts[counted{row.Peer, model.FamilyOf(row.Addr), state}]++
		key := bgp.Key{Peer: row.Peer, Prefix: routePrefix(row)}
		told[key] = told[key] || state == RouteTold
	}
	for k, n := range counts {
		out <- prometheus.MustNewConstMetric(descs[k.state], gauge, float64(n), k.peer, k.family.String())
	}
	if len(told) > routeSeries {
		out <- prometheus.MustNewConstMetric(c.hidden, gauge, float64(len(told)))
		return
	}
	out <- prometheus.MustNewConstMetric(c.hidden, gauge, 0)
	for k, is := range told {
		out <- prometheus.MustNewConstMetric(c.advertised, gauge, oneIf(is), k.Peer, k.Prefix.String())
	}
}

// routePrefix is what stands for an address at routers; of one that no peer is
// meant for, its own prefix.
func routePrefix(row bgp.Row) netip.Prefix {
	if row.Prefix.IsValid() {
		return row.Prefix
	}
	return netip.PrefixFrom(row.Addr, row.Addr.BitLen())
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
