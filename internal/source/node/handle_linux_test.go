package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespace makes an empty network namespace and a handle in it.
func namespace(tb testing.TB) (netns.NsHandle, *netlink.Handle) {
	tb.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		tb.Skipf("network namespaces: %v", err)
	}
	defer home.Close()
	ns, err := netns.New()
	if errors.Is(err, unix.EPERM) {
		tb.Skip("needs CAP_SYS_ADMIN")
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { ns.Close() })
	if err := netns.Set(home); err != nil {
		tb.Fatal(err)
	}
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(h.Close)
	return ns, h
}

// device makes an interface that is up, of whichever harmless kind the kernel
// has.
func device(tb testing.TB, h *netlink.Handle, name string) netlink.Link {
	tb.Helper()
	attrs := netlink.LinkAttrs{Name: name}
	var errs []error
	for _, link := range []netlink.Link{&netlink.Dummy{LinkAttrs: attrs}, &netlink.Ifb{LinkAttrs: attrs}} {
		err := h.LinkAdd(link)
		if err == nil {
			err = h.LinkSetUp(link)
		}
		if err == nil {
			return link
		}
		errs = append(errs, err)
	}
	tb.Skipf("no device can be made: %v", errs)
	return nil
}

func addr(tb testing.TB, text string, flags int) *netlink.Addr {
	tb.Helper()
	a, err := netlink.ParseAddr(text)
	if err != nil {
		tb.Fatal(err)
	}
	a.Flags = flags
	return a
}

func TestKernel(t *testing.T) {
	ns, h := namespace(t)
	eth, vip := device(t, h, "eth0"), device(t, h, "sluice0")
	add := func(link netlink.Link, a *netlink.Addr) {
		t.Helper()
		if err := h.AddrAdd(link, a); err != nil {
			t.Fatalf("%s: %v", a, err)
		}
	}
	add(eth, addr(t, "192.0.2.1/24", 0))
	add(vip, addr(t, "10.96.0.1/32", 0))
	narrow := addr(t, "198.51.100.1/32", 0)
	narrow.Scope = unix.RT_SCOPE_LINK
	add(eth, narrow)

	told := notes{more: make(chan struct{}, 1)}
	s := New(Options{VIPDevices: []string{"sluice0"}})
	s.kernel = rtnetlink{ns: &ns}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, &told) }()
	await(t, &told, "synced true from node")

	add(eth, addr(t, "192.0.2.2/24", 0))
	await(t, &told, "[192.0.2.1 192.0.2.2]")
	peer := addr(t, "203.0.113.1/32", 0)
	peer.Peer = addr(t, "203.0.113.2/32", 0).IPNet
	add(eth, peer)
	await(t, &told, "[192.0.2.1 192.0.2.2 203.0.113.1]")
	if err := h.AddrDel(eth, peer); err != nil {
		t.Fatal(err)
	}
	await(t, &told, "[192.0.2.1 192.0.2.2]")
	add(eth, addr(t, "fd00::1/64", unix.IFA_F_NODAD))
	await(t, &told, "[192.0.2.1 192.0.2.2 fd00::1]")
	add(eth, addr(t, "fd00::2/64", 0)) // tentative for a second
	await(t, &told, "[192.0.2.1 192.0.2.2 fd00::1 fd00::2]")

	if err := h.LinkDel(eth); err != nil {
		t.Fatal(err)
	}
	await(t, &told, "[]")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestKernelAddressesComeAndGo while other interfaces come and go all the time,
