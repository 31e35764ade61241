package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/bgp"
	"sluice.dev/sluice/internal/engine"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
)

func addrs(texts ...string) (list []netip.Addr) {
	for _, t := range texts {
		list = append(list, netip.MustParseAddr(t))
	}
	return list
}

func inDefault(name string) model.Name { return model.Name{Namespace: "default", Name: name} }

// shop is what node1 knows: a Service with all kinds of frontends and endpoints,
// and one that waits for its address.
func shop() *model.Store {
	s := model.NewStore(model.StoreOptions{NodeName: "node1"})
	at := func(a, node, pod string) model.Endpoint {
		return model.Endpoint{Addr: netip.MustParseAddr(a), Node: node, Pod: pod, Zone: "a", Ready: true, Serving: true}
	}
	unready, leaving := at("10.244.2.3", "node2", "web-3"), at("10.244.2.4", "node2", "web-4")
	unready.Ready, unready.Serving = false, false
	leaving.Ready, leaving.Terminating = false, true
	for _, fact := range []any{
		model.Node{Name: "node1", Addrs: addrs("192.0.2.11")},
		model.LocalAddrs{Addrs: addrs("192.0.2.11")},
		model.Service{
			Name: inDefault("web"), Created: time.Unix(1000, 0), ClusterIPs: addrs("10.96.0.80"), ExternalIPs: addrs("2001:db8::1"),
			LoadBalancerIPs: addrs("203.0.113.80"), Ports: []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80, NodePort: 30080}},
			ExternalLocal: true, HealthPort: 32000, Affinity: 3 * time.Hour, Scheduler: "lc",
			SourceRanges: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("192.0.2.0/24")},
			Balancer:     model.Balancer{Wanted: true, Status: addrs("203.0.113.80")},
		},
		model.EndpointSlice{
			Name: inDefault("web-x"), Service: "web", Family: model.IPv4, Ports: []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 8080}},
			Endpoints: []model.Endpoint{at("10.244.1.2", "node1", "web-1"), at("10.244.2.2", "node2", "web-2"), unready, leaving},
		},
		model.Service{
			Name: inDefault("api"), Created: time.Unix(2000, 0), ClusterIPs: addrs("10.96.0.81"),
			Ports:    []model.ServicePort{{Protocol: model.UDP, Port: 53}},
			Balancer: model.Balancer{Wanted: true},
		},
	} {
		s.Apply(model.Event{Put: fact})
	}
	return s
}

// shopNode is node1: the load balancer's frontend is refused by a table, and one
// destination drains.
func shopNode(s *model.Store) *Node {
	return &Node{
		Name: "node1", Families: []model.Family{model.IPv4, model.IPv6},
		Service: func(_ context.Context, name model.Name) (engine.ServiceState, error) {
			x, ok := model.Explain(s, name)
			if !ok {
				return engine.ServiceState{}, fmt.Errorf("Service %s: %w", name, engine.ErrNoService)
			}
			state := engine.ServiceState{Explained: x}
			for _, f := range x.Frontends {
				fs := engine.FrontendState{Stage: engine.Stage{Progress: engine.Programmed}}
				switch f.Kind {
				case model.LoadBalancerIP:
					fs.Stage = engine.Stage{Progress: engine.Failing, Why: "vip: 203.0.113.80: no\nbuffer space"}
				case model.ExternalIP:
					fs.Stage = engine.Stage{Progress: engine.Withheld, Why: f.Withheld.Text}
				case model.ClusterIP:
					fs.Leaving = []netip.AddrPort{netip.MustParseAddrPort("10.244.3.9:8080")}
				case model.NodePort, model.Shortcut:
				}
				state.Frontends = append(state.Frontends, fs)
			}
			for range x.Health {
				state.Health = append(state.Health, engine.Stage{Progress: engine.Programmed})
			}
			return state, nil
		},
		Services: func(_ context.Context, choose func(model.Name) bool) (list []engine.ServiceSummary, err error) {
			for _, n := range model.ServiceNames(s) {
				if choose(n) {
					sum, _ := model.Summarize(s, n)
					list = append(list, engine.ServiceSummary{Summary: sum, Waiting: n.Name == "api"})
				}
			}
			return list, nil
		},
		Names: func(context.Context) (list []engine.ServiceNames, err error) {
			for _, n := range model.ServiceNames(s) {
				list = append(list, engine.ServiceNames{Service: n, Names: model.NamesOf(s, n)})
			}
			return list, nil
		},
		Destinations: func(_ context.Context, keys []model.FrontendKey) (map[model.FrontendKey][]Destination, error) {
			found := map[model.FrontendKey][]Destination{}
			for _, k := range keys {
				if k.Addr.Addr() == netip.MustParseAddr("10.96.0.80") {
					found[k] = []Destination{
						{Address: netip.MustParseAddrPort("10.244.3.9:8080"), Active: 3, Inactive: 1},
						{Address: netip.MustParseAddrPort("10.244.2.2:8080"), Weight: 1, Active: 2},
						{Address: netip.MustParseAddrPort("10.244.1.2:8080"), Weight: 1, Active: 5, Inactive: 7},
					}
				}
			}
			return found, nil
		},
	}
}

