package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/nlbatch"
)

// Why not the netlink library's conntrack calls: they read the whole table,
// TCP included, delete with one round trip each, and do not end with a context.

// What the netlink library does not name.
const (
	ctaFilter           = 25     // CTA_FILTER
	ctaFilterOrigFlags  = 1      // CTA_FILTER_ORIG_FLAGS
	ctaFilterOnProtocol = 1 << 3 // CTA_FILTER_F_CTA_PROTO_NUM
	ctaTupleZone        = 3      // CTA_TUPLE_ZONE: of one direction only
)

// KernelHandle is the Handle on the kernel.
type KernelHandle struct {
	conn  *nlbatch.Conn
	batch nlbatch.Batch
}

var _ Handle = (*KernelHandle)(nil)

// Dial opens the connection table of the calling thread's network namespace. It
// needs CAP_NET_ADMIN.
func Dial() (*KernelHandle, error) {
	conn, err := nlbatch.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open conntrack: %w", err)
	}
	return &KernelHandle{conn: conn}, nil
}

// Close closes the socket.
func (h *KernelHandle) Close() error { return h.conn.Close() }

// Flows implements Handle.
func (h *KernelHandle) Flows(ctx context.Context, fn func(Flow)) error {
	// A kernel before 5.8 does not know the filter and tells of all protocols:
	// decode looks for itself.
	filter := func() {
		h.batch.Nest(nl.CTA_TUPLE_ORIG)
		protocol(&h.batch, model.UDP)
		h.batch.End()
		h.batch.End()
		h.batch.Nest(ctaFilter)
		h.batch.U32(ctaFilterOrigFlags, ctaFilterOnProtocol)
		h.batch.End()
	}
	return h.read(ctx, filter, func(msg []byte) error {
		f, ours, err := decode(msg)
		if ours && err == nil {
			fn(f)
		}
		return err
	})
}

