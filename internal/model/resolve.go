package model

import (
	"cmp"
	"fmt"
	"maps"
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
	frontends, problems := s.frontends(svc)
	view.Problems = problems
	chosen := map[endpointsKey]endpoints{}
	for _, f := range frontends {
		if winner := s.winner(f.FrontendKey); winner != name {
			view.Problems = append(view.Problems, contested(svc, f, winner))
			continue
		}
		k := endpointsKey{f.PortName, f.Protocol, FamilyOf(f.Addr.Addr())}
		if _, done := chosen[k]; !done {
			chosen[k] = choose(s.candidates(name, k))
		}
		f.Cluster, f.Local = chosen[k].cluster, chosen[k].local
		view.Frontends = append(view.Frontends, f)
	}
	return view
}

// frontends are all the frontends a Service asks for, without their endpoints
// and before rivals are looked at, and what is wrong with the rest.
func (s *Store) frontends(svc Service) ([]Frontend, []Problem) {
	b := frontendBuilder{store: s, svc: svc, seen: map[FrontendKey]struct{}{}}
	for _, a := range svc.ClusterIPs {
		b.add(ClusterIP, "spec.clusterIPs", a)
	}
	for _, a := range s.here.nodePorts {
		b.add(NodePort, "spec.ports.nodePort", a)
	}
	for _, a := range svc.ExternalIPs {
		b.add(ExternalIP, "spec.externalIPs", a)
	}
	for _, a := range svc.LoadBalancerIPs {
		b.add(LoadBalancerIP, "status.loadBalancer.ingress", a)
	}
	return b.frontends, b.problems
}

type frontendBuilder struct {
	store     *Store
	svc       Service
	seen      map[FrontendKey]struct{}
	frontends []Frontend
	problems  []Problem
}

// add makes one frontend of each port on an address, or says why it may not.
func (b *frontendBuilder) add(kind FrontendKind, field string, addr netip.Addr) {
	family := FamilyOf(addr)
	if !b.serves(family) {
		if kind != NodePort { // a NodePort asks for no family by itself
			b.refuse("FamilyMismatch", "%s: %s is an %s address but the Service has no %s cluster IP; remove it, or add the family to spec.ipFamilies",
				field, addr, family, family)
		}
		return
	}
	if _, taken := b.store.here.taken[addr]; taken && kind != NodePort {
		b.refuse("AddressIsNodes", "%s: %s is an address of a node; a node that bound it would cut itself off, so it is not served; choose another address",
			field, addr)
		return
	}
	for _, p := range b.svc.Ports {
		port := p.Port
		if kind == NodePort {
			port = p.NodePort
		}
		key := FrontendKey{netip.AddrPortFrom(addr, port), p.Protocol}
		if _, twice := b.seen[key]; twice || port == 0 {
			continue
		}
		b.seen[key] = struct{}{}
		b.frontends = append(b.frontends, Frontend{
			FrontendKey: key,
			Kind:        kind,
			PortName:    p.Name,
			Scheduler:   b.svc.Scheduler,
			Affinity:    b.svc.Affinity,
			SourceIP:    b.store.here.source[familyIndex(family)],
		})
	}
}

// serves reports whether the Service has a cluster IP of the family: the
// families of a Service are proxied independently, each as if alone.
func (b *frontendBuilder) serves(f Family) bool {
	return slices.ContainsFunc(b.svc.ClusterIPs, func(a netip.Addr) bool { return FamilyOf(a) == f })
}

func (b *frontendBuilder) refuse(reason, format string, args ...any) {
	b.problems = append(b.problems, problem(b.svc, reason, fmt.Sprintf(format, args...)))
}

func contested(svc Service, f Frontend, winner Name) Problem {
	return problem(svc, "FrontendInUse", fmt.Sprintf(
		"%s %s %s already belongs to Service %s, which is older; this Service takes it over when that one lets it go; give one of them another address or port",
		f.Kind, f.Addr, f.Protocol, winner))
}

func problem(svc Service, reason, message string) Problem {
	return Problem{Kind: "Service", Object: svc.Name, UID: svc.UID, Reason: reason, Message: message}
}

// endpointsKey is what frontends with the same endpoints have in common.
type endpointsKey struct {
	port     string
	protocol Protocol
	family   Family
}

// candidate is one endpoint with the port that is asked for.
type candidate struct {
	Endpoint
	addr  netip.AddrPort
	local bool
}

// candidates are the endpoints of one Service port in one family, each address
// and port once: of several records the local one counts, then the ready one
// (a moving endpoint may stand in two slices for a while).
func (s *Store) candidates(name Name, k endpointsKey) []candidate {
	best := map[netip.AddrPort]candidate{}
	for _, slice := range s.slices[name] {
		if slice.Family != k.family {
			continue
		}
		for _, p := range slice.Ports {
			if p.Name != k.port || p.Protocol != k.protocol {
				continue
			}
			for _, e := range slice.Endpoints {
				c := candidate{Endpoint: e, addr: netip.AddrPortFrom(e.Addr, p.Port), local: e.Node == s.opts.NodeName}
				if was, twice := best[c.addr]; !twice || c.rank() > was.rank() {
					best[c.addr] = c
				}
			}
		}
	}
	return slices.SortedFunc(maps.Values(best), func(a, b candidate) int { return a.addr.Compare(b.addr) })
}

// rank orders records of one address, so that no two that differ in use are
// equal: more is better.
func (c candidate) rank() int {
	rank := 0
	for i, good := range []bool{c.Terminating, c.Serving, c.Ready, c.local} {
		if good {
			rank += 1 << i
		}
	}
	return rank
}

// endpoints are the two lists of a frontend.
type endpoints struct{ cluster, local []Backend }

// choose picks the endpoints that get traffic.
//
//	cluster  the ready ones; when no endpoint is ready, those that still serve
//	         while they terminate (KEP-1669)
//	local    the same rule among this node's endpoints alone, so that remote
//	         ready ones and local terminating ones can be in use at once
//
// An endpoint that terminates and no longer serves, or that is neither ready
// nor terminating, is never used.
func choose(all []candidate) endpoints {
	local := slices.DeleteFunc(slices.Clone(all), func(c candidate) bool { return !c.local })
	return endpoints{cluster: usable(all), local: usable(local)}
}

func usable(all []candidate) []Backend {
	var ready, leaving []Backend
	for _, c := range all {
		b := Backend{Addr: c.addr, Local: c.local}
		switch {
		case c.Ready:
			ready = append(ready, b)
		case c.Serving && c.Terminating:
			b.Terminating = true
			leaving = append(leaving, b)
		}
	}
	if len(ready) > 0 {
		return ready
	}
	return leaving
}

// Compare orders frontends by address, port and protocol.
func (f FrontendKey) Compare(o FrontendKey) int {
	return cmp.Or(f.Addr.Compare(o.Addr), cmp.Compare(f.Protocol, o.Protocol))
}
