package status

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
)

var (
	web       = model.Name{Namespace: "default", Name: "web"}
	bothIPs   = []model.Family{model.IPv4, model.IPv6}
	elsewhere = []model.Backend{{Addr: netip.MustParseAddrPort("10.1.0.9:80")}}
)

// scraped are the lines of a scrape that are about the given names.
func scraped(t *testing.T, m Metrics, names ...string) []string {
	t.Helper()
	if m.Loops == nil {
		m.Loops = func() []reconcile.Status { return []reconcile.Status{good()} }
	}
	code, body := get(t, MetricsHandler(m), "/metrics")
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	var lines []string
	for line := range strings.Lines(body) {
		if slices.ContainsFunc(names, func(n string) bool {
			return strings.HasPrefix(line, n+" ") || strings.HasPrefix(line, n+"{")
		}) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func equalLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("scraped\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// kubeProxyNames are the names of kube-proxy's that have a meaning here.
var kubeProxyNames = []string{
	"conntrack_reconciler_deleted_entries_total",
	"conntrack_reconciler_sync_duration_seconds",
	"network_programming_duration_seconds",
	"proxy_healthz_total",
	"proxy_livez_total",
	"sync_proxy_rules_duration_seconds",
	"sync_proxy_rules_endpoint_changes_pending",
	"sync_proxy_rules_endpoint_changes_total",
	"sync_proxy_rules_last_queued_timestamp_seconds",
	"sync_proxy_rules_last_timestamp_seconds",
	"sync_proxy_rules_no_local_endpoints_total",
	"sync_proxy_rules_service_changes_pending",
	"sync_proxy_rules_service_changes_total",
}

// TestKubeProxyNames: these and no others are shown, with kube-proxy's types,
// and the package's table tells of each.
func TestKubeProxyNames(t *testing.T) {
	m := NewMeter(bothIPs)
	m.Queued(web, model.IPv4)
	loops := func() []reconcile.Status { return []reconcile.Status{good()} }
	_, body := get(t, MetricsHandler(Metrics{Loops: loops, Meter: m, Health: Health{Loops: loops}}), "/metrics")
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, match := range regexp.MustCompile(`(?m)^# TYPE kubeproxy_(\S+) (\S+)$`).FindAllStringSubmatch(body, -1) {
		name, kind := match[1], match[2]
		got = append(got, name)
		want := "gauge"
		switch {
		case strings.HasSuffix(name, "duration_seconds"):
			want = "histogram"
		case strings.HasSuffix(name, "_total") && name != "sync_proxy_rules_no_local_endpoints_total":
			want = "counter"
		}
		if kind != want {
			t.Errorf("%s is a %s, kube-proxy's a %s", name, kind, want)
		}
		if !regexp.MustCompile(`(?m)^//\t` + name + `(\{\S+\})?\s`).Match(doc) {
			t.Errorf("doc.go does not say what %s means", name)
		}
	}
	if !slices.Equal(got, kubeProxyNames) {
		t.Errorf("shown: %q\nwant:  %q", got, kubeProxyNames)
	}
}

func TestNetworkBuckets(t *testing.T) {
	b := networkBuckets()
	if !slices.IsSorted(b) || len(b) != 80 || fmt.Sprint(b[:4]) != "[0.25 0.5 1 2]" || fmt.Sprint(b[60:63]) != "[59 60 65]" ||
		fmt.Sprint(b[71:75]) != "[110 115 120 150]" || b[79] != 300 {
		t.Errorf("%v", b)
	}
}

func TestHowLongProgrammingTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMeter(bothIPs)
		m.Queued(web, model.IPv4)
		m.Queued(web, model.IPv6)
		time.Sleep(time.Second)
		m.Queued(web, model.IPv4) // while the first change is on its way
		time.Sleep(2 * time.Second)
		m.Synced(web, model.IPv4)
		m.Synced(web, model.IPv4)                                       // told again
		m.Synced(model.Name{Namespace: "x", Name: "other"}, model.IPv6) // nothing was queued
		equalLines(t, sample(t, m, "kubeproxy_sync_proxy_rules_duration_seconds"),
			"ip_family=IPv4 1 3", "ip_family=IPv6 0 0")
		if len(m.changes.since) != 1 {
			t.Errorf("on their way: %v", m.changes.since)
		}
		m.Programmed(model.IPv6, 1500*time.Millisecond)
		m.Programmed(model.IPv6, -time.Second) // another machine's clock
		equalLines(t, sample(t, m, "kubeproxy_network_programming_duration_seconds"),
			"ip_family=IPv4 0 0", "ip_family=IPv6 2 1.5")
		m.Swept(250*time.Millisecond, 3)
		m.Swept(250*time.Millisecond, 0)
		equalLines(t, sample(t, m, "kubeproxy_conntrack_reconciler_sync_duration_seconds"), " 2 0.5")
		m.Applied("ipvs", 2*time.Millisecond)
		equalLines(t, sample(t, m, "sluice_table_apply_duration_seconds"), "table=ipvs 1 0.002")
	})
}

