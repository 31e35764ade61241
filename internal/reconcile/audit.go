package reconcile

import (
	"context"
	"iter"
	"time"
)

// audit is a listing of the whole table taken one section at a time, so that
// claims are applied in between. The zero state is: none under way.
type audit[K, V comparable] struct {
	list func() iter.Seq2[Section[K, V], error]
	next func() (Section[K, V], error, bool)
	end  func()
}

func (a *audit[K, V]) begin() {
	a.stop()
	a.next, a.end = iter.Pull2(a.list())
}

func (a *audit[K, V]) stop() {
	if a.end != nil {
		a.end()
	}
	a.next, a.end = nil, nil
}

// due is a channel that is ready while a section waits to be read.
func (a *audit[K, V]) due() <-chan time.Time {
	if a.next == nil {
		return nil
	}
	ready := make(chan time.Time)
	close(ready)
	return ready
}

// auditStep reads one section and counts as drift what it corrects. It reports
// whether the audit is over.
func (l *Loop[O, K, V]) auditStep(ctx context.Context, a *audit[K, V]) (over bool) {
	l.busy()
	section, err, more := a.next()
	if err != nil {
		l.noteListing(ctx, err)
		a.stop()
		return true
	}
	if !more {
		l.noteListing(ctx, nil)
		l.counters.Audits++
		a.stop()
		return true
	}
	drift := l.tracker.Observe(section.Covers, section.Present)
	if drift > 0 {
		l.counters.Drift += uint64(drift)
		l.opts.Log.Warn("changed by someone else; putting it right", "table", l.opts.Name, "keys", drift)
	}
	return false
}
