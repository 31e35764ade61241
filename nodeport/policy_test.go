package nodeport_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
	"sluice.dev/sluice/nodeport"
)

// service is the world's Service, resolved on a node with one of its two
// endpoints, or with none of them.
func (w world) service(t *testing.T, endpoints []string, change func(*model.Service)) model.View {
	t.Helper()
	svc := model.Service{
		Name:            model.Name{Namespace: "default", Name: "web"},
		ClusterIPs:      []netip.Addr{w.clusterIP.Addr()},
		ExternalIPs:     []netip.Addr{w.external.Addr()},
		LoadBalancerIPs: []netip.Addr{w.lb.Addr()},
		Ports:           []model.ServicePort{{Protocol: model.TCP, Port: w.clusterIP.Port(), NodePort: w.nodePort.Port()}},
	}
	change(&svc)
	at := map[string]netip.AddrPort{"here": w.localEndpoint, "elsewhere": w.remoteEndpoint}
	slice := model.EndpointSlice{
		Name: svc.Name, Service: svc.Name.Name, Family: w.family,
		Ports: []model.EndpointPort{{Protocol: model.TCP, Port: w.localEndpoint.Port()}},
	}
	for _, e := range endpoints {
		slice.Endpoints = append(slice.Endpoints, model.Endpoint{Addr: at[e].Addr(), Node: e, Ready: true, Serving: true})
	}
	s := model.NewStore(model.StoreOptions{NodeName: "here"})
	for _, fact := range []any{model.Node{Name: "here", Addrs: []netip.Addr{w.node}}, svc, slice} {
		s.Apply(model.Event{Put: fact})
	}
	view := model.Resolve(s, svc.Name)
	if len(view.Problems) > 0 || len(view.Frontends) < 4 {
		t.Fatalf("resolved to %+v", view)
	}
	return view
}

// program is a kernel with what a view wants, and the host around it.
func (w world) program(t *testing.T, cfg nodeport.Config, view model.View) (*netfiltertest.Kernel, netfiltertest.Host) {
	t.Helper()
	k := netfiltertest.New()
	want := nodeport.Static(cfg)
	maps.Copy(want, nodeport.Desired(view))
	target := netfilter.New(netfilter.Options{Runner: k, Sets: k, Families: cfg.Families})
	for key, err := range target.Apply(t.Context(), difference(want, nil)) {
		t.Fatalf("%s: %v", key, err)
	}
	h := netfiltertest.Host{Local: []netip.Addr{w.node}, Servers: map[model.FrontendKey]netip.AddrPort{}}
	for _, f := range view.Frontends {
		if backends := f.Backends(); len(backends) > 0 {
			h.Servers[f.FrontendKey] = backends[0].Addr
		}
		if f.Bound() {
			h.Local = append(h.Local, f.Addr.Addr())
		}
	}
	return k, h
}

func (w world) source(from string) netip.AddrPort {
	return netip.AddrPortFrom(map[string]netip.Addr{"pod": w.pod, "node": w.node, "external": w.client}[from], 40000)
}

func (w world) frontend(to string) netip.AddrPort {
	return map[string]netip.AddrPort{"ClusterIP": w.clusterIP, "NodePort": w.nodePort, "externalIP": w.external, "LB": w.lb}[to]
}

// The truth table of section 1.4: which endpoints a connection may get, and
// whether its source becomes the node's.
const truthTable = `
from     to         | Cluster  | eTP Local | iTP Local  | both Local
pod      ClusterIP  | all      | all       | local      | local
pod      NodePort   | all masq | all       | all masq   | all
pod      externalIP | all masq | all       | all masq   | all
pod      LB         | all masq | all       | all masq   | all
node     ClusterIP  | all masq | all masq  | local masq | local masq
node     NodePort   | all masq | all masq  | all masq   | all masq
node     externalIP | all masq | all masq  | all masq   | all masq
node     LB         | all masq | all masq  | all masq   | all masq
external ClusterIP  | all masq | all masq  | local masq | local masq
external NodePort   | all masq | local     | all masq   | local
external externalIP | all masq | local     | all masq   | local
external LB         | all masq | local     | all masq   | local
`

// Without a way to tell pods, ClusterIPs are not masqueraded and pods count as
// external under externalTrafficPolicy Local.
const blindTable = `
from     to         | Cluster  | eTP Local | iTP Local  | both Local
pod      ClusterIP  | all      | all       | local      | local
pod      NodePort   | all masq | local     | all masq   | local
pod      LB         | all masq | local     | all masq   | local
node     ClusterIP  | all      | all       | local      | local
node     NodePort   | all masq | all masq  | all masq   | all masq
node     LB         | all masq | all masq  | all masq   | all masq
external ClusterIP  | all      | all       | local      | local
external NodePort   | all masq | local     | all masq   | local
external LB         | all masq | local     | all masq   | local
`

