package policy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"sluice.dev/sluice/internal/model"
)

// rank orders hints: what is surely not meant so comes first.
type rank int

const (
	mistaken rank = iota // says one thing and means another
	missed               // nearly said it
	possible             // may be meant so
)

// hint is a line of an explanation.
type hint struct {
	rank rank
	text string
}

func (x *explaining) say(r rank, format string, args ...any) {
	h := hint{r, fmt.Sprintf(format, args...)}
	if !slices.ContainsFunc(x.hints, func(o hint) bool { return o.text == h.text }) {
		x.hints = append(x.hints, h)
	}
}

// likeliest are the hints as they are given out.
func (x *explaining) likeliest() []string {
	const most = 8
	slices.SortStableFunc(x.hints, func(a, b hint) int { return cmp.Compare(a.rank, b.rank) })
	var texts []string
	for i, h := range x.hints {
		if i == most {
			return append(texts, fmt.Sprintf("and %d more", len(x.hints)-most))
		}
		texts = append(texts, h.text)
	}
	return texts
}

// hint looks for what came near on a way.
func (x *explaining) hint(w way) {
	for _, f := range []Finding{w.step.Egress, w.step.Ingress} {
		if f.Allowed {
			continue
		}
		p := w.out
		if f.Side == Ingress {
			p = w.in
		}
		q := x.question(p)
		q.side = f.Side
		for _, a := range q.attempts() {
			switch {
			case a.peer != nothing && a.port == nothing:
				x.hintPorts(q, a)
			case a.peer == nothing && a.port != nothing:
				x.hintPeers(q, a, w)
			}
		}
		x.hintOthers(q)
	}
	x.hintMasquerade(w)
}

// hintPorts is about a rule that has the peer and not the port.
func (x *explaining) hintPorts(q *question, a attempt) {
	at := q.field(a.policy, a.rule)
	for _, p := range a.rule.Ports {
		if p.Name != "" && q.dst != nil && !slices.ContainsFunc(q.dst.Ports, func(c model.ContainerPort) bool { return c.Name == p.Name && c.Protocol == p.Protocol }) {
			x.say(mistaken, "%s ports[%d] is %s and allows nothing: %s; name the port so in the pod's containers, or use its number and protocol", at, p.Index, portText(p), q.resolution(p))
		}
	}
	for _, s := range x.servicesOf(netip.AddrPortFrom(q.Dst, q.Port), q.Protocol) {
		asked := *q
		asked.Port = s.port.Port
		if i := asked.port(a.rule); i >= 0 {
			x.say(mistaken, "%s ports[%d] is %s, the port of Service %s: policies see what the pod listens at, so write %d",
				at, a.rule.Ports[i].Index, portText(a.rule.Ports[i]), s.service, q.Port)
		}
	}
}

// endpointOf is a Service's port that leads to an endpoint.
type endpointOf struct {
	service model.Name
	port    model.ServicePort
}

// servicesOf are the ports of Services that lead to an address and port, in
// order.
func (f *Facts) servicesOf(at netip.AddrPort, protocol model.Protocol) []endpointOf {
	var found []endpointOf
	for _, slice := range f.slices {
		if !slices.ContainsFunc(slice.Endpoints, func(e model.Endpoint) bool { return e.Addr == at.Addr() }) {
			continue
		}
		service := f.services[model.Name{Namespace: slice.Name.Namespace, Name: slice.Service}]
		for _, to := range slice.Ports {
			if to.Protocol != protocol || to.Port != at.Port() {
				continue
			}
			for _, p := range service.Ports {
				if e := (endpointOf{service.Name, p}); p.Name == to.Name && p.Protocol == protocol && !slices.Contains(found, e) {
					found = append(found, e)
				}
			}
		}
	}
	slices.SortFunc(found, func(a, b endpointOf) int {
		return cmp.Or(a.service.Compare(b.service), cmp.Compare(a.port.Port, b.port.Port))
	})
	return found
}

