package status

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/bgp"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
)

var (
	up = bgp.PeerState{
		Peer: "tor1", Addr: netip.MustParseAddrPort("192.0.2.1:179"), ASN: 64512, MyASN: 64513,
		State: "established", Since: t0.Add(-76 * time.Hour), Told: 2,
	}
	refused = bgp.PeerState{
		Peer: "tor2", Addr: netip.MustParseAddrPort("[2001:db8::2]:1179"), ASN: 64512, MyASN: 64513,
		State: "active", Since: t0.Add(-12 * time.Second), Error: "connection refused\nby the router", Lost: 2,
	}
	api = model.Name{Namespace: "default", Name: "api"}
)

// told is a row for an address's own prefix.
func told(addr, peer string, is bool, reason string, services ...model.Name) bgp.Row {
	a := netip.MustParseAddr(addr)
	return bgp.Row{Addr: a, Prefix: netip.PrefixFrom(a, a.BitLen()), Peer: peer, Told: is, Reason: reason, Services: services}
}

// router is a BGP that says what it is made of.
func router(peers []bgp.PeerState, rows ...bgp.Row) *BGP {
	return &BGP{Peers: func() []bgp.PeerState { return peers }, Routes: func() []bgp.Row { return rows }}
}

// some is one of each kind.
func some() *BGP {
	one := told("198.51.100.1", "tor1", true, "ready endpoint here", web)
	one.Route = bgp.Route{
		NextHop: netip.MustParseAddr("192.0.2.9"), Communities: "64512:1 64512:2", LargeCommunities: "1:2:3",
		LocalPref: 200, HasMED: true,
	}
	nobody := told("2001:db8::5", "", false, "no BGPAdvertisement is for it", model.Name{Namespace: "x", Name: "y"})
	nobody.Prefix = netip.Prefix{}
	aggregate := told("198.51.100.3", "tor1", false, "no endpoint here", api)
	aggregate.Prefix = netip.MustParsePrefix("198.51.100.0/24")
	member := told("198.51.100.4", "tor1", true, "ready endpoint here", web, api, model.Name{Namespace: "x", Name: "y"})
	member.Prefix = aggregate.Prefix
	b := router([]bgp.PeerState{refused, up},
		one,
		told("198.51.100.1", "tor2", true, "ready endpoint here", web),
		told("198.51.100.1", "tor3", true, "ready endpoint here", web),
		told("198.51.100.2", "tor1", false, "no endpoint here", api),
		aggregate, member, nobody)
	b.Problems = func() []model.Problem {
		return []model.Problem{
			{Kind: "BGPPeer", Object: model.Name{Name: "tor3"}, Reason: "NoSecret", Message: "there is no Secret kube-system/tor; create it"},
			{Kind: "BGPAdvertisement", Object: model.Name{Name: "all"}, Reason: "Contradiction", Message: "differs from one"},
		}
	}
	return b
}

const (
	peersJSON = `{"peers":[` +
		`{"peer":"tor1","address":"192.0.2.1:179","asn":64512,"myASN":64513,"state":"established","since":"1970-01-09T09:46:40Z","lost":0,"told":2},` +
		`{"peer":"tor2","address":"[2001:db8::2]:1179","asn":64512,"myASN":64513,"state":"active","since":"1970-01-12T13:46:28Z","error":"connection refused by the router","lost":2,"told":0},` +
		`{"peer":"tor3","state":"none","error":"there is no Secret kube-system/tor; create it","lost":0,"told":0}],` +
		`"problems":[{"kind":"BGPPeer","object":"tor3","reason":"NoSecret","message":"there is no Secret kube-system/tor; create it"},` +
		`{"kind":"BGPAdvertisement","object":"all","reason":"Contradiction","message":"differs from one"}]}` + "\n"

	routesJSON = `{"routes":[` +
		`{"address":"198.51.100.1","prefix":"198.51.100.1/32","peer":"tor1","state":"told","reason":"ready endpoint here","services":["default/web"],` +
		`"nextHop":"192.0.2.9","communities":["64512:1","64512:2"],"largeCommunities":["1:2:3"],"localPref":200,"med":0},` +
		`{"address":"198.51.100.1","prefix":"198.51.100.1/32","peer":"tor2","state":"waiting","reason":"the session is in state active: connection refused by the router","services":["default/web"]},` +
		`{"address":"198.51.100.1","prefix":"198.51.100.1/32","peer":"tor3","state":"waiting","reason":"there is no session","services":["default/web"]},` +
		`{"address":"198.51.100.2","prefix":"198.51.100.2/32","peer":"tor1","state":"withheld","reason":"no endpoint here","services":["default/api"]},` +
		`{"address":"198.51.100.3","prefix":"198.51.100.0/24","peer":"tor1","state":"withheld","reason":"no endpoint here","services":["default/api"]},` +
		`{"address":"198.51.100.4","prefix":"198.51.100.0/24","peer":"tor1","state":"told","reason":"ready endpoint here","services":["default/web","default/api","x/y"]},` +
		`{"address":"2001:db8::5","state":"withheld","reason":"no BGPAdvertisement is for it","services":["x/y"]}]}` + "\n"
)

