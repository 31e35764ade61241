package ipvs_test

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/nlbatch"
	"sluice.dev/sluice/ipvs"
)

func TestDecodeDaemon(t *testing.T) {
	message := func(fill func(b *nlbatch.Batch)) []byte {
		var b nlbatch.Batch
		b.Begin(1, 0, 9, 1, 0, 0)
		b.Nest(3)
		fill(&b)
		b.End()
		b.Begin(1, 0, 9, 1, 0, 0) // which gives the first its length
		return b.Message(0)[unix.NLMSG_HDRLEN:]
	}
	old := func(b *nlbatch.Batch) {
		b.U32(1, 2)
		b.String(2, "v0")
		b.U32(3, 7)
	}
	full := func(b *nlbatch.Batch) {
		old(b)
		b.U16(4, 1472)
		b.Addr(6, netip.MustParseAddr("ff05::99"))
		b.U16(7, 8848)
		b.U8(8, 4)
	}
	for _, tt := range []struct {
		name string
		fill func(b *nlbatch.Batch)
		want ipvs.Daemon
	}{
		{"before 4.3", old, ipvs.Daemon{State: ipvs.DaemonBackup, Interface: "v0", SyncID: 7}},
		{"all", full, ipvs.Daemon{State: ipvs.DaemonBackup, Interface: "v0", SyncID: 7, MaxLength: 1472, Group: netip.MustParseAddr("ff05::99"), Port: 8848, TTL: 4}},
	} {
		if got, err := ipvs.DecodeDaemon(message(tt.fill)); err != nil || got != tt.want {
			t.Errorf("%s: got %+v, %v", tt.name, got, err)
		}
	}
	if _, err := ipvs.DecodeDaemon(message(func(b *nlbatch.Batch) { b.U16(1, 1) })); err == nil {
		t.Error("a state of two bytes: no error")
	}
	if _, err := ipvs.DecodeDaemon(nil); err == nil {
		t.Error("nothing: no error")
	}
}
