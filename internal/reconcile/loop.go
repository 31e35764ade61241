package reconcile

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"sluice.dev/sluice/internal/delta"
)

// Options are a loop's settings. Name and Less are required.
type Options[O, K comparable] struct {
	// Name is the table's name in logs, metrics and Status.
	Name string
	// Less orders owners; see delta.New.
	Less func(a, b O) bool
	// GateOf is the key that gives another one its meaning; see Claim.Under.
	// A Settlement waits for gates only: the keys that are their own. Nil:
	// every key is.
	GateOf func(K) K
	// Free exempts orphans from waiting for a Sweep, given which keys are put by
	// anyone. Nil: none is exempt.
	Free func(k K, wished func(K) bool) bool
	// Settled is told which claims have come true. It is called from the
	// loop's goroutine and must not block.
	Settled func([]Settlement[O])
	// Audit is the time between two audits, shortened at random by up to a
	// fifth so that a cluster's nodes do not audit in step. 0: none.
	Audit time.Duration
	// MinBackoff and MaxBackoff bound the wait before a failed key is tried
	// again; 0 means 250 ms and 30 s.
	MinBackoff, MaxBackoff time.Duration
	// Applied is told how long each batch took, and Failed of each key that
	// could not be written and each listing that failed. They are called from
	// the loop's goroutine and must not block.
	Applied func(time.Duration)
	Failed  func(error)
	Log     *slog.Logger // nil: discarded
}

// Loop is one table's reconcile loop.
type Loop[O, K, V comparable] struct {
	opts      Options[O, K]
	target    Target[K, V]
	inbox     *inbox[O, K, V]
	questions *Questions
	status    atomic.Pointer[Status]

	// What follows belongs to Run's goroutine.
	tracker  *delta.Tracker[O, K, V]
	synced   bool
	waiting  map[O]waiting[K]
	orphans  map[K]struct{} // nobody wanted them when all was told, and nobody does
	failing  map[K]failure
	deferred map[K]time.Time // deletions under way, and when to ask again
	listing  failure         // of the whole table; err == nil: none
	counters Status
}

// waiting is a claim that has not come true yet, and the keys it waits for:
// its own, and those that an earlier claim let go and that are still there.
type waiting[K comparable] struct {
	version uint64
	keys    []K
	leaving bool // it has been told that only what goes is still waited for
}