// nodeHandler serves a node, which tells one of two peers of its address.
func nodeHandler(n *Node) http.Handler {
	a := netip.MustParseAddr("203.0.113.80")
	row := bgp.Row{Addr: a, Prefix: netip.PrefixFrom(a, 32), Peer: "tor1", Told: true, Reason: "ready endpoint here (default/web)", Services: []model.Name{inDefault("web")}}
	other := row
	other.Peer = "tor2"
	foreign := row
	foreign.Services = []model.Name{inDefault("other")}
	return MetricsHandler(Metrics{Loops: func() []reconcile.Status { return nil }, Node: n, BGP: &BGP{
		Routes: func() []bgp.Row { return []bgp.Row{row, other, foreign} },
		Peers: func() []bgp.PeerState {
			return []bgp.PeerState{{Peer: "tor1", State: "established"}, {Peer: "tor2", State: "active"}}
		},
	}})
}

func fetch[T any](t *testing.T, h http.Handler, path string) (v T) {
	t.Helper()
	code, body := get(t, h, path)
	if err := json.Unmarshal([]byte(body), &v); err != nil || code != http.StatusOK {
		t.Fatalf("%s: %d %s (%v)", path, code, body, err)
	}
	return v
}

// TestOneServiceAsText: what a person sees, from the store by HTTP to the table.
func TestOneServiceAsText(t *testing.T) {
	d := fetch[ServiceDetail](t, nodeHandler(shopNode(shop())), "/services/default/web")
	for wide, want := range map[bool]string{
		false: `
default/web, LoadBalancer, on node1
traffic policy: external Local, internal Cluster; a client keeps its endpoint for 3h0m0s; scheduler lc

FRONTEND              KIND          PORT  POLICY   ENDPOINTS  STATE       REASON
TCP 10.96.0.80:80     ClusterIP     http  Cluster  2          programmed  -
TCP 192.0.2.11:30080  NodePort      http  Local    1          programmed  -
TCP 203.0.113.80:80   LoadBalancer  http  Local    1          failing     vip: 203.0.113.80: no buffer space
TCP [2001:db8::1]:80  ExternalIP    http  Local    -          withheld    spec.externalIPs: 2001:db8::1 is an IPv6 address but the Service has no IPv6 cluster IP; remove it, or add the family to spec.ipFamilies
TCP 10.96.0.80:80 -> 10.244.3.9:8080: leaving, with weight 0, until its connections have ended: 3 active, 1 others

ENDPOINT         PORT  POD    NODE   CLUSTER                                 LOCAL
10.244.1.2:8080  http  web-1  node1  in: ready                               in: ready on this node
10.244.2.2:8080  http  web-2  node2  in: ready                               out: on node2, not on this node
10.244.2.3:8080  http  web-3  node2  out: not ready                          out: on node2, not on this node
10.244.2.4:8080  http  web-4  node2  out: terminating, and others are ready  out: on node2, not on this node

HEALTH CHECK      READY HERE  STATE       REASON
192.0.2.11:32000  1           programmed  -

routes: 203.0.113.80 told to 1 of 2 peers
ADDRESS       PREFIX           PEER  STATE    SERVICES     REASON
203.0.113.80  203.0.113.80/32  tor1  told     default/web  ready endpoint here (default/web)
203.0.113.80  203.0.113.80/32  tor2  waiting  default/web  the session is in state active
`,
		true: `
default/web, LoadBalancer, on node1
traffic policy: external Local, internal Cluster; a client keeps its endpoint for 3h0m0s; scheduler lc

FRONTEND              KIND          PORT  POLICY   ENDPOINTS  STATE       SOURCE RANGES                 ACTIVE  INACTIVE  REASON
TCP 10.96.0.80:80     ClusterIP     http  Cluster  2          programmed  -                             10      8         -
TCP 192.0.2.11:30080  NodePort      http  Local    1          programmed  -                             0       0         -
TCP 203.0.113.80:80   LoadBalancer  http  Local    1          failing     198.51.100.0/24,192.0.2.0/24  0       0         vip: 203.0.113.80: no buffer space
TCP [2001:db8::1]:80  ExternalIP    http  Local    -          withheld    -                             0       0         spec.externalIPs: 2001:db8::1 is an IPv6 address but the Service has no IPv6 cluster IP; remove it, or add the family to spec.ipFamilies
TCP 10.96.0.80:80 -> 10.244.3.9:8080: leaving, with weight 0, until its connections have ended: 3 active, 1 others

ENDPOINT         PORT  POD    NODE   ZONE  CONDITIONS           SLICE          WEIGHT  ACTIVE  INACTIVE  CLUSTER                                 LOCAL
10.244.1.2:8080  http  web-1  node1  a     ready,serving        default/web-x  1       5       7         in: ready                               in: ready on this node
10.244.2.2:8080  http  web-2  node2  a     ready,serving        default/web-x  1       2       0         in: ready                               out: on node2, not on this node
10.244.2.3:8080  http  web-3  node2  a     none                 default/web-x  -       -       -         out: not ready                          out: on node2, not on this node
10.244.2.4:8080  http  web-4  node2  a     serving,terminating  default/web-x  -       -       -         out: terminating, and others are ready  out: on node2, not on this node

HEALTH CHECK      READY HERE  STATE       REASON
192.0.2.11:32000  1           programmed  -

routes: 203.0.113.80 told to 1 of 2 peers
ADDRESS       PREFIX           PEER  STATE    SERVICES     NEXT HOP  COMMUNITIES  LOCAL PREF  MED  REASON
203.0.113.80  203.0.113.80/32  tor1  told     default/web  -         -            -           -    ready endpoint here (default/web)
203.0.113.80  203.0.113.80/32  tor2  waiting  default/web  -         -            -           -    the session is in state active
`,
	} {
		var b strings.Builder
		WriteService(&b, d, wide)
		if got := "\n" + b.String(); got != want {
			t.Errorf("wide %v:%s\nwant%s", wide, got, want)
		}
	}
}

