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

// Discard is an aggregate that this host tells routers, as the key of the table
// of discard routes (Discards). Traffic to those of its addresses that are
// nobody's would follow the host's default route, back to the router that sent
// it, until its TTL ends it; the discard route ends it here. The addresses that
// are Services' have longer routes, which win.
type Discard struct {
	Prefix netip.Prefix // masked
}

// String is the prefix.
func (d Discard) String() string { return d.Prefix.String() }

const (
	// DiscardProtocol is the protocol number (rtm_protocol) that discard routes
	// carry: an 's', which iproute2, the kernel and the routing daemons leave
	// free.
	DiscardProtocol = 115
	// DiscardMetric is their metric: worse than any that is chosen for use, and
	// what the kernel's documentation of VRFs advises for a last resort. Routing
	// daemons read its first byte as a distance of 255, which is never used.
	DiscardMetric = 4278198272
)

// DiscardHandle is the kernel's main routing tables, of both families. The
// writing verbs report errors as those of Handle do. What is ours is a route of
// type blackhole with DiscardProtocol and DiscardMetric.
type DiscardHandle interface {
	// List reads the prefixes of our routes.
	List(ctx context.Context) ([]netip.Prefix, error)
	// Others describes, for each of the prefixes that has any, a route to
	// exactly this prefix that is not ours.
	Others(ctx context.Context, prefixes []netip.Prefix) (map[netip.Prefix]string, error)
	// Put makes routes. EEXIST: there is one with DiscardMetric, ours or not.
	Put(ctx context.Context, prefixes []netip.Prefix) []error
	// Delete removes our routes. ESRCH: there is none.
	Delete(ctx context.Context, prefixes []netip.Prefix) []error
}

// Discards are the discard routes as a reconcile loop sees them. A prefix to
// which there is a route of somebody else's is an error for as long as it is
// there: what it is for, we cannot know, and it is neither replaced nor hidden.
// Such a route that comes later has the better metric and is preferred to ours.
type Discards struct{ handle DiscardHandle }

var _ reconcile.Target[Discard, struct{}] = (*Discards)(nil)

// NewDiscards makes the Target. It touches nothing.
func NewDiscards(h DiscardHandle) *Discards { return &Discards{handle: h} }

// List yields all that is ours as one section.
func (d *Discards) List(ctx context.Context, _ []Discard) iter.Seq2[reconcile.Section[Discard, struct{}], error] {
	return func(yield func(reconcile.Section[Discard, struct{}], error) bool) {
		prefixes, err := d.handle.List(ctx)
		if err != nil {
			yield(reconcile.Section[Discard, struct{}]{}, fmt.Errorf("list discard routes: %w", err))
			return
		}
		present := make(map[Discard]struct{}, len(prefixes))
		for _, p := range prefixes {
			present[Discard{p}] = struct{}{}
		}
		yield(reconcile.Section[Discard, struct{}]{Covers: func(Discard) bool { return true }, Present: present}, nil)
	}
}

// Apply deletes and makes routes.
func (d *Discards) Apply(ctx context.Context, c reconcile.Change[Discard, struct{}]) map[Discard]error {
	errs := map[Discard]error{}
	dels := make([]netip.Prefix, len(c.Dels))
	for i, k := range c.Dels {
		dels[i] = k.Prefix
	}
	for i, err := range d.handle.Delete(ctx, dels) {
		if err != nil && !errors.Is(err, syscall.ESRCH) {
			errs[c.Dels[i]] = fmt.Errorf("delete discard route to %s: %w", dels[i], err)
		}
	}
	puts := make([]netip.Prefix, len(c.Puts))
	for i, p := range c.Puts {
		puts[i] = p.Key.Prefix
	}
	d.put(ctx, puts, errs)
	return errs
}

// put makes routes where nobody else has one.
func (d *Discards) put(ctx context.Context, prefixes []netip.Prefix, errs map[Discard]error) {
	if len(prefixes) == 0 {
		return
	}
	others, err := d.handle.Others(ctx, prefixes)
	var free []netip.Prefix
	for _, p := range prefixes {
		route, taken := others[p]
		switch {
		case err != nil:
			errs[Discard{p}] = fmt.Errorf("look for other routes to %s before it is discarded: %w", p, err)
		case taken:
			errs[Discard{p}] = fmt.Errorf("discard route to %s: another route to it is there (%s); "+
				"remove that, or change the aggregation length of the BGPAdvertisement: %w", p, route, syscall.EEXIST)
		default:
			free = append(free, p)
		}
	}
	for i, err := range d.handle.Put(ctx, free) {
		// With nobody else's there, what exists is ours.
		if err != nil && !errors.Is(err, syscall.EEXIST) {
			errs[Discard{free[i]}] = fmt.Errorf("add discard route to %s: %w", free[i], err)
		}
	}
}