// NewLoop makes a loop over a target. It does nothing before Run.
func NewLoop[O, K, V comparable](target Target[K, V], opts Options[O, K]) *Loop[O, K, V] {
	if opts.MinBackoff == 0 {
		opts.MinBackoff = 250 * time.Millisecond
	}
	if opts.MaxBackoff == 0 {
		opts.MaxBackoff = 30 * time.Second
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.GateOf == nil {
		opts.GateOf = func(k K) K { return k }
	}
	if opts.Settled == nil {
		opts.Settled = func([]Settlement[O]) {}
	}
	if opts.Free == nil {
		opts.Free = func(K, func(K) bool) bool { return false }
	}
	if opts.Applied == nil {
		opts.Applied = func(time.Duration) {}
	}
	if opts.Failed == nil {
		opts.Failed = func(error) {}
	}
	l := &Loop[O, K, V]{
		opts:    opts,
		target:  target,
		inbox:   newInbox[O, K, V](),
		tracker: delta.New[O, K, V](opts.Less),
		waiting: map[O]waiting[K]{},
		failing: map[K]failure{},

		deferred: map[K]time.Time{},
	}
	l.questions = NewQuestions(l.inbox.ring)
	l.publish()
	return l
}

// Claim replaces what owner wants of the table; an empty claim releases it.
// Only the newest claim of an owner counts, and only its Settlement comes.
func (l *Loop[O, K, V]) Claim(owner O, c Claim[K, V]) { l.inbox.put(owner, c) }

// Synced says that every source has told all it knows and its claims are made:
// from now on what owners let go is deleted. What is there without anybody
// wanting it at that moment (orphans, of a former run) waits for a claim with
// Sweep.
func (l *Loop[O, K, V]) Synced() { l.inbox.sync() }

// Status is the loop's state when it last changed.
func (l *Loop[O, K, V]) Status() Status { return *l.status.Load() }

// Run drives the table until ctx ends. It leaves the table as it is then.
func (l *Loop[O, K, V]) Run(ctx context.Context) {
	defer l.questions.End()
	if !l.start(ctx) {
		return
	}
	audit := audit[K, V]{list: func() iter.Seq2[Section[K, V], error] { return l.target.List(ctx, nil) }}
	defer audit.stop()
	audits := time.NewTimer(l.untilAudit())
	defer audits.Stop()
	l.inbox.ring() // claims made before start may have been rung for already
	for {
		retry, stop := l.untilRetry()
		select {
		case <-ctx.Done():
			stop()
			return
		case <-l.inbox.wake:
			l.take()
		case <-retry:
			l.relist(ctx)
		case <-audits.C:
			audit.begin()
		case <-audit.due():
			if l.auditStep(ctx, &audit) {
				audits.Reset(l.untilAudit())
			}
		}
		stop()
		l.apply(ctx)
		l.prune()
		l.settle()
		l.publish()
		l.questions.Answer()
	}
}

// start lists the whole table, again and again until it succeeds. It reports
// false when ctx ended first.
func (l *Loop[O, K, V]) start(ctx context.Context) bool {
	for {
		l.busy()
		err := l.observe(ctx, nil)
		l.noteListing(ctx, err)
		l.counters.Listed = err == nil
		l.publish()
		if err == nil {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(l.backoff(l.listing.tries)):
		}
	}
}

// observe believes a listing of the given keys, or of the whole table.
func (l *Loop[O, K, V]) observe(ctx context.Context, only []K) error {
	for section, err := range l.target.List(ctx, only) {
		if err != nil {
			return fmt.Errorf("list %s: %w", l.opts.Name, err)
		}
		l.tracker.Observe(section.Covers, section.Present)
	}
	return ctx.Err() // a sequence cut short by ctx is no whole listing
}

func (l *Loop[O, K, V]) noteListing(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil:
		return // we are being stopped: the listing was cut short
	case err == nil:
		l.listing = failure{}
		return
	case l.listing.err == nil:
		l.listing.since = time.Now()
		l.opts.Log.Error("listing failed; the table stays as it is", "table", l.opts.Name, "err", err)
	}
	l.opts.Failed(err)
	l.listing.err = err
	l.listing.tries++
}

// take turns what is in the inbox into claims on the tracker.
func (l *Loop[O, K, V]) take() {
	claims, synced := l.inbox.take()
	for owner, c := range claims {
		put, keep := l.resolve(c)
		pending := l.tracker.Claim(owner, put, keep)
		w := l.waiting[owner]
		w.version, w.leaving = c.Version, false
		w.keys = l.await(w.keys, slices.Values(pending))
		for _, k := range pending {
			if f, failing := l.failing[k]; failing {
				f.next = time.Time{} // what failed may have been mended
				l.failing[k] = f
			}
		}
		l.waiting[owner] = w
	}
	if synced && !l.synced {
		l.synced = true
		l.orphans = maps.Collect(func(yield func(K, struct{}) bool) {
			for k := range l.tracker.Dels() {
				if !yield(k, struct{}{}) {
					return
				}
			}
		})
	}
	for owner, c := range claims {
		if w := l.waiting[owner]; c.Sweep {
			l.orphans = nil
			w.keys = l.await(w.keys, l.tracker.Dels())
			l.waiting[owner] = w
		}
	}
}

// await adds more keys, each of them once, to those that a claim waits for.
func (l *Loop[O, K, V]) await(keys []K, more iter.Seq[K]) []K {
	before := keys // few: what earlier claims of the owner left
	for k := range more {
		if l.opts.GateOf(k) == k && !slices.Contains(before, k) {
			keys = append(keys, k)
		}
	}
	return keys
}

