package model

import (
	"net/netip"
	"slices"
	"time"
)

// StoreOptions are what a Store has to know of the node it serves.
type StoreOptions struct {
	// NodeName is the name of this node's Node object, and what nodeName of
	// a local endpoint says.
	NodeName string
	// NodePorts chooses which of the node's addresses serve NodePorts; nil:
	// all that it is given. See package nodeport.
	NodePorts func([]netip.Addr) []netip.Addr
	// ExternalIPs are the ranges that spec.externalIPs may name; nil: all.
	ExternalIPs []netip.Prefix
	// NodeObjects says that the sources tell of every Node: one that is not
	// told of is not there. Otherwise a Node that was never told of may be.
	NodeObjects bool
}

// Store holds the facts, and which Services a change of facts touched. It has
// one owner.
//
//	services  name  -> Service
//	slices    Service name -> slice name -> EndpointSlice    owner turns the same round
//	claimants frontend -> names of the Services that want it (nearly always one)
type Store struct {
	opts StoreOptions
	told
	here nodeFacts

	claimants map[FrontendKey][]Name
	claims    map[Name][]FrontendKey
	triggers  map[part][]time.Time
	dirty     map[Name]struct{}
	vips      vips
}

// told are the facts as they were told.
type told struct {
	services map[Name]Service
	slices   map[Name]map[Name]EndpointSlice
	owner    map[Name]Name // slice -> its Service
	nodes    map[string]Node
	addrs    []netip.Addr // of this host's interfaces
	own      Node         // this node's Node as it was last told, though it may be gone
	partial  bool         // not every source has told all it knows
}

// nodeFacts is what Resolve reads of nodes and addresses, derived once per
// change of these.
type nodeFacts struct {
	source    [2]netip.Addr           // by family: what the host talks from
	nodePorts []netip.Addr            // addresses that serve NodePorts
	health    []netip.Addr            // and those of them that are on this host
	taken     map[netip.Addr]struct{} // addresses of nodes and the API server: never a VIP
	zone      string                  // of this node; "" when unknown
}

// zoneLabel is the Node label that hints of zones are compared with.
const zoneLabel = "topology.kubernetes.io/zone"

// NewStore makes an empty store.
func NewStore(opts StoreOptions) *Store {
	if opts.NodePorts == nil {
		opts.NodePorts = func(a []netip.Addr) []netip.Addr { return a }
	}
	return &Store{
		opts: opts,
		told: told{
			services: map[Name]Service{},
			slices:   map[Name]map[Name]EndpointSlice{},
			owner:    map[Name]Name{},
			nodes:    map[string]Node{},
		},
		claimants: map[FrontendKey][]Name{},
		claims:    map[Name][]FrontendKey{},
		triggers:  map[part][]time.Time{},
		dirty:     map[Name]struct{}{},
		vips:      newVIPs(),
	}
}

// Apply takes one event's fact into the store and marks the Services it
// touches as dirty. Problem and Synced events are not facts and change nothing.
func (s *Store) Apply(e Event) {
	s.vips.apply(e)
	switch fact := e.Put.(type) {
	case Service:
		s.services[fact.Name] = fact
		s.claim(fact.Name)
	case EndpointSlice:
		s.putSlice(fact)
	case Node:
		s.vips.network = s.vips.network || s.nodes[fact.Name].routedOtherwise(fact)
		s.nodes[fact.Name] = fact
		if fact.Name == s.opts.NodeName {
			s.own = fact
		}
		s.deriveNode()
	case LocalAddrs:
		s.addrs = fact.Addrs
		s.deriveNode()
	}
	switch gone := e.Delete.(type) {
	case ServiceKey:
		delete(s.services, gone.Name)
		s.claim(gone.Name)
	case EndpointSliceKey:
		s.dropSlice(gone.Name)
	case NodeKey:
		delete(s.nodes, gone.Name)
		s.vips.network = true
		s.deriveNode()
	}
}

