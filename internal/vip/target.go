package vip

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"syscall"

	"sluice.dev/sluice/internal/reconcile"
)

// Target is the device's addresses as a reconcile loop sees them.
type Target struct {
	handle Handle
	ready  bool // the device was there when last looked at
}

var _ reconcile.Target[Key, Spec] = (*Target)(nil)

// New makes a Target. It touches nothing.
func New(h Handle) *Target { return &Target{handle: h} }

type (
	section = reconcile.Section[Key, Spec]
	change  = reconcile.Change[Key, Spec]
)

// incomplete is the Source that List gives to an address of which a part is
// missing or too much is there. Nobody wants it, so it is put right or removed.
func incomplete(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// List yields everything on the device as one section, after making the
// device if it is not there.
func (t *Target) List(ctx context.Context, _ []Key) iter.Seq2[section, error] {
	return func(yield func(section, error) bool) {
		if err := t.ensure(ctx); err != nil {
			yield(section{}, err)
			return
		}
		listing, err := t.handle.List(ctx)
		if err != nil {
			yield(section{}, fmt.Errorf("list addresses: %w", err))
			return
		}
		yield(section{Covers: func(Key) bool { return true }, Present: present(listing)}, nil)
	}
}

func (t *Target) ensure(ctx context.Context) error {
	if err := t.handle.Ensure(ctx); err != nil {
		return fmt.Errorf("device for addresses: %w", err)
	}
	t.ready = true
	return nil
}

// present puts addresses and routes together. The first route to an address
// is the one in use.
func present(l Listing) map[Key]Spec {
	out := make(map[Key]Spec, len(l.Routes))
	for _, r := range l.Routes {
		k := Key{r.Addr}
		if _, behind := out[k]; behind {
			continue
		}
		spec := Spec{Source: r.Source}
		if r.Source == r.Addr {
			spec = Spec{} // what the kernel chooses by itself
		}
		out[k] = spec
	}
	has := make(map[netip.Addr]bool, len(l.Addrs))
	for _, a := range l.Addrs {
		has[a] = true
		if _, routed := out[Key{a}]; !routed || a.Is6() {
			out[Key{a}] = Spec{Source: incomplete(a)}
		}
	}
	for k := range out {
		if k.Addr.Is4() && !has[k.Addr] {
			out[k] = Spec{Source: incomplete(k.Addr)}
		}
	}
	return out
}

// Apply deletes addresses before their routes and puts them before their
// routes; see the package comment for what an address is made of.
func (t *Target) Apply(ctx context.Context, c change) map[Key]error {
	a := &application{Target: t, ctx: ctx, errs: map[Key]error{}}
	if !t.ready {
		if err := t.ensure(ctx); err != nil {
			a.failAll(c, err)
			return a.errs
		}
	}
	var adds, strays []netip.Addr
	routes := make([]Route, len(c.Puts))
	for i, p := range c.Puts {
		routes[i] = Route{Addr: p.Key.Addr, Source: p.Spec.Source}
		switch {
		case p.Key.Addr.Is4():
			adds = append(adds, p.Key.Addr)
		case p.Present:
			strays = append(strays, p.Key.Addr) // an IPv6 address outranks our route
		}
	}
	dels := make([]netip.Addr, len(c.Dels))
	for i, k := range c.Dels {
		dels[i] = k.Addr
	}
	a.deleteAddrs(append(strays, dels...))
	a.deleteRoutes(dels)
	a.addAddrs(adds)
	a.putRoutes(routes)
	return a.errs
}

// application is one Apply on its way.
type application struct {
	*Target
	ctx  context.Context //nolint:containedctx // lives for one call
	errs map[Key]error
}

func (a *application) failAll(c change, err error) {
	for _, p := range c.Puts {
		a.fail(p.Key.Addr, "add", err)
	}
	for _, k := range c.Dels {
		a.fail(k.Addr, "delete", err)
	}
}

// fail keeps an address's error. A device that is gone is made again next time.
func (a *application) fail(addr netip.Addr, doing string, err error) {
	if errors.Is(err, syscall.ENODEV) {
		a.ready = false
	}
	k := Key{addr}
	a.errs[k] = errors.Join(a.errs[k], fmt.Errorf("%s %s: %w", doing, addr, err))
}

func (a *application) deleteAddrs(addrs []netip.Addr) {
	for i, err := range a.handle.DelAddrs(a.ctx, addrs) {
		if err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			a.fail(addrs[i], "delete address", err)
		}
	}
}

func (a *application) deleteRoutes(addrs []netip.Addr) {
	for i, err := range a.handle.DelRoutes(a.ctx, addrs) {
		if err != nil && !errors.Is(err, syscall.ESRCH) {
			a.fail(addrs[i], "delete local route to", err)
		}
	}
}

func (a *application) addAddrs(addrs []netip.Addr) {
	for i, err := range a.handle.AddAddrs(a.ctx, addrs) {
		if err != nil && !errors.Is(err, syscall.EEXIST) {
			a.fail(addrs[i], "add address", err)
		}
	}
}

// putRoutes writes routes. Where the very route stands behind another one, as
// after a while of the device being down, the one in front is removed.
func (a *application) putRoutes(routes []Route) {
	var behind []netip.Addr
	for i, err := range a.handle.PutRoutes(a.ctx, routes) {
		r := routes[i]
		switch {
		case errors.Is(err, syscall.EEXIST):
			behind = append(behind, r.Addr)
		case err != nil && r.Source.IsValid():
			a.fail(r.Addr, "put local route with source "+r.Source.String()+" to", err)
		case err != nil:
			a.fail(r.Addr, "put local route to", err)
		}
	}
	a.deleteRoutes(behind)
}

// Remove removes the device. It is for cleaning up, once nothing is wanted;
// the addresses have to be deleted through Apply before, when order between
// tables matters.
func (t *Target) Remove(ctx context.Context) error {
	t.ready = false
	if err := t.handle.Remove(ctx); err != nil {
		return fmt.Errorf("remove device for addresses: %w", err)
	}
	return nil
}
