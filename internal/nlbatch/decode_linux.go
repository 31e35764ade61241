package nlbatch

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Decoder walks over the attributes of a message. Its error sticks: read all
// there is and look at Err once. The zero value has no attributes.
//
//	d := nlbatch.Decode(payload)
//	for d.Next() {
//		switch d.Type() {
//		case attrPort:
//			port = d.BE16()
//		}
//	}
//	return d.Err()
type Decoder struct {
	rest []byte
	val  []byte
	typ  uint16
	err  error
}

// Decode begins with the attributes that stand in b. Values are parts of b.
func Decode(b []byte) Decoder { return Decoder{rest: b} }

// Next goes to the next attribute and reports whether there is one.
func (d *Decoder) Next() bool {
	if d.err != nil || len(d.rest) == 0 {
		return false
	}
	if len(d.rest) < unix.SizeofNlAttr {
		d.err = fmt.Errorf("attribute header cut short: %d bytes", len(d.rest))
		return false
	}
	length := int(binary.NativeEndian.Uint16(d.rest))
	if length < unix.SizeofNlAttr || length > len(d.rest) {
		d.err = fmt.Errorf("attribute of length %d in %d bytes", length, len(d.rest))
		return false
	}
	d.typ = binary.NativeEndian.Uint16(d.rest[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
	d.val = d.rest[unix.SizeofNlAttr:length]
	d.rest = d.rest[min(align(length), len(d.rest)):]
	return true
}

// Type is the attribute's type, without the flags for nests and byte order.
func (d *Decoder) Type() uint16 { return d.typ }

// Err is the first thing that was wrong.
func (d *Decoder) Err() error { return d.err }

// Fail makes err the decoder's error unless it has one already.
func (d *Decoder) Fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// Bytes is the attribute's value, a part of the decoded memory.
func (d *Decoder) Bytes() []byte { return d.val }

// Nested begins with the attributes inside this one.
func (d *Decoder) Nested() Decoder { return Decode(d.val) }

// U8 is a value of one byte.
func (d *Decoder) U8() uint8 {
	if v := d.sized(1); v != nil {
		return v[0]
	}
	return 0
}

// U16 is a 16-bit value in the machine's byte order.
func (d *Decoder) U16() uint16 {
	if v := d.sized(2); v != nil {
		return binary.NativeEndian.Uint16(v)
	}
	return 0
}

// U32 is a 32-bit value in the machine's byte order.
func (d *Decoder) U32() uint32 {
	if v := d.sized(4); v != nil {
		return binary.NativeEndian.Uint32(v)
	}
	return 0
}

// U64 is a 64-bit value in the machine's byte order.
func (d *Decoder) U64() uint64 {
	if v := d.sized(8); v != nil {
		return binary.NativeEndian.Uint64(v)
	}
	return 0
}

// BE16 is a 16-bit value in network byte order.
func (d *Decoder) BE16() uint16 {
	if v := d.sized(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

// BE32 is a 32-bit value in network byte order.
func (d *Decoder) BE32() uint32 {
	if v := d.sized(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

// String is the value up to its zero byte.
func (d *Decoder) String() string { return unix.ByteSliceToString(d.val) }

// Addr is an address of 4 or 16 bytes.
func (d *Decoder) Addr() netip.Addr {
	a, ok := netip.AddrFromSlice(d.val)
	if !ok {
		d.Fail(fmt.Errorf("attribute %d: address of %d bytes", d.typ, len(d.val)))
	}
	return a
}

func (d *Decoder) sized(n int) []byte {
	if len(d.val) != n {
		d.Fail(fmt.Errorf("attribute %d has %d bytes, not %d", d.typ, len(d.val), n))
		return nil
	}
	return d.val
}

func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }
