package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"sluice.dev/sluice/internal/engine"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/internal/status"
)

// ends runs sluice, and returns what it writes and the code it ends with.
func ends(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	var b bytes.Buffer
	cmd := root()
	cmd.SetOut(&b)
	cmd.SetErr(&b)
	cmd.SetArgs(args)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		code = complain(&b, err)
	}
	return b.String(), code
}

// serving is an agent of two Services called web and one called api, whose loops
// are as given.
func serving(loops ...reconcile.Status) http.Handler {
	s := model.NewStore(model.StoreOptions{NodeName: "node1"})
	for i, name := range []model.Name{web, api, {Namespace: "shop", Name: "web"}} {
		s.Apply(model.Event{Put: model.Service{
			Name: name, ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 0, byte(1 + i)})},
			Ports: []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80}},
		}})
	}
	s.Apply(model.Event{Put: model.EndpointSlice{
		Name: web, Service: "web", Family: model.IPv4, Ports: []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 8080}},
		Endpoints: []model.Endpoint{
			{Addr: netip.MustParseAddr("10.244.1.2"), Node: "node1", Pod: "web-1", Ready: true, Serving: true},
			{Addr: netip.MustParseAddr("10.244.2.2"), Node: "node2", Pod: "web-2"},
		},
	}})
	all := func() []reconcile.Status { return loops }
	return status.MetricsHandler(status.Metrics{
		Loops: all, Health: status.Health{Loops: all, Limit: time.Minute}, Version: "v1",
		Node: &status.Node{
			Name: "node1", Families: []model.Family{model.IPv4},
			Service: func(_ context.Context, name model.Name) (engine.ServiceState, error) {
				x, ok := model.Explain(s, name)
				if !ok {
					return engine.ServiceState{}, fmt.Errorf("Service %s: %w", name, engine.ErrNoService)
				}
				return engine.ServiceState{Explained: x, Frontends: []engine.FrontendState{{Stage: engine.Stage{Progress: engine.Programmed}}}}, nil
			},
			Services: func(_ context.Context, choose func(model.Name) bool) (list []engine.ServiceSummary, err error) {
				for _, n := range model.ServiceNames(s) {
					if sum, _ := model.Summarize(s, n); choose(n) {
						list = append(list, engine.ServiceSummary{Summary: sum})
					}
				}
				return list, nil
			},
		},
	})
}

const webText = `default/web, ClusterIP, on node1
traffic policy: external Cluster, internal Cluster

FRONTEND          KIND       PORT  POLICY   ENDPOINTS  STATE       REASON
TCP 10.96.0.1:80  ClusterIP  http  Cluster  1          programmed  -

ENDPOINT         PORT  POD    NODE   CLUSTER
10.244.1.2:8080  http  web-1  node1  in: ready
10.244.2.2:8080  http  web-2  node2  out: not ready
`

