package nflog

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/nlbatch"
)

// Record is a packet that met a rule.
type Record struct {
	At     time.Time // when it was read, up to 0.1 s after the packet
	Prefix string    // the rule's
	// Src and Dst are as the packet had them at the rule; see Packet.
	Src, Dst netip.AddrPort
	Protocol model.Protocol
	In, Out  string // interfaces; "": none, "#7": the one of index 7, which is gone
}

// What the kernel's header has of a packet's message (nfnetlink_log.h).
const (
	attrInDev   = 4
	attrOutDev  = 5
	attrPayload = 9
	attrPrefix  = 10
	attrSeq     = 12
)

// sizeofNfgenmsg is the fixed header's.
const sizeofNfgenmsg = 4

// message is a packet's message as it was read.
type message struct {
	prefix  string
	in, out uint32 // the interfaces' indices; 0: none
	seq     uint32 // counts the group's packets
	counted bool   // seq was read
	packet  Packet
}

// errNoPacket says that a message has no packet that can be read.
var errNoPacket = errors.New("no IP packet")

// decode reads a message behind its netlink header. With an error it still has
// its seq, if that could be read.
func decode(b []byte) (m message, err error) {
	d := nlbatch.Decode(b[min(sizeofNfgenmsg, len(b)):])
	var payload []byte
	for d.Next() {
		switch d.Type() {
		case attrInDev:
			m.in = d.BE32()
		case attrOutDev:
			m.out = d.BE32()
		case attrPayload:
			payload = d.Bytes()
		case attrPrefix:
			m.prefix = unix.ByteSliceToString(d.Bytes())
		case attrSeq:
			m.seq, m.counted = d.BE32(), true
		}
	}
	if err := d.Err(); err != nil {
		return m, err
	}
	var ok bool
	if m.packet, ok = ParsePacket(payload); !ok {
		return m, errNoPacket
	}
	return m, nil
}
