// Package conntracktest has a connection table in memory for tests, as far as
// marks go: as strict as the kernel's, which passes the same conformance cases,
// and with faults.
//
// It is not for entries that time out, or that packets make.
package conntracktest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"syscall"
	"time"

	"sluice.dev/sluice/internal/conntrack"
)

// Table is the connection table of an imaginary network namespace. Its own
// methods are for any goroutine, those of Marks for one at a time: two at once
// get an error.
type Table struct {
	mu       sync.Mutex
	conns    []conntrack.Conn
	faults   Faults
	counts   Counts
	busy     bool
	lastUsed uint32 // ID
}

// Faults are what goes wrong, or slowly.
type Faults struct {
	Read error                      // after half of the entries
	Mark func(conntrack.Conn) error // instead of changing the entry's mark
	// Reading is called before each entry that is given.
	Reading func(conntrack.Conn)
	Took    time.Duration // how long a reading takes
}

// Counts are how often it was asked.
type Counts struct {
	Reads int
	Marks int // entries whose mark was to be changed
}

var _ conntrack.Marks = (*Table)(nil)

// errBusy says that the test used what is for one goroutine from two.
var errBusy = errors.New("conntracktest: used by two goroutines at once")

// Put adds entries, in place of those between the same two. One without an ID
// gets one.
func (t *Table) Put(conns ...conntrack.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range conns {
		t.lastUsed++
		if c.ID == 0 {
			c.ID = t.lastUsed
		}
		if at := t.find(c); at >= 0 {
			t.conns[at] = c
			continue
		}
		t.conns = append(t.conns, c)
	}
}

// Remove takes entries out, as when they end.
func (t *Table) Remove(conns ...conntrack.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range conns {
		if at := t.find(c); at >= 0 {
			t.conns = slices.Delete(t.conns, at, at+1)
		}
	}
}

// All are the entries, in the order in which they came.
func (t *Table) All() []conntrack.Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.conns)
}

// Fail has the faults of now on.
func (t *Table) Fail(f Faults) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults = f
}

// Count is what was done so far.
func (t *Table) Count() Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts
}

// find is where the entry is that is answered as c is; -1: nowhere.
func (t *Table) find(c conntrack.Conn) int {
	return slices.IndexFunc(t.conns, func(is conntrack.Conn) bool {
		return is.Protocol == c.Protocol && is.Backend == c.Backend && is.Seen == c.Seen
	})
}

// use marks the table as used by one goroutine.
func (t *Table) use() (release func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy {
		return nil, errBusy
	}
	t.busy = true
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.busy = false
	}, nil
}

// Conns implements conntrack.Marks.
func (t *Table) Conns(ctx context.Context, fn func(conntrack.Conn)) error {
	release, err := t.use()
	if err != nil {
		return err
	}
	defer release()
	t.mu.Lock()
	t.counts.Reads++
	conns, faults := slices.Clone(t.conns), t.faults
	t.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(faults.Took):
	}
	if faults.Read != nil {
		conns = conns[:len(conns)/2]
	}
	for _, c := range conns {
		if faults.Reading != nil {
			faults.Reading(c)
		}
		fn(c)
	}
	return faults.Read
}

// SetMark implements conntrack.Marks.
func (t *Table) SetMark(ctx context.Context, conns []conntrack.Conn, value, mask uint32) []error {
	errs := make([]error, len(conns))
	release, err := t.use()
	if err == nil {
		defer release()
		err = ctx.Err()
	}
	for i, c := range conns {
		errs[i] = err
		if err == nil {
			errs[i] = t.mark(c, value&mask, mask)
		}
	}
	return errs
}

func (t *Table) mark(c conntrack.Conn, value, mask uint32) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.Marks++
	if t.faults.Mark != nil {
		if err := t.faults.Mark(c); err != nil {
			return err
		}
	}
	at := t.find(c)
	if at < 0 {
		return syscall.ENOENT
	}
	t.conns[at].Mark = t.conns[at].Mark&^mask | value
	return nil
}

// Close implements conntrack.Marks.
func (t *Table) Close() error { return nil }