// as Pods' do: what is told is never less than what is there.
func TestKernelAddressesComeAndGo(t *testing.T) {
	ns, h := namespace(t)
	eth := device(t, h, "eth0")
	add := func(link netlink.Link, text string) {
		t.Helper()
		if err := h.AddrAdd(link, addr(t, text, unix.IFA_F_NODAD)); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	remove := func(link netlink.Link, text string) {
		t.Helper()
		if err := h.AddrDel(link, addr(t, text, 0)); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	add(eth, "192.0.2.1/24")
	vip := device(t, h, "sluice0")
	for i := range 500 { // so that a listing takes the kernel several messages, and may be torn
		add(vip, fmt.Sprintf("10.96.%d.%d/32", i/250, i%250))
	}
	told := notes{more: make(chan struct{}, 1)}
	s := New(Options{VIPDevices: []string{"sluice0"}})
	s.kernel = rtnetlink{ns: &ns}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, &told) }()
	await(t, &told, "synced true from node")
	next := func(want string) {
		t.Helper()
		if got := await(t, &told, want); len(got) != 1 {
			t.Errorf("told %q, want nothing but %q", got, want)
		}
	}

	churning, stop := context.WithCancel(t.Context())
	stopped := churn(t, churning, ns)
	add(eth, "192.0.2.100/32") // as keepalived does
	next("[192.0.2.1 192.0.2.100]")
	add(eth, "192.0.2.2/24")
	next("[192.0.2.1 192.0.2.2 192.0.2.100]")
	remove(eth, "192.0.2.100/32")
	next("[192.0.2.1 192.0.2.2]")
	torn := 0
	for range 200 {
		l, err := s.kernel.list()
		if errors.Is(err, errTorn) {
			torn++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(hostAddrs(l.addresses, []int{vip.Attrs().Index})); got != "[192.0.2.1 192.0.2.2]" {
			t.Fatalf("listed %s", got)
		}
	}
	t.Logf("%d listings of 200 were torn", torn)
	late := device(t, h, "eth1")
	add(late, "198.51.100.1/24")
	next("[192.0.2.1 192.0.2.2 198.51.100.1]")
	add(late, "192.0.2.100/32")
	next("[192.0.2.1 192.0.2.2 192.0.2.100 198.51.100.1]")
	if err := h.LinkDel(late); err != nil {
		t.Fatal(err)
	}
	next("[192.0.2.1 192.0.2.2]")
	stop()
	<-stopped

	remove(eth, "192.0.2.1/24") // the kernel may take its secondary address with it
	left, err := s.kernel.list()
	if err != nil {
		t.Fatal(err)
	}
	next(fmt.Sprint(hostAddrs(left.addresses, []int{vip.Attrs().Index})))
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// churn makes and deletes interfaces until ctx is done. Their addresses are
// link-local: nothing that would be told.
func churn(tb testing.TB, ctx context.Context, ns netns.NsHandle) <-chan struct{} {
	tb.Helper()
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		tb.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		defer h.Close()
		for i := 0; ctx.Err() == nil; i++ {
			link := netlink.Link(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("pod%d", i)}})
			if h.LinkAdd(link) != nil {
				link = &netlink.Ifb{LinkAttrs: *link.Attrs()}
				_ = h.LinkAdd(link)
			}
			_ = h.AddrAdd(link, &netlink.Addr{
				IPNet: &net.IPNet{IP: net.IPv4(169, 254, 1, byte(i)), Mask: net.CIDRMask(32, 32)},
				Scope: unix.RT_SCOPE_LINK,
			})
			_ = h.LinkDel(link)
		}
	}()
	return stopped
}

// TestKernelOverflow puts more addresses on our device at once than a small
// socket buffer holds notifications of.
func TestKernelOverflow(t *testing.T) {
	ns, h := namespace(t)
	eth, vip := device(t, h, "eth0"), device(t, h, "sluice0")
	updates := make(chan netlink.AddrUpdate)
	done := make(chan struct{})
	defer close(done)
	opts := netlink.AddrSubscribeOptions{Namespace: &ns, ReceiveBufferSize: 4096, ReceiveBufferForceSize: true}
	if err := netlink.AddrSubscribeWithOptions(updates, done, opts); err != nil {
		t.Skip(err)
	}
	for i := range 200 { // the first update is not taken: the buffer fills
		if err := h.AddrAdd(vip, addr(t, fmt.Sprintf("10.96.0.%d/32", i), 0)); err != nil {
			t.Fatal(err)
		}
	}
	patience := time.NewTimer(20 * time.Second)
	defer patience.Stop()
	for open := true; open; { // what rtnetlink.subscribe relies on
		select {
		case _, open = <-updates:
		case <-patience.C:
			t.Fatal("the library goes on after an overflow")
		}
	}
	if err := h.AddrAdd(eth, addr(t, "192.0.2.1/24", 0)); err != nil {
		t.Fatal(err)
	}
	l, err := rtnetlink{ns: &ns}.list()
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(hostAddrs(l.addresses, []int{l.devices["sluice0"]})); got != "[192.0.2.1]" {
		t.Errorf("got %s", got)
	}
}

func TestUsable(t *testing.T) {
	for flags, want := range map[int]bool{
		0: true, unix.IFA_F_PERMANENT: true, unix.IFA_F_DEPRECATED: true, unix.IFA_F_TENTATIVE: false,
		unix.IFA_F_TENTATIVE | unix.IFA_F_OPTIMISTIC: true, unix.IFA_F_DADFAILED | unix.IFA_F_PERMANENT: false,
	} {
		if got := usable(flags); got != want {
			t.Errorf("flags %#x: %v", flags, got)
		}
	}
}

// await waits until this was told last, and returns what was told.
func await(t *testing.T, told *notes, want string) (got []string) {
	t.Helper()
	patience := time.NewTimer(20 * time.Second)
	defer patience.Stop()
	for {
		got = append(got, told.take()...)
		if slices.Contains(got, want) && got[len(got)-1] == want {
			return got
		}
		select {
		case <-told.more:
		case <-patience.C:
			t.Fatalf("told %q, want %q at last", got, want)
		}
	}
}

// BenchmarkList lists a host that bears ten thousand VIPs.
func BenchmarkList(b *testing.B) {
	ns, h := namespace(b)
	vip := device(b, h, "sluice0")
	for i := range 10000 {
		a := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 96, byte(i>>8), byte(i)), Mask: net.CIDRMask(32, 32)}}
		if err := h.AddrAdd(vip, a); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := (rtnetlink{ns: &ns}).list(); err != nil {
			b.Fatal(err)
		}
	}
}
