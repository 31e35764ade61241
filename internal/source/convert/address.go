package convert

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	utilnet "k8s.io/utils/net"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/internal/model"
)

var (
	errNotAddress = errors.New("is not an IP address")
	errNotPrefix  = errors.New("is not a CIDR")
	errZone       = errors.New("has a zone")
	errNotUnicast = errors.New("is not a unicast address of a host")
	errLoopback   = errors.New("is a loopback address")
	errLinkLocal  = errors.New("is a link-local address")
)

// broadcast is the one IPv4 address that netip has no predicate for.
func broadcast(a netip.Addr) bool { return a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) }

// parseAddr reads an address as the API server does: 4-in-6 forms are the IPv4
// address, and leading zeros, which old objects may hold, are decimal.
func parseAddr(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		ip, ok := netip.AddrFromSlice(utilnet.ParseIPSloppy(text))
		if !ok {
			return netip.Addr{}, errNotAddress
		}
		a = ip
	}
	if a.Zone() != "" {
		return netip.Addr{}, errZone
	}
	return a.Unmap(), nil
}

// parseVIP reads an address that the node is to answer on. Link-local ones are
// accepted: some clouds give them out.
func parseVIP(text string) (netip.Addr, error) {
	a, err := parseAddr(text)
	switch {
	case err != nil:
		return netip.Addr{}, err
	case a.IsUnspecified(), a.IsMulticast(), broadcast(a):
		return netip.Addr{}, errNotUnicast
	case a.IsLoopback():
		return netip.Addr{}, errLoopback
	}
	return a, nil
}

// parseUnicast reads an address that others chose freely: an endpoint's or an
// external IP. The API server's own rules, which keep such an address from
// reaching into the node itself.
func parseUnicast(text string) (netip.Addr, error) {
	a, err := parseVIP(text)
	if err == nil && a.IsLinkLocalUnicast() {
		return netip.Addr{}, errLinkLocal
	}
	return a, err
}

// parsePrefix reads a CIDR; host bits are cleared, surrounding space ignored.
func parsePrefix(text string) (netip.Prefix, error) {
	text = strings.TrimSpace(text)
	p, err := netip.ParsePrefix(text)
	if err != nil {
		_, n, err := utilnet.ParseCIDRSloppy(text)
		if err != nil {
			return netip.Prefix{}, errNotPrefix
		}
		a, _ := netip.AddrFromSlice(n.IP)
		ones, _ := n.Mask.Size()
		return netip.PrefixFrom(a, ones).Masked(), nil
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// addresses reads a list of addresses, each once.
func addresses(texts []string, field string, parse func(string) (netip.Addr, error), r *report) []netip.Addr {
	var found distinct[netip.Addr]
	for i, text := range texts {
		a, err := parse(text)
		if err != nil {
			r.add(InvalidAddress, fmt.Sprintf("%s[%d]", field, i), text, err.Error(), remedyAddress)
			continue
		}
		found.add(a)
	}
	return found.list
}

// prefixes reads a list of CIDRs, each once.
func prefixes(texts []string, field, reason string, r *report) []netip.Prefix {
	var found distinct[netip.Prefix]
	for i, text := range texts {
		p, err := parsePrefix(text)
		if err != nil {
			r.add(reason, fmt.Sprintf("%s[%d]", field, i), text, err.Error(), remedyPrefix)
			continue
		}
		found.add(p)
	}
	return found.list
}

// protocol reads a protocol; "" is TCP, as the API defaults it.
func protocol(p corev1.Protocol) (model.Protocol, bool) {
	switch p {
	case "", corev1.ProtocolTCP:
		return model.TCP, true
	case corev1.ProtocolUDP:
		return model.UDP, true
	case corev1.ProtocolSCTP:
		return model.SCTP, true
	}
	return 0, false
}

// port checks a port number.
func port(n int32) (uint16, bool) { return uint16(n), n > 0 && n <= 65535 }
