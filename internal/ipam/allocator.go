package ipam

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"sluice.dev/sluice/internal/model"
)

// Options are what an Allocator has to know.
type Options struct {
	// Ours says which classes of Services (spec.loadBalancerClass; "": none is
	// named) get their addresses here; nil: those without a class.
	Ours func(class string) bool
	// Reserved are the networks of pods, Services and nodes: what pools have of
	// them is not given.
	Reserved []netip.Prefix
}

// Allocator decides which Service has which address. It is told facts (Apply),
// what was given before (Adopt), and how far its decisions have come (Released,
// Again, Block); it is asked for decisions (Next). It has one owner.
//
// An address is taken from the moment it is decided upon until whoever carries
// out the decisions says Released.
type Allocator struct {
	opts    Options
	started bool

	facts
	layout layout
	stale  bool // facts that the layout is made of have changed
	dirty  minSet[turn]
	gone   map[Holder][]netip.Addr // of Services that are no more, until Released
	parted []Holder                // of these, not said yet

	leases  map[netip.Addr]*lease
	blocked map[netip.Addr]string // taken by somebody we know nothing of
	shared  cabinet

	waiting   map[model.Name]struct{}                       // Services that lack something
	wantsAddr map[netip.Addr]map[model.Name]struct{}        // that ask for an address by name
	wantsKey  map[string]map[string]map[model.Name]struct{} // that would share, by key and ports
	work      int                                           // addresses and files looked at
}

// facts are what was told.
type facts struct {
	pools       map[string]model.AddressPool
	namespaces  map[string]model.Namespace
	nodes       map[string][]netip.Addr // by name; "": of this host
	services    map[model.Name]*record
	byNamespace map[string]map[model.Name]struct{}
}

// record is a Service and what it has.
type record struct {
	fact    model.Service
	part    part
	ours    bool
	held    []netip.Addr // what its status says or is to say, in the order of its families
	leaving []netip.Addr // given up, but not yet Released
	dropped []netip.Addr // of these, what the Service lost by what it asked for
	foreign []netip.Addr // in its status, but not ours to change
	handled string       // the value of Reallocate that was last done

	waits  []*space     // where it waits for an address
	wanted []netip.Addr // the addresses by name that it waits for
	share  sharing      // whom it waits to share with
}

// sharing is a key and a portText.
type sharing struct{ key, ports string }

func (r *record) holder() Holder { return Holder{r.fact.Name, r.fact.UID} }
func (r *record) turn() turn     { return turn{r.fact.Created.UnixNano(), r.fact.Name} }

// turn is a Service's place among those that want something: the older first.
type turn struct {
	created int64
	name    model.Name
}

func (t turn) before(o turn) bool {
	return cmp.Or(cmp.Compare(t.created, o.created), t.name.Compare(o.name)) < 0
}

// New makes an allocator that adopts until Start.
func New(opts Options) *Allocator {
	if opts.Ours == nil {
		opts.Ours = func(class string) bool { return class == "" }
	}
	a := &Allocator{
		opts: opts,
		facts: facts{
			pools: map[string]model.AddressPool{}, namespaces: map[string]model.Namespace{}, nodes: map[string][]netip.Addr{},
			services: map[model.Name]*record{}, byNamespace: map[string]map[model.Name]struct{}{},
		},
		stale: true,
		dirty: newMinSet(turn.before),
		gone:  map[Holder][]netip.Addr{}, leases: map[netip.Addr]*lease{}, blocked: map[netip.Addr]string{}, shared: cabinet{},
		waiting: map[model.Name]struct{}{}, wantsAddr: map[netip.Addr]map[model.Name]struct{}{}, wantsKey: map[string]map[string]map[model.Name]struct{}{},
	}
	a.layout = newLayout(nil, nil, &a.work)
	return a
}

// Follow returns an allocator that knows the same facts and adopts again: what
// was decided and not told to the world is forgotten.
func (a *Allocator) Follow() *Allocator {
	next := New(a.opts)
	next.pools, next.namespaces, next.nodes = a.pools, a.namespaces, a.nodes
	for _, r := range a.services {
		next.putService(r.fact)
	}
	return next
}

// Start ends the adoption: from now on what Services have is what was decided,
// not what their status says.
func (a *Allocator) Start() { a.started = true }

