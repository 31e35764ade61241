package nodeport

import (
	"net/netip"
	"slices"
)

// Select are the node addresses that serve NodePorts, in the order given and
// once each: those inside any of the CIDRs, or without CIDRs the first one of
// each family ("primary"). Addresses that no packet from elsewhere can have as
// its destination (loopback, link-local, multicast, unspecified) never serve.
func Select(addrs []netip.Addr, cidrs []netip.Prefix) []netip.Addr {
	var out []netip.Addr
	var has4, has6 bool
	for _, a := range addrs {
		has := &has6
		if a.Is4() {
			has = &has4
		}
		if !serves(a) || slices.Contains(out, a) {
			continue
		}
		chosen := slices.ContainsFunc(cidrs, func(c netip.Prefix) bool { return c.Contains(a) })
		if len(cidrs) == 0 {
			chosen = !*has
		}
		if chosen {
			out = append(out, a)
			*has = true
		}
	}
	return out
}

func serves(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast()
}
