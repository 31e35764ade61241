package conntrack_test

import (
	"encoding/hex"
	"testing"

	"github.com/vishvananda/netlink/nl"

	"sluice.dev/sluice/internal/conntrack"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/nlbatch"
)

func TestDecodeConn(t *testing.T) {
	of := func(p model.Protocol) conntrack.Flow {
		f := masqueraded()
		f.Protocol = p
		return f
	}
	mark := func(b *nlbatch.Batch) { b.BE32(nl.CTA_MARK, 0x8001) }
	related := func(b *nlbatch.Batch) { b.BE32(nl.CTA_STATUS, 0x18f) }
	const tupleZone = 3 // CTA_TUPLE_ZONE
	zoned := func(b *nlbatch.Batch) {
		f := of(model.TCP)
		b.Nest(nl.CTA_TUPLE_ORIG) // in place of the one before
		b.Nest(nl.CTA_TUPLE_IP)
		b.Addr(nl.CTA_IP_V4_SRC, f.Client.Addr())
		b.Addr(nl.CTA_IP_V4_DST, f.Frontend.Addr())
		b.End()
		b.Nest(nl.CTA_TUPLE_PROTO)
		b.U8(nl.CTA_PROTO_NUM, uint8(f.Protocol))
		b.End()
		b.BE16(tupleZone, 7)
		b.End()
	}
	for name, c := range map[string]struct {
		msg  []byte
		want conntrack.Conn
		ours bool
	}{
		"TCP with a mark":         {entry(of(model.TCP), 0, mark), conntrack.Conn{Flow: of(model.TCP), Mark: 0x8001}, true},
		"UDP without":             {entry(of(model.UDP), 0, nil), conntrack.Conn{Flow: of(model.UDP)}, true},
		"SCTP, related":           {entry(of(model.SCTP), 0, related), conntrack.Conn{Flow: of(model.SCTP), Related: true}, true},
		"ICMP":                    {entry(of(1), 0, nil), conntrack.Conn{}, false},
		"another's zone":          {entry(of(model.TCP), 5, mark), conntrack.Conn{}, false},
		"a zone of one direction": {entry(of(model.TCP), 0, zoned), conntrack.Conn{}, false},
		"nothing":                 {nil, conntrack.Conn{}, false},
	} {
		got, ours, err := conntrack.DecodeConn(c.msg)
		if err != nil || ours != c.ours || ours && got != c.want {
			t.Errorf("%s: got %+v, %v, %v", name, got, ours, err)
		}
	}
	if _, _, err := conntrack.DecodeConn(entry(of(model.TCP), 0, nil)[:60]); err == nil {
		t.Error("an entry cut short was read")
	}
}

// TestMarkNamesTheReply byte by byte: what names no entry would make one.
func TestMarkNamesTheReply(t *testing.T) {
	var b nlbatch.Batch
	f := masqueraded()
	f.Protocol = model.TCP
	conntrack.EncodeMark(&b, f, 0x8000, 0x8000)
	const want = "58000000" + "0001" + "0100" + "00000000" + "00000000" + // 88 bytes, ctnetlink new, request and no more
		"02000000" + // IPv4
		"34000280" + "14000180" + // the reply's addresses
		"08000100" + "0a010101" + "08000200" + "0a0101fe" +
		"1c000280" + "05000100" + "06000000" + // TCP and ports
		"06000200" + "14e90000" + "06000300" + "5ba00000" +
		"08000800" + "00008000" + "08001500" + "00008000" // mark and mask
	if got := hex.EncodeToString(b.Message(0)); got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
}
