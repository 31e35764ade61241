//go:build lab

package vip_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
	"sluice.dev/sluice/internal/vip"
)

// kernelMainTable is the main table of a node's namespace.
func kernelMainTable(t *testing.T) mainTable {
	t.Helper()
	ns, _ := node(t)
	return mainTableOf(t, ns)
}

func mainTableOf(t *testing.T, ns netfiltertest.Namespace) mainTable {
	t.Helper()
	var m *vip.MainTable
	ns.Do(func() {
		var err error
		m, err = vip.DialMainTable()
		must(t, err)
	})
	t.Cleanup(func() { _ = m.Close() })
	return mainTable{m, func(p netip.Prefix, metric uint32, blackhole bool) {
		ns.Do(func() { must(t, netlink.RouteAdd(other(t, p, metric, blackhole))) })
	}}
}

// other is a static route over the uplink, or a blackhole.
func other(t *testing.T, p netip.Prefix, metric uint32, blackhole bool) *netlink.Route {
	t.Helper()
	r := &netlink.Route{
		Dst:      &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
		Priority: int(metric), Protocol: unix.RTPROT_STATIC,
	}
	if blackhole {
		r.Type = unix.RTN_BLACKHOLE
		return r
	}
	up, err := netlink.LinkByName("uplink")
	must(t, err)
	r.LinkIndex = up.Attrs().Index
	return r
}

func TestKernelMainTable(t *testing.T)  { testMainTable(t, kernelMainTable) }
func TestDiscardsOnKernel(t *testing.T) { testDiscards(t, kernelMainTable) }

// TestDiscarding: of an aggregate that is discarded the addresses of Services are
// delivered, those of longer routes forwarded, and all others go nowhere, not
// even over the default route.
func TestDiscarding(t *testing.T) {
	ns, device := node(t)
	m := mainTableOf(t, ns)
	discards := vip.NewDiscards(m)
	addresses := rig{subject{Handle: device}, vip.New(device)}
	for _, f := range families() {
		whole, inside := aggregate(f, 0), aggregate(f, 6)
		served, foreign, free := service(f, 1024), service(f, 1), service(f, 2048)
		goes := func(a netip.Addr) string {
			where := ""
			ns.Do(func() {
				routes, err := netlink.RouteGet(a.AsSlice())
				switch {
				case errors.Is(err, unix.EINVAL):
					where = "nowhere"
				case err != nil:
					t.Errorf("route to %s: %v", a, err)
				case routes[0].Type == unix.RTN_LOCAL:
					where = "here"
				default:
					link, err := netlink.LinkByIndex(routes[0].LinkIndex)
					must(t, err)
					where = link.Attrs().Name
				}
			})
			return where
		}
		want := func(when, toServed, toForeign, toFree string) {
			t.Helper()
			if a, b, c := goes(served), goes(foreign), goes(free); a != toServed || b != toForeign || c != toFree {
				t.Errorf("%s, %s: the Service's goes %s, the other route's %s, the free one %s; want %s, %s, %s", f, when, a, b, c, toServed, toForeign, toFree)
			}
		}
		if f == model.IPv6 { // these /112 are too small for the addresses above
			whole, inside = netip.PrefixFrom(service(f, 0), 104).Masked(), netip.PrefixFrom(service(f, 0), 120).Masked()
		}
		want("before", "uplink", "uplink", "uplink")
		m.others(inside, 20, false)
		for _, err := range discards.Apply(t.Context(), discardDifference(map[vip.Discard]struct{}{{Prefix: whole}: {}}, nil)) {
			t.Error(err)
		}
		want("discarded", "nowhere", "uplink", "nowhere")
		addresses.reconcile(t, state{vip.Key{Addr: served}: {Source: nodeAddr(served, 0)}})
		want("with a Service", "here", "uplink", "nowhere")
		// One that comes later is preferred.
		m.others(whole, 20, false)
		want("with another's route to the same", "here", "uplink", "uplink")
		for _, err := range discards.Apply(t.Context(), discardDifference(nil, listDiscards(t, discards))) {
			t.Error(err)
		}
		want("no more discarded", "here", "uplink", "uplink")
	}
}

// TestLocalBesideADiscardRoute: an address that is discarded does not answer here,
// which is no failure to find out.
func TestLocalBesideADiscardRoute(t *testing.T) {
	ns, _ := node(t)
	for _, aggregate := range []string{"198.51.100.0/24", "2001:db8:1::/48"} {
		p := netip.MustParsePrefix(aggregate)
		for _, e := range mainTableOf(t, ns).Put(t.Context(), []netip.Prefix{p}) {
			must(t, e)
		}
		ns.Do(func() {
			if local, err := vip.Local(t.Context(), p.Addr().Next()); local || err != nil {
				t.Errorf("%s: local %v, %v", p, local, err)
			}
		})
	}
}
