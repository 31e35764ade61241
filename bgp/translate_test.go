package bgp_test

import (
	"testing"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"google.golang.org/protobuf/proto"

	"sluice.dev/sluice/bgp"
)

// What a session's fields are in GoBGP's words.
func TestNeighbor(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*bgp.Session)
		got    func(*api.Peer) proto.Message
		want   proto.Message // nil: not said
	}{
		{
			"directly connected", func(*bgp.Session) {},
			func(p *api.Peer) proto.Message { return p.EbgpMultihop }, (*api.EbgpMultihop)(nil),
		},
		{
			"several hops", func(s *bgp.Session) { s.Hops = 5 },
			func(p *api.Peer) proto.Message { return p.EbgpMultihop }, &api.EbgpMultihop{Enabled: true, MultihopTtl: 5},
		},
		{
			"iBGP has no hops", func(s *bgp.Session) { s.Hops, s.MyASN = 5, s.ASN },
			func(p *api.Peer) proto.Message { return p.EbgpMultihop }, (*api.EbgpMultihop)(nil),
		},
		{
			"TTL security", func(s *bgp.Session) { s.TTLSecurity = true },
			func(p *api.Peer) proto.Message { return p.TtlSecurity }, &api.TtlSecurity{Enabled: true, TtlMin: 255},
		},
		{
			"times: dials are up to twice the retry time apart", func(s *bgp.Session) { s.ConnectRetry = 10 * time.Second },
			func(p *api.Peer) proto.Message { return p.Timers.Config },
			&api.TimersConfig{HoldTime: 9, KeepaliveInterval: 3, ConnectRetry: 5},
		},
		{
			"no graceful restart", func(*bgp.Session) {},
			func(p *api.Peer) proto.Message { return p.GracefulRestart }, (*api.GracefulRestart)(nil),
		},
		{
			"graceful restart", func(s *bgp.Session) { s.Restart = 20 * time.Second },
			func(p *api.Peer) proto.Message { return p.GracefulRestart },
			&api.GracefulRestart{Enabled: true, RestartTime: 20, DeferralTime: 1, LocalRestarting: true},
		},
	} {
		s := someSession(2)
		row.change(&s)
		if got := row.got(bgp.Neighbor(s)); !proto.Equal(got, row.want) {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
}

// Only what comes from the next hop is taken, both sides agreeing on that.
func TestTTLSecurity(t *testing.T) {
	t.Parallel()
	r, n := startRouter(t, func(r *router) { r.ttlSecurity = true }), newNode(t)
	s := r.session()
	s.TTLSecurity = true
	must(t, n.Open("tor", s))
	n.awaitUp(t)
}
