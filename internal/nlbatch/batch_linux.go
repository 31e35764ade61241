package nlbatch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"

	"golang.org/x/sys/unix"
)

// errAttrTooLong is kept with a message when one of its attributes, or a nest
// around them, outgrew the 16-bit length field.
var errAttrTooLong = errors.New("cannot be encoded: attribute longer than 65535 bytes")

// Batch is a list of netlink messages being built: Begin starts one, the
// attribute methods add to the one begun last. The zero value is an empty
// batch, Reset makes it one again and keeps the memory.
//
// All messages lie in one piece of memory, aligned as the kernel wants them,
// so a part of it can be sent as it is. A message that cannot be encoded is
// dropped and has its error in Do's result; the others are not concerned.
type Batch struct {
	buf    []byte
	starts []int // where each message begins; a dropped one has no length
	nests  []int // where the open nested attributes begin
	bad    map[int]error
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	b.buf, b.starts, b.nests = b.buf[:0], b.starts[:0], b.nests[:0]
	b.bad = nil
}

// Len is the number of messages begun, those included that could not be encoded.
func (b *Batch) Len() int { return len(b.starts) }

// Begin starts a message of a type (for generic netlink: the family's id) and
// its flags; NLM_F_REQUEST is always set, NLM_F_ACK is the Conn's affair. The
// header is the family's fixed one (genlmsghdr, ifaddrmsg, rtmsg, nfgenmsg).
func (b *Batch) Begin(typ, flags uint16, header ...byte) {
	b.seal()
	b.starts = append(b.starts, len(b.buf))
	b.buf = append(b.buf, make([]byte, unix.NLMSG_HDRLEN)...)
	h := b.buf[len(b.buf)-unix.NLMSG_HDRLEN:]
	binary.NativeEndian.PutUint16(h[4:], typ)
	binary.NativeEndian.PutUint16(h[6:], flags|unix.NLM_F_REQUEST)
	b.buf = append(b.buf, header...)
	b.pad()
}

// Bytes adds an attribute with these bytes as they are.
func (b *Batch) Bytes(typ uint16, v []byte) {
	b.attr(typ, len(v))
	b.buf = append(b.buf, v...)
	b.pad()
}

// U8 adds an attribute of one byte.
func (b *Batch) U8(typ uint16, v uint8) {
	b.attr(typ, 1)
	b.buf = append(b.buf, v, 0, 0, 0)
}

// U16 adds a 16-bit attribute in the machine's byte order.
func (b *Batch) U16(typ uint16, v uint16) {
	b.attr(typ, 2)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, v)
	b.pad()
}

// U32 adds a 32-bit attribute in the machine's byte order.
func (b *Batch) U32(typ uint16, v uint32) {
	b.attr(typ, 4)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, v)
}

// U64 adds a 64-bit attribute in the machine's byte order.
func (b *Batch) U64(typ uint16, v uint64) {
	b.attr(typ, 8)
	b.buf = binary.NativeEndian.AppendUint64(b.buf, v)
}

// BE16 adds a 16-bit attribute in network byte order. It does not mark it as
// such: ipset demands NLA_F_NET_BYTEORDER in the type, IPVS ports have none.
func (b *Batch) BE16(typ uint16, v uint16) {
	b.attr(typ, 2)
	b.buf = binary.BigEndian.AppendUint16(b.buf, v)
	b.pad()
}

// BE32 adds a 32-bit attribute in network byte order; see BE16.
func (b *Batch) BE32(typ uint16, v uint32) {
	b.attr(typ, 4)
	b.buf = binary.BigEndian.AppendUint32(b.buf, v)
}

// String adds a string and the zero byte that ends it.
func (b *Batch) String(typ uint16, v string) {
	b.attr(typ, len(v)+1)
	b.buf = append(b.buf, v...)
	b.buf = append(b.buf, 0)
	b.pad()
}

// Addr adds an address: 4 bytes, or 16.
func (b *Batch) Addr(typ uint16, v netip.Addr) {
	if v.Is4() {
		a := v.As4()
		b.Bytes(typ, a[:])
		return
	}
	a := v.As16()
	b.Bytes(typ, a[:])
}

// Nest opens a nested attribute: what follows goes into it, until End.
func (b *Batch) Nest(typ uint16) {
	b.nests = append(b.nests, len(b.buf))
	b.attr(typ|unix.NLA_F_NESTED, 0)
}

// End closes the nested attribute opened last. A message's end closes all
// that are left open.
func (b *Batch) End() {
	last := len(b.nests) - 1
	start := b.nests[last]
	b.nests = b.nests[:last]
	length := len(b.buf) - start
	if length > math.MaxUint16 {
		b.Fail(errAttrTooLong)
		return
	}
	binary.NativeEndian.PutUint16(b.buf[start:], uint16(length))
}

func (b *Batch) attr(typ uint16, length int) {
	length += unix.SizeofNlAttr
	if length > math.MaxUint16 {
		b.Fail(errAttrTooLong)
	}
	b.buf = binary.NativeEndian.AppendUint16(b.buf, uint16(length)) // a message with a longer one is dropped
	b.buf = binary.NativeEndian.AppendUint16(b.buf, typ)
}

func (b *Batch) pad() {
	for len(b.buf)%unix.NLMSG_ALIGNTO != 0 {
		b.buf = append(b.buf, 0)
	}
}

// Fail drops the message begun last: it keeps its place in Do's result, and has
// err there (the first one, when there are several).
func (b *Batch) Fail(err error) {
	i := len(b.starts) - 1
	if b.bad == nil {
		b.bad = make(map[int]error)
	}
	if b.bad[i] == nil {
		b.bad[i] = fmt.Errorf("%w: %w", ErrNotSent, err)
	}
}

// seal finishes the message begun last.
func (b *Batch) seal() {
	if len(b.starts) == 0 {
		return
	}
	for len(b.nests) > 0 {
		b.End()
	}
	i := len(b.starts) - 1
	start := b.starts[i]
	if b.bad[i] != nil {
		b.buf = b.buf[:start]
		return
	}
	if start < len(b.buf) {
		binary.NativeEndian.PutUint32(b.buf[start:], uint32(len(b.buf)-start)) // far below 4 GiB
	}
}

// end is where message i ends.
func (b *Batch) end(i int) int {
	if i+1 < len(b.starts) {
		return b.starts[i+1]
	}
	return len(b.buf)
}

// Message is message i as it is sent, netlink header included; nothing when it
// cannot be encoded. It is valid until the batch is changed.
func (b *Batch) Message(i int) []byte {
	b.seal()
	return b.buf[b.starts[i]:b.end(i)]
}
