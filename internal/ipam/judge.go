package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// What a Service asks by, as messages name it.
const (
	ipsField  = "metadata.annotations[sluice.dev/load-balancer-ips] or spec.loadBalancerIP"
	poolField = "metadata.annotations[sluice.dev/address-pool]"
	keyField  = "metadata.annotations[sluice.dev/allow-shared-ip]"
)

// remedyKept is what to do about an address that is kept.
const remedyKept = "it is kept; set annotation sluice.dev/reallocate to a new value to have another one"

// requests are the addresses that a Service asks for by name, by family, or
// why no address can meet what it says.
func requests(s model.Service, want []model.Family) (ask [2]netip.Addr, refusal *miss) {
	if s.Balancer.Unclear {
		return ask, &miss{Condition: refused(RequestRefused, ipsField+": what is asked for cannot be read; correct it, an Event names the value")}
	}
	for _, addr := range s.Balancer.Requested {
		f := model.FamilyOf(addr)
		why := ""
		switch {
		case !slices.Contains(want, f):
			why = fmt.Sprintf("the Service has no %v by spec.ipFamilies and spec.ipFamilyPolicy; change these or name an address of its family", f)
		case ask[index(f)].IsValid():
			why = fmt.Sprintf("%v is named as well; name one address of each family", ask[index(f)])
		}
		if why != "" {
			return ask, &miss{Condition: refused(RequestRefused, fmt.Sprintf("%s: %v: %s", ipsField, addr, why))}
		}
		ask[index(f)] = addr
	}
	return ask, nil
}

func refused(reason, message string) Condition { return Condition{Reason: reason, Message: message} }

// refuse says why a Service does not get an address that it asks for by name;
// nil: it does.
func (a *Allocator) refuse(r *record, addr netip.Addr) *miss {
	no := func(reason, format string, args ...any) *miss {
		return &miss{addr: addr, Condition: refused(reason, fmt.Sprintf("%s: %v ", ipsField, addr)+fmt.Sprintf(format, args...))}
	}
	p := a.layout.locate(addr)
	if p == nil {
		if what, is := a.reservedFor(addr); is {
			return no(RequestRefused, "belongs to %s and is not given to Services; name another address", what)
		}
		return no(AddressOutOfPool, "is in no AddressPool; name another address, or add it to spec.addresses of a pool")
	}
	if b := a.bar(r, p); b != open {
		c := b.condition(r, p)
		return no(c.Reason, "is not given: %s", c.Message)
	}
	if p.fact.AvoidBuggyIPs && buggy(addr) {
		return no(RequestRefused, "is not given, pool %s avoids addresses that end in .0 and .255; name another address, or set avoidBuggyIPs of the pool to false", p.fact.Name)
	}
	if by, blocked := a.blocked[addr]; blocked {
		return no(AddressInUse, "belongs to %s; name another address, or remove that one", by)
	}
	if !a.joins(r, addr) {
		return no(AddressInUse, "belongs to %s; name another address, or give all of them one value of annotation sluice.dev/allow-shared-ip and different ports",
			a.othersOn(r, addr))
	}
	return nil
}

// reservedFor says why an address that a pool has is not given.
func (a *Allocator) reservedFor(addr netip.Addr) (string, bool) {
	if !slices.ContainsFunc(a.layout.asked, func(p *pool) bool { return p.fact.Contains(addr) }) {
		return "", false
	}
	for _, no := range a.layout.reserved {
		if no.Contains(addr) {
			return strings.TrimSuffix(no.what, ","), true
		}
	}
	return "", false
}

// othersOn names the other holders of an address.
func (a *Allocator) othersOn(r *record, addr netip.Addr) string {
	var names []string
	for h := range a.leases[addr].holders {
		if h != r.holder() {
			names = append(names, h.String())
		}
	}
	slices.Sort(names)
	return list("Service", names)
}

// bar is why a pool gives a Service no address.
type bar uint8

const (
	open      bar = iota // it gives one
	unnamed              // the Service names another pool
	disabled             // it gives none to anybody any more
	byName               // it gives them by name only
	forbidden            // it is not for the namespace, whatever the Service names
	unsuited             // it is for other Services
)

// bar says why a pool gives a Service no address, if it does not.
func (a *Allocator) bar(r *record, p *pool) bar {
	named := r.fact.Balancer.Pool == p.fact.Name
	asked := named || slices.ContainsFunc(r.fact.Balancer.Requested, p.fact.Contains)
	switch {
	case r.fact.Balancer.Pool != "" && !named:
		return unnamed
	case p.fact.Disabled:
		return disabled
	case !p.fact.AutoAssign && !asked:
		return byName
	case asked && p.fact.EnforceNamespaces && !a.admits(r, p):
		return forbidden
	case !asked && !a.suits(r, p):
		return unsuited
	}
	return open
}

// condition is what a Service is told of a bar.
func (b bar) condition(r *record, p *pool) Condition {
	name := p.fact.Name
	switch b {
	case unnamed:
		return refused(RequestRefused, fmt.Sprintf("it is of pool %s, but %s names pool %s; name one of them only", name, poolField, r.fact.Balancer.Pool))
	case disabled:
		return refused(RequestRefused, fmt.Sprintf("pool %s is disabled; name another one, or set spec.disabled of the pool to false", name))
	case byName:
		return refused(NoPool, fmt.Sprintf("pool %s gives addresses by name only", name))
	case forbidden:
		return refused(NotAllowed, fmt.Sprintf("pool %s is not for namespace %s (enforceNamespaces); name another one, or add the namespace to spec.serviceAllocation of the pool",
			name, r.fact.Name.Namespace))
	}
	return refused(NoPool, fmt.Sprintf("pool %s is not for the Service's namespace or labels", name))
}