// TakeDirty returns the Services touched since the last call that are wanted
// now, in no order; nil: all. The others stay for another call. One that no
// longer exists resolves to an empty View.
func (s *Store) TakeDirty(now func(Name) bool) []Name {
	names := make([]Name, 0, len(s.dirty))
	for n := range s.dirty {
		if now == nil || now(n) {
			names = append(names, n)
		}
	}
	switch {
	case len(names) == len(s.dirty) && len(names) > 0:
		s.dirty = map[Name]struct{}{} // one that was large is slow to range over
	default:
		for _, n := range names {
			delete(s.dirty, n)
		}
	}
	return names
}

// part is one family of a Service.
type part struct {
	name   Name
	family Family
}

// Partial says whether facts are missing, because not every source has told all
// it knows. Then a frontend without endpoints may have some, which a former run
// has programmed and nobody is to cut off: it is left out as if unknown.
func (s *Store) Partial(partial bool) {
	if s.partial == partial {
		return
	}
	s.partial = partial
	for name := range s.services {
		s.dirty[name] = struct{}{}
	}
}

// TakeTriggers returns when the changes happened that the EndpointSlices of one
// family of a Service told of since the last call, as far as they say so.
func (s *Store) TakeTriggers(name Name, f Family) []time.Time {
	times := s.triggers[part{name, f}]
	delete(s.triggers, part{name, f})
	return times
}

// Urgent reports whether a Service is to be programmed before others.
func (s *Store) Urgent(name Name) bool { return s.services[name].Urgent }

// PodCIDRs are where this node's pods are, as its Node says or, when it is gone,
// last said: it serves its pods until it is switched off.
func (s *Store) PodCIDRs() []netip.Prefix { return s.own.PodCIDRs }

// Leaving says why load balancers are to use this node no more; "" when they
// may (KEP-3836).
func (s *Store) Leaving() string {
	own, there := s.nodes[s.opts.NodeName]
	if !there && (s.opts.NodeObjects || s.own.Name != "") {
		return "there is no Node " + s.opts.NodeName
	}
	return own.Leaving
}

// Away says why nobody is to be led to this node, or kept on it while it is gone
// for a moment: it leaves, is drained or not ready. "": they may be.
func (s *Store) Away() string {
	if leaving := s.Leaving(); leaving != "" {
		return leaving
	}
	own := s.nodes[s.opts.NodeName]
	if own.Drained == "" && !own.NotReady.IsZero() {
		return "it is not ready"
	}
	return own.Drained
}

func (s *Store) putSlice(slice EndpointSlice) {
	service := Name{slice.Name.Namespace, slice.Service}
	was := s.slices[service][slice.Name]
	if !slice.Triggered.IsZero() && !slice.Triggered.Equal(was.Triggered) {
		k := part{service, slice.Family}
		s.triggers[k] = append(s.triggers[k], slice.Triggered)
	}
	if was, known := s.owner[slice.Name]; known && was != service {
		s.dropSlice(slice.Name)
	}
	if s.slices[service] == nil {
		s.slices[service] = map[Name]EndpointSlice{}
	}
	s.slices[service][slice.Name] = slice
	s.owner[slice.Name] = service
	s.dirty[service] = struct{}{}
	s.vips.touch(service)
	s.deriveAfter(service)
}

func (s *Store) dropSlice(name Name) {
	service, known := s.owner[name]
	if !known {
		return
	}
	delete(s.owner, name)
	delete(s.slices[service], name)
	if len(s.slices[service]) == 0 {
		delete(s.slices, service)
	}
	s.dirty[service] = struct{}{}
	s.vips.touch(service)
	s.deriveAfter(service)
}

// apiServer is the Service whose endpoints are the API server's addresses.
func apiServer() Name { return Name{"default", "kubernetes"} }

// deriveAfter follows a change of a Service's endpoints, if the node's facts
// depend on them.
func (s *Store) deriveAfter(service Name) {
	if service == apiServer() {
		s.deriveNode()
	}
}

