package nlbatch

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func newConn(w *wire, messages int) *Conn {
	return New(w, Options{Messages: messages, Timeout: time.Second, Port: testPort})
}

// batchOf makes n small messages.
func batchOf(n int) *Batch {
	var b Batch
	for i := range n {
		b.Begin(30, 0, 1, 1, 0, 0)
		b.U32(1, uint32(i))
	}
	return &b
}

// kinds writes each error in one letter: . done, r refused, ? unknown, - not sent.
func kinds(errs []error) string {
	s := make([]byte, len(errs))
	for i, err := range errs {
		var refused *Error
		switch {
		case err == nil:
			s[i] = '.'
		case errors.Is(err, ErrUnknown):
			s[i] = '?'
		case errors.Is(err, ErrNotSent):
			s[i] = '-'
		case errors.As(err, &refused):
			s[i] = 'r'
		default:
			s[i] = '!'
		}
	}
	return string(s)
}

func TestDo(t *testing.T) {
	for _, tt := range []struct {
		name   string
		n      int
		kernel func([]request) []any
		want   string
	}{
		{"nothing", 0, obedient(nil), ""},
		{"one", 1, obedient(nil), "."},
		{"one refused", 1, obedient(map[int]unix.Errno{0: unix.EEXIST}), "r"},
		{"two datagrams", 6, obedient(nil), "......"},
		{"refused within", 6, obedient(map[int]unix.Errno{1: unix.EEXIST, 5: unix.ENOENT}), ".r...r"},
		{"refused at a datagram's end", 6, obedient(map[int]unix.Errno{3: unix.EEXIST}), "...r.."},
		{"all refused", 5, obedient(map[int]unix.Errno{0: 1, 1: 1, 2: 1, 3: 1, 4: 1}), "rrrrr"},
		{"answers in one datagram", 4, func(m []request) []any {
			return []any{join(ack(m[1], unix.EPERM), ack(m[3], 0))}
		}, ".r.."},
		{"answers of other exchanges and senders", 4, func(m []request) []any {
			stale, other := m[0], m[1]
			stale.seq -= 5
			wrongPort := ack(other, unix.EPERM)
			binary.NativeEndian.PutUint32(wrongPort[12:], testPort+1)
			return []any{ack(stale, unix.EPERM), foreign(ack(other, unix.EPERM)), wrongPort, ack(m[3], 0)}
		}, "...."},
		{"end lost: fate unknown, the rest not sent", 8, func(m []request) []any {
			return []any{ack(m[1], unix.EEXIST)}
		}, "?r??----"},
		{"queue overflowed: end arrived", 4, func(m []request) []any {
			return []any{ack(m[0], unix.EEXIST), unix.ENOBUFS, ack(m[3], 0)}
		}, "r??."},
		{"queue overflowed: end lost, next datagram goes on", 6, func(m []request) []any {
			if m[0].seq == 1 {
				return []any{ack(m[0], unix.EEXIST), unix.ENOBUFS}
			}
			return []any{ack(m[1], 0)}
		}, "r???.."},
		{"malformed answer", 4, func(m []request) []any {
			return []any{ack(m[0], unix.EEXIST), []byte{1, 2, 3}}
		}, "r???"},
		{"answer cut short", 2, func(m []request) []any {
			return []any{make([]byte, receiveSize+1)}
		}, "??"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newConn(&wire{kernel: tt.kernel}, 4)
				if got := kinds(c.Do(t.Context(), batchOf(tt.n))); got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			})
		})
	}
}

func TestDoAsksForOneACKPerDatagram(t *testing.T) {
	w := &wire{kernel: obedient(nil)}
	c := newConn(w, 4)
	b := batchOf(10)
	for range 2 { // again: flags of the last time are gone
		w.sent = nil
		if got := kinds(c.Do(t.Context(), b)); got != ".........." {
			t.Fatal(got)
		}
		var asked []int
		n := 0
		for _, d := range w.sent {
			for _, m := range d {
				if m.flags&unix.NLM_F_ACK != 0 {
					asked = append(asked, n)
				}
				n++
			}
		}
		if !slices.Equal(asked, []int{3, 7, 9}) {
			t.Errorf("ACK asked by %v", asked)
		}
	}
	if got := c.Sent(); got != (Counters{Messages: 20, Datagrams: 6}) {
		t.Errorf("counted %+v", got)
	}
}

func TestDoBoundsBytes(t *testing.T) {
	w := &wire{kernel: obedient(nil)}
	c := New(w, Options{Bytes: 200, Port: testPort})
	var b Batch
	for _, size := range []int{60, 60, 60, 500, 60} { // 84 bytes with headers
		b.Begin(30, 0)
		b.Bytes(1, make([]byte, size))
	}
	if got := kinds(c.Do(t.Context(), &b)); got != "....." {
		t.Fatal(got)
	}
	var sizes []int
	for _, d := range w.sent {
		sizes = append(sizes, len(d))
	}
	if !slices.Equal(sizes, []int{2, 1, 1, 1}) {
		t.Errorf("messages per datagram: %v", sizes)
	}
}