// TestServicesAsText: the list, whole and chosen.
func TestServicesAsText(t *testing.T) {
	h := nodeHandler(shopNode(shop()))
	now := time.Unix(1000+3600, 0)
	for path, want := range map[string]string{
		"/services": `
SERVICE      TYPE          CLUSTER IP  EXTERNAL IP               PORTS         ENDPOINTS  STATE
default/api  LoadBalancer  10.96.0.81  <pending>                 53/UDP        0 of 0     waiting
default/web  LoadBalancer  10.96.0.80  203.0.113.80,2001:db8::1  80:30080/TCP  2 of 4     programmed
default/api: no load-balancer IP: there is no AddressPool; make one, or have another load balancer give it an address
default/web: FamilyMismatch: spec.externalIPs: 2001:db8::1 is an IPv6 address but the Service has no IPv6 cluster IP; remove it, or add the family to spec.ipFamilies
`,
		"/services?name=api&namespace=default": `
SERVICE      TYPE          CLUSTER IP  EXTERNAL IP  PORTS   ENDPOINTS  STATE
default/api  LoadBalancer  10.96.0.81  <pending>    53/UDP  0 of 0     waiting
default/api: no load-balancer IP: there is no AddressPool; make one, or have another load balancer give it an address
`,
		"/services?namespace=other": "\nSERVICE  TYPE  CLUSTER IP  EXTERNAL IP  PORTS  ENDPOINTS  STATE\n",
	} {
		var b strings.Builder
		WriteServices(&b, fetch[ServiceList](t, h, path), now, false)
		if got := "\n" + b.String(); got != want {
			t.Errorf("%s:%s\nwant%s", path, got, want)
		}
	}
	var b strings.Builder
	WriteServices(&b, fetch[ServiceList](t, h, "/services?name=web"), now, true)
	if got := b.String(); !strings.Contains(got, "EXTERNAL POLICY  INTERNAL POLICY  AGE\n") || !strings.Contains(got, "Local            Cluster          1h0m\n") {
		t.Errorf("wide:\n%s", got)
	}
}

