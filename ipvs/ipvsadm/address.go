package ipvsadm

import (
	"math"
	"net/netip"
	"strconv"
	"strings"
)

// address is "host[:port]" taken apart.
type address struct {
	host    netip.Addr
	port    uint16
	hasPort bool
}

// address reads a host and perhaps a port by ipvsadm's rules, which have their
// corners: an address in brackets needs a port, which is not looked at when it
// is an IPv4 address; an IPv6 address without brackets has none.
func (p *parsing) address(text string) (address, bool) {
	if strings.Trim(text, "0123456789") == "" {
		return address{}, false
	}
	host, port, bracketed := text, "", strings.HasPrefix(text, "[")
	if bracketed {
		inside, behind, closed := strings.Cut(text[1:], "]")
		if !closed || !strings.HasPrefix(behind, ":") {
			return address{}, false
		}
		host, port = inside, behind[1:]
	}
	if six, err := netip.ParseAddr(host); err == nil && six.Is6() && six.Zone() == "" {
		return p.withPort(address{host: six, hasPort: bracketed}, port)
	}
	i := strings.LastIndexByte(host, ':')
	if i >= 0 {
		host, port = host[:i], host[i+1:]
	}
	four, ok := p.host4(host)
	if !ok {
		return address{}, false
	}
	return p.withPort(address{host: four, hasPort: i >= 0}, port)
}

// withPort reads the port, a number or a name, if there is to be one.
func (p *parsing) withPort(a address, port string) (address, bool) {
	if !a.hasPort {
		return a, true
	}
	if n, ok := numberIn(port, 0, math.MaxUint16); ok {
		a.port = uint16(n)
		return a, true
	}
	n, known := p.resolver.Port(port, p.server.protocol)
	a.port = n
	return a, known
}

// host4 reads an IPv4 address or the name of one.
func (p *parsing) host4(text string) (netip.Addr, bool) {
	if a, ok := oldAddress(text); ok {
		return a, true
	}
	if text == "" {
		return netip.Addr{}, false
	}
	return p.resolver.Address(text)
}

// oldAddress reads an IPv4 address in any of the forms that C's inet_aton
// takes: one to four numbers, the last of which fills what the others leave,
// each decimal, octal (017) or hexadecimal (0x1F). Blanks end it.
func oldAddress(text string) (netip.Addr, bool) {
	if i := strings.IndexAny(text, " \t\n\v\f\r"); i >= 0 {
		text = text[:i]
	}
	parts := strings.Split(text, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var bits uint64
	for i, part := range parts {
		most, shift := uint64(math.MaxUint8), 8*(3-i)
		if i == len(parts)-1 {
			most, shift = math.MaxUint32>>(8*i), 0
		}
		n, ok := oldNumber(part)
		if !ok || n > most {
			return netip.Addr{}, false
		}
		bits |= n << shift
	}
	return netip.AddrFrom4([4]byte{byte(bits >> 24), byte(bits >> 16), byte(bits >> 8), byte(bits)}), true
}

// oldNumber reads a number of C, which unlike Go's has no "0b", "0o" and "_".
func oldNumber(text string) (uint64, bool) {
	base := 10
	switch {
	case strings.HasPrefix(text, "0x"), strings.HasPrefix(text, "0X"):
		text, base = text[2:], 16
	case len(text) > 1 && text[0] == '0':
		base = 8
	}
	n, err := strconv.ParseUint(text, base, 32)
	return n, err == nil
}