const masqueradeAllTable = `
from     to         | Cluster  | eTP Local | iTP Local  | both Local
pod      ClusterIP  | all masq | all masq  | local masq | local masq
node     ClusterIP  | all masq | all masq  | local masq | local masq
external ClusterIP  | all masq | all masq  | local masq | local masq
pod      NodePort   | all masq | all       | all masq   | all
external LB         | all masq | local     | all masq   | local
`

// Where pods come in by another interface than the one that is named they are
// as clients from outside, who are masqueraded to ClusterIPs.
const otherInterfaceTable = `
from     to         | Cluster  | eTP Local | iTP Local  | both Local
pod      ClusterIP  | all masq | all masq  | local masq | local masq
pod      NodePort   | all masq | local     | all masq   | local
node     ClusterIP  | all masq | all masq  | local masq | local masq
external LB         | all masq | local     | all masq   | local
`

// mode is a configuration of the node, and the table that holds under it.
type mode struct {
	name          string
	table         string
	detector, all bool
	iface         string // that pods' packets come in by
}

// config is the node's. Who is told by the interface is not told by ranges.
func (m mode) config(w world) nodeport.Config {
	cfg := w.config(m.detector, m.all)
	cfg.PodInterface = m.iface
	return cfg
}

// interfaces are those of the node, by who is behind them.
func interfaces() map[string]string { return map[string]string{"pod": "v0", "external": "v2"} }

func modes() []mode {
	return []mode{
		{name: "with a detector", table: truthTable, detector: true},
		{name: "by the interface", table: truthTable, iface: interfaces()["pod"]},
		{name: "by how the interface's name begins", table: truthTable, iface: interfaces()["pod"] + "+"},
		{name: "by the interface, which no pod is behind", table: otherInterfaceTable, iface: interfaces()["pod"] + "x"},
		{name: "without a detector", table: blindTable},
		{name: "masquerade all", table: masqueradeAllTable, detector: true, all: true},
		{name: "masquerade all, by the interface", table: masqueradeAllTable, all: true, iface: interfaces()["pod"]},
	}
}

// policies set what a column is about.
func policies() map[string]func(*model.Service) {
	return map[string]func(*model.Service){
		"Cluster":    func(*model.Service) {},
		"eTP Local":  func(s *model.Service) { s.ExternalLocal = true },
		"iTP Local":  func(s *model.Service) { s.InternalLocal = true },
		"both Local": func(s *model.Service) { s.ExternalLocal, s.InternalLocal = true, true },
	}
}

// cell is one question of a table and its answer.
type cell struct{ from, to, policy, want string }

// cells reads a table.
func cells(table string) []cell {
	lines := strings.Split(strings.TrimSpace(table), "\n")
	columns := strings.Split(lines[0], "|")[1:]
	var out []cell
	for _, line := range lines[1:] {
		fields := strings.Split(line, "|")
		ends := strings.Fields(fields[0])
		for i, want := range fields[1:] {
			out = append(out, cell{ends[0], ends[1], strings.TrimSpace(columns[i]), strings.TrimSpace(want)})
		}
	}
	return out
}

func TestTruthTable(t *testing.T) {
	for _, mode := range modes() {
		for _, w := range worlds() {
			for _, c := range cells(mode.table) {
				t.Run(fmt.Sprintf("%s/%s/%s to %s/%s", mode.name, w.family, c.from, c.to, c.policy), func(t *testing.T) {
					view := w.service(t, []string{"here", "elsewhere"}, policies()[c.policy])
					k, host := w.program(t, mode.config(w), view)
					out := k.Trace(host, netfiltertest.Packet{
						Src: w.source(c.from), Dst: w.frontend(c.to), Protocol: model.TCP, FromNode: c.from == "node", Mark: 1,
						In: interfaces()[c.from],
					})
					i := slices.IndexFunc(view.Frontends, func(f model.Frontend) bool { return f.Addr == out.Server })
					if i < 0 || out.Fate != netfiltertest.Sent || out.Mark != 1 {
						t.Fatalf("%s", out)
					}
					got := map[int]string{1: "local", 2: "all"}[len(view.Frontends[i].Backends())]
					if out.Masqueraded {
						got += " masq"
					}
					if got != c.want {
						t.Errorf("%s, want %s\n%s", got, c.want, out)
					}
				})
			}
		}
	}
}

// The table of section 1.5, by where endpoints are. In-cluster clients are not
// kept from what is elsewhere by externalTrafficPolicy.
const vacancyTable = `
from     to         | Cluster | eTP Local | iTP Local | both Local
pod      ClusterIP  | serve   | serve     | drop      | drop
pod      NodePort   | serve   | serve     | serve     | serve
pod      LB         | serve   | serve     | serve     | serve
node     ClusterIP  | serve   | serve     | drop      | drop
node     NodePort   | serve   | serve     | serve     | serve
node     externalIP | serve   | serve     | serve     | serve
external ClusterIP  | serve   | serve     | drop      | drop
external NodePort   | serve   | drop      | serve     | drop
external externalIP | serve   | drop      | serve     | drop
external LB         | serve   | drop      | serve     | drop
`

