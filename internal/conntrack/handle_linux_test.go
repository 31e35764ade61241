package conntrack_test

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/conntrack"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/nlbatch"
)

// entry is a message of a dump, as the kernel writes it.
func entry(f conntrack.Flow, zone uint16, edit func(*nlbatch.Batch)) []byte {
	var b nlbatch.Batch
	b.Begin(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_NEW, 0, unix.AF_INET, unix.NFNETLINK_V0, 0, 0)
	tuple := func(typ uint16, src, dst netip.AddrPort) {
		b.Nest(typ)
		b.Nest(nl.CTA_TUPLE_IP)
		if src.Addr().Is4() {
			b.Addr(nl.CTA_IP_V4_SRC, src.Addr())
			b.Addr(nl.CTA_IP_V4_DST, dst.Addr())
		} else {
			b.Addr(nl.CTA_IP_V6_SRC, src.Addr())
			b.Addr(nl.CTA_IP_V6_DST, dst.Addr())
		}
		b.End()
		b.Nest(nl.CTA_TUPLE_PROTO)
		b.U8(nl.CTA_PROTO_NUM, uint8(f.Protocol))
		b.BE16(nl.CTA_PROTO_SRC_PORT, src.Port())
		b.BE16(nl.CTA_PROTO_DST_PORT, dst.Port())
		b.End()
		b.End()
	}
	tuple(nl.CTA_TUPLE_ORIG, f.Client, f.Frontend)
	if f.Backend.IsValid() {
		tuple(nl.CTA_TUPLE_REPLY, f.Backend, f.Seen)
	}
	b.BE32(nl.CTA_STATUS, 0x188)
	if zone != 0 {
		b.BE16(nl.CTA_ZONE, zone)
	}
	b.BE32(nl.CTA_ID, f.ID)
	if edit != nil {
		edit(&b)
	}
	return b.Message(0)[unix.SizeofNlMsghdr:]
}

func masqueraded() conntrack.Flow {
	return conntrack.Flow{
		Protocol: model.UDP, Client: at("10.1.9.9:4000"), Frontend: at("10.96.0.10:53"),
		Backend: at("10.1.1.1:5353"), Seen: at("10.1.1.254:23456"), ID: 0xdeadbeef,
	}
}

func TestDecode(t *testing.T) {
	four := masqueraded()
	six := conntrack.Flow{
		Protocol: model.UDP, Client: at("[fd00::9]:4000"), Frontend: at("[fd00:96::10]:53"),
		Backend: at("[fd00:1::1]:5353"), Seen: at("[fd00::9]:4000"), ID: 7,
	}
	tcp := four
	tcp.Protocol = model.TCP
	for name, c := range map[string]struct {
		msg  []byte
		want conntrack.Flow
		ours bool
		err  string
	}{
		"IPv4, masqueraded":             {entry(four, 0, nil), four, true, ""},
		"IPv6":                          {entry(six, 0, nil), six, true, ""},
		"TCP, from a kernel before 5.8": {entry(tcp, 0, nil), tcp, false, ""},
		"another's zone":                {entry(four, 5, nil), four, false, ""},
		"no reply":                      {entry(conntrack.Flow{Protocol: model.UDP, Client: four.Client, Frontend: four.Frontend}, 0, nil), conntrack.Flow{}, false, ""},
		"an address cut short": {entry(four, 0, func(b *nlbatch.Batch) {
			b.Nest(nl.CTA_TUPLE_REPLY)
			b.Nest(nl.CTA_TUPLE_IP)
			b.Bytes(nl.CTA_IP_V4_SRC, []byte{10, 1})
		}), four, true, "address of 2 bytes"},
		"cut short": {entry(four, 0, nil)[:60], conntrack.Flow{}, false, "attribute"},
		"nothing":   {nil, conntrack.Flow{}, false, ""},
	} {
		got, ours, err := conntrack.Decode(c.msg)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %q", name, err, c.err)
			}
			continue
		}
		if err != nil || ours != c.ours || ours && got != c.want {
			t.Errorf("%s: got %+v, %v, %v", name, got, ours, err)
		}
	}
}

// TestDeleteNamesTheReply byte by byte: a deletion that names no entry deletes
// them all.
func TestDeleteNamesTheReply(t *testing.T) {
	var b nlbatch.Batch
	conntrack.EncodeDelete(&b, masqueraded())
	const want = "50000000" + "0201" + "0100" + "00000000" + "00000000" + // 80 bytes, ctnetlink delete, request
		"02000000" + // IPv4
		"34000280" + "14000180" + // the reply's addresses
		"08000100" + "0a010101" + "08000200" + "0a0101fe" +
		"1c000280" + "05000100" + "11000000" + // UDP and ports
		"06000200" + "14e90000" + "06000300" + "5ba00000" +
		"08000c00" + "deadbeef"
	got := hex.EncodeToString(b.Message(0))
	if got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
}
