package ipvs

import (
	"errors"
	"maps"
)

// tornTries is how often the table is read before it counts as unreadable.
const tornTries = 10

var errTorn = errors.New("the table changed while it was read, again and again; virtual servers of other network namespaces count too")

// untorn reads virtual servers until two readings in a row name the same.
//
// The kernel tells them in parts and counts its way through all network
// namespaces' to find where it was (ip_vs_genl_dump_services). When a virtual
// server of another namespace goes between two parts, as many of ours are
// passed over, and nothing in the answer says so.
func untorn(read func() ([]VirtualServerEntry, error)) ([]VirtualServerEntry, error) {
	var was map[VirtualServer]bool
	for range tornTries {
		list, err := read()
		if err != nil {
			return nil, err
		}
		is := make(map[VirtualServer]bool, len(list))
		for _, e := range list {
			is[e.VirtualServer] = true
		}
		if was != nil && maps.Equal(was, is) {
			return list, nil
		}
		was = is
	}
	return nil, errTorn
}
