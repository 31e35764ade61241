package topo

import (
	"fmt"
	"net/netip"
)

// The networks of a topology.
const (
	ClusterCIDR4 = "10.244.0.0/16"
	ClusterCIDR6 = "fd00:10:244::/56"
)

// dual is one interface's addresses, or one destination's, in both families.
type dual [2]netip.Prefix

// segment n of the outside world: 10 the nodes', 20 the client's, 30 the
// link to the root namespace.
func outside(segment, host int) dual {
	return dual{
		netip.MustParsePrefix(fmt.Sprintf("192.168.%d.%d/24", segment, host)),
		netip.MustParsePrefix(fmt.Sprintf("fd00:192:168:%d::%x/64", segment, host)),
	}
}

// outsideAll covers every segment.
func outsideAll() dual {
	return dual{netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("fd00:192:168::/48")}
}

func anywhere() dual {
	return dual{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
}

// podNetwork is node n's pod CIDRs.
func podNetwork(n int) dual {
	return dual{
		netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", n)),
		netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%x::/64", n)),
	}
}

// pod is address m in node n's pod network; 1 is the node's own.
func pod(n, m int) dual {
	return dual{
		netip.MustParsePrefix(fmt.Sprintf("10.244.%d.%d/32", n, m)),
		netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%x::%x/128", n, m)),
	}
}
