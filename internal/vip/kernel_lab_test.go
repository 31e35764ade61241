//go:build lab

package vip_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
	"sluice.dev/sluice/internal/vip"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Error(err)
	}
}

const device = "sluice0"

// node makes a namespace with an uplink that has the node's addresses and
// default routes, and opens the device's handle in it.
func node(tb testing.TB) (netfiltertest.Namespace, *vip.Device) {
	tb.Helper()
	ns := netfiltertest.NewNamespace(tb)
	var d *vip.Device
	ns.Do(func() {
		h, err := netlink.NewHandle()
		must(tb, err)
		defer h.Close()
		lo, err := h.LinkByName("lo")
		must(tb, err)
		must(tb, h.LinkSetUp(lo))
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "uplink"
		must(tb, h.LinkAdd(&netlink.Dummy{LinkAttrs: attrs}))
		up, err := h.LinkByName("uplink")
		must(tb, err)
		must(tb, h.LinkSetUp(up))
		for _, a := range nodeAddrs() {
			bits := 24
			if a.Is6() {
				bits = 64
			}
			must(tb, h.AddrAdd(up, &netlink.Addr{
				IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}, Flags: unix.IFA_F_NODAD,
			}))
		}
		for _, gw := range []string{"192.0.2.1", "2001:db8::1"} {
			must(tb, h.RouteAdd(&netlink.Route{LinkIndex: up.Attrs().Index, Gw: net.ParseIP(gw)}))
		}
		d, err = vip.Dial(device)
		must(tb, err)
	})
	if d == nil || tb.Failed() {
		tb.FailNow()
	}
	tb.Cleanup(func() { _ = d.Close() })
	return ns, d
}

func kernel(t *testing.T) subject {
	t.Helper()
	ns, d := node(t)
	return subject{Handle: d, count: d.Count, drop: func() {
		ns.Do(func() {
			h, err := netlink.NewHandle()
			must(t, err)
			defer h.Close()
			link, err := h.LinkByName(device)
			must(t, err)
			must(t, h.LinkDel(link))
		})
	}}
}

func TestKernelConformance(t *testing.T) { testConformance(t, kernel) }
func TestTargetOnKernel(t *testing.T)    { testTarget(t, kernel) }

// TestSource: a process of the node that talks to a Service has the node's
// address as its own, and no Service's address is ever chosen for anything.
func TestSource(t *testing.T) {
	ns, d := node(t)
	target := vip.New(d)
	want := sample(3)
	for _, err := range target.Apply(t.Context(), difference(want, state{})) {
		t.Fatal(err)
	}
	ns.Do(func() {
		for _, f := range families() {
			a := service(f, 1)
			if got := sourceTo(t, a); got != nodeAddr(a, 0) {
				t.Errorf("to %s: source %s, want %s", a, got, nodeAddr(a, 0))
			}
			if got := peerOf(t, a); got != nodeAddr(a, 0) {
				t.Errorf("over TCP to %s: the listener saw %s, want %s", a, got, nodeAddr(a, 0))
			}
			elsewhere := netip.MustParseAddr("203.0.113.1")
			if f == model.IPv6 {
				elsewhere = netip.MustParseAddr("2001:db8:ffff::1")
			}
			if got := sourceTo(t, elsewhere); got != nodeAddr(a, 0) && got != nodeAddr(a, 1) {
				t.Errorf("to %s: source %s is not the node's", elsewhere, got)
			}
		}
	})
	second := state{}
	for k := range want {
		second[k] = vip.Spec{Source: nodeAddr(k.Addr, 1)}
	}
	for _, err := range target.Apply(t.Context(), difference(second, want)) {
		t.Fatal(err)
	}
	ns.Do(func() {
		for _, f := range families() {
			if a := service(f, 1); sourceTo(t, a) != nodeAddr(a, 1) {
				t.Errorf("to %s after the change: source %s", a, sourceTo(t, a))
			}
		}
	})
}

// sourceTo is the address that a socket gets when it is connected.
func sourceTo(t *testing.T, a netip.Addr) netip.Addr {
	t.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 9)))
	if err != nil {
		t.Error(err)
		return netip.Addr{}
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
}

