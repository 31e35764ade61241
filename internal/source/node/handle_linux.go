package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// receiveBuffer holds the notifications of some ten thousand addresses that are
// put on our own device at once. What it cannot hold costs a listing.
const receiveBuffer = 8 << 20

// rtnetlink is the kernel of a network namespace; nil: the one we are in.
type rtnetlink struct{ ns *netns.NsHandle }

func (r rtnetlink) namespace() netns.NsHandle {
	if r.ns == nil {
		return netns.None()
	}
	return *r.ns
}

// list lists the addresses before the interfaces: so an address whose interface
// is not among these went with it, and is left out.
func (r rtnetlink) list() (listing, error) {
	h, err := netlink.NewHandleAt(r.namespace(), unix.NETLINK_ROUTE)
	if err != nil {
		return listing{}, fmt.Errorf("open rtnetlink: %w", err)
	}
	defer h.Close()
	addrs, err := h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return listing{}, fmt.Errorf("list addresses: %w", torn(err))
	}
	links, err := h.LinkList()
	if err != nil {
		return listing{}, fmt.Errorf("list interfaces: %w", torn(err))
	}
	l := listing{devices: make(map[string]int, len(links))}
	present := make(map[int]struct{}, len(links))
	for _, link := range links {
		l.devices[link.Attrs().Name] = link.Attrs().Index
		present[link.Attrs().Index] = struct{}{}
	}
	for _, a := range addrs {
		if _, ok := present[a.LinkIndex]; !ok || a.IPNet == nil {
			continue
		}
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			l.addresses = append(l.addresses, address{
				addr:   addr.Unmap(),
				index:  a.LinkIndex,
				global: a.Scope == unix.RT_SCOPE_UNIVERSE,
				usable: usable(a.Flags),
			})
		}
	}
	return l, nil
}

// torn recognises an interrupted listing, of which the library returns a part.
func torn(err error) error {
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return errTorn
	}
	return err
}

// usable reports whether an address may be used as far as duplicate address
// detection is concerned. When that ends, the kernel notifies of it.
func usable(flags int) bool {
	tentative := flags&unix.IFA_F_TENTATIVE != 0 && flags&unix.IFA_F_OPTIMISTIC == 0
	return !tentative && flags&unix.IFA_F_DADFAILED == 0
}

func (r rtnetlink) subscribe(ctx context.Context) (<-chan change, error) {
	updates := make(chan netlink.AddrUpdate, 64)
	if err := r.open(updates, ctx.Done()); err != nil {
		return nil, fmt.Errorf("subscribe to addresses: %w", err)
	}
	changes := make(chan change)
	go func() {
		defer close(changes)
		// The library closes updates when ctx is done and on any error, a
		// full buffer (ENOBUFS) among them.
		for u := range updates {
			select {
			case changes <- change{u.LinkIndex, u.Scope == unix.RT_SCOPE_UNIVERSE}:
			case <-ctx.Done():
			}
		}
	}()
	return changes, nil
}

// open subscribes with a large receive buffer if that is allowed.
func (r rtnetlink) open(updates chan<- netlink.AddrUpdate, done <-chan struct{}) error {
	opts := netlink.AddrSubscribeOptions{Namespace: r.ns, ReceiveBufferSize: receiveBuffer, ReceiveBufferForceSize: true}
	err := netlink.AddrSubscribeWithOptions(updates, done, opts)
	if errors.Is(err, unix.EPERM) {
		opts.ReceiveBufferForceSize = false
		err = netlink.AddrSubscribeWithOptions(updates, done, opts)
	}
	return err
}
