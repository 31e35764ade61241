package nlbatch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// The defaults of Options.
const (
	DefaultMessages = 64
	DefaultBytes    = 64 << 10
	DefaultTimeout  = 5 * time.Second
)

// receiveSize holds the largest dump part: the kernel makes none above 32 KiB
// unless one object alone needs more.
const receiveSize = 64 << 10

// Options bounds what a Conn sends and how long it waits. Zero values stand
// for the defaults.
type Options struct {
	Messages int           // in one datagram
	Bytes    int           // in one datagram, unless one message alone has more
	Timeout  time.Duration // for the answer to one datagram or the next part of a dump
	Port     uint32        // our port id, which the kernel's answers carry; 0: not checked
}

// Conn is a netlink socket of one family. It is for one goroutine at a time.
type Conn struct {
	sock                Socket
	opt                 Options
	buf                 []byte
	seq                 uint32 // of the message sent last
	stale               bool   // an abandoned exchange may have left answers in the queue
	messages, datagrams atomic.Uint64
}

// Counters tells what was written over the wire, for operation budgets in
// tests and for metrics. Reading (Get, Dump) does not count.
type Counters struct {
	Messages  uint64
	Datagrams uint64
}

// Dial opens a socket of a family (unix.NETLINK_GENERIC, unix.NETLINK_ROUTE,
// unix.NETLINK_NETFILTER) in the calling thread's network namespace.
func Dial(family int) (*Conn, error) {
	sock, port, limit, err := openSocket(family)
	if err != nil {
		return nil, err
	}
	return New(sock, Options{Port: port, Bytes: min(DefaultBytes, limit)}), nil
}

// New makes a Conn over any wire.
func New(sock Socket, opt Options) *Conn {
	if opt.Messages <= 0 {
		opt.Messages = DefaultMessages
	}
	if opt.Bytes <= 0 {
		opt.Bytes = DefaultBytes
	}
	if opt.Timeout <= 0 {
		opt.Timeout = DefaultTimeout
	}
	return &Conn{sock: sock, opt: opt, buf: make([]byte, receiveSize)}
}

// Close closes the socket.
func (c *Conn) Close() error { return c.sock.Close() }

// Sent is what was written over the wire so far. It may be called from any
// goroutine.
func (c *Conn) Sent() Counters {
	return Counters{Messages: c.messages.Load(), Datagrams: c.datagrams.Load()}
}

// Do sends the messages of a batch in order, many in one datagram, and
// returns one error for each (see the package comment for the kinds). The
// batch can be sent again or Reset afterwards.
//
// A lost answer leaves the fate of at most one datagram's messages unknown;
// after a timeout nothing more is sent.
func (c *Conn) Do(ctx context.Context, b *Batch) []error {
	b.seal()
	errs := make([]error, b.Len())
	for i, err := range b.bad {
		errs[i] = err
	}
	c.drain()
	for from := 0; from < b.Len(); {
		to := c.cut(b, from)
		err := ended(ctx)
		if err == nil {
			err = c.exchange(ctx, b, from, errs[from:to])
		} else {
			to = from
		}
		if err != nil {
			fill(errs[to:], fmt.Errorf("%w: %w", ErrNotSent, err))
			break
		}
		from = to
	}
	return errs
}

// cut finds the end of the datagram that begins with message from: at least
// one message.
func (c *Conn) cut(b *Batch, from int) int {
	to := from + 1
	for to < b.Len() && to-from < c.opt.Messages && b.end(to)-b.starts[from] <= c.opt.Bytes {
		to++
	}
	return to
}

