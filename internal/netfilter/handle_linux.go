package netfilter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/coreos/go-iptables/iptables"
	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/nlbatch"
)

// Handle is the kernel: a Runner that starts programs and the Sets of the
// network namespace in which it was dialled. It is for one goroutine at a
// time, but for Count.
type Handle struct {
	conn  *nlbatch.Conn
	execs atomic.Uint64
}

var (
	_ Runner = (*Handle)(nil)
	_ Sets   = (*Handle)(nil)
)

// Dial opens the kernel in the calling thread's network namespace. Programs
// run in the namespace of the thread that starts them.
func Dial() (*Handle, error) {
	conn, err := nlbatch.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netfilter: %w", err)
	}
	return &Handle{conn: conn}, nil
}

// Close closes the netlink socket.
func (h *Handle) Close() error { return h.conn.Close() }

// Count is what the handle did since it was dialled. Any goroutine may ask.
func (h *Handle) Count() Count {
	return Count{Execs: h.execs.Load(), Commands: h.conn.Sent().Messages}
}

// Version says why a backend's program cannot serve a family: it is not
// there, or older than 1.6.2, the first whose restore waits for the lock and
// whose MASQUERADE knows --random-fully.
func (h *Handle) Version(b Backend, f model.Family) error {
	proto := iptables.ProtocolIPv4
	if f == model.IPv6 {
		proto = iptables.ProtocolIPv6
	}
	h.execs.Add(1)
	ipt, err := iptables.New(iptables.IPFamily(proto), iptables.Path(b.program(f)))
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", b.program(f), err)
	case !ipt.HasRandomFully():
		major, minor, patch := ipt.GetIptablesVersion()
		return fmt.Errorf("%s: version %d.%d.%d, need 1.6.2: %w", b.program(f), major, minor, patch, errors.ErrUnsupported)
	}
	return nil
}

// lockedCode is how a legacy program exits when it does not get the lock in
// time. The nft programs take no lock and use the code for any refusal of the
// kernel's.
const lockedCode = 4

// Run starts a program and waits for its end.
func (h *Handle) Run(ctx context.Context, stdin []byte, program string, args ...string) ([]byte, error) {
	h.execs.Add(1)
	cmd := exec.CommandContext(ctx, program, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return stdout.Bytes(), nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s: %w", program, context.Cause(ctx))
	case !errors.As(err, &exit):
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	err = &ExitError{Program: program, Code: exit.ExitCode(), Stderr: strings.TrimSpace(stderr.String())}
	if exit.ExitCode() == lockedCode && legacy(cmd.Path) {
		err = fmt.Errorf("%w: %w", ErrLocked, err)
	}
	return nil, err
}

// legacy reports whether a program is of the legacy backend: all of a
// backend's programs are links to one binary.
func legacy(path string) bool {
	binary, err := filepath.EvalSymlinks(path)
	return err == nil && !strings.Contains(filepath.Base(binary), "nft")
}
