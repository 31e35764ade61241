package bgp

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// network is a model.Network as this node reads it, worked out once for all
// addresses. It shares no map with the Store.
//
// Addresses that the same advertisements select, in the same way, have the same
// routes but for their prefix. So these are worked out once for each such set
// (a plan), and an address costs a look at each advertisement and one at the
// plans.
type network struct {
	viewpoint
	pools    []pool    // by name
	adverts  []*advert // the oldest first
	peers    neighbours
	problems []model.Problem

	plans map[string]*plan
	// key and matched are of the address asked for last, kept for their memory.
	key     []byte
	matched []match
}

// pool is an AddressPool.
type pool struct {
	name   string
	ranges []model.AddrRange // adjacent ones made one
}

// advert is a BGPAdvertisement.
type advert struct {
	model.Advertisement
	here  bool         // its nodeSelectors choose this node
	pools []bool       // which pools it selects; nil: every address
	peers []*neighbour // that it tells from this node, by name
	// nobody says why peers is empty.
	nobody string
	// others are the other nodes that would tell its addresses of each family,
	// IPv4 first, if policy had them. Empty while this node is ready.
	others [2]map[string]struct{}
}

// compile reads a network.
func compile(in model.Network) *network {
	own, known := in.Nodes[in.Node]
	own.Name, own.Leaving = in.Node, cmp.Or(own.Leaving, in.Leaving)
	n := &network{viewpoint: viewpoint{Node: own, known: known, addrs: in.Source[:]}, plans: map[string]*plan{}}
	peers := byAge(in.Peers)
	n.peers = seen(n.viewpoint, peers, in.Secrets)
	for _, p := range peers {
		if s := n.peers[p.Name]; s != nil && s.problem != nil {
			n.problems = append(n.problems, *s.problem)
		}
	}
	n.pools = merged(in.Pools)
	adverts := slices.SortedFunc(maps.Values(in.Advertisements), func(a, b model.Advertisement) int {
		return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.Name, b.Name))
	})
	for _, a := range adverts {
		n.adverts = append(n.adverts, n.advert(in, a))
		n.problems = append(n.problems, unknown(in, a)...)
	}
	if !own.NotReady.IsZero() {
		n.lookAround(in, peers)
	}
	return n
}

// merged are the pools by name, each with as few ranges as will do.
func merged(pools map[string]model.AddressPool) []pool {
	out := make([]pool, 0, len(pools))
	for _, name := range slices.Sorted(maps.Keys(pools)) {
		p := pool{name: name}
		for _, r := range pools[name].Ranges {
			if end := len(p.ranges) - 1; end >= 0 && p.ranges[end].Last.Next() == r.First {
				p.ranges[end].Last = r.Last
				continue
			}
			p.ranges = append(p.ranges, r)
		}
		out = append(out, p)
	}
	return out
}

// contains reports whether all addresses of a prefix are in the pool.
func (p pool) contains(prefix netip.Prefix) bool {
	from, to := prefix.Masked().Addr(), last(prefix)
	return slices.ContainsFunc(p.ranges, func(r model.AddrRange) bool { return r.Contains(from) && r.Contains(to) })
}

// last is the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	a := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(a)*8; bit++ {
		a[bit/8] |= 0x80 >> (bit % 8)
	}
	addr, _ := netip.AddrFromSlice(a)
	return addr
}

// advert reads an advertisement.
func (n *network) advert(in model.Network, a model.Advertisement) *advert {
	out := &advert{Advertisement: a, here: n.chosen(a.Nodes)}
	if len(a.Pools)+len(a.PoolSelectors) > 0 {
		out.pools = make([]bool, len(n.pools))
		for i, p := range n.pools {
			out.pools[i] = slices.Contains(a.Pools, p.name) ||
				len(a.PoolSelectors) > 0 && model.Selected(a.PoolSelectors, in.Pools[p.name].Labels)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.peers)) {
		if out.tells(name) {
			out.peers = append(out.peers, n.peers[name])
		}
	}
	if len(out.peers) == 0 {
		out.nobody = n.nobody(in, a)
	}
	return out
}

// tells reports whether the advertisement is for a peer.
func (a *advert) tells(peer string) bool { return len(a.Peers) == 0 || slices.Contains(a.Peers, peer) }

// nobody is why an advertisement tells nobody from this node.
func (n *network) nobody(in model.Network, a model.Advertisement) string {
	named := slices.Sorted(slices.Values(a.Peers))
	if len(named) == 0 {
		named = slices.Sorted(maps.Keys(in.Peers))
	}
	left := slices.DeleteFunc(slices.Clone(named), func(name string) bool { _, there := in.Peers[name]; return !there })
	switch {
	case len(in.Peers) == 0:
		return "there is no BGPPeer"
	case len(left) == 0:
		return fmt.Sprintf("BGPAdvertisement %s is for peer %s, and there is no such BGPPeer", a.Name, named[0])
	case len(left) == 1:
		return fmt.Sprintf("peer %s's nodeSelectors leave out %s", left[0], n.here())
	}
	return fmt.Sprintf("the nodeSelectors of peer %s, and of %d more, leave out %s", left[0], len(left)-1, n.here())
}

// here is this node, as one that selectors have left out.
func (n *network) here() string {
	if n.known {
		return "this node"
	}
	return "this node, whose labels are unknown without a Node " + n.Name
}

// unknown are the problems of an advertisement that names what is not there.
func unknown(in model.Network, a model.Advertisement) (problems []model.Problem) {
	complain := func(reason, field, kind, name string) {
		problems = append(problems, complaint(a, reason,
			fmt.Sprintf("%s names %s, and there is no such %s; correct the name, or create it", field, name, kind)))
	}
	for _, name := range a.Pools {
		if _, there := in.Pools[name]; !there {
			complain("UnknownPool", "addressPools", "AddressPool", name)
		}
	}
	for _, name := range a.Peers {
		if _, there := in.Peers[name]; !there {
			complain("UnknownPeer", "peers", "BGPPeer", name)
		}
	}
	return problems
}

func complaint(a model.Advertisement, reason, message string) model.Problem {
	return model.Problem{Kind: "BGPAdvertisement", Object: model.Name{Name: a.Name}, UID: a.UID, Reason: reason, Message: message}
}

// lookAround finds the nodes that would tell an advertisement's addresses in the
// place of this one, which is NotReady; see site.others.
func (n *network) lookAround(in model.Network, peers []model.Peer) {
	for name, node := range in.Nodes {
		if node.Drained != "" || node.Leaving != "" || !node.NotReady.IsZero() {
			continue
		}
		other := viewpoint{Node: node, known: true, addrs: node.Addrs}
		told := seen(other, peers, in.Secrets)
		for _, a := range n.adverts {
			if !other.chosen(a.Nodes) {
				continue
			}
			for f := range a.others {
				if a.tellsAny(told, f) {
					a.add(f, name)
				}
			}
		}
	}
}

// tellsAny reports whether a node that sees these peers tells one of them the
// advertisement's routes of a family.
func (a *advert) tellsAny(peers neighbours, f int) bool {
	for name, p := range peers {
		if p.silent[f] == "" && a.tells(name) {
			return true
		}
	}
	return false
}

func (a *advert) add(f int, node string) {
	if a.others[f] == nil {
		a.others[f] = map[string]struct{}{}
	}
	a.others[f][node] = struct{}{}
}
