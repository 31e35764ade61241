package bgp

import (
	"net/netip"

	"strings"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"sluice.dev/sluice/internal/model"
)

// deferral is how long GoBGP waits for a router's last route before it tells
// ours after a graceful restart. It would be 6 minutes; we need none of them.
const deferral = time.Second

func (s Session) external() bool { return s.ASN != s.MyASN }

// global is a session's part of a server's configuration. Nothing listens.
func (s Session) global() *api.Global {
	return &api.Global{
		Asn: s.MyASN, RouterId: s.RouterID.String(), ListenPort: -1,
		Families: []uint32{0, 1}, // IPv4 and IPv6 unicast: the others would cost a table each
	}
}

// neighbor is a session as GoBGP takes it.
//
// Its first dial is one to two seconds after it was added, whatever it is told;
// the others after ConnectRetry in its words to twice that, so we say half.
//
// Restarting is said of every connection of a session with graceful restart:
// nodes forward while it is down, as much when the connection broke as when we
// were restarted, and routers drop what they kept for one that does not say so.
func (s Session) neighbor() *api.Peer {
	seconds := func(d time.Duration) uint64 { return uint64(max(1, d.Round(time.Second)/time.Second)) }
	p := &api.Peer{
		Conf: &api.PeerConf{
			NeighborAddress: s.Peer.Addr().String(), PeerAsn: s.ASN, LocalAsn: s.MyASN, AuthPassword: string(s.Password),
		},
		Transport: &api.Transport{RemotePort: uint32(s.Peer.Port())},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime: seconds(s.Hold), KeepaliveInterval: seconds(s.Keepalive), ConnectRetry: seconds(s.ConnectRetry / 2),
		}},
	}
	if s.Source.IsValid() {
		p.Transport.LocalAddress = s.Source.String()
	}
	switch {
	case s.TTLSecurity:
		p.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: 255}
	case s.Hops > 1 && s.external():
		p.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: uint32(s.Hops)}
	}
	if s.Restart > 0 {
		p.GracefulRestart = &api.GracefulRestart{
			Enabled: true, RestartTime: uint32(seconds(s.Restart)),
			DeferralTime: uint32(deferral / time.Second), LocalRestarting: true,
		}
	}
	for _, f := range s.families() {
		p.AfiSafis = append(p.AfiSafis, &api.AfiSafi{
			Config:            &api.AfiSafiConfig{Family: apiFamily(f), Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: s.Restart > 0}},
		})
	}
	return p
}

func (s Session) families() []model.Family {
	var fs []model.Family
	if s.IPv4 {
		fs = append(fs, model.IPv4)
	}
	if s.IPv6 {
		fs = append(fs, model.IPv6)
	}
	return fs
}

// apiFamily is GoBGP's name of unicast routes of a family.
func apiFamily(f model.Family) *api.Family {
	if f == model.IPv6 {
		return &api.Family{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST}
	}
	return &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}
}

// toPath is a route as GoBGP takes it. A next hop that is not given is the local
// address of the session with the peer, which GoBGP fills in; there is none for
// an IPv6 route over IPv4.
func toPath(k Key, r Route, peer netip.Addr) (*api.Path, error) {
	if err := r.Check(k.Prefix, peer); err != nil {
		return nil, err
	}
	hop := r.NextHop
	switch {
	case hop.IsValid():
	case k.Prefix.Addr().Is4():
		hop = netip.IPv4Unspecified()
	default:
		hop = netip.IPv6Unspecified()
	}
	f := apiFamily(model.FamilyOf(k.Prefix.Addr()))
	nlri, err := anypb.New(&api.IPAddressPrefix{Prefix: k.Prefix.Addr().String(), PrefixLen: uint32(k.Prefix.Bits())})
	if err != nil {
		return nil, err
	}
	attrs := []proto.Message{&api.OriginAttribute{}} // IGP
	if k.Prefix.Addr().Is4() && hop.Is4() {
		attrs = append(attrs, &api.NextHopAttribute{NextHop: hop.String()})
	} else {
		attrs = append(attrs, &api.MpReachNLRIAttribute{Family: f, NextHops: []string{hop.String()}, Nlris: []*anypb.Any{nlri}})
	}
	more, err := r.attributes()
	if err != nil {
		return nil, err
	}
	p := &api.Path{Family: f, Nlri: nlri}
	for _, a := range append(attrs, more...) {
		packed, err := anypb.New(a)
		if err != nil {
			return nil, err
		}
		p.Pattrs = append(p.Pattrs, packed)
	}
	return p, nil
}

// attributes are those of a route that it need not have.
func (r Route) attributes() ([]proto.Message, error) {
	var attrs []proto.Message
	if r.HasMED {
		attrs = append(attrs, &api.MultiExitDiscAttribute{Med: r.MED})
	}
	if r.LocalPref != 0 {
		attrs = append(attrs, &api.LocalPrefAttribute{LocalPref: r.LocalPref}) // GoBGP leaves it out for eBGP
	}
	if r.Communities != "" {
		a := &api.CommunitiesAttribute{}
		for text := range strings.FieldsSeq(r.Communities) {
			n, err := numbers(text, 2, 16)
			if err != nil {
				return nil, err
			}
			a.Communities = append(a.Communities, n[0]<<16|n[1])
		}
		attrs = append(attrs, a)
	}
	if r.LargeCommunities != "" {
		a := &api.LargeCommunitiesAttribute{}
		for text := range strings.FieldsSeq(r.LargeCommunities) {
			n, err := numbers(text, 3, 32)
			if err != nil {
				return nil, err
			}
			a.Communities = append(a.Communities, &api.LargeCommunity{GlobalAdmin: n[0], LocalData1: n[1], LocalData2: n[2]})
		}
		attrs = append(attrs, a)
	}
	return attrs, nil
}