// read gives fn the entries of both families, as far as filter, which adds to
// the request, asks for them.
func (h *KernelHandle) read(ctx context.Context, filter func(), fn func(msg []byte) error) error {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		h.batch.Reset()
		begin(&h.batch, nl.IPCTNL_MSG_CT_GET, family)
		filter()
		err := h.conn.Dump(ctx, &h.batch, fn)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("%w (is the module nf_conntrack_netlink loaded?)", err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Delete implements Handle.
func (h *KernelHandle) Delete(ctx context.Context, flows []Flow) []error {
	h.batch.Reset()
	for _, f := range flows {
		encodeDelete(&h.batch, f)
	}
	errs := h.conn.Do(ctx, &h.batch)
	h.batch = nlbatch.Batch{} // once large is not to be paid for ever
	return errs
}

func begin(b *nlbatch.Batch, cmd uint16, family uint8) {
	b.Begin(unix.NFNL_SUBSYS_CTNETLINK<<8|cmd, 0, family, unix.NFNETLINK_V0, 0, 0)
}

// protocol opens the part of a tuple that has the ports, with its protocol.
func protocol(b *nlbatch.Batch, p model.Protocol) {
	b.Nest(nl.CTA_TUPLE_PROTO)
	b.U8(nl.CTA_PROTO_NUM, uint8(p))
}

// encodeDelete names the entry by its reply, in which the backend stands, so
// that one made anew to another backend since it was read is not meant.
func encodeDelete(b *nlbatch.Batch, f Flow) {
	begin(b, nl.IPCTNL_MSG_CT_DELETE, familyOf(f))
	encodeReply(b, f)
	b.BE32(nl.CTA_ID, f.ID)
}

func familyOf(f Flow) uint8 {
	if f.Backend.Addr().Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// encodeReply is the direction in which an entry is answered.
func encodeReply(b *nlbatch.Batch, f Flow) {
	src, dst := uint16(nl.CTA_IP_V4_SRC), uint16(nl.CTA_IP_V4_DST)
	if f.Backend.Addr().Is6() {
		src, dst = nl.CTA_IP_V6_SRC, nl.CTA_IP_V6_DST
	}
	b.Nest(nl.CTA_TUPLE_REPLY)
	b.Nest(nl.CTA_TUPLE_IP)
	b.Addr(src, f.Backend.Addr())
	b.Addr(dst, f.Seen.Addr())
	b.End()
	protocol(b, f.Protocol)
	b.BE16(nl.CTA_PROTO_SRC_PORT, f.Backend.Port())
	b.BE16(nl.CTA_PROTO_DST_PORT, f.Seen.Port())
	b.End()
	b.End()
}

// decode reads an entry, and says whether it is one that IPVS may have made:
// one of UDP, and in no zone, which others keep their own connections in.
func decode(msg []byte) (f Flow, ours bool, err error) {
	e, err := decodeEntry(msg)
	return e.Flow, e.Protocol == model.UDP && e.whole(), err
}

// entry is what a dump tells of an entry.
type entry struct {
	Flow
	mark, status uint32
	zone         uint16
}

// whole reports whether both directions were told, in no zone.
func (e entry) whole() bool {
	return e.zone == 0 && e.Frontend.IsValid() && e.Backend.IsValid() && e.Seen.IsValid()
}

func decodeEntry(msg []byte) (e entry, err error) {
	d := nlbatch.Decode(msg[min(nl.SizeofNfgenmsg, len(msg)):])
	var original, reply tuple
	for d.Next() {
		switch d.Type() {
		case nl.CTA_TUPLE_ORIG:
			original = decodeTuple(&d)
		case nl.CTA_TUPLE_REPLY:
			reply = decodeTuple(&d)
		case nl.CTA_ID:
			e.ID = d.BE32()
		case nl.CTA_ZONE:
			e.zone = d.BE16()
		case nl.CTA_MARK:
			e.mark = d.BE32()
		case nl.CTA_STATUS:
			e.status = d.BE32()
		}
	}
	e.Protocol, e.Client, e.Frontend = original.protocol, original.from(), original.to()
	e.Backend, e.Seen = reply.from(), reply.to()
	e.zone |= original.zone | reply.zone
	return e, d.Err()
}

// tuple is one direction of an entry. Protocols without ports leave them 0.
type tuple struct {
	protocol         model.Protocol
	src, dst         netip.Addr
	srcPort, dstPort uint16
	zone             uint16
}

func (t tuple) from() netip.AddrPort { return netip.AddrPortFrom(t.src, t.srcPort) }
func (t tuple) to() netip.AddrPort   { return netip.AddrPortFrom(t.dst, t.dstPort) }

func decodeTuple(of *nlbatch.Decoder) (t tuple) {
	d := of.Nested()
	for d.Next() {
		switch d.Type() {
		case nl.CTA_TUPLE_IP:
			t.decodeAddrs(&d)
		case nl.CTA_TUPLE_PROTO:
			t.decodePorts(&d)
		case ctaTupleZone:
			t.zone = d.BE16()
		}
	}
	of.Fail(d.Err())
	return t
}

func (t *tuple) decodeAddrs(of *nlbatch.Decoder) {
	d := of.Nested()
	for d.Next() {
		switch d.Type() {
		case nl.CTA_IP_V4_SRC, nl.CTA_IP_V6_SRC:
			t.src = d.Addr()
		case nl.CTA_IP_V4_DST, nl.CTA_IP_V6_DST:
			t.dst = d.Addr()
		}
	}
	of.Fail(d.Err())
}

func (t *tuple) decodePorts(of *nlbatch.Decoder) {
	d := of.Nested()
	for d.Next() {
		switch d.Type() {
		case nl.CTA_PROTO_NUM:
			t.protocol = model.Protocol(d.U8())
		case nl.CTA_PROTO_SRC_PORT:
			t.srcPort = d.BE16()
		case nl.CTA_PROTO_DST_PORT:
			t.dstPort = d.BE16()
		}
	}
	of.Fail(d.Err())
}
