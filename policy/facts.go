package policy

import (
	"maps"
	"net/netip"
	"slices"
	"sync"

	"sluice.dev/sluice/internal/model"
)

// nameLabel is the label that every namespace has, with its name.
const nameLabel = "kubernetes.io/metadata.name"

// Facts are what NetworkPolicy is judged by: pods, namespaces, policies, nodes
// and, to follow a packet through a virtual address, Services with their
// endpoints. One goroutine tells them; any may ask.
//
//	pods      namespace -> name -> pod     each knows the policies that isolate it
//	policies  namespace -> name -> policy
//	holders   address -> pods              the last one has it
//
// What was told is never changed, only replaced, so that what is handed out
// stays as it is.
type Facts struct {
	node string

	mu         sync.RWMutex
	pods       map[string]map[string]*podFact
	holders    map[netip.Addr][]*podFact
	policies   map[string]map[string]*model.NetworkPolicy
	namespaces map[string]namespaceFact // those that were told, or have pods
	nodes      map[string]model.Node
	local      map[netip.Addr]struct{}
	services   map[model.Name]model.Service
	slices     map[model.Name]model.EndpointSlice

	nodeAddrs map[netip.Addr]int // how many Nodes have it
	vips      map[netip.Addr]int // how many Services have it
}

// podFact is a pod, and what follows from the policies of its namespace.
type podFact struct {
	model.Pod
	isolate [2][]*model.NetworkPolicy // by Side, in order of their names
}

// namespaceFact are a namespace's labels. One that was not told of has its name.
type namespaceFact struct {
	labels map[string]string
	told   bool
}

// relevant reports whether policies and peers can mean the pod: one on the host's
// network has its node's addresses, and one that is done has none any more.
func (p *podFact) relevant() bool { return !p.HostNetwork && !p.Done && len(p.Addrs) > 0 }

// Counts are how many objects of each kind are known.
type Counts struct {
	Pods, Policies, Namespaces, Nodes, Services, EndpointSlices int
}

// NewFacts makes empty facts, seen from a node; "": from none.
func NewFacts(node string) *Facts {
	return &Facts{
		node:       node,
		pods:       map[string]map[string]*podFact{},
		holders:    map[netip.Addr][]*podFact{},
		policies:   map[string]map[string]*model.NetworkPolicy{},
		namespaces: map[string]namespaceFact{},
		nodes:      map[string]model.Node{},
		local:      map[netip.Addr]struct{}{},
		services:   map[model.Name]model.Service{},
		slices:     map[model.Name]model.EndpointSlice{},
		nodeAddrs:  map[netip.Addr]int{},
		vips:       map[netip.Addr]int{},
	}
}

// Apply takes one event's fact in. Problems and Synced are none.
func (f *Facts) Apply(ev model.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch fact := ev.Put.(type) {
	case model.Pod:
		f.putPod(fact)
	case model.NetworkPolicy:
		f.putPolicy(fact)
	case model.Namespace:
		f.putNamespace(fact.Name, fact.Labels, true)
	case model.Node:
		f.putNode(fact.Name, &fact)
	case model.LocalAddrs:
		f.local = map[netip.Addr]struct{}{}
		for _, a := range fact.Addrs {
			f.local[a] = struct{}{}
		}
	case model.Service:
		f.putService(fact.Name, &fact)
	case model.EndpointSlice:
		f.slices[fact.Name] = fact
	}
	switch gone := ev.Delete.(type) {
	case model.PodKey:
		f.dropPod(gone)
	case model.NetworkPolicyKey:
		f.dropPolicy(gone.Name)
	case model.NamespaceKey:
		f.putNamespace(gone.Name, nil, false)
	case model.NodeKey:
		f.putNode(gone.Name, nil)
	case model.ServiceKey:
		f.putService(gone.Name, nil)
	case model.EndpointSliceKey:
		delete(f.slices, gone.Name)
	}
}

// putPod takes a pod in place of what was known under its name. A pod that is
// told again keeps its place among those that were told with an address: news
// of an old pod do not take the address back from the one that has it now.
func (f *Facts) putPod(told model.Pod) {
	now := &podFact{Pod: told}
	for _, np := range f.policies[told.Name.Namespace] {
		now.isolateBy(np)
	}
	in := f.pods[told.Name.Namespace]
	if in == nil {
		in = map[string]*podFact{}
		f.pods[told.Name.Namespace] = in
	}
	if _, known := f.namespaces[told.Name.Namespace]; !known {
		f.namespaces[told.Name.Namespace] = namespaceFact{labels: named(told.Name.Namespace, nil)}
	}
	was := in[told.Name.Name]
	in[told.Name.Name] = now
	if was != nil && was.relevant() {
		for _, a := range was.Addrs {
			if now.UID == was.UID && now.relevant() && slices.Contains(now.Addrs, a) {
				holders := f.holders[a]
				holders[slices.Index(holders, was)] = now
				continue
			}
			f.leave(a, was)
		}
	}
	if !now.relevant() {
		return
	}
	for _, a := range now.Addrs {
		if !slices.Contains(f.holders[a], now) {
			f.holders[a] = append(f.holders[a], now)
		}
	}
}

