package bgp

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// match is an advertisement that is for an address, and how it tells it.
type match struct {
	advert int // its place in network.adverts
	bits   int // of the prefix that is told
	single single
}

// single says why an address is told by itself although the advertisement
// would tell an aggregate in its place.
type single uint8

const (
	asWished single = iota
	// ofLocal: nodes differ in which addresses they lead traffic to, so a
	// prefix would bring them that of addresses they cannot serve.
	ofLocal
	// beyondPool: the prefix has addresses that are not in the pool, which may
	// be anybody's; nodes would draw and discard their traffic.
	beyondPool
)

// note is what the reason of a route says of it.
func (s single) note() string {
	switch s {
	case ofLocal:
		return "; told singly, as aggregates are for policy Cluster"
	case beyondPool:
		return "; told singly, as the aggregate reaches beyond the pool"
	}
	return ""
}

// plan is what is told of all addresses that the same advertisements select in
// the same way.
type plan struct {
	tells    []tell // by peer, then by length
	problems []model.Problem
}

// tell is one route to one peer.
type tell struct {
	peer   string
	bits   int
	route  Route
	silent string // why it is not told, whoever leads; "": it is
	note   string
}

// matches are the advertisements that tell an address to somebody from this
// node, the oldest first. With none, explain says why. The slice holds until
// the next call.
func (n *network) matches(v model.VIP) []match {
	local := slices.ContainsFunc(v.Services, func(s model.Share) bool { return s.Local })
	n.matched = n.matched[:0]
	for i, a := range n.adverts {
		if n.falls(a, v) == reaches {
			m := match{advert: i}
			m.bits, m.single = n.length(a, v.Addr, local)
			n.matched = append(n.matched, m)
		}
	}
	return n.matched
}

// keepers are those of the matches that keep an address without endpoints.
func (n *network) keepers(ms []match) (keep []match) {
	for _, m := range ms {
		if n.adverts[m.advert].KeepEmpty {
			keep = append(keep, m)
		}
	}
	return keep
}

// othersOf are the nodes that matter while this one is NotReady; see
// site.others. They tell an address by advertisements of their own as well.
func (n *network) othersOf(v model.VIP, keeping bool) (others []map[string]struct{}) {
	if n.NotReady.IsZero() {
		return nil
	}
	for _, a := range n.adverts {
		if n.falls(a, v) > otherServices && (a.KeepEmpty || !keeping) {
			others = append(others, a.others[slot(v.Addr)])
		}
	}
	return others
}

// stage is how far an advertisement is from telling an address.
type stage uint8

// The stages, the furthest first.
const (
	otherPool stage = iota
	otherServices
	otherNodes
	noPeer
	reaches
)

// falls says at which stage an advertisement falls short of an address. It is
// for an address when it is for any of the Services that share it.
func (n *network) falls(a *advert, v model.VIP) stage {
	switch {
	case !n.selects(a, v.Addr):
		return otherPool
	case !slices.ContainsFunc(v.Services, func(s model.Share) bool { return model.Selected(a.Services, s.Labels) }):
		return otherServices
	case !a.here:
		return otherNodes
	case len(a.peers) == 0:
		return noPeer
	}
	return reaches
}

// selects reports whether an advertisement selects a pool that an address is in.
func (n *network) selects(a *advert, addr netip.Addr) bool {
	if a.pools == nil {
		return true
	}
	for i, selected := range a.pools {
		if selected && n.pools[i].holds(addr) {
			return true
		}
	}
	return false
}

// holds reports whether an address is in the pool.
func (p pool) holds(addr netip.Addr) bool {
	return slices.ContainsFunc(p.ranges, func(r model.AddrRange) bool { return r.Contains(addr) })
}

// length is how long a prefix an advertisement tells for an address.
func (n *network) length(a *advert, addr netip.Addr, local bool) (bits int, why single) {
	bits = int(a.Length4)
	if addr.Is6() {
		bits = int(a.Length6)
	}
	if bits == 0 || bits >= addr.BitLen() {
		return addr.BitLen(), asWished
	}
	if local {
		return addr.BitLen(), ofLocal
	}
	prefix := netip.PrefixFrom(addr, bits)
	for i, p := range n.pools {
		if (a.pools == nil || a.pools[i]) && p.contains(prefix) {
			return bits, asWished
		}
	}
	return addr.BitLen(), beyondPool
}

// explain is why nobody at all is told an address: what the advertisement that
// comes closest lacks.
func (n *network) explain(v model.VIP) string {
	if len(n.adverts) == 0 {
		return "there is no BGPAdvertisement"
	}
	closest := slices.MaxFunc(n.adverts, func(a, b *advert) int { return cmp.Compare(n.falls(a, v), n.falls(b, v)) })
	switch n.falls(closest, v) {
	case otherPool:
		return n.poolless(v.Addr)
	case otherServices:
		if len(v.Services) > 1 {
			return fmt.Sprintf("BGPAdvertisement %s's serviceSelectors leave out all %d Services", closest.Name, len(v.Services))
		}
		return fmt.Sprintf("BGPAdvertisement %s's serviceSelectors leave out %s", closest.Name, v.Services[0].Service)
	case otherNodes:
		return fmt.Sprintf("BGPAdvertisement %s's nodeSelectors leave out %s", closest.Name, n.here())
	}
	return closest.nobody
}

