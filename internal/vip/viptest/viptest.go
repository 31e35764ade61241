// Package viptest has a device for Services' addresses in memory, as strict as
// the kernel: the same errors, and the same side effects of an address on the
// local routes. The conformance suite of package vip is the proof.
//
// It is not for timing, concurrency or anything but local routes.
package viptest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"sluice.dev/sluice/internal/vip"
)

// Kernel is one imaginary network namespace with one device in it. It is for
// one goroutine at a time.
type Kernel struct {
	// Node are the addresses that the node has on other devices.
	Node []netip.Addr
	// Foreign says that the device's name belongs to a device of others.
	Foreign bool
	// Fault, when set, is asked before each operation on its subject (an
	// address, or nothing); its error is the operation's. Verbs: ensure,
	// remove, list, add, delete, route, unroute.
	Fault func(verb string, subject netip.Addr) error

	there  bool
	addrs  map[netip.Addr]bool
	routes map[netip.Addr][]route // the preferred one first
	count  vip.Count
}

type route struct {
	source netip.Addr
	kernel bool // made by the kernel together with the address
}

var _ vip.Handle = (*Kernel)(nil)

// New makes a namespace without the device.
func New(node ...netip.Addr) *Kernel {
	k := &Kernel{Node: node}
	k.Drop()
	return k
}

// Drop removes the device as others would.
func (k *Kernel) Drop() {
	k.there = false
	k.addrs = map[netip.Addr]bool{}
	k.routes = map[netip.Addr][]route{}
}

// Count is what was done so far.
func (k *Kernel) Count() vip.Count { return k.count }

func (k *Kernel) fault(ctx context.Context, verb string, subject netip.Addr) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if k.Fault == nil {
		return nil
	}
	return k.Fault(verb, subject)
}

// Ensure makes the device.
func (k *Kernel) Ensure(ctx context.Context) error {
	if err := k.fault(ctx, "ensure", netip.Addr{}); err != nil {
		return err
	}
	if k.Foreign {
		return syscall.EEXIST
	}
	k.there = true
	return nil
}

// Remove removes the device.
func (k *Kernel) Remove(ctx context.Context) error {
	if err := k.fault(ctx, "remove", netip.Addr{}); err != nil {
		return err
	}
	if k.Foreign {
		return syscall.EEXIST
	}
	k.Drop()
	return nil
}

// List reads everything.
func (k *Kernel) List(ctx context.Context) (vip.Listing, error) {
	var l vip.Listing
	if err := k.fault(ctx, "list", netip.Addr{}); err != nil {
		return l, err
	}
	if !k.there {
		return l, syscall.ENODEV
	}
	l.Addrs = slices.SortedFunc(maps.Keys(k.addrs), netip.Addr.Compare)
	for _, a := range slices.SortedFunc(maps.Keys(k.routes), netip.Addr.Compare) {
		for _, r := range k.routes[a] {
			l.Routes = append(l.Routes, vip.Route{Addr: a, Source: r.source})
		}
	}
	return l, nil
}

// AddAddrs puts addresses on the device, and makes their local routes.
func (k *Kernel) AddAddrs(ctx context.Context, addrs []netip.Addr) []error {
	return each(k, addrs, func(a netip.Addr) error {
		if err := k.fault(ctx, "add", a); err != nil {
			return err
		}
		switch {
		case !k.there:
			return syscall.ENODEV
		case k.addrs[a]:
			return syscall.EEXIST
		}
		k.addrs[a] = true
		if a.Is6() {
			k.routes[a] = slices.Insert(k.routes[a], 0, route{kernel: true})
		} else {
			k.routes[a] = append(k.routes[a], route{source: a, kernel: true})
		}
		return nil
	})
}

