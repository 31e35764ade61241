package topo

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// connect makes a pair of links, one end in each host.
func connect(a *Host, aName string, b *Host, bName string) error {
	pair := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: aName},
		PeerName:      bName,
		PeerNamespace: netlink.NsFd(int(b.ns)),
	}
	if err := a.links.LinkAdd(pair); err != nil {
		return fmt.Errorf("topo: connect %s of %q to %s of %q: %w", aName, a.Name, bName, b.Name, err)
	}
	if err := a.up(aName); err != nil {
		return err
	}
	return b.up(bName)
}

// forward makes the host a router that takes asymmetric ways, and has IPv6
// addresses usable at once: nobody else has them.
func (h *Host) forward() error {
	for _, kv := range [][2]string{
		{"net/ipv4/ip_forward", "1"},
		{"net/ipv6/conf/all/forwarding", "1"},
		{"net/ipv4/conf/all/rp_filter", "2"},
		{"net/ipv4/conf/default/rp_filter", "2"},
		{"net/ipv6/conf/default/accept_dad", "0"},
	} {
		if err := h.Sysctl(kv[0], kv[1]); err != nil {
			return err
		}
	}
	return nil
}

func (h *Host) link(name string) (netlink.Link, error) {
	link, err := h.links.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("topo: find %s of %q: %w", name, h.Name, err)
	}
	return link, nil
}

func (h *Host) up(name string) error {
	link, err := h.link(name)
	if err != nil {
		return err
	}
	if err := h.links.LinkSetUp(link); err != nil {
		return fmt.Errorf("topo: set %s of %q up: %w", name, h.Name, err)
	}
	return nil
}

func (h *Host) enslave(name, master string) error {
	link, err := h.link(name)
	if err != nil {
		return err
	}
	to, err := h.link(master)
	if err != nil {
		return err
	}
	if err := h.links.LinkSetMaster(link, to); err != nil {
		return fmt.Errorf("topo: put %s of %q on %s: %w", name, h.Name, master, err)
	}
	return nil
}

// claim remembers the host's own addresses.
func (h *Host) claim(d dual) { h.V4, h.V6 = d[0].Addr(), d[1].Addr() }

// address gives a device its addresses and sets it up.
func (h *Host) address(device string, d dual) error {
	link, err := h.link(device)
	if err != nil {
		return err
	}
	for _, prefix := range d {
		addr := &netlink.Addr{IPNet: ipNet(prefix)}
		if prefix.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := h.links.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("topo: add %v to %s of %q: %w", prefix, device, h.Name, err)
		}
	}
	return h.up(device)
}

// route sends what goes to a destination through a device, by way of a next
// hop unless that is zero: then the destination is on the link.
func (h *Host) route(device string, to, via dual) error {
	link, err := h.link(device)
	if err != nil {
		return err
	}
	for family := range to {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(to[family]), Scope: netlink.SCOPE_LINK}
		if next := via[family].Addr(); next.IsValid() {
			route.Gw, route.Scope = next.AsSlice(), netlink.SCOPE_UNIVERSE
		}
		if err := h.links.RouteReplace(route); err != nil {
			return fmt.Errorf("topo: route %q to %v: %w", h.Name, to[family], err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
