package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"sluice.dev/sluice/internal/model"
)

// rule looks at one rule.
func (l *linter) rule(at spot, r *model.PolicyRule) {
	l.dash(at, r)
	for i := range r.Peers {
		peer := &r.Peers[i]
		in := at
		in.path = fmt.Sprintf("%s.%s[%d]", at.path, list(at.side), peer.Index)
		if peer.Block.IsValid() {
			l.block(in, peer)
		} else {
			l.peer(in, peer)
		}
	}
	if len(r.Ports) == 0 || len(l.pods) == 0 {
		return
	}
	to := l.destinations(at, r)
	for _, p := range r.Ports {
		in := at
		in.path = fmt.Sprintf("%s.ports[%d]", at.path, p.Index)
		switch {
		case p.Name != "":
			l.namedPort(in, p, to)
		case p.First == 0, p.First != p.Last, at.side == Egress && outsiders(r):
			// Somebody outside of the cluster may listen there.
		default:
			l.servicePort(in, p, to)
		}
	}
}

// list is what the API calls the peers of a side.
func list(s Side) string {
	if s == Ingress {
		return "from"
	}
	return "to"
}

// dash looks for a namespaceSelector and a podSelector that are two peers, next
// to each other, and may have been meant as one.
func (l *linter) dash(at spot, r *model.PolicyRule) {
	for i := 1; i < len(r.Peers); i++ {
		a, b := &r.Peers[i-1], &r.Peers[i]
		if a.Namespaces == nil {
			a, b = b, a
		}
		if a.Namespaces == nil || a.Pods != nil || b.Namespaces != nil || b.Pods == nil || b.Index != a.Index+1 && a.Index != b.Index+1 {
			continue
		}
		first, second := min(a.Index, b.Index), max(a.Index, b.Index)
		both := *a
		both.Pods = b.Pods
		l.warn(at, TwoPeers, fmt.Sprintf("to mean only %s, remove the dash of %s[%d]", peerText(at.policy, &both), list(at.side), second),
			"%s[%d] and %s[%d] are two peers, of which either is enough: %s, or %s",
			list(at.side), first, list(at.side), second, peerText(at.policy, &r.Peers[i-1]), peerText(at.policy, &r.Peers[i]))
	}
}

// peer looks at whom selectors mean.
func (l *linter) peer(at spot, peer *model.PolicyPeer) {
	if !l.anyNamespace(peer.Namespaces) {
		l.warn(at, PeerMeansNobody, "correct the namespaceSelector, or label the namespace", "it means nobody: no namespace has %s", selectorText(*peer.Namespaces))
		return
	}
	if len(l.pods) == 0 {
		return
	}
	var host []*podFact
	for _, p := range l.pods {
		if p.Done || !l.means(at.policy, peer, p) {
			continue
		}
		if !p.HostNetwork {
			return
		}
		host = append(host, p)
	}
	if len(host) > 0 {
		l.warn(at, PeerMeansHostPods, "allow the nodes' addresses by an ipBlock", "it means only %s, on the network of a node, which no selector means", podNames(host))
		return
	}
	l.warn(at, PeerMeansNobody, "correct the selector or the labels of the pods", "it means nobody: there are no %s", peerText(at.policy, peer))
}

// anyNamespace reports whether some namespace may be selected.
func (l *linter) anyNamespace(s *model.Selector) bool {
	told := false
	for _, ns := range l.namespaces {
		if s != nil && s.Matches(ns.labels) {
			return true
		}
		told = told || ns.told
	}
	return s == nil || !told
}

// means reports whether a peer's selectors mean a pod, on its node's network or
// not.
func (l *linter) means(np *model.NetworkPolicy, peer *model.PolicyPeer, p *podFact) bool {
	q := question{Facts: l.Facts, src: p, side: Ingress}
	return !peer.Block.IsValid() && q.isPeer(np, peer)
}

// block looks at whom an ipBlock means. That /0 means everybody is known to who
// writes it.
func (l *linter) block(at spot, peer *model.PolicyPeer) {
	if peer.Block.Bits() == 0 {
		return
	}
	if at.side == Ingress {
		l.hidden(at, peer)
	}
	var vips []string
	for a := range l.vips {
		if inBlock(peer, a) && l.isVIP(a) {
			vips = append(vips, a.String())
		}
	}
	slices.Sort(vips)
	if len(vips) > 0 && at.side == Egress {
		l.warn(at, BlockOfVIPs, "select the pods behind them", "%s covers virtual addresses (%s), which never match: policies see the endpoint", peer.Block, few(vips, ", "))
	}
	var pods []*podFact
	for _, p := range l.pods {
		if p.relevant() && slices.ContainsFunc(p.Addrs, func(a netip.Addr) bool { return inBlock(peer, a) }) {
			pods = append(pods, p)
		}
	}
	if len(pods) > 0 {
		l.warn(at, BlockOfPods, "select pods by labels, or except their ranges", "%s means pods too (%s), whose addresses come and go", peer.Block, podNames(pods))
	}
}

// hidden looks for clients from outside that a Service leads to selected pods
// with a node's address in place of theirs.
func (l *linter) hidden(at spot, peer *model.PolicyPeer) {
	for _, p := range l.destinationsOfIngress(at.policy) {
		for _, e := range l.leadingTo(p) {
			s := l.services[e.service]
			external := e.port.NodePort != 0 || len(s.ExternalIPs)+len(s.LoadBalancerIPs) > 0
			if external && !s.ExternalLocal && l.outside(peer.Block) {
				l.warn(at, BlockBehindNodes, "set externalTrafficPolicy: Local", "clients of %s that come by Service %s and another node than the pod's have that node's address", peer.Block, e.service)
				return
			}
		}
	}
}

// outside reports whether a range has no node in it: a policy that names nodes
// knows what it is about.
func (l *linter) outside(block netip.Prefix) bool {
	for a := range l.nodeAddrs {
		if block.Contains(a) {
			return false
		}
	}
	return true
}

// destinations are the pods that a rule's ports are looked up on; nil: not
// pods alone, or none.
func (l *linter) destinations(at spot, r *model.PolicyRule) []*podFact {
	if at.side == Ingress {
		return l.destinationsOfIngress(at.policy)
	}
	var pods []*podFact
	for _, p := range l.pods {
		if !p.HostNetwork && !p.Done && (r.AnyPeer || slices.ContainsFunc(r.Peers, func(peer model.PolicyPeer) bool { return l.meansByAny(at.policy, &peer, p) })) {
			pods = append(pods, p)
		}
	}
	return pods
}

// meansByAny is means, or an ipBlock that the pod is in.
func (l *linter) meansByAny(np *model.NetworkPolicy, peer *model.PolicyPeer, p *podFact) bool {
	return l.means(np, peer, p) || peer.Block.IsValid() && slices.ContainsFunc(p.Addrs, func(a netip.Addr) bool { return inBlock(peer, a) })
}

func (l *linter) destinationsOfIngress(np *model.NetworkPolicy) []*podFact {
	pods, _ := l.selected(np)
	return pods
}
