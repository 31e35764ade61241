package model

import (
	"net/netip"
	"time"
)

// Peer is a BGPPeer: a router that nodes tell their routes to.
type Peer struct {
	Name    string
	UID     string
	Created time.Time

	Addr  netip.AddrPort
	ASN   uint32 // the router's
	MyASN uint32 // ours

	// Hold is after how long a silent peer counts as gone, Keepalive how often
	// each side speaks, ConnectRetry how long to wait between two dials.
	Hold, Keepalive, ConnectRetry time.Duration
	// Restart has the peer keep our routes for that long after the session
	// broke off (graceful restart, RFC 4724); 0: it drops them at once.
	Restart time.Duration
	Source  netip.Addr // what we dial from; invalid: the kernel chooses
	// Hops is how many hops away an eBGP peer may be: the TTL of what we
	// send. 0: directly connected.
	Hops uint8
	// TTLSecurity (RFC 5082) takes only packets that come from the next hop:
	// both sides send TTL 255. It excludes Hops.
	TTLSecurity bool
	// Secret names the Secret with the session's password (RFC 2385), "" when
	// there is none. Password is the password itself where the object tells it
	// another way (a file).
	Secret   string
	Password Password

	Nodes    []Selector // which nodes dial it; none: all
	Families []Family   // of the routes told; none: both
}

// Secret is a Secret that peers may name: the password in it.
type Secret struct {
	Name     string
	Password Password
}

// Password is a password. It does not show in logs and errors.
type Password string

// String hides the password.
func (p Password) String() string {
	if p == "" {
		return ""
	}
	return "(hidden)"
}

// GoString hides the password.
func (p Password) GoString() string { return p.String() }

// Advertisement is a BGPAdvertisement: which addresses are told to which
// peers, from which nodes, with which attributes.
type Advertisement struct {
	Name    string
	UID     string
	Created time.Time

	// Pools and PoolSelectors choose addresses by their pool, by name or label;
	// with neither every address is meant, that of no pool included.
	Pools         []string
	PoolSelectors []Selector
	Services      []Selector // none: all
	Nodes         []Selector // none: all
	Peers         []string   // none: all

	Communities      []Community
	LargeCommunities []LargeCommunity
	LocalPref        uint32 // to iBGP peers; 0: not said
	MED              *uint32
	// Length4 and Length6 are the length of the prefixes that are told in the
	// place of single addresses; 0: 32 and 128.
	Length4, Length6 uint8
	// KeepEmpty keeps the route of an address whose Services (of policy Cluster)
	// have no endpoint at all. Clients are then refused by a node rather than
	// told by a router that there is no route.
	KeepEmpty bool
}

// Community is an RFC 1997 community.
type Community uint32

// LargeCommunity is an RFC 8092 large community.
type LargeCommunity [3]uint32

// AddressPoolKey names a deleted AddressPool.
type AddressPoolKey struct{ Name string }

// PeerKey names a deleted BGPPeer.
type PeerKey struct{ Name string }

// AdvertisementKey names a deleted BGPAdvertisement.
type AdvertisementKey struct{ Name string }

// SecretKey names a deleted Secret.
type SecretKey struct{ Name string }

// NamespaceKey names a deleted Namespace.
type NamespaceKey struct{ Name string }
