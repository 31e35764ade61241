package ipam

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source"
)

const (
	batch      = 64 // decisions that are carried out together
	writers    = 16 // of these at the same time
	retryFirst = time.Second
	retryMost  = time.Minute
	// poolPeriod is the time between two writings of the pools' status.
	poolPeriod = 2 * time.Second
	// auditPeriod is the time between two comparisons with all claims.
	auditPeriod = 5 * time.Minute
)

// ControllerOptions are what a Controller needs.
type ControllerOptions struct {
	// Source tells Services, AddressPools, Namespaces and Nodes.
	Source  source.Source
	Cluster Cluster
	// Elect calls lead each time this process begins to lead, with a context
	// that ends when it does not any more, until ctx ends; nil: it leads always.
	Elect     func(ctx context.Context, lead func(context.Context)) error
	Allocator Options
	Problem   func(model.Problem) // hears what is wrong; nil: nobody
	Log       *slog.Logger        // nil: silence
}

// Controller gives the Services of a cluster their addresses, while it leads.
// While it does not, it only follows what is told.
type Controller struct {
	opts    ControllerOptions
	log     *slog.Logger
	inbox   inbox
	terms   chan context.Context
	metrics atomic.Pointer[Counts]

	*desks // of the goroutine that runs loop
}

// desks is what the controller's goroutine knows.
type desks struct {
	allocator *Allocator
	writer    writer
	synced    bool            // the source has told everything
	term      context.Context // while it leads; nil: it does not
	loaded    bool            // the cluster was read since the term began

	apart   map[netip.Addr]string                  // addresses of Services that the source leaves out
	known   map[Holder]standing                    // what Services' status says
	later   map[Holder]retry                       // what is to be tried again
	told    map[string][]model.Problem             // of pools, by name
	pools   map[string]PoolCounts                  // as written
	due     struct{ load, pools, audit time.Time } // not before then
	backoff time.Duration                          // of load
	counts  Counts
}

type retry struct {
	at   time.Time
	wait time.Duration
}

// errBehind is that the cluster says something that was not told yet.
var errBehind = errors.New("the Service has changed, and that was not told yet")

// NewController makes a controller; nothing is read or written before Run.
func NewController(opts ControllerOptions) *Controller {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Problem == nil {
		opts.Problem = func(model.Problem) {}
	}
	if opts.Elect == nil {
		opts.Elect = func(ctx context.Context, lead func(context.Context)) error { lead(ctx); <-ctx.Done(); return nil }
	}
	c := &Controller{
		opts: opts, log: opts.Log, inbox: inbox{news: make(chan struct{}, 1)}, terms: make(chan context.Context),
		desks: &desks{allocator: New(opts.Allocator), writer: writer{opts.Cluster}},
	}
	c.reset()
	c.metrics.Store(&Counts{})
	return c
}

// Run follows and leads until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.opts.Source.Run(ctx, &c.inbox) })
	group.Go(func() error {
		return c.opts.Elect(ctx, func(term context.Context) {
			select {
			case c.terms <- term:
			case <-term.Done():
			}
		})
	})
	group.Go(func() error { c.loop(ctx); return nil })
	return group.Wait()
}

// loop is the goroutine that owns the allocator.
func (c *Controller) loop(ctx context.Context) {
	for ctx.Err() == nil {
		c.hear()
		busy := false
		if c.term != nil {
			busy = c.lead()
		}
		c.publish()
		if !busy {
			c.rest(ctx)
		}
	}
}

// rest waits for something to do.
func (c *Controller) rest(ctx context.Context) {
	timer := time.NewTimer(time.Until(c.nextDue()))
	defer timer.Stop()
	var ended <-chan struct{}
	if c.term != nil {
		ended = c.term.Done()
	}
	select {
	case <-ctx.Done():
	case <-c.inbox.news:
	case term := <-c.terms:
		c.begin(term)
	case <-ended:
		c.end()
	case <-timer.C:
	}
}

func (c *Controller) nextDue() time.Time {
	next := time.Now().Add(time.Hour)
	if c.term == nil || !c.synced {
		return next
	}
	if !c.loaded {
		return c.due.load
	}
	for _, r := range c.later {
		if r.at.Before(next) {
			next = r.at
		}
	}
	for _, at := range []time.Time{c.due.pools, c.due.audit} {
		if at.Before(next) {
			next = at
		}
	}
	return next
}

func (c *Controller) begin(term context.Context) {
	c.log.Info("leading: this controller gives addresses now")
	c.term = term
	c.due.load, c.backoff = time.Now(), retryFirst
	c.reset()
}

// end forgets what was not carried out; the next leader decides upon it.
func (c *Controller) end() {
	c.log.Warn("not leading any more: another controller gives addresses")
	c.term = nil
	c.reset()
}

func (c *Controller) reset() {
	c.loaded = false
	c.allocator = c.allocator.Follow()
	c.apart = map[netip.Addr]string{}
	c.known = map[Holder]standing{}
	c.later, c.told, c.pools = map[Holder]retry{}, map[string][]model.Problem{}, map[string]PoolCounts{}
}

// hear takes in what was told.
func (c *Controller) hear() {
	for _, e := range c.inbox.take() {
		c.synced = c.synced || e.Synced
		if e.Problem != nil {
			c.opts.Problem(*e.Problem)
		}
		if gone, ok := e.Delete.(model.ServiceKey); ok {
			c.forget(gone.Name)
		}
		c.allocator.Apply(e)
	}
}