// hintPeers is about a rule that has the port and not the peer.
func (x *explaining) hintPeers(q *question, a attempt, w way) {
	for i := range a.rule.Peers {
		peer := &a.rule.Peers[i]
		at := fmt.Sprintf("%s %s[%d] (%s)", q.field(a.policy, a.rule), q.list(), peer.Index, peerText(a.policy, peer))
		if peer.Block.IsValid() {
			if w.fe != nil && q.side == Egress && inBlock(peer, w.fe.at.Addr()) {
				x.say(mistaken, "%s covers %s, an address of Service %s, which never matches: policies see the endpoint, so select the Service's pods", at, w.fe.at.Addr(), w.fe.service.Name)
			}
			continue
		}
		other := q.other()
		if other == nil {
			x.hintHost(q, a.policy, peer, at)
			continue
		}
		if peer.Namespaces == nil && other.Name.Namespace != a.policy.Name.Namespace {
			if peer.Pods.Matches(other.Labels) {
				x.say(missed, "%s means pods of the policy's own namespace only: add a namespaceSelector (%s=%s) beside the podSelector to mean %s",
					at, nameLabel, other.Name.Namespace, other.Name)
			}
			continue
		}
		if misses := q.misses(a.policy, peer); len(misses) == 1 {
			x.say(missed, "%s misses it by one label: %s", at, misses[0])
		}
	}
}

// hintHost is about pods on a node's network, which selectors never mean.
func (x *explaining) hintHost(q *question, np *model.NetworkPolicy, peer *model.PolicyPeer, at string) {
	if _, is := x.nodeAt(q.address()); !is {
		return
	}
	for _, p := range x.sortedPods() {
		if !p.HostNetwork || p.Done || !slices.Contains(p.Addrs, q.address()) {
			continue
		}
		as := *p
		as.HostNetwork = false
		asked := *q
		if q.side == Ingress {
			asked.src = &as
		} else {
			asked.dst = &as
		}
		if asked.isPeer(np, peer) {
			x.say(mistaken, "%s would mean %s, but that is on its node's network: policies see %s, so allow that by an ipBlock", at, p.Name, q.address())
			return
		}
	}
}

// sortedPods are all pods in order.
func (f *Facts) sortedPods() []*podFact {
	var all []*podFact
	for _, in := range f.pods {
		all = slices.AppendSeq(all, maps.Values(in))
	}
	slices.SortFunc(all, func(a, b *podFact) int { return a.Name.Compare(b.Name) })
	return all
}

// sortedPolicies are all policies in order.
func (f *Facts) sortedPolicies() []*model.NetworkPolicy {
	var all []*model.NetworkPolicy
	for _, in := range f.policies {
		all = slices.AppendSeq(all, maps.Values(in))
	}
	slices.SortFunc(all, func(a, b *model.NetworkPolicy) int { return a.Name.Compare(b.Name) })
	return all
}

// hintOthers is about policies that would allow the packet if they selected the
// pod, and only one label is in the way.
func (x *explaining) hintOthers(q *question) {
	pod := q.subject()
	in := x.policies[pod.Name.Namespace]
	for _, name := range slices.Sorted(maps.Keys(in)) {
		np := in[name]
		isolates := np.Ingress && q.side == Ingress || np.Egress && q.side == Egress
		lacking := unmet(&np.Pods, pod.Labels)
		if !isolates || len(lacking) != 1 {
			continue
		}
		rules := q.rules(np)
		if slices.ContainsFunc(rules, func(r model.PolicyRule) bool { return q.peer(np, &r) != nothing && q.port(&r) != nothing }) {
			x.say(possible, "%s would allow it, but does not select the pod by one label: %s", np.Name, lacks("pod "+pod.Name.String(), lacking[0], pod.Labels))
		}
	}
}

// hintMasquerade is about a receiver that sees a node in place of the sender.
func (x *explaining) hintMasquerade(w way) {
	if !w.step.Seen.IsValid() {
		return
	}
	bare := w.in
	bare.Src = w.out.Src
	as := x.judge(bare, x.hairpin).Ingress
	remedy := "externalTrafficPolicy: Local lets it see the client"
	switch {
	case w.fe.kind == model.ClusterIP:
		remedy = "a NodePort or load balancer with externalTrafficPolicy: Local lets it see the client"
	case w.fe.service.ExternalLocal:
		remedy = "allow the nodes' addresses by an ipBlock"
	}
	switch {
	case as.Allowed && !w.step.Ingress.Allowed:
		x.say(mistaken, "on the way through %s node %s puts its own address in place of %s, so %s does not see who is allowed; it depends on the node that is hit. %s",
			w.fe, w.step.Node, w.step.From, w.step.To, remedy)
	case !as.Allowed && w.step.Ingress.Allowed:
		x.say(mistaken, "on the way through %s node %s puts its own address in place of %s, which would not be allowed itself; it depends on the node that is hit. %s",
			w.fe, w.step.Node, w.step.From, remedy)
	}
}