func TestDoDropsWhatCannotBeEncoded(t *testing.T) {
	w := &wire{kernel: obedient(map[int]unix.Errno{1: unix.EEXIST})}
	var b Batch
	b.Begin(30, 0)
	b.U8(1, 1)
	b.Begin(30, 0)
	b.Nest(1)
	b.Bytes(2, make([]byte, 1<<16))
	b.U8(3, 1)
	b.Begin(30, 0)
	b.U8(1, 2)
	b.Begin(30, 0)
	b.Nest(1)
	b.Bytes(2, make([]byte, 40000))
	b.Bytes(2, make([]byte, 40000))
	errs := newConn(w, 64).Do(t.Context(), &b)
	if got := kinds(errs); got != ".-r-" {
		t.Errorf("got %q: %v", got, errs)
	}
	if len(w.sent) != 1 || len(w.sent[0]) != 2 {
		t.Errorf("sent %v", w.sent)
	}
	if got := kinds(newConn(w, 64).Do(t.Context(), &b)); got != ".-.-" {
		t.Errorf("again: %q", got)
	}
}

func TestDoSendFails(t *testing.T) {
	errs := newConn(&wire{sendErr: unix.ENOBUFS}, 2).Do(t.Context(), batchOf(3))
	if kinds(errs) != "---" || !errors.Is(errs[2], unix.ENOBUFS) {
		t.Error(errs)
	}
}

func TestDoDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := func([]request) []any { return nil }
		begin := time.Now()
		errs := newConn(&wire{kernel: silent}, 2).Do(t.Context(), batchOf(3))
		if kinds(errs) != "??-" || !errors.Is(errs[0], ErrTimeout) || time.Since(begin) != time.Second {
			t.Errorf("own timeout: %v after %v", errs, time.Since(begin))
		}

		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		begin = time.Now()
		errs = newConn(&wire{kernel: silent}, 2).Do(ctx, batchOf(3))
		if kinds(errs) != "??-" || time.Since(begin) > 400*time.Millisecond {
			t.Errorf("context's deadline: %v after %v", errs, time.Since(begin))
		}

		w := &wire{}
		errs = newConn(w, 2).Do(ctx, batchOf(3))
		if kinds(errs) != "---" || !errors.Is(errs[0], context.DeadlineExceeded) || len(w.sent) != 0 {
			t.Errorf("context at its end before: %v", errs)
		}
	})
}

// A late answer of an abandoned exchange is not taken for one of the next.
func TestDoAfterTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late []any
		w := &wire{}
		w.kernel = func(m []request) []any {
			late = append(late, ack(m[0], unix.EPERM), ack(m[1], 0))
			return nil
		}
		c := newConn(w, 2)
		if got := kinds(c.Do(t.Context(), batchOf(2))); got != "??" {
			t.Fatal(got)
		}
		w.queue = append(w.queue, late...)
		w.kernel = obedient(nil)
		if got := kinds(c.Do(t.Context(), batchOf(2))); got != ".." {
			t.Error(got)
		}
	})
}

