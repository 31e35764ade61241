package policy

import (
	"maps"
	"net/netip"
	"slices"

	"sluice.dev/sluice/internal/model"
)

// Apply takes one event's fact in. What follows from it is worked out by the
// next Take.
func (p *Planner) Apply(ev model.Event) {
	switch fact := ev.Put.(type) {
	case model.Pod:
		p.putPod(fact)
	case model.NetworkPolicy:
		p.putRuleset(fact)
	case model.Namespace:
		p.relabel(fact.Name, fact.Labels, true)
	case model.Node:
		p.putNode(fact.Name, fact.PodCIDRs)
	case model.LocalAddrs:
		p.local, p.redispatch = fact.Addrs, true
	}
	switch gone := ev.Delete.(type) {
	case model.PodKey:
		p.dropPod(gone)
	case model.NetworkPolicyKey:
		p.dropRuleset(gone.Name)
	case model.NamespaceKey:
		p.relabel(gone.Name, nil, false)
	case model.NodeKey:
		p.putNode(gone.Name, nil)
	}
}

// claims are the addresses that a pod says it has. One on the host's network has
// its node's, and one that is done has given them back.
func claims(pod model.Pod) []netip.Addr {
	if pod.HostNetwork || pod.Done {
		return nil
	}
	return pod.Addrs
}

// putPod takes a pod in place of what was known under its name. An address is
// that of the pod that claimed it last: what is told again of an older one does
// not take it back.
func (p *Planner) putPod(pod model.Pod) {
	m := p.pods[pod.Name.Namespace][pod.Name.Name]
	if m == nil {
		m = &member{}
		in := p.pods[pod.Name.Namespace]
		if in == nil {
			in = map[string]*member{}
			p.pods[pod.Name.Namespace] = in
		}
		in[pod.Name.Name] = m
	}
	p.tell(m, pod)
}

// dropPod forgets a pod, unless another has its name by now.
func (p *Planner) dropPod(gone model.PodKey) {
	if m := p.pods[gone.Name.Namespace][gone.Name.Name]; m != nil && m.pod.UID == gone.UID && !m.gone {
		p.tell(m, model.Pod{Name: gone.Name})
		m.gone = true
	}
}

// tell has a pod be what is told of it, with its addresses.
func (p *Planner) tell(m *member, pod model.Pod) {
	was := claims(m.pod)
	another := m.pod.UID != pod.UID
	m.fresh = m.fresh || another
	m.gone = false
	m.pod = pod
	for _, a := range was {
		if another || !slices.Contains(claims(pod), a) {
			p.leave(a, m)
		}
	}
	for _, a := range claims(pod) {
		holders := p.holders[a]
		if slices.Contains(holders, m) {
			continue
		}
		p.touchLast(a)
		p.holders[a] = append(holders, m)
	}
	p.dirty[m] |= moved | judged
}

// leave takes an address from a pod. It is that of the one before it now.
func (p *Planner) leave(a netip.Addr, m *member) {
	rest := slices.DeleteFunc(p.holders[a], func(h *member) bool { return h == m })
	p.holders[a] = rest
	if len(rest) == 0 {
		delete(p.holders, a)
	}
	p.touchLast(a)
}

func (p *Planner) touchLast(a netip.Addr) {
	if h := p.holder(a); h != nil {
		p.dirty[h] |= moved | judged
	}
}

// holder is the pod that has an address; nil: none.
func (p *Planner) holder(a netip.Addr) *member {
	if holders := p.holders[a]; len(holders) > 0 {
		return holders[len(holders)-1]
	}
	return nil
}

// forget drops a pod that has gone and wishes nothing any more.
func (p *Planner) forget(m *member) {
	if !m.gone {
		return
	}
	in := p.pods[m.pod.Name.Namespace]
	delete(in, m.pod.Name.Name)
	if len(in) == 0 {
		delete(p.pods, m.pod.Name.Namespace)
	}
}

func (p *Planner) putRuleset(np model.NetworkPolicy) {
	p.dropRuleset(np.Name)
	in := p.policies[np.Name.Namespace]
	if in == nil {
		in = map[string]*ruleset{}
		p.policies[np.Name.Namespace] = in
	}
	p.serial++
	in[np.Name.Name] = compile(np, p.serial)
	p.rejudge(np.Name.Namespace)
}

func (p *Planner) dropRuleset(name model.Name) {
	in := p.policies[name.Namespace]
	if in[name.Name] == nil {
		return
	}
	delete(in, name.Name)
	if len(in) == 0 {
		delete(p.policies, name.Namespace)
	}
	p.rejudge(name.Namespace)
}

// rejudge has this node's pods of a namespace be asked again what isolates them.
func (p *Planner) rejudge(namespace string) {
	for _, m := range p.pods[namespace] {
		if m.pod.Node == p.cfg.Node {
			p.dirty[m] |= judged
		}
	}
}

// namespaceLabel is the label that every namespace has, with its name.
const namespaceLabel = "kubernetes.io/metadata.name"

// relabel takes in what labels a namespace has. One that was not told of has
// the one with its name: peers that mean it by that must not wait.
func (p *Planner) relabel(namespace string, labels map[string]string, told bool) {
	was := p.labelsOf(namespace)
	delete(p.labels, namespace)
	if told {
		labels = maps.Clone(labels)
		if labels == nil {
			labels = map[string]string{}
		}
		labels[namespaceLabel] = namespace
		p.labels[namespace] = labels
	}
	if maps.Equal(was, p.labelsOf(namespace)) {
		return
	}
	for _, m := range p.pods[namespace] {
		p.dirty[m] |= moved
	}
}

func (p *Planner) labelsOf(namespace string) map[string]string {
	if labels, told := p.labels[namespace]; told {
		return labels
	}
	return map[string]string{namespaceLabel: namespace}
}

// putNode takes in where this node's pods are.
func (p *Planner) putNode(name string, ranges []netip.Prefix) {
	if name != p.cfg.Node || slices.Equal(p.ranges, ranges) {
		return
	}
	p.ranges, p.redispatch = ranges, true
	if !p.cfg.UnknownDeny {
		return
	}
	for _, in := range p.pods {
		for m := range maps.Values(in) {
			p.rewish[m] = struct{}{}
		}
	}
}