// peerOf is the address that a listener on all addresses sees.
func peerOf(t *testing.T, a netip.Addr) netip.Addr {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{})
	if err != nil {
		t.Error(err)
		return netip.Addr{}
	}
	defer l.Close()
	to := netip.AddrPortFrom(a, l.Addr().(*net.TCPAddr).AddrPort().Port())
	out, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		t.Error(err)
		return netip.Addr{}
	}
	defer out.Close()
	in, err := l.AcceptTCP()
	if err != nil {
		t.Error(err)
		return netip.Addr{}
	}
	defer in.Close()
	if local := in.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(); local != a {
		t.Errorf("connection to %s arrived at %s", a, local)
	}
	return in.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
}

// TestDeviceIsQuiet: it is up, has no address of its own, and is not replaced
// when its name belongs to others.
func TestDeviceIsQuiet(t *testing.T) {
	ns, d := node(t)
	ns.Do(func() {
		must(t, d.Ensure(t.Context()))
		if ra, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + device + "/accept_ra"); err != nil || string(ra) != "0\n" {
			t.Errorf("accept_ra is %q, %v", ra, err)
		}
		h, err := netlink.NewHandle()
		must(t, err)
		defer h.Close()
		link, err := h.LinkByName(device)
		must(t, err)
		if link.Attrs().Flags&unix.IFF_UP == 0 || link.Attrs().RawFlags&unix.IFF_NOARP == 0 {
			t.Errorf("flags %s, want up and noarp", link.Attrs().Flags)
		}
		addrs, err := h.AddrList(link, netlink.FAMILY_ALL)
		must(t, err)
		if len(addrs) != 0 {
			t.Errorf("it has %v", addrs)
		}
		must(t, h.LinkDel(link))
		attrs := netlink.NewLinkAttrs()
		attrs.Name = device
		must(t, h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	})
	if err := d.Ensure(t.Context()); err == nil {
		t.Error("a bridge was taken for our device")
	}
	if err := d.Remove(t.Context()); err == nil {
		t.Error("a bridge was removed")
	}
}

// TestDownAndUp: what an administrator's "ip link set down" breaks is repaired
// by the next listing and its difference.
func TestDownAndUp(t *testing.T) {
	ns, d := node(t)
	r := rig{subject{Handle: d}, vip.New(d)}
	want := sample(3)
	r.reconcile(t, want)
	ns.Do(func() {
		for _, updown := range []string{"down", "up", "down"} {
			out, err := exec.Command("ip", "link", "set", device, updown).CombinedOutput()
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
		}
	})
	r.reconcile(t, want)
	r.reconcile(t, state{})
	if l := r.listing(t); len(l.Addrs)+len(l.Routes) != 0 {
		t.Errorf("left: %v", l)
	}
}

// BenchmarkRoutesAlone is what IPv4 addresses would cost if they were their
// routes only, as in IPv6.
func BenchmarkRoutesAlone(b *testing.B) {
	const n = 10000
	var routes []vip.Route
	for i := range n {
		routes = append(routes, vip.Route{Addr: service(model.IPv4, i+1), Source: nodeAddr(service(model.IPv4, 1), 0)})
	}
	for b.Loop() {
		b.StopTimer()
		_, d := node(b)
		must(b, d.Ensure(b.Context()))
		b.StartTimer()
		for _, err := range d.PutRoutes(b.Context(), routes) {
			b.Fatal(err)
		}
	}
}

// BenchmarkAddresses puts, lists, changes and deletes many addresses.
func BenchmarkAddresses(b *testing.B) {
	const n = 10000
	for _, f := range families() {
		want, moved := state{}, state{}
		for i := range n {
			a := service(f, i+1)
			want[vip.Key{Addr: a}] = vip.Spec{Source: nodeAddr(a, 0)}
			moved[vip.Key{Addr: a}] = vip.Spec{Source: nodeAddr(a, 1)}
		}
		for _, step := range []struct {
			what       string
			have, want state
		}{{"add", nil, want}, {"move source", want, moved}, {"delete", moved, nil}, {"list", want, nil}} {
			b.Run(fmt.Sprintf("%s %d %s", step.what, n, f), func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					_, d := node(b)
					target := vip.New(d)
					must(b, d.Ensure(b.Context()))
					apply := func(want, have state) {
						for _, err := range target.Apply(b.Context(), difference(want, have)) {
							b.Fatal(err)
						}
					}
					apply(step.have, nil)
					b.StartTimer()
					if step.what != "list" {
						apply(step.want, step.have)
						continue
					}
					for s, err := range target.List(b.Context(), nil) {
						if err != nil || len(s.Present) != n {
							b.Fatal(len(s.Present), err)
						}
					}
				}
			})
		}
	}
}