// suits reports whether a pool's conditions are met.
func (a *Allocator) suits(r *record, p *pool) bool {
	return a.admits(r, p) && model.Selected(p.fact.ServiceSelectors, r.fact.Labels)
}

// admits reports whether a pool is for a Service's namespace.
func (a *Allocator) admits(r *record, p *pool) bool {
	names, selectors := p.fact.Namespaces, p.fact.NamespaceSelectors
	if len(names)+len(selectors) == 0 {
		return true
	}
	of := r.fact.Name.Namespace
	return slices.Contains(names, of) || len(selectors) > 0 && model.Selected(selectors, a.namespaces[of].Labels)
}

// noPool says why no pool would do.
func (a *Allocator) noPool(r *record, f model.Family) *miss {
	if name := r.fact.Balancer.Pool; name != "" {
		p := a.layout.byName[name]
		if p == nil {
			return &miss{Condition: refused(NoPool, fmt.Sprintf("%s: there is no AddressPool %s; create it, or name another one", poolField, name))}
		}
		if b := a.bar(r, p); b != open {
			c := b.condition(r, p)
			c.Message = poolField + ": " + c.Message
			return &miss{Condition: c}
		}
		return &miss{Condition: refused(NoPool, fmt.Sprintf("%s: pool %s has no %v addresses to give; add some to its spec.addresses, or name another pool", poolField, name, f))}
	}
	var why []string
	for _, p := range a.layout.asked {
		if b := a.bar(r, p); b != open && len(why) < maxProblems {
			why = append(why, strings.SplitN(b.condition(r, p).Message, ";", 2)[0])
		}
	}
	message := fmt.Sprintf("spec.type: LoadBalancer: no AddressPool gives %v addresses to this Service", f)
	if len(why) > 0 {
		message += " (" + strings.Join(why, ", ") + ")"
	}
	return &miss{Condition: refused(NoPool, message+"; create one, or name one with annotation sluice.dev/address-pool")}
}

// judge is the condition of a Service that has what it has and lacks what it
// lacks.
func (a *Allocator) judge(r *record, missing []miss) Condition {
	if len(missing) > 0 {
		return lacking(r, missing)
	}
	for _, addr := range r.held {
		if why := a.misfit(r, addr); why != nil {
			return *why
		}
	}
	from := make([]string, 0, len(r.held))
	for _, addr := range r.held {
		from = append(from, fmt.Sprintf("%v from pool %s", addr, a.layout.locate(addr).fact.Name))
	}
	return Condition{OK: true, Reason: Allocated, Message: strings.Join(from, ", ")}
}

// lacking is the condition of a Service that lacks something.
func lacking(r *record, missing []miss) Condition {
	c := missing[0].Condition
	for _, m := range missing[1:] {
		c.Message += "; " + m.Message
	}
	dual := len(wantedFamilies(r.fact)) > 1 && !slices.ContainsFunc(missing, func(m miss) bool { return m.addr.IsValid() })
	if dual && len(missing) == 1 && c.Reason != RequestRefused {
		c.Reason = FamilyMissing
		c.OK = len(r.held) > 0 && r.fact.Balancer.DualStack == model.PreferDualStack
		return c
	}
	if len(r.held) > 0 {
		c.Message += fmt.Sprintf("; until then %v is kept", r.held[0])
	}
	return c
}

// misfit says what is wrong with an address that a Service has; nil: nothing.
func (a *Allocator) misfit(r *record, addr netip.Addr) *Condition {
	if l := a.leases[addr]; l.contested() && !a.first(r, l) {
		return &Condition{Reason: AddressInUse, Message: fmt.Sprintf("status.loadBalancer: %v belongs to %s too (%s and ports do not allow that); %s", addr, a.othersOn(r, addr), keyField, remedyKept)}
	}
	p := a.layout.locate(addr)
	if p == nil {
		return &Condition{Reason: OutOfPool, Message: fmt.Sprintf("status.loadBalancer: %v is in no AddressPool; %s", addr, remedyKept)}
	}
	if name := r.fact.Balancer.Pool; name != "" && name != p.fact.Name {
		return &Condition{Reason: OutOfPool, Message: fmt.Sprintf("status.loadBalancer: %v is of pool %s and not of pool %s, which %s names; %s", addr, p.fact.Name, name, poolField, remedyKept)}
	}
	asked := r.fact.Balancer.Pool != "" || slices.Contains(r.fact.Balancer.Requested, addr)
	if fits := a.suits(r, p) || asked && (!p.fact.EnforceNamespaces || a.admits(r, p)); !fits {
		return &Condition{Reason: OutOfPool, Message: fmt.Sprintf("status.loadBalancer: %v is of pool %s, which is not for the Service's namespace or labels any more; %s", addr, p.fact.Name, remedyKept)}
	}
	return nil
}

// first reports whether a Service is the oldest of those that have an address.
func (a *Allocator) first(r *record, l *lease) bool {
	for h := range l.holders {
		if o := a.services[h.Name]; o != nil && o.fact.UID == h.UID && o.turn().before(r.turn()) {
			return false
		}
	}
	return true
}
