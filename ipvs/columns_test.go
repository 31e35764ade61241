package ipvs_test

import (
	"strings"
	"testing"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/ipvs"
)

// counted is a virtual server with one destination that has had traffic.
func counted() listedServer {
	s := behind(server("10.96.0.1:80", model.TCP, "rr"), "192.168.10.1:80", ipvs.Masquerade)
	s.Counters = ipvs.Counters{Connections: 1, PacketsIn: 212, PacketsOut: 2641, BytesIn: 11036, BytesOut: 157423740,
		PacketRateIn: 15, PacketRateOut: 186, ByteRateIn: 776, ByteRateOut: 11068857}
	d := &s.Destinations[0]
	d.Counters, d.Active, d.Inactive, d.Persistent = s.Counters, 0, 3, 2
	d.Counters.ConnectionRate = 123456789
	d.Spec.UpperThreshold, d.Spec.LowerThreshold = 1000, 500
	return s
}

func TestColumns(t *testing.T) {
	tunnel := func(s listedServer, tun ipvs.Tunnel) listedServer {
		s.Destinations[0].Spec.Forward, s.Destinations[0].Spec.Tunnel = ipvs.ForwardTunnel, tun
		return s
	}
	for _, tt := range []struct {
		name   string
		style  ipvs.Style
		server listedServer
		want   string
	}{
		{"stats", ipvs.Style{Columns: ipvs.StatsColumns}, counted(), `
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  10.96.0.1:80                        1      212     2641    11036  157423K
  -> 192.168.10.1:80                     1      212     2641    11036  157423K
`},
		{"stats, exact", ipvs.Style{Columns: ipvs.StatsColumns, Exact: true}, counted(), `
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  10.96.0.1:80                        1      212     2641    11036 157423740
  -> 192.168.10.1:80                     1      212     2641    11036 157423740
`},
		{"rates, of which a destination's first three are never cut", ipvs.Style{Columns: ipvs.RateColumns}, counted(), `
Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS
  -> RemoteAddress:Port
TCP  10.96.0.1:80                        0       15      186      776 11068857
  -> 192.168.10.1:80              123456789       15      186      776 11068857
`},
		{"thresholds", ipvs.Style{Columns: ipvs.ThresholdColumns}, counted(), `
Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn 
  -> RemoteAddress:Port
TCP  10.96.0.1:80 rr
  -> 192.168.10.1:80              1000       500        0          3         
`},
		{"persistent connections", ipvs.Style{Columns: ipvs.PersistentColumns}, counted(), `
Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn 
  -> RemoteAddress:Port
TCP  10.96.0.1:80 rr
  -> 192.168.10.1:80              1         2           0          3         
`},
		{"tunnels, where there is none", ipvs.Style{Columns: ipvs.TunnelColumns}, counted(), `
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn
TCP  10.96.0.1:80 rr
  -> 192.168.10.1:80              Masq    n/a           1      0          3         
`},
		{"tunnels", ipvs.Style{Columns: ipvs.TunnelColumns}, tunnel(counted(), ipvs.Tunnel{Type: ipvs.GUE, Port: 6080, Flags: ipvs.Checksum}), `
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn
TCP  10.96.0.1:80 rr
  -> 192.168.10.1:80              Tunnel  gue:6080:+c   1      0          3         
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := "\n" + write(t, ipvs.Listing{Servers: []listedServer{tt.server}}, tt.style); got != tt.want {
				t.Errorf("got%swant%s", got, tt.want)
			}
		})
	}
}

// The widths of large counters: the rows of spec 6.2, and above 32 bits.
func TestLargeCounters(t *testing.T) {
	for _, tt := range []struct {
		n           uint64
		want, exact string
	}{
		{0, "        0", "        0"},
		{99_999_999, " 99999999", " 99999999"},
		{100_000_000, "  100000K", " 100000000"},
		{999_999_999, "  999999K", " 999999999"},
		{1_000_000_000, "    1000M", " 1000000000"},
		{99_999_999_999, "   99999M", " 99999999999"},
		{100_000_000_000, "     100G", " 100000000000"},
		{99_999_999_999_999, "   99999G", " 99999999999999"},
		{100_000_000_000_000, "     100T", " 100000000000000"},
		{18_446_744_073_709_551_615, "18446744T", " 18446744073709551615"},
	} {
		for exact, want := range map[bool]string{false: tt.want, true: tt.exact} {
			s := server("10.0.0.1:80", model.TCP, "rr")
			s.Counters.Connections = tt.n
			got := write(t, ipvs.Listing{Servers: []listedServer{s}}, ipvs.Style{Columns: ipvs.StatsColumns, Exact: exact})
			line := strings.Split(got, "\n")[2]
			if rest := strings.TrimSuffix(line[33:], strings.Repeat("        0", 4)); rest != want {
				t.Errorf("%d, exact %v: got %q, want %q", tt.n, exact, rest, want)
			}
		}
	}
}

func TestTunnelText(t *testing.T) {
	for text, tun := range map[string]ipvs.Tunnel{
		"ipip": {}, "gre:-c": {Type: ipvs.GRE}, "gre:+c": {Type: ipvs.GRE, Flags: ipvs.Checksum}, "gue:1:r+c": {Type: ipvs.GUE, Port: 1, Flags: ipvs.RemoteChecksum},
		"gue:65535:-c": {Type: ipvs.GUE, Port: 65535}, "n/a": {Type: 7},
	} {
		s := counted()
		s.Destinations[0].Spec.Forward, s.Destinations[0].Spec.Tunnel = ipvs.ForwardTunnel, tun
		if got := write(t, ipvs.Listing{Servers: []listedServer{s}}, ipvs.Style{Columns: ipvs.TunnelColumns}); !strings.Contains(got, " Tunnel  "+text+" ") {
			t.Errorf("%+v: got %s", tun, got)
		}
	}
}

func TestWriteSaved(t *testing.T) {
	l := goldenListing()
	lb := &l.Servers[7].Destinations
	(*lb)[2].Spec.UpperThreshold, (*lb)[2].Spec.LowerThreshold = 10, 5
	gue := behind(server("203.0.113.10:81", model.TCP, "mh", with(ipvs.Sched3, 0, ipvs.HostMask4, "")), "192.168.10.3:80", ipvs.ForwardTunnel)
	gue.Destinations[0].Spec.Tunnel = ipvs.Tunnel{Type: ipvs.GUE, Port: 6080, Flags: ipvs.Checksum}
	gre := behind(marked(4000000000, model.IPv6, "rr"), "[fd00::1]:0", ipvs.ForwardTunnel)
	gre.Destinations[0].Spec.Tunnel = ipvs.Tunnel{Type: ipvs.GRE}
	l.Servers = append(l.Servers, gue, gre)
	const want = `-A -f -294967296 -6 -s rr
-a -f -294967296 -6 -r [fd00::1]:0 -i -w 1 --tun-type gre --tun-nocsum
-A -t 203.0.113.10:80 -s mh -b mh-fallback,mh-port
-a -t 203.0.113.10:80 -r 192.168.10.1:80 -g -w 1
-a -t 203.0.113.10:80 -r 192.168.10.2:80 -i -w 1 --tun-type ipip
-a -t 203.0.113.10:80 -r 192.168.10.254:80 -m -w 1
-A -t 203.0.113.10:81 -s mh -b 
-a -t 203.0.113.10:81 -r 192.168.10.3:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-csum
-A -t 10.96.0.1:443 -s wlc -p 360
-A -u 10.96.0.10:53 -s wrr -o
-A -u 10.96.0.10:5060 -s rr -p 60 -M 255.255.255.0 --pe sip
-A --sctp-service 10.96.0.20:9 -s sh -b sh-fallback,sh-port
-A -t [fd00:10:96::10]:443 -s rr -p 60 -M 64
-a -t [fd00:10:96::10]:443 -r [fd00:10:244:1:aaaa:bbbb:cccc:dddd]:8443 -m -w 1
-A -f 78 -s sed -p 300
-A -f 79 -6 -s nq
`
	for thresholds, want := range map[bool]string{
		false: want, true: strings.Replace(want, "--tun-type ipip", "--tun-type ipip -x 10 -y 5", 1),
	} {
		var b strings.Builder
		if err := ipvs.WriteSaved(&b, l, ipvs.Style{}, thresholds); err != nil {
			t.Fatal(err)
		}
		if b.String() != want {
			t.Errorf("thresholds %v: got\n%s\nwant\n%s", thresholds, b.String(), want)
		}
	}
}

// whose is Notes that know one virtual server and one real server.
type whose struct{}

func (whose) VirtualServer(vs ipvs.VirtualServer) string {
	return map[string]string{"TCP 10.96.0.1:80": "default/web:http"}[vs.String()]
}
func (whose) RealServer(a addrPort) string {
	return map[string]string{"192.168.10.1:80": "default/web-0 (node1)"}[a.String()]
}

func TestNotes(t *testing.T) {
	other := behind(server("10.96.0.2:80", model.TCP, "rr"), "192.168.10.2:80", ipvs.Masquerade)
	got := write(t, ipvs.Listing{Servers: []listedServer{counted(), other}}, ipvs.Style{Notes: whose{}})
	const want = `Prot LocalAddress:Port Scheduler Flags                                 Service
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn  Pod (Node)
TCP  10.96.0.1:80 rr                                                   default/web:http
  -> 192.168.10.1:80              Masq    1      0          3          default/web-0 (node1)
TCP  10.96.0.2:80 rr
  -> 192.168.10.2:80              Masq    1      0          0         
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