// resolve says what becomes of a claim's keys that depend on their gates: they
// are put where the gate is there. The others are kept; but what is absent
// needs no keeping, and nearly all of it is when a node starts for the first
// time.
func (l *Loop[O, K, V]) resolve(c Claim[K, V]) (put map[K]V, keep iter.Seq[K]) {
	put = c.Put
	for k, v := range c.Under {
		gate := l.opts.GateOf(k)
		if _, there := l.tracker.Present(gate); !there || k == gate {
			continue
		}
		if len(put) == len(c.Put) { // the claim's own map is not to be changed
			put = make(map[K]V, len(c.Put)+len(c.Under))
			maps.Copy(put, c.Put)
		}
		put[k] = v
	}
	return put, func(yield func(K) bool) {
		for k := range c.Keep {
			if !yield(k) {
				return
			}
		}
		for k := range c.Under {
			if _, there := l.tracker.Present(k); (there || l.tracker.Doubtful(k)) && !yield(k) {
				return
			}
		}
	}
}

// apply writes every pending key that is due.
func (l *Loop[O, K, V]) apply(ctx context.Context) {
	change := l.due(time.Now())
	if len(change.Puts)+len(change.Dels) == 0 || ctx.Err() != nil {
		return
	}
	l.busy()
	began := time.Now()
	failed := l.target.Apply(ctx, change)
	now := time.Now()
	for _, p := range change.Puts {
		if l.written(p.Key, failed[p.Key], now) {
			l.tracker.DidPut(p.Key, p.Spec)
			l.counters.Written++
		}
	}
	for _, k := range change.Dels {
		if l.written(k, failed[k], now) {
			l.tracker.DidDel(k)
			l.counters.Deleted++
		}
	}
	l.counters.Applies++
	l.counters.LastApply, l.counters.LastApplyTook = now, now.Sub(began)
	l.opts.Applied(l.counters.LastApplyTook)
}

func (l *Loop[O, K, V]) due(now time.Time) Change[K, V] {
	c := Change[K, V]{Puts: make([]Put[K, V], 0, l.tracker.Counts().Puts)}
	for k, v := range l.tracker.Puts() {
		if l.failing[k].next.After(now) {
			continue
		}
		_, present := l.tracker.Present(k)
		c.Puts = append(c.Puts, Put[K, V]{Key: k, Spec: v, Present: present})
	}
	for k := range l.tracker.Dels() {
		gate := l.opts.GateOf(k)
		if l.goes(k, now) || l.tracker.Dropped(gate) && l.goes(gate, now) {
			c.Dels = append(c.Dels, k)
		}
	}
	return c
}

// goes reports whether the deletion of a key is due. What stands under a gate
// goes with it, whatever it waits for itself: deleting the gate deletes it, and
// that must not be missed.
func (l *Loop[O, K, V]) goes(k K, now time.Time) bool {
	return l.mayGo(k) && !l.failing[k].next.After(now) && !l.deferred[k].After(now)
}

// mayGo reports whether a key that nobody wants may be deleted: the sources have
// told all they know, and it is no orphan that waits for the sweep.
func (l *Loop[O, K, V]) mayGo(k K) bool {
	_, orphan := l.orphans[k]
	return l.synced && (!orphan || l.opts.Free(k, l.wanted))
}

// written records how writing a key went, and reports whether it is done.
func (l *Loop[O, K, V]) written(k K, err error, now time.Time) bool {
	f, failing := l.failing[k]
	if err == nil {
		if failing {
			l.opts.Log.Info("written at last", "table", l.opts.Name, "key", k, "tries", f.tries+1)
		}
		delete(l.failing, k)
		delete(l.deferred, k)
		return true
	}
	if later, ok := errors.AsType[*Deferred[V]](err); ok {
		delete(l.failing, k)
		l.deferred[k] = now.Add(later.After)
		l.tracker.DidPut(k, later.Spec)
		return false
	}
	l.opts.Failed(err)
	if !failing {
		f.since = now
		l.opts.Log.Error("write failed", "table", l.opts.Name, "key", k, "err", err)
	}
	f.err, f.tries = err, f.tries+1
	f.next = now.Add(l.backoff(f.tries))
	l.failing[k] = f
	delete(l.deferred, k) // when to ask again is the failure's now
	l.tracker.Doubt(k)
	return false
}

