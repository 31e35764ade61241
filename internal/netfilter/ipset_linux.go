package netfilter

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/nlbatch"
)

// Why not the netlink library's ipset calls: its listing takes every part of
// a large set for a set of its own, panics when a dump was interrupted, and
// has neither exceptions (nomatch) nor the revisions of the types with nets.
const (
	attrListFlags  = nl.IPSET_ATTR_FLAGS | netOrder
	listHeaderOnly = 1 << 2 // IPSET_FLAG_LIST_HEADER
	netOrder       = unix.NLA_F_NET_BYTEORDER
	hashFull       = nl.IPSET_ERR_TYPE_SPECIFIC // IPSET_ERR_HASH_FULL
)

// entriesPerMessage keeps a message of the longest entries below the 64 KiB
// that a nested attribute can hold.
const entriesPerMessage = 400

// begin starts an ipset command on a set; "": on none.
func begin(b *nlbatch.Batch, cmd, flags uint16, set string) {
	b.Begin(unix.NFNL_SUBSYS_IPSET<<8|cmd, flags, unix.AF_INET, unix.NFNETLINK_V0, 0, 0)
	b.U8(nl.IPSET_ATTR_PROTOCOL, nl.IPSET_PROTOCOL)
	if set != "" {
		b.String(nl.IPSET_ATTR_SETNAME, set)
	}
}

// Headers lists all sets without their entries.
func (h *Handle) Headers(ctx context.Context) ([]Set, error) {
	var b nlbatch.Batch
	begin(&b, nl.IPSET_CMD_LIST, 0, "")
	b.BE32(attrListFlags, listHeaderOnly)
	var sets []Set
	err := h.conn.Dump(ctx, &b, func(msg []byte) error {
		s, err := decodeHeader(msg)
		sets = append(sets, s)
		return err
	})
	return sets, setError(err)
}

// attributes are those behind a message's fixed header.
func attributes(msg []byte) nlbatch.Decoder {
	return nlbatch.Decode(msg[min(nl.SizeofNfgenmsg, len(msg)):])
}

func decodeHeader(msg []byte) (Set, error) {
	var s Set
	d := attributes(msg)
	for d.Next() {
		switch d.Type() {
		case nl.IPSET_ATTR_SETNAME:
			s.Name = d.String()
		case nl.IPSET_ATTR_TYPENAME:
			s.Type = SetType(d.String())
		case nl.IPSET_ATTR_FAMILY:
			s.Family = familyOf(d.U8())
		case nl.IPSET_ATTR_DATA:
			data := d.Nested()
			for data.Next() {
				if data.Type() == nl.IPSET_ATTR_MAXELEM {
					s.MaxElem = data.BE32()
				}
			}
			d.Fail(data.Err())
		}
	}
	return s, d.Err()
}

func familyOf(af uint8) model.Family {
	switch af {
	case unix.AF_INET:
		return model.IPv4
	case unix.AF_INET6:
		return model.IPv6
	}
	return 0
}

// Members lists one set's entries.
func (h *Handle) Members(ctx context.Context, set string) ([]Member, error) {
	var b nlbatch.Batch
	begin(&b, nl.IPSET_CMD_LIST, 0, set)
	var members []Member
	err := h.conn.Dump(ctx, &b, func(msg []byte) error {
		d := attributes(msg)
		for d.Next() {
			if d.Type() != nl.IPSET_ATTR_ADT {
				continue
			}
			entries := d.Nested()
			for entries.Next() {
				m, err := decodeMember(entries.Nested())
				if err != nil {
					return err
				}
				m.Set = set
				members = append(members, m)
			}
			d.Fail(entries.Err())
		}
		return d.Err()
	})
	return members, setError(err)
}

func decodeMember(d nlbatch.Decoder) (Member, error) {
	var m Member
	var first, second netip.Addr
	firstBits, secondBits := -1, -1
	for d.Next() {
		switch d.Type() {
		case nl.IPSET_ATTR_IP:
			first = decodeAddr(&d)
		case nl.IPSET_ATTR_IP2:
			second = decodeAddr(&d)
		case nl.IPSET_ATTR_CIDR:
			firstBits = int(d.U8())
		case nl.IPSET_ATTR_CIDR2:
			secondBits = int(d.U8())
		case nl.IPSET_ATTR_PORT:
			m.Entry.Port = d.BE16()
		case nl.IPSET_ATTR_PROTO:
			m.Entry.Protocol = model.Protocol(d.U8())
		case nl.IPSET_ATTR_CADT_FLAGS:
			m.NoMatch = d.BE32()&nl.IPSET_FLAG_NOMATCH != 0
		}
	}
	m.Entry.First, m.Entry.Second = prefixOf(first, firstBits), prefixOf(second, secondBits)
	return m, d.Err()
}

// prefixOf is an address with its prefix length; -1: the full one.
func prefixOf(a netip.Addr, bits int) netip.Prefix {
	if bits < 0 {
		bits = a.BitLen()
	}
	return netip.PrefixFrom(a, bits)
}

func decodeAddr(d *nlbatch.Decoder) netip.Addr {
	var a netip.Addr
	inner := d.Nested()
	for inner.Next() {
		a = inner.Addr()
	}
	d.Fail(inner.Err())
	return a
}

// Create makes sets.
func (h *Handle) Create(ctx context.Context, sets []Set) []error {
	var b nlbatch.Batch
	for _, s := range sets {
		begin(&b, nl.IPSET_CMD_CREATE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, s.Name)
		b.String(nl.IPSET_ATTR_TYPENAME, string(s.Type))
		b.U8(nl.IPSET_ATTR_REVISION, revision(s.Type))
		b.U8(nl.IPSET_ATTR_FAMILY, addressFamily(s.Family))
		b.Nest(nl.IPSET_ATTR_DATA)
		b.BE32(nl.IPSET_ATTR_MAXELEM|netOrder, s.MaxElem)
		b.End()
	}
	return setErrors(h.conn.Do(ctx, &b))
}

