package ipvs_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/ipvs/ipvstest"
)

// golden is the listing of spec/ipvsadm.md 6.2, in ipvsadm's order.
const golden = `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  203.0.113.10:80 mh (mh-fallback,mh-port)
  -> 192.168.10.1:80              Route   1      0          0         
  -> 192.168.10.2:80              Tunnel  1      0          0         
  -> 192.168.10.254:80            Masq    1      0          0         
TCP  10.96.0.1:443 wlc persistent 360
UDP  10.96.0.10:53 wrr ops
UDP  10.96.0.10:5060 rr persistent 60 mask 255.255.255.0 pe sip
SCTP 10.96.0.20:9 sh (sh-fallback,sh-port)
TCP  [fd00:10:96::10]:443 rr persistent 60 mask 64
  -> [fd00:10:244:1:aaaa:bbbb:cccc:dddd]:8443 Masq    1      0          0         
FWM  78 sed persistent 300
FWM  79 IPv6 nq
`

type listedServer = ipvs.ListedServer

func server(addr string, p model.Protocol, scheduler string, edit ...func(*ipvs.VirtualServerSpec)) listedServer {
	var s listedServer
	s.VirtualServer = serverKey(addr, p).VirtualServer
	return specify(s, scheduler, edit...)
}

func marked(n uint32, f model.Family, scheduler string, edit ...func(*ipvs.VirtualServerSpec)) listedServer {
	var s listedServer
	s.VirtualServer = ipvs.VirtualServer{Mark: n, Family: f}
	return specify(s, scheduler, edit...)
}

func specify(s listedServer, scheduler string, edit ...func(*ipvs.VirtualServerSpec)) listedServer {
	s.Spec = serverSpec(scheduler, edit...).VirtualServer
	if s.IPFamily() == model.IPv6 && s.Spec.Netmask == ipvs.HostMask4 {
		s.Spec.Netmask = ipvs.HostMask6
	}
	return s
}

func behind(s listedServer, addr string, f ipvs.Forward) listedServer {
	s.Destinations = append(s.Destinations, ipvs.DestinationEntry{
		RealServer: netip.MustParseAddrPort(addr), Spec: ipvs.DestinationSpec{Weight: 1, Forward: f},
	})
	return s
}

func with(f ipvs.Flags, timeout, mask uint32, engine string) func(*ipvs.VirtualServerSpec) {
	return func(s *ipvs.VirtualServerSpec) {
		s.Flags, s.Timeout, s.Netmask, s.PEName = f, timeout, mask, engine
	}
}

func goldenListing() ipvs.Listing {
	six := behind(server("[fd00:10:96::10]:443", model.TCP, "rr", with(ipvs.Persistent, 60, 64, "")),
		"[fd00:10:244:1:aaaa:bbbb:cccc:dddd]:8443", ipvs.Masquerade)
	lb := server("203.0.113.10:80", model.TCP, "mh", with(ipvs.MHFallback|ipvs.MHPort, 0, ipvs.HostMask4, ""))
	lb = behind(lb, "192.168.10.254:80", ipvs.Masquerade)
	lb = behind(lb, "192.168.10.1:80", ipvs.ForwardRoute)
	lb = behind(lb, "192.168.10.2:80", ipvs.ForwardTunnel)
	return ipvs.Listing{
		Table: &ipvs.Table{Version: [3]uint8{1, 2, 1}, ConnectionSlots: 4096},
		Servers: []listedServer{
			marked(79, model.IPv6, "nq"),
			marked(78, model.IPv4, "sed", with(ipvs.Persistent, 300, ipvs.HostMask4, "")),
			six,
			server("10.96.0.20:9", model.SCTP, "sh", with(ipvs.SHFallback|ipvs.SHPort, 0, ipvs.HostMask4, "")),
			server("10.96.0.10:5060", model.UDP, "rr", with(ipvs.Persistent, 60, 0xFFFFFF00, "sip")),
			server("10.96.0.10:53", model.UDP, "wrr", with(ipvs.OnePacket, 0, ipvs.HostMask4, "")),
			server("10.96.0.1:443", model.TCP, "wlc", with(ipvs.Persistent, 360, ipvs.HostMask4, "")),
			lb,
		},
	}
}