// sample are a histogram's labels, counts and sums.
func sample(t *testing.T, m *Meter, name string) []string {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(m)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, s := range f.GetMetric() {
			var labels []string
			for _, l := range s.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			out = append(out, fmt.Sprintf("%s %d %v", strings.Join(labels, ","), s.GetHistogram().GetSampleCount(), s.GetHistogram().GetSampleSum()))
		}
	}
	return out
}

func TestChanges(t *testing.T) {
	m := NewMeter(bothIPs)
	names := []string{
		"kubeproxy_sync_proxy_rules_endpoint_changes_pending", "kubeproxy_sync_proxy_rules_endpoint_changes_total",
		"kubeproxy_sync_proxy_rules_service_changes_pending", "kubeproxy_sync_proxy_rules_service_changes_total",
	}
	for _, e := range []model.Event{
		{Put: model.Service{Name: web}},
		{Put: model.EndpointSlice{Name: web}},
		{Put: model.EndpointSlice{Name: web}},
		{Put: model.Node{Name: "n"}},
		{Put: model.LocalAddrs{}},
		{Delete: model.NodeKey{Name: "n"}},
		{Problem: &model.Problem{}},
		{Synced: true},
	} {
		m.Event(e)
	}
	equalLines(t, scraped(t, Metrics{Meter: m}, names...),
		names[0]+" 2", names[1]+" 2", names[2]+" 1", names[3]+" 1")
	m.CaughtUp()
	m.Event(model.Event{Delete: model.ServiceKey{Name: web}})
	equalLines(t, scraped(t, Metrics{Meter: m}, names...),
		names[0]+" 0", names[1]+" 2", names[2]+" 1", names[3]+" 2")
	m.Event(model.Event{Delete: model.EndpointSliceKey{Name: web}})
	m.CaughtUp()
	equalLines(t, scraped(t, Metrics{Meter: m}, names...),
		names[0]+" 0", names[1]+" 3", names[2]+" 0", names[3]+" 2")
}

// TestTimestamps: what was queued is newer than what the tables held when, and
// only when, something is missing.
func TestTimestamps(t *testing.T) {
	m := NewMeter(bothIPs)
	names := []string{"kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", "kubeproxy_sync_proxy_rules_last_timestamp_seconds"}
	s := good()
	s.Synced = false
	loops := func() []reconcile.Status { return []reconcile.Status{s} }
	shown := func() []string {
		return scraped(t, Metrics{Loops: loops, Meter: m, Health: Health{Loops: loops}}, names...)
	}
	equalLines(t, shown())

	s = failing("ipvs", t0, 0)
	m.Queued(web, model.IPv6)
	got := shown()
	if len(got) != 3 || !strings.HasPrefix(got[0], names[0]+`{ip_family="IPv6"} 1.`) {
		t.Fatalf("%q", got)
	}
	equalLines(t, got[1:], names[1]+`{ip_family="IPv4"} 1e+06`, names[1]+`{ip_family="IPv6"} 1e+06`)
}

