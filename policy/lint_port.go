package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"sluice.dev/sluice/internal/model"
)

// namedPort looks for pods that do not serve a name.
func (l *linter) namedPort(at spot, port model.PolicyPort, to []*podFact) {
	var lack []*podFact
	other := ""
	for _, p := range to {
		named, served := "", false
		for _, c := range p.Ports {
			if c.Name == port.Name {
				served = served || c.Protocol == port.Protocol
				named = fmt.Sprint(c.Protocol, " ", c.Port)
			}
		}
		if served {
			continue
		}
		lack = append(lack, p)
		if named != "" && other == "" {
			other = fmt.Sprintf("; %s has it as %s", p.Name, named)
		}
	}
	switch remedy := "name the port so in the pods' containers, or use its number and protocol"; {
	case len(to) == 0 || len(lack) == 0:
	case len(lack) == len(to):
		l.warn(at, NamedPort, remedy, "%s allows nothing: no pod that it is looked up on has such a container port (%s)%s", portText(port), podNames(lack), other)
	case at.side == Ingress:
		l.warn(at, NamedPort, remedy, "%s allows nothing on %s, which %s no such container port%s", portText(port), podNames(lack), haveOrHas(lack), other)
	}
}

func haveOrHas(pods []*podFact) string {
	if len(pods) == 1 {
		return "has"
	}
	return "have"
}

// servicePort looks for a number that is a Service's port in front of the pods
// and nothing that any Service knows them to listen at.
func (l *linter) servicePort(at spot, port model.PolicyPort, to []*podFact) {
	var before *leading
	for _, p := range to {
		for _, e := range l.leadingTo(p) {
			switch {
			case e.port.Protocol != port.Protocol:
			case e.target == port.First:
				return
			case e.port.Port == port.First && before == nil:
				before = &e
			}
		}
	}
	if before != nil {
		l.warn(at, ServicePort, fmt.Sprintf("write %d, or the name of the container's port", before.target),
			"%s is the port of Service %s, and never matches: policies see what the pod listens at, %s %d", portText(port), before.service, port.Protocol, before.target)
	}
}

// outsiders reports whether a rule may mean somebody who is no pod.
func outsiders(r *model.PolicyRule) bool {
	return r.AnyPeer || slices.ContainsFunc(r.Peers, func(p model.PolicyPeer) bool { return p.Block.IsValid() })
}

// leading is a Service's port that leads to a pod, and the pod's own port.
type leading struct {
	endpointOf
	target uint16
}

// leadingTo are the Services that lead to a pod, in order.
func (l *linter) leadingTo(p *podFact) []leading {
	return l.behind()[p]
}

// behind are, for each pod, the Services that lead to it.
func (l *linter) behind() map[*podFact][]leading {
	if l.leads != nil {
		return l.leads
	}
	l.leads = map[*podFact][]leading{}
	for _, slice := range l.slices {
		service := l.services[model.Name{Namespace: slice.Name.Namespace, Name: slice.Service}]
		for _, to := range slice.Ports {
			for _, p := range service.Ports {
				if p.Name != to.Name || p.Protocol != to.Protocol {
					continue
				}
				l.lead(slice.Endpoints, leading{endpointOf{service.Name, p}, to.Port})
			}
		}
	}
	for p := range l.leads {
		slices.SortFunc(l.leads[p], func(a, b leading) int {
			return cmp.Or(a.service.Compare(b.service), cmp.Compare(a.port.Port, b.port.Port), cmp.Compare(a.port.Protocol, b.port.Protocol), cmp.Compare(a.target, b.target))
		})
	}
	return l.leads
}

func (l *linter) lead(endpoints []model.Endpoint, to leading) {
	for _, e := range endpoints {
		if p := l.at(e.Addr); p != nil {
			l.leads[p] = append(l.leads[p], to)
		}
	}
}

// dns looks for pods whose egress is isolated and that nothing allows to resolve
// names. It is told of the first policy that isolates them.
func (l *linter) dns(np *model.NetworkPolicy) {
	if !np.Egress {
		return
	}
	groups := [][]*model.NetworkPolicy{{np}}
	if pods, _ := l.selected(np); len(pods) > 0 {
		groups = nil
		for _, p := range pods {
			groups = append(groups, p.isolate[Egress])
		}
	}
	for _, policies := range groups {
		first := policies[0]
		if _, done := l.seen[first.Name]; done {
			continue
		}
		udp, tcp := l.resolves(policies, model.UDP), l.resolves(policies, model.TCP)
		if udp && tcp {
			continue
		}
		l.seen[first.Name] = struct{}{}
		at := spot{first, Egress, "spec.egress"}
		const remedy = "allow UDP and TCP 53 to the cluster's DNS"
		switch {
		case udp:
			l.warn(at, NoDNS, remedy, "egress is isolated and DNS is allowed by UDP alone: answers that are too long for it need TCP 53")
		case tcp:
			l.warn(at, NoDNS, remedy, "egress is isolated and DNS is allowed by TCP alone: nearly all queries need UDP 53")
		default:
			l.warn(at, NoDNS, remedy, "egress is isolated and DNS is not allowed: the pods cannot resolve names")
		}
	}
}

// resolves reports whether policies together allow DNS by a protocol: by a rule
// that names port 53, or one that reaches the cluster's DNS; where nobody knows
// that, by one that means more than pods of the policy's namespace.
func (l *linter) resolves(policies []*model.NetworkPolicy, protocol model.Protocol) bool {
	servers := l.dnsServers()
	for _, np := range policies {
		for i := range np.EgressRules {
			r := &np.EgressRules[i]
			if names53(r, protocol) || l.reaches(np, r, servers, protocol) {
				return true
			}
		}
	}
	return false
}

// names53 reports whether a rule has port 53 in so many words.
func names53(r *model.PolicyRule, protocol model.Protocol) bool {
	return (r.AnyPeer || len(r.Peers) > 0) && slices.ContainsFunc(r.Ports, func(p model.PolicyPort) bool {
		return p.Protocol == protocol && p.First <= 53 && 53 <= p.Last
	})
}

func (l *linter) reaches(np *model.NetworkPolicy, r *model.PolicyRule, servers []dnsServer, protocol model.Protocol) bool {
	for _, s := range servers {
		q := question{Facts: l.Facts, Packet: Packet{Dst: s.at.Addr(), Protocol: protocol, Port: s.at.Port()}, dst: s.pod, side: Egress}
		if q.peer(np, r) != nothing && q.port(r) != nothing {
			return true
		}
	}
	q := question{Facts: l.Facts, Packet: Packet{Protocol: protocol, Port: 53}}
	wide := r.AnyPeer || slices.ContainsFunc(r.Peers, func(p model.PolicyPeer) bool { return p.Block.IsValid() || p.Namespaces != nil })
	return len(servers) == 0 && wide && q.port(r) != nothing
}

// dnsServer is where names are resolved.
type dnsServer struct {
	at  netip.AddrPort
	pod *podFact
}

// dnsServers are the endpoints of the cluster's DNS, under the name that all
// distributions give its Service.
func (l *linter) dnsServers() []dnsServer {
	var servers []dnsServer
	for _, slice := range l.slices {
		if slice.Name.Namespace != "kube-system" || slice.Service != "kube-dns" {
			continue
		}
		for _, p := range slice.Ports {
			if p.Name != "dns" && p.Name != "dns-tcp" && p.Port != 53 {
				continue
			}
			for _, e := range slice.Endpoints {
				servers = append(servers, dnsServer{netip.AddrPortFrom(e.Addr, p.Port), l.at(e.Addr)})
			}
		}
	}
	return servers
}