// TestServicesOverHTTP: what is no answer.
func TestServicesOverHTTP(t *testing.T) {
	n := shopNode(shop())
	if code, body := get(t, nodeHandler(n), "/services/default/none"); code != http.StatusNotFound ||
		body != "Service default/none: there is no such Service, or it is not proxied: headless, of type ExternalName, or another proxy's\n" {
		t.Errorf("no such Service: %d %s", code, body)
	}
	n.Destinations = func(context.Context, []model.FrontendKey) (map[model.FrontendKey][]Destination, error) {
		return nil, errors.New("no such module")
	}
	d := fetch[ServiceDetail](t, nodeHandler(n), "/services/default/web")
	if d.Unread != "connections and weights cannot be read: no such module" || len(d.Frontends) != 4 {
		t.Errorf("without the kernel: %+v", d)
	}
	busy := errors.New("no answer in time")
	n.Service = func(context.Context, model.Name) (engine.ServiceState, error) { return engine.ServiceState{}, busy }
	n.Names = func(context.Context) ([]engine.ServiceNames, error) { return nil, busy }
	n.Services = func(context.Context, func(model.Name) bool) ([]engine.ServiceSummary, error) { return nil, busy }
	for _, path := range []string{"/services", "/services/default/web", "/names"} {
		if code, body := get(t, nodeHandler(n), path); code != http.StatusServiceUnavailable || body != "no answer in time\n" {
			t.Errorf("%s of a busy engine: %d %s", path, code, body)
		}
		if code, _ := get(t, nodeHandler(nil), path); code != http.StatusNotFound {
			t.Errorf("%s without a node: %d", path, code)
		}
	}
}

