package nodeport

import (
	"context"
	"errors"
	"net/netip"
	"syscall"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
)

// Frontends reads from the kernel which frontends our sets name. A member goes
// in before its virtual server and out after it, so these are at least all the
// virtual servers that are ours, at any time and after any crash; see
// docs/decisions/003-ipvs-ownership.md.
func Frontends(ctx context.Context, sets netfilter.Sets) (map[model.FrontendKey]struct{}, error) {
	out := map[model.FrontendKey]struct{}{}
	for _, f := range []model.Family{model.IPv4, model.IPv6} {
		for _, set := range naming() {
			members, err := sets.Members(ctx, netfilter.KernelSet(f, set))
			if errors.Is(err, syscall.ENOENT) {
				continue
			}
			if err != nil {
				return nil, err
			}
			for _, m := range members {
				addr := netip.AddrPortFrom(m.Entry.First.Addr(), m.Entry.Port)
				out[model.FrontendKey{Addr: addr, Protocol: m.Entry.Protocol}] = struct{}{}
			}
		}
	}
	return out, nil
}

// Sets are the names of our sets that others look into: those of all frontends,
// of the addresses on our device, and of endpoints that reach themselves.
func Sets() (frontends []string, vips, hairpin string) { return naming(), setVIPs, setHairpin }