func TestMissingEndpoints(t *testing.T) {
	fates := map[netfiltertest.Fate]string{
		netfiltertest.Sent: "serve", netfiltertest.Dropped: "drop", netfiltertest.Rejected: "reject",
	}
	for _, w := range worlds() {
		for _, c := range cells(vacancyTable) {
			for _, endpoints := range [][]string{{"elsewhere"}, nil} {
				want := c.want
				if endpoints == nil {
					want = "reject"
				}
				t.Run(fmt.Sprintf("%s/%s to %s/%s/endpoints %v", w.family, c.from, c.to, c.policy, endpoints), func(t *testing.T) {
					k, host := w.program(t, w.config(true, false), w.service(t, endpoints, policies()[c.policy]))
					out := k.Trace(host, netfiltertest.Packet{
						Src: w.source(c.from), Dst: w.frontend(c.to), Protocol: model.TCP, FromNode: c.from == "node",
					})
					if got := fates[out.Fate]; got != want {
						t.Errorf("%s, want %s\n%s", got, want, out)
					}
					if want == "reject" && out.Verdict != netfilter.Do(netfilter.Reset) {
						t.Errorf("TCP is not reset: %s", out)
					}
				})
			}
		}
	}
}

// TestShortcutIsNoDoor: the frontend that in-cluster clients are sent to is
// open to nobody who asks for it.
func TestShortcutIsNoDoor(t *testing.T) {
	for _, w := range worlds() {
		view := w.service(t, []string{"here", "elsewhere"}, policies()["both Local"])
		k, host := w.program(t, w.config(true, false), view)
		i := slices.IndexFunc(view.Frontends, func(f model.Frontend) bool { return f.Kind == model.Shortcut })
		for _, from := range []string{"pod", "external"} {
			out := k.Trace(host, netfiltertest.Packet{Src: w.source(from), Dst: view.Frontends[i].Addr, Protocol: model.TCP})
			if out.Fate != netfiltertest.Rejected {
				t.Errorf("%s: %s", from, out)
			}
		}
	}
}

// TestSourceRanges: nobody outside the ranges gets in at the load balancer's
// address, by whatever way, and at the other addresses everybody does.
func TestSourceRanges(t *testing.T) {
	for _, w := range worlds() {
		only := func(prefixes ...netip.Prefix) func(*model.Service) {
			return func(s *model.Service) { s.SourceRanges = prefixes }
		}
		host := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
		everyone := netip.PrefixFrom(w.client, 0).Masked()
		other := worlds()[0]
		if w.family == model.IPv4 {
			other = worlds()[1]
		}
		for name, c := range map[string]struct {
			ranges func(*model.Service)
			in     []string // who may come
		}{
			"none":                  {only(), []string{"pod", "node", "external"}},
			"the client":            {only(host(w.client)), []string{"external"}},
			"pods and the node":     {only(w.pods, host(w.node)), []string{"pod", "node"}},
			"everyone":              {only(everyone), []string{"pod", "node", "external"}},
			"of the other family":   {only(other.pods), nil},
			"everyone of the other": {only(netip.PrefixFrom(other.client, 0).Masked()), nil},
		} {
			for policy, set := range policies() {
				view := w.service(t, []string{"here", "elsewhere"}, func(s *model.Service) { c.ranges(s); set(s) })
				k, h := w.program(t, w.config(true, false), view)
				for _, from := range []string{"pod", "node", "external"} {
					for _, to := range []string{"LB", "ClusterIP", "NodePort", "externalIP"} {
						want := netfiltertest.Sent
						if to == "LB" && !slices.Contains(c.in, from) {
							want = netfiltertest.Dropped
						}
						out := k.Trace(h, netfiltertest.Packet{Src: w.source(from), Dst: w.frontend(to), Protocol: model.TCP, FromNode: from == "node"})
						if out.Fate != want {
							t.Errorf("%s, ranges %q, %s: %s to %s: want %q\n%s", w.family, name, policy, from, to, want, out)
						}
					}
				}
			}
		}
	}
}

// TestHealthPortIsOpen on a node that drops what it does not know.
func TestHealthPortIsOpen(t *testing.T) {
	for _, w := range worlds() {
		view := w.service(t, nil, func(s *model.Service) { s.ExternalLocal, s.HealthPort = true, 31000 })
		k, host := w.program(t, w.config(true, false), view)
		program := map[model.Family]string{model.IPv4: "iptables-restore", model.IPv6: "ip6tables-restore"}[w.family]
		if _, err := k.Run(t.Context(), []byte("*filter\n-A INPUT -j DROP\nCOMMIT\n"), program, "--noflush"); err != nil {
			t.Fatal(err)
		}
		for port, want := range map[uint16]netfiltertest.Fate{31000: netfiltertest.ToProcess, 31001: netfiltertest.Dropped} {
			out := k.Trace(host, netfiltertest.Packet{Src: w.source("external"), Dst: netip.AddrPortFrom(w.node, port), Protocol: model.TCP})
			if out.Fate != want {
				t.Errorf("port %d: want %q\n%s", port, want, out)
			}
		}
	}
}
