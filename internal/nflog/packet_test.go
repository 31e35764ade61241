package nflog_test

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/nflog"
)

// IPv4 from 10.1.0.1 to 10.1.1.1 and IPv6 from fd00::1 to fd00::2, up to the
// place of the transport's protocol and from there on.
const (
	four6to9 = "4500 0054 0001 " // version, length, id
	ends4    = "0000 0a010001 0a010101"
	ends6    = "fd000000000000000000000000000001 fd000000000000000000000000000002"
	ports    = "9c40 1f90 " // 40000 to 8080
)

// ip4 is an IPv4 header with a fragment's flags and offset, and what follows.
func ip4(fragment, protocol, rest string) string {
	return four6to9 + fragment + "40" + protocol + ends4 + rest
}

func ip6(next, rest string) string { return "60000000 0014" + next + "40" + ends6 + rest }

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestParsePacket(t *testing.T) {
	four := func(p model.Protocol, src, dst uint16) nflog.Packet {
		return nflog.Packet{Protocol: p,
			Src: netip.AddrPortFrom(netip.MustParseAddr("10.1.0.1"), src), Dst: netip.AddrPortFrom(netip.MustParseAddr("10.1.1.1"), dst)}
	}
	six := func(p model.Protocol, src, dst uint16) nflog.Packet {
		return nflog.Packet{Protocol: p,
			Src: netip.AddrPortFrom(netip.MustParseAddr("fd00::1"), src), Dst: netip.AddrPortFrom(netip.MustParseAddr("fd00::2"), dst)}
	}
	for name, c := range map[string]struct {
		packet string
		want   nflog.Packet
	}{
		"TCP":                        {ip4("0000", "06", ports+"00000001"), four(model.TCP, 40000, 8080)},
		"UDP, never a fragment":      {ip4("4000", "11", ports), four(model.UDP, 40000, 8080)},
		"SCTP":                       {ip4("0000", "84", ports), four(model.SCTP, 40000, 8080)},
		"ICMP":                       {ip4("0000", "01", "0800 0000"), four(nflog.ICMP, 0, 0)},
		"another protocol":           {ip4("0000", "2f", ports), four(47, 0, 0)},
		"options":                    {strings.Replace(ip4("0000", "06", "01010101 "+ports), "45", "46", 1), four(model.TCP, 40000, 8080)},
		"a first fragment":           {ip4("2000", "11", ports), four(model.UDP, 40000, 8080)},
		"a later fragment":           {ip4("2001", "11", ports), four(model.UDP, 0, 0)},
		"the last fragment":          {ip4("1fff", "11", ports), four(model.UDP, 0, 0)},
		"one port":                   {ip4("0000", "06", "9c40"), four(model.TCP, 0, 0)},
		"no port":                    {ip4("0000", "06", ""), four(model.TCP, 0, 0)},
		"options that are not there": {strings.Replace(ip4("0000", "06", ports), "45", "4f", 1), four(model.TCP, 0, 0)},

		"TCP over IPv6":          {ip6("06", ports), six(model.TCP, 40000, 8080)},
		"ICMPv6":                 {ip6("3a", "8000 0000"), six(nflog.ICMPv6, 0, 0)},
		"hop by hop":             {ip6("00", "1100 050200000100 "+ports), six(model.UDP, 40000, 8080)},
		"a long one":             {ip6("3c", "0601 000000000000 0000000000000000 "+ports), six(model.TCP, 40000, 8080)},
		"three":                  {ip6("00", "2b00 000000000000 3c00 000000000000 8400 000000000000 "+ports), six(model.SCTP, 40000, 8080)},
		"authenticated":          {ip6("33", "0604 0000 00000001 00000002 000000000000000000000000 "+ports), six(model.TCP, 40000, 8080)},
		"encrypted":              {ip6("32", ports+"00000000"), six(50, 0, 0)},
		"nothing next":           {ip6("3b", ports), six(59, 0, 0)},
		"a first fragment, six":  {ip6("2c", "1100 0001 00000007 "+ports), six(model.UDP, 40000, 8080)},
		"a later fragment, six":  {ip6("2c", "1100 0009 00000007 "+ports), six(model.UDP, 0, 0)},
		"an extension cut short": {ip6("00", "0601 00000000"), six(0, 0, 0)},
		"no extension":           {ip6("2c", ""), six(44, 0, 0)},
		"a fragment cut short":   {ip6("2c", "1100 00"), six(44, 0, 0)},
	} {
		if got, ok := nflog.ParsePacket(unhex(t, c.packet)); !ok || got != c.want {
			t.Errorf("%s: %+v, %v, want %+v", name, got, ok, c.want)
		}
	}
	tcp4, tcp6 := unhex(t, ip4("0000", "06", ports)), unhex(t, ip6("06", ports))
	for name, b := range map[string][]byte{
		"nothing":               nil,
		"another version":       append([]byte{0x55}, tcp4[1:]...),
		"IPv4 cut short":        tcp4[:19],
		"a header of 16 bytes":  append([]byte{0x44}, tcp4[1:]...),
		"IPv6 cut short":        tcp6[:39],
		"an Ethernet header":    append(unhex(t, "020000000001 020000000002 0800"), tcp4...),
		"four and nothing more": {0x45},
	} {
		if got, ok := nflog.ParsePacket(b); ok {
			t.Errorf("%s: taken for %+v", name, got)
		}
	}
}

// FuzzParsePacket: a stranger's bytes neither panic nor make up an address or a
// port that is not in them.
func FuzzParsePacket(f *testing.F) {
	for _, s := range []string{
		ip4("0000", "06", ports), ip4("2001", "11", ports), ip6("06", ports), ip6("00", "2b00 000000000000 3c00 000000000000 8400 000000000000 "+ports),
		ip6("2c", "1100 0009 00000007 "+ports), ip6("33", "0604 0000 00000001 00000002 000000000000000000000000 "+ports), "",
	} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := nflog.ParsePacket(b)
		if !ok {
			if p != (nflog.Packet{}) {
				t.Errorf("refused, but %+v", p)
			}
			return
		}
		if !p.Src.Addr().IsValid() || p.Src.Addr().Is4() != p.Dst.Addr().Is4() || p.Src.Addr().Is4() != (b[0]>>4 == 4) {
			t.Errorf("%x: %+v", b, p)
		}
		for _, end := range []netip.AddrPort{p.Src, p.Dst} {
			if !strings.Contains(string(b), string(end.Addr().AsSlice())) {
				t.Errorf("%s is not in %x", end.Addr(), b)
			}
			if end.Port() != 0 && !strings.Contains(string(b), string([]byte{byte(end.Port() >> 8), byte(end.Port())})) {
				t.Errorf("port %d is not in %x", end.Port(), b)
			}
		}
		switch p.Protocol {
		case model.TCP, model.UDP, model.SCTP:
		default:
			if p.Src.Port() != 0 || p.Dst.Port() != 0 {
				t.Errorf("protocol %d has ports: %+v", p.Protocol, p)
			}
		}
	})
}