func (l *Loop[O, K, V]) backoff(tries int) time.Duration {
	d := l.opts.MinBackoff << min(max(tries-1, 0), 16)
	return min(d, l.opts.MaxBackoff)
}

// relist reads the failing keys that are due again: the write that failed may
// have done its work, or the belief it started from may have been wrong. While
// the listing fails they stay failing.
func (l *Loop[O, K, V]) relist(ctx context.Context) {
	now := time.Now()
	var suspects []K
	for k, f := range l.failing {
		if l.retriable(k) && !f.next.After(now) {
			suspects = append(suspects, k)
		}
	}
	if len(suspects) == 0 {
		return
	}
	l.busy()
	err := l.observe(ctx, suspects)
	if err != nil && ctx.Err() == nil {
		l.opts.Failed(err)
	}
	for _, k := range suspects {
		if err == nil && !l.tracker.Doubtful(k) {
			continue
		}
		f := l.failing[k]
		if err != nil {
			f.err = err // the listing's failure is theirs, and ends with them
		}
		f.tries++
		f.next = now.Add(l.backoff(f.tries))
		l.failing[k] = f
	}
}

// prune forgets the failures and deferments of keys that are as wanted now, and
// known to be: nobody wants them any more, somebody wants them again, or they
// had been written after all. An orphan that somebody wants is none any more.
func (l *Loop[O, K, V]) prune() {
	for k := range l.orphans {
		if l.wanted(k) || !l.tracker.Pending(k) {
			delete(l.orphans, k)
		}
	}
	for k := range l.deferred {
		if l.wanted(k) || !l.tracker.Pending(k) {
			delete(l.deferred, k)
		}
	}
	for k := range l.failing {
		if !l.tracker.Pending(k) {
			delete(l.failing, k)
		}
	}
}

// untilRetry is a channel that fires when the next failing or deferred key is
// due; stop releases it.
func (l *Loop[O, K, V]) untilRetry() (<-chan time.Time, func() bool) {
	var next time.Time
	due := false
	for k, f := range l.failing {
		if l.retriable(k) && (!due || f.next.Before(next)) {
			next, due = f.next, true
		}
	}
	for _, at := range l.deferred {
		if !due || at.Before(next) {
			next, due = at, true
		}
	}
	if !due {
		return nil, func() bool { return true }
	}
	t := time.NewTimer(time.Until(next))
	return t.C, t.Stop
}

// retriable reports whether a failing key may be listed and tried again at
// all: a deletion has to wait until it may be written.
func (l *Loop[O, K, V]) retriable(k K) bool {
	return l.wanted(k) || l.tracker.Doubtful(k) || l.mayGo(k)
}

// settle tells which waiting claims have come true.
func (l *Loop[O, K, V]) settle() {
	var settled []Settlement[O]
	for owner, w := range l.waiting {
		w.keys = slices.DeleteFunc(w.keys, func(k K) bool { return !l.tracker.Pending(k) })
		switch {
		case len(w.keys) == 0:
			settled = append(settled, Settlement[O]{Owner: owner, Version: w.version})
			delete(l.waiting, owner)
			continue
		case !w.leaving && !slices.ContainsFunc(w.keys, l.wanted):
			settled = append(settled, Settlement[O]{Owner: owner, Version: w.version, Leaving: true})
			w.leaving = true
		}
		l.waiting[owner] = w
	}
	if len(settled) == 0 {
		return
	}
	if len(l.waiting) == 0 {
		l.waiting = map[O]waiting[K]{} // one that was large is slow to range over
	}
	l.opts.Settled(settled)
}

func (l *Loop[O, K, V]) wanted(k K) bool {
	_, wanted := l.tracker.Wanted(k)
	return wanted
}

func (l *Loop[O, K, V]) untilAudit() time.Duration {
	if l.opts.Audit == 0 {
		return time.Duration(1<<63 - 1)
	}
	return l.opts.Audit - time.Duration(rand.Int64N(int64(l.opts.Audit)/5+1))
}
