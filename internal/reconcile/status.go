package reconcile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// shownFailures bounds the failures a Status names; the total is counted.
const shownFailures = 20

// Status is a loop's state at one moment, as health, metrics and inspection
// read it.
type Status struct {
	Name   string
	Listed bool // the table has been listed once: nothing is written before
	Synced bool // deletions are allowed

	Wanted, Present int // keys
	Puts, Dels      int // keys that differ from what is wanted

	Deferred     int       // of Dels, those under way that take their time
	Failing      []Failure // the oldest, at most 20
	FailingCount int
	FailingSince time.Time // of the oldest failure, a failing listing included; zero: none
	BusySince    time.Time // when the listing or write under way began; zero: none

	Written, Deleted uint64 // keys, since start
	Drift            uint64 // keys that an audit found changed by others
	Applies, Audits  uint64
	LastApply        time.Time
	LastApplyTook    time.Duration
}

// Failure is one key that could not be written, or a listing that failed.
type Failure struct {
	Key   string
	Error string
	Since time.Time
	Tries int
}

// failure is the loop's own record of a failing key.
type failure struct {
	err   error
	since time.Time
	tries int
	next  time.Time // not tried again before
}

func (l *Loop[O, K, V]) publish() {
	s := l.counters
	c := l.tracker.Counts()
	s.Name, s.Synced = l.opts.Name, l.synced
	s.Wanted, s.Present, s.Puts, s.Dels = c.Wanted, c.Present, c.Puts, c.Dels
	s.Deferred = len(l.deferred)
	s.Failing, s.FailingCount = l.failures()
	if s.FailingCount > 0 {
		s.FailingSince = s.Failing[0].Since
	}
	l.status.Store(&s)
}

// failures names the oldest failures and counts all of them.
func (l *Loop[O, K, V]) failures() (oldest []Failure, count int) {
	keys := slices.SortedFunc(maps.Keys(l.failing), func(a, b K) int {
		return l.failing[a].since.Compare(l.failing[b].since)
	})
	count = len(keys)
	for _, k := range keys[:min(shownFailures, count)] {
		f := l.failing[k]
		oldest = append(oldest, Failure{fmt.Sprint(k), f.err.Error(), f.since, f.tries})
	}
	if f := l.listing; f.err != nil {
		oldest, count = append(oldest, Failure{"listing", f.err.Error(), f.since, f.tries}), count+1
	}
	slices.SortFunc(oldest, func(a, b Failure) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Key, b.Key))
	})
	return oldest, count
}

// busy publishes that a listing or write has begun, so that one which never
// returns shows up in the loop's health.
func (l *Loop[O, K, V]) busy() {
	s := *l.status.Load()
	s.BusySince = time.Now()
	l.status.Store(&s)
}