// Apply takes in a fact. Before Start a Service has what its status says.
func (a *Allocator) Apply(e model.Event) {
	switch fact := e.Put.(type) {
	case model.Service:
		a.putService(fact)
	case model.AddressPool:
		was, known := a.pools[fact.Name]
		a.pools[fact.Name] = fact
		a.stale = a.stale || !known || !samePool(was, fact)
	case model.Namespace:
		a.putNamespace(fact)
	case model.Node:
		a.putNode(fact.Name, fact.Addrs)
	case model.LocalAddrs:
		a.putNode("", fact.Addrs)
	}
	switch key := e.Delete.(type) {
	case model.ServiceKey:
		a.deleteService(key.Name)
	case model.AddressPoolKey:
		_, known := a.pools[key.Name]
		delete(a.pools, key.Name)
		a.stale = a.stale || known
	case model.NamespaceKey:
		a.putNamespace(model.Namespace{Name: key.Name})
	case model.NodeKey:
		a.putNode(key.Name, nil)
	}
}

func (a *Allocator) putNamespace(n model.Namespace) {
	if maps.Equal(a.namespaces[n.Name].Labels, n.Labels) {
		return
	}
	a.namespaces[n.Name] = n
	for name := range a.byNamespace[n.Name] {
		a.soil(name)
	}
}

// putNode takes in which addresses are a node's; only those matter that pools
// have.
func (a *Allocator) putNode(name string, addrs []netip.Addr) {
	if slices.Equal(a.nodes[name], addrs) {
		return
	}
	for _, addr := range slices.Concat(a.nodes[name], addrs) {
		a.stale = a.stale || slices.ContainsFunc(slices.Collect(maps.Values(a.pools)), func(p model.AddressPool) bool { return p.Contains(addr) })
	}
	if a.nodes[name] = addrs; len(addrs) == 0 {
		delete(a.nodes, name)
	}
}

func (a *Allocator) putService(s model.Service) {
	r := a.services[s.Name]
	if r != nil && (r.fact.UID != s.UID || !r.fact.Created.Equal(s.Created)) {
		a.deleteService(s.Name)
		r = nil
	}
	news := r == nil
	if news {
		r = a.enter(s)
	}
	was, wasPart, wasOurs := r.fact, r.part, r.ours
	r.fact, r.part = s, partOf(s)
	r.ours = s.Balancer.Wanted && a.opts.Ours(s.Balancer.Class)
	other := !wasPart.equal(r.part)
	if other && !news {
		a.repart(r)
	}
	a.takeStatus(r, wasOurs)
	if news || other || !sameRequest(was, s) || !slices.Equal(mine(s), r.held) {
		a.soil(s.Name)
	}
}

// enter makes the record of a Service that is told for the first time.
func (a *Allocator) enter(s model.Service) *record {
	r := &record{handled: s.Balancer.Reallocate}
	a.services[s.Name] = r
	enter(a.byNamespace, s.Name.Namespace, s.Name)
	return r
}

// takeStatus adopts what a Service's status says while nothing is allocated.
// What a Service has that is none of ours is taken at any time.
func (a *Allocator) takeStatus(r *record, wasOurs bool) {
	switch {
	case !r.ours:
		others := slices.DeleteFunc(slices.Clone(r.fact.Balancer.Status), func(x netip.Addr) bool {
			return slices.Contains(r.held, x) || slices.Contains(r.leaving, x)
		})
		if !a.started {
			a.hold(r, nil)
			others = r.fact.Balancer.Status
		}
		a.setForeign(r, others)
	case !a.started:
		held := mine(r.fact)
		a.setForeign(r, slices.DeleteFunc(slices.Clone(r.fact.Balancer.Status), func(x netip.Addr) bool { return slices.Contains(held, x) }))
		a.hold(r, held)
	case !wasOurs && len(r.held)+len(r.leaving) == 0:
		a.inherit(r)
	default:
		a.setForeign(r, slices.DeleteFunc(slices.Clone(r.foreign), func(x netip.Addr) bool { return !slices.Contains(r.fact.Balancer.Status, x) }))
	}
}

// inherit adopts what a Service that is told for the first time has already.
func (a *Allocator) inherit(r *record) {
	has := slices.DeleteFunc(slices.Clone(mine(r.fact)), func(x netip.Addr) bool { return !a.joins(r, x) })
	a.setForeign(r, slices.DeleteFunc(slices.Clone(r.foreign), func(x netip.Addr) bool {
		return slices.Contains(has, x) || !slices.Contains(r.fact.Balancer.Status, x)
	}))
	a.hold(r, has)
}

// mine are the addresses in a Service's status that we may have written: those
// that nodes answer on. A source may withhold all of them from the nodes.
func mine(s model.Service) []netip.Addr {
	if len(s.LoadBalancerIPs) > 0 {
		return s.LoadBalancerIPs
	}
	return s.Balancer.Status
}

// sameRequest reports whether two facts ask for the same.
func sameRequest(a, b model.Service) bool {
	x, y := a.Balancer, b.Balancer
	return x.Wanted == y.Wanted && x.Class == y.Class && x.Pool == y.Pool && x.Unclear == y.Unclear && x.Reallocate == y.Reallocate && x.DualStack == y.DualStack &&
		slices.Equal(x.Requested, y.Requested) && slices.Equal(x.Families, y.Families) &&
		slices.Equal(a.ClusterIPs, b.ClusterIPs) && maps.Equal(a.Labels, b.Labels)
}

