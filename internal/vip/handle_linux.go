package vip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/nlbatch"
)

// Device is the kernel's side of one device, in the network namespace in which
// it was dialled. It is for one goroutine at a time, but for Count.
type Device struct {
	name  string
	link  *netlink.Handle
	conn  *nlbatch.Conn
	index uint32 // 0: not known
}

var _ Handle = (*Device)(nil)

// Dial opens the kernel for the device of a name. It makes no device.
func Dial(name string) (*Device, error) {
	conn, err := nlbatch.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	link, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open rtnetlink: %w", err), conn.Close())
	}
	return &Device{name: name, link: link, conn: conn}, nil
}

// Close closes the sockets and leaves the device as it is.
func (d *Device) Close() error {
	d.link.Close()
	return d.conn.Close()
}

// Count is what was sent for addresses and routes. Any goroutine may ask.
func (d *Device) Count() Count {
	sent := d.conn.Sent()
	return Count{Commands: sent.Messages, Sends: sent.Datagrams}
}

// Ensure makes the device, or brings it up.
func (d *Device) Ensure(context.Context) error {
	d.index = 0
	link, err := d.find()
	if err != nil {
		return err
	}
	if link == nil {
		if link, err = d.create(); err != nil {
			return err
		}
	}
	if link.Attrs().Flags&unix.IFF_UP == 0 {
		if err := d.link.LinkSetUp(link); err != nil {
			return fmt.Errorf("bring up %s: %w", d.name, err)
		}
	}
	d.index = uint32(link.Attrs().Index) //nolint:gosec // positive
	return nil
}

// find is our device; nil: there is none.
func (d *Device) find() (netlink.Link, error) {
	link, err := d.link.LinkByName(d.name)
	var absent netlink.LinkNotFoundError
	switch {
	case errors.As(err, &absent):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look for %s: %w", d.name, err)
	case link.Type() != "dummy":
		return nil, fmt.Errorf("%s is a %s device, not a dummy: %w", d.name, link.Type(), unix.EEXIST)
	}
	return link, nil
}

// create makes the device. Before it comes up for the first time it is told
// not to make a link-local address, which would be one more to answer on.
func (d *Device) create() (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = d.name
	if err := d.link.LinkAdd(&netlink.Dummy{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make dummy device %s: %w", d.name, err)
	}
	link, err := d.find()
	if err != nil || link == nil {
		return nil, errors.Join(err, fmt.Errorf("dummy device %s: %w", d.name, unix.ENODEV))
	}
	const none = 1 // IN6_ADDR_GEN_MODE_NONE
	err = d.link.LinkSetIP6AddrGenMode(link, none)
	switch {
	case errors.Is(err, unix.EAFNOSUPPORT):
		return link, nil // no IPv6 here
	case err != nil:
		return nil, fmt.Errorf("no link-local address on %s: %w", d.name, err)
	}
	// Nothing arrives at a dummy, so where sysctls cannot be written this is
	// no loss.
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+d.name+"/accept_ra", []byte("0"), 0)
	return link, nil
}

// Remove removes the device.
func (d *Device) Remove(context.Context) error {
	d.index = 0
	link, err := d.find()
	if err != nil || link == nil {
		return err
	}
	if err := d.link.LinkDel(link); err != nil {
		return fmt.Errorf("remove %s: %w", d.name, err)
	}
	return nil
}

// List reads addresses, then routes, each anew when somebody changed the table
// meanwhile.
func (d *Device) List(ctx context.Context) (Listing, error) {
	var l Listing
	if d.index == 0 {
		return l, unix.ENODEV
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		addrs, err := dump(ctx, d.conn, unix.RTM_GETADDR, header(family, unix.SizeofIfAddrmsg), d.decodeAddr)
		if err != nil {
			return Listing{}, fmt.Errorf("addresses: %w", err)
		}
		routes, err := dump(ctx, d.conn, unix.RTM_GETROUTE, header(family, unix.SizeofRtMsg), d.decodeRoute)
		if err != nil {
			return Listing{}, fmt.Errorf("local routes: %w", err)
		}
		l.Addrs, l.Routes = append(l.Addrs, addrs...), append(l.Routes, routes...)
	}
	return l, nil
}

// header is a fixed header that says nothing but the family.
func header(family uint8, size int) []byte {
	h := make([]byte, size)
	h[0] = family
	return h
}

// dump reads a table until it was not changed meanwhile. A node that
// changes its addresses all the time is beyond help: then it is an error.
func dump[T any](ctx context.Context, conn *nlbatch.Conn, typ uint16, header []byte, decode func([]byte) (T, bool, error)) ([]T, error) {
	const tries = 5
	var err error
	for range tries {
		var b nlbatch.Batch
		b.Begin(typ, 0, header...)
		var out []T
		err = conn.Dump(ctx, &b, func(msg []byte) error {
			item, ours, err := decode(msg)
			if ours {
				out = append(out, item)
			}
			return err
		})
		if !errors.Is(err, nlbatch.ErrInterrupted) {
			return out, err
		}
	}
	return nil, err
}

