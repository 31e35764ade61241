package vip

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/nlbatch"
)

// MainTable is the kernel's side of the discard routes, in the network
// namespace in which it was dialled. It is for one goroutine at a time.
type MainTable struct{ conn *nlbatch.Conn }

var _ DiscardHandle = (*MainTable)(nil)

// DialMainTable opens the kernel.
func DialMainTable() (*MainTable, error) {
	conn, err := nlbatch.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	return &MainTable{conn: conn}, nil
}

// Close closes the socket.
func (m *MainTable) Close() error { return m.conn.Close() }

// entry is a route of the main table.
type entry struct {
	prefix         netip.Prefix
	kind, protocol uint8
	metric         uint32
}

func (e entry) ours() bool {
	return e.kind == unix.RTN_BLACKHOLE && e.protocol == DiscardProtocol && e.metric == DiscardMetric
}

func (e entry) String() string {
	kinds := map[uint8]string{
		unix.RTN_UNICAST: "unicast", unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit",
	}
	kind, known := kinds[e.kind]
	if !known {
		kind = fmt.Sprintf("type %d", e.kind)
	}
	return fmt.Sprintf("%s, proto %d, metric %d", kind, e.protocol, e.metric)
}

// List reads both families, each anew when somebody changed it meanwhile.
func (m *MainTable) List(ctx context.Context) ([]netip.Prefix, error) {
	entries, err := m.dump(ctx, entry.ours)
	if err != nil {
		return nil, err
	}
	prefixes := make([]netip.Prefix, len(entries))
	for i, e := range entries {
		prefixes[i] = e.prefix
	}
	return prefixes, nil
}

// Others reads both families, as List does.
func (m *MainTable) Others(ctx context.Context, prefixes []netip.Prefix) (map[netip.Prefix]string, error) {
	entries, err := m.dump(ctx, func(e entry) bool { return !e.ours() && slices.Contains(prefixes, e.prefix) })
	if err != nil {
		return nil, err
	}
	others := make(map[netip.Prefix]string, len(entries))
	for _, e := range entries {
		others[e.prefix] = e.String()
	}
	return others, nil
}

// dump reads the routes that are wanted.
func (m *MainTable) dump(ctx context.Context, wanted func(entry) bool) (out []entry, err error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		entries, err := dump(ctx, m.conn, unix.RTM_GETROUTE, header(family, unix.SizeofRtMsg), func(msg []byte) (entry, bool, error) {
			e, main, err := decodeEntry(msg)
			return e, main && wanted(e), err
		})
		if err != nil {
			return nil, fmt.Errorf("routes: %w", err)
		}
		out = append(out, entries...)
	}
	return out, nil
}

// decodeEntry reads a route of the main table; main is false for one of another.
func decodeEntry(msg []byte) (e entry, main bool, err error) {
	if len(msg) < unix.SizeofRtMsg || msg[4] != unix.RT_TABLE_MAIN {
		return e, false, nil
	}
	e.protocol, e.kind = msg[5], msg[7]
	addr := netip.IPv4Unspecified()
	if msg[0] == unix.AF_INET6 {
		addr = netip.IPv6Unspecified()
	}
	a := nlbatch.Decode(msg[unix.SizeofRtMsg:])
	for a.Next() {
		switch a.Type() {
		case unix.RTA_DST:
			addr = a.Addr()
		case unix.RTA_PRIORITY:
			e.metric = a.U32()
		}
	}
	e.prefix = netip.PrefixFrom(addr, int(msg[1]))
	return e, true, a.Err()
}

// Put makes routes.
func (m *MainTable) Put(ctx context.Context, prefixes []netip.Prefix) []error {
	return m.each(ctx, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, prefixes)
}

// Delete removes routes. All that makes one ours is in the message, and the
// kernel removes no other.
func (m *MainTable) Delete(ctx context.Context, prefixes []netip.Prefix) []error {
	return m.each(ctx, unix.RTM_DELROUTE, 0, prefixes)
}

func (m *MainTable) each(ctx context.Context, typ, flags uint16, prefixes []netip.Prefix) []error {
	if len(prefixes) == 0 {
		return nil
	}
	var b nlbatch.Batch
	for _, p := range prefixes {
		family := uint8(unix.AF_INET)
		if p.Addr().Is6() {
			family = unix.AF_INET6
		}
		b.Begin(typ, flags,
			family, uint8(p.Bits()), 0, 0, //nolint:gosec // at most 128
			unix.RT_TABLE_MAIN, DiscardProtocol, unix.RT_SCOPE_UNIVERSE, unix.RTN_BLACKHOLE,
			0, 0, 0, 0)
		b.Addr(unix.RTA_DST, p.Addr())
		b.U32(unix.RTA_PRIORITY, DiscardMetric)
	}
	errs := m.conn.Do(ctx, &b)
	if !slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
		return nil
	}
	return errs
}
