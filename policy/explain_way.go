package policy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"sluice.dev/sluice/internal/model"
)

// frontend is an address and port of a Service, at which clients ask.
type frontend struct {
	service model.Service
	port    model.ServicePort
	kind    model.FrontendKind
	at      netip.AddrPort
}

func (fe *frontend) String() string {
	return fmt.Sprintf("Service %s, %s %s", fe.service.Name, fe.kind, fe.at)
}

// frontendAt is what answers at an address: of several Services that claim it
// the oldest one.
func (f *Facts) frontendAt(at netip.AddrPort, protocol model.Protocol) (found *frontend, is bool) {
	for _, s := range f.services {
		for _, p := range s.Ports {
			kind, answers := f.answers(s, p, at)
			if !answers || p.Protocol != protocol {
				continue
			}
			if found == nil || cmp.Or(s.Created.Compare(found.service.Created), s.Name.Compare(found.service.Name)) < 0 {
				found = &frontend{service: s, port: p, kind: kind, at: at}
			}
		}
	}
	return found, found != nil
}

// answers reports whether a Service's port answers at an address, and as what.
func (f *Facts) answers(s model.Service, p model.ServicePort, at netip.AddrPort) (model.FrontendKind, bool) {
	a := at.Addr()
	if _, local := f.local[a]; local || f.nodeAddrs[a] > 0 {
		return model.NodePort, p.NodePort != 0 && p.NodePort == at.Port()
	}
	switch {
	case p.Port != at.Port():
		return 0, false
	case slices.Contains(s.ClusterIPs, a):
		return model.ClusterIP, true
	case slices.Contains(s.LoadBalancerIPs, a):
		return model.LoadBalancerIP, true
	}
	return model.ExternalIP, slices.Contains(s.ExternalIPs, a)
}

// unserved says why nothing answers at a virtual address.
func (x *explaining) unserved(at netip.AddrPort) string {
	for _, name := range slices.SortedFunc(maps.Keys(x.services), model.Name.Compare) {
		s := x.services[name]
		if !slices.Contains(vipsOf(s), at.Addr()) {
			continue
		}
		var ports []string
		for _, p := range s.Ports {
			ports = append(ports, fmt.Sprint(p.Protocol, " ", p.Port))
		}
		return fmt.Sprintf("%s is an address of Service %s, which has %s only: the node refuses the rest", at.Addr(), name, few(ports, ", "))
	}
	return ""
}

// backend is an endpoint of a frontend.
type backend struct {
	addr netip.AddrPort
	node string
}

// backends are the endpoints of a frontend's family, in order: those that are
// ready or, when none is, those that serve until they end.
func (f *Facts) backends(fe *frontend) []backend {
	ready, leaving := map[netip.AddrPort]backend{}, map[netip.AddrPort]backend{}
	f.eachEndpoint(fe, func(b backend, e model.Endpoint) {
		switch {
		case e.Ready:
			ready[b.addr] = b
		case e.Serving && e.Terminating:
			leaving[b.addr] = b
		}
	})
	if len(ready) == 0 {
		ready = leaving
	}
	return slices.SortedFunc(maps.Values(ready), func(a, b backend) int { return a.addr.Compare(b.addr) })
}

// eachEndpoint gives fn every endpoint of a frontend's port and family.
func (f *Facts) eachEndpoint(fe *frontend, fn func(backend, model.Endpoint)) {
	for _, slice := range f.slices {
		if slice.Name.Namespace != fe.service.Name.Namespace || slice.Service != fe.service.Name.Name || slice.Family != model.FamilyOf(fe.at.Addr()) {
			continue
		}
		for _, p := range slice.Ports {
			if p.Name != fe.port.Name || p.Protocol != fe.port.Protocol {
				continue
			}
			for _, e := range slice.Endpoints {
				fn(backend{netip.AddrPortFrom(e.Addr, p.Port), e.Node}, e)
			}
		}
	}
}

// client is who asks at a frontend, and where that comes in.
type client struct {
	src    netip.Addr
	pod    *podFact
	isNode bool
	home   string // the node it is on; "": none that is known
	entry  string // the node that the frontend is reached at; "": any
}

func (x *explaining) client(fe *frontend, src netip.Addr) client {
	c := client{src: src, pod: x.podAt(src)}
	node, isNode := x.nodeAt(src)
	switch {
	case c.pod != nil:
		c.home = c.pod.Node
	case isNode:
		c.home, c.isNode = node, true
	}
	c.entry = c.home
	if fe.kind == model.NodePort {
		c.entry, _ = x.nodeAt(fe.at.Addr())
	}
	// Another node's process that comes in at this one is a client from outside.
	c.isNode = c.isNode && c.home == c.entry
	return c
}

