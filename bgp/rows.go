package bgp

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// line is what is remembered of one Row.
type line struct {
	peer   string // "": of no peer
	bits   uint8
	told   bool
	route  *Route // of a plan; nil without a peer
	reason string
}

func (l line) prefix(addr netip.Addr) netip.Prefix {
	return netip.PrefixFrom(addr, int(l.bits)).Masked()
}

// Rows are the routes of every address that Decide was asked of and somebody
// answers on, by address, peer and prefix: one for each route to each peer that
// is meant, told or not. An address that is for no peer has one Row all the
// same, which says why. A peer that is not for this node has none.
func (a *Announcer) Rows() []Row {
	a.mu.Lock()
	states := maps.Clone(a.states)
	a.mu.Unlock()
	rows := make([]Row, 0, len(states))
	for addr, s := range states {
		for _, l := range s.lines {
			rows = append(rows, l.row(addr, s.services))
		}
	}
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(a.Addr.Compare(b.Addr), strings.Compare(a.Peer, b.Peer), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	return rows
}

func (l line) row(addr netip.Addr, services []model.Name) Row {
	r := Row{Addr: addr, Prefix: l.prefix(addr), Peer: l.peer, Told: l.told, Reason: l.reason, Services: services}
	if l.route != nil {
		r.Route = *l.route
	}
	return r
}
