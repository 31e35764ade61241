package policy

import "net/netip"

// LocalAddrs are the addresses of this node's pods, in no order.
func (f *Facts) LocalAddrs() []netip.Addr {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var all []netip.Addr
	for _, pods := range f.pods {
		for _, p := range pods {
			if p.relevant() && f.here(p) {
				all = append(all, p.Addrs...)
			}
		}
	}
	return all
}
