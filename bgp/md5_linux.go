package bgp

import (
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/model"
)

// trySigning asks the kernel, with a socket made for it, whether it can sign the
// segments to a peer (RFC 2385).
func trySigning(peer netip.Addr, password model.Password) error {
	family := unix.AF_INET
	if peer.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	sig := unix.TCPMD5Sig{Keylen: uint16(len(password))}
	sig.Addr.Family = uint16(family)
	if peer.Is4() {
		a := peer.As4()
		copy(sig.Addr.Data[2:], a[:]) // sockaddr_in: behind the port
	} else {
		a := peer.As16()
		copy(sig.Addr.Data[6:], a[:]) // sockaddr_in6: behind port and flow
	}
	copy(sig.Key[:], password)
	return os.NewSyscallError("setsockopt TCP_MD5SIG", unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, &sig))
}
