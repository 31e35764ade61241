package bgp_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/server"
	"google.golang.org/protobuf/types/known/anypb"

	"sluice.dev/sluice/bgp"
	"sluice.dev/sluice/internal/model"
)

// router is a real one: a GoBGP server that listens on an address of loopback,
// and has this node as its only neighbor.
type router struct {
	bgp      *server.BgpServer
	addr     netip.AddrPort
	node     netip.Addr // what we dial from
	asn      uint32
	expects  uint32 // our ASN
	password model.Password
	restart  bool
	only4    bool

	ttlSecurity bool

	stale atomic.Int64  // routes it kept while we were away, and then dropped
	freed chan struct{} // nothing is left of its neighbor, which was deleted
}

// withdrawn counts the routes that it dropped one by one.
func (r *router) withdrawn(t *testing.T) int {
	t.Helper()
	return int(r.stale.Load()) + int(r.state(t).State.Messages.Received.WithdrawPrefix)
}

// The router is told its own log, the only place where GoBGP says how many stale
// routes it drops, and that it has done with a neighbor.

func (r *router) Enabled(context.Context, slog.Level) bool { return true }
func (r *router) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *router) WithGroup(string) slog.Handler            { return r }

func (r *router) Handle(_ context.Context, line slog.Record) error {
	switch line.Message {
	case "gobgp: withdraw stale routes":
		line.Attrs(func(a slog.Attr) bool {
			if a.Key == "Numbers" {
				r.stale.Add(a.Value.Int64())
			}
			return true
		})
	case "gobgp: freed fsm.h":
		close(r.freed)
	}
	return nil
}

// said are what the router has read in our OPEN about graceful restart: whether
// we restart, and whether we have forwarded meanwhile.
func (r *router) said(t *testing.T) (restarting, forwarding bool) {
	t.Helper()
	for _, packed := range r.state(t).State.RemoteCap {
		c := &api.GracefulRestartCapability{}
		if !packed.MessageIs(c) {
			continue
		}
		must(t, packed.UnmarshalTo(c))
		restarting, forwarding = c.Flags&8 != 0, len(c.Tuples) > 0
		for _, f := range c.Tuples {
			forwarding = forwarding && f.Flags&0x80 != 0
		}
	}
	return restarting, forwarding
}

// hosts numbers routers, so that each has addresses of its own.
var hosts atomic.Uint32

// newRouter makes one that does not run yet.
func newRouter(t *testing.T, change ...func(*router)) *router {
	t.Helper()
	n := byte(hosts.Add(1))
	r := &router{node: netip.AddrFrom4([4]byte{127, 77, n, 2}), asn: 65001, expects: 64512}
	r.addr = freePort(t, netip.AddrFrom4([4]byte{127, 77, n, 1}))
	for _, c := range change {
		c(r)
	}
	return r
}

func startRouter(t *testing.T, change ...func(*router)) *router {
	t.Helper()
	r := newRouter(t, change...)
	r.start(t)
	return r
}

