package topo

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Where additional routers and the clients behind them are.
const (
	routerHost    = 2  // on the nodes' segment: the first one's address
	routerSegment = 21 // the client's: the first one's
)

// AddRouter attaches another router to the nodes' segment, with a client of its
// own behind it: the first at 192.168.10.2 with a client at 192.168.21.2, its
// name the router's with "-client". Nodes know the way back.
func (t *Topology) AddRouter(name string) (router, client *Host, err error) {
	n := t.routers
	t.routers++
	if router, err = t.add(name); err != nil {
		return nil, nil, err
	}
	if err := connect(t.Router, name, router, "eth0"); err != nil {
		return nil, nil, err
	}
	own, behind := outside(10, routerHost+n), outside(routerSegment+n, 0)
	router.claim(own)
	err = errors.Join(
		t.Router.enslave(name, bridge),
		router.address("eth0", own),
		router.route("eth0", outsideAll(), outside(10, 1)),
	)
	if err != nil {
		return nil, nil, err
	}
	for _, h := range append([]*Host{t.Router}, t.Nodes...) {
		device := "eth0"
		if h == t.Router {
			device = bridge
		}
		err = errors.Join(err, h.route(device, dual{behind[0].Masked(), behind[1].Masked()}, own))
	}
	if err != nil {
		return nil, nil, err
	}
	if client, err = t.add(name + "-client"); err != nil {
		return nil, nil, err
	}
	return router, client, t.buildLeaf(router, client, routerSegment+n)
}

// Spread has a router choose among equal ways by addresses and ports, as
// top-of-rack routers do, so that one client reaches all of them.
func (h *Host) Spread() error {
	return errors.Join(
		h.Sysctl("net/ipv4/fib_multipath_hash_policy", "1"),
		h.Sysctl("net/ipv6/fib_multipath_hash_policy", "1"),
	)
}

// firstStickyTable is the routing table of node1's flows, see Stick.
const firstStickyTable = 101

// Stick has a router send the packets of a connection to the node that answered
// its first, for as long as that node lives, whatever becomes of the routes:
// what routers with resilient hashing do. Linux spreads the hash anew with each
// change of the next hops, which moves connections from nodes that stay. The
// returned function undoes it.
func (t *Topology) Stick(router *Host) (undo func() error, err error) {
	device := "eth0"
	if router == t.Router {
		device = bridge
	}
	var do, back strings.Builder
	for _, tool := range []string{"iptables", "ip6tables"} {
		fmt.Fprintf(&do, "%s -w -t mangle -N STICK\n", tool)
		for i, n := range t.Nodes {
			link, err := n.link("eth0")
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(&do, "%s -w -t mangle -A STICK -m conntrack --ctdir REPLY -m mac --mac-source %s -m connmark --mark 0 -j CONNMARK --set-mark %d\n",
				tool, link.Attrs().HardwareAddr, i+1)
		}
		fmt.Fprintf(&do, "%s -w -t mangle -A STICK -m conntrack --ctdir ORIGINAL -j CONNMARK --restore-mark\n", tool)
		fmt.Fprintf(&do, "%s -w -t mangle -A PREROUTING -j STICK\n", tool)
		fmt.Fprintf(&back, "%s -w -t mangle -D PREROUTING -j STICK; %[1]s -w -t mangle -F STICK; %[1]s -w -t mangle -X STICK\n", tool)
	}
	for i, n := range t.Nodes {
		for flag, via := range map[string]netip.Addr{"-4": n.V4, "-6": n.V6} {
			table := firstStickyTable + i
			fmt.Fprintf(&do, "ip %s route add default via %s dev %s table %d; ip %[1]s rule add fwmark %[5]d lookup %[4]d\n", flag, via, device, table, i+1)
			fmt.Fprintf(&back, "ip %s rule del fwmark %d lookup %d; ip %[1]s route flush table %[3]d\n", flag, i+1, table)
		}
	}
	if _, err := router.Tool("sh", "-ec", do.String()); err != nil {
		return nil, err
	}
	return func() error {
		_, err := router.Tool("sh", "-ec", back.String())
		return err
	}, nil
}
