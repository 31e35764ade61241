package model

import (
	"net/netip"
	"slices"
)

// StoreOptions are what a Store has to know of the node it serves.
type StoreOptions struct {
	// NodeName is the name of this node's Node object, and what nodeName of
	// a local endpoint says.
	NodeName string
	// NodePorts chooses which of the node's addresses serve NodePorts; nil:
	// all that it is given. See package nodeport.
	NodePorts func([]netip.Addr) []netip.Addr
}

// Store holds the facts, and which Services a change of facts touched. It has
// one owner.
//
//	services  name  -> Service
//	slices    Service name -> slice name -> EndpointSlice    owner turns the same round
//	claimants frontend -> names of the Services that want it (nearly always one)
type Store struct {
	opts StoreOptions

	services  map[Name]Service
	slices    map[Name]map[Name]EndpointSlice
	owner     map[Name]Name // slice -> its Service
	nodes     map[string]Node
	addrs     []netip.Addr // of this host's interfaces
	claimants map[FrontendKey][]Name
	claims    map[Name][]FrontendKey

	here  nodeFacts
	dirty map[Name]struct{}
}

// nodeFacts is what Resolve reads of nodes and addresses, derived once per
// change of these.
type nodeFacts struct {
	source    [2]netip.Addr           // by family: what the host talks from
	nodePorts []netip.Addr            // addresses that serve NodePorts
	taken     map[netip.Addr]struct{} // addresses of nodes: never a VIP
}

// NewStore makes an empty store.
func NewStore(opts StoreOptions) *Store {
	if opts.NodePorts == nil {
		opts.NodePorts = func(a []netip.Addr) []netip.Addr { return a }
	}
	return &Store{
		opts:      opts,
		services:  map[Name]Service{},
		slices:    map[Name]map[Name]EndpointSlice{},
		owner:     map[Name]Name{},
		nodes:     map[string]Node{},
		claimants: map[FrontendKey][]Name{},
		claims:    map[Name][]FrontendKey{},
		dirty:     map[Name]struct{}{},
	}
}

// Apply takes one event's fact into the store and marks the Services it
// touches as dirty. Problem and Synced events are not facts and change nothing.
func (s *Store) Apply(e Event) {
	switch fact := e.Put.(type) {
	case Service:
		s.services[fact.Name] = fact
		s.claim(fact.Name)
	case EndpointSlice:
		s.putSlice(fact)
	case Node:
		s.nodes[fact.Name] = fact
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
		s.deriveNode()
	}
}

// TakeDirty returns the Services touched since the last call, in no order.
// One that no longer exists resolves to an empty View.
func (s *Store) TakeDirty() []Name {
	names := make([]Name, 0, len(s.dirty))
	for n := range s.dirty {
		names = append(names, n)
	}
	if len(names) > 0 {
		s.dirty = map[Name]struct{}{}
	}
	return names
}

func (s *Store) putSlice(slice EndpointSlice) {
	service := Name{slice.Name.Namespace, slice.Service}
	if was, known := s.owner[slice.Name]; known && was != service {
		s.dropSlice(slice.Name)
	}
	if s.slices[service] == nil {
		s.slices[service] = map[Name]EndpointSlice{}
	}
	s.slices[service][slice.Name] = slice
	s.owner[slice.Name] = service
	s.dirty[service] = struct{}{}
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
		return
	}
	frontends, _ := s.frontends(svc)
	for _, f := range frontends {
		s.claims[name] = append(s.claims[name], f.FrontendKey)
		s.setClaimants(f.FrontendKey, append(slices.Clone(s.claimants[f.FrontendKey]), name))
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
// Service looked at again: node facts change seldom and touch them all.
func (s *Store) deriveNode() {
	own := s.nodes[s.opts.NodeName]
	next := nodeFacts{taken: map[netip.Addr]struct{}{}}
	for _, n := range s.nodes {
		for _, a := range n.Addrs {
			next.taken[a] = struct{}{}
		}
	}
	for _, a := range s.addrs {
		next.taken[a] = struct{}{}
	}
	candidates := slices.Concat(own.Addrs, s.addrs)
	for _, a := range candidates {
		at := &next.source[familyIndex(FamilyOf(a))]
		if !at.IsValid() && (len(s.addrs) == 0 || slices.Contains(s.addrs, a)) {
			*at = a
		}
	}
	next.nodePorts = s.opts.NodePorts(dedup(candidates))
	if next.equal(s.here) {
		return
	}
	s.here = next
	for name := range s.services {
		s.claim(name)
	}
}

func (n nodeFacts) equal(o nodeFacts) bool {
	if n.source != o.source || !slices.Equal(n.nodePorts, o.nodePorts) || len(n.taken) != len(o.taken) {
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
