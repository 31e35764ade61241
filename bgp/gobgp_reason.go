package bgp

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	packet "github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// What follows says why a session is not up, to somebody who has the BGPPeer
// before him, and what to do.

// dialFailed is what an error of connecting means.
func (s Session) dialFailed(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("connection refused: nothing listens on %s, or not for this node", s.Peer)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return fmt.Sprintf("no route to %s", s.Peer.Addr())
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Sprintf("this node has no address %s: correct spec.sourceAddress", s.Source)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		if s.Password != "" {
			return fmt.Sprintf("no answer from %s: the password may be wrong, or the router have none for this node%s", s.Peer, s.farther())
		}
		return fmt.Sprintf("no answer from %s (timed out): it may be down, or want a password%s", s.Peer, s.farther())
	}
	return fmt.Sprintf("cannot connect to %s: %v", s.Peer, err)
}

// farther adds that the router may be too far away for the TTL.
func (s Session) farther() string {
	switch {
	case s.TTLSecurity:
		return ", or lack TTL security"
	case s.external() && s.Hops <= 1:
		return ", or be more than one hop away (then set spec.ebgpMultiHop)"
	}
	return ""
}

// silent is the hold time being over.
func (s Session) silent() string {
	return fmt.Sprintf("nothing heard from the router for its hold time (at most %v)", s.Hold)
}

// refused is a notification that we sent, to what the router said.
func (s Session) refused(e *packet.MessageError) string {
	if e.TypeCode == packet.BGP_ERROR_OPEN_MESSAGE_ERROR {
		switch e.SubTypeCode {
		case packet.BGP_ERROR_SUB_BAD_PEER_AS:
			var want, got uint32 // GoBGP has them in the text only
			if _, err := fmt.Sscanf(e.Message, "as number mismatch expected %d, received %d", &want, &got); err == nil {
				return fmt.Sprintf("the router says its ASN is %d, not %d: correct spec.peerASN", got, want)
			}
		case packet.BGP_ERROR_SUB_BAD_BGP_IDENTIFIER:
			return fmt.Sprintf("the router has this node's router ID (%s), or none: each has to have its own", s.RouterID)
		}
	}
	return "we refused what the router sent: " + notification(e.TypeCode, e.SubTypeCode) + ": " + e.Message
}

// notified is a notification from the router. said is what its operator gave as
// the reason.
func (s Session) notified(code, sub uint8, said string) string {
	if said != "" {
		said = fmt.Sprintf(", saying %q", said)
	}
	switch {
	case code == packet.BGP_ERROR_HOLD_TIMER_EXPIRED:
		return "the router heard nothing from this node for its hold time: the node was stuck, or the way to the router broken"
	case code == packet.BGP_ERROR_OPEN_MESSAGE_ERROR && sub == packet.BGP_ERROR_SUB_BAD_PEER_AS:
		return fmt.Sprintf("the router does not know this node as ASN %d: correct spec.myASN, or the router's neighbor", s.MyASN)
	case code == packet.BGP_ERROR_OPEN_MESSAGE_ERROR && sub == packet.BGP_ERROR_SUB_UNACCEPTABLE_HOLD_TIME:
		return fmt.Sprintf("the router refuses the hold time %v: raise spec.holdTime", s.Hold)
	case code == packet.BGP_ERROR_CEASE && sub == packet.BGP_ERROR_SUB_ADMINISTRATIVE_SHUTDOWN:
		return "the router's operator shut the session down" + said
	case code == packet.BGP_ERROR_CEASE && sub == packet.BGP_ERROR_SUB_ADMINISTRATIVE_RESET:
		return "the router's operator reset the session" + said
	case code == packet.BGP_ERROR_CEASE && sub == packet.BGP_ERROR_SUB_PEER_DECONFIGURED:
		return "the router has this node as a neighbor no more"
	case code == packet.BGP_ERROR_CEASE && sub == packet.BGP_ERROR_SUB_MAXIMUM_NUMBER_OF_PREFIXES_REACHED:
		return "the router takes no more routes of this node: raise its maximum-prefix, or aggregate"
	}
	return "the router ended the session: " + notification(code, sub) + said
}

// mute is a router that takes the connection and does not speak.
func (s Session) mute() string {
	return fmt.Sprintf("%s takes the connection but has not said a word for %v: is it a BGP router?", s.Peer, s.Hold)
}

// undone is a session that ended before it was established, nobody said why:
// GoBGP keeps a notification to itself that comes at that time.
func (s Session) undone() string {
	return fmt.Sprintf("the router ended the session before it was up: it may know this node under another ASN than spec.myASN (%d), "+
		"from another address, or not at all; its log tells", s.MyASN)
}

// notification is one's name, "cease/connection rejected".
func notification(code, sub uint8) string {
	return fmt.Sprintf("notification %s", packet.NewNotificationErrorCode(code, sub))
}
