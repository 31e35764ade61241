//go:build lab

package conntrack_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/conntrack"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
	"sluice.dev/sluice/internal/nlbatch"
)

// BenchmarkLabSweep reads a table of 50,000 entries, all of UDP or hardly any,
// and finds nothing stale.
func BenchmarkLabSweep(b *testing.B) {
	const entries = 50_000
	for _, udp := range []int{entries, 1000} {
		b.Run(fmt.Sprintf("%d of UDP", udp), func(b *testing.B) {
			h := filled(b, entries, udp)
			n := 0
			for b.Loop() {
				n = 0
				if err := h.Flows(b.Context(), func(conntrack.Flow) { n++ }); err != nil {
					b.Fatal(err)
				}
			}
			if n != udp {
				b.Errorf("read %d flows, want %d", n, udp)
			}
		})
	}
}

// filled is the connection table of a namespace of its own, with entries of UDP
// and for the rest of TCP.
func filled(tb testing.TB, entries, udp int) *conntrack.KernelHandle {
	tb.Helper()
	var h *conntrack.KernelHandle
	var conn *nlbatch.Conn
	var err, err2 error
	netfiltertest.NewNamespace(tb).Do(func() {
		h, err = conntrack.Dial()
		conn, err2 = nlbatch.Dial(unix.NETLINK_NETFILTER)
	})
	if err != nil || err2 != nil {
		tb.Fatal(err, err2)
	}
	defer conn.Close()
	tb.Cleanup(func() { _ = h.Close() })
	var batch nlbatch.Batch
	vip := netip.MustParseAddrPort("10.96.0.10:53")
	for i := range entries {
		protocol := model.TCP
		if i < udp {
			protocol = model.UDP
		}
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)}), uint16(1000+i>>16))
		insert(&batch, protocol, client, vip)
	}
	for _, err := range conn.Do(tb.Context(), &batch) {
		if err != nil {
			tb.Fatal(err)
		}
	}
	return h
}

func insert(b *nlbatch.Batch, protocol model.Protocol, client, vip netip.AddrPort) {
	b.Begin(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_NEW, unix.NLM_F_CREATE|unix.NLM_F_EXCL, unix.AF_INET, unix.NFNETLINK_V0, 0, 0)
	for _, t := range []struct {
		typ      uint16
		src, dst netip.AddrPort
	}{{nl.CTA_TUPLE_ORIG, client, vip}, {nl.CTA_TUPLE_REPLY, vip, client}} {
		b.Nest(t.typ)
		b.Nest(nl.CTA_TUPLE_IP)
		b.Addr(nl.CTA_IP_V4_SRC, t.src.Addr())
		b.Addr(nl.CTA_IP_V4_DST, t.dst.Addr())
		b.End()
		b.Nest(nl.CTA_TUPLE_PROTO)
		b.U8(nl.CTA_PROTO_NUM, uint8(protocol))
		b.BE16(nl.CTA_PROTO_SRC_PORT, t.src.Port())
		b.BE16(nl.CTA_PROTO_DST_PORT, t.dst.Port())
		b.End()
		b.End()
	}
	b.BE32(nl.CTA_TIMEOUT, 3600)
	if protocol == model.TCP {
		b.Nest(nl.CTA_PROTOINFO)
		b.Nest(nl.CTA_PROTOINFO_TCP)
		b.U8(nl.CTA_PROTOINFO_TCP_STATE, nl.TCP_CONNTRACK_ESTABLISHED)
		b.End()
		b.End()
	}
}
