package reconcile

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestAFailureIsLookedAtEvenIfNobodyCaresAnyMore: a write that failed may have
// taken effect all the same. When the wish changes to what was believed before
// it, the kernel is asked, and until then the claim is not settled.
func TestAFailureIsLookedAtEvenIfNobodyCaresAnyMore(t *testing.T) {
	for name, c := range map[string]struct {
		start     map[int]string
		lost, end map[int]string // the claim whose write is lost, and the last one
		op        string
	}{
		"a put, then unwanted":              {nil, map[int]string{1: "a"}, nil, "put"},
		"a change, then the old spec again": {map[int]string{1: "a"}, map[int]string{1: "b"}, map[int]string{1: "a"}, "put"},
		"a delete, then wanted again":       {map[int]string{1: "a"}, nil, map[int]string{1: "a"}, "del"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				target := newTable(c.start)
				var settled []Settlement[string]
				l := running(t, target, Options[string, int]{
					Settled: func(all []Settlement[string]) {
						for _, s := range all {
							if !s.Leaving { // that says nothing of what is gone
								settled = append(settled, s)
							}
						}
					},
				})
				l.Claim("o", Claim[int, string]{Version: 1, Put: c.start})
				l.Synced()
				synctest.Wait()
				lost := errors.New("acknowledgement lost")
				target.do(func() {
					target.listErr = func() error { return lost }
					target.fail = func(op string, k int) error {
						if op == "put" {
							target.content[k] = c.lost[k]
						} else {
							delete(target.content, k)
						}
						return lost
					}
				})
				l.Claim("o", Claim[int, string]{Version: 2, Put: c.lost})
				synctest.Wait()
				target.do(func() { target.fail = func(string, int) error { return nil } })
				l.Claim("o", Claim[int, string]{Version: 3, Put: c.end})
				time.Sleep(10 * time.Second)
				if len(settled) != 1 {
					t.Errorf("settled %v although nobody knows what is there", settled)
				}
				target.do(func() { target.listErr = func() error { return nil } })
				time.Sleep(31 * time.Second)
				synctest.Wait()
				target.equal(t, "in the end", c.end)
				if s := l.Status(); s.FailingCount != 0 {
					t.Errorf("still failing: %+v", s.Failing)
				}
				if want := []Settlement[string]{{Owner: "o", Version: 1}, {Owner: "o", Version: 3}}; !slices.Equal(settled, want) {
					t.Errorf("settled %v, want %v", settled, want)
				}
			})
		})
	}
}

// TestADeferredDeletionThatFails backs off like any other key: the loop does
// not turn round and round until then. (It would turn for ever in a bubble.)
func TestADeferredDeletionThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := newTable(map[int]string{1: "a"})
		asked := 0
		target.fail = func(op string, k int) error {
			if asked++; asked == 1 {
				return &Deferred[string]{Spec: "draining", After: time.Second}
			}
			return errors.New("busy")
		}
		l := running(t, target, Options[string, int]{})
		sweep(l)
		time.Sleep(10 * time.Second)
		target.do(func() {
			if asked < 3 || asked > 12 {
				t.Errorf("asked %d times in 10 s", asked)
			}
			target.fail = func(string, int) error { return nil }
		})
		time.Sleep(31 * time.Second)
		synctest.Wait()
		target.equal(t, "in the end", nil)
	})
}
