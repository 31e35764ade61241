package model

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
)

// VIP is what decides, across the cluster, who leads traffic to one
// load-balancer address.
type VIP struct {
	Addr netip.Addr
	// Services are those that answer on the address, the oldest first. None:
	// it is nobody's.
	Services []Share
}

// Share is one Service's part of an address.
type Share struct {
	Service Name
	UID     string
	Labels  map[string]string
	Local   bool // externalTrafficPolicy
	// Usable are the nodes with endpoints of the Service in the address's
	// family that could take traffic: true where one is ready, false where all
	// only serve until they terminate. Endpoints that name no node stand under "".
	Usable map[string]bool
}

// Network is what decisions about routes read besides the address itself. It
// shares memory with the Store and holds until its next Apply.
type Network struct {
	Node           string // this node's name
	Leaving        string // see Store.Leaving: also of a Node that is no more
	Nodes          map[string]Node
	Source         [2]netip.Addr // this node's own address of each family, IPv4 first
	Pools          map[string]AddressPool
	Peers          map[string]Peer
	Advertisements map[string]Advertisement
	Secrets        map[string]Secret
}

// vips is which Services answer on which load-balancer address, and which
// addresses a change of facts touched.
type vips struct {
	of      map[Name][]netip.Addr
	shared  map[netip.Addr]map[Name]struct{}
	dirty   map[netip.Addr]struct{}
	network bool // facts that concern every address, and the peers, have changed

	pools          map[string]AddressPool
	peers          map[string]Peer
	advertisements map[string]Advertisement
	secrets        map[string]Secret
}

func newVIPs() vips {
	return vips{
		of: map[Name][]netip.Addr{}, shared: map[netip.Addr]map[Name]struct{}{}, dirty: map[netip.Addr]struct{}{},
		pools: map[string]AddressPool{}, peers: map[string]Peer{},
		advertisements: map[string]Advertisement{}, secrets: map[string]Secret{},
	}
}

// apply takes in a fact that concerns every address, if it is one.
func (v *vips) apply(e Event) {
	was := v.network
	v.network = true
	switch fact := e.Put.(type) {
	case AddressPool:
		v.pools[fact.Name] = fact
	case Peer:
		v.peers[fact.Name] = fact
	case Advertisement:
		v.advertisements[fact.Name] = fact
	case Secret:
		v.secrets[fact.Name] = fact
	default:
		v.network = v.delete(e.Delete) || was
	}
}

func (v *vips) delete(key any) bool {
	switch gone := key.(type) {
	case AddressPoolKey:
		delete(v.pools, gone.Name)
	case PeerKey:
		delete(v.peers, gone.Name)
	case AdvertisementKey:
		delete(v.advertisements, gone.Name)
	case SecretKey:
		delete(v.secrets, gone.Name)
	default:
		return false
	}
	return true
}

// set says on which addresses a Service answers now.
func (v *vips) set(name Name, addrs []netip.Addr) {
	for _, a := range v.of[name] {
		delete(v.shared[a], name)
		if len(v.shared[a]) == 0 {
			delete(v.shared, a)
		}
		v.dirty[a] = struct{}{}
	}
	delete(v.of, name)
	for _, a := range addrs {
		if v.shared[a] == nil {
			v.shared[a] = map[Name]struct{}{}
		}
		v.shared[a][name] = struct{}{}
		v.dirty[a] = struct{}{}
	}
	if len(addrs) > 0 {
		v.of[name] = addrs
	}
}

// touch marks the addresses of a Service whose endpoints changed.
func (v *vips) touch(name Name) {
	for _, a := range v.of[name] {
		v.dirty[a] = struct{}{}
	}
}

// TouchVIPs marks the addresses of a Service: something besides facts that routes
// depend on has changed.
func (s *Store) TouchVIPs(name Name) { s.vips.touch(name) }

// TakeVIPs returns the load-balancer addresses that facts have touched since the
// last call, in no order, and whether what concerns all of them (Network) has
// changed; then every address is among them.
func (s *Store) TakeVIPs() (touched []netip.Addr, network bool) {
	if network = s.vips.network; network {
		for a := range s.vips.shared {
			s.vips.dirty[a] = struct{}{}
		}
	}
	touched = slices.Collect(maps.Keys(s.vips.dirty))
	if len(touched) > 0 {
		s.vips.dirty = map[netip.Addr]struct{}{} // one that was large is slow to range over
	}
	s.vips.network = false
	return touched, network
}

// VIP says who answers on an address.
func (s *Store) VIP(addr netip.Addr) VIP {
	vip := VIP{Addr: addr}
	for name := range s.vips.shared[addr] {
		svc := s.services[name]
		vip.Services = append(vip.Services, Share{
			Service: name, UID: svc.UID, Labels: svc.Labels, Local: svc.ExternalLocal,
			Usable: s.usable(name, FamilyOf(addr)),
		})
	}
	slices.SortFunc(vip.Services, func(a, b Share) int {
		return cmp.Or(s.services[a.Service].Created.Compare(s.services[b.Service].Created), a.Service.Compare(b.Service))
	})
	return vip
}

// usable are the nodes with endpoints that could take traffic; see Share.
func (s *Store) usable(name Name, f Family) map[string]bool {
	nodes := map[string]bool{}
	for _, slice := range s.slices[name] {
		if slice.Family != f {
			continue
		}
		for _, e := range slice.Endpoints {
			if e.Ready || e.Serving && e.Terminating {
				nodes[e.Node] = nodes[e.Node] || e.Ready
			}
		}
	}
	return nodes
}

// Network is what decisions about routes read besides the address itself.
func (s *Store) Network() Network {
	return Network{
		Node: s.opts.NodeName, Leaving: s.Leaving(), Nodes: s.nodes, Source: s.here.source,
		Pools: s.vips.pools, Peers: s.vips.peers, Advertisements: s.vips.advertisements, Secrets: s.vips.secrets,
	}
}

// routedOtherwise reports whether a Node has changed in what routes depend on.
func (n Node) routedOtherwise(now Node) bool {
	return n.Name != now.Name || n.Leaving != now.Leaving || n.Drained != now.Drained ||
		!n.NotReady.Equal(now.NotReady) || !maps.Equal(n.Labels, now.Labels)
}
