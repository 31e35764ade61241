package nflog_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/nflog"
	"sluice.dev/sluice/internal/nlbatch"
)

// wire gives what was put in, then timeouts, and ends the test's context when it
// has nothing more.
type wire struct {
	in  []reading
	end func()
}

type reading struct {
	datagram []byte
	from     uint32
	err      error
}

func (w *wire) Close() error      { return nil }
func (w *wire) Send([]byte) error { return nil }

func (w *wire) Receive(buf []byte, _ time.Duration) (int, uint32, error) {
	if len(w.in) == 0 {
		w.end()
		return 0, 0, nlbatch.ErrTimeout
	}
	r := w.in[0]
	w.in = w.in[1:]
	copy(buf, r.datagram)
	return len(r.datagram), r.from, r.err
}

// links answers what interface 7 is called, and knows no other.
type links struct {
	asked  []uint32
	answer []byte
}

func (l *links) Close() error { return nil }

func (l *links) Send(b []byte) error {
	index := binary.NativeEndian.Uint32(b[unix.NLMSG_HDRLEN+4:])
	l.asked = append(l.asked, index)
	var out nlbatch.Batch
	if index == 7 {
		out.Begin(unix.RTM_NEWLINK, 0, make([]byte, unix.SizeofIfInfomsg)...)
		out.String(unix.IFLA_IFNAME, "veth7")
	}
	out.Begin(unix.NLMSG_ERROR, 0, binary.NativeEndian.AppendUint32(nil, 0)...)
	if index != 7 {
		refusal := int32(-int(unix.ENODEV))
		out.Reset()
		out.Begin(unix.NLMSG_ERROR, 0, binary.NativeEndian.AppendUint32(nil, uint32(refusal))...)
	}
	l.answer = nil
	for i := range out.Len() {
		m := slices.Clone(out.Message(i))
		copy(m[8:12], b[8:12]) // the question's number
		l.answer = append(l.answer, m...)
	}
	return nil
}

func (l *links) Receive(buf []byte, _ time.Duration) (int, uint32, error) {
	if l.answer == nil {
		return 0, 0, nlbatch.ErrTimeout
	}
	n := copy(buf, l.answer)
	l.answer = nil
	return n, 0, nil
}

// told is a message as the kernel writes it.
func told(tb testing.TB, seq uint32, packet string, edit func(*nlbatch.Batch)) []byte {
	tb.Helper()
	var b nlbatch.Batch
	b.Begin(0x400, 0, unix.AF_INET, unix.NFNETLINK_V0, 0, 100)
	b.Bytes(1, []byte{8, 0, 2, 0})
	b.String(10, "sluice-egress")
	if edit != nil {
		edit(&b)
	}
	b.BE32(12, seq)
	b.Bytes(9, unhex(tb, packet))
	return slices.Clone(b.Message(0))
}

// run gives a Listener datagrams until there are no more.
func run(t *testing.T, l *links, in ...reading) (records []nflog.Record, lost uint64, err error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	listener := nflog.Over(&wire{in: in, end: cancel}, l)
	began := time.Now()
	err = listener.Run(ctx, func(r nflog.Record) {
		if r.At.Before(began) || r.At.After(time.Now()) {
			t.Errorf("at %s", r.At)
		}
		r.At = time.Time{}
		records = append(records, r)
	})
	return records, listener.Lost(), err
}

func record(in, out string) nflog.Record {
	return nflog.Record{
		Prefix: "sluice-egress", Src: netip.MustParseAddrPort("10.1.0.1:40000"), Dst: netip.MustParseAddrPort("10.1.1.1:8080"),
		Protocol: model.TCP, In: in, Out: out,
	}
}

func TestRecords(t *testing.T) {
	packet := ip4("0000", "06", ports)
	devs := func(in, out uint32) func(*nlbatch.Batch) {
		return func(b *nlbatch.Batch) {
			b.BE32(4, in)
			b.BE32(5, out)
		}
	}
	done := make([]byte, unix.NLMSG_HDRLEN+4)
	binary.NativeEndian.PutUint32(done, uint32(len(done)))
	binary.NativeEndian.PutUint16(done[4:], unix.NLMSG_DONE)
	two := slices.Concat(told(t, 0, packet, devs(7, 0)), told(t, 1, packet, devs(9, 7)), done)
	l := &links{}
	got, lost, err := run(t, l, reading{datagram: two}, reading{datagram: told(t, 2, packet, nil)})
	want := []nflog.Record{record("veth7", ""), record("#9", "veth7"), record("", "")}
	if err != nil || lost != 0 || !slices.Equal(got, want) {
		t.Errorf("%v, lost %d\n%+v, want\n%+v", err, lost, got, want)
	}
	if !slices.Equal(l.asked, []uint32{7, 9}) {
		t.Errorf("asked for the interfaces %v, want each once", l.asked)
	}
}

// TestLost: what the kernel could not keep for us is counted, as is what cannot be
// read, and neither ends the listening.
func TestLost(t *testing.T) {
	packet := ip4("0000", "06", ports)
	good := func(seq uint32) reading { return reading{datagram: told(t, seq, packet, nil)} }
	for name, c := range map[string]struct {
		in            []reading
		records, lost int
	}{
		"none":                     {[]reading{good(0), good(1)}, 2, 0},
		"an overrun":               {[]reading{good(0), {err: unix.ENOBUFS}, good(5), good(6)}, 3, 4},
		"before the first":         {[]reading{good(3)}, 1, 3},
		"timeouts":                 {[]reading{{err: nlbatch.ErrTimeout}, good(0)}, 1, 0},
		"a packet of no kind":      {[]reading{{datagram: told(t, 0, "0102", nil)}, good(1)}, 1, 1},
		"an attribute of odd size": {[]reading{{datagram: told(t, 0, packet, func(b *nlbatch.Batch) { b.Bytes(4, []byte{1}) })}, good(1)}, 1, 1},
		"somebody else's":          {[]reading{{datagram: told(t, 9, packet, nil), from: 77}, good(0)}, 1, 0},
		"a datagram cut short":     {[]reading{{datagram: told(t, 0, packet, nil)[:40]}, good(0)}, 1, 0},
		"another message":          {[]reading{{datagram: []byte(strings.Repeat("\x10\x00\x00\x00\x77\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", 3))}, good(0)}, 1, 0},
	} {
		got, lost, err := run(t, &links{}, c.in...)
		if err != nil || len(got) != c.records || lost != uint64(c.lost) {
			t.Errorf("%s: %d records, lost %d, %v; want %d, lost %d", name, len(got), lost, err, c.records, c.lost)
		}
	}
	_, _, err := run(t, &links{}, good(0), reading{err: unix.EBADF})
	if !errors.Is(err, unix.EBADF) || !strings.Contains(err.Error(), "NFLOG group 100") {
		t.Errorf("ended with %v", err)
	}
}

// FuzzRecords: no datagram panics, or goes round for ever.
func FuzzRecords(f *testing.F) {
	f.Add(told(f, 0, ip4("0000", "06", ports), func(b *nlbatch.Batch) { b.BE32(4, 7) }))
	f.Add(told(f, 1, ip6("2c", "1100 0009 00000007 "+ports), nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		records, _, err := run(t, &links{}, reading{datagram: b})
		if err != nil {
			t.Error(err)
		}
		for _, r := range records {
			if !r.Src.IsValid() || !r.Dst.IsValid() {
				t.Errorf("%+v", r)
			}
		}
	})
}