func write(t *testing.T, l ipvs.Listing, style ipvs.Style) string {
	t.Helper()
	var b strings.Builder
	if err := ipvs.WriteListing(&b, l, style); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestWriteListing(t *testing.T) {
	l := goldenListing()
	if got := write(t, l, ipvs.Style{}); got != golden {
		t.Errorf("got\n%s\nwant\n%s", got, golden)
	}
	if first := l.Servers[0].Mark; first != 79 {
		t.Error("the listing itself was sorted")
	}
	unsorted := write(t, l, ipvs.Style{Unsorted: true})
	if lines := strings.Split(unsorted, "\n"); lines[3] != "FWM  79 IPv6 nq" || lines[len(lines)-2] != "  -> 192.168.10.2:80              Tunnel  1      0          0         " {
		t.Errorf("unsorted:\n%s", unsorted)
	}
}

// The lines behind the two title lines.
func TestWriteListingLines(t *testing.T) {
	conns := behind(server("10.0.0.1:80", model.TCP, "rr"), "192.168.100.100:65535", ipvs.LocalNode)
	conns.Destinations[0].Active, conns.Destinations[0].Inactive = 4294967295, 7
	conns.Destinations[0].Spec.Weight = 100000000
	mixed := behind(behind(server("10.0.0.1:80", model.TCP, "rr"), "[fd00::5]:80", ipvs.ForwardTunnel), "200.1.1.1:80", ipvs.Masquerade)
	mixed6 := behind(behind(server("[fd00::1]:80", model.TCP, "rr"), "9.9.9.9:80", ipvs.ForwardTunnel), "[::9.9.9.9]:80", ipvs.Masquerade)
	for _, tt := range []struct {
		name    string
		servers []listedServer
		want    string
	}{
		{"wide columns", []listedServer{conns}, "TCP  10.0.0.1:80 rr\n  -> 192.168.100.100:65535        Local   100000000 4294967295 7         \n"},
		{"any scheduler's flags", []listedServer{server("10.0.0.1:80", model.TCP, "rr", with(ipvs.Sched1|ipvs.Sched3, 0, ipvs.HostMask4, ""))},
			"TCP  10.0.0.1:80 rr (flag-1,flag-3)\n"},
		{"the third flag of mh has no name", []listedServer{server("10.0.0.1:80", model.TCP, "mh", with(ipvs.Sched3|ipvs.Persistent, 60, 0xFFFF0000, ""))},
			"TCP  10.0.0.1:80 mh () persistent 60 mask 255.255.0.0\n"},
		{"everything", []listedServer{server("10.0.0.1:80", model.UDP, "sh", with(ipvs.SHPort|ipvs.Persistent|ipvs.OnePacket, 60, 0xFFFF0000, "sip"))},
			"UDP  10.0.0.1:80 sh (sh-port) persistent 60 mask 255.255.0.0 pe sip ops\n"},
		{"not persistent: mask, timeout and engine are not shown", []listedServer{server("10.0.0.1:80", model.UDP, "rr", with(0, 60, 0xFFFF0000, "sip"))}, "UDP  10.0.0.1:80 rr\n"},
		{"large mark", []listedServer{marked(7, model.IPv4, "rr"), marked(4000000000, model.IPv4, "rr")}, "FWM  -294967296 rr\nFWM  7 rr\n"},
		{"protocols, families, ports", []listedServer{
			server("[fd00::1]:80", model.TCP, "rr"), server("10.0.0.1:80", model.SCTP, "rr"), server("10.0.0.1:80", model.UDP, "rr"),
			server("10.0.0.1:443", model.TCP, "rr"), server("10.0.0.1:80", model.TCP, "rr"),
		}, "TCP  10.0.0.1:80 rr\nTCP  10.0.0.1:443 rr\nUDP  10.0.0.1:80 rr\nSCTP 10.0.0.1:80 rr\nTCP  [fd00::1]:80 rr\n"},
		{"IPv4-compatible addresses", []listedServer{server("[::1.2.3.4]:80", model.TCP, "rr"), server("[::304]:80", model.TCP, "rr"), server("[::1:2:3]:80", model.TCP, "rr")},
			"TCP  [::304]:80 rr\nTCP  [::1.2.3.4]:80 rr\nTCP  [::1:2:3]:80 rr\n"},
		{"mixed families", []listedServer{mixed}, "TCP  10.0.0.1:80 rr\n" +
			"  -> 200.1.1.1:80                 Masq    1      0          0         \n" +
			"  -> [fd00::5]:80                 Tunnel  1      0          0         \n"},
		{"mixed families, IPv6", []listedServer{mixed6}, "TCP  [fd00::1]:80 rr\n" +
			"  -> [::9.9.9.9]:80               Masq    1      0          0         \n" +
			"  -> 9.9.9.9:80                   Tunnel  1      0          0         \n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.SplitAfterN(write(t, ipvs.Listing{Servers: tt.servers}, ipvs.Style{}), "\n", 3)[2]
			if got != tt.want {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
		})
	}
}

// names is a Names made of maps.
type names map[string]string

func (n names) Host(a netip.Addr) string { return n[a.String()] }

func (n names) Service(port uint16, p model.Protocol) string {
	return map[uint16]string{443: "https", 53: "domain"}[port] + n[p.String()]
}

func TestWriteListingNames(t *testing.T) {
	long := strings.Repeat("abcdefghijklmnopqrstuvwxyz.", 3)
	n := names{"10.0.0.1": "web", "10.1.1.1": long + "v4", "fd00::1": long + "v6", "fd00::2": "six"}
	four := behind(behind(server("10.0.0.1:443", model.TCP, "rr"), "10.1.1.1:443", ipvs.Masquerade), "[fd00::2]:53", ipvs.ForwardTunnel)
	six := behind(server("[fd00::1]:443", model.TCP, "rr"), "10.1.1.2:80", ipvs.ForwardTunnel)
	got := strings.SplitAfterN(write(t, ipvs.Listing{Servers: []listedServer{four, six}}, ipvs.Style{Names: n}), "\n", 3)[2]
	const want = `TCP  web:https rr
  -> [six]:domain                 Tunnel  1      0          0         
  -> abcdefghijklmnopqrstuvwxyz.a Masq    1      0          0         
TCP  [abcdefghijklmnopqrstuvwxyz.abcdefghijklmnopqrstuvwxyz.abcd rr
  -> 10.1.1.2:80                  Tunnel  1      0          0         
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestReadListing(t *testing.T) {
	k := filled(t)
	l, err := ipvs.ReadListing(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	if got := write(t, l, ipvs.Style{}); !strings.HasPrefix(got, "IP Virtual Server version 1.2.1 (size=4096)\n") || !strings.HasSuffix(got, "\n"+filledText) {
		t.Errorf("got\n%s", got)
	}
	for _, verb := range []string{"Table", "VirtualServers", "Destinations"} {
		k.FailBefore(func(c ipvstest.Call) error {
			if c.Verb == verb {
				return context.DeadlineExceeded
			}
			return nil
		})
		if _, err := ipvs.ReadListing(t.Context(), k); err == nil {
			t.Errorf("%s fails and the listing does not", verb)
		}
	}
}
