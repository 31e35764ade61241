package life

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// packet is what is followed: the first packet of a connection, or the first that
// comes back for it.
type packet struct {
	Src, Dst netip.AddrPort
	Kind     kind
	Seq      uint32 // of the connection's first packet, whichever this is
}

type kind string

const (
	request kind = "request" // SYN
	accept  kind = "answer"  // SYN and ACK
	reset   kind = "reset"   // RST
	refusal kind = "ICMP"    // an ICMP error about it
)

// Of TCP's flags.
const (
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
)

// dissect reads an IPv4 packet; ok is false for what is not followed.
func dissect(b []byte) (p packet, ok bool) {
	protocol, src, dst, rest, ok := ipv4(b)
	switch {
	case !ok:
		return p, false
	case protocol == 1 && len(rest) >= 8 && rest[0] == 3:
		protocol, _, _, inner, ok := ipv4(rest[8:])
		if !ok || protocol != 6 || len(inner) < 8 {
			return p, false
		}
		return packet{
			Src: netip.AddrPortFrom(src, 0), Dst: netip.AddrPortFrom(dst, binary.BigEndian.Uint16(inner)),
			Kind: refusal, Seq: binary.BigEndian.Uint32(inner[4:]),
		}, true
	case protocol != 6 || len(rest) < 20:
		return p, false
	}
	p.Src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(rest))
	p.Dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(rest[2:]))
	seq, ack := binary.BigEndian.Uint32(rest[4:]), binary.BigEndian.Uint32(rest[8:])
	switch flags := rest[13]; {
	case flags&flagRST != 0:
		p.Kind, p.Seq = reset, ack-1
	case flags&flagSYN == 0:
		return p, false
	case flags&flagACK != 0:
		p.Kind, p.Seq = accept, ack-1
	default:
		p.Kind, p.Seq = request, seq
	}
	return p, true
}

func ipv4(b []byte) (protocol byte, src, dst netip.Addr, rest []byte, ok bool) {
	if len(b) < 20 || b[0]>>4 != 4 || len(b) < int(b[0]&0xf)*4 {
		return 0, src, dst, nil, false
	}
	src, dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	return b[9], src, dst, b[int(b[0]&0xf)*4:], true
}

// sighting is a packet on an interface of a host.
type sighting struct {
	At     time.Time
	Host   string
	Device string
	Out    bool
	packet
	index int // of the interface
}

// hop is a packet on its way from one host to the next; To is "" when nobody took
// it.
type hop struct {
	From, To string
	packet
}

// trip is the way of a connection's first packet, and the way back of what came
// for it.
type trip struct {
	There, Back []hop
}

// bgpPort is what agents and the router talk over at any time.
const bgpPort = 179

// follow finds the way of the first connection that a host begins.
func follow(from string, seen []sighting) (trip, error) {
	first := slices.IndexFunc(seen, func(s sighting) bool {
		return s.Host == from && s.Out && s.Kind == request && s.Dst.Port() != bgpPort
	})
	if first < 0 {
		return trip{}, errors.New("no connection left this host")
	}
	var mine []sighting
	for _, s := range seen[first:] {
		again := func(m sighting) bool {
			return m.Host == s.Host && m.Device == s.Device && m.Out == s.Out && m.packet == s.packet
		}
		if s.Seq == seen[first].Seq && !slices.ContainsFunc(mine, again) {
			mine = append(mine, s)
		}
	}
	var t trip
	taken := map[int]bool{}
	for i, s := range mine {
		if !s.Out {
			continue
		}
		h := hop{From: s.Host, packet: s.packet}
		for j := i + 1; j < len(mine); j++ {
			if in := mine[j]; !in.Out && !taken[j] && in.packet == s.packet && in.Host != s.Host {
				h.To, taken[j] = in.Host, true
				break
			}
		}
		if s.Kind == request {
			t.There = append(t.There, h)
		} else {
			t.Back = append(t.Back, h)
		}
	}
	return t, nil
}