func freePort(t *testing.T, a netip.Addr) netip.AddrPort {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", netip.AddrPortFrom(a, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}

// overIPv6 has the router on ::1, of which there is only one.
func overIPv6(t *testing.T) func(*router) {
	t.Helper()
	return func(r *router) {
		r.node = netip.IPv6Loopback()
		r.addr = freePort(t, r.node)
	}
}

func (r *router) start(t *testing.T) {
	t.Helper()
	b, err := bgp.StartRouter(&api.Global{
		Asn: r.asn, RouterId: "192.0.2.254",
		ListenPort: int32(r.addr.Port()), ListenAddresses: []string{r.addr.Addr().String()}, Families: []uint32{0, 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.bgp, r.freed = b, make(chan struct{})
	t.Cleanup(func() { r.end(t) })
	bgp.Watch(b, r)
	must(t, b.AddPeer(context.Background(), &api.AddPeerRequest{Peer: r.neighbor()}))
}

func (r *router) neighbor() *api.Peer {
	p := &api.Peer{
		Conf:      &api.PeerConf{NeighborAddress: r.node.String(), PeerAsn: r.expects, AuthPassword: string(r.password)},
		Transport: &api.Transport{PassiveMode: true},
		Timers:    &api.Timers{Config: &api.TimersConfig{HoldTime: 30, KeepaliveInterval: 10}},
	}
	if r.ttlSecurity {
		p.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: 255}
	}
	if r.restart {
		p.GracefulRestart = &api.GracefulRestart{Enabled: true, RestartTime: 60, DeferralTime: 1}
	}
	families := []*api.Family{{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}}
	if !r.only4 {
		families = append(families, &api.Family{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST})
	}
	for _, f := range families {
		p.AfiSafis = append(p.AfiSafis, &api.AfiSafi{
			Config:            &api.AfiSafiConfig{Family: f, Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: r.restart}},
		})
	}
	return p
}

// end closes the session with a notification, and the port. The neighbor goes
// first: StopBgp forgets the server's settings while who reads from a neighbor
// still looks at them.
func (r *router) end(t *testing.T) {
	t.Helper()
	if r.bgp == nil {
		return
	}
	must(t, r.bgp.DeletePeer(context.Background(), &api.DeletePeerRequest{Address: r.node.String()}))
	<-r.freed
	must(t, r.bgp.StopBgp(context.Background(), &api.StopBgpRequest{}))
	r.bgp = nil
}

// session is one with the router.
func (r *router) session() bgp.Session {
	return bgp.Session{
		Peer: r.addr, ASN: r.asn, MyASN: 64512, RouterID: netip.MustParseAddr("192.0.2.1"), Source: r.node,
		Hold: 9 * time.Second, Keepalive: 3 * time.Second, ConnectRetry: 2 * time.Second,
		Password: "", IPv4: true, IPv6: true,
	}
}

// state is the router's view of the session.
func (r *router) state(t *testing.T) *api.Peer {
	t.Helper()
	var p *api.Peer
	must(t, r.bgp.ListPeer(context.Background(), &api.ListPeerRequest{}, func(x *api.Peer) { p = x }))
	return p
}

// heard is the router's table. GoBGP reads it without a lock: not to be asked for
// while sessions with graceful restart end, as that marks routes in it.
func (r *router) heard(t *testing.T) map[netip.Prefix]bgp.Route {
	t.Helper()
	out := map[netip.Prefix]bgp.Route{}
	bgp.Reading(func() { r.read(t, out) })
	return out
}

func (r *router) read(t *testing.T, out map[netip.Prefix]bgp.Route) {
	t.Helper()
	for _, afi := range []api.Family_Afi{api.Family_AFI_IP, api.Family_AFI_IP6} {
		list := &api.ListPathRequest{TableType: api.TableType_GLOBAL, Family: &api.Family{Afi: afi, Safi: api.Family_SAFI_UNICAST}}
		must(t, r.bgp.ListPath(context.Background(), list, func(d *api.Destination) {
			for _, p := range d.Paths {
				out[netip.MustParsePrefix(d.Prefix)] = route(t, p.Pattrs)
			}
		}))
	}
}

func route(t *testing.T, attrs []*anypb.Any) (r bgp.Route) {
	t.Helper()
	for _, packed := range attrs {
		a, err := packed.UnmarshalNew()
		must(t, err)
		switch a := a.(type) {
		case *api.NextHopAttribute:
			r.NextHop = netip.MustParseAddr(a.NextHop)
		case *api.MpReachNLRIAttribute:
			r.NextHop = netip.MustParseAddr(a.NextHops[0])
		case *api.MultiExitDiscAttribute:
			r.MED, r.HasMED = a.Med, true
		case *api.LocalPrefAttribute:
			r.LocalPref = a.LocalPref
		case *api.CommunitiesAttribute:
			var texts []string
			for _, c := range a.Communities {
				texts = append(texts, fmt.Sprintf("%d:%d", c>>16, c&0xffff))
			}
			r.Communities = joined(texts)
		case *api.LargeCommunitiesAttribute:
			var texts []string
			for _, c := range a.Communities {
				texts = append(texts, fmt.Sprintf("%d:%d:%d", c.GlobalAdmin, c.LocalData1, c.LocalData2))
			}
			r.LargeCommunities = joined(texts)
		}
	}
	return r
}

func joined(texts []string) string {
	slices.Sort(texts)
	return strings.Join(texts, " ")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// relay passes connections on to a router, so that they can be cut as the end of
// a process cuts them: without a word.
type relay struct {
	addr netip.AddrPort
	mu   sync.Mutex
	open []net.Conn
}

func startRelay(t *testing.T, r *router) *relay {
	t.Helper()
	n := byte(hosts.Add(1))
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 77, n, 1}), 0).String())
	must(t, err)
	x := &relay{addr: netip.MustParseAddrPort(l.Addr().String())}
	t.Cleanup(func() {
		l.Close()
		x.cut()
	})
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(r.node, 0))}
			out, err := d.DialContext(context.Background(), "tcp", r.addr.String())
			if err != nil {
				in.Close()
				continue
			}
			x.mu.Lock()
			x.open = append(x.open, in, out)
			x.mu.Unlock()
			go pass(in, out)
			go pass(out, in)
		}
	}()
	return x
}

func pass(from, to net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			from.Close()
			to.Close()
			return
		}
	}
}

func (x *relay) cut() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range x.open {
		c.Close()
	}
	x.open = nil
}

// listen takes connections and says nothing.
func listen(t *testing.T, a netip.AddrPort) netip.AddrPort {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", a.String())
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return a
}