// exchange sends len(errs) messages as one datagram and fills in the error of
// each. Its own error means that waiting any further is useless.
func (c *Conn) exchange(ctx context.Context, b *Batch, from int, errs []error) error {
	p := pending{first: c.seq + 1, errs: errs, last: -1}
	for i := range errs {
		c.seq++
		m := b.Message(from + i)
		if len(m) == 0 {
			continue // could not be encoded, has its error
		}
		binary.NativeEndian.PutUint32(m[8:], c.seq)
		setFlag(m, unix.NLM_F_ACK, false)
		p.last = i
		c.messages.Add(1)
	}
	if p.last < 0 {
		return nil
	}
	setFlag(b.Message(from+p.last), unix.NLM_F_ACK, true)
	c.datagrams.Add(1)
	if err := c.sock.Send(b.buf[b.starts[from]:b.end(from+len(errs)-1)]); err != nil {
		fill(errs, fmt.Errorf("%w: %w", ErrNotSent, err))
		return nil
	}
	return c.collect(newWaiter(ctx, c.opt.Timeout), &p)
}

// pending is a datagram whose answers are being read.
type pending struct {
	first uint32 // sequence number of its first message
	last  int    // the message that asked for an ACK
	errs  []error
	ended bool
	lost  error // why answers are missing
}

func (p *pending) message(h header, payload []byte) {
	i := h.seq - p.first
	switch {
	case h.typ == unix.NLMSG_OVERRUN:
		p.lost = unix.ENOBUFS
	case h.typ == unix.NLMSG_ERROR && i < uint32(len(p.errs)): // at most Options.Messages
		if err := answer(h.flags, payload); err != nil {
			p.errs[i] = err
		}
		p.ended = p.ended || int(i) == p.last
	}
}

// settle gives ErrUnknown to the messages whose answer may be among what was
// lost: an acknowledged end says nothing about a refusal dropped before it.
func (p *pending) settle() {
	if p.lost == nil {
		return
	}
	upTo := len(p.errs)
	if p.ended {
		upTo = p.last // its own answer arrived
	}
	fill(p.errs[:upTo], fmt.Errorf("%w: %w", ErrUnknown, p.lost))
}

// collect reads answers until the datagram's last one.
func (c *Conn) collect(w waiter, p *pending) error {
	defer p.settle()
	for !p.ended {
		err := c.receive(w, p.message)
		switch {
		case err == nil:
		case overrun(err):
			// The kernel worked on everything inside our send call, so that
			// whatever survived is here: look at it, but wait for no more.
			p.lost = err
			w.deadline = time.Now()
		case errors.Is(err, ErrTimeout) && p.lost != nil:
			c.stale = true
			return nil
		default:
			p.lost = err
			c.stale = true
			if errors.Is(err, ErrTimeout) {
				return err
			}
			return nil
		}
	}
	return nil
}

// Get sends one request and gives fn every message that answers it, without
// its netlink header. The slice is reused once fn returns. fn's error becomes
// Get's, after the rest was read.
func (c *Conn) Get(ctx context.Context, b *Batch, fn func(msg []byte) error) error {
	return c.request(ctx, b, unix.NLM_F_ACK, fn)
}

// Dump is Get for a whole table (NLM_F_DUMP). A table that changed meanwhile
// (NLM_F_DUMP_INTR), or of which a part was lost, is ErrInterrupted: what fn
// was given then may lack entries and is no observation.
func (c *Conn) Dump(ctx context.Context, b *Batch, fn func(msg []byte) error) error {
	return c.request(ctx, b, unix.NLM_F_DUMP, fn)
}

