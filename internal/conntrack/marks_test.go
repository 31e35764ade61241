package conntrack_test

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sluice.dev/sluice/internal/conntrack"
	"sluice.dev/sluice/internal/conntrack/conntracktest"
	"sluice.dev/sluice/internal/model"
)

func TestMarksOnFake(t *testing.T) {
	table := &conntracktest.Table{}
	testMarks(t, table, func(c conntrack.Conn) { table.Put(c) })
}

// testMarks is what a connection table has to do with marks, fake or not. put
// makes an entry.
func testMarks(t *testing.T, m conntrack.Marks, put func(conntrack.Conn)) {
	t.Helper()
	four, six := conn("10.1.0.1", "10.1.1.1:8080", 0x4001), conn("fd00::1", "[fd00::2]:8080", 0)
	six.Frontend = at("[fd00:96::1]:80")
	udp, sctp := conn("10.1.0.2", "10.1.1.1:8080", 0), six
	udp.Protocol, sctp.Protocol = model.UDP, model.SCTP
	masqueraded := conn("10.1.0.3", "10.1.1.1:8080", 0)
	masqueraded.Seen = at("10.1.1.254:34567")
	all := []conntrack.Conn{four, udp, masqueraded, six, sctp}
	for _, c := range all {
		put(c)
	}
	read := func() []conntrack.Conn {
		var got []conntrack.Conn
		if err := m.Conns(t.Context(), func(c conntrack.Conn) { c.ID = 0; got = append(got, c) }); err != nil {
			t.Error(err)
		}
		slices.SortFunc(got, func(a, b conntrack.Conn) int {
			return strings.Compare(a.Client.String()+a.Protocol.String(), b.Client.String()+b.Protocol.String())
		})
		return got
	}
	want := func(when string, marks ...uint32) {
		t.Helper()
		for i, mark := range marks {
			all[i].Mark = mark
		}
		sorted := slices.Clone(all)
		slices.SortFunc(sorted, func(a, b conntrack.Conn) int {
			return strings.Compare(a.Client.String()+a.Protocol.String(), b.Client.String()+b.Protocol.String())
		})
		if got := read(); !slices.Equal(got, sorted) {
			t.Errorf("%s:\n%+v, want\n%+v", when, got, sorted)
		}
	}
	set := func(value, mask uint32, conns ...conntrack.Conn) {
		t.Helper()
		errs := m.SetMark(t.Context(), conns, value, mask)
		if err := errors.Join(errs...); err != nil || len(errs) != len(conns) {
			t.Errorf("%v for %d", errs, len(conns))
		}
	}
	want("made", 0x4001, 0, 0, 0, 0)
	set(bit, bit, four, masqueraded, sctp)
	want("three set", 0x4001|bit, 0, bit, 0, bit)
	set(bit, bit, four)
	want("set again", 0x4001|bit, 0, bit, 0, bit)
	set(0, bit, four, udp)
	want("cleared", 0x4001, 0, bit, 0, bit)
	set(0xffffffff, 0xf0, udp)
	want("within the mask", 0x4001, 0xf0, bit, 0, bit)
	set(bit, bit)

	elsewhere, someoneElse, other := four, masqueraded, udp
	elsewhere.Backend, someoneElse.Seen, other.Protocol = at("10.1.1.2:8080"), at("10.1.1.254:34568"), model.SCTP
	errs := m.SetMark(t.Context(), []conntrack.Conn{elsewhere, six, someoneElse, other}, bit, bit)
	for i, wrong := range []bool{true, false, true, true} {
		if errors.Is(errs[i], syscall.ENOENT) != wrong || !wrong && errs[i] != nil {
			t.Errorf("%d: %v", i, errs[i])
		}
	}
	want("none of these", 0x4001, 0xf0, bit, bit, bit)
}
