package ipam

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sort"

	"sluice.dev/sluice/internal/model"
)

// Reasons of problems of pools, as Events and conditions show them.
const (
	PoolOverlap  = "PoolOverlap"
	PoolReserved = "PoolReserved"
)

// AddressPoolKind is the kind of the objects with these problems.
const AddressPoolKind = "AddressPool"

// index is where arrays by family have a family.
func index(f model.Family) int {
	if f == model.IPv4 {
		return 0
	}
	return 1
}

// pool is an AddressPool and what of it can be given.
type pool struct {
	fact     model.AddressPool
	spaces   [2]*space
	problems []model.Problem
}

// space is the pool's space of a family.
func (p *pool) space(f model.Family) *space { return p.spaces[index(f)] }

// layout is what belongs to which pool. Every address belongs to one at most:
// of several pools that have it, to the oldest.
type layout struct {
	byName map[string]*pool
	asked  []*pool // in the order in which they are asked
	owned  []owned // ordered

	reserved []reservation
}

type owned struct {
	model.AddrRange
	pool *pool
}

// locate is the pool that an address belongs to; nil: none.
func (l *layout) locate(a netip.Addr) *pool {
	i := sort.Search(len(l.owned), func(i int) bool { return a.Less(l.owned[i].First) })
	if i == 0 || !l.owned[i-1].Contains(a) {
		return nil
	}
	return l.owned[i-1].pool
}

// reservation is what no pool may give, and why.
type reservation struct {
	model.AddrRange
	what string
}

// newLayout gives each pool what neither an older one has nor is reserved.
func newLayout(pools map[string]model.AddressPool, reserved []reservation, work *int) layout {
	l := layout{byName: map[string]*pool{}, reserved: reserved}
	byAge := slices.SortedFunc(maps.Values(pools), func(a, b model.AddressPool) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
	for _, fact := range byAge {
		p := &pool{fact: fact}
		var ranges [2][]model.AddrRange
		for _, r := range fact.Ranges {
			i := index(model.FamilyOf(r.First))
			ranges[i] = append(ranges[i], l.remains(p, r, reserved)...)
		}
		for i := range ranges {
			sortRanges(ranges[i])
			p.spaces[i] = newSpace(ranges[i], fact.AvoidBuggyIPs, work)
		}
		l.add(p)
	}
	l.asked = slices.SortedFunc(maps.Values(l.byName), func(a, b *pool) int {
		return cmp.Or(cmp.Compare(a.fact.Priority, b.fact.Priority), cmp.Compare(a.fact.Name, b.fact.Name))
	})
	return l
}

func (l *layout) add(p *pool) {
	l.byName[p.fact.Name] = p
	for _, s := range p.spaces {
		for _, r := range s.ranges {
			l.owned = append(l.owned, owned{r, p})
		}
	}
	slices.SortFunc(l.owned, func(a, b owned) int { return a.First.Compare(b.First) })
}

// remains is what a pool may give of a range of its, and says what it may not.
func (l *layout) remains(p *pool, r model.AddrRange, reserved []reservation) []model.AddrRange {
	var cuts []model.AddrRange
	for _, o := range l.owned {
		if both, ok := overlap(r, o.AddrRange); ok {
			cuts = append(cuts, both)
			p.complain(PoolOverlap, fmt.Sprintf("spec.addresses: %s is also in pool %s, which is older and keeps it; remove it from one of the two pools",
				text(both), o.pool.fact.Name))
		}
	}
	for _, no := range reserved {
		if both, ok := overlap(r, no.AddrRange); ok {
			cuts = append(cuts, both)
			p.complain(PoolReserved, fmt.Sprintf("spec.addresses: %s belongs to %s and is not given to Services; remove it from the pool", text(both), no.what))
		}
	}
	return without(r, cuts)
}

// maxProblems bounds what one pool can say: a pool in the middle of the nodes'
// network is one mistake.
const maxProblems = 10

func (p *pool) complain(reason, message string) {
	if len(p.problems) < maxProblems {
		p.problems = append(p.problems, model.Problem{
			Kind: AddressPoolKind, Object: model.Name{Name: p.fact.Name}, UID: p.fact.UID, Reason: reason, Message: message,
		})
	}
}

func sortReservations(no []reservation) {
	slices.SortFunc(no, func(a, b reservation) int {
		return cmp.Or(a.First.Compare(b.First), a.Last.Compare(b.Last), cmp.Compare(a.what, b.what))
	})
}
