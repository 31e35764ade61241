package bgp

import (
	"net/netip"
	"time"

	"sluice.dev/sluice/internal/model"
)

// PeerState is how a session is.
type PeerState struct {
	Peer  string // the BGPPeer's name
	Addr  netip.AddrPort
	ASN   uint32
	MyASN uint32

	State string    // "idle", "connect", "active", "opensent", "openconfirm", "established"
	Since time.Time // when it was established, or else since when it is not
	// Error is why it is not established, as far as anybody said; "" when it is.
	Error string
	Lost  uint64 // how often it was established and broke off, since the agent's start
	Told  int    // routes that the peer has been told
}

// Established reports whether routes reach the peer.
func (s PeerState) Established() bool { return s.State == "established" }

// Row is one route as `sluice bgp routes` shows it: told to a peer or not, and
// why.
type Row struct {
	Addr     netip.Addr   // the load-balancer address
	Prefix   netip.Prefix // what stands for it at routers: its own, or an aggregate
	Peer     string       // "" when no peer is meant at all
	Told     bool
	Reason   string // one line, of what decides
	Services []model.Name
	Route    Route
}
