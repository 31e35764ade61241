package ipvs

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
)

// TargetOptions configures a Target.
type TargetOptions struct {
	// Ours says which virtual servers are ours (see the package comment). It
	// is asked at the beginning of every listing. Nil: none, so that a
	// forgotten predicate deletes nothing that others made.
	Ours func(context.Context) (func(VirtualServer) bool, error)
	// Drain bounds how long a leaving destination or virtual server keeps its
	// established connections. 0: DefaultDrain; below 0: nothing is drained,
	// what is to be deleted goes at once.
	Drain time.Duration
	// Limit is Drain for one virtual server and its destinations; 0: Drain.
	// Nil: Drain for all. It is asked whenever their connections are counted.
	Limit func(VirtualServer) time.Duration
	// Local says whether packets to an address end at this node. A virtual
	// server that is to be deleted while its address does is drained; without
	// its address it serves nobody. Nil: no address does.
	Local func(context.Context, netip.Addr) (bool, error)
	// Removed is told which virtual servers and destinations of UDP have just
	// left the kernel, from the loop's goroutine. It must not block.
	Removed func([]Key)
}

// Target is the part of the table that is ours, as a loop sees it.
type Target struct {
	handle Handle
	opts   TargetOptions
	census *census
}

var _ reconcile.Target[Key, Spec] = (*Target)(nil)

// NewTarget makes a Target of a handle, which stays the caller's to close.
func NewTarget(handle Handle, opts TargetOptions) *Target {
	if opts.Ours == nil {
		opts.Ours = func(context.Context) (func(VirtualServer) bool, error) {
			return func(VirtualServer) bool { return false }, nil
		}
	}
	if opts.Drain == 0 {
		opts.Drain = DefaultDrain
	}
	if opts.Limit == nil {
		opts.Limit = func(VirtualServer) time.Duration { return 0 }
	}
	if opts.Local == nil {
		opts.Local = func(context.Context, netip.Addr) (bool, error) { return false, nil }
	}
	if opts.Removed == nil {
		opts.Removed = func([]Key) {}
	}
	return &Target{handle: handle, opts: opts, census: newCensus()}
}

// Counts are how many objects of ours the table holds: exactly, but for what
// others changed since the last listing. Any goroutine may ask.
func (t *Target) Counts() Counts { return *t.census.published.Load() }

// limit is how long a virtual server and its destinations may drain; below 0:
// not at all.
func (t *Target) limit(vs VirtualServer) time.Duration {
	if t.opts.Drain < 0 {
		return t.opts.Drain
	}
	return cmp.Or(t.opts.Limit(vs), t.opts.Drain)
}

// Apply writes a change: virtual servers, then destinations put, then
// destinations deleted, then virtual servers deleted. So a destination moves
// without a moment in which a virtual server has none, and nothing is put
// into a virtual server that is not there yet.
//
// What leaves gets weight 0, and is deferred until its connections have ended;
// see drain. That is a destination whose virtual server stays, and a virtual
// server whose address still answers here.
//
// A put goes out as what Present says, without looking; when the kernel says
// that it is otherwise, the other verb follows. Destinations of a virtual
// server that is deleted go with it and cost no command.
//
// A virtual server that had vanished behind our back is created again and
// counts as written; its destinations that are not part of the change are
// missing until the next listing.
func (t *Target) Apply(ctx context.Context, change reconcile.Change[Key, Spec]) map[Key]error {
	w := writer{ctx: ctx, target: t, failed: make(map[Key]error)}
	servers, destinations := puts(change.Puts)
	w.put(servers)
	w.put(destinations)
	for _, p := range change.Puts {
		if w.failed[p.Key] == nil {
			t.census.put(p.Key, p.Spec.Destination.Weight, p.Present)
		}
	}
	w.leave(change.Dels, time.Now())
	t.census.publish()
	if len(w.removed) > 0 {
		t.opts.Removed(w.removed)
	}
	return w.failed
}

// writer is one Apply on its way.
type writer struct {
	ctx     context.Context // lives for one Apply
	target  *Target
	failed  map[Key]error
	removed []Key // of UDP
}

// puts turns puts into commands, virtual servers and destinations apart.
func puts(puts []reconcile.Put[Key, Spec]) (servers, destinations []Command) {
	for _, p := range puts {
		c := Command{Op: Create, Key: p.Key, Spec: p.Spec}
		if p.Present {
			c.Op = Change
		}
		if p.Key.IsDestination() {
			destinations = append(destinations, c)
		} else {
			servers = append(servers, c)
		}
	}
	return servers, destinations
}

// put writes creations and changes. What turned out to be there, or not to
// be, is written once more with the other verb; if that too is contradicted,
// somebody else is writing the same key and the loop has to look again.
func (w *writer) put(commands []Command) {
	var again []Command
	for i, err := range w.write(commands) {
		c := commands[i]
		switch {
		case err == nil:
		case c.Op == Create && exists(err):
			c.Op = Change
			again = append(again, c)
		case c.Op == Change && absent(c, err):
			c.Op = Create
			again = append(again, c)
		default:
			w.fail(c, err)
		}
	}
	for i, err := range w.write(again) {
		if err != nil {
			w.fail(again[i], err)
		}
	}
}

// delete writes deletions; what is absent is deleted.
func (w *writer) delete(commands []Command) {
	for i, err := range w.write(commands) {
		c := commands[i]
		if err != nil && !absent(c, err) && !noVirtualServer(c, err) {
			w.fail(c, err)
			continue
		}
		w.gone(c.Key)
	}
}

// gone takes in that an entry has left the table.
func (w *writer) gone(k Key) {
	w.target.census.gone(k)
	if k.Protocol == model.UDP {
		w.removed = append(w.removed, k)
	}
}

func (w *writer) write(commands []Command) []error {
	if len(commands) == 0 {
		return nil
	}
	return w.target.handle.Write(w.ctx, commands)
}

// fail files a key's error with its subject and, where the errno alone would
// mislead, with what it means.
func (w *writer) fail(c Command, err error) {
	switch {
	case noVirtualServer(c, err):
		if cause := w.failed[Key{VirtualServer: c.Key.VirtualServer}]; cause != nil {
			err = cause
		} else {
			err = fmt.Errorf("the virtual server is not there: %w", err)
		}
	case noSuchModule(c, err):
		err = missingModule(c.Spec.VirtualServer, err)
	}
	w.failed[c.Key] = fmt.Errorf("%s %s: %w", c.Op, c.Key.subject(), err)
}

// missingModule explains the ENOENT of a virtual server: the kernel looks for
// the scheduler first, then for the persistence engine, and tries to load the
// module of either.
func missingModule(spec VirtualServerSpec, err error) error {
	text := fmt.Sprintf("the kernel has no scheduler %q (module ip_vs_%s)", spec.Scheduler, spec.Scheduler)
	if spec.PEName != "" {
		text += fmt.Sprintf(" or no persistence engine %q (module ip_vs_pe_%s)", spec.PEName, spec.PEName)
	}
	return fmt.Errorf("%s: %w", text, err)
}