// TestBGPOverHTTP is the contract of field names.
func TestBGPOverHTTP(t *testing.T) {
	utc := some()
	peers := utc.Peers()
	for i := range peers {
		peers[i].Since = peers[i].Since.UTC()
	}
	utc.Peers = func() []bgp.PeerState { return peers }
	for name, c := range map[string]struct {
		bgp           *BGP
		peers, routes string
	}{
		"some of each": {utc, peersJSON, routesJSON},
		"nothing yet":  {router(nil), `{"peers":[],"problems":[]}` + "\n", `{"routes":[]}` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			h := MetricsHandler(Metrics{Loops: func() []reconcile.Status { return nil }, BGP: c.bgp})
			for path, want := range map[string]string{"/bgp/peers": c.peers, "/bgp/routes": c.routes} {
				if code, body := get(t, h, path); code != http.StatusOK || body != want {
					t.Errorf("%s: %d\n%swant\n%s", path, code, body, want)
				}
			}
		})
	}
	none := MetricsHandler(Metrics{Loops: func() []reconcile.Status { return nil }})
	for _, path := range []string{"/bgp/peers", "/bgp/routes"} {
		if code, _ := get(t, none, path); code != http.StatusNotFound {
			t.Errorf("%s without BGP: %d", path, code)
		}
	}
}

// failingBGP is the table of sessions and routes with keys that fail. The session
// of tor2 says so itself.
func failingBGP() reconcile.Status {
	return reconcile.Status{
		Name: "bgp", Listed: true, Synced: true, FailingCount: 3, FailingSince: t0.Add(-time.Hour),
		Failing: []reconcile.Failure{
			{Key: bgp.Key{Peer: "tor4"}.String(), Error: errors.New("this kernel cannot sign segments;\nremove the password").Error()},
			{Key: bgp.Key{Peer: "tor2"}.String(), Error: "BGP peer tor2: connection refused"},
			{Key: bgp.Key{Peer: "tor1", Prefix: netip.MustParsePrefix("198.51.100.9/32")}.String(), Error: "too long"},
		},
	}
}

func TestPeersTable(t *testing.T) {
	loops := []reconcile.Status{failing("ipvs", t0, time.Hour), failingBGP()}
	for name, c := range map[string]struct {
		bgp  *BGP
		wide bool
		want string
	}{
		"established, refused, without a session": {some(), false, `
PEER  ADDRESS             ASN    STATE        FOR   LOST  TOLD  REASON
tor1  192.0.2.1:179       64512  established  3d4h  0     2     -
tor2  [2001:db8::2]:1179  64512  active       12s   2     0     connection refused by the router
tor3  -                   -      none         -     -     -     there is no Secret kube-system/tor; create it
tor4  -                   -      none         -     -     -     this kernel cannot sign segments; remove the password
BGPAdvertisement all: Contradiction: differs from one
BGPPeer tor1: Failing: 198.51.100.9/32: too long
`},
		"wide": {router([]bgp.PeerState{up, refused}), true, `
PEER  ADDRESS             ASN    MY ASN  STATE        FOR   LOST  TOLD  REASON
tor1  192.0.2.1:179       64512  64513   established  3d4h  0     2     -
tor2  [2001:db8::2]:1179  64512  64513   active       12s   2     0     connection refused by the router
tor4  -                   -      -       none         -     -     -     this kernel cannot sign segments; remove the password
BGPPeer tor1: Failing: 198.51.100.9/32: too long
`},
	} {
		var out strings.Builder
		WritePeers(&out, c.bgp.peers(loops), t0, c.wide)
		if got := "\n" + out.String(); got != c.want {
			t.Errorf("%s:%s\nwant%s", name, got, c.want)
		}
	}
}