// samePool reports whether two facts of a pool mean the same for allocation.
// Every writing of its status tells a pool again.
func samePool(a, b model.AddressPool) bool {
	return a.UID == b.UID && a.Created.Equal(b.Created) && a.Priority == b.Priority &&
		a.AvoidBuggyIPs == b.AvoidBuggyIPs && a.AutoAssign == b.AutoAssign && a.Disabled == b.Disabled && a.EnforceNamespaces == b.EnforceNamespaces &&
		slices.Equal(a.Ranges, b.Ranges) && slices.Equal(a.Namespaces, b.Namespaces) &&
		slices.EqualFunc(a.NamespaceSelectors, b.NamespaceSelectors, sameSelector) &&
		slices.EqualFunc(a.ServiceSelectors, b.ServiceSelectors, sameSelector)
}

func sameSelector(a, b model.Selector) bool {
	return slices.EqualFunc(a.Requirements, b.Requirements, func(x, y model.Requirement) bool {
		return x.Key == y.Key && x.Op == y.Op && slices.Equal(x.Values, y.Values)
	})
}

// deleteService lets what a Service had go, once that is carried out.
func (a *Allocator) deleteService(name model.Name) {
	r := a.services[name]
	if r == nil {
		return
	}
	lines := r.waits
	a.unwait(r)
	a.dirty.remove(r.turn())
	for _, s := range lines {
		a.wakeFirst(s) // what it was woken for is the next one's
	}
	delete(a.services, name)
	leave(a.byNamespace, name.Namespace, name)
	h := r.holder()
	for _, addr := range r.foreign {
		a.release(addr, h)
	}
	going := slices.Concat(r.held, r.leaving)
	if !a.started {
		for _, addr := range going {
			a.release(addr, h)
		}
		return
	}
	if len(going) > 0 {
		a.gone[h] = going
		a.parted = append(a.parted, h)
	}
}

// Adopt says what a Service has, in place of what was thought of it: addresses
// that are ours to give and to take, others in its status, and the value of
// Reallocate that was last done.
func (a *Allocator) Adopt(h Holder, ours, others []netip.Addr, handled string) {
	r := a.services[h.Name]
	if r == nil || r.fact.UID != h.UID {
		return
	}
	r.handled = handled
	if !r.ours {
		return
	}
	if a.started {
		a.keepLeaving(r, ours)
	}
	a.setForeign(r, others)
	a.hold(r, ours)
	a.soil(h.Name)
}

// Resume says that addresses were claimed for a Service before, and perhaps not
// told to it yet: one that has none has the lowest of each family from now on,
// unless somebody else has it.
func (a *Allocator) Resume(h Holder, claimed []netip.Addr) {
	r := a.services[h.Name]
	if r == nil || r.fact.UID != h.UID || !r.ours || len(r.held) > 0 {
		return
	}
	var has []netip.Addr
	for _, addr := range slices.SortedFunc(slices.Values(claimed), netip.Addr.Compare) {
		if len(ofFamily(has, model.FamilyOf(addr))) == 0 && a.joins(r, addr) {
			has = append(has, addr)
		}
	}
	a.Adopt(h, has, r.foreign, r.handled)
}

// Evict says that an address belongs to these and nobody else: others who were
// to have it are decided upon again.
func (a *Allocator) Evict(addr netip.Addr, holders []Holder) {
	l := a.leases[addr]
	if l == nil {
		return
	}
	for h := range maps.Clone(l.holders) {
		r := a.services[h.Name]
		if slices.Contains(holders, h) || r == nil || r.fact.UID != h.UID || !slices.Contains(r.held, addr) {
			continue
		}
		a.hold(r, slices.DeleteFunc(slices.Clone(r.held), func(x netip.Addr) bool { return x == addr }))
		a.soil(h.Name)
	}
}

// joins reports whether a Service may have an address as far as others go.
func (a *Allocator) joins(r *record, addr netip.Addr) bool {
	l := a.leases[addr]
	return l == nil || l.admits(r.holder(), r.part)
}

// keepLeaving moves what a Service has and is not among these to what it gives
// up, and back.
func (a *Allocator) keepLeaving(r *record, now []netip.Addr) {
	for _, addr := range r.held {
		if !slices.Contains(now, addr) && !slices.Contains(r.leaving, addr) {
			r.leaving = append(r.leaving, addr)
		}
	}
	r.held = slices.DeleteFunc(slices.Clone(r.held), func(x netip.Addr) bool { return !slices.Contains(now, x) })
	r.leaving = slices.DeleteFunc(r.leaving, func(x netip.Addr) bool { return slices.Contains(now, x) })
	r.dropped = slices.DeleteFunc(r.dropped, func(x netip.Addr) bool { return slices.Contains(now, x) })
}

