package topo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Package net knows no SCTP, but a one-to-one SCTP socket behaves as a TCP one,
// and net takes any stream socket that is open already for TCP.

func listenSCTP(port uint16) (net.Listener, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return nil, fmt.Errorf("make SCTP socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "sctp")
	defer file.Close() // net duplicates it
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(fd, &unix.SockaddrInet6{Port: int(port)}),
		unix.Listen(fd, 128),
	)
	if err != nil {
		return nil, fmt.Errorf("listen on SCTP socket: %w", err)
	}
	return net.FileListener(file)
}

func dialSCTP(ctx context.Context, from, to netip.AddrPort) (net.Conn, error) {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return nil, fmt.Errorf("make SCTP socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "sctp")
	defer file.Close()
	if deadline, ok := ctx.Deadline(); ok {
		// A blocking connect(2) waits no longer than a blocking write may.
		wait := unix.NsecToTimeval(max(time.Until(deadline), time.Millisecond).Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait); err != nil {
			return nil, fmt.Errorf("limit SCTP connect: %w", err)
		}
	}
	if err := unix.Bind(fd, sockaddr(from)); err != nil {
		return nil, fmt.Errorf("bind SCTP socket: %w", err)
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil {
		return nil, fmt.Errorf("connect SCTP socket: %w", err)
	}
	return net.FileConn(file)
}

func sockaddr(ap netip.AddrPort) unix.Sockaddr {
	if ap.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}
}