// decodeAddr reads an address that is on our device. IPv6 addresses of another
// length than ours are not Services' and are left alone.
func (d *Device) decodeAddr(msg []byte) (addr netip.Addr, ours bool, err error) {
	if len(msg) < unix.SizeofIfAddrmsg || binary.NativeEndian.Uint32(msg[4:]) != d.index {
		return addr, false, nil
	}
	var peer netip.Addr
	a := nlbatch.Decode(msg[unix.SizeofIfAddrmsg:])
	for a.Next() {
		switch a.Type() {
		case unix.IFA_LOCAL:
			addr = a.Addr()
		case unix.IFA_ADDRESS:
			peer = a.Addr()
		}
	}
	if !addr.IsValid() {
		addr = peer // IPv6 has no IFA_LOCAL unless there is a peer
	}
	ours = addr.IsValid() && (addr.Is4() || msg[1] == 128)
	return addr, ours, a.Err()
}

// decodeRoute reads a local route to one address on our device.
func (d *Device) decodeRoute(msg []byte) (r Route, ours bool, err error) {
	if len(msg) < unix.SizeofRtMsg || msg[4] != unix.RT_TABLE_LOCAL || msg[7] != unix.RTN_LOCAL {
		return r, false, nil
	}
	var device uint32
	a := nlbatch.Decode(msg[unix.SizeofRtMsg:])
	for a.Next() {
		switch a.Type() {
		case unix.RTA_DST:
			r.Addr = a.Addr()
		case unix.RTA_PREFSRC:
			r.Source = a.Addr()
		case unix.RTA_OIF:
			device = a.U32()
		}
	}
	ours = device == d.index && r.Addr.IsValid() && int(msg[1]) == r.Addr.BitLen()
	return r, ours, a.Err()
}

// do sends a batch of n messages. Without a device nothing is sent.
func (d *Device) do(ctx context.Context, n int, b *nlbatch.Batch) []error {
	if n == 0 {
		return nil
	}
	if d.index == 0 {
		return slices.Repeat([]error{unix.ENODEV}, n)
	}
	errs := d.conn.Do(ctx, b)
	if !slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
		return nil
	}
	return errs
}

// AddAddrs puts addresses on the device.
func (d *Device) AddAddrs(ctx context.Context, addrs []netip.Addr) []error {
	var b nlbatch.Batch
	for _, a := range addrs {
		d.beginAddr(&b, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, a)
	}
	return d.do(ctx, len(addrs), &b)
}

// DelAddrs takes addresses off the device.
func (d *Device) DelAddrs(ctx context.Context, addrs []netip.Addr) []error {
	var b nlbatch.Batch
	for _, a := range addrs {
		d.beginAddr(&b, unix.RTM_DELADDR, 0, a)
	}
	return d.do(ctx, len(addrs), &b)
}

func (d *Device) beginAddr(b *nlbatch.Batch, typ, flags uint16, a netip.Addr) {
	h := []byte{unix.AF_INET, 32, 0, unix.RT_SCOPE_HOST}
	if a.Is6() {
		h = []byte{unix.AF_INET6, 128, unix.IFA_F_NODAD, unix.RT_SCOPE_UNIVERSE}
	}
	b.Begin(typ, flags, binary.NativeEndian.AppendUint32(h, d.index)...)
	b.Addr(unix.IFA_LOCAL, a)
}

// PutRoutes makes or replaces local routes.
func (d *Device) PutRoutes(ctx context.Context, routes []Route) []error {
	var b nlbatch.Batch
	for _, r := range routes {
		d.beginRoute(&b, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, r.Addr)
		switch {
		case r.Source.IsValid():
			b.Addr(unix.RTA_PREFSRC, r.Source)
		case r.Addr.Is4():
			b.Addr(unix.RTA_PREFSRC, r.Addr) // as the kernel's own route has it
		}
	}
	return d.do(ctx, len(routes), &b)
}

// DelRoutes removes local routes, whoever made them.
func (d *Device) DelRoutes(ctx context.Context, addrs []netip.Addr) []error {
	var b nlbatch.Batch
	for _, a := range addrs {
		d.beginRoute(&b, unix.RTM_DELROUTE, 0, a)
	}
	return d.do(ctx, len(addrs), &b)
}

// metric6 is the metric of our IPv6 routes: the best that a route can be given.
const metric6 = 1

func (d *Device) beginRoute(b *nlbatch.Batch, typ, flags uint16, a netip.Addr) {
	var family, protocol, scope uint8 = unix.AF_INET, unix.RTPROT_KERNEL, unix.RT_SCOPE_HOST
	if a.Is6() {
		family, scope = unix.AF_INET6, unix.RT_SCOPE_UNIVERSE
	}
	if typ == unix.RTM_DELROUTE {
		protocol, scope = unix.RTPROT_UNSPEC, unix.RT_SCOPE_NOWHERE // any
	}
	b.Begin(typ, flags,
		family, uint8(a.BitLen()), 0, 0, //nolint:gosec // at most 128
		unix.RT_TABLE_LOCAL, protocol, scope, unix.RTN_LOCAL,
		0, 0, 0, 0)
	b.Addr(unix.RTA_DST, a)
	b.U32(unix.RTA_OIF, d.index)
	if a.Is6() && typ == unix.RTM_NEWROUTE {
		b.U32(unix.RTA_PRIORITY, metric6)
	}
}

// Local says whether packets to an address are delivered on this node, be it
// by us or because the address is the node's own.
func Local(_ context.Context, addr netip.Addr) (bool, error) {
	routes, err := netlink.RouteGet(addr.AsSlice())
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH): // no route, or one of type unreachable
		return false, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EACCES): // of type blackhole, prohibit
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up the route to %s: %w", addr, err)
	}
	return len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL, nil
}