// claim brings up to date which frontends a Service wants, and marks it and
// every rival whose chances that changes.
func (s *Store) claim(name Name) {
	s.dirty[name] = struct{}{}
	for _, f := range s.claims[name] {
		rest := slices.DeleteFunc(slices.Clone(s.claimants[f]), func(n Name) bool { return n == name })
		s.setClaimants(f, rest)
	}
	delete(s.claims, name)
	svc, ok := s.services[name]
	if !ok {
		s.vips.set(name, nil)
		return
	}
	frontends, _ := s.frontends(svc)
	var balanced []netip.Addr
	for _, f := range frontends {
		s.claims[name] = append(s.claims[name], f.FrontendKey)
		if a := f.Addr.Addr(); f.Kind == LoadBalancerIP && !slices.Contains(balanced, a) {
			balanced = append(balanced, a)
		}
	}
	s.vips.set(name, balanced)
	for _, h := range s.health(svc) {
		if !slices.Contains(s.claims[name], h.key()) {
			s.claims[name] = append(s.claims[name], h.key())
		}
	}
	for _, f := range s.claims[name] {
		s.setClaimants(f, append(slices.Clone(s.claimants[f]), name))
	}
}

func (s *Store) setClaimants(f FrontendKey, names []Name) {
	if len(names)+len(s.claimants[f]) > 1 {
		for _, n := range names {
			s.dirty[n] = struct{}{}
		}
	}
	if len(names) == 0 {
		delete(s.claimants, f)
		return
	}
	s.claimants[f] = names
}

// winner is the Service that gets a frontend: the oldest, then the first by
// name, whatever the order in which they were told of.
func (s *Store) winner(f FrontendKey) Name {
	return slices.MinFunc(s.claimants[f], func(a, b Name) int {
		if c := s.services[a].Created.Compare(s.services[b].Created); c != 0 {
			return c
		}
		return a.Compare(b)
	})
}

// deriveNode works out the node's facts anew and, when they changed, has every
// Service looked at again: node facts change seldom and touch them all. A Node
// that is deleted leaves them as they were: which of the host's addresses are
// the node's is no less true of them then, and a kubelet may tell of it again.
func (s *Store) deriveNode() {
	next := nodeFacts{taken: s.taken()}
	next.zone = s.own.Labels[zoneLabel]
	candidates := slices.Concat(s.own.Addrs, s.addrs)
	for _, a := range candidates {
		at := &next.source[familyIndex(FamilyOf(a))]
		if !at.IsValid() && (len(s.addrs) == 0 || slices.Contains(s.addrs, a)) {
			*at = a
		}
	}
	next.nodePorts = s.opts.NodePorts(dedup(candidates))
	for _, a := range next.nodePorts {
		if len(s.addrs) == 0 || slices.Contains(s.addrs, a) {
			next.health = append(next.health, a)
		}
	}
	if next.equal(s.here) {
		return
	}
	s.vips.network = s.vips.network || next.source != s.here.source
	s.here = next
	for name := range s.services {
		s.claim(name)
	}
}

// taken are the addresses that can be nobody's VIP: those of nodes and of the
// API server.
func (s *Store) taken() map[netip.Addr]struct{} {
	taken := map[netip.Addr]struct{}{}
	for _, n := range s.nodes {
		for _, a := range n.Addrs {
			taken[a] = struct{}{}
		}
	}
	for _, a := range s.addrs {
		taken[a] = struct{}{}
	}
	for _, slice := range s.slices[apiServer()] {
		for _, e := range slice.Endpoints {
			taken[e.Addr] = struct{}{}
		}
	}
	return taken
}

func (n nodeFacts) equal(o nodeFacts) bool {
	if n.zone != o.zone || n.source != o.source || !slices.Equal(n.nodePorts, o.nodePorts) || !slices.Equal(n.health, o.health) || len(n.taken) != len(o.taken) {
		return false
	}
	for a := range n.taken {
		if _, ok := o.taken[a]; !ok {
			return false
		}
	}
	return true
}

func familyIndex(f Family) int {
	if f == IPv4 {
		return 0
	}
	return 1
}

// dedup keeps the first of each address, in order.
func dedup(addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}
