package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/bgp"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/internal/status"
)

var (
	web = model.Name{Namespace: "default", Name: "web"}
	api = model.Name{Namespace: "default", Name: "api"}
)

// sluice runs a command of bgp against an agent, and returns what it writes.
// A failure is its last line, as main prints it.
func sluice(t *testing.T, address string, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	cmd := bgpCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(append(args, "--address", address))
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		out.WriteString("exit 1: " + err.Error() + "\n")
	}
	return "\n" + out.String()
}

// agent serves what a running agent does, and returns its address.
func agent(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func metricsOf(b *status.BGP) http.Handler {
	return status.MetricsHandler(status.Metrics{Loops: func() []reconcile.Status { return nil }, BGP: b})
}

// routing is an agent with one session that is established and one that is not.
func routing(now time.Time) *status.BGP {
	row := func(addr, peer string, told bool, reason string, services ...model.Name) bgp.Row {
		a := netip.MustParseAddr(addr)
		return bgp.Row{Addr: a, Prefix: netip.PrefixFrom(a, a.BitLen()), Peer: peer, Told: told, Reason: reason, Services: services}
	}
	one := row("198.51.100.1", "tor1", true, "default/web has endpoints", web)
	one.Route = bgp.Route{NextHop: netip.MustParseAddr("192.0.2.9"), Communities: "64512:1", HasMED: true, MED: 5}
	return &status.BGP{
		Peers: func() []bgp.PeerState {
			return []bgp.PeerState{
				{Peer: "tor1", Addr: netip.MustParseAddrPort("192.0.2.1:179"), ASN: 64512, MyASN: 64513,
					State: "established", Since: now.Add(-76*time.Hour - time.Minute), Told: 2},
				{Peer: "tor2", Addr: netip.MustParseAddrPort("192.0.2.2:179"), ASN: 64512, MyASN: 64513,
					State: "active", Since: now.Add(-200*time.Minute - 30*time.Second), Lost: 2, Error: "connection refused"},
			}
		},
		Routes: func() []bgp.Row {
			return []bgp.Row{
				one,
				row("198.51.100.1", "tor2", true, "default/web has endpoints", web),
				row("198.51.100.2", "tor1", false, "no endpoint here (default/api, policy Local)", api),
				row("203.0.113.7", "", false, "no BGPAdvertisement is for it", model.Name{Namespace: "x", Name: "y"}),
				row("2001:db8::1", "tor1", true, "2 Services, all with endpoints", web, api),
			}
		},
	}
}

const routesHeader = "\nADDRESS       PREFIX           PEER  STATE     SERVICES     REASON\n"

func TestBGPCommands(t *testing.T) {
	at := agent(t, metricsOf(routing(time.Now())))
	for args, want := range map[string]string{
		"peers": `
PEER  ADDRESS        ASN    STATE        FOR    LOST  TOLD  REASON
tor1  192.0.2.1:179  64512  established  3d4h   0     2     -
tor2  192.0.2.2:179  64512  active       3h20m  2     0     connection refused
`,
		"peers -o wide": `
PEER  ADDRESS        ASN    MY ASN  STATE        FOR    LOST  TOLD  REASON
tor1  192.0.2.1:179  64512  64513   established  3d4h   0     2     -
tor2  192.0.2.2:179  64512  64513   active       3h20m  2     0     connection refused
`,
		"peers -o yaml": "\nexit 1: --output \"yaml\": use wide or json, or leave it out\n",
		"peers tor1":    "\nexit 1: unknown command \"tor1\" for \"bgp peers\"\n",
		"routes": `
ADDRESS       PREFIX           PEER  STATE     SERVICES                 REASON
198.51.100.1  198.51.100.1/32  tor1  told      default/web              default/web has endpoints
198.51.100.1  198.51.100.1/32  tor2  waiting   default/web              the session is in state active: connection refused
198.51.100.2  198.51.100.2/32  tor1  withheld  default/api              no endpoint here (default/api, policy Local)
203.0.113.7   203.0.113.7/32   -     withheld  x/y                      no BGPAdvertisement is for it
2001:db8::1   2001:db8::1/128  tor1  told      default/web,default/api  2 Services, all with endpoints
`,
		"routes 198.51.100.1 --output=wide": `
ADDRESS       PREFIX           PEER  STATE    SERVICES     NEXT HOP   COMMUNITIES  LOCAL PREF  MED  REASON
198.51.100.1  198.51.100.1/32  tor1  told     default/web  192.0.2.9  64512:1      -           5    default/web has endpoints
198.51.100.1  198.51.100.1/32  tor2  waiting  default/web  -          -            -           -    the session is in state active: connection refused
`,
		"routes 198.51.100.2":            routesHeader + "198.51.100.2  198.51.100.2/32  tor1  withheld  default/api  no endpoint here (default/api, policy Local)\n",
		"routes ::ffff:198.51.100.2":     routesHeader + "198.51.100.2  198.51.100.2/32  tor1  withheld  default/api  no endpoint here (default/api, policy Local)\n",
		"routes 198.51.100.2/31":         routesHeader + "198.51.100.2  198.51.100.2/32  tor1  withheld  default/api  no endpoint here (default/api, policy Local)\n",
		"routes x/y 198.51.100.2 x/none": routesHeader + "198.51.100.2  198.51.100.2/32  tor1  withheld  default/api  no endpoint here (default/api, policy Local)\n203.0.113.7   203.0.113.7/32   -     withheld  x/y          no BGPAdvertisement is for it\n",
		"routes default/api": `
ADDRESS       PREFIX           PEER  STATE     SERVICES                 REASON
198.51.100.2  198.51.100.2/32  tor1  withheld  default/api              no endpoint here (default/api, policy Local)
2001:db8::1   2001:db8::1/128  tor1  told      default/web,default/api  2 Services, all with endpoints
`,
		// What no peer is meant for is not for this one either.
		"routes --peer tor2": `
ADDRESS       PREFIX           PEER  STATE     SERVICES     REASON
198.51.100.1  198.51.100.1/32  tor2  waiting   default/web  the session is in state active: connection refused
203.0.113.7   203.0.113.7/32   -     withheld  x/y          no BGPAdvertisement is for it
`,
		"routes default/web --peer tor2": "\nADDRESS       PREFIX           PEER  STATE    SERVICES     REASON\n" +
			"198.51.100.1  198.51.100.1/32  tor2  waiting  default/web  the session is in state active: connection refused\n",
		"routes 10.0.0.1 x/none": "\nexit 1: none of the 5 routes is of 10.0.0.1 or x/none; `sluice bgp routes` shows them all, and `sluice bgp peers` the peers' names\n",
		"routes x/z --peer tor1": "\nexit 1: none of the 5 routes is of x/z for the peer tor1; `sluice bgp routes` shows them all, and `sluice bgp peers` the peers' names\n",
		"routes web":             "\nexit 1: \"web\" is no address, prefix or Service; use for example 198.51.100.1, 198.51.100.0/24 or default/web\n",
		"routes a/b/c":           "\nexit 1: \"a/b/c\" is no address, prefix or Service; use for example 198.51.100.1, 198.51.100.0/24 or default/web\n",
		"routes 198.51.100.1/33": "\nexit 1: \"198.51.100.1/33\" is no address, prefix or Service; use for example 198.51.100.1, 198.51.100.0/24 or default/web\n",
	} {
		t.Run(args, func(t *testing.T) {
			if got := sluice(t, at, strings.Fields(args)...); got != want {
				t.Errorf("%s\nwant%s", got, want)
			}
		})
	}
}

// TestBGPAsJSON: the same bytes for programs, filtered alike.
func TestBGPAsJSON(t *testing.T) {
	at := agent(t, metricsOf(routing(time.Now())))
	var routes status.RouteList
	if err := json.Unmarshal([]byte(sluice(t, at, "routes", "-o", "json", "default/web", "--peer=tor1")), &routes); err != nil {
		t.Fatal(err)
	}
	if len(routes.Routes) != 2 || routes.Routes[0].State != status.RouteTold || *routes.Routes[0].MED != 5 || routes.Routes[1].MED != nil {
		t.Errorf("%+v", routes)
	}
	var peers status.PeerList
	if err := json.Unmarshal([]byte(sluice(t, at, "peers", "-o", "json")), &peers); err != nil {
		t.Fatal(err)
	}
	if len(peers.Peers) != 2 || peers.Peers[1].Lost != 2 || peers.Peers[1].Error != "connection refused" {
		t.Errorf("%+v", peers)
	}
}

// TestNoAgent: what is wrong and what to do about it.
func TestNoAgent(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := gone.Addr().String()
	gone.Close()
	nothing := &status.BGP{Peers: func() []bgp.PeerState { return nil }, Routes: func() []bgp.Row { return nil }}
	for name, c := range map[string]struct {
		address, command, want string
	}{
		"nobody listens": {closed, "peers", "exit 1: no agent answers at http://ADDR: dial tcp ADDR: connect: connection refused; " +
			"run this on a node where `sluice run` does, and name its --metrics-bind-address with --agent"},
		"no address":       {"a b", "peers", `exit 1: --agent "ADDR": use host:port or http://host:port, such as 127.0.0.1:10249`},
		"an agent without": {agent(t, metricsOf(nil)), "routes", "exit 1: the agent at http://ADDR has no /bgp/routes: it is older than this command, or --agent names something else"},
		"no peers":         {agent(t, metricsOf(nothing)), "peers", "no BGPPeer is for this node"},
		"no routes":        {agent(t, metricsOf(nothing)), "routes", "no Service has a load-balancer address that this node knows of"},
		"something that fails": {agent(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "overloaded", http.StatusServiceUnavailable)
		})), "routes", "exit 1: the agent at http://ADDR answers 503 Service Unavailable: overloaded"},
		"something else": {agent(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("<html>"))
		})), "peers", "exit 1: what http://ADDR answers is not what was asked for (invalid character '<' looking for beginning of value); see that --agent is the agent's, and of this command's version"},
	} {
		got := strings.ReplaceAll(sluice(t, c.address, c.command), c.address, "ADDR")
		if got != "\n"+c.want+"\n" {
			t.Errorf("%s:%s\nwant\n%s", name, got, c.want)
		}
	}
}

// TestBGPHelp: the examples in the help are what tables look like.
func TestBGPHelp(t *testing.T) {
	at := agent(t, metricsOf(routing(time.Now())))
	for _, command := range []string{"peers", "routes"} {
		help := sluice(t, at, command, "--help")
		header, _, _ := strings.Cut(strings.TrimSpace(sluice(t, at, command)), "\n")
		words := regexp.MustCompile(` +`).ReplaceAllString(regexp.QuoteMeta(header), ` +`)
		if !regexp.MustCompile(words).MatchString(help) || !strings.Contains(help, "--agent") || !strings.Contains(help, "sluice bgp "+command) {
			t.Errorf("%s\nhas no %q", help, header)
		}
	}
}