// passes reports whether a host was on the way there, or is its end.
func (t trip) passes(host string) bool {
	return slices.ContainsFunc(t.There, func(h hop) bool { return h.To == host })
}

// end is the host that the packet came to.
func (t trip) end() string {
	for _, h := range slices.Backward(t.There) {
		if h.To != "" {
			return h.To
		}
	}
	return ""
}

// where is an address, with its port if that is one that the packet was sent to
// anywhere on its way: other ports are somebody's choice of the moment.
func (t trip) where(a netip.AddrPort) string {
	if slices.ContainsFunc(t.There, func(h hop) bool { return h.Dst.Port() == a.Port() }) {
		return a.String()
	}
	return a.Addr().String()
}

// rewritten says what a host does to a packet between one hop and the next; "":
// nothing.
func rewritten(in, out hop) string {
	switch src, dst := in.Src != out.Src, in.Dst != out.Dst; {
	case src && dst:
		return "source and destination"
	case src:
		return "source"
	case dst:
		return "destination"
	}
	return ""
}

// String is the trip as a table.
func (t trip) String() string {
	var b strings.Builder
	leg := func(hops []hop) {
		for i, h := range hops {
			if i > 0 {
				if what := rewritten(hops[i-1], h); what != "" {
					fmt.Fprintf(&b, "%-9s rewrites the %s\n", h.From, what)
				}
			}
			to := h.To
			if to == "" {
				to = "nobody"
			}
			note := ""
			if h.Kind != request && h.Kind != accept {
				note = "   " + string(h.Kind)
			}
			fmt.Fprintf(&b, "%-9s -> %-9s %s -> %s%s\n", h.From, to, t.where(h.Src), t.where(h.Dst), note)
		}
	}
	leg(t.There)
	switch end := t.end(); {
	case len(t.Back) == 0:
		fmt.Fprintf(&b, "%-9s drops it: no answer\n", end)
	case t.Back[0].Kind != accept:
		fmt.Fprintf(&b, "%-9s refuses it\n", t.Back[0].From)
	default:
		fmt.Fprintf(&b, "%-9s answers\n", end)
	}
	leg(t.Back)
	return b.String()
}

func at(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }

// nodePort is a trip as the lab sees it: by way of a node without an endpoint, the
// first packet sent twice.
func nodePort() []sighting {
	const seq = 77
	there := packet{at("192.168.20.2:40000"), at("192.168.10.11:30080"), request, seq}
	masked := packet{at("192.168.10.11:40000"), at("10.244.2.2:8080"), request, seq}
	unmasked := packet{masked.Dst, masked.Src, accept, seq}
	back := packet{there.Dst, there.Src, accept, seq}
	other := packet{at("192.168.20.2:40002"), at("192.168.10.11:30080"), request, 78}
	return []sighting{
		{Host: "client", Device: "eth0", Out: true, packet: packet{at("192.168.20.2:40001"), at("192.168.10.1:179"), request, 5}},
		{Host: "client", Device: "eth0", Out: true, packet: there},
		{Host: "node1", Device: "eth0", packet: there},
		{Host: "node1", Device: "eth0", packet: other},
		{Host: "node1", Device: "eth0", Out: true, packet: masked},
		{Host: "web-2", Device: "eth0", packet: masked},
		{Host: "client", Device: "eth0", Out: true, packet: there},
		{Host: "node1", Device: "eth0", packet: there},
		{Host: "web-2", Device: "eth0", Out: true, packet: unmasked},
		{Host: "node1", Device: "eth0", packet: unmasked},
		{Host: "node1", Device: "eth0", Out: true, packet: back},
		{Host: "client", Device: "eth0", packet: back},
	}
}

