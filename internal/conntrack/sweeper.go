package conntrack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sluice.dev/sluice/internal/model"
)

const (
	// pause is the least time between two sweeps: each reads all UDP entries,
	// and in a rolling update one removal follows another.
	pause = 100 * time.Millisecond

	minBackoff = 250 * time.Millisecond
	maxBackoff = 10 * time.Second
)

// Options are a Sweeper's settings. Handle is required.
type Options struct {
	Handle Handle
	// Audit is the time between two sweeps that nobody asked for, shortened at
	// random by up to a fifth. 0: none.
	Audit time.Duration
	// Swept is told of every sweep, from Run's goroutine. It must not block.
	Swept func(Sweep)
	Log   *slog.Logger // nil: discarded
}

// Sweep is one reading of the table, with what was deleted.
type Sweep struct {
	Took    time.Duration
	Deleted int
	Err     error // nil: all that was stale is gone
}

// Stats are the sweeps since start.
type Stats struct {
	Sweeps, Failures, Deleted uint64

	Last     time.Time     // when the last one ended; zero: none yet
	LastTook time.Duration // how long it took
	Err      string        // of the last one; "": it succeeded
	Since    time.Time     // since when they fail; zero: they do not
	Removed  int           // frontends that are gone and wait for a sweep to succeed
}

// Sweeper keeps the table free of stale entries. Owners are whoever names
// frontends. See the package comment for what to call when.
type Sweeper[O comparable] struct {
	opts   Options
	wake   chan struct{}
	synced chan struct{}
	once   sync.Once
	stats  atomic.Pointer[Stats]

	mu     sync.Mutex // of what follows: facts come while a sweep goes on
	ledger ledger[O]
	sweeps uint64 // begun
}

// New makes a Sweeper. It does nothing before Run.
func New[O comparable](opts Options) *Sweeper[O] {
	if opts.Swept == nil {
		opts.Swept = func(Sweep) {}
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	s := &Sweeper[O]{
		opts:   opts,
		wake:   make(chan struct{}, 1),
		synced: make(chan struct{}),
		ledger: newLedger[O](),
	}
	s.stats.Store(&Stats{})
	return s
}

// Set replaces an owner's frontends, each with all the endpoints that its flows
// may have. Those of other protocols than UDP are passed over, so that all may
// be given. It sweeps nothing: what left has to leave the kernel first. It
// never blocks for long and may be called from any goroutine, as Removed, Kick
// and Synced.
func (s *Sweeper[O]) Set(owner O, frontends map[model.FrontendKey][]netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ledger.set(owner, frontends, s.sweeps)
}

// Gone is what has left the kernel: a destination, or with an invalid Backend a
// virtual server.
type Gone struct {
	Frontend model.FrontendKey
	Backend  netip.AddrPort
}

// Removed says that virtual servers or destinations of UDP have left the
// kernel, and asks for a sweep. Entries of frontends that nobody wants any more
// are stale until a sweep that began after this call has succeeded.
func (s *Sweeper[O]) Removed(gone ...Gone) {
	s.mu.Lock()
	s.ledger.removed(gone, s.sweeps)
	s.mu.Unlock()
	s.Kick()
}

// Kick asks for a sweep that begins after this call. One answers all that asked
// before it began.
func (s *Sweeper[O]) Kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Synced allows sweeps: every source has told all it knows, and Set was called
// for every owner. The first sweep follows at once, for what went while nobody
// watched.
func (s *Sweeper[O]) Synced() { s.once.Do(func() { close(s.synced) }) }

// Stats are the sweeps so far. Any goroutine may ask.
func (s *Sweeper[O]) Stats() Stats { return *s.stats.Load() }

// Run sweeps until ctx ends.
func (s *Sweeper[O]) Run(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-s.synced:
	}
	tries := 0
	for {
		err := s.sweep(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			tries++
			wait(ctx, nil, min(minBackoff<<min(tries-1, 16), maxBackoff))
		default:
			tries = 0
			wait(ctx, nil, pause)
			wait(ctx, s.wake, s.untilAudit())
		}
	}
}