func TestNoLocalEndpoints(t *testing.T) {
	frontend := func(kind model.FrontendKind, addr string, onlyLocal bool, cluster, local []model.Backend) model.Frontend {
		return model.Frontend{
			FrontendKey: model.FrontendKey{Addr: netip.MustParseAddrPort(addr), Protocol: model.TCP},
			Kind:        kind, OnlyLocal: onlyLocal, Cluster: cluster, Local: local,
		}
	}
	const v4, v6 = "10.96.0.1:80", "[fd00::1]:80"
	for name, c := range map[string]struct {
		frontends []model.Frontend
		want      string // IPv4 external, internal, IPv6 external, internal
	}{
		"policy Cluster":                         {[]model.Frontend{frontend(model.ClusterIP, v4, false, elsewhere, nil)}, "0 0 0 0"},
		"internal, endpoints elsewhere":          {[]model.Frontend{frontend(model.ClusterIP, v4, true, elsewhere, nil)}, "0 1 0 0"},
		"internal, an endpoint here":             {[]model.Frontend{frontend(model.ClusterIP, v4, true, elsewhere, elsewhere)}, "0 0 0 0"},
		"internal, none anywhere":                {[]model.Frontend{frontend(model.ClusterIP, v4, true, nil, nil)}, "0 0 0 0"},
		"external: NodePort":                     {[]model.Frontend{frontend(model.NodePort, v4, true, elsewhere, nil)}, "1 0 0 0"},
		"external: external IP":                  {[]model.Frontend{frontend(model.ExternalIP, v6, true, elsewhere, nil)}, "0 0 1 0"},
		"a Service counts once for its two VIPs": {[]model.Frontend{frontend(model.NodePort, v4, true, elsewhere, nil), frontend(model.LoadBalancerIP, "192.0.2.7:80", true, elsewhere, nil)}, "1 0 0 0"},
		"both policies, both families": {[]model.Frontend{
			frontend(model.ClusterIP, v4, true, elsewhere, nil), frontend(model.LoadBalancerIP, v4, true, elsewhere, nil),
			frontend(model.ClusterIP, v6, true, elsewhere, nil), frontend(model.LoadBalancerIP, v6, true, elsewhere, nil),
		}, "1 1 1 1"},
	} {
		t.Run(name, func(t *testing.T) {
			m := NewMeter(bothIPs)
			check := func(want string) {
				t.Helper()
				var got []string
				for _, line := range scraped(t, Metrics{Meter: m}, "kubeproxy_sync_proxy_rules_no_local_endpoints_total") {
					got = append(got, line[strings.LastIndex(line, " ")+1:])
				}
				if strings.Join(got, " ") != want {
					t.Errorf("%q, want %s", got, want)
				}
			}
			view := model.View{Service: web, Frontends: c.frontends}
			for range 2 { // told of again it counts the same
				for _, f := range bothIPs {
					m.Resolved(f, view.Only(f))
				}
				check(c.want)
			}
			for _, f := range bothIPs { // the Service is gone
				m.Resolved(f, model.View{Service: web})
			}
			check("0 0 0 0")
		})
	}
}

func TestKernelErrors(t *testing.T) {
	m := NewMeter(nil)
	m.Failed("ipvs", fmt.Errorf("add destination: %w", syscall.ENOENT))
	m.Failed("ipvs", errors.Join(errors.New("first"), fmt.Errorf("then: %w", syscall.ENOENT)))
	m.Failed("vip", syscall.EADDRINUSE)
	m.Failed("netfilter", errors.New("iptables-restore: exit status 2"))
	m.Failed("ipvs", context.DeadlineExceeded)
	m.Failed("ipvs", syscall.Errno(9999))
	equalLines(t, scraped(t, Metrics{Meter: m}, "sluice_kernel_errors_total"),
		`sluice_kernel_errors_total{errno="EADDRINUSE",table="vip"} 1`,
		`sluice_kernel_errors_total{errno="ENOENT",table="ipvs"} 2`,
		`sluice_kernel_errors_total{errno="other",table="ipvs"} 2`,
		`sluice_kernel_errors_total{errno="other",table="netfilter"} 1`,
	)
}

func TestProbesAreCounted(t *testing.T) {
	m, leaving := NewMeter(nil), ""
	loops := func() []reconcile.Status { return []reconcile.Status{good()} }
	h := HealthHandler(Health{Loops: loops, Limit: time.Minute, Node: func() string { return leaving }, Meter: m})
	names := []string{"kubeproxy_proxy_healthz_total", "kubeproxy_proxy_livez_total"}
	equalLines(t, scraped(t, Metrics{Meter: m}, names...),
		names[0]+`{code="200"} 0`, names[0]+`{code="503"} 0`, names[1]+`{code="200"} 0`, names[1]+`{code="503"} 0`)
	get(t, h, "/healthz")
	get(t, h, "/livez")
	leaving = "tainted"
	get(t, h, "/healthz")
	get(t, h, "/healthz")
	get(t, h, "/livez")
	get(t, h, "/readyz")
	equalLines(t, scraped(t, Metrics{Meter: m}, names...),
		names[0]+`{code="200"} 1`, names[0]+`{code="503"} 2`, names[1]+`{code="200"} 2`, names[1]+`{code="503"} 0`)
}

