package conntrack

import (
	"net/netip"

	"sluice.dev/sluice/internal/model"
)

// Desired are the frontends of UDP that a Service has, each with all endpoints
// that its flows may rightly have. These are of both lists: in-cluster clients
// of a frontend whose policy is Local are sent to any endpoint, and their flow
// keeps the frontend's address as its destination.
func Desired(view model.View) map[model.FrontendKey][]netip.AddrPort {
	flows := map[model.FrontendKey][]netip.AddrPort{}
	for _, f := range view.Frontends {
		if f.Protocol != model.UDP {
			continue
		}
		backends := make([]netip.AddrPort, 0, len(f.Cluster)+len(f.Local))
		for _, list := range [...][]model.Backend{f.Cluster, f.Local} {
			for _, b := range list {
				backends = append(backends, b.Addr)
			}
		}
		flows[f.FrontendKey] = backends
	}
	return flows
}
