package ipam

import (
	"net/netip"

	"sluice.dev/sluice/internal/model"
)

// Reasons of conditions of Services, and of the problems that say the same.
const (
	Allocated        = "Allocated"        // it has what it asks for
	PoolExhausted    = "PoolExhausted"    // no pool that would do has a free address
	NoPool           = "NoPool"           // no pool would do
	AddressInUse     = "AddressInUse"     // somebody else has the address
	AddressOutOfPool = "AddressOutOfPool" // the address that it asks for is in no pool
	RequestRefused   = "RequestRefused"   // what it asks for by name is not given
	NotAllowed       = "NotAllowed"       // the pool is not for its namespace
	OutOfPool        = "OutOfPool"        // it keeps an address that its pools would not give it
	FamilyMissing    = "FamilyMissing"    // it has an address of one family and not of the other
)

// Decision is what a Service is to have.
type Decision struct {
	Holder
	// Wanted: the Service is ours to give addresses to. Otherwise nothing of
	// ours is to remain in its status.
	Wanted bool
	// Gone: the Service is no more, there are only addresses to Release.
	Gone bool
	// Addresses are what its status is to say, in the order of its families.
	Addresses []netip.Addr
	// Told are the addresses that its status has, as far as that was told.
	Told []netip.Addr
	// Key is its sharing key, With are the other holders of its addresses, where
	// they may share them.
	Key  string
	With map[netip.Addr][]Holder
	// Release are addresses that it does not have any more. They are taken
	// until Released.
	Release []netip.Addr
	// Dropped are those of Release that it lost by what it asks for. The others
	// it is not known to have been told of.
	Dropped []netip.Addr
	// Handled is the value of its Reallocate that is done.
	Handled   string
	Condition Condition
}

// Condition is whether a Service has what it asks for.
type Condition struct {
	OK      bool
	Reason  string
	Message string // names the field, the value and the remedy
}

// Problem is what an Event is to say of the decision; nil: nothing.
func (d Decision) Problem() *model.Problem {
	if !d.Wanted || d.Condition.Reason == Allocated {
		return nil
	}
	return &model.Problem{Kind: "Service", Object: d.Name, UID: d.UID, Reason: d.Condition.Reason, Message: d.Condition.Message}
}

// Next returns a decision that may have changed, and whether there was one: of
// Services that are gone first, then the older Services before the younger.
func (a *Allocator) Next() (Decision, bool) {
	if a.stale {
		a.relay()
	}
	for len(a.parted) > 0 {
		h := a.parted[0]
		a.parted = a.parted[1:]
		if addrs := a.gone[h]; len(addrs) > 0 {
			return Decision{Holder: h, Gone: true, Release: append([]netip.Addr(nil), addrs...)}, true
		}
	}
	t, ok := a.dirty.pop()
	if !ok {
		return Decision{}, false
	}
	return a.decide(a.services[t.name]), true
}

// relay makes the layout anew. Every address is counted again and every Service
// decided upon again.
func (a *Allocator) relay() {
	a.stale = false
	for _, r := range a.services {
		a.unwait(r)
		a.soil(r.fact.Name)
	}
	a.layout = newLayout(a.pools, a.reservations(), &a.work)
	for addr, l := range a.leases {
		where := a.layout.locate(addr)
		a.refile(addr, l, where)
		if where != nil {
			where.space(model.FamilyOf(addr)).assigned++
			where.space(model.FamilyOf(addr)).take(addr)
		}
	}
	for addr := range a.blocked {
		if where := a.layout.locate(addr); where != nil && a.leases[addr] == nil {
			where.space(model.FamilyOf(addr)).take(addr)
		}
	}
}

// reservations are what no pool may give.
func (a *Allocator) reservations() []reservation {
	var no []reservation
	for _, p := range a.opts.Reserved {
		no = append(no, reservation{rangeOf(p), p.Masked().String() + ", a network of pods, Services or nodes,"})
	}
	for name, addrs := range a.nodes {
		what := "node " + name
		if name == "" {
			what = "this host"
		}
		for _, addr := range addrs {
			no = append(no, reservation{single(addr), what})
		}
	}
	sortReservations(no)
	return no
}

// PoolCounts is how far a pool is used, and what is wrong with it. Counts are of
// IPv4 and IPv6, at most math.MaxInt64.
type PoolCounts struct {
	Name, UID           string
	Assigned, Available [2]int64
	Problems            []model.Problem
}

// Pools are the pools as they are now, in the order in which they are asked.
func (a *Allocator) Pools() []PoolCounts {
	if a.stale {
		a.relay()
	}
	counts := make([]PoolCounts, 0, len(a.layout.asked))
	for _, p := range a.layout.asked {
		c := PoolCounts{Name: p.fact.Name, UID: p.fact.UID, Problems: p.problems}
		for i, s := range p.spaces {
			c.Assigned[i], c.Available[i] = s.assigned, s.available()
		}
		counts = append(counts, c)
	}
	return counts
}

// Waiting is how many Services lack an address that they ask for.
func (a *Allocator) Waiting() int { return len(a.waiting) }

// DefaultClass is the spec.loadBalancerClass that is ours unless another is
// configured.
const DefaultClass = "sluice.dev/bgp"

// Ours is an Options.Ours for Services of one class and for those of none.
func Ours(class string) func(string) bool {
	return func(of string) bool { return of == "" || of == class }
}