func TestServicesCommand(t *testing.T) {
	at := agent(t, serving())
	empty := agent(t, status.MetricsHandler(status.Metrics{Loops: func() []reconcile.Status { return nil }, Node: &status.Node{
		Services: func(context.Context, func(model.Name) bool) ([]engine.ServiceSummary, error) { return nil, nil },
	}}))
	for args, want := range map[string]struct {
		text string
		code int
	}{
		"services": {`SERVICE      TYPE       CLUSTER IP  EXTERNAL IP  PORTS   ENDPOINTS  STATE
default/api  ClusterIP  10.96.0.2   -            80/TCP  0 of 0     programmed
default/web  ClusterIP  10.96.0.1   -            80/TCP  1 of 2     programmed
shop/web     ClusterIP  10.96.0.3   -            80/TCP  0 of 0     programmed
`, 0},
		"services -n shop": {`SERVICE   TYPE       CLUSTER IP  EXTERNAL IP  PORTS   ENDPOINTS  STATE
shop/web  ClusterIP  10.96.0.3   -            80/TCP  0 of 0     programmed
`, 0},
		"services default/web":            {webText, 0},
		"services web -n default":         {webText, 0},
		"services default/web -n default": {webText, 0},
		"services api -o wide": {`default/api, ClusterIP, on node1
traffic policy: external Cluster, internal Cluster

FRONTEND          KIND       PORT  POLICY   ENDPOINTS    STATE       SOURCE RANGES  ACTIVE  INACTIVE  REASON
TCP 10.96.0.2:80  ClusterIP  http  Cluster  0 (refused)  programmed  -              0       0         -

ENDPOINT  PORT  POD  NODE  ZONE  CONDITIONS  SLICE  WEIGHT  ACTIVE  INACTIVE  CLUSTER
none      http  -    -     -     -           -      -       -       -         no EndpointSlice of IPv4 has any
`, 0},
		"services web":                     {"sluice: several Services are called web: name one of default/web, shop/web\n", 1},
		"services none":                    {"sluice: no Service none is proxied here: there is none, or it is headless, of type ExternalName or another proxy's; `sluice services` shows all\n", 1},
		"services none -n shop":            {"sluice: no Service none is proxied here in namespace shop: there is none, or it is headless, of type ExternalName or another proxy's; `sluice services` shows all\n", 1},
		"services shop/none":               {"sluice: the agent at http://AGENT: Service shop/none: there is no such Service, or it is not proxied: headless, of type ExternalName, or another proxy's\n", 1},
		"services shop/web -n default":     {"sluice: shop/web is not in namespace default, which -n names; leave one of them out\n", 1},
		"services a/b/c":                   {"sluice: \"a/b/c\" is no Service; use namespace/name or a name, such as default/web or web\n", 1},
		"services -o text":                 {"sluice: --output \"text\": use wide, json or yaml, or leave it out\n", 1},
		"services --agent " + empty:        {"no Service is proxied here\n", 0},
		"services -n x --agent " + empty:   {"no Service is proxied here in namespace x\n", 0},
		"services --agent a/b":             {"sluice: --agent \"a/b\": use host:port or http://host:port, such as 127.0.0.1:10249\n", 1},
		"services --agent http://" + empty: {"no Service is proxied here\n", 0},
	} {
		t.Run(args, func(t *testing.T) {
			given := strings.Fields(args)
			if !strings.Contains(args, "--agent") {
				given = append(given, "--agent", at)
			}
			got, code := ends(t, given...)
			if got = strings.ReplaceAll(got, at, "AGENT"); got != want.text || code != want.code {
				t.Errorf("exit %d\n%s\nwant exit %d\n%s", code, got, want.code, want.text)
			}
		})
	}
}

