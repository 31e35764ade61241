package conntrack

import (
	"net/netip"

	"sluice.dev/sluice/internal/model"
)

// Facts are what Stale judges by: the frontends of UDP.
type Facts struct {
	// Backends are the frontends that there are, each with the endpoints that
	// its flows may have.
	Backends map[model.FrontendKey]Backends
	// Removed are frontends that were there not long ago; those that are there
	// again are judged by their backends. (The number is the
	// Sweeper's: how many sweeps had begun by then.)
	Removed map[model.FrontendKey]uint64
}

// Backends are the endpoints of one frontend.
type Backends map[netip.AddrPort]struct{}

// Stale says whether an entry of the connection table has to go.
//
//	protocol      its frontend is    it is answered by
//	not UDP       anything           anybody             keep
//	UDP           ours               one of its backends keep
//	UDP           ours               an endpoint that is no backend (any more)   stale
//	UDP           ours               the frontend itself: never translated       stale
//	UDP           ours, no backends  anybody             stale
//	UDP           removed            anybody             stale
//	UDP           nobody's of ours   anybody             keep
//
// A frontend without backends has no virtual server, and its rule in INPUT
// refuses a flow's first datagram only. An entry from before would let all
// others pass to whatever listens on the node, and keep the sender from
// hearing that there is nobody: it has to go too.
func Stale(f Flow, facts Facts) bool {
	if f.Protocol != model.UDP {
		return false
	}
	key := model.FrontendKey{Addr: f.Frontend, Protocol: f.Protocol}
	if backends, ours := facts.Backends[key]; ours {
		_, serves := backends[f.Backend]
		return !serves
	}
	_, removed := facts.Removed[key]
	return removed
}
