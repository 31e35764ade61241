package nflog

import (
	"encoding/binary"
	"net/netip"

	"sluice.dev/sluice/internal/model"
)

// Packet is what a packet's headers say.
type Packet struct {
	// Src and Dst have port 0 where there are no ports: other protocols than
	// TCP, UDP and SCTP, every fragment but the first, and what is cut short.
	Src, Dst netip.AddrPort
	// Protocol is the transport's, behind all of IPv6's extension headers that
	// could be read.
	Protocol model.Protocol
}

// What the model does not name, as it serves no Service.
const (
	ICMP   model.Protocol = 1
	ICMPv6 model.Protocol = 58
)

// ParsePacket reads the headers of an IP packet, of which b may be no more than
// the beginning. It reports false when that has not even both addresses.
func ParsePacket(b []byte) (Packet, bool) {
	if len(b) == 0 {
		return Packet{}, false
	}
	switch b[0] >> 4 {
	case 4:
		return parse4(b)
	case 6:
		return parse6(b)
	}
	return Packet{}, false
}

// Of IPv4's header.
const (
	header4     = 20 // without options
	offsetBits4 = 1<<13 - 1
)

func parse4(b []byte) (Packet, bool) {
	length := int(b[0]&0xf) * 4
	if len(b) < header4 || length < header4 {
		return Packet{}, false
	}
	p := packet(netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[9])
	if binary.BigEndian.Uint16(b[6:])&offsetBits4 == 0 {
		p.ports(after(b, length))
	}
	return p, true
}

// Of IPv6's header.
const (
	header6     = 40
	offsetBits6 = 0xfff8
)

func parse6(b []byte) (Packet, bool) {
	if len(b) < header6 {
		return Packet{}, false
	}
	transport, rest := skipExtensions(b[6], b[header6:])
	p := packet(netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), transport)
	p.ports(rest)
	return p, true
}

// The extension headers of IPv6 that others stand behind.
const (
	hopByHop           = 0
	routing            = 43
	fragment           = 44
	authentication     = 51
	destinationOptions = 60
	mobility           = 135
	hostIdentity       = 139
	shim6              = 140
)

// skipExtensions finds the transport's protocol and header, none of it when it is
// not there: behind a fragment that is not the first, or a header cut short.
func skipExtensions(next uint8, b []byte) (transport uint8, rest []byte) {
	for {
		length := 0
		switch next {
		case hopByHop, routing, destinationOptions, mobility, hostIdentity, shim6:
			length = 8
			if len(b) > 1 {
				length += int(b[1]) * 8
			}
		case fragment:
			length = 8
			if len(b) >= 4 && binary.BigEndian.Uint16(b[2:])&offsetBits6 != 0 {
				return b[0], nil
			}
		case authentication:
			length = 8
			if len(b) > 1 {
				length += int(b[1]) * 4
			}
		default:
			return next, b
		}
		if len(b) < length {
			return next, nil
		}
		next, b = b[0], b[length:]
	}
}

func packet(src, dst netip.Addr, transport uint8) Packet {
	return Packet{netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0), model.Protocol(transport)}
}

// ports reads those that begin a transport's header.
func (p *Packet) ports(b []byte) {
	switch p.Protocol {
	case model.TCP, model.UDP, model.SCTP:
		if len(b) >= 4 {
			p.Src = netip.AddrPortFrom(p.Src.Addr(), binary.BigEndian.Uint16(b))
			p.Dst = netip.AddrPortFrom(p.Dst.Addr(), binary.BigEndian.Uint16(b[2:]))
		}
	}
}

// after is what stands behind n bytes.
func after(b []byte, n int) []byte { return b[min(n, len(b)):] }