// revision is the lowest of a type that has all we use of it, so that old
// kernels do: exceptions came to hash:net with its second, to hash:ip,port,net
// with its third.
func revision(t SetType) uint8 {
	switch t {
	case HashNet:
		return 2
	case HashIPPortNet:
		return 3
	}
	return 1
}

func addressFamily(f model.Family) uint8 {
	if f == model.IPv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// Destroy removes sets. Newer kernels forgive an absent one unless asked not
// to.
func (h *Handle) Destroy(ctx context.Context, names []string) []error {
	var b nlbatch.Batch
	for _, name := range names {
		begin(&b, nl.IPSET_CMD_DESTROY, unix.NLM_F_EXCL, name)
	}
	return setErrors(h.conn.Do(ctx, &b))
}

// Add puts entries in, many in one message.
func (h *Handle) Add(ctx context.Context, members []Member) []error {
	return h.move(ctx, nl.IPSET_CMD_ADD, members)
}

// Delete takes entries out, many in one message.
func (h *Handle) Delete(ctx context.Context, members []Member) []error {
	return h.move(ctx, nl.IPSET_CMD_DEL, members)
}

// move sends members in few messages. The kernel stops a message at its first
// bad entry, so those of a message that it refused are sent again, each in a
// message of its own; what it has done already it does again without harm.
func (h *Handle) move(ctx context.Context, cmd uint16, members []Member) []error {
	var b nlbatch.Batch
	var runs [][]Member
	for rest := members; len(rest) > 0; {
		n := run(rest)
		runs = append(runs, rest[:n])
		encodeMembers(&b, cmd, rest[:n])
		rest = rest[n:]
	}
	errs := h.conn.Do(ctx, &b)
	if !slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
		return nil
	}
	out := make([]error, 0, len(members))
	for i, members := range runs {
		if errs[i] == nil {
			out = append(out, make([]error, len(members))...)
			continue
		}
		out = append(out, h.moveEach(ctx, cmd, members, errs[i])...)
	}
	return out
}

// run is how many members from the first on go into one message.
func run(members []Member) int {
	n := 1
	for n < len(members) && n < entriesPerMessage && members[n].Set == members[0].Set {
		n++
	}
	return n
}

// moveEach finds out which of a message's entries the kernel did not like.
func (h *Handle) moveEach(ctx context.Context, cmd uint16, members []Member, err error) []error {
	var refused *nlbatch.Error
	if !errors.As(err, &refused) || len(members) == 1 || refused.Errno == unix.ENOENT {
		return slices.Repeat([]error{setError(err)}, len(members))
	}
	var b nlbatch.Batch
	for i := range members {
		encodeMembers(&b, cmd, members[i:i+1])
	}
	errs := h.conn.Do(ctx, &b)
	for i := range errs {
		errs[i] = setError(errs[i])
	}
	return errs
}

// encodeMembers makes one message. Without NLM_F_EXCL an entry to be added may
// be there and one to be deleted may be absent.
func encodeMembers(b *nlbatch.Batch, cmd uint16, members []Member) {
	begin(b, cmd, 0, members[0].Set)
	b.BE32(nl.IPSET_ATTR_LINENO|netOrder, 0) // demanded of messages with many entries
	b.Nest(nl.IPSET_ATTR_ADT)
	for _, m := range members {
		b.Nest(nl.IPSET_ATTR_DATA)
		encodePrefix(b, nl.IPSET_ATTR_IP, nl.IPSET_ATTR_CIDR, m.Entry.First)
		if m.Entry.Protocol != 0 {
			b.BE16(nl.IPSET_ATTR_PORT|netOrder, m.Entry.Port)
			b.U8(nl.IPSET_ATTR_PROTO, uint8(m.Entry.Protocol))
		}
		if m.Entry.Second.IsValid() {
			encodePrefix(b, nl.IPSET_ATTR_IP2, nl.IPSET_ATTR_CIDR2, m.Entry.Second)
		}
		if m.NoMatch {
			b.BE32(nl.IPSET_ATTR_CADT_FLAGS|netOrder, nl.IPSET_FLAG_NOMATCH)
		}
		b.End()
	}
	b.End()
}

func encodePrefix(b *nlbatch.Batch, attr, cidr uint16, p netip.Prefix) {
	family := uint16(nl.IPSET_ATTR_IPADDR_IPV4)
	if p.Addr().Is6() {
		family = nl.IPSET_ATTR_IPADDR_IPV6
	}
	b.Nest(attr)
	b.Addr(family|netOrder, p.Addr())
	b.End()
	if !p.IsSingleIP() {
		b.U8(cidr, uint8(p.Bits())) //nolint:gosec // at most 128
	}
}

// setErrors is the errors of a batch, nil when there are none.
func setErrors(errs []error) []error {
	failed := false
	for i, err := range errs {
		errs[i] = setError(err)
		failed = failed || err != nil
	}
	if !failed {
		return nil
	}
	return errs
}

// setError gives ipset's private error numbers the names that the rest of the
// system uses.
func setError(err error) error {
	var refused *nlbatch.Error
	if !errors.As(err, &refused) || refused.Errno < nl.IPSET_ERR_PRIVATE {
		return err
	}
	switch refused.Errno {
	case nl.IPSET_ERR_BUSY, nl.IPSET_ERR_REFERENCED:
		return syscall.EBUSY
	case hashFull:
		return syscall.ENOSPC
	}
	return fmt.Errorf("ipset error %d: %w", uintptr(refused.Errno), nl.IPSetError(refused.Errno))
}
