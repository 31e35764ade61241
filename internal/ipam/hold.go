package ipam

import (
	"net/netip"
	"slices"

	"sluice.dev/sluice/internal/model"
)

// hold makes these the addresses that a Service has. What it had is free at
// once: this is for adoption, where nobody has been told anything else.
func (a *Allocator) hold(r *record, addrs []netip.Addr) {
	h := r.holder()
	for _, addr := range r.held {
		if !slices.Contains(addrs, addr) {
			a.release(addr, h)
		}
	}
	for _, addr := range addrs {
		a.attach(addr, h, r.part)
	}
	r.held = slices.Clone(addrs)
}

// setForeign makes these the addresses that a Service has of somebody else.
func (a *Allocator) setForeign(r *record, addrs []netip.Addr) {
	h := r.holder()
	for _, addr := range r.foreign {
		if !slices.Contains(addrs, addr) {
			a.release(addr, h)
		}
	}
	for _, addr := range addrs {
		a.attach(addr, h, part{ports: r.part.ports})
	}
	r.foreign = slices.Clone(addrs)
}

// repart tells the addresses of a Service that its ports or key have changed.
func (a *Allocator) repart(r *record) {
	h := r.holder()
	for _, addr := range slices.Concat(r.held, r.leaving) {
		a.attach(addr, h, r.part)
		a.wake(addr)
	}
}

// attach makes somebody a holder of an address. Others who hold an address that
// they should not have together are decided upon again.
func (a *Allocator) attach(addr netip.Addr, h Holder, p part) {
	l := a.leases[addr]
	if l != nil {
		if has, held := l.holders[h]; held && has.equal(p) {
			return
		}
	}
	contested := l != nil && l.contested()
	if l = a.put(addr, h, p); contested || l.contested() {
		a.soilHolders(l)
	}
	a.wakeSharers(l)
}

// put makes somebody a holder of an address.
func (a *Allocator) put(addr netip.Addr, h Holder, p part) *lease {
	l := a.leases[addr]
	where := a.layout.locate(addr)
	if l == nil {
		l = newLease()
		a.leases[addr] = l
		if where != nil {
			where.space(model.FamilyOf(addr)).assigned++
			if _, blocked := a.blocked[addr]; !blocked {
				where.space(model.FamilyOf(addr)).take(addr)
			}
		}
	}
	l.add(h, p)
	a.refile(addr, l, where)
	return l
}

// pull ends that somebody is a holder of an address.
func (a *Allocator) pull(addr netip.Addr, h Holder) {
	l := a.leases[addr]
	where := a.layout.locate(addr)
	l.remove(h)
	if len(l.holders) > 0 {
		a.refile(addr, l, where)
		return
	}
	a.shared.drop(addr, l)
	delete(a.leases, addr)
	if where != nil {
		where.space(model.FamilyOf(addr)).assigned--
		if _, blocked := a.blocked[addr]; !blocked {
			where.space(model.FamilyOf(addr)).free(addr)
		}
	}
}

// release ends that somebody is a holder of an address; those who wait for it
// hear of that.
func (a *Allocator) release(addr netip.Addr, h Holder) {
	l := a.leases[addr]
	if l == nil {
		return
	}
	if l.contested() {
		a.soilHolders(l)
	}
	a.pull(addr, h)
	a.wake(addr)
}

func (a *Allocator) refile(addr netip.Addr, l *lease, where *pool) {
	name := ""
	if where != nil {
		name = where.fact.Name
	}
	a.shared.put(addr, l, name)
}

func (a *Allocator) soilHolders(l *lease) {
	for h := range l.holders {
		a.soil(h.Name)
	}
}

// wake has those decided upon again that could take an address that became
// free, or that has room now for another one who shares it. Of the many that
// may wait for any address of a pool only the first is woken: when it has been
// served and there is still something free, the next one is.
func (a *Allocator) wake(addr netip.Addr) {
	for name := range a.wantsAddr[addr] {
		a.soil(name)
	}
	if l := a.leases[addr]; l != nil {
		a.wakeSharers(l)
		return
	}
	if p := a.layout.locate(addr); p != nil {
		a.wakeFirst(p.space(model.FamilyOf(addr)))
	}
}

// wakeSharers has those decided upon again that could join an address's holders.
func (a *Allocator) wakeSharers(l *lease) {
	if l.filed == nil {
		return
	}
	for text, names := range a.wantsKey[l.filed.drawer.key] {
		if !l.has(text) {
			for name := range names {
				a.soil(name)
			}
		}
	}
}

func (a *Allocator) wakeFirst(s *space) {
	first, waits := s.waiting.min()
	if !waits {
		return
	}
	if _, room := s.lowest(a.taken); room {
		a.dirty.add(first)
	}
}

// wait enters a Service among those that lack something.
func (a *Allocator) wait(r *record, missing []miss) {
	name := r.fact.Name
	for _, m := range missing {
		a.waiting[name] = struct{}{}
		if m.addr.IsValid() {
			enter(a.wantsAddr, m.addr, name)
			r.wanted = append(r.wanted, m.addr)
		}
		for _, s := range m.spaces {
			s.waiting.add(r.turn())
			r.waits = append(r.waits, s)
		}
		if len(m.spaces) > 0 && r.part.key != "" {
			r.share = sharing{r.part.key, portText(r.part.ports)}
			if a.wantsKey[r.share.key] == nil {
				a.wantsKey[r.share.key] = map[string]map[model.Name]struct{}{}
			}
			enter(a.wantsKey[r.share.key], r.share.ports, name)
		}
	}
}

// unwait takes a Service out of the lines it stands in.
func (a *Allocator) unwait(r *record) {
	name := r.fact.Name
	if _, waits := a.waiting[name]; !waits {
		return
	}
	delete(a.waiting, name)
	for _, s := range r.waits {
		s.waiting.remove(r.turn())
	}
	r.waits = nil
	for _, addr := range r.wanted {
		leave(a.wantsAddr, addr, name)
	}
	if leave(a.wantsKey[r.share.key], r.share.ports, name); len(a.wantsKey[r.share.key]) == 0 {
		delete(a.wantsKey, r.share.key)
	}
	r.wanted, r.share = nil, sharing{}
}

func enter[K comparable](m map[K]map[model.Name]struct{}, key K, name model.Name) {
	if m[key] == nil {
		m[key] = map[model.Name]struct{}{}
	}
	m[key][name] = struct{}{}
}

func leave[K comparable](m map[K]map[model.Name]struct{}, key K, name model.Name) {
	delete(m[key], name)
	if len(m[key]) == 0 {
		delete(m, key)
	}
}
