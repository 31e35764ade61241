package model

import (
	"iter"
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
	for r := range s.records(name, k) {
		if was, twice := best[r.addr]; !twice || r.rank() > was.rank() {
			best[r.addr] = r
		}
	}
	return slices.SortedFunc(maps.Values(best), func(a, b candidate) int { return a.addr.Compare(b.addr) })
}

// records are what the slices say of the endpoints of one Service port in one
// family, in the order of the slices' names, each with its slice. The first
// record of a rank counts, of those of one address and port.
func (s *Store) records(name Name, k endpointsKey) iter.Seq2[candidate, Name] {
	slicesByName := s.slices[name]
	return func(yield func(candidate, Name) bool) {
		for _, of := range slices.SortedFunc(maps.Keys(slicesByName), Name.Compare) {
			slice := slicesByName[of]
			for _, p := range slice.Ports {
				if slice.Family != k.family || p.Name != k.port || p.Protocol != k.protocol {
					continue
				}
				for _, e := range slice.Endpoints {
					if !yield(candidate{Endpoint: e, addr: netip.AddrPortFrom(e.Addr, p.Port), local: e.Node == s.opts.NodeName}, of) {
						return
					}
				}
			}
		}
	}
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
//	         hints); when no endpoint is ready, those that still serve while they
//	         terminate (KEP-1669), wherever they are
//	local    the ready ones of this node, whatever the hints; when none of these
//	         is ready, those of this node that still serve while they terminate
//
// The lists fall back independently: remote ready endpoints and local
// terminating ones can be in use at once. An endpoint that terminates and no
// longer serves, or that is neither ready nor terminating, is in no list.
func choose(all []candidate, at place) (chosen endpoints) {
	for i, j := range judge(all, at) {
		if j.cluster.in() {
			chosen.cluster = append(chosen.cluster, all[i].backend(j.cluster))
		}
		if j.local.in() {
			chosen.local = append(chosen.local, all[i].backend(j.local))
		}
	}
	return chosen
}

func (c candidate) backend(v verdict) Backend {
	return Backend{Addr: c.addr, Local: c.local, Terminating: v == inLeaving}
}

// verdict says whether an endpoint is in a list, and why.
type verdict uint8

// The verdicts. The last ones are those of endpoints that are in.
const (
	outNotReady  verdict = iota // neither ready nor terminating
	outEnded                    // terminates, and serves no more
	outSpared                   // serves while it terminates, and is not needed
	outForNodes                 // ready, and kept for other nodes
	outForZones                 // ready, and kept for other zones
	outElsewhere                // on another node
	outUnplaced                 // on nobody knows which node
	inReady                     // ready
	inForNode                   // ready, and hints name this node
	inForZone                   // ready, and hints name this zone
	inLeaving                   // serves while it terminates, and none is ready
)

func (v verdict) in() bool { return v >= inReady }

// judgement is what is said of one endpoint.
type judgement struct{ cluster, local verdict }

// judge says of each endpoint whether it is in the lists, as choose has them.
func judge(all []candidate, at place) []judgement {
	var ready, readyHere bool
	for _, c := range all {
		ready = ready || c.Ready // hints that hold leave at least one
		readyHere = readyHere || c.Ready && c.local
	}
	near := hints(all, at)
	said := make([]judgement, len(all))
	for i, c := range all {
		said[i].cluster = c.judge(ready, near)
		switch {
		case c.local:
			said[i].local = c.judge(readyHere, nil)
		case c.Node == "":
			said[i].local = outUnplaced
		default:
			said[i].local = outElsewhere
		}
	}
	return said
}

// judge is the verdict on one endpoint of a list, given whether any of the list is
// ready, and the hints that hold.
func (c candidate) judge(ready bool, near func(candidate) verdict) verdict {
	switch {
	case c.Ready && near != nil:
		return near(c)
	case c.Ready:
		return inReady
	case c.Serving && c.Terminating && !ready:
		return inLeaving
	case c.Serving && c.Terminating:
		return outSpared
	case c.Terminating:
		return outEnded
	}
	return outNotReady
}

// hints are the verdict on ready endpoints by the hints that keep some of them for
// other places; nil: on none. Hints count as one: a ready endpoint without any
// turns them off, and so does it when none of them names this place, rather than
// leave the place without endpoints.
//
//	every ready endpoint has node hints, one names this node   those naming it (PreferSameNode)
//	else every one has zone hints, one names this node's zone  those naming it (PreferSameZone)
//	else                                                       all
//
// Where hints come from (trafficDistribution, the topology-mode annotation) is
// not asked: that is the EndpointSlice controller's matter.
func hints(all []candidate, at place) func(candidate) verdict {
	switch {
	case hinted(all, candidate.forNodes, at.node):
		return func(c candidate) verdict {
			if slices.Contains(c.ForNodes, at.node) {
				return inForNode
			}
			return outForNodes
		}
	case hinted(all, candidate.forZones, at.zone):
		return func(c candidate) verdict {
			if slices.Contains(c.ForZones, at.zone) {
				return inForZone
			}
			return outForZones
		}
	}
	return nil
}

func (c candidate) forNodes() []string { return c.ForNodes }
func (c candidate) forZones() []string { return c.ForZones }

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
