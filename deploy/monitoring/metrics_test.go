package monitoring

import (
	"errors"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice.dev/sluice/bgp"
	"sluice.dev/sluice/internal/ipam"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/internal/status"
	"sluice.dev/sluice/policy"
)

// TestMetricsExist: every metric that the alerts and the dashboard ask for is
// one of an agent's or a controller's, and every label by which they tell series
// apart is one that the metric has, or that deploy/components/podmonitor adds.
func TestMetricsExist(t *testing.T) {
	has := labels(t)
	added := []string{"le", "job", "node", "component", "pod", "namespace"}
	for _, file := range []string{"rules.yaml", "dashboard.json"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		asked := regexp.MustCompile(`\b(?:sluice|kubeproxy)_[a-z_]+`).FindAllString(string(text), -1)
		slices.Sort(asked)
		asked = slices.Compact(asked)
		if len(asked) < 10 {
			t.Errorf("%s asks for %d metrics only: %q", file, len(asked), asked)
		}
		for _, name := range asked {
			if _, exists := has[name]; !exists {
				t.Errorf("%s asks for %s, which nobody shows", file, name)
			}
		}
		by := regexp.MustCompile(`by \(([a-z_, ]+)\) \((?:rate\(|max by \([a-z_, ]+\) \()?((?:sluice|kubeproxy)_[a-z_]+)`)
		for _, m := range by.FindAllStringSubmatch(string(text), -1) {
			for label := range strings.SplitSeq(m[1], ", ") {
				if !slices.Contains(added, label) && !slices.Contains(has[m[2]], label) {
					t.Errorf("%s sums %s by %s; it has %q", file, m[2], label, has[m[2]])
				}
			}
		}
	}
}

// labels are those of every metric that is shown, as a scrape names it.
func labels(t *testing.T) map[string][]string {
	t.Helper()
	answer := httptest.NewRecorder()
	status.MetricsHandler(agent()).ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	all := map[string][]string{}
	series := regexp.MustCompile(`^([a-z_]+)(?:\{(.*)\})? `)
	for line := range strings.SplitSeq(answer.Body.String(), "\n") {
		if m := series.FindStringSubmatch(line); m != nil && all[m[1]] == nil {
			all[m[1]] = []string{}
			for _, l := range regexp.MustCompile(`([a-z_]+)="`).FindAllStringSubmatch(m[2], -1) {
				all[m[1]] = append(all[m[1]], l[1])
			}
		}
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(ipam.NewCollector(func() ipam.Counts {
		return ipam.Counts{Pools: []ipam.PoolCounts{{Name: "public"}}}
	}))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		all[f.GetName()] = []string{}
		for _, l := range f.GetMetric()[0].GetLabel() {
			all[f.GetName()] = append(all[f.GetName()], l.GetName())
		}
	}
	return all
}

// agent is one that has something to show in every metric.
func agent() status.Metrics {
	now := time.Now()
	loops := func() []reconcile.Status {
		return []reconcile.Status{{Name: "ipvs", Listed: true, Synced: true}}
	}
	meter := status.NewMeter([]model.Family{model.IPv4})
	meter.Applied("ipvs", time.Millisecond)
	meter.Failed("ipvs", errors.New("refused"))
	facts := policy.NewFacts("n1")
	pod, closed := model.Name{Namespace: "shop", Name: "web-0"}, model.Name{Namespace: "shop", Name: "closed"}
	src, dst := netip.MustParseAddrPort("10.244.1.5:40000"), netip.MustParseAddrPort("10.244.2.5:80")
	facts.Apply(model.Event{Put: model.Pod{Name: pod, UID: "1", Node: "n1", Addrs: []netip.Addr{src.Addr()}}})
	facts.Apply(model.Event{Put: model.NetworkPolicy{Name: closed, Egress: true}})
	denials := policy.NewDenials(policy.DenialOptions{Facts: facts, Node: "n1"})
	denials.Tell(policy.Refused{Prefix: policy.LogEgress, Src: src, Dst: dst, Protocol: model.TCP, At: now})
	return status.Metrics{
		Loops:       loops,
		Calls:       func() []status.Calls { return []status.Calls{{Table: "ipvs"}} },
		Servers:     func() status.Servers { return status.Servers{} },
		SysctlDrift: func() uint64 { return 0 },
		BGP: &status.BGP{
			Peers: func() []bgp.PeerState {
				return []bgp.PeerState{{Peer: "tor", State: "established", Since: now}, {Peer: "other", State: "active", Since: now}}
			},
			Routes: func() []bgp.Row {
				row := bgp.Row{Addr: netip.MustParseAddr("203.0.113.80"), Prefix: netip.MustParsePrefix("203.0.113.80/32")}
				told, waiting, withheld := row, row, row
				told.Peer, told.Told, waiting.Peer, waiting.Told, withheld.Peer = "tor", true, "other", true, "tor"
				return []bgp.Row{told, waiting, withheld}
			},
		},
		Policy: &status.Policy{
			Denials: denials, Revoked: func() uint64 { return 0 },
			Status: func() policy.Status { return policy.Status{} },
		},
		Meter: meter, Health: status.Health{Loops: loops, Limit: time.Minute}, Version: "v1",
	}
}
