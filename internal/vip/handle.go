package vip

import (
	"context"
	"net/netip"
)

// Handle is the kernel: one device of a name known to it, the addresses on it
// and the local routes to it. The writing verbs work through all they are
// given, whatever fails on the way, and return one error for each item, or no
// slice when nothing failed; given nothing they do nothing. ENODEV: there is
// no device.
type Handle interface {
	// Ensure makes the device if it is not there, and has it up. It fails
	// when the name belongs to a device that is not a dummy.
	Ensure(ctx context.Context) error
	// Remove removes the device with all that is on it; an absent one
	// succeeds.
	Remove(ctx context.Context) error
	// List reads the addresses on the device and the local routes to it, in
	// the order in which the kernel prefers them.
	List(ctx context.Context) (Listing, error)
	// AddAddrs puts addresses on the device. EEXIST: it is there.
	AddAddrs(ctx context.Context, addrs []netip.Addr) []error
	// DelAddrs takes addresses off the device. EADDRNOTAVAIL: it is not there.
	DelAddrs(ctx context.Context, addrs []netip.Addr) []error
	// PutRoutes makes local routes, or replaces the first one to the same
	// address. EINVAL: the source is not an address of this node. EEXIST: the
	// very route is there, but behind another one.
	PutRoutes(ctx context.Context, routes []Route) []error
	// DelRoutes removes the first local route to each address. ESRCH: there
	// is none.
	DelRoutes(ctx context.Context, addrs []netip.Addr) []error
}

// Route is a local route to one address on our device.
type Route struct {
	Addr   netip.Addr
	Source netip.Addr // invalid: none
}

// Listing is what is on our device.
type Listing struct {
	Addrs  []netip.Addr
	Routes []Route
}

// Count is what a handle did so far, for operation budgets.
type Count struct {
	Commands uint64 // netlink messages sent
	Sends    uint64 // system calls that sent them
}
