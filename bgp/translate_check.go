package bgp

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Bounds of what an OPEN can say.
const (
	minHold    = 3 * time.Second // RFC 4271 4.2; 0 (never) is refused too: only the hold time notices a dead router
	maxHold    = 65535 * time.Second
	maxRestart = 4095 * time.Second // 12 bits, RFC 4724 3
)

// Check returns what is wrong with a session, in the words of a BGPPeer.
func (s Session) Check() error {
	switch {
	case !s.Peer.IsValid() || s.Peer.Port() == 0 || s.Peer.Addr().Is4In6():
		return fmt.Errorf("peerAddress %s is no address and port", s.Peer)
	case s.ASN == 0 || s.MyASN == 0:
		return fmt.Errorf("peerASN %d and myASN %d: 0 is no ASN", s.ASN, s.MyASN)
	case !s.RouterID.Is4() || s.RouterID.IsUnspecified():
		return fmt.Errorf("router ID %s is not of the form of an IPv4 address", s.RouterID)
	case !s.IPv4 && !s.IPv6:
		return errors.New("families: none")
	case s.TTLSecurity && s.Hops != 0:
		return errors.New("ebgpMultiHop and ttlSecurity exclude each other")
	case s.Source.IsValid() && s.Source.Is4() != s.Peer.Addr().Is4():
		return fmt.Errorf("sourceAddress %s is not of the family of peerAddress %s", s.Source, s.Peer.Addr())
	}
	return errors.Join(within("holdTime", s.Hold, minHold, maxHold), within("restartTime", s.Restart, 0, maxRestart))
}

func within(field string, d, low, high time.Duration) error {
	if d < low || d > high {
		return fmt.Errorf("%s %v is not between %v and %v", field, d, low, high)
	}
	return nil
}

// Check returns what keeps a route from being told over a session with a peer;
// an invalid peer stands for any.
func (r Route) Check(prefix netip.Prefix, peer netip.Addr) error {
	switch {
	case prefix != prefix.Masked() || !prefix.IsValid() || prefix.Addr().Is4In6():
		return fmt.Errorf("%s is no prefix: %s may be meant", prefix, prefix.Masked())
	case !r.NextHop.IsValid() && prefix.Addr().Is6() && peer.Is4():
		return fmt.Errorf("no IPv6 next hop, and the session with %s is IPv4: give the node an IPv6 address", peer)
	case prefix.Addr().Is6() && r.NextHop.Is4():
		return fmt.Errorf("next hop %s of an IPv6 route is IPv4", r.NextHop)
	}
	for text := range strings.FieldsSeq(r.Communities) {
		if _, err := numbers(text, 2, 16); err != nil {
			return err
		}
	}
	for text := range strings.FieldsSeq(r.LargeCommunities) {
		if _, err := numbers(text, 3, 32); err != nil {
			return err
		}
	}
	return nil
}

// numbers are a community's, of which there are count with so many bits.
func numbers(text string, count, bits int) ([]uint32, error) {
	parts := strings.Split(text, ":")
	if len(parts) != count {
		return nil, fmt.Errorf("community %q has not %d parts", text, count)
	}
	out := make([]uint32, count)
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, bits)
		if err != nil {
			return nil, fmt.Errorf("community %q: %q is no number of %d bits", text, p, bits)
		}
		out[i] = uint32(n)
	}
	return out, nil
}
