package bgp

import (
	"net/netip"
	"time"

	"sluice.dev/sluice/internal/model"
)

// Key names a row of the table: the session with a peer, or a route told over
// it.
type Key struct {
	Peer   string       // the BGPPeer's name
	Prefix netip.Prefix // the route's; invalid: the session itself
}

// String is "peer" or "peer prefix".
func (k Key) String() string {
	if k.IsSession() {
		return k.Peer
	}
	return k.Peer + " " + k.Prefix.String()
}

// IsSession reports whether the key names a session.
func (k Key) IsSession() bool { return !k.Prefix.IsValid() }

// Spec is what a row says: Session of a session's key, Route of a route's.
type Spec struct {
	Session Session
	Route   Route
}

// Session is everything about a session that, when it changes, makes it another
// one.
type Session struct {
	Peer     netip.AddrPort
	ASN      uint32 // the peer's
	MyASN    uint32
	RouterID netip.Addr // IPv4, also on a node that has no such address

	Hold, Keepalive, ConnectRetry time.Duration
	Restart                       time.Duration // graceful restart; 0: none

	Source      netip.Addr // what we dial from; invalid: the kernel chooses
	Hops        uint8      // of eBGP: the TTL; 0: directly connected
	TTLSecurity bool
	Password    model.Password
	IPv4, IPv6  bool // families of the routes
}

// Route is what is told about a prefix: its attributes. Lists are in their text
// form, sorted and joined by spaces, so that equal routes are ==.
type Route struct {
	NextHop          netip.Addr
	Communities      string // "64512:1 64512:2"
	LargeCommunities string // "64512:1:2"
	LocalPref        uint32 // iBGP; 0: the default, 100
	MED              uint32
	HasMED           bool
}