// hintEnds is about the ends themselves, and the policies of their namespaces.
func (x *explaining) hintEnds() {
	for _, e := range []end{x.from, x.to} {
		switch {
		case e.pod != nil && e.pod.HostNetwork:
			x.say(mistaken, "%s is on its node's network: no policy selects it and no selector of a peer means it; policies see node %s", e.pod.Name, e.pod.Node)
		case e.pod != nil && len(e.pod.Addrs) == 0:
			x.say(possible, "%s has no address yet, so no ipBlock and no Service means it", e.pod.Name)
		case e.pod == nil && x.podAt(e.addrs[0]) == nil:
			x.hintDone(e.addrs[0])
		}
	}
	for _, namespace := range x.namespacesAsked() {
		x.hintNamespace(namespace)
	}
}

// hintDone is about an address that a pod had until it ended.
func (x *explaining) hintDone(a netip.Addr) {
	for _, p := range x.sortedPods() {
		if p.Done && !p.HostNetwork && slices.Contains(p.Addrs, a) {
			x.say(mistaken, "%s was the address of %s, which has ended: it is nobody's now", a, p.Name)
		}
	}
}

// namespacesAsked are those of the pods on the way.
func (x *explaining) namespacesAsked() []string {
	var names []string
	for _, s := range x.path {
		for _, f := range []Finding{s.Egress, s.Ingress} {
			if f.Pod != (model.Name{}) && !slices.Contains(names, f.Pod.Namespace) {
				names = append(names, f.Pod.Namespace)
			}
		}
	}
	return names
}

// hintNamespace is about policies that have no effect.
func (x *explaining) hintNamespace(namespace string) {
	in := x.policies[namespace]
	for _, name := range slices.Sorted(maps.Keys(in)) {
		np := in[name]
		if selected, host := x.selected(np); len(selected) == 0 {
			text := fmt.Sprintf("%s selects no pod (%s)", np.Name, podsText(&np.Pods))
			if len(host) > 0 {
				text += fmt.Sprintf(", for %s is on its node's network", host[0].Name)
			} else if p, r, is := x.nearest(np); is {
				text += ": " + lacks("pod "+p.Name.String(), r, p.Labels)
			}
			x.say(possible, "%s", text)
		}
	}
}

// selected are the pods that a policy selects, and those that it would if they
// were not on their node's network; in order.
func (f *Facts) selected(np *model.NetworkPolicy) (pods, host []*podFact) {
	in := f.pods[np.Name.Namespace]
	for _, name := range slices.Sorted(maps.Keys(in)) {
		p := in[name]
		switch {
		case p.Done || !np.Pods.Matches(p.Labels):
		case p.HostNetwork:
			host = append(host, p)
		default:
			pods = append(pods, p)
		}
	}
	return pods, host
}

// nearest is the first pod that a policy misses by one label, and that.
func (f *Facts) nearest(np *model.NetworkPolicy) (*podFact, model.Requirement, bool) {
	in := f.pods[np.Name.Namespace]
	for _, name := range slices.Sorted(maps.Keys(in)) {
		p := in[name]
		if lacking := unmet(&np.Pods, p.Labels); len(lacking) == 1 && !p.Done && !p.HostNetwork {
			return p, lacking[0], true
		}
	}
	return nil, model.Requirement{}, false
}

// hintReady is about endpoints that a Service does not lead to.
func (x *explaining) hintReady(fe *frontend) {
	used := map[netip.AddrPort]struct{}{}
	for _, b := range x.backends(fe) {
		used[b.addr] = struct{}{}
	}
	var idle []string
	x.eachEndpoint(fe, func(b backend, e model.Endpoint) {
		if _, is := used[b.addr]; !is && !e.Ready {
			idle = append(idle, fmt.Sprint(x.nameOf(b.addr.Addr()), " ", b.addr))
		}
	})
	if slices.Sort(idle); len(idle) > 0 {
		x.say(possible, "Service %s does not lead to what is not ready: %s", fe.service.Name, few(slices.Compact(idle), ", "))
	}
}
