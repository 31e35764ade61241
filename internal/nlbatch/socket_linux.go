package nlbatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Socket is the wire under a Conn: datagrams to the kernel and back. Tests
// fake it to reorder, refuse and lose answers.
type Socket interface {
	// Send hands one datagram to the kernel. After an error it took no effect.
	Send(datagram []byte) error
	// Receive waits no longer than wait for a datagram and then returns
	// ErrTimeout; a wait of zero or less only looks. n is the datagram's whole
	// length, also when buf was too short for it. from is the sender's port
	// id: 0 is the kernel. ENOBUFS says that datagrams were lost.
	Receive(buf []byte, wait time.Duration) (n int, from uint32, err error)
	Close() error
}

// pollSlice is how long a wait may go on before the context is looked at again.
const pollSlice = 100 * time.Millisecond

// receiveBuffer is the kernel's queue of answers to us. A full batch of refused
// messages takes about 100 KiB of it.
const receiveBuffer = 1 << 20

// Open opens the wire alone, in the calling thread's network namespace, and
// tells its port id: for who reads what the kernel says unasked. A Conn may be
// made over it first, to ask for that.
func Open(family int) (sock Socket, port uint32, err error) {
	s, port, _, err := openSocket(family)
	if err != nil {
		return nil, 0, err
	}
	return s, port, nil
}

// kernelSocket is the real wire.
type kernelSocket struct{ fd int }

// openSocket opens a netlink socket and tells its port id and the largest
// datagram it takes.
func openSocket(family int) (s *kernelSocket, port uint32, limit int, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, family)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("open netlink socket (family %d): %w", family, err)
	}
	s = &kernelSocket{fd: fd}
	if port, limit, err = s.configure(); err != nil {
		return nil, 0, 0, errors.Join(fmt.Errorf("set up netlink socket (family %d): %w", family, err), s.Close())
	}
	return s, port, limit, nil
}

func (s *kernelSocket) configure() (port uint32, limit int, err error) {
	if err := unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, 0, fmt.Errorf("bind: %w", err)
	}
	// Both are comfort: short answers to refused messages, and a text in them.
	// A kernel without them (before 4.3 and 4.12) answers correctly all the same.
	_ = unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	_ = unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	// Without CAP_NET_ADMIN the queue stays as it is; if it then overflows, ENOBUFS tells.
	_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	addr, err := unix.Getsockname(s.fd)
	if err != nil {
		return 0, 0, fmt.Errorf("getsockname: %w", err)
	}
	local, ok := addr.(*unix.SockaddrNetlink)
	if !ok {
		return 0, 0, fmt.Errorf("getsockname: not a netlink address: %T", addr)
	}
	sndbuf, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err != nil {
		return 0, 0, fmt.Errorf("SO_SNDBUF: %w", err)
	}
	const kernelOverhead = 32 // netlink_sendmsg: len > sk_sndbuf - 32 is EMSGSIZE
	return local.Pid, sndbuf - kernelOverhead, nil
}

// Send implements Socket.
func (s *kernelSocket) Send(datagram []byte) error {
	for {
		err := unix.Sendto(s.fd, datagram, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Receive looks before it polls: the kernel works on a datagram inside the
// send call, so that the answer is there already.
func (s *kernelSocket) Receive(buf []byte, wait time.Duration) (int, uint32, error) {
	for deadline := time.Now().Add(wait); ; {
		n, from, err := unix.Recvfrom(s.fd, buf, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		switch {
		case err == nil:
			sender, ok := from.(*unix.SockaddrNetlink)
			if !ok {
				return 0, 0, fmt.Errorf("receive: not a netlink address: %T", from)
			}
			return n, sender.Pid, nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EAGAIN):
			return 0, 0, err
		}
		left := time.Until(deadline)
		if left <= 0 {
			return 0, 0, ErrTimeout
		}
		fds := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}} // a file descriptor
		if _, err := unix.Poll(fds, int(left/time.Millisecond)+1); err != nil && !errors.Is(err, unix.EINTR) {
			return 0, 0, fmt.Errorf("poll: %w", err)
		}
	}
}

// Close implements Socket.
func (s *kernelSocket) Close() error { return unix.Close(s.fd) }

// waiter cuts a wait into slices so that a cancelled context ends it.
type waiter struct {
	ctx      context.Context // lives for one call
	deadline time.Time
}

func newWaiter(ctx context.Context, timeout time.Duration) waiter {
	deadline := time.Now().Add(timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	return waiter{ctx: ctx, deadline: deadline}
}

// receive is Socket.Receive until the deadline or the context's end.
func (w waiter) receive(s Socket, buf []byte) (int, uint32, error) {
	for {
		left := time.Until(w.deadline)
		n, from, err := s.Receive(buf, min(left, pollSlice))
		if !errors.Is(err, ErrTimeout) {
			return n, from, err
		}
		if cause := ended(w.ctx); cause != nil {
			return 0, 0, fmt.Errorf("%w: %w", ErrTimeout, cause)
		}
		if left <= 0 {
			return 0, 0, ErrTimeout
		}
	}
}

// ended tells why a context is at its end. A deadline ends it by the clock,
// not only once its timer has got round to it.
func ended(ctx context.Context) error {
	if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) {
		return context.DeadlineExceeded
	}
	return context.Cause(ctx)
}