// TestNamesOverHTTP: as /names promises, whatever the order of Services.
func TestNamesOverHTTP(t *testing.T) {
	at := netip.MustParseAddrPort
	who := func(a, pod, node string) model.NamedEndpoint {
		return model.NamedEndpoint{Addr: at(a), Pod: pod, Node: node}
	}
	key := func(p model.Protocol, a string) model.FrontendKey { return model.FrontendKey{Addr: at(a), Protocol: p} }
	all := []engine.ServiceNames{
		{Service: inDefault("web"), Names: model.Names{
			Frontends: map[model.FrontendKey]string{key(model.TCP, "10.96.0.80:80"): "http", key(model.SCTP, "[fd00::1]:9"): ""},
			Endpoints: []model.NamedEndpoint{who("10.244.1.2:8080", "web-1", ""), who("10.244.1.2:9090", "", "node1"), who("192.0.2.11:8080", "proxy-1", "node1")},
		}},
		{Service: model.Name{Namespace: "mon", Name: "node"}, Names: model.Names{
			Endpoints: []model.NamedEndpoint{who("192.0.2.11:9100", "exporter-1", "node1"), who("192.0.2.12:9100", "exporter-2", "node2"), who("192.0.2.13:9100", "", "node3")},
		}},
	}
	want := NameList{
		Services: map[string]string{"TCP 10.96.0.80:80": "default/web:http", "SCTP [fd00::1]:9": "default/web"},
		Endpoints: map[string]EndpointName{
			"10.244.1.2":      {"default/web-1", "node1"},
			"192.0.2.11:8080": {"default/proxy-1", "node1"}, // two pods of the host's network
			"192.0.2.11:9100": {"mon/exporter-1", "node1"},
			"192.0.2.12":      {"mon/exporter-2", "node2"},
			"192.0.2.13":      {"", "node3"},
		},
	}
	for range 2 {
		n := &Node{Names: func(context.Context) ([]engine.ServiceNames, error) { return all, nil }}
		if got := fetch[NameList](t, nodeHandler(n), "/names"); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v\nwant %+v", got, want)
		}
		all[0], all[1] = all[1], all[0]
	}
}

// TestStateAsJSON has all that the text has, and the verdicts.
func TestStateAsJSON(t *testing.T) {
	s := good()
	s.Dels, s.Deferred, s.Drift, s.FailingCount, s.FailingSince = 3, 2, 4, 1, time.Now().Add(-time.Hour)
	s.Failing = []reconcile.Failure{{Key: "k", Error: "no\nroom", Since: s.FailingSince, Tries: 2}}
	loops := func() []reconcile.Status { return []reconcile.Status{s} }
	h := MetricsHandler(Metrics{
		Loops: loops, Version: "v9", Node: shopNode(shop()), Policy: policing(), Meter: NewMeter(nil),
		BGP:    &BGP{Peers: func() []bgp.PeerState { return nil }, Routes: func() []bgp.Row { return nil }},
		Health: Health{Loops: loops, Limit: time.Minute, Node: func() string { return "it is being deleted" }},
	})
	got := fetch[State](t, h, "/state?format=json")
	l := got.Loops[0]
	if l.Table != "ipvs" || l.Wanted != 3 || l.Dirty != 1 || l.Draining != 2 || l.Work.Drift != 4 || l.Failing[0].Error != "no room" {
		t.Errorf("%+v", l)
	}
	if v := got.Health; v.Healthy || v.Eligible || v.Ready || len(v.Reasons) != 2 || v.NotReady != "ipvs: 0 to write, 1 to delete" {
		t.Errorf("%+v", v)
	}
	if got.Policy.Pods != 2 || got.BGP == nil || got.Version != "v9" || got.Node != "node1" || strings.Join(got.Families, " ") != "IPv4 IPv6" {
		t.Errorf("%+v", got)
	}
	var b strings.Builder
	WriteStatus(&b, got)
	const want = `sluice v9 on node1, serving IPv4 and IPv6
not healthy, not ready (ipvs: 0 to write, 1 to delete), load balancers are to leave this node
  ipvs: 1 failing, first k: no room, for 1h0m0s
  node: it is being deleted
NetworkPolicy: 1 policies isolate pods here, of 2 pods 0 for ingress and 1 for egress

TABLE  WANTED  PRESENT  DIRTY  DRAINING  FAILING  DRIFT  SYNCED  LAST APPLIED
ipvs   3       3        1      2         1        4      true    never
ipvs: k: no room (2 tries, for 1h0m0s)
`
	if b.String() != want {
		t.Errorf("%s\nwant\n%s", b.String(), want)
	}
	if code, body := get(t, h, "/state?format=xml"); code != http.StatusBadRequest || !strings.Contains(body, "use json") {
		t.Errorf("%d %s", code, body)
	}
}
