package ipvsadm

import (
	"math"
	"net/netip"
	"strconv"
	"strings"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/ipvs"
)

// The longest names the kernel takes; ipvsadm cuts what is longer.
const (
	longestScheduler = 15
	longestEngine    = 16
)

const (
	defaultPersistence = 360
	longestPersistence = 31 * 86400
	datagramMost       = 65535 - 20 - 8
)

func (p *parsing) service(g *given) error {
	p.server.protocol = map[string]model.Protocol{"tcp-service": model.TCP, "udp-service": model.UDP, "sctp-service": model.SCTP}[g.long]
	a, ok := p.address(g.value)
	if !ok {
		return fail("illegal virtual server address[:port] specified")
	}
	p.server.addr, p.server.family = a.host, model.FamilyOf(a.host)
	if a.hasPort {
		p.server.port = a.port
	}
	if p.server.family == model.IPv6 {
		p.server.spec.Netmask = ipvs.HostMask6
	}
	return nil
}

func (p *parsing) realServer(g *given) error {
	a, ok := p.address(g.value)
	if !ok {
		return fail("illegal real server address[:port] specified")
	}
	p.dest.addr, p.dest.family, p.dest.port = a.host, model.FamilyOf(a.host), p.server.port
	if a.hasPort {
		p.dest.port = a.port
	}
	return nil
}

// fwmark reads a mark, which is a family of its own until -6 says otherwise.
func (p *parsing) fwmark(g *given) error {
	n, ok := number(g.value)
	if !ok || n <= 0 || n > math.MaxUint32 {
		return fail("invalid fwmark value `%s' specified", g.value)
	}
	p.server.family, p.server.protocol, p.server.mark = model.IPv4, model.TCP, uint32(n)
	return nil
}

func (p *parsing) ipv6(*given) error {
	if p.server.mark == 0 {
		return fail("-6 used before -f\n")
	}
	p.server.family, p.server.spec.Netmask = model.IPv6, ipvs.HostMask6
	return nil
}

func (p *parsing) scheduler(g *given) error {
	p.server.spec.Scheduler = g.value[:min(len(g.value), longestScheduler)]
	return nil
}

func (p *parsing) persistent(g *given) error {
	p.server.spec.Flags |= ipvs.Persistent
	if !g.hasValue {
		p.server.spec.Timeout = defaultPersistence
		return nil
	}
	n, ok := numberIn(g.value, 1, longestPersistence)
	if !ok {
		return fail("invalid timeout value `%s' specified", g.value)
	}
	p.server.spec.Timeout = uint32(n)
	return nil
}

// netmask reads the mask of persistence: of IPv6 a length, of IPv4, and of what
// may still become either, an address.
func (p *parsing) netmask(g *given) error {
	if p.server.family == model.IPv6 {
		n, _ := leadingNumber(g.value)
		if n < 1 || n > 128 {
			return fail("illegal ipv6 netmask specified")
		}
		p.server.spec.Netmask = uint32(n)
		return nil
	}
	mask, ok := p.host4(g.value)
	if !ok {
		return fail("illegal virtual server persistent mask specified")
	}
	b := mask.As4()
	p.server.spec.Netmask = uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	return nil
}

func (p *parsing) engine(g *given) error {
	p.server.spec.PEName = g.value[:min(len(g.value), longestEngine)]
	return nil
}

func (p *parsing) ops(*given) error {
	p.server.spec.Flags |= ipvs.OnePacket
	return nil
}

// schedFlags keeps the flags for the end: which names they may have depends on
// the scheduler.
func (p *parsing) schedFlags(g *given) error {
	p.schedFlagNames = g.value
	return nil
}

func (p *parsing) applySchedFlags() error {
	if p.schedFlagNames == "" {
		return nil
	}
	spec := &p.server.spec
	flags := map[string]ipvs.Flags{
		"flag-1": ipvs.Sched1, "flag-2": ipvs.Sched2, "flag-3": ipvs.Sched3,
		"sh-fallback": ipvs.SHFallback, "sh-port": ipvs.SHPort, "mh-fallback": ipvs.MHFallback, "mh-port": ipvs.MHPort,
	}
	for name := range strings.FieldsFuncSeq(p.schedFlagNames, func(r rune) bool { return r == ',' }) {
		flag, known := flags[name]
		if !known {
			return fail("invalid scheduler flag `%s'", name)
		}
		if of, _, _ := strings.Cut(name, "-"); of != "flag" && of != spec.Scheduler {
			return fail("incompatible scheduler flag `%s'", name)
		}
		spec.Flags |= flag
	}
	return nil
}