// Abandon says that an address is still on record as a Service's that does not
// have it any more, or is no more: it is taken until Released.
func (a *Allocator) Abandon(h Holder, addr netip.Addr) {
	r := a.services[h.Name]
	if r == nil || r.fact.UID != h.UID {
		if !slices.Contains(a.gone[h], addr) {
			a.gone[h] = append(a.gone[h], addr)
			a.attach(addr, h, part{})
		}
		a.parted = append(a.parted, h)
		return
	}
	if !slices.Contains(r.held, addr) && !slices.Contains(r.leaving, addr) && !slices.Contains(r.foreign, addr) {
		a.attach(addr, h, r.part)
		r.leaving = append(r.leaving, addr)
	}
	a.soil(h.Name)
}

// Released says that nothing names a Service as an address's holder any more,
// of an address that a Decision told to release.
func (a *Allocator) Released(h Holder, addr netip.Addr) {
	if r := a.services[h.Name]; r != nil && r.fact.UID == h.UID {
		if !slices.Contains(r.leaving, addr) {
			return
		}
		r.leaving = slices.DeleteFunc(r.leaving, func(x netip.Addr) bool { return x == addr })
		r.dropped = slices.DeleteFunc(r.dropped, func(x netip.Addr) bool { return x == addr })
	} else {
		if !slices.Contains(a.gone[h], addr) {
			return
		}
		a.gone[h] = slices.DeleteFunc(a.gone[h], func(x netip.Addr) bool { return x == addr })
		if len(a.gone[h]) == 0 {
			delete(a.gone, h)
		}
	}
	a.release(addr, h)
}

// Again asks for a Service's decision once more.
func (a *Allocator) Again(h Holder) {
	if _, left := a.gone[h]; left {
		a.parted = append(a.parted, h)
		return
	}
	a.soil(h.Name)
}

// Block says that an address is taken by somebody who is not among the facts,
// such as "Service shop/web, which was not told yet". Services that were to have
// it are decided upon again.
func (a *Allocator) Block(addr netip.Addr, by string) {
	if _, known := a.blocked[addr]; known {
		return
	}
	if a.leases[addr] == nil {
		if p := a.layout.locate(addr); p != nil {
			p.space(model.FamilyOf(addr)).take(addr)
		}
	}
	a.blocked[addr] = by
}

// Unblock says that an address that was blocked is not any more.
func (a *Allocator) Unblock(addr netip.Addr) {
	if _, known := a.blocked[addr]; !known {
		return
	}
	delete(a.blocked, addr)
	if a.leases[addr] == nil {
		if p := a.layout.locate(addr); p != nil {
			p.space(model.FamilyOf(addr)).free(addr)
		}
	}
	a.wake(addr)
}

// Refuse says that a Service cannot have an address that was decided to be its,
// since somebody else has it: the address counts as blocked.
func (a *Allocator) Refuse(h Holder, addr netip.Addr, by string) {
	if r := a.services[h.Name]; r != nil && r.fact.UID == h.UID && slices.Contains(r.held, addr) {
		a.hold(r, slices.DeleteFunc(slices.Clone(r.held), func(x netip.Addr) bool { return x == addr }))
	}
	a.Block(addr, by)
	a.soil(h.Name)
}

func (a *Allocator) taken(addr netip.Addr) bool {
	_, blocked := a.blocked[addr]
	return blocked || a.leases[addr] != nil
}

// soil asks for a decision on a Service.
func (a *Allocator) soil(name model.Name) {
	if r := a.services[name]; r != nil {
		a.dirty.add(r.turn())
	}
}

// UnblockAll ends every Block.
func (a *Allocator) UnblockAll() {
	for addr := range a.blocked {
		a.Unblock(addr)
	}
}

// Holder is the Service of a name, if there is one.
func (a *Allocator) Holder(name model.Name) (Holder, bool) {
	r := a.services[name]
	if r == nil {
		return Holder{}, false
	}
	return r.holder(), true
}

// Knows reports whether there may be a decision on a Service.
func (a *Allocator) Knows(h Holder) bool {
	now, there := a.Holder(h.Name)
	_, left := a.gone[h]
	return there && now == h || left
}

// Has reports whether a Service has an address, ours or not.
func (a *Allocator) Has(h Holder, addr netip.Addr) bool {
	r := a.services[h.Name]
	return r != nil && r.fact.UID == h.UID && (slices.Contains(r.held, addr) || slices.Contains(r.foreign, addr))
}
