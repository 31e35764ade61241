package model

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
)

// Resolve says what one Service means on this node. It reads the store and
// changes nothing; a Service that is not there has no frontends.
func Resolve(s *Store, name Name) View {
	svc, ok := s.services[name]
	if !ok {
		return View{Service: name}
	}
	view := View{Service: name, UID: svc.UID, Created: svc.Created}
	frontends, refused := s.frontends(svc)
	for _, r := range refused {
		view.Problems = append(view.Problems, r.problem)
	}
	for _, h := range s.health(svc) {
		if winner := s.winner(h.key()); winner != name {
			view.Problems = append(view.Problems, contested(svc, "healthCheckNodePort", h.key(), winner))
			continue
		}
		view.Health = append(view.Health, h)
	}
	chosen := map[endpointsKey]endpoints{}
	for _, f := range frontends {
		if winner := s.winner(f.FrontendKey); winner != name {
			view.Problems = append(view.Problems, contested(svc, f.Kind.String(), f.FrontendKey, winner))
			continue
		}
		k := endpointsKey{f.PortName, f.Protocol, FamilyOf(f.Addr.Addr())}
		if _, done := chosen[k]; !done {
			chosen[k] = choose(s.candidates(name, k), place{s.opts.NodeName, s.here.zone})
		}
		f.Cluster, f.Local = chosen[k].cluster, chosen[k].local
		if s.partial && f.Vacancy() != Served {
			continue // its endpoints may just not have been told of yet
		}
		view.Frontends = append(view.Frontends, f)
	}
	return view
}

// frontends are all the frontends a Service asks for, without their endpoints
// and before rivals are looked at, and what is wrong with the rest.
func (s *Store) frontends(svc Service) ([]Frontend, []refusal) {
	b := frontendBuilder{store: s, svc: svc, seen: map[FrontendKey]struct{}{}}
	for _, a := range svc.ClusterIPs {
		b.add(ClusterIP, "spec.clusterIPs", a)
	}
	for _, a := range s.here.nodePorts {
		b.add(NodePort, "spec.ports.nodePort", a)
	}
	for _, a := range svc.ExternalIPs {
		if slices.Contains(svc.LoadBalancerIPs, a) {
			continue // the load balancer's address has source ranges
		}
		b.add(ExternalIP, "spec.externalIPs", a)
	}
	for _, a := range svc.LoadBalancerIPs {
		b.add(LoadBalancerIP, "status.loadBalancer.ingress", a)
	}
	b.addShortcuts()
	return b.frontends, b.refused
}

type frontendBuilder struct {
	store     *Store
	svc       Service
	seen      map[FrontendKey]struct{}
	frontends []Frontend
	refused   []refusal
}

// refusal is an address that a Service asks for and must not have.
type refusal struct {
	kind    FrontendKind
	addr    netip.Addr
	problem Problem
}

// add makes one frontend of each port on an address, or says why it may not.
func (b *frontendBuilder) add(kind FrontendKind, field string, addr netip.Addr) {
	family := FamilyOf(addr)
	if _, serves := b.clusterIP(family); !serves {
		if kind != NodePort { // a NodePort asks for no family by itself
			b.refuse(kind, addr, "FamilyMismatch", fmt.Sprintf("%s: %s is an %s address but the Service has no %s cluster IP; remove it, or add the family to spec.ipFamilies",
				field, addr, family, family))
		}
		return
	}
	if _, taken := b.store.here.taken[addr]; taken && kind != NodePort {
		b.refuse(kind, addr, "AddressIsNodes", fmt.Sprintf("%s: %s is an address of a node or of the API server; a node that bound it would cut itself off, so it is not served; choose another address",
			field, addr))
		return
	}
	if kind == ExternalIP && !b.allowed(addr) {
		return
	}
	for i, p := range b.svc.Ports {
		port := p.Port
		if kind == NodePort {
			port = p.NodePort
		}
		if port != 0 {
			b.frontend(kind, netip.AddrPortFrom(addr, port), i)
		}
	}
}

// frontend makes one frontend of the Service's i-th port.
func (b *frontendBuilder) frontend(kind FrontendKind, at netip.AddrPort, i int) {
	p := b.svc.Ports[i]
	key := FrontendKey{at, p.Protocol}
	if _, twice := b.seen[key]; twice {
		return
	}
	b.seen[key] = struct{}{}
	family := FamilyOf(at.Addr())
	f := Frontend{
		FrontendKey: key,
		Kind:        kind,
		PortName:    p.Name,
		Scheduler:   b.svc.Scheduler,
		Affinity:    b.svc.Affinity,
		Drain:       b.svc.Drain,
		SourceIP:    b.store.here.source[familyIndex(family)],
	}
	switch kind {
	case ClusterIP:
		f.OnlyLocal = b.svc.InternalLocal
	case NodePort, ExternalIP, LoadBalancerIP:
		f.OnlyLocal = b.svc.ExternalLocal
		if f.OnlyLocal {
			f.Shortcut = b.shortcut(family, i)
		}
	case Shortcut: // all endpoints: that is what it is for
	}
	if kind == LoadBalancerIP && len(b.svc.SourceRanges) > 0 {
		f.Restricted = true
		f.SourceRanges = ofFamily(b.svc.SourceRanges, family)
	}
	b.frontends = append(b.frontends, f)
}