func TestServers(t *testing.T) {
	equalLines(t, scraped(t, Metrics{Servers: func() Servers { return Servers{VirtualServers: 3, Serving: 7, Draining: 2} }},
		"sluice_ipvs_virtual_servers", "sluice_ipvs_destinations"),
		`sluice_ipvs_destinations{state="draining"} 2`,
		`sluice_ipvs_destinations{state="serving"} 7`,
		"sluice_ipvs_virtual_servers 3")
}

func TestConnections(t *testing.T) {
	at := func(addr string, p model.Protocol) model.FrontendKey {
		return model.FrontendKey{Addr: netip.MustParseAddrPort(addr), Protocol: p}
	}
	dns := model.Name{Namespace: "kube-system", Name: "dns"}
	var fails error
	h := MetricsHandler(Metrics{
		Loops: func() []reconcile.Status { return nil },
		Connections: func(context.Context) ([]Connections, error) {
			return []Connections{
				{dns, at("10.96.0.10:53", model.UDP), 0, 12},
				{web, at("[fd00::1]:80", model.TCP), 1, 0},
				{web, at("10.96.0.1:80", model.TCP), 3, 40},
			}, fails
		},
	})
	want := "SERVICE          FRONTEND           ACTIVE  INACTIVE\n" +
		"default/web      10.96.0.1:80/TCP   3       40\n" +
		"default/web      [fd00::1]:80/TCP   1       0\n" +
		"kube-system/dns  10.96.0.10:53/UDP  0       12\n"
	if code, body := get(t, h, "/connections"); code != http.StatusOK || body != want {
		t.Errorf("%d\n%swant:\n%s", code, body, want)
	}
	fails = errors.New("no such table")
	if code, body := get(t, h, "/connections"); code != http.StatusInternalServerError || body != "cannot count connections: no such table\n" {
		t.Errorf("%d %s", code, body)
	}
	none := MetricsHandler(Metrics{Loops: func() []reconcile.Status { return nil }})
	if code, _ := get(t, none, "/connections"); code != http.StatusNotFound {
		t.Errorf("%d where nobody can count", code)
	}
}

func TestProxyMode(t *testing.T) {
	h := MetricsHandler(Metrics{Loops: func() []reconcile.Status { return nil }})
	for path, want := range map[string]string{"/proxyMode": "ipvs", "/healthz": "ok"} {
		if code, body := get(t, h, path); code != http.StatusOK || body != want {
			t.Errorf("%s: %d %q, want %q", path, code, body, want)
		}
	}
}

// TestToldAndScraped is for the race detector.
func TestToldAndScraped(t *testing.T) {
	m := NewMeter(bothIPs)
	view := model.View{Service: web, Frontends: []model.Frontend{{
		FrontendKey: model.FrontendKey{Addr: netip.MustParseAddrPort("10.96.0.1:80")}, OnlyLocal: true, Cluster: elsewhere,
	}}}
	var told sync.WaitGroup
	for i := range 4 {
		told.Go(func() {
			for range 200 {
				m.Event(model.Event{Put: model.Service{Name: web}})
				m.Resolved(model.IPv4, view)
				m.Queued(web, model.IPv4)
				m.CaughtUp()
				m.Applied("ipvs", time.Millisecond)
				m.Failed("ipvs", syscall.EBUSY)
				m.Synced(web, model.IPv4)
				m.Programmed(model.IPv4, time.Duration(i)*time.Second)
				m.Swept(time.Millisecond, 1)
			}
		})
	}
	for range 10 {
		scraped(t, Metrics{Meter: m})
	}
	told.Wait()
	equalLines(t, scraped(t, Metrics{Meter: m}, "kubeproxy_sync_proxy_rules_service_changes_total", "kubeproxy_conntrack_reconciler_deleted_entries_total"),
		"kubeproxy_conntrack_reconciler_deleted_entries_total 800", "kubeproxy_sync_proxy_rules_service_changes_total 800")
}
