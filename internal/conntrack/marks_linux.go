package conntrack

import (
	"context"

	"github.com/vishvananda/netlink/nl"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/nlbatch"
)

// What the netlink library does not name.
const (
	ctaMarkMask    = 21     // CTA_MARK_MASK
	statusExpected = 1 << 0 // IPS_EXPECTED: by an expectation, which another connection made
)

var _ Marks = (*KernelHandle)(nil)

// Conns implements Marks.
func (h *KernelHandle) Conns(ctx context.Context, fn func(Conn)) error {
	return h.read(ctx, func() {}, func(msg []byte) error {
		c, ours, err := decodeConn(msg)
		if ours && err == nil {
			fn(c)
		}
		return err
	})
}

// decodeConn reads an entry, and says whether it is one of ports, in no zone,
// which others keep their own connections in.
func decodeConn(msg []byte) (c Conn, ours bool, err error) {
	e, err := decodeEntry(msg)
	switch e.Protocol {
	case model.TCP, model.UDP, model.SCTP:
		ours = e.whole()
	}
	return Conn{Flow: e.Flow, Mark: e.mark, Related: e.status&statusExpected != 0}, ours, err
}

// SetMark implements Marks.
func (h *KernelHandle) SetMark(ctx context.Context, conns []Conn, value, mask uint32) []error {
	h.batch.Reset()
	for _, c := range conns {
		encodeMark(&h.batch, c.Flow, value&mask, mask)
	}
	errs := h.conn.Do(ctx, &h.batch)
	h.batch = nlbatch.Batch{} // once large is not to be paid for ever
	return errs
}

// encodeMark changes an entry that is there: without NLM_F_CREATE none is made.
// It is named by its reply, in which the backend stands: the other side of it
// may lead elsewhere since it was read. The kernel passes over an id here.
func encodeMark(b *nlbatch.Batch, f Flow, value, mask uint32) {
	begin(b, nl.IPCTNL_MSG_CT_NEW, familyOf(f))
	encodeReply(b, f)
	b.BE32(nl.CTA_MARK, value)
	b.BE32(ctaMarkMask, mask)
}
