package conntrack_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice.dev/sluice/internal/conntrack"
	"sluice.dev/sluice/internal/conntrack/conntracktest"
	"sluice.dev/sluice/internal/model"
)

const bit = 1 << 15

// conn is a connection from a client's port 4000, which has its mark.
func conn(client, backend string, mark uint32) conntrack.Conn {
	from := netip.AddrPortFrom(netip.MustParseAddr(client), 4000)
	return conntrack.Conn{Mark: mark, Flow: conntrack.Flow{
		Protocol: model.TCP, Client: from, Frontend: at("10.96.0.1:80"), Backend: at(backend), Seen: from,
	}}
}

// reviewing is a Revoker that runs until the test ends.
type reviewing struct {
	*conntrack.Revoker
	table  *conntracktest.Table
	denied atomic.Pointer[[]string] // clients
	done   []conntrack.Review       // to be read behind synctest.Wait
	began  []time.Time              // when the table was read
}

func newReviewing(t *testing.T, opts conntrack.RevokerOptions, conns ...conntrack.Conn) *reviewing {
	t.Helper()
	r := &reviewing{table: &conntracktest.Table{}}
	r.deny()
	r.table.Put(conns...)
	opts.Marks, opts.Bit = r.table, bit
	opts.Allowed = func(c conntrack.Conn) bool {
		return !slices.Contains(*r.denied.Load(), c.Client.Addr().String())
	}
	opts.Done = func(done conntrack.Review) {
		r.done = append(r.done, done)
		r.began = append(r.began, time.Now().Add(-done.Took))
	}
	r.Revoker = conntrack.NewRevoker(opts)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return r
}

func (r *reviewing) deny(clients ...string) { r.denied.Store(&clients) }

// kick asks for a review and waits until it must be over.
func (r *reviewing) kick() {
	r.Kick()
	settle()
}

func (r *reviewing) marks(t *testing.T, when string, want ...uint32) {
	t.Helper()
	var got []uint32
	for _, c := range r.table.All() {
		got = append(got, c.Mark)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: marks %#x, want %#x", when, got, want)
	}
}

// last checks what the last review of so many did.
func (r *reviewing) last(t *testing.T, reviews int, want conntrack.Review) {
	t.Helper()
	if len(r.done) != reviews {
		t.Fatalf("%d reviews, want %d", len(r.done), reviews)
	}
	got := r.done[reviews-1]
	want.Took = got.Took
	if got != want {
		t.Errorf("review %+v, want %+v", got, want)
	}
}

// TestRevokes: the bit comes to what is denied and leaves what is allowed; no
// other bit changes, and nothing that is right is written.
func TestRevokes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReviewing(t, conntrack.RevokerOptions{},
			conn("10.1.0.1", "10.1.1.1:8080", 0x4001), conn("10.1.0.2", "10.1.1.1:8080", 0x2|bit), conn("10.1.0.3", "10.1.1.1:8080", bit))
		r.deny("10.1.0.1", "10.1.0.2")
		settle()
		r.marks(t, "nobody asked yet", 0x4001, 0x2|bit, bit)
		if r.table.Count() != (conntracktest.Counts{}) {
			t.Errorf("nobody asked, and it was done %+v", r.table.Count())
		}
		r.kick()
		r.marks(t, "asked", 0x4001|bit, 0x2|bit, 0)
		r.last(t, 1, conntrack.Review{Conns: 3, Revoked: 1, Restored: 1})
		r.kick()
		r.last(t, 2, conntrack.Review{Conns: 3})
		r.deny()
		r.kick()
		r.marks(t, "all allowed", 0x4001, 0x2, 0)
		r.last(t, 3, conntrack.Review{Conns: 3, Restored: 2})
		if got := r.table.Count(); got.Marks != 4 {
			t.Errorf("%d marks written, want 4", got.Marks)
		}
		if s := r.Stats(); s.Reviews != 3 || s.Revoked != 1 || s.Restored != 3 || s.Failures != 0 || s.At.IsZero() {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestRelatedIsNotJudged, nor is what it has of the bit taken away.
func TestRelatedIsNotJudged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, other := conn("10.1.0.1", "10.1.1.1:20", 0), conn("10.1.0.2", "10.1.1.1:20", bit)
		one.Related, other.Related = true, true
		r := newReviewing(t, conntrack.RevokerOptions{}, one, other)
		r.deny("10.1.0.1")
		r.kick()
		r.marks(t, "reviewed", 0, bit)
		r.last(t, 1, conntrack.Review{Conns: 2})
	})
}

// TestEnded: a connection that ended while the table was read is no failure.
func TestEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReviewing(t, conntrack.RevokerOptions{}, conn("10.1.0.1", "10.1.1.1:80", 0), conn("10.1.0.2", "10.1.1.1:80", 0))
		r.table.Fail(conntracktest.Faults{Reading: func(c conntrack.Conn) {
			if c.Client.Addr() == netip.MustParseAddr("10.1.0.2") {
				r.table.Remove(r.table.All()[0])
			}
		}})
		r.deny("10.1.0.1", "10.1.0.2")
		r.kick()
		r.marks(t, "reviewed", bit)
		r.last(t, 1, conntrack.Review{Conns: 2, Revoked: 1})
	})
}

