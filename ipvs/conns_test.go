package ipvs_test

import (
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"

	"sluice.dev/sluice/ipvs"
)

type addrPort = netip.AddrPort

// procConns is /proc/net/ip_vs_conn of spec 6.4.
const procConns = `Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP 0A600001 D61A 0A600001 0050 C0A80A01 1F90 ESTABLISHED     899
TCP 0A600014 0000 0A600014 1F90 C0A80A03 1F90 NONE          10797
TCP [fd00:0010:0096:0000:0000:0000:0000:0010] D25C [fd00:0010:0096:0000:0000:0000:0000:0010] 0050 [fd00:000a:0000:0000:0000:0000:0000:0001] 1F90 ESTABLISHED     899
UDP 0A60000B 0000 0A60000B 13C4 0A580001 13C4 NONE             34 sip 3848276298220188511@example.org
IP  0A600000 0000 0000004E 0000 0A580001 0000 NONE             43
SCTP 0A600014 0FA0 0A600014 0009 0A580001 0009 INIT1           2
`

func TestConnections(t *testing.T) {
	for _, tt := range []struct {
		engines bool
		want    string
	}{
		{false, `IPVS connection entries
pro expire state       source             virtual            destination
TCP 14:59  ESTABLISHED 10.96.0.1:54810    10.96.0.1:80       192.168.10.1:8080
TCP 179:57 NONE        10.96.0.20:0       10.96.0.20:8080    192.168.10.3:8080
TCP 14:59  ESTABLISHED [fd00:10:96::10]:53852 [fd00:10:96::10]:80 [fd00:a::1]:8080
UDP 00:34  NONE        10.96.0.11:0       10.96.0.11:5060    10.88.0.1:5060
IP  00:43  NONE        10.96.0.0:0        0.0.0.78:0         10.88.0.1:0
SCTP 00:02  INIT1       10.96.0.20:4000    10.96.0.20:9       10.88.0.1:9
`},
		{true, `IPVS connection entries
pro expire state       source             virtual            destination        pe name          pe_data
TCP 14:59  ESTABLISHED 10.96.0.1:54810    10.96.0.1:80       192.168.10.1:8080
TCP 179:57 NONE        10.96.0.20:0       10.96.0.20:8080    192.168.10.3:8080
TCP 14:59  ESTABLISHED [fd00:10:96::10]:53852 [fd00:10:96::10]:80 [fd00:a::1]:8080
UDP 00:34  NONE        10.96.0.11:0       10.96.0.11:5060    10.88.0.1:5060   sip                3848276298220188511@example.org
IP  00:43  NONE        10.96.0.0:0        0.0.0.78:0         10.88.0.1:0
SCTP 00:02  INIT1       10.96.0.20:4000    10.96.0.20:9       10.88.0.1:9
`},
	} {
		var b strings.Builder
		ipvs.WriteConnectionTitle(&b, tt.engines)
		for c, err := range ipvs.ReadConnections(strings.NewReader(procConns)) {
			if err != nil {
				t.Fatal(err)
			}
			ipvs.WriteConnection(&b, c, ipvs.Style{}, tt.engines, "")
		}
		if b.String() != tt.want {
			t.Errorf("got\n%s\nwant\n%s", b.String(), tt.want)
		}
	}
}

// Names of connections are cut at the end of ipvsadm's buffer only.
func TestConnectionNames(t *testing.T) {
	c := ipvs.Connection{Protocol: "TCP", State: "NONE", Source: netip.MustParseAddrPort("10.1.1.1:443"), Virtual: netip.MustParseAddrPort("10.0.0.1:443"), Destination: netip.MustParseAddrPort("10.0.0.2:80")}
	long := strings.Repeat("abcdefghijklmnopqrstuvwxyz.", 3)
	var b strings.Builder
	ipvs.WriteConnection(&b, c, ipvs.Style{Names: names{"10.0.0.1": "web", "10.1.1.1": long}}, false, "shop/web")
	if want := "TCP 00:00  NONE        " + long[:59] + " web:https          10.0.0.2:80         shop/web\n"; b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func TestConnectionErrors(t *testing.T) {
	const title = "Pro FromIP\n"
	for name, r := range map[string]io.Reader{
		"empty":         strings.NewReader(""),
		"few fields":    strings.NewReader(title + "TCP 0A600001\n"),
		"address":       strings.NewReader(title + "TCP 0A60000100 D61A 0A600001 0050 C0A80A01 1F90 ESTABLISHED 899\n"),
		"port":          strings.NewReader(title + "TCP 0A600001 D61AA 0A600001 0050 C0A80A01 1F90 ESTABLISHED 899\n"),
		"time":          strings.NewReader(title + "TCP 0A600001 D61A 0A600001 0050 C0A80A01 1F90 ESTABLISHED x\n"),
		"broken off":    io.MultiReader(strings.NewReader(title), iotest.ErrReader(io.ErrUnexpectedEOF)),
		"endless lines": strings.NewReader(title + strings.Repeat("x", 5000)),
	} {
		var last error
		for _, err := range ipvs.ReadConnections(r) {
			last = errors.Join(last, err)
		}
		if last == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
