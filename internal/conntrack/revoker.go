package conntrack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"time"
)

// RevokerOptions are a Revoker's settings. Marks, Bit and Allowed are required.
type RevokerOptions struct {
	Marks Marks
	Bit   uint32 // of a connection's mark: it is revoked
	// Allowed judges a connection that no other one announced. It is asked from
	// Run's goroutine while the table is being read, and must be fast.
	Allowed func(Conn) bool
	// Audit is the time between two reviews that nobody asked for, shortened at
	// random by up to a fifth. 0: none.
	Audit time.Duration
	// Done is told of every review, from Run's goroutine. It must not block.
	Done func(Review)
	Log  *slog.Logger // nil: discarded
}

// Review is one reading of the table, with what was changed.
type Review struct {
	Took              time.Duration
	Conns             int // read
	Revoked, Restored int // given the bit, and rid of it
	Err               error
}

// RevokerStats are the reviews since start.
type RevokerStats struct {
	Reviews, Failures, Revoked, Restored uint64

	Last  Review    // the last one
	At    time.Time // when it ended; zero: none yet
	Since time.Time // since when they fail; zero: they do not
}

// spacing is how many times as long as a review took there is none behind it: of
// a table that takes long to read, it is less than a tenth of the time.
const spacing = 10

// Revoker gives connections that are not allowed any more a bit of their mark,
// and takes it away from those that are. A rule refuses what has it, in both
// directions. Nothing is ever deleted: when the answering end speaks first, the
// kernel makes the entry anew in the other direction, and the connection goes on.
type Revoker struct {
	opts  RevokerOptions
	wake  chan struct{}
	stats atomic.Pointer[RevokerStats]
}

// NewRevoker makes a Revoker. It does nothing before Run.
func NewRevoker(opts RevokerOptions) *Revoker {
	if opts.Done == nil {
		opts.Done = func(Review) {}
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	r := &Revoker{opts: opts, wake: make(chan struct{}, 1)}
	r.stats.Store(&RevokerStats{})
	return r
}

// Kick asks for a review that begins after this call. One answers all that
// asked before it began. Any goroutine may ask; it never blocks.
func (r *Revoker) Kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Stats are the reviews so far. Any goroutine may ask.
func (r *Revoker) Stats() RevokerStats { return *r.stats.Load() }

// Run reviews until ctx ends. It does nothing before the first Kick: as long as
// not all facts are known, connections would look as if nothing allowed them.
func (r *Revoker) Run(ctx context.Context) {
	wait(ctx, r.wake, 0)
	for tries := 0; ctx.Err() == nil; {
		done := r.review(ctx)
		switch {
		case ctx.Err() != nil: // cut short: neither a success nor a failure
			return
		case done.Err != nil:
			tries++
			r.note(done)
			wait(ctx, nil, max(min(minBackoff<<min(tries-1, 16), maxBackoff), spacing*done.Took))
		default:
			tries = 0
			r.note(done)
			wait(ctx, nil, max(pause, spacing*done.Took))
			wait(ctx, r.wake, r.untilAudit())
		}
	}
}

func (r *Revoker) untilAudit() time.Duration {
	if r.opts.Audit <= 0 {
		return 0
	}
	return r.opts.Audit - time.Duration(rand.Int64N(int64(r.opts.Audit)/5+1))
}

// review reads the table once and changes the marks that are not right. Each
// entry is judged after it was read, by what is known at that moment. What was
// found in a reading that failed halfway is changed all the same.
func (r *Revoker) review(ctx context.Context) (done Review) {
	select {
	case <-r.wake: // answered by this one
	default:
	}
	began := time.Now()
	var denied, restored []Conn
	err := r.opts.Marks.Conns(ctx, func(c Conn) {
		done.Conns++
		revoked := c.Mark&r.opts.Bit != 0
		switch {
		case c.Related: // it is not judged by itself
		case r.opts.Allowed(c) != revoked:
		case revoked:
			restored = append(restored, c)
		default:
			denied = append(denied, c)
		}
	})
	if err != nil {
		err = fmt.Errorf("read connections: %w", err)
	}
	var failed, failed2 error
	done.Revoked, failed = r.mark(ctx, denied, r.opts.Bit)
	done.Restored, failed2 = r.mark(ctx, restored, 0)
	done.Err = errors.Join(err, failed, failed2)
	done.Took = time.Since(began)
	return done
}

// mark sets the bit to value, and says how many connections have it so now.
func (r *Revoker) mark(ctx context.Context, conns []Conn, value uint32) (marked int, err error) {
	if len(conns) == 0 {
		return 0, nil
	}
	failed, cause := 0, error(nil)
	for i, e := range r.opts.Marks.SetMark(ctx, conns, value, r.opts.Bit) {
		switch {
		case e == nil:
			marked++
		case errors.Is(e, syscall.ENOENT): // it ended
		default:
			failed++
			if cause == nil {
				cause = fmt.Errorf("mark connection of %s to %s: %w", conns[i].Client, conns[i].Backend, e)
			}
		}
	}
	if cause == nil {
		return marked, nil
	}
	what := "connections that are allowed again stay stopped"
	if value != 0 {
		what = "connections that are not allowed any more go on"
	}
	return marked, fmt.Errorf("%d of %d %s: %w", failed, len(conns), what, cause)
}

// note publishes a review, and logs when they begin to fail and when that ends.
func (r *Revoker) note(done Review) {
	stats := r.Stats()
	was := stats.Last.Err
	stats.Reviews++
	stats.Revoked += uint64(done.Revoked)
	stats.Restored += uint64(done.Restored)
	stats.Last, stats.At = done, time.Now()
	switch {
	case done.Err != nil:
		stats.Failures++
		if was == nil {
			stats.Since = stats.At
			r.opts.Log.Error("connections that policy does not allow any more may go on; trying again", "table", "conntrack", "err", done.Err)
		}
	case was != nil:
		r.opts.Log.Info("connections are what policy allows, at last", "table", "conntrack", "since", stats.Since)
		stats.Since = time.Time{}
	}
	r.stats.Store(&stats)
	r.opts.Done(done)
}