// DelAddrs takes addresses off the device, and the kernel's routes to them.
func (k *Kernel) DelAddrs(ctx context.Context, addrs []netip.Addr) []error {
	return each(k, addrs, func(a netip.Addr) error {
		if err := k.fault(ctx, "delete", a); err != nil {
			return err
		}
		switch {
		case !k.there:
			return syscall.ENODEV
		case !k.addrs[a]:
			return syscall.EADDRNOTAVAIL
		}
		delete(k.addrs, a)
		k.keep(a, slices.DeleteFunc(k.routes[a], func(r route) bool { return r.kernel }))
		if a.Is4() && !k.any4() {
			maps.DeleteFunc(k.routes, func(a netip.Addr, _ []route) bool { return a.Is4() })
		}
		return nil
	})
}

// any4 reports whether an IPv4 address is left; without one the kernel takes
// IPv4 off the device, and all its routes.
func (k *Kernel) any4() bool {
	for a := range k.addrs {
		if a.Is4() {
			return true
		}
	}
	return false
}

func (k *Kernel) keep(a netip.Addr, routes []route) {
	k.routes[a] = routes
	if len(routes) == 0 {
		delete(k.routes, a)
	}
}

// PutRoutes makes or replaces local routes.
func (k *Kernel) PutRoutes(ctx context.Context, routes []vip.Route) []error {
	return each(k, routes, func(r vip.Route) error {
		if err := k.fault(ctx, "route", r.Addr); err != nil {
			return err
		}
		if !r.Source.IsValid() && r.Addr.Is4() {
			r.Source = r.Addr
		}
		switch {
		case !k.there:
			return syscall.ENODEV
		case r.Source.IsValid() && !k.local(r.Source):
			return syscall.EINVAL
		case r.Addr.Is6():
			k.put6(r)
			return nil
		}
		return k.put4(r)
	})
}

func (k *Kernel) local(a netip.Addr) bool { return k.addrs[a] || slices.Contains(k.Node, a) }

func (k *Kernel) put4(r vip.Route) error {
	have := k.routes[r.Addr]
	// A route equal to the kernel's is the kernel's: it goes with the address.
	fresh := route{source: r.Source, kernel: r.Source == r.Addr && k.addrs[r.Addr]}
	same := slices.IndexFunc(have, func(h route) bool { return h.source == r.Source })
	switch {
	case same > 0:
		return syscall.EEXIST
	case len(have) == 0:
		have = []route{fresh}
	default:
		have[0] = fresh
	}
	k.routes[r.Addr] = have
	return nil
}

// put6 leaves the kernel's own route, which is always the preferred one.
func (k *Kernel) put6(r vip.Route) {
	have := slices.DeleteFunc(k.routes[r.Addr], func(h route) bool { return !h.kernel })
	k.routes[r.Addr] = append(have, route{source: r.Source})
}

// DelRoutes removes local routes.
func (k *Kernel) DelRoutes(ctx context.Context, addrs []netip.Addr) []error {
	return each(k, addrs, func(a netip.Addr) error {
		if err := k.fault(ctx, "unroute", a); err != nil {
			return err
		}
		switch {
		case !k.there:
			return syscall.ENODEV
		case len(k.routes[a]) == 0:
			return syscall.ESRCH
		}
		k.keep(a, k.routes[a][1:])
		return nil
	})
}

// each applies fn to all items; nil when none failed.
func each[T any](k *Kernel, items []T, fn func(T) error) []error {
	k.count.Commands += uint64(len(items))
	k.count.Sends += uint64(len(items)+63) / 64
	errs := make([]error, len(items))
	failed := false
	for i, item := range items {
		errs[i] = fn(item)
		failed = failed || errs[i] != nil
	}
	if !failed {
		return nil
	}
	return errs
}

// Dump is everything on the device, a line for each address or route.
func (k *Kernel) Dump() string {
	var b strings.Builder
	if !k.there {
		return "no device\n"
	}
	for _, a := range slices.SortedFunc(maps.Keys(k.addrs), netip.Addr.Compare) {
		fmt.Fprintf(&b, "address %s\n", a)
	}
	for _, a := range slices.SortedFunc(maps.Keys(k.routes), netip.Addr.Compare) {
		for _, r := range k.routes[a] {
			fmt.Fprintf(&b, "local %s", a)
			if r.source.IsValid() {
				fmt.Fprintf(&b, " src %s", r.source)
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}
