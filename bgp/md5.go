package bgp

import (
	"fmt"
	"net/netip"

	"sluice.dev/sluice/internal/model"
)

// maxPassword is the kernel's TCP_MD5SIG_MAXKEYLEN.
const maxPassword = 80

// checkPassword returns an error when the session's segments could not be
// signed as its password asks; try asks the kernel (trySigning). GoBGP finds that out only when it dials, and
// would dial a link-local address with no signature at all.
func checkPassword(s Session, try func(netip.Addr, model.Password) error) error {
	switch {
	case s.Password == "":
		return nil
	case len(s.Password) > maxPassword:
		return fmt.Errorf("the password has %d bytes, and the kernel takes %d: shorten it here and at the router", len(s.Password), maxPassword)
	case s.Peer.Addr().Zone() != "":
		return fmt.Errorf("a password needs a peerAddress that is not link-local (%s): give the router's global address", s.Peer.Addr())
	}
	return signing(try(s.Peer.Addr(), s.Password))
}

// signing says what the kernel's answer to trySigning means.
func signing(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("this node's kernel cannot sign TCP segments (%w), and there is no session without: "+
		"run a kernel with CONFIG_TCP_MD5SIG, or remove the password here and at the router", err)
}
