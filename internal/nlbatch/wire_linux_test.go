package nlbatch

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"
)

const testPort = 4711

// wire is a kernel made of a function: it gets each datagram's messages and
// answers with datagrams or errors, in the order to be received.
type wire struct {
	kernel  func(msgs []request) []any // []byte, a datagram; error; foreign
	queue   []any
	sent    [][]request
	sendErr error
}

// request is one message as the kernel sees it.
type request struct {
	typ, flags uint16
	seq        uint32
	payload    []byte
}

// foreign is a datagram from another process.
type foreign []byte

func (w *wire) Send(d []byte) error {
	if w.sendErr != nil {
		return w.sendErr
	}
	var msgs []request
	for len(d) > 0 {
		n := int(binary.NativeEndian.Uint32(d))
		msgs = append(msgs, request{
			typ:     binary.NativeEndian.Uint16(d[4:]),
			flags:   binary.NativeEndian.Uint16(d[6:]),
			seq:     binary.NativeEndian.Uint32(d[8:]),
			payload: append([]byte(nil), d[16:n]...),
		})
		d = d[n:]
	}
	w.sent = append(w.sent, msgs)
	if w.kernel != nil {
		w.queue = append(w.queue, w.kernel(msgs)...)
	}
	return nil
}

func (w *wire) Receive(buf []byte, wait time.Duration) (int, uint32, error) {
	if len(w.queue) == 0 {
		time.Sleep(max(wait, 0)) // in a synctest bubble
		return 0, 0, ErrTimeout
	}
	next := w.queue[0]
	w.queue = w.queue[1:]
	switch v := next.(type) {
	case error:
		return 0, 0, v
	case foreign:
		copy(buf, v)
		return len(v), 99, nil
	case []byte:
		copy(buf, v)
		return len(v), 0, nil
	}
	panic("unknown queue entry")
}

func (w *wire) Close() error { return nil }

// msg makes one netlink message to us.
func msg(typ, flags uint16, seq uint32, payload ...byte) []byte {
	b := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(payload))
	binary.NativeEndian.PutUint32(b, uint32(unix.NLMSG_HDRLEN+len(payload)))
	binary.NativeEndian.PutUint16(b[4:], typ)
	binary.NativeEndian.PutUint16(b[6:], flags)
	binary.NativeEndian.PutUint32(b[8:], seq)
	binary.NativeEndian.PutUint32(b[12:], testPort)
	b = append(b, payload...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// ack makes an NLMSG_ERROR with the header of what it answers, capped.
func ack(r request, errno unix.Errno) []byte {
	p := binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno)))
	p = append(p, msg(r.typ, r.flags, r.seq)...)
	return msg(unix.NLMSG_ERROR, unix.NLM_F_CAPPED, r.seq, p...)
}

// obedient answers as the kernel does: refusals as verdict says (by the
// number of the message, counted from 0 over all datagrams), and an ACK where
// one is asked for.
func obedient(verdict map[int]unix.Errno) func([]request) []any {
	n := 0
	return func(msgs []request) []any {
		var out []any
		for _, m := range msgs {
			errno := verdict[n]
			n++
			if errno != 0 || m.flags&unix.NLM_F_ACK != 0 {
				out = append(out, ack(m, errno))
			}
		}
		return out
	}
}

func join(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// quiet is a wire that acknowledges everything and allocates nothing.
type quiet struct{ answer [36]byte }

func (q *quiet) Send(d []byte) error {
	var last []byte
	for rest := d; len(rest) > 0; rest = rest[binary.NativeEndian.Uint32(rest):] {
		last = rest
	}
	binary.NativeEndian.PutUint32(q.answer[:], uint32(len(q.answer)))
	binary.NativeEndian.PutUint16(q.answer[4:], unix.NLMSG_ERROR)
	copy(q.answer[8:12], last[8:12])
	return nil
}

func (q *quiet) Receive(buf []byte, _ time.Duration) (int, uint32, error) {
	return copy(buf, q.answer[:]), 0, nil
}

func (q *quiet) Close() error { return nil }
