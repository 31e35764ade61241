package model

import (
	"maps"
	"net/netip"
	"slices"
)

// endpointsKey is what frontends with the same endpoints have in common.
type endpointsKey struct {
	port     string
	protocol Protocol
	family   Family
}

// candidate is one endpoint with the port that is asked for.
type candidate struct {
	Endpoint
	addr  netip.AddrPort
	local bool
}

// candidates are the endpoints of one Service port in one family, each address
// and port once: of several records the local one counts, then the ready one
// (a moving endpoint may stand in two slices for a while), then that of the first
// slice by name.
func (s *Store) candidates(name Name, k endpointsKey) []candidate {
	best := map[netip.AddrPort]candidate{}
	slicesByName := s.slices[name]
	for _, of := range slices.SortedFunc(maps.Keys(slicesByName), Name.Compare) {
		slice := slicesByName[of]
		if slice.Family != k.family {
			continue
		}
		for _, p := range slice.Ports {
			if p.Name != k.port || p.Protocol != k.protocol {
				continue
			}
			for _, e := range slice.Endpoints {
				c := candidate{Endpoint: e, addr: netip.AddrPortFrom(e.Addr, p.Port), local: e.Node == s.opts.NodeName}
				if was, twice := best[c.addr]; !twice || c.rank() > was.rank() {
					best[c.addr] = c
				}
			}
		}
	}
	return slices.SortedFunc(maps.Values(best), func(a, b candidate) int { return a.addr.Compare(b.addr) })
}

// rank orders records of one address, so that no two that differ in use are
// equal: more is better.
func (c candidate) rank() int {
	rank := 0
	for i, good := range []bool{c.Terminating, c.Serving, c.Ready, c.local} {
		if good {
			rank += 1 << i
		}
	}
	return rank
}

// endpoints are the two lists of a frontend.
type endpoints struct{ cluster, local []Backend }

// place is what the choice of endpoints reads of the node.
type place struct{ node, zone string }

// choose picks the endpoints that get traffic, of all that a Service port has
// in one family.
//
//	cluster  the ready ones, of these the near ones where hints say so (see
//	         near); when no endpoint is ready, those that still serve while they
//	         terminate (KEP-1669), wherever they are
//	local    the ready ones of this node, whatever the hints; when none of these
//	         is ready, those of this node that still serve while they terminate
//
// The lists fall back independently: remote ready endpoints and local
// terminating ones can be in use at once. An endpoint that terminates and no
// longer serves, or that is neither ready nor terminating, is in no list.
func choose(all []candidate, at place) endpoints {
	local := slices.DeleteFunc(slices.Clone(all), func(c candidate) bool { return !c.local })
	return endpoints{cluster: usable(near(all, at)), local: usable(local)}
}

func usable(all []candidate) []Backend {
	var ready, leaving []Backend
	for _, c := range all {
		b := Backend{Addr: c.addr, Local: c.local}
		switch {
		case c.Ready:
			ready = append(ready, b)
		case c.Serving && c.Terminating:
			b.Terminating = true
			leaving = append(leaving, b)
		}
	}
	if len(ready) > 0 {
		return ready
	}
	return leaving
}

// near leaves out the ready endpoints that hints keep for other places. Hints
// count as one: a ready endpoint without any turns them off, and so does it
// when none of them names this place, rather than leave the place without
// endpoints.
//
//	every ready endpoint has node hints, one names this node   those naming it (PreferSameNode)
//	else every one has zone hints, one names this node's zone  those naming it (PreferSameZone)
//	else                                                       all
//
// Where hints come from (trafficDistribution, the topology-mode annotation) is
// not asked: that is the EndpointSlice controller's matter.
func near(all []candidate, at place) []candidate {
	forNode := func(c candidate) []string { return c.ForNodes }
	forZone := func(c candidate) []string { return c.ForZones }
	if hinted(all, forNode, at.node) {
		return naming(all, forNode, at.node)
	}
	if hinted(all, forZone, at.zone) {
		return naming(all, forZone, at.zone)
	}
	return all
}

// hinted reports whether hints of one kind hold here.
func hinted(all []candidate, hints func(candidate) []string, name string) bool {
	named := false
	for _, c := range all {
		if !c.Ready {
			continue
		}
		of := hints(c)
		if len(of) == 0 {
			return false
		}
		named = named || slices.Contains(of, name)
	}
	return named && name != ""
}

func naming(all []candidate, hints func(candidate) []string, name string) []candidate {
	return slices.DeleteFunc(slices.Clone(all), func(c candidate) bool {
		return c.Ready && !slices.Contains(hints(c), name)
	})
}