func ofFamily(prefixes []netip.Prefix, family Family) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(prefixes), func(p netip.Prefix) bool { return FamilyOf(p.Addr()) != family })
}

// shortcut is where in-cluster traffic to the i-th port goes that is to get all
// endpoints: to the cluster IP on the same port or, when only local endpoints
// are to be had there, on a port of its own. These are counted down from the
// highest number, past those that the Service uses itself.
func (b *frontendBuilder) shortcut(family Family, i int) netip.AddrPort {
	addr, _ := b.clusterIP(family)
	if !b.svc.InternalLocal {
		return netip.AddrPortFrom(addr, b.svc.Ports[i].Port)
	}
	port := uint16(math.MaxUint16)
	for skip := i; ; port-- {
		if slices.ContainsFunc(b.svc.Ports, func(p ServicePort) bool { return p.Port == port }) {
			continue
		}
		if skip == 0 {
			return netip.AddrPortFrom(addr, port)
		}
		skip--
	}
}

// addShortcuts makes the frontends that others name as their shortcut, where
// those are no frontends of the Service anyway.
func (b *frontendBuilder) addShortcuts() {
	if !b.svc.InternalLocal || !b.svc.ExternalLocal {
		return
	}
	for _, f := range slices.Clone(b.frontends) {
		if !f.Shortcut.IsValid() {
			continue
		}
		i := slices.IndexFunc(b.svc.Ports, func(p ServicePort) bool { return p.Name == f.PortName && p.Protocol == f.Protocol })
		b.frontend(Shortcut, f.Shortcut, i)
	}
}

// allowed reports whether an external IP may be served, and says so if not.
func (b *frontendBuilder) allowed(addr netip.Addr) bool {
	ranges := b.store.opts.ExternalIPs
	if ranges == nil {
		return true
	}
	if slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return true
	}
	b.refuse(ExternalIP, addr, "ExternalIPNotAllowed", fmt.Sprintf("spec.externalIPs: %s is in no range that --allow-external-ips names, so it is not served; "+
		"have a load balancer address allocated instead (externalIPs are deprecated, KEP-5707), or have the range allowed", addr))
	return false
}

// clusterIP is the Service's cluster IP of the family. A Service without one
// is not proxied in that family: each family is proxied as if alone.
func (b *frontendBuilder) clusterIP(f Family) (addr netip.Addr, ok bool) {
	i := slices.IndexFunc(b.svc.ClusterIPs, func(a netip.Addr) bool { return FamilyOf(a) == f })
	if i < 0 {
		return netip.Addr{}, false
	}
	return b.svc.ClusterIPs[i], true
}

func (b *frontendBuilder) refuse(kind FrontendKind, addr netip.Addr, reason, message string) {
	b.refused = append(b.refused, refusal{kind, addr, problem(b.svc, reason, message)})
}

func contested(svc Service, what string, f FrontendKey, winner Name) Problem {
	return problem(svc, "FrontendInUse", fmt.Sprintf(
		"%s %s %s already belongs to Service %s, which is older; this Service takes it over when that one lets it go; give one of them another address or port",
		what, f.Addr, f.Protocol, winner))
}

func problem(svc Service, reason, message string) Problem {
	return Problem{Kind: "Service", Object: svc.Name, UID: svc.UID, Reason: reason, Message: message}
}

// health is where load balancers ask for the Service's endpoints on this node:
// on the addresses that serve NodePorts, as far as they are on this host.
func (s *Store) health(svc Service) []HealthCheck {
	if svc.HealthPort == 0 {
		return nil
	}
	here := [2]map[netip.Addr]struct{}{{}, {}}
	for _, slice := range s.slices[svc.Name] {
		for _, e := range slice.Endpoints {
			if e.Node == s.opts.NodeName && e.Ready && !e.Terminating {
				here[familyIndex(slice.Family)][e.Addr] = struct{}{}
			}
		}
	}
	var checks []HealthCheck
	for _, a := range s.here.health {
		if !slices.ContainsFunc(svc.ClusterIPs, func(c netip.Addr) bool { return FamilyOf(c) == FamilyOf(a) }) {
			continue
		}
		checks = append(checks, HealthCheck{netip.AddrPortFrom(a, svc.HealthPort), len(here[familyIndex(FamilyOf(a))])})
	}
	return checks
}

// Compare orders frontends by address, port and protocol.
func (f FrontendKey) Compare(o FrontendKey) int {
	return cmp.Or(f.Addr.Compare(o.Addr), cmp.Compare(f.Protocol, o.Protocol))
}