func (p *parsing) forward(g *given) error {
	p.dest.spec.Forward = map[string]ipvs.Forward{
		"masquerading": ipvs.Masquerade, "ipip": ipvs.ForwardTunnel, "gatewaying": ipvs.ForwardRoute,
	}[g.long]
	return nil
}

// counts reads a number that is not negative into a destination's setting.
func counts(g *given, to *uint32, name string) error {
	n, ok := numberIn(g.value, 0, math.MaxInt32)
	if !ok {
		return fail("illegal %s specified", name)
	}
	*to = uint32(n)
	return nil
}

func (p *parsing) weight(g *given) error { return counts(g, &p.dest.spec.Weight, "weight") }

func (p *parsing) upperThreshold(g *given) error {
	return counts(g, &p.dest.spec.UpperThreshold, "u_threshold")
}

func (p *parsing) lowerThreshold(g *given) error {
	return counts(g, &p.dest.spec.LowerThreshold, "l_threshold")
}

func tunnelNames() []string { return []string{ipvs.IPIP: "ipip", ipvs.GUE: "gue", ipvs.GRE: "gre"} }

func (p *parsing) tunType(g *given) error {
	for kind, name := range tunnelNames() {
		if name == g.value {
			p.dest.spec.Tunnel.Type = ipvs.TunnelType(kind) // three of them
			return nil
		}
	}
	return fail("illegal tunnel type specified")
}

func (p *parsing) tunPort(g *given) error {
	n, ok := numberIn(g.value, 1, math.MaxUint16)
	if !ok {
		return fail("illegal tunnel port specified")
	}
	p.dest.spec.Tunnel.Port = uint16(n)
	return nil
}

func (p *parsing) tunFlags(g *given) error {
	p.dest.spec.Tunnel.Flags |= map[string]ipvs.TunnelFlags{"tun-csum": ipvs.Checksum, "tun-remcsum": ipvs.RemoteChecksum}[g.long]
	return nil
}

// The values of the sync daemons' options are only looked at.

func within(g *given, least, most int64) error {
	if _, ok := numberIn(g.value, least, most); !ok {
		return fail("illegal %s specified", g.long)
	}
	return nil
}

func (p *parsing) syncID(g *given) error     { return within(g, 0, 255) }
func (p *parsing) mcastPort(g *given) error  { return within(g, 1, math.MaxUint16) }
func (p *parsing) mcastTTL(g *given) error   { return within(g, 1, 255) }
func (p *parsing) syncMaxlen(g *given) error { return within(g, 1, datagramMost) }

func (p *parsing) mcastGroup(g *given) error {
	family := model.IPv4
	if strings.Contains(g.value, ":") {
		family = model.IPv6
	}
	group, err := netip.ParseAddr(g.value)
	if err != nil || group.Zone() != "" || model.FamilyOf(group) != family || !group.IsMulticast() {
		return fail("invalid %s mcast-group `%s'", family, g.value)
	}
	return nil
}

// number is the whole of a text as a decimal number, as C's strtol reads it:
// blanks and a sign may stand before it.
func number(text string) (int64, bool) {
	n, rest := leadingNumber(text)
	return n, rest == "" && text != ""
}

func numberIn(text string, least, most int64) (int64, bool) {
	n, ok := number(text)
	return n, ok && n >= least && n <= most
}

// leadingNumber reads a number at a text's beginning and returns what is
// behind it; the whole text if there is none, or one too large.
func leadingNumber(text string) (n int64, rest string) {
	s := strings.TrimLeft(text, " \t\n\v\f\r")
	digits := strings.TrimLeft(strings.TrimPrefix(strings.TrimPrefix(s, "+"), "-"), "0123456789")
	if strings.HasPrefix(s, "+-") {
		return 0, text
	}
	n, err := strconv.ParseInt(s[:len(s)-len(digits)], 10, 64)
	if err != nil {
		return 0, text
	}
	return n, digits
}
