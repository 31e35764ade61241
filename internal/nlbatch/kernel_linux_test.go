package nlbatch_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/nlbatch"
)

func dial(t *testing.T, family int) *nlbatch.Conn {
	t.Helper()
	c, err := nlbatch.Dial(family)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// What any process may ask any kernel.

func TestKernelFamily(t *testing.T) {
	c := dial(t, unix.NETLINK_GENERIC)
	id, err := c.Family(t.Context(), "nlctrl")
	if err != nil || id != unix.GENL_ID_CTRL {
		t.Errorf("nlctrl is %d, %v", id, err)
	}
	if _, err := c.Family(t.Context(), "no-such-family"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("unknown family: %v", err)
	}
}

func TestKernelDumpsLinks(t *testing.T) {
	c := dial(t, unix.NETLINK_ROUTE)
	for range 3 { // one dump after the other on the same socket
		var b nlbatch.Batch
		b.Begin(unix.RTM_GETLINK, 0, make([]byte, unix.SizeofIfInfomsg)...)
		var names []string
		if err := c.Dump(t.Context(), &b, func(m []byte) error {
			d := nlbatch.Decode(m[unix.SizeofIfInfomsg:])
			for d.Next() {
				if d.Type() == unix.IFLA_IFNAME {
					names = append(names, d.String())
				}
			}
			return d.Err()
		}); err != nil {
			t.Fatal(err)
		}
		if len(names) == 0 || names[0] != "lo" {
			t.Errorf("links: %v", names)
		}
	}
}

// Two wrong messages around a good one: refused one by one, and the kernel
// answers them in one datagram's exchange.
func TestKernelRefusesOneByOne(t *testing.T) {
	c := dial(t, unix.NETLINK_ROUTE)
	var b nlbatch.Batch
	good := make([]byte, unix.SizeofIfInfomsg)
	bad := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(good[4:], 1) // lo
	binary.NativeEndian.PutUint32(bad[4:], 1<<30)
	b.Begin(unix.RTM_GETLINK, 0, bad...)
	b.Begin(unix.RTM_GETLINK, 0, good...)
	b.Begin(unix.RTM_GETLINK, 0, bad...)
	errs := c.Do(t.Context(), &b)
	if !errors.Is(errs[0], unix.ENODEV) || errs[1] != nil || !errors.Is(errs[2], unix.ENODEV) {
		t.Errorf("got %v", errs)
	}
}