func (c *Conn) request(ctx context.Context, b *Batch, flags uint16, fn func([]byte) error) error {
	b.seal()
	if b.Len() != 1 {
		return fmt.Errorf("%w: a request is one message, not %d", ErrNotSent, b.Len())
	}
	if err := errors.Join(b.bad[0], ended(ctx)); err != nil {
		return err
	}
	c.drain()
	m := b.Message(0)
	c.seq++
	binary.NativeEndian.PutUint32(m[8:], c.seq)
	setFlag(m, flags, true)
	if err := c.sock.Send(m); err != nil {
		return fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	return c.replies(ctx, fn)
}

// replies reads until the request's end. It reads on after a failure, because
// the kernel refuses a second dump on a socket whose first one is unfinished.
func (c *Conn) replies(ctx context.Context, fn func([]byte) error) error {
	r := reply{seq: c.seq, fn: fn}
	for !r.ended {
		err := c.receive(newWaiter(ctx, c.opt.Timeout), r.message)
		switch {
		case errors.Is(err, ErrTimeout):
			c.stale = true
			return fmt.Errorf("%w: %w", ErrInterrupted, err)
		case overrun(err), errors.Is(err, errTruncated):
			r.fail(fmt.Errorf("%w: %w", ErrInterrupted, err))
		case err != nil:
			c.stale = true
			return err
		}
	}
	return r.err
}

// reply is a request's answer as far as it was read.
type reply struct {
	seq   uint32
	fn    func([]byte) error
	ended bool
	err   error // the first
}

func (r *reply) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reply) message(h header, payload []byte) {
	if h.seq != r.seq || r.ended {
		return
	}
	if h.flags&unix.NLM_F_DUMP_INTR != 0 && h.typ != unix.NLMSG_ERROR {
		r.fail(ErrInterrupted)
	}
	switch h.typ {
	case unix.NLMSG_DONE:
		r.ended = true
		if err := done(h.flags, payload); err != nil {
			r.fail(err)
		}
	case unix.NLMSG_ERROR:
		r.ended = true
		if err := answer(h.flags, payload); err != nil {
			r.fail(err)
		}
	case unix.NLMSG_OVERRUN:
		r.fail(fmt.Errorf("%w: %w", ErrInterrupted, unix.ENOBUFS))
	case unix.NLMSG_NOOP:
	default:
		if r.err == nil {
			r.err = r.fn(payload)
		}
	}
}

// header is what we use of a netlink header.
type header struct {
	typ, flags uint16
	seq        uint32
}

// receive reads one datagram and gives fn each message in it that the kernel
// sent to us.
func (c *Conn) receive(w waiter, fn func(h header, payload []byte)) error {
	n, from, err := w.receive(c.sock, c.buf)
	if err != nil {
		return err
	}
	if from != 0 {
		return nil // any process may write to our socket; only the kernel's word counts
	}
	if n > len(c.buf) {
		return errTruncated
	}
	for rest := c.buf[:n]; len(rest) > 0; {
		if len(rest) < unix.NLMSG_HDRLEN {
			return errMalformed
		}
		length := int(binary.NativeEndian.Uint32(rest))
		if length < unix.NLMSG_HDRLEN || length > len(rest) {
			return errMalformed
		}
		h := header{
			typ:   binary.NativeEndian.Uint16(rest[4:]),
			flags: binary.NativeEndian.Uint16(rest[6:]),
			seq:   binary.NativeEndian.Uint32(rest[8:]),
		}
		port := binary.NativeEndian.Uint32(rest[12:])
		if c.opt.Port == 0 || port == c.opt.Port {
			fn(h, rest[unix.NLMSG_HDRLEN:length])
		}
		rest = rest[min(align(length), len(rest)):]
	}
	return nil
}

// drain throws away what an abandoned exchange left in the queue. Reading is
// also what makes the kernel go on with an abandoned dump and finish it.
func (c *Conn) drain() {
	if !c.stale {
		return
	}
	const most = 1 << 16 // datagrams; a table never ends up here unless something floods us
	for range most {
		if _, _, err := c.sock.Receive(c.buf, 0); err != nil && !overrun(err) {
			break
		}
	}
	c.stale = false
}

func overrun(err error) bool { return errors.Is(err, unix.ENOBUFS) }

func setFlag(m []byte, flag uint16, on bool) {
	flags := binary.NativeEndian.Uint16(m[6:]) &^ flag
	if on {
		flags |= flag
	}
	binary.NativeEndian.PutUint16(m[6:], flags)
}

// fill gives err to all that have none.
func fill(errs []error, err error) {
	for i := range errs {
		if errs[i] == nil {
			errs[i] = err
		}
	}
}
