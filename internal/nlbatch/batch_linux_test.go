package nlbatch

import (
	"bytes"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func TestBatchLayout(t *testing.T) {
	if binary16(1)[0] != 1 {
		t.Log("big-endian machine: the literal bytes are for little-endian ones")
		return
	}
	var b Batch
	b.Begin(30, unix.NLM_F_CREATE, 1, 1, 0, 0)
	b.Nest(1)
	b.U8(2, 0xAA)
	b.BE16(3, 80)
	b.String(4, "rr")
	b.End()
	b.U16(5, 0x1234)
	b.seal()
	want := []byte{
		56, 0, 0, 0, 30, 0, 0x01, 0x04, 0, 0, 0, 0, 0, 0, 0, 0, // header
		1, 1, 0, 0, // genlmsghdr
		28, 0, 1, 0x80, // nest
		5, 0, 2, 0, 0xAA, 0, 0, 0,
		6, 0, 3, 0, 0, 80, 0, 0,
		7, 0, 4, 0, 'r', 'r', 0, 0,
		6, 0, 5, 0, 0x34, 0x12, 0, 0,
	}
	if !bytes.Equal(b.Message(0), want) {
		t.Errorf("got  %v\nwant %v", b.Message(0), want)
	}
}

func binary16(v uint16) []byte {
	var b Batch
	b.U16(0, v)
	return b.buf[4:6]
}

// Whatever is encoded is decoded again, in nests and behind other messages.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type value struct {
			U8         uint8
			U16, BE16  uint16
			U32, BE32  uint32
			U64        uint64
			Str        string
			Addr       netip.Addr
			Bytes      []byte
			Nested     bool
			HeaderSize int
		}
		addr := rapid.Custom(func(t *rapid.T) netip.Addr {
			b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "addr")
			if rapid.Bool().Draw(t, "v4") {
				b = b[:4]
			}
			a, _ := netip.AddrFromSlice(b)
			return a
		})
		v := value{
			rapid.Uint8().Draw(t, "u8"), rapid.Uint16().Draw(t, "u16"), rapid.Uint16().Draw(t, "be16"),
			rapid.Uint32().Draw(t, "u32"), rapid.Uint32().Draw(t, "be32"), rapid.Uint64().Draw(t, "u64"),
			rapid.StringMatching(`[a-z]{0,20}`).Draw(t, "str"), addr.Draw(t, "addr"),
			rapid.SliceOfN(rapid.Byte(), 0, 30).Draw(t, "bytes"), rapid.Bool().Draw(t, "nested"),
			rapid.IntRange(0, 9).Draw(t, "header"),
		}
		var b Batch
		b.Begin(30, 0)
		b.Begin(31, 0, make([]byte, v.HeaderSize)...)
		if v.Nested {
			b.Nest(77)
		}
		b.U8(1, v.U8)
		b.U16(2, v.U16)
		b.BE16(3, v.BE16)
		b.U32(4, v.U32)
		b.BE32(5|unix.NLA_F_NET_BYTEORDER, v.BE32)
		b.U64(6, v.U64)
		b.String(7, v.Str)
		b.Addr(8, v.Addr)
		b.Bytes(9, v.Bytes)
		b.Begin(32, 0)
		b.seal()

		d := Decode(b.Message(1)[unix.NLMSG_HDRLEN+align(v.HeaderSize):])
		if v.Nested {
			if !d.Next() || d.Type() != 77 {
				t.Fatalf("no nest: %v", d.Err())
			}
			d = d.Nested()
		}
		got := value{Nested: v.Nested, HeaderSize: v.HeaderSize, Bytes: []byte{}}
		for d.Next() {
			switch d.Type() {
			case 1:
				got.U8 = d.U8()
			case 2:
				got.U16 = d.U16()
			case 3:
				got.BE16 = d.BE16()
			case 4:
				got.U32 = d.U32()
			case 5:
				got.BE32 = d.BE32()
			case 6:
				got.U64 = d.U64()
			case 7:
				got.Str = d.String()
			case 8:
				got.Addr = d.Addr()
			case 9:
				got.Bytes = d.Bytes()
			}
		}
		if d.Err() != nil || !bytes.Equal(got.Bytes, v.Bytes) {
			t.Fatalf("%v: %v, %v", d.Err(), got.Bytes, v.Bytes)
		}
		got.Bytes, v.Bytes = nil, nil
		if got.Str != v.Str || got.U64 != v.U64 || got.Addr != v.Addr || got.U8 != v.U8 || got.U16 != v.U16 ||
			got.BE16 != v.BE16 || got.U32 != v.U32 || got.BE32 != v.BE32 {
			t.Fatalf("got %+v, want %+v", got, v)
		}
	})
}

func TestDecoderRefusesWrongSizes(t *testing.T) {
	var b Batch
	b.U16(1, 7)
	for name, read := range map[string]func(*Decoder){
		"U8": func(d *Decoder) { d.U8() }, "U32": func(d *Decoder) { d.U32() }, "U64": func(d *Decoder) { d.U64() },
		"BE32": func(d *Decoder) { d.BE32() }, "Addr": func(d *Decoder) { d.Addr() },
	} {
		d := Decode(b.buf)
		d.Next()
		read(&d)
		if d.Err() == nil {
			t.Errorf("%s of two bytes: no error", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{5, 0, 2, 0, 0xAA, 0, 0, 0})
	f.Add([]byte{5, 0, 2, 0, 0xAA})
	f.Add([]byte{3, 0, 2, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		d := Decode(b)
		total := 0
		for d.Next() {
			total += 4 + len(d.Bytes())
			_ = d.String()
		}
		if total > len(b) {
			t.Fatalf("%d bytes of attributes out of %d", total, len(b))
		}
	})
}

func TestAllocations(t *testing.T) {
	w := &quiet{}
	c := New(w, Options{})
	var b Batch
	fill := func() {
		b.Reset()
		for i := range 640 {
			b.Begin(30, 0, 1, 1, 0, 0)
			b.Nest(1)
			b.U32(1, uint32(i))
			b.String(2, "rr")
			b.End()
		}
	}
	fill()
	allocs := testing.AllocsPerRun(20, func() {
		fill()
		for _, err := range c.Do(t.Context(), &b) {
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	// The result, and a little for each of the ten datagrams.
	if allocs > 1+10*4 {
		t.Errorf("%v allocations for 640 messages", allocs)
	}
}
