//go:build lab

package ipvs_test

import (
	"encoding/binary"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/nlbatch"
	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/ipvs/ipvstest"
)

// enter puts the test's goroutine into a network namespace of its own, with
// the loopback device up: without it the kernel has no table of local
// addresses and takes no IPv4 destination at all. The thread is never given
// back, so that it ends with the goroutine and the namespace with it.
func enter(tb testing.TB) {
	tb.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		tb.Fatalf("new network namespace: %v", err)
	}
	conn, err := nlbatch.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close()
	link := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(link[4:], 1) // lo
	binary.NativeEndian.PutUint32(link[8:], unix.IFF_UP)
	binary.NativeEndian.PutUint32(link[12:], unix.IFF_UP)
	var b nlbatch.Batch
	b.Begin(unix.RTM_NEWLINK, 0, link...)
	if err := conn.Do(tb.Context(), &b)[0]; err != nil {
		tb.Fatalf("lo up: %v", err)
	}
}

// open gives the kernel's table in a fresh namespace.
func open(tb testing.TB) *ipvs.KernelHandle {
	tb.Helper()
	enter(tb)
	h, err := ipvs.Open(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := h.Close(); err != nil {
			tb.Error(err)
		}
	})
	return h
}

func TestKernelHandleConforms(t *testing.T) {
	ipvstest.Conformance(t, func(t *testing.T) ipvs.Handle {
		t.Helper()
		return open(t)
	})
}