// TestJudgedWhenRead: a fact that came while the table was read counts, and
// whoever told of it gets a review that begins later.
func TestJudgedWhenRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReviewing(t, conntrack.RevokerOptions{}, conn("10.1.0.1", "10.1.1.1:80", 0), conn("10.1.0.2", "10.1.1.1:80", 0))
		told := false
		r.table.Fail(conntracktest.Faults{Reading: func(c conntrack.Conn) {
			if c.Client.Addr() == netip.MustParseAddr("10.1.0.2") && !told {
				told = true
				r.deny("10.1.0.1", "10.1.0.2")
				r.Kick()
			}
		}})
		r.Kick()
		synctest.Wait()
		r.marks(t, "first", 0, bit)
		settle()
		r.marks(t, "second", bit, bit)
		r.last(t, 2, conntrack.Review{Conns: 2, Revoked: 1})
	})
}

// TestReviewsKeepApart: by 100 ms at least, and by ten times as long as they take.
func TestReviewsKeepApart(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{0: 100 * time.Millisecond, time.Millisecond: 101 * time.Millisecond, 50 * time.Millisecond: 550 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			r := newReviewing(t, conntrack.RevokerOptions{}, conn("10.1.0.1", "10.1.1.1:80", 0))
			r.table.Fail(conntracktest.Faults{Took: took})
			for range 2000 { // somebody asks all the time
				r.Kick()
				time.Sleep(time.Millisecond)
			}
			synctest.Wait()
			if len(r.began) < 3 || r.began[2].Sub(r.began[1]) != want {
				t.Errorf("a review takes %v: they began at %v, want %v apart", took, r.began, want)
			}
		})
	}
}

// TestKicksBeforeATryAreAnswered by it: nothing more is to be done afterwards.
func TestKicksBeforeATryAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReviewing(t, conntrack.RevokerOptions{})
		r.table.Fail(conntracktest.Faults{Read: errors.New("torn")})
		r.Kick()
		synctest.Wait()
		r.Kick() // while it waits to try again
		r.table.Fail(conntracktest.Faults{})
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := r.table.Count().Reads; got != 2 {
			t.Errorf("read %d times, want 2", got)
		}
	})
}

// TestRevokerAudits even when nobody asks, once somebody has.
func TestRevokerAudits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReviewing(t, conntrack.RevokerOptions{Audit: time.Minute}, conn("10.1.0.1", "10.1.1.1:80", 0))
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(r.done) != 0 {
			t.Fatalf("%d reviews before anybody asked", len(r.done))
		}
		r.kick()
		r.deny("10.1.0.1")
		time.Sleep(time.Minute)
		synctest.Wait()
		r.marks(t, "a minute later", bit)
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := len(r.done); n < 61 || n > 77 {
			t.Errorf("%d reviews in an hour", n)
		}
	})
}

// TestRevokerFails: what could be changed is, the rest is tried again with more
// and more patience, and it is logged once when it begins and once when it ends.
func TestRevokerFails(t *testing.T) {
	for name, faults := range map[string]conntracktest.Faults{
		"halfway through the table": {Read: errors.New("torn")},
		"at one connection": {Mark: func(c conntrack.Conn) error {
			if c.Client.Addr() == netip.MustParseAddr("10.1.0.2") {
				return errors.New("torn")
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				r := newReviewing(t, conntrack.RevokerOptions{Log: slog.New(slog.NewTextHandler(&log, nil))},
					conn("10.1.0.1", "10.1.1.1:80", 0), conn("10.1.0.2", "10.1.1.1:80", 0))
				r.deny("10.1.0.1", "10.1.0.2")
				r.table.Fail(faults)
				began := time.Now()
				r.Kick()
				time.Sleep(time.Minute)
				synctest.Wait()
				r.marks(t, "failing", bit, 0)
				s := r.Stats()
				if s.Last.Err == nil || !strings.Contains(s.Last.Err.Error(), "torn") || s.Since != began || s.Failures != s.Reviews || s.Failures > 12 {
					t.Errorf("stats %+v, began %s", s, began)
				}
				r.table.Fail(conntracktest.Faults{})
				time.Sleep(time.Minute)
				synctest.Wait()
				r.marks(t, "at last", bit, bit)
				if s := r.Stats(); s.Last.Err != nil || !s.Since.IsZero() || s.Revoked != 2 {
					t.Errorf("stats %+v", s)
				}
				if lines := strings.Count(log.String(), "\n"); lines != 2 {
					t.Errorf("logged %d lines:\n%s", lines, &log)
				}
			})
		})
	}
}

// TestRevokerSaysWhat: an error names the connection, and what it means.
func TestRevokerSaysWhat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReviewing(t, conntrack.RevokerOptions{}, conn("10.1.0.1", "10.1.1.1:80", 0), conn("10.1.0.2", "10.1.1.1:80", bit))
		r.deny("10.1.0.1")
		r.table.Fail(conntracktest.Faults{Mark: func(conntrack.Conn) error { return errors.New("no") }})
		r.kick()
		got := fmt.Sprint(r.Stats().Last.Err)
		for _, want := range []string{
			"1 of 1 connections that are not allowed any more go on: mark connection of 10.1.0.1:4000 to 10.1.1.1:80: no",
			"1 of 1 connections that are allowed again stay stopped: mark connection of 10.1.0.2:4000 to 10.1.1.1:80: no",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("%s\ndoes not say %s", got, want)
			}
		}
	})
}