// dropPod forgets a pod, unless another has its name by now.
func (f *Facts) dropPod(gone model.PodKey) {
	in := f.pods[gone.Name.Namespace]
	was := in[gone.Name.Name]
	if was == nil || was.UID != gone.UID {
		return
	}
	delete(in, gone.Name.Name)
	if len(in) == 0 {
		delete(f.pods, gone.Name.Namespace)
		if !f.namespaces[gone.Name.Namespace].told {
			delete(f.namespaces, gone.Name.Namespace)
		}
	}
	for _, a := range was.Addrs {
		f.leave(a, was)
	}
}

func (f *Facts) leave(a netip.Addr, p *podFact) {
	rest := slices.DeleteFunc(f.holders[a], func(h *podFact) bool { return h == p })
	if len(rest) == 0 {
		delete(f.holders, a)
		return
	}
	f.holders[a] = rest
}

func (f *Facts) putPolicy(told model.NetworkPolicy) {
	f.dropPolicy(told.Name)
	in := f.policies[told.Name.Namespace]
	if in == nil {
		in = map[string]*model.NetworkPolicy{}
		f.policies[told.Name.Namespace] = in
	}
	in[told.Name.Name] = &told
	for _, p := range f.pods[told.Name.Namespace] {
		p.isolateBy(&told)
	}
}

func (f *Facts) dropPolicy(name model.Name) {
	in := f.policies[name.Namespace]
	was := in[name.Name]
	delete(in, name.Name)
	if len(in) == 0 {
		delete(f.policies, name.Namespace)
	}
	for _, p := range f.pods[name.Namespace] {
		for side := range p.isolate {
			p.isolate[side] = slices.DeleteFunc(p.isolate[side], func(np *model.NetworkPolicy) bool { return np == was })
		}
	}
}

// isolateBy has the pod know a policy of its namespace, if that isolates it.
func (p *podFact) isolateBy(np *model.NetworkPolicy) {
	if p.HostNetwork || !np.Pods.Matches(p.Labels) {
		return
	}
	for side, isolates := range [2]bool{Egress: np.Egress, Ingress: np.Ingress} {
		if isolates {
			at, _ := slices.BinarySearchFunc(p.isolate[side], np, func(a, b *model.NetworkPolicy) int { return a.Name.Compare(b.Name) })
			p.isolate[side] = slices.Insert(p.isolate[side], at, np)
		}
	}
}

func (f *Facts) putNamespace(name string, labels map[string]string, told bool) {
	if !told && len(f.pods[name]) == 0 {
		delete(f.namespaces, name)
		return
	}
	f.namespaces[name] = namespaceFact{labels: named(name, labels), told: told}
}

func (f *Facts) putNode(name string, told *model.Node) {
	for _, a := range f.nodes[name].Addrs {
		count(f.nodeAddrs, a, -1)
	}
	if told == nil {
		delete(f.nodes, name)
		return
	}
	f.nodes[name] = *told
	for _, a := range told.Addrs {
		count(f.nodeAddrs, a, 1)
	}
}

func (f *Facts) putService(name model.Name, told *model.Service) {
	for _, a := range vipsOf(f.services[name]) {
		count(f.vips, a, -1)
	}
	if told == nil {
		delete(f.services, name)
		return
	}
	f.services[name] = *told
	for _, a := range vipsOf(*told) {
		count(f.vips, a, 1)
	}
}

// vipsOf are the addresses of a Service that are on every node's device.
func vipsOf(s model.Service) []netip.Addr {
	return slices.Concat(s.ClusterIPs, s.ExternalIPs, s.LoadBalancerIPs)
}

func count(of map[netip.Addr]int, a netip.Addr, by int) {
	of[a] += by
	if of[a] == 0 {
		delete(of, a)
	}
}

// named are a namespace's labels with the one that the API server sees to.
func named(namespace string, labels map[string]string) map[string]string {
	if labels[nameLabel] == namespace {
		return labels
	}
	labels = maps.Clone(labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[nameLabel] = namespace
	return labels
}

// labelsOf are a namespace's labels. One that was never told has its name.
func (f *Facts) labelsOf(namespace string) map[string]string {
	if ns, known := f.namespaces[namespace]; known {
		return ns.labels
	}
	return named(namespace, nil)
}

// at is the pod that has an address; nil: none that policies can mean.
func (f *Facts) at(a netip.Addr) *podFact {
	if holders := f.holders[a]; len(holders) > 0 {
		return holders[len(holders)-1]
	}
	return nil
}

func (f *Facts) pod(name model.Name) *podFact { return f.pods[name.Namespace][name.Name] }

// PodAt is the pod that has an address. Pods on the host's network are not
// found: their addresses are their nodes'.
func (f *Facts) PodAt(a netip.Addr) (model.Pod, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if p := f.at(a); p != nil {
		return p.Pod, true
	}
	return model.Pod{}, false
}

// LocalPod reports whether an address is that of a pod of this node.
func (f *Facts) LocalPod(a netip.Addr) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.here(f.at(a))
}

// here reports whether a pod is on this node; nil is nowhere.
func (f *Facts) here(p *podFact) bool { return p != nil && p.Node == f.node && f.node != "" }

// Counts are how many objects are known.
func (f *Facts) Counts() Counts {
	f.mu.RLock()
	defer f.mu.RUnlock()
	c := Counts{Nodes: len(f.nodes), Services: len(f.services), EndpointSlices: len(f.slices)}
	for _, ns := range f.namespaces {
		if ns.told {
			c.Namespaces++
		}
	}
	for _, in := range f.pods {
		c.Pods += len(in)
	}
	for _, in := range f.policies {
		c.Policies += len(in)
	}
	return c
}