// TestServicesForPrograms: JSON and YAML hold the same, by the names of /services.
func TestServicesForPrograms(t *testing.T) {
	at := agent(t, serving(reconcile.Status{Name: "ipvs", Listed: true, Synced: true}))
	for _, args := range []string{"services", "services default/web", "status"} {
		given := append(strings.Fields(args), "--agent", at, "-o")
		js, _ := ends(t, append(given, "json")...)
		yml, _ := ends(t, append(given, "yaml")...)
		var a, b map[string]any
		if err := json.Unmarshal([]byte(js), &a); err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal([]byte(yml), &b); err != nil {
			t.Fatal(err)
		}
		delete(a, "time") // a moment later
		delete(b, "time")
		if fmt.Sprint(a) != fmt.Sprint(b) || len(a) < 2 {
			t.Errorf("%s: as JSON\n%s\nas YAML\n%s", args, js, yml)
		}
	}
	text, _ := ends(t, "services", "default/web", "--agent", at, "-o", "json")
	for _, want := range []string{`"in": false`, `"reason": "NotReady"`, `"message": "not ready"`, `"address": "10.96.0.1:80"`, `"state": "programmed"`, `"pod": "web-2"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s\nhas no %s", text, want)
		}
	}
}

// TestStatusCommand: 0 when healthy, 2 when not, 1 without an agent.
func TestStatusCommand(t *testing.T) {
	fine := reconcile.Status{Name: "ipvs", Listed: true, Synced: true, Wanted: 3, Present: 3, Puts: 1}
	broken := fine
	broken.FailingCount, broken.FailingSince = 1, time.Now().Add(-2*time.Minute)
	broken.Failing = []reconcile.Failure{{Key: "TCP 10.96.0.1:80", Error: "no such scheduler", Since: broken.FailingSince, Tries: 7}}
	const table = "\nTABLE  WANTED  PRESENT  DIRTY  DRAINING  FAILING  DRIFT  SYNCED  LAST APPLIED\n"
	for name, c := range map[string]struct {
		agent string
		code  int
		want  string
	}{
		"healthy": {agent(t, serving(fine)), 0,
			"sluice v1 on node1, serving IPv4\nhealthy, not ready (ipvs: 1 to write, 0 to delete), load balancers may use this node\nNetworkPolicy is not enforced\n" +
				table + "ipvs   3       3        1      0         0        0      true    never\n"},
		"not healthy": {agent(t, serving(broken)), 2,
			"sluice v1 on node1, serving IPv4\nnot healthy, not ready (ipvs: 1 to write, 0 to delete), load balancers may use this node\n" +
				"  ipvs: 1 failing, first TCP 10.96.0.1:80: no such scheduler, for 2m0s\nNetworkPolicy is not enforced\n" +
				table + "ipvs   3       3        1      0         1        0      true    never\nipvs: TCP 10.96.0.1:80: no such scheduler (7 tries, for 2m0s)\n"},
		"no agent":       {"127.0.0.1:1", 1, "sluice: no agent answers at http://127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused; run this on a node where `sluice run` does, and name its --metrics-bind-address with --agent\n"},
		"something else": {agent(t, http.NotFoundHandler()), 1, "sluice: the agent at http://AGENT has no /state: it is older than this command, or --agent names something else\n"},
		"an older agent": {agent(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "TABLE") })), 1,
			"sluice: what http://AGENT answers is not what was asked for (invalid character 'T' looking for beginning of value); see that --agent is the agent's, and of this command's version\n"},
		"nothing at all": {agent(t, serving()), 1, "sluice: what answers is no agent, or one that does nothing; see that --agent is the agent's\n"},
	} {
		got, code := ends(t, "status", "--agent", c.agent)
		if got = strings.ReplaceAll(got, c.agent, "AGENT"); got != strings.ReplaceAll(c.want, c.agent, "AGENT") || code != c.code {
			t.Errorf("%s: exit %d\n%s\nwant exit %d\n%s", name, code, got, c.code, c.want)
		}
	}
	if got, code := ends(t, "status", "-o", "wide"); code != 1 || !strings.Contains(got, "use json or yaml") {
		t.Errorf("%d %s", code, got)
	}
	text, code := ends(t, "status", "-o", "json", "--agent", agent(t, serving(broken)))
	var s status.State
	if err := json.Unmarshal([]byte(text), &s); err != nil || code != 2 || s.Loops[0].Failing[0].Tries != 7 {
		t.Errorf("as JSON: exit %d, %v\n%s", code, err, text)
	}
}

// TestOneWayOfAsking: every command that asks an agent takes --agent, and still
// what it once took.
func TestOneWayOfAsking(t *testing.T) {
	at := agent(t, metricsOf(routing(time.Now())))
	for _, flag := range []string{"--agent=" + at, "--agent=http://" + at, "--address=" + at} {
		if got, code := ends(t, "bgp", "peers", flag); code != 0 || !strings.Contains(got, "tor1") {
			t.Errorf("%s: %d %s", flag, code, got)
		}
	}
	for _, command := range []string{"bgp peers", "bgp routes", "policy explain", "policy watch", "services", "status"} {
		help, code := ends(t, append(strings.Fields(command), "--help")...)
		if code != 0 || !strings.Contains(help, "--agent string") || strings.Contains(help, "--address") {
			t.Errorf("%s: %d\n%s", command, code, help)
		}
	}
}