// local reports whether the client gets the endpoints of the node it comes in
// at only.
func (c client) local(fe *frontend) bool {
	if fe.kind == model.ClusterIP {
		return fe.service.InternalLocal
	}
	return fe.service.ExternalLocal && c.pod == nil && !c.isNode
}

// masqueraded reports whether endpoints on other nodes see the node that the
// client came in at.
func (c client) masqueraded(fe *frontend) bool {
	switch {
	case c.isNode:
		return true
	case fe.kind == model.ClusterIP:
		return c.pod == nil
	}
	return !fe.service.ExternalLocal
}

// through follows a packet through a Service to each of its endpoints.
func (x *explaining) through(fe *frontend, src netip.Addr) {
	c := x.client(fe, src)
	refused := fe.refuses(c)
	x.hintReady(fe)
	reached := false
	for _, b := range x.backends(fe) {
		if c.local(fe) && c.entry != "" && b.node != c.entry {
			continue
		}
		reached = true
		for _, w := range x.entries(fe, c, b) {
			w.step.Refused = refused
			x.add(w)
		}
	}
	if reached {
		return
	}
	step := x.step(src, fe.at)
	step.Via, step.To = fe.String(), "no endpoint"
	p := Packet{src, fe.at.Addr(), x.protocol, fe.at.Port()}
	d := x.judge(p, false)
	step.Egress, step.Ingress = d.Egress, d.Ingress
	step.Refused = fe.vacant(c)
	x.add(way{step: step, out: p, in: p, fe: fe})
}

// vacant says why a client finds no endpoint.
func (fe *frontend) vacant(c client) string {
	if c.local(fe) && c.entry != "" {
		return fmt.Sprintf("Service %s has no ready endpoint on node %s, and its traffic policy is Local", fe.service.Name, c.entry)
	}
	return fmt.Sprintf("Service %s has no ready endpoint at %s %s", fe.service.Name, fe.port.Protocol, fe.at)
}

// refuses says why a Service does not let a client in; "": it does.
func (fe *frontend) refuses(c client) string {
	ranges := fe.service.SourceRanges
	if fe.kind != model.LoadBalancerIP || len(ranges) == 0 || c.isNode ||
		slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Contains(c.src) }) {
		return ""
	}
	return fmt.Sprintf("%s is in no range of spec.loadBalancerSourceRanges of Service %s", c.src, fe.service.Name)
}

// entries are the ways to an endpoint: one if it is known at which node the
// client comes in. Else the client may come in where the endpoint is, or
// somewhere else; of other nodes one stands for those that fare alike.
func (x *explaining) entries(fe *frontend, c client, b backend) []way {
	if c.entry != "" || c.pod != nil {
		return []way{x.enter(fe, c, b)}
	}
	c.entry = b.node
	ways := []way{x.enter(fe, c, b)}
	if c.local(fe) || !c.masqueraded(fe) {
		return ways
	}
	for _, node := range slices.Sorted(maps.Keys(x.nodes)) {
		if node == b.node {
			continue
		}
		c.entry = node
		w := x.enter(fe, c, b)
		if i := slices.IndexFunc(ways, func(o way) bool { return o.step.Seen.IsValid() && o.step.Allowed() == w.step.Allowed() }); i >= 0 {
			ways[i].step.Alike++
			continue
		}
		ways = append(ways, w)
	}
	return ways
}

// enter follows a client that comes in at a node to an endpoint. The sender is
// judged on its own node: that is where it comes in, or where it is forwarded
// to another node's NodePort. The receiver is judged before masquerading if it
// is where the client comes in, behind it elsewhere.
func (x *explaining) enter(fe *frontend, c client, b backend) way {
	step := x.step(c.src, b.addr)
	step.Via, step.Node = fe.String(), c.entry
	out := Packet{c.src, b.addr.Addr(), x.protocol, b.addr.Port()}
	in := out
	if c.pod != nil && c.home != "" && c.home != c.entry {
		out.Dst, out.Port = fe.at.Addr(), fe.at.Port()
	}
	if seen := x.nodeAddr(c.entry, model.FamilyOf(c.src)); c.masqueraded(fe) && b.node != c.entry && seen.IsValid() {
		step.Seen, in.Src = seen, seen
	}
	step.Egress, step.Ingress = x.judge(out, x.hairpin).Egress, x.judge(in, x.hairpin).Ingress
	return way{step: step, out: out, in: in, fe: fe}
}

// nodeAddr is the address by which others see a node.
func (f *Facts) nodeAddr(node string, family model.Family) netip.Addr {
	for _, a := range f.nodes[node].Addrs {
		if model.FamilyOf(a) == family {
			return a
		}
	}
	return netip.Addr{}
}
