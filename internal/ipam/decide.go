package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// miss is an address that a Service asks for and does not get.
type miss struct {
	Condition
	family model.Family
	addr   netip.Addr // that it asked for by name
	spaces []*space   // where one that becomes free would do
}

// decide says what a Service has from now on.
func (a *Allocator) decide(r *record) Decision {
	lines := r.waits
	a.unwait(r)
	var missing []miss
	if r.ours {
		var now []netip.Addr
		now, missing = a.plan(r)
		a.settle(r, now)
		a.wait(r, missing)
	} else {
		a.settle(r, nil)
	}
	for _, s := range lines {
		a.wakeFirst(s)
	}
	d := Decision{
		Holder: r.holder(), Wanted: r.ours, Key: r.part.key, Handled: r.handled,
		Told: mine(r.fact), Addresses: slices.Clone(r.held), Release: slices.Clone(r.leaving), Dropped: slices.Clone(r.dropped), With: a.company(r),
	}
	if r.ours {
		d.Condition = a.judge(r, missing)
	}
	return d
}

// settle makes these the addresses that a Service has; what it had besides stays
// taken until Released.
func (a *Allocator) settle(r *record, now []netip.Addr) {
	for _, addr := range r.held {
		if !slices.Contains(now, addr) {
			r.dropped = append(r.dropped, addr)
		}
	}
	a.keepLeaving(r, now)
	for _, addr := range now {
		a.attach(addr, r.holder(), r.part)
	}
	r.held = now
}

// company are the other holders of a Service's addresses that it shares them
// with.
func (a *Allocator) company(r *record) map[netip.Addr][]Holder {
	var with map[netip.Addr][]Holder
	for _, addr := range r.held {
		l := a.leases[addr]
		if len(l.holders) < 2 || l.contested() {
			continue
		}
		if with == nil {
			with = map[netip.Addr][]Holder{}
		}
		for h := range l.holders {
			if h != r.holder() {
				with[addr] = append(with[addr], h)
			}
		}
	}
	return with
}

// plan is what a Service is to have, and what it lacks. What it has already it
// keeps, unless it asks for something else and that can be had.
func (a *Allocator) plan(r *record) ([]netip.Addr, []miss) {
	want := wantedFamilies(r.fact)
	ask, refusal := requests(r.fact, want)
	asked := r.fact.Balancer.Reallocate
	renew := asked != r.handled && asked != ""
	if refusal != nil {
		return kept(r, want), []miss{*refusal}
	}
	var now []netip.Addr
	var missing []miss
	for _, f := range want {
		addrs, m := a.choose(r, f, ask[index(f)], renew)
		now = append(now, addrs...)
		if m != nil {
			m.family = f
			missing = append(missing, *m)
		}
	}
	if allOrNothing(r, missing, renew) {
		return kept(r, want), missing
	}
	r.handled = asked
	return now, missing
}

// allOrNothing reports whether what was found is not to be taken, since
// something else was not.
func allOrNothing(r *record, missing []miss, renew bool) bool {
	if len(missing) > 0 && r.fact.Balancer.DualStack == model.RequireDualStack {
		return true
	}
	return slices.ContainsFunc(missing, func(m miss) bool {
		return m.addr.IsValid() || renew && len(ofFamily(r.held, m.family)) > 0
	})
}

// kept is what a Service has of the families that it wants.
func kept(r *record, want []model.Family) []netip.Addr {
	var addrs []netip.Addr
	for _, f := range want {
		addrs = append(addrs, ofFamily(r.held, f)...)
	}
	return addrs
}

// choose is what a Service is to have of a family; what it lacks of it, or nil.
func (a *Allocator) choose(r *record, f model.Family, ask netip.Addr, renew bool) ([]netip.Addr, *miss) {
	has := ofFamily(r.held, f)
	if ask.IsValid() {
		if !slices.Contains(has, ask) {
			if m := a.refuse(r, ask); m != nil {
				return has, m
			}
		}
		return []netip.Addr{ask}, nil
	}
	if len(has) > 0 && !renew {
		return has, nil
	}
	// Of a Service that asks for another address its own is free as any other.
	for _, addr := range has {
		a.pull(addr, r.holder())
	}
	found, m := a.find(r, f)
	for _, addr := range has {
		a.put(addr, r.holder(), r.part)
	}
	if m != nil {
		return has, m
	}
	return []netip.Addr{found}, nil
}

// find is the address that a Service gets of a family: of the first pool that
// would do and has one, the lowest that it can share, or else the lowest that is
// free.
func (a *Allocator) find(r *record, f model.Family) (netip.Addr, *miss) {
	var spaces []*space
	var names []string
	for _, p := range a.asked(r) {
		s := p.space(f)
		if a.bar(r, p) != open || len(s.ranges) == 0 {
			continue
		}
		if r.part.key != "" {
			if addr, ok := a.shared.find(drawer{p.fact.Name, f, r.part.key}, r.part.ports, &a.work); ok {
				return addr, nil
			}
		}
		if addr, ok := s.lowest(a.taken); ok {
			return addr, nil
		}
		spaces, names = append(spaces, s), append(names, p.fact.Name)
	}
	if len(spaces) == 0 {
		return netip.Addr{}, a.noPool(r, f)
	}
	return netip.Addr{}, &miss{spaces: spaces, Condition: Condition{Reason: PoolExhausted, Message: fmt.Sprintf(
		"spec.type: LoadBalancer: no %v address is free in %s; add addresses to spec.addresses of an AddressPool, or remove a Service that needs none",
		f, list("pool", names))}}
}

// asked are the pools that a Service's address may come from, if they are open
// to it: the one that it names, or all that give addresses by themselves.
func (a *Allocator) asked(r *record) []*pool {
	if name := r.fact.Balancer.Pool; name != "" {
		if p := a.layout.byName[name]; p != nil {
			return []*pool{p}
		}
		return nil
	}
	return a.layout.asked
}

// ofFamily are the addresses of one family.
func ofFamily(addrs []netip.Addr, f model.Family) []netip.Addr {
	var of []netip.Addr
	for _, addr := range addrs {
		if model.FamilyOf(addr) == f {
			of = append(of, addr)
		}
	}
	return of
}

// wantedFamilies are of which families a Service is to have an address, the
// first one first. A file may leave out what an API server fills in.
func wantedFamilies(s model.Service) []model.Family {
	of := slices.Clone(s.Balancer.Families)
	if len(of) == 0 {
		for _, ip := range s.ClusterIPs {
			of = append(of, model.FamilyOf(ip))
		}
	}
	if len(of) == 0 {
		of = []model.Family{model.IPv4}
	}
	var distinct []model.Family
	for _, f := range of {
		if !slices.Contains(distinct, f) {
			distinct = append(distinct, f)
		}
	}
	if s.Balancer.DualStack == model.SingleStack {
		return distinct[:1]
	}
	if other := model.IPv4 + model.IPv6 - distinct[0]; len(distinct) == 1 && s.Balancer.DualStack == model.RequireDualStack {
		distinct = append(distinct, other)
	}
	return distinct
}

// list joins names as a sentence has them: "pool a", "pools a, b and 3 more".
func list(noun string, names []string) string {
	const shown = 5
	switch n := len(names); {
	case n == 1:
		return noun + " " + names[0]
	case n > shown:
		return fmt.Sprintf("%ss %s and %d more", noun, strings.Join(names[:shown], ", "), n-shown)
	}
	return noun + "s " + strings.Join(names, ", ")
}