func TestRoutesTable(t *testing.T) {
	for wide, want := range map[bool]string{
		false: `
ADDRESS       PREFIX           PEER  STATE     SERVICES                    REASON
198.51.100.1  198.51.100.1/32  tor1  told      default/web                 ready endpoint here
198.51.100.1  198.51.100.1/32  tor2  waiting   default/web                 the session is in state active: connection refused by the router
198.51.100.1  198.51.100.1/32  tor3  waiting   default/web                 there is no session
198.51.100.2  198.51.100.2/32  tor1  withheld  default/api                 no endpoint here
198.51.100.3  198.51.100.0/24  tor1  withheld  default/api                 no endpoint here
198.51.100.4  198.51.100.0/24  tor1  told      default/web,default/api,+1  ready endpoint here
2001:db8::5   -                -     withheld  x/y                         no BGPAdvertisement is for it
`,
		true: `
ADDRESS       PREFIX           PEER  STATE     SERVICES                     NEXT HOP   COMMUNITIES            LOCAL PREF  MED  REASON
198.51.100.1  198.51.100.1/32  tor1  told      default/web                  192.0.2.9  64512:1,64512:2,1:2:3  200         0    ready endpoint here
198.51.100.1  198.51.100.1/32  tor2  waiting   default/web                  -          -                      -           -    the session is in state active: connection refused by the router
198.51.100.1  198.51.100.1/32  tor3  waiting   default/web                  -          -                      -           -    there is no session
198.51.100.2  198.51.100.2/32  tor1  withheld  default/api                  -          -                      -           -    no endpoint here
198.51.100.3  198.51.100.0/24  tor1  withheld  default/api                  -          -                      -           -    no endpoint here
198.51.100.4  198.51.100.0/24  tor1  told      default/web,default/api,x/y  -          -                      -           -    ready endpoint here
2001:db8::5   -                -     withheld  x/y                          -          -                      -           -    no BGPAdvertisement is for it
`,
	} {
		var out strings.Builder
		WriteRoutes(&out, some().routes(), wide)
		if got := "\n" + out.String(); got != want {
			t.Errorf("wide %v:%s\nwant%s", wide, got, want)
		}
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59*time.Second + 999*time.Millisecond: "59s", time.Minute: "1m0s",
		time.Hour - time.Second: "59m59s", 3*time.Hour + 12*time.Minute: "3h12m", 24 * time.Hour: "1d0h", 76*time.Hour + 59*time.Minute: "3d4h",
	} {
		if got := age(t0.Add(-d), t0); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
	if got := age(time.Time{}, t0); got != "-" {
		t.Errorf("never: %s", got)
	}
}

func TestStateHasSessions(t *testing.T) {
	silent := router([]bgp.PeerState{{Peer: "tor1", State: "idle"}})
	for name, c := range map[string]struct {
		bgp  *BGP
		want string
	}{
		"a session":   {silent, "\nPEER  ADDRESS  ASN  STATE  FOR  LOST  TOLD  REASON\ntor1  -        -    idle   -    0     0     -\n"},
		"no sessions": {router(nil), ""},
		"no BGP":      {nil, ""},
	} {
		h := MetricsHandler(Metrics{Loops: func() []reconcile.Status { return nil }, BGP: c.bgp})
		_, body := get(t, h, "/state")
		if _, after, _ := strings.Cut(body, "LAST APPLIED\n"); after != c.want {
			t.Errorf("%s: %q, want %q", name, after, c.want)
		}
	}
}

func bgpSeries() []string {
	return []string{
		"sluice_bgp_route_advertised", "sluice_bgp_route_advertised_hidden", "sluice_bgp_routes_told", "sluice_bgp_routes_waiting",
		"sluice_bgp_routes_withheld", "sluice_bgp_session_lost_total", "sluice_bgp_session_since_seconds", "sluice_bgp_session_up",
	}
}

func TestBGPMetrics(t *testing.T) {
	equalLines(t, scraped(t, Metrics{BGP: some()}, bgpSeries()...),
		`sluice_bgp_route_advertised{peer="",prefix="2001:db8::5/128"} 0`,
		`sluice_bgp_route_advertised{peer="tor1",prefix="198.51.100.0/24"} 1`,
		`sluice_bgp_route_advertised{peer="tor1",prefix="198.51.100.1/32"} 1`,
		`sluice_bgp_route_advertised{peer="tor1",prefix="198.51.100.2/32"} 0`,
		`sluice_bgp_route_advertised{peer="tor2",prefix="198.51.100.1/32"} 0`,
		`sluice_bgp_route_advertised{peer="tor3",prefix="198.51.100.1/32"} 0`,
		`sluice_bgp_route_advertised_hidden 0`,
		`sluice_bgp_routes_told{family="IPv4",peer="tor1"} 2`,
		`sluice_bgp_routes_told{family="IPv4",peer="tor2"} 0`,
		`sluice_bgp_routes_told{family="IPv6",peer="tor1"} 0`,
		`sluice_bgp_routes_told{family="IPv6",peer="tor2"} 0`,
		`sluice_bgp_routes_waiting{family="IPv4",peer="tor1"} 0`,
		`sluice_bgp_routes_waiting{family="IPv4",peer="tor2"} 1`,
		`sluice_bgp_routes_waiting{family="IPv4",peer="tor3"} 1`,
		`sluice_bgp_routes_waiting{family="IPv6",peer="tor1"} 0`,
		`sluice_bgp_routes_waiting{family="IPv6",peer="tor2"} 0`,
		`sluice_bgp_routes_withheld{family="IPv4",peer="tor1"} 2`,
		`sluice_bgp_routes_withheld{family="IPv4",peer="tor2"} 0`,
		`sluice_bgp_routes_withheld{family="IPv6",peer=""} 1`,
		`sluice_bgp_routes_withheld{family="IPv6",peer="tor1"} 0`,
		`sluice_bgp_routes_withheld{family="IPv6",peer="tor2"} 0`,
		`sluice_bgp_session_lost_total{peer="tor1"} 0`,
		`sluice_bgp_session_lost_total{peer="tor2"} 2`,
		`sluice_bgp_session_since_seconds{peer="tor1"} 726400`,
		`sluice_bgp_session_since_seconds{peer="tor2"} 999988`,
		`sluice_bgp_session_up{peer="tor1"} 1`,
		`sluice_bgp_session_up{peer="tor2"} 0`,
	)
}

// TestAggregateIsOneSeries: it is told if it is for any of its addresses.
func TestAggregateIsOneSeries(t *testing.T) {
	rows := []bgp.Row{told("198.51.100.1", "tor1", false, ""), told("198.51.100.2", "tor1", true, ""), told("198.51.100.3", "tor1", false, "")}
	for i := range rows {
		rows[i].Prefix = netip.MustParsePrefix("198.51.100.0/24")
	}
	equalLines(t, scraped(t, Metrics{BGP: router([]bgp.PeerState{up}, rows...)}, "sluice_bgp_route_advertised"),
		`sluice_bgp_route_advertised{peer="tor1",prefix="198.51.100.0/24"} 1`)
}

// TestNoSeriesWithoutSessions: a cluster without BGP has nothing to be charged for.
func TestNoSeriesWithoutSessions(t *testing.T) {
	equalLines(t, scraped(t, Metrics{BGP: router(nil, told("198.51.100.1", "", false, "no BGPPeer", web))}, bgpSeries()...))
	equalLines(t, scraped(t, Metrics{}, bgpSeries()...))
}

// TestTooManyRoutes: above the bound no route has a series, rather than some.
func TestTooManyRoutes(t *testing.T) {
	var rows []bgp.Row
	for i := range routeSeries + 1 {
		rows = append(rows, told(fmt.Sprintf("10.0.%d.%d", i/250, i%250), "tor1", true, ""))
	}
	single := "sluice_bgp_route_advertised"
	b := router([]bgp.PeerState{up}, rows[:routeSeries]...)
	if got := len(scraped(t, Metrics{BGP: b}, single)); got != routeSeries {
		t.Errorf("%d series at the bound", got)
	}
	b = router([]bgp.PeerState{up}, rows...)
	equalLines(t, scraped(t, Metrics{BGP: b}, single, single+"_hidden", "sluice_bgp_routes_told"),
		single+"_hidden 5001", `sluice_bgp_routes_told{family="IPv4",peer="tor1"} 5001`, `sluice_bgp_routes_told{family="IPv6",peer="tor1"} 0`)
}

// TestEverySeriesIsExplained: the package's comment tells of each of BGP's.
func TestEverySeriesIsExplained(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, body := get(t, MetricsHandler(Metrics{Loops: func() []reconcile.Status { return nil }, BGP: some()}), "/metrics")
	found := 0
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (sluice_bgp_\S+)`).FindAllStringSubmatch(body, -1) {
		found++
		if !regexp.MustCompile(`(?m)^//\t` + m[1] + `(\{\S+\})?\s`).Match(doc) {
			t.Errorf("doc.go does not say what %s means", m[1])
		}
	}
	if found != len(bgpSeries()) {
		t.Errorf("%d series shown", found)
	}
}

// TestHealthDoesNotDependOnRouters: a node whose table of sessions fails goes on
// serving.
func TestHealthDoesNotDependOnRouters(t *testing.T) {
	loops := func() []reconcile.Status { return []reconcile.Status{good(), failingBGP()} }
	h := HealthHandler(Health{Loops: loops, Tables: []string{"ipvs"}, Limit: time.Minute})
	for _, path := range []string{"/healthz", "/livez", "/readyz"} {
		if code, body := get(t, h, path); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}
