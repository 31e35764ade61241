package topo

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// RouteChange is a change of the ways to a prefix in a host's kernel. At is
// when word of it was read, which on a busy machine is milliseconds later.
type RouteChange struct {
	At            time.Time
	Prefix        netip.Prefix
	Before, After []netip.Addr // next hops, in order; none: there is no route
}

func (c RouteChange) String() string {
	return fmt.Sprintf("%s %v: %v -> %v", c.At.Format("15:04:05.000"), c.Prefix, c.Before, c.After)
}

// Lost are the next hops that the change took away.
func (c RouteChange) Lost() []netip.Addr {
	return slices.DeleteFunc(slices.Clone(c.Before), func(a netip.Addr) bool { return slices.Contains(c.After, a) })
}

// RouteWatch hears of every change of a host's main routing table. Its methods
// are for any goroutine.
type RouteWatch struct {
	host string

	mu      sync.Mutex
	now     map[netip.Prefix][]netip.Addr // guarded by mu, as all below
	changes []RouteChange
	changed chan struct{} // closed and replaced with each change
	err     error         // news were lost: nothing here can be believed
}

// WatchRoutes starts a watch that lasts until the topology closes.
func (h *Host) WatchRoutes() (*RouteWatch, error) {
	w := &RouteWatch{host: h.Name, now: map[netip.Prefix][]netip.Addr{}, changed: make(chan struct{})}
	updates, done := make(chan netlink.RouteUpdate, 1024), make(chan struct{})
	err := netlink.RouteSubscribeWithOptions(updates, done, netlink.RouteSubscribeOptions{
		Namespace: &h.ns, ErrorCallback: w.fail,
		// A router that learns ten thousand routes at once says so faster than
		// this process reads.
		ReceiveBufferSize: 16 << 20, ReceiveBufferForceSize: true,
	})
	if err != nil {
		return nil, fmt.Errorf("topo: watch routes of %q: %w", h.Name, err)
	}
	routes, err := h.links.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		close(done)
		return nil, fmt.Errorf("topo: list routes of %q: %w", h.Name, err)
	}
	for _, r := range routes {
		if p, ok := prefixOf(r); ok {
			w.now[p] = nextHops(r)
		}
	}
	stop := sync.OnceFunc(func() { close(done) })
	h.onClose(func() error { stop(); return nil })
	go func() {
		for u := range updates {
			w.take(u)
		}
	}()
	return w, nil
}

func (w *RouteWatch) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = fmt.Errorf("topo: routes of %q: %w", w.host, err)
	}
	w.wake()
}

// wake tells those who wait. Its caller holds mu.
func (w *RouteWatch) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *RouteWatch) take(u netlink.RouteUpdate) {
	at := time.Now()
	p, ok := prefixOf(u.Route)
	if !ok || u.Table != unix.RT_TABLE_MAIN {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	before, after := w.now[p], nextHops(u.Route)
	if u.Type == unix.RTM_DELROUTE {
		// Of a route of IPv6 one way may go and the others stay.
		gone := after
		after = slices.DeleteFunc(slices.Clone(before), func(a netip.Addr) bool { return slices.Contains(gone, a) })
	}
	if slices.Equal(before, after) {
		return
	}
	w.now[p] = after
	w.changes = append(w.changes, RouteChange{at, p, before, after})
	w.wake()
}

// prefixOf is a route's destination, if it is one of the ways to somewhere
// else.
func prefixOf(r netlink.Route) (netip.Prefix, bool) {
	if r.Dst == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(r.Dst.IP)
	if !ok {
		return netip.Prefix{}, false
	}
	bits, size := r.Dst.Mask.Size()
	if size == 32 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, bits), true
}

// nextHops are a route's, in order.
func nextHops(r netlink.Route) (hops []netip.Addr) {
	add := func(ip []byte) {
		if a, ok := netip.AddrFromSlice(ip); ok {
			hops = append(hops, a.Unmap())
		}
	}
	add(r.Gw)
	for _, way := range r.MultiPath {
		add(way.Gw)
	}
	slices.SortFunc(hops, netip.Addr.Compare)
	return slices.Compact(hops)
}

// Mark is the number of changes so far: where a test begins to look.
func (w *RouteWatch) Mark() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.changes)
}

// Since are the changes after a mark; that some were missed is an error.
func (w *RouteWatch) Since(mark int) ([]RouteChange, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.changes[mark:]), w.err
}

// NextHops are the ways to a prefix now.
func (w *RouteWatch) NextHops(p netip.Prefix) ([]netip.Addr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now[p], w.err
}

// Count is how many of the prefixes that f accepts have a route.
func (w *RouteWatch) Count(f func(netip.Prefix) bool) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for p, hops := range w.now {
		if len(hops) > 0 && f(p) {
			n++
		}
	}
	return n, w.err
}

// Await waits for the first change of a prefix after a mark that leaves it with
// next hops as wanted.
func (w *RouteWatch) Await(ctx context.Context, mark int, p netip.Prefix, want func(hops []netip.Addr) bool) (RouteChange, error) {
	for {
		w.mu.Lock()
		changes, changed, now, err := w.changes[mark:], w.changed, w.now[p], w.err
		w.mu.Unlock()
		if err != nil {
			return RouteChange{}, err
		}
		for _, c := range changes {
			if c.Prefix == p && want(c.After) {
				return c, nil
			}
		}
		mark += len(changes)
		select {
		case <-changed:
		case <-ctx.Done():
			return RouteChange{}, fmt.Errorf("topo: %w: %v of %q has next hops %v", context.Cause(ctx), p, w.host, now)
		}
	}
}