// wait ends with ctx, when woken or after some time; 0: not by itself.
func wait(ctx context.Context, wake <-chan struct{}, d time.Duration) {
	var after <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		after = t.C
	}
	select {
	case <-ctx.Done():
	case <-wake:
	case <-after:
	}
}

// untilAudit is the time to the next sweep that nobody asks for: sooner while
// endpoints are leaving, whose time may end without anybody's saying so. 0: none.
func (s *Sweeper[O]) untilAudit() time.Duration {
	var audit time.Duration
	if s.opts.Audit > 0 {
		audit = s.opts.Audit - time.Duration(rand.Int64N(int64(s.opts.Audit)/5+1))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ledger.leaving) > 0 && (audit == 0 || audit > grace) {
		return grace
	}
	return audit
}

// sweep reads the table once and deletes what is stale.
func (s *Sweeper[O]) sweep(ctx context.Context) error {
	select {
	case <-s.wake: // answered by this one
	default:
	}
	s.mu.Lock()
	s.sweeps++
	s.ledger.expire(time.Now())
	sweep, idle := s.sweeps, len(s.ledger.facts.Backends)+len(s.ledger.facts.Removed) == 0
	s.mu.Unlock()
	if idle {
		return nil // nothing can be stale
	}
	began := time.Now()
	deleted, err := s.clean(ctx)
	if ctx.Err() != nil {
		return ctx.Err() // cut short: neither a success nor a failure
	}
	s.note(sweep, Sweep{Took: time.Since(began), Deleted: deleted, Err: err})
	return err
}

// clean deletes what is stale. What was found in a reading that failed halfway
// is deleted all the same: an entry that was seen is there.
//
// Each entry is judged after it was read, so that an endpoint which it may
// rightly have has been named by then.
func (s *Sweeper[O]) clean(ctx context.Context) (deleted int, err error) {
	var stale []Flow
	err = s.opts.Handle.Flows(ctx, func(f Flow) {
		if s.stale(f) {
			stale = append(stale, f)
		}
	})
	if err != nil {
		err = fmt.Errorf("read UDP connections: %w", err)
	}
	if len(stale) == 0 {
		return 0, err
	}
	failed, cause := 0, error(nil)
	for i, e := range s.opts.Handle.Delete(ctx, stale) {
		switch {
		case e == nil:
			deleted++
		case errors.Is(e, syscall.ENOENT): // it ended by itself
		default:
			failed++
			if cause == nil {
				cause = fmt.Errorf("delete connection of %s to %s: %w", stale[i].Client, stale[i].Frontend, e)
			}
		}
	}
	if cause != nil {
		cause = fmt.Errorf("%d of %d stale UDP connections stay: %w", failed, len(stale), cause)
	}
	return deleted, errors.Join(err, cause)
}

func (s *Sweeper[O]) stale(f Flow) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stale(f, s.ledger.facts)
}

// note publishes a sweep, and logs when they begin to fail and when that ends.
func (s *Sweeper[O]) note(sweep uint64, done Sweep) {
	stats := s.Stats()
	stats.Sweeps++
	stats.Deleted += uint64(done.Deleted)
	stats.Last, stats.LastTook = time.Now(), done.Took
	switch {
	case done.Err != nil:
		stats.Failures++
		if stats.Err == "" {
			stats.Since = stats.Last
			s.opts.Log.Error("stale UDP connections may stay; trying again", "table", "conntrack", "err", done.Err)
		}
		stats.Err = done.Err.Error()
	case stats.Err != "":
		s.opts.Log.Info("stale UDP connections are gone at last", "table", "conntrack", "since", stats.Since)
		stats.Err, stats.Since = "", time.Time{}
	}
	s.mu.Lock()
	if done.Err == nil {
		s.ledger.forget(sweep)
	}
	stats.Removed = len(s.ledger.facts.Removed)
	s.mu.Unlock()
	s.stats.Store(&stats)
	s.opts.Swept(done)
}