func (c *Controller) forget(name model.Name) {
	if h, ok := c.allocator.Holder(name); ok {
		delete(c.known, h)
	}
}

// lead does a part of the work, and reports whether there may be more.
func (c *Controller) lead() (busy bool) {
	if c.term.Err() != nil {
		c.end()
		return true
	}
	now := time.Now()
	switch {
	case !c.synced:
		return false
	case !c.loaded:
		if now.Before(c.due.load) {
			return false
		}
		c.load()
		return c.loaded
	}
	for h, r := range c.later {
		if !r.at.After(now) {
			c.later[h] = retry{at: now.Add(retryMost), wait: r.wait}
			c.allocator.Again(h)
		}
		if !c.allocator.Knows(h) {
			delete(c.later, h)
		}
	}
	if !now.Before(c.due.audit) {
		c.audit()
	}
	tasks := c.decisions()
	c.carryOut(tasks)
	if !now.Before(c.due.pools) {
		c.writePools()
	}
	return len(tasks) > 0
}

// decisions are the next ones that the cluster does not say yet.
func (c *Controller) decisions() []Decision {
	var tasks []Decision
	for len(tasks) < batch {
		d, ok := c.allocator.Next()
		if !ok {
			break
		}
		if c.needless(d) {
			delete(c.later, d.Holder)
			continue
		}
		tasks = append(tasks, d)
	}
	return tasks
}

// needless reports whether the cluster says what was decided already.
func (c *Controller) needless(d Decision) bool {
	if d.Gone || len(d.Release) > 0 {
		return false
	}
	st, known := c.known[d.Holder]
	if !d.Wanted {
		return !known || st.says(d)
	}
	return known && st.says(d) && slices.Equal(d.Told, d.Addresses)
}

// carryOut carries tasks out side by side, and hears how far they came.
func (c *Controller) carryOut(tasks []Decision) {
	outcomes := make([]outcome, len(tasks))
	var group errgroup.Group
	group.SetLimit(writers)
	for i, d := range tasks {
		group.Go(func() error { outcomes[i] = c.writer.carry(c.term, d); return nil })
	}
	_ = group.Wait() // outcomes have the errors
	for i, o := range outcomes {
		c.settle(tasks[i], o)
	}
}

// settle takes in how far a task came.
func (c *Controller) settle(d Decision, o outcome) {
	h := d.Holder
	for _, a := range o.released {
		c.allocator.Released(h, a)
	}
	switch {
	case o.err != nil:
		c.postpone(h, o.err)
		return
	case o.alive:
		for _, a := range d.Release {
			c.allocator.Released(h, a)
			c.allocator.Block(a, "Service "+h.String()+", which was not told yet")
		}
	case o.adopt != nil:
		if was, known := c.known[h]; known && was.equal(*o.adopt) {
			c.postpone(h, errBehind)
			return
		}
		c.adopt(h, o)
	case o.by != "":
		c.counts.Conflicts++
		c.allocator.Refuse(h, o.refused, o.by)
	case o.standing != nil:
		c.report(d, *o.standing)
		c.known[h] = *o.standing
	}
	delete(c.later, h)
}

// adopt takes over what somebody else has given to a Service. Those who were to
// have it by what was decided here, and are not on its claim, get another one.
func (c *Controller) adopt(h Holder, o outcome) {
	c.counts.Conflicts++
	for a, with := range o.others {
		c.allocator.Evict(a, append(with, h))
	}
	c.allocator.Adopt(h, o.adopt.ours, o.adopt.others, o.adopt.handled)
	c.known[h] = *o.adopt
}

// report tells what is new in a decision that was carried out.
func (c *Controller) report(d Decision, st standing) {
	was := c.known[d.Holder]
	if len(d.Addresses) > 0 && !slices.Equal(was.ours, st.ours) {
		c.counts.Allocations++
		c.log.Info("addresses given", "service", d.Name.String(), "addresses", d.Addresses)
	}
	if was.verdict == d.Condition {
		return
	}
	if p := d.Problem(); p != nil {
		c.opts.Problem(*p)
	}
}

// postpone has a task tried again, later and later.
func (c *Controller) postpone(h Holder, err error) {
	if c.term.Err() != nil {
		return
	}
	wait := min(2*c.later[h].wait, retryMost)
	if wait == 0 {
		wait = retryFirst
		c.log.Warn("address not written, trying again", "service", h.String(), "err", err)
	}
	c.later[h] = retry{at: time.Now().Add(wait), wait: wait}
}

// publish shows how things are to readers of metrics.
func (c *Controller) publish() {
	counts := c.counts
	counts.Leading = c.term != nil
	counts.Waiting = c.allocator.Waiting()
	counts.Pools = c.allocator.Pools()
	c.metrics.Store(&counts)
}

// inbox keeps what was told until it is heard.
type inbox struct {
	mu     sync.Mutex
	events []model.Event
	news   chan struct{}
}

// Event implements source.Sink.
func (i *inbox) Event(e model.Event) {
	i.mu.Lock()
	i.events = append(i.events, e)
	i.mu.Unlock()
	select {
	case i.news <- struct{}{}:
	default:
	}
}

func (i *inbox) take() []model.Event {
	i.mu.Lock()
	defer i.mu.Unlock()
	events := i.events
	i.events = nil
	return events
}

// sortedHolders are the keys of a map in the order of their names.
func sortedHolders[V any](m map[Holder]V) []Holder {
	return slices.SortedFunc(maps.Keys(m), func(a, b Holder) int { return a.Name.Compare(b.Name) })
}