func TestFollow(t *testing.T) {
	trip, err := follow("client", nodePort())
	if err != nil {
		t.Fatal(err)
	}
	const want = `client    -> node1     192.168.20.2 -> 192.168.10.11:30080
node1     rewrites the source and destination
node1     -> web-2     192.168.10.11 -> 10.244.2.2:8080
web-2     answers
web-2     -> node1     10.244.2.2:8080 -> 192.168.10.11
node1     rewrites the source and destination
node1     -> client    192.168.10.11:30080 -> 192.168.20.2
`
	if got := trip.String(); got != want {
		t.Errorf("\n%swant\n%s", got, want)
	}
	if !trip.passes("node1") || trip.passes("node2") || trip.end() != "web-2" {
		t.Errorf("%+v", trip)
	}
	if _, err := follow("shell", nodePort()); err == nil {
		t.Error("a host that sent nothing has a trip")
	}
}

func TestFollowWhatEnds(t *testing.T) {
	syn := packet{at("10.244.3.2:40000"), at("10.96.0.80:81"), request, 9}
	rst := packet{syn.Dst, syn.Src, reset, 9}
	for name, c := range map[string]struct {
		seen []sighting
		want string
	}{
		"refused": {
			[]sighting{{Host: "shell", Out: true, packet: syn}, {Host: "node3", packet: syn}, {Host: "node3", Out: true, packet: rst}, {Host: "shell", packet: rst}},
			"shell     -> node3     10.244.3.2 -> 10.96.0.80:81\nnode3     refuses it\nnode3     -> shell     10.96.0.80:81 -> 10.244.3.2   reset\n",
		},
		"dropped": {
			[]sighting{{Host: "shell", Out: true, packet: syn}, {Host: "node3", packet: syn}},
			"shell     -> node3     10.244.3.2 -> 10.96.0.80:81\nnode3     drops it: no answer\n",
		},
	} {
		trip, err := follow("shell", c.seen)
		if got := trip.String(); err != nil || got != c.want {
			t.Errorf("%s: %v\n%swant\n%s", name, err, got, c.want)
		}
	}
}

// tcp is an IPv4 packet with a segment of TCP without data.
func tcp(src, dst netip.AddrPort, flags byte, seq, ack uint32) []byte {
	b := make([]byte, 40)
	b[0], b[9] = 0x45, 6
	copy(b[12:], src.Addr().AsSlice())
	copy(b[16:], dst.Addr().AsSlice())
	binary.BigEndian.PutUint16(b[20:], src.Port())
	binary.BigEndian.PutUint16(b[22:], dst.Port())
	binary.BigEndian.PutUint32(b[24:], seq)
	binary.BigEndian.PutUint32(b[28:], ack)
	b[33] = flags
	return b
}

func TestDissect(t *testing.T) {
	a, b := at("192.0.2.1:40000"), at("198.51.100.1:80")
	icmp := append([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 198, 51, 100, 9, 192, 0, 2, 1, 3, 3, 0, 0, 0, 0, 0, 0}, tcp(a, b, flagSYN, 7, 0)[:28]...)
	for name, c := range map[string]struct {
		bytes []byte
		want  packet
		ok    bool
	}{
		"the first":        {tcp(a, b, flagSYN, 7, 0), packet{a, b, request, 7}, true},
		"its answer":       {tcp(b, a, flagSYN|flagACK, 99, 8), packet{b, a, accept, 7}, true},
		"a reset":          {tcp(b, a, flagRST|flagACK, 0, 8), packet{b, a, reset, 7}, true},
		"data":             {tcp(a, b, flagACK, 8, 100), packet{}, false},
		"an ICMP error":    {icmp, packet{at("198.51.100.9:0"), a, refusal, 7}, true},
		"half a segment":   {tcp(a, b, flagSYN, 7, 0)[:30], packet{}, false},
		"no packet at all": {nil, packet{}, false},
	} {
		got, ok := dissect(c.bytes)
		if ok != c.ok || (ok && got != c.want) {
			t.Errorf("%s: %+v %t", name, got, ok)
		}
	}
}