func TestErrorText(t *testing.T) {
	for _, tt := range []struct {
		name   string
		flags  uint16
		echoed []byte // what follows the refused message's header
		tlvs   bool
		want   string
	}{
		{"no text", unix.NLM_F_CAPPED, nil, false, "file exists"},
		{"capped", unix.NLM_F_CAPPED | unix.NLM_F_ACK_TLVS, nil, true, "file exists (kernel: too much)"},
		{"whole message echoed", unix.NLM_F_ACK_TLVS, []byte{1, 2, 3, 4, 5, 6, 7, 8}, true, "file exists (kernel: too much)"},
		{"promised, not there", unix.NLM_F_ACK_TLVS, nil, false, "file exists"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newConn(&wire{kernel: func(m []request) []any {
				p := binary.NativeEndian.AppendUint32(nil, uint32(0xFFFFFFFF-uint32(unix.EEXIST)+1))
				p = append(p, msg(m[0].typ, 0, m[0].seq, tt.echoed...)...)
				if tt.tlvs {
					var text Batch
					text.String(unix.NLMSGERR_ATTR_MSG, "too much")
					p = append(p, text.buf...)
				}
				return []any{msg(unix.NLMSG_ERROR, tt.flags, m[0].seq, p...)}
			}}, 1)
			err := c.Do(t.Context(), batchOf(1))[0]
			if err == nil || err.Error() != tt.want || !errors.Is(err, unix.EEXIST) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestDump(t *testing.T) {
	multi := uint16(unix.NLM_F_MULTI)
	part := func(m request, flags uint16, b byte) []byte { return msg(30, multi|flags, m.seq, b, 0, 0, 0) }
	end := func(m request, code int32) []byte {
		return msg(unix.NLMSG_DONE, multi, m.seq, binary.NativeEndian.AppendUint32(nil, uint32(code))...)
	}
	for _, tt := range []struct {
		name   string
		kernel func(m request) []any
		want   []byte
		err    error // nil: none
	}{
		{"empty", func(m request) []any { return []any{end(m, 0)} }, nil, nil},
		{"parts", func(m request) []any {
			return []any{join(part(m, 0, 1), part(m, 0, 2)), part(m, 0, 3), end(m, 0)}
		}, []byte{1, 2, 3}, nil},
		{"end with the last part", func(m request) []any { return []any{join(part(m, 0, 1), end(m, 0))} }, []byte{1}, nil},
		{"other exchanges and senders", func(m request) []any {
			stale := m
			stale.seq--
			return []any{part(stale, 0, 9), end(stale, 0), foreign(part(m, 0, 9)), part(m, 0, 1), end(m, 0)}
		}, []byte{1}, nil},
		{"changed meanwhile", func(m request) []any {
			return []any{part(m, 0, 1), part(m, unix.NLM_F_DUMP_INTR, 2), part(m, 0, 3), end(m, 0)}
		}, []byte{1}, ErrInterrupted},
		{"changed at the end", func(m request) []any {
			return []any{part(m, 0, 1), msg(unix.NLMSG_DONE, multi|unix.NLM_F_DUMP_INTR, m.seq, 0, 0, 0, 0)}
		}, []byte{1}, ErrInterrupted},
		{"part lost", func(m request) []any { return []any{part(m, 0, 1), unix.ENOBUFS, end(m, 0)} }, []byte{1}, ErrInterrupted},
		{"overrun message", func(m request) []any {
			return []any{msg(unix.NLMSG_OVERRUN, 0, m.seq), end(m, 0)}
		}, nil, ErrInterrupted},
		{"part too long", func(m request) []any { return []any{make([]byte, receiveSize+4), end(m, 0)} }, nil, ErrInterrupted},
		{"end lost", func(m request) []any { return []any{part(m, 0, 1)} }, []byte{1}, ErrTimeout},
		{"error at the end", func(m request) []any { return []any{part(m, 0, 1), end(m, -int32(unix.EPERM))} }, []byte{1}, unix.EPERM},
		{"refused", func(m request) []any { return []any{ack(m, unix.EOPNOTSUPP)} }, nil, unix.EOPNOTSUPP},
		{"malformed", func(m request) []any { return []any{part(m, 0, 1), []byte{255, 0, 0, 0}} }, []byte{1}, errMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &wire{kernel: func(m []request) []any {
					if m[0].flags&unix.NLM_F_DUMP != unix.NLM_F_DUMP {
						t.Errorf("flags %#x", m[0].flags)
					}
					return tt.kernel(m[0])
				}}
				c := newConn(w, 4)
				c.seq = 1
				var got []byte
				err := c.Dump(t.Context(), batchOf(1), func(m []byte) error { got = append(got, m[0]); return nil })
				if !errors.Is(err, tt.err) || !slices.Equal(got, tt.want) {
					t.Errorf("got %v, %v; want %v, %v", got, err, tt.want, tt.err)
				}
				w.kernel = obedient(nil)
				if got := kinds(c.Do(t.Context(), batchOf(2))); got != ".." {
					t.Errorf("afterwards: %q", got)
				}
			})
		})
	}
}

// The kernel refuses a second dump while the first is unfinished, so that the
// rest is read although nobody wants it any more.
func TestDumpReadsOnAfterConsumersError(t *testing.T) {
	w := &wire{kernel: func(m []request) []any {
		return []any{msg(30, unix.NLM_F_MULTI, m[0].seq, 1), msg(30, unix.NLM_F_MULTI, m[0].seq, 2),
			msg(unix.NLMSG_DONE, unix.NLM_F_MULTI, m[0].seq, 0, 0, 0, 0)}
	}}
	calls := 0
	enough := errors.New("enough")
	err := newConn(w, 1).Dump(t.Context(), batchOf(1), func([]byte) error { calls++; return enough })
	if !errors.Is(err, enough) || calls != 1 || len(w.queue) != 0 {
		t.Errorf("%v after %d calls, %d left", err, calls, len(w.queue))
	}
}

func TestGet(t *testing.T) {
	w := &wire{kernel: func(m []request) []any { return []any{msg(30, 0, m[0].seq, 7), ack(m[0], 0)} }}
	var got []byte
	err := newConn(w, 1).Get(t.Context(), batchOf(1), func(m []byte) error { got = append(got, m[0]); return nil })
	if err != nil || !slices.Equal(got, []byte{7}) || w.sent[0][0].flags&unix.NLM_F_ACK == 0 {
		t.Error(got, err)
	}
	w.kernel = obedient(map[int]unix.Errno{0: unix.ESRCH})
	if err := newConn(w, 1).Get(t.Context(), batchOf(1), nil); !errors.Is(err, unix.ESRCH) {
		t.Error(err)
	}
	if err := newConn(w, 1).Get(t.Context(), batchOf(2), nil); !errors.Is(err, ErrNotSent) {
		t.Error(err)
	}
}