// poolless is why no advertisement selects the pools of an address.
func (n *network) poolless(addr netip.Addr) string {
	var in []string
	for _, p := range n.pools {
		if p.holds(addr) {
			in = append(in, p.name)
		}
	}
	switch len(in) {
	case 0:
		return "no AddressPool has the address, and no BGPAdvertisement is for those without a pool"
	case 1:
		return "no BGPAdvertisement selects pool " + in[0]
	}
	return "no BGPAdvertisement selects any of the pools " + strings.Join(in, ", ")
}

// plan is what is told of an address of a family that these advertisements are
// for. It lasts as long as the network.
func (n *network) plan(addr netip.Addr, ms []match) *plan {
	key := append(n.key[:0], byte(slot(addr)))
	for _, m := range ms {
		key = binary.BigEndian.AppendUint32(key, uint32(m.advert)) //nolint:gosec // an index
		key = append(key, byte(m.single))                          // which says how long the prefix is
	}
	n.key = key
	p := n.plans[string(key)]
	if p == nil {
		p = n.draw(slot(addr), ms)
		n.plans[string(key)] = p
	}
	return p
}

// group is the advertisements that one route to one peer comes from.
type group struct {
	peer    *neighbour
	adverts []*advert // the oldest first
	note    string
}

// draw makes a plan.
func (n *network) draw(f int, ms []match) *plan {
	type place struct {
		peer string
		bits int
	}
	groups := map[place]*group{}
	p := &plan{}
	for _, m := range ms {
		a := n.adverts[m.advert]
		if m.single == beyondPool {
			p.complain(complaint(a.Advertisement, "AggregateBeyondPool", fmt.Sprintf(
				"%s is %d, and some prefixes of that length reach beyond the pool of the addresses in them, which are told singly; "+
					"choose a longer prefix, or a pool that fills it", [...]string{"aggregationLength", "aggregationLengthV6"}[f], a.lengths()[f])))
		}
		for _, peer := range a.peers {
			at := place{peer.Name, m.bits}
			if groups[at] == nil {
				groups[at] = &group{peer: peer}
			}
			groups[at].adverts = append(groups[at].adverts, a)
			groups[at].note = cmp.Or(groups[at].note, m.single.note())
		}
	}
	for _, at := range slices.SortedFunc(maps.Keys(groups), func(a, b place) int {
		return cmp.Or(strings.Compare(a.peer, b.peer), cmp.Compare(a.bits, b.bits))
	}) {
		g := groups[at]
		t := tell{peer: at.peer, bits: at.bits, silent: g.peer.silent[f], note: g.note}
		t.route = g.route(p)
		t.route.NextHop = g.peer.nextHop[f]
		p.tells = append(p.tells, t)
	}
	return p
}

func (a *advert) lengths() [2]uint8 { return [2]uint8{a.Length4, a.Length6} }

// complain keeps a problem that is not known yet.
func (p *plan) complain(problem model.Problem) {
	if !slices.Contains(p.problems, problem) {
		p.problems = append(p.problems, problem)
	}
}

// route is what the advertisements say together: all their communities, and the
// oldest one's word where only one can be true. Local preference is for peers
// of our own AS.
func (g *group) route(p *plan) (r Route) {
	var communities []model.Community
	var large []model.LargeCommunity
	var preferred, discriminated *advert
	for _, a := range g.adverts {
		communities = append(communities, a.Communities...)
		large = append(large, a.LargeCommunities...)
		if a.LocalPref > 0 && g.peer.ASN == g.peer.MyASN {
			preferred = cmp.Or(preferred, a)
			p.contradict(preferred, a, "localPref", preferred.LocalPref, a.LocalPref)
			r.LocalPref = preferred.LocalPref
		}
		if a.MED != nil {
			discriminated = cmp.Or(discriminated, a)
			p.contradict(discriminated, a, "med", *discriminated.MED, *a.MED)
			r.MED, r.HasMED = *discriminated.MED, true
		}
	}
	r.Communities = wordlist(communities, cmp.Compare[model.Community], func(c model.Community) string {
		return colons(uint32(c>>16), uint32(c&0xffff))
	})
	r.LargeCommunities = wordlist(large,
		func(a, b model.LargeCommunity) int { return slices.Compare(a[:], b[:]) },
		func(c model.LargeCommunity) string { return colons(c[:]...) })
	return r
}

// contradict complains of a younger advertisement that says something else than
// an older one.
func (p *plan) contradict(older, younger *advert, field string, counts, said uint32) {
	if counts == said {
		return
	}
	p.complain(complaint(younger.Advertisement, "Contradiction", fmt.Sprintf(
		"%s %d contradicts %d of the BGPAdvertisement %s, which is older and counts where both tell the same addresses to the same peers; "+
			"give both the same %s, or have them select other addresses, nodes or peers", field, said, counts, older.Name, field)))
}

// wordlist is the text form of a set: sorted, without duplicates, joined by spaces.
func wordlist[T comparable](items []T, compare func(a, b T) int, text func(T) string) string {
	slices.SortFunc(items, compare)
	var words []string
	for _, item := range slices.Compact(items) {
		words = append(words, text(item))
	}
	return strings.Join(words, " ")
}

// colons joins numbers by colons.
func colons(ns ...uint32) string {
	words := make([]string, len(ns))
	for i, n := range ns {
		words[i] = strconv.FormatUint(uint64(n), 10)
	}
	return strings.Join(words, ":")
}
