//go:build lab

package nlbatch_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/nlbatch"
)

const many = 10_000

// enter puts the test into a network namespace of its own, on a thread that
// ends with it.
func enter(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

func addr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}) }

// loopbackAddress is a struct ifaddrmsg for a /32 on lo.
func loopbackAddress() []byte {
	h := []byte{unix.AF_INET, 32, 0, unix.RT_SCOPE_UNIVERSE}
	return binary.NativeEndian.AppendUint32(h, 1)
}

func TestLabAddresses(t *testing.T) {
	enter(t)
	c := dial(t, unix.NETLINK_ROUTE)
	var b nlbatch.Batch
	for i := range many {
		b.Begin(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, loopbackAddress()...)
		b.Addr(unix.IFA_LOCAL, addr(i))
		b.Addr(unix.IFA_ADDRESS, addr(i))
	}
	for _, want := range []error{nil, unix.EEXIST} {
		begin := time.Now()
		for i, err := range c.Do(t.Context(), &b) {
			if !errors.Is(err, want) {
				t.Fatalf("%s: got %v, want %v", addr(i), err, want)
			}
		}
		t.Logf("%d addresses (%v): %s", many, want, time.Since(begin))
	}
	n := 0
	var dump nlbatch.Batch
	dump.Begin(unix.RTM_GETADDR, 0, make([]byte, unix.SizeofIfAddrmsg)...)
	if err := c.Dump(t.Context(), &dump, func([]byte) error { n++; return nil }); err != nil || n != many {
		t.Errorf("dump: %d addresses, %v", n, err)
	}
}

func TestLabSetEntries(t *testing.T) {
	enter(t)
	ipset := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "ipset", args...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("ipset %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	ipset("create", "T", "hash:ip,port", "maxelem", "20000")
	c := dial(t, unix.NETLINK_NETFILTER)
	const (
		subsys, cmdAdd, cmdDel                   = 6 << 8, 9, 10
		protocol, setName, data, ip, port, proto = 1, 2, 7, 1, 4, 7
	)
	var b nlbatch.Batch
	entries := func(cmd uint16) {
		b.Reset()
		for i := range many {
			b.Begin(subsys|cmd, unix.NLM_F_EXCL, unix.AF_INET, 0, 0, 0)
			b.U8(protocol, 6)
			b.String(setName, "T")
			b.Nest(data)
			b.Nest(ip)
			b.Addr(1|unix.NLA_F_NET_BYTEORDER, addr(i))
			b.End()
			b.BE16(port|unix.NLA_F_NET_BYTEORDER, 443)
			b.U8(proto, unix.IPPROTO_TCP)
		}
	}
	const exists = unix.Errno(4103) // IPSET_ERR_EXIST
	for _, step := range []struct {
		cmd  uint16
		want error
		left int
	}{{cmdAdd, nil, many}, {cmdAdd, exists, many}, {cmdDel, nil, 0}, {cmdDel, exists, 0}} {
		entries(step.cmd)
		begin := time.Now()
		for i, err := range c.Do(t.Context(), &b) {
			if !errors.Is(err, step.want) {
				t.Fatalf("command %d, %s: got %v, want %v", step.cmd, addr(i), err, step.want)
			}
		}
		t.Logf("%d entries, command %d (%v): %s", many, step.cmd, step.want, time.Since(begin))
		if got := ipset("list", "T", "-terse"); !strings.Contains(got, fmt.Sprintf("Number of entries: %d\n", step.left)) {
			t.Errorf("after command %d:\n%s", step.cmd, got)
		}
	}
}
