package nlbatch

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel has more refusals to tell than our queue holds: what it could not
// tell is unknown, at once, and the next datagram is not affected.
func TestKernelOverflowsQueue(t *testing.T) {
	sock, port, _, err := openSocket(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	// An unprivileged setting, down to the kernel's least.
	if err := unix.SetsockoptInt(sock.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
		t.Fatal(err)
	}
	c := New(sock, Options{Port: port})
	defer c.Close()
	bad := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(bad[4:], 1<<30)
	var b Batch
	for range 64 {
		b.Begin(unix.RTM_GETLINK, 0, bad...)
	}
	begin := time.Now()
	errs := c.Do(t.Context(), &b)
	got := kinds(errs)
	if !strings.HasPrefix(got, "r") || !strings.HasSuffix(got, "?") || strings.Trim(got, "r?") != "" {
		t.Errorf("got %q", got)
	}
	if last := errs[63]; !errors.Is(last, unix.ENOBUFS) {
		t.Errorf("last: %v", last)
	}
	if took := time.Since(begin); took > DefaultTimeout/2 {
		t.Errorf("waited %s for answers that were lost", took)
	}
	b.Reset()
	b.Begin(unix.RTM_GETLINK, 0, bad...)
	if err := c.Do(t.Context(), &b)[0]; !errors.Is(err, unix.ENODEV) {
		t.Errorf("afterwards: %v", err)
	}
}
