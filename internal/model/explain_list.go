package model

import (
	"maps"
	"net/netip"
	"slices"
)

// Summary is one Service in a list of many.
type Summary struct {
	Service Service
	View    View // what it means on this node
	// Told counts the addresses of endpoints that were told of; Used those of
	// them that a frontend leads to here.
	Told, Used int
	Unbalanced Reason // see Explanation
}

// ServiceNames are the names of all Services, in order.
func ServiceNames(s *Store) []Name { return slices.SortedFunc(maps.Keys(s.services), Name.Compare) }

// Summarize is Explain for a line of a list; ok is false when no such Service was
// told of.
func Summarize(s *Store, name Name) (sum Summary, ok bool) {
	svc, ok := s.services[name]
	if !ok {
		return Summary{}, false
	}
	sum = Summary{Service: svc, View: Resolve(s, name), Unbalanced: s.unbalanced(svc)}
	told, used := map[netip.Addr]struct{}{}, map[netip.Addr]struct{}{}
	for _, slice := range s.slices[name] {
		for _, e := range slice.Endpoints {
			told[e.Addr] = struct{}{}
		}
	}
	for _, f := range sum.View.Frontends {
		for _, b := range f.Backends() {
			used[b.Addr.Addr()] = struct{}{}
		}
	}
	sum.Told, sum.Used = len(told), len(used)
	return sum, true
}

// Names are what people call the addresses of one Service.
type Names struct {
	// Frontends are the names of the ports that the Service answers on here.
	Frontends map[FrontendKey]string
	Endpoints []NamedEndpoint
}

// NamedEndpoint is who serves an address and port.
type NamedEndpoint struct {
	Addr netip.AddrPort
	Pod  string // in the Service's namespace; "": unknown
	Node string // "": unknown
}

// NamesOf are the names of a Service's addresses; of one that was never told of
// there are none. An endpoint may be there several times.
func NamesOf(s *Store, name Name) Names {
	n := Names{Frontends: map[FrontendKey]string{}}
	svc, ok := s.services[name]
	if !ok {
		return n
	}
	frontends, _ := s.frontends(svc)
	for _, f := range frontends {
		if s.winner(f.FrontendKey) == name {
			n.Frontends[f.FrontendKey] = f.PortName
		}
	}
	for _, slice := range s.slices[name] {
		for _, p := range slice.Ports {
			for _, e := range slice.Endpoints {
				if e.Pod != "" || e.Node != "" {
					n.Endpoints = append(n.Endpoints, NamedEndpoint{netip.AddrPortFrom(e.Addr, p.Port), e.Pod, e.Node})
				}
			}
		}
	}
	return n
}
