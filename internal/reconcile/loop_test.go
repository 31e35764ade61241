package reconcile

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// table is a Target over a map, two sections, with faults to order.
type table struct {
	mu       sync.Mutex // the loop's goroutine and the test's
	content  map[int]string
	fail     func(op string, key int) error
	listErr  func() error
	put, del []int // every key written, in order
}

func newTable(content map[int]string) *table {
	t := &table{
		content: map[int]string{},
		fail:    func(string, int) error { return nil },
		listErr: func() error { return nil },
	}
	maps.Copy(t.content, content)
	return t
}

// do runs f while the loop is not in the table.
func (t *table) do(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
}

func (t *table) section(only []int, rest int) (Section[int, string], error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.listErr(); err != nil {
		return Section[int, string]{}, err
	}
	covers := func(k int) bool { return k%2 == rest && (only == nil || slices.Contains(only, k)) }
	present := maps.Clone(t.content)
	maps.DeleteFunc(present, func(k int, _ string) bool { return !covers(k) })
	return Section[int, string]{Covers: covers, Present: present}, nil
}

func (t *table) List(_ context.Context, only []int) iter.Seq2[Section[int, string], error] {
	return func(yield func(Section[int, string], error) bool) {
		for rest := range 2 {
			section, err := t.section(only, rest)
			if !yield(section, err) || err != nil {
				return
			}
		}
	}
}

func (t *table) Apply(_ context.Context, c Change[int, string]) map[int]error {
	t.mu.Lock()
	defer t.mu.Unlock()
	failed := map[int]error{}
	for _, p := range c.Puts {
		if err := t.fail("put", p.Key); err != nil {
			failed[p.Key] = err
			continue
		}
		t.content[p.Key] = p.Spec
		t.put = append(t.put, p.Key)
	}
	for _, k := range c.Dels {
		if err := t.fail("del", k); err != nil {
			failed[k] = err
			continue
		}
		delete(t.content, k)
		t.del = append(t.del, k)
	}
	return failed
}

// running starts a loop over the table in a synctest bubble.
func running(t *testing.T, target *table, opts Options[string, int]) *Loop[string, int, string] {
	t.Helper()
	opts.Name = "test"
	opts.Less = func(a, b string) bool { return a < b }
	l := NewLoop[string, int, string](target, opts)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { l.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

func want(put map[int]string) Claim[int, string] { return Claim[int, string]{Put: put} }

func (t *table) equal(tb testing.TB, what string, want map[int]string) {
	tb.Helper()
	t.do(func() {
		if !maps.Equal(t.content, want) {
			tb.Errorf("%s: table holds %v, want %v", what, t.content, want)
		}
	})
}

func TestStartAdoptsWhatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := newTable(map[int]string{1: "a", 2: "b"})
		l := running(t, target, Options[string, int]{})
		l.Claim("o", want(map[int]string{1: "a", 2: "b"}))
		sweep(l)
		synctest.Wait()
		if len(target.put)+len(target.del) != 0 {
			t.Errorf("unchanged wishes wrote put %v, del %v", target.put, target.del)
		}
	})
}

func TestNothingIsDeletedBeforeSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := newTable(map[int]string{1: "a", 2: "b"})
		l := running(t, target, Options[string, int]{})
		l.Claim("o", want(map[int]string{1: "a", 3: "c"}))
		synctest.Wait()
		target.equal(t, "before sync", map[int]string{1: "a", 2: "b", 3: "c"})
		sweep(l)
		synctest.Wait()
		target.equal(t, "after sync", map[int]string{1: "a", 3: "c"})
	})
}

func TestNothingIsWrittenBeforeTheFirstListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := newTable(map[int]string{1: "stale"})
		broken := errors.New("torn")
		target.listErr = func() error { return broken }
		l := running(t, target, Options[string, int]{})
		l.Claim("o", want(map[int]string{2: "b"}))
		sweep(l)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		target.equal(t, "while listing fails", map[int]string{1: "stale"})
		if s := l.Status(); s.Listed || s.FailingSince.IsZero() || s.Failing[0].Key != "listing" {
			t.Errorf("status does not say that listing fails: %+v", s)
		}
		target.do(func() { broken = nil })
		time.Sleep(30 * time.Second)
		synctest.Wait()
		target.equal(t, "once listing works", map[int]string{2: "b"})
	})
}

func TestOneFailingKeyDoesNotStopTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := newTable(nil)
		refused := errors.New("refused")
		target.fail = func(_ string, k int) error {
			if k == 1 {
				return refused
			}
			return nil
		}
		l := running(t, target, Options[string, int]{})
		began := time.Now()
		l.Claim("o", want(map[int]string{1: "a", 2: "b"}))
		l.Claim("p", want(map[int]string{3: "c"}))
		synctest.Wait()
		target.equal(t, "others", map[int]string{2: "b", 3: "c"})
		time.Sleep(5 * time.Second)
		s := l.Status()
		if s.FailingCount != 1 || !s.FailingSince.Equal(began) || s.Failing[0].Tries < 3 {
			t.Errorf("status %+v: want one failure since the start with several tries", s)
		}
		target.do(func() { refused = nil })
		time.Sleep(30 * time.Second)
		synctest.Wait()
		target.equal(t, "when it is accepted at last", map[int]string{1: "a", 2: "b", 3: "c"})
		if s := l.Status(); s.FailingCount != 0 || !s.FailingSince.IsZero() {
			t.Errorf("status still failing: %+v", s)
		}
	})
}

// TestAfterAnErrorTheTableIsListedBeforeTheRetry: the write did its work
// although an error was reported; the retry must see that and write nothing.
func TestAfterAnErrorTheTableIsListedBeforeTheRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := newTable(nil)
		target.fail = func(op string, k int) error {
			target.content[k] = "a"
			return errors.New("acknowledgement lost")
		}
		l := running(t, target, Options[string, int]{})
		l.Claim("o", want(map[int]string{1: "a"}))
		synctest.Wait()
		target.do(func() { target.fail = func(string, int) error { return nil } })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(target.put) != 0 || l.Status().FailingCount != 0 {
			t.Errorf("written again: %v, status %+v", target.put, l.Status())
		}
	})
}

func TestAuditRepairsAndCountsDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := newTable(nil)
		l := running(t, target, Options[string, int]{Audit: 30 * time.Second})
		l.Claim("o", want(map[int]string{1: "a", 2: "b"}))
		sweep(l)
		synctest.Wait()
		target.do(func() {
			target.content[1] = "changed"
			delete(target.content, 2)
			target.content[4] = "extra"
		})
		time.Sleep(31 * time.Second)
		synctest.Wait()
		target.equal(t, "after the audit", map[int]string{1: "a", 2: "b"})
		if s := l.Status(); s.Drift != 3 || s.Audits != 1 {
			t.Errorf("drift %d in %d audits, want 3 in 1", s.Drift, s.Audits)
		}
	})
}

func TestTornAuditIsNoObservation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := newTable(nil)
		l := running(t, target, Options[string, int]{Audit: 30 * time.Second})
		l.Claim("o", want(map[int]string{1: "a", 2: "b"}))
		sweep(l)
		synctest.Wait()
		target.do(func() {
			target.put = nil
			target.listErr = func() error { return errors.New("interrupted") }
		})
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if s := l.Status(); s.Drift != 0 || len(target.put) != 0 || s.FailingCount != 1 {
			t.Errorf("a failed audit was believed: drift %d, wrote %v, %d failing", s.Drift, target.put, s.FailingCount)
		}
		target.do(func() { target.listErr = func() error { return nil } })
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if s := l.Status(); s.FailingCount != 0 {
			t.Errorf("a good audit did not clear the failure: %+v", s.Failing)
		}
	})
}

func TestSettlementsComeWhenTheGatingKeysAreDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := newTable(map[int]string{9: "old"})
		target.fail = func(_ string, k int) error {
			if k >= 100 {
				return errors.New("never")
			}
			return nil
		}
		var settled []Settlement[string]
		l := running(t, target, Options[string, int]{
			GateOf:  func(k int) int { return k % 198 }, // 200 stands under 2
			Settled: func(s []Settlement[string]) { settled = append(settled, s...) },
		})
		l.Claim("good", Claim[int, string]{Version: 1, Put: map[int]string{1: "a"}})
		l.Claim("ungated", Claim[int, string]{Version: 2, Put: map[int]string{2: "a", 200: "b"}})
		l.Claim("stuck", Claim[int, string]{Version: 3, Put: map[int]string{3: "a", 100: "b"}})
		l.Claim("keeper", Claim[int, string]{Version: 4, Keep: map[int]string{9: "", 10: ""}})
		synctest.Wait()
		l.Claim("stuck", Claim[int, string]{Version: 5, Put: map[int]string{3: "a"}})
		l.Synced()
		synctest.Wait()
		slices.SortFunc(settled, func(a, b Settlement[string]) int { return int(a.Version) - int(b.Version) })
		if want := []Settlement[string]{{Owner: "good", Version: 1}, {Owner: "ungated", Version: 2}, {Owner: "keeper", Version: 4}, {Owner: "stuck", Version: 5, Leaving: true}, {Owner: "stuck", Version: 5}}; !slices.Equal(settled, want) {
			t.Errorf("settled %v, want %v", settled, want)
		}
	})
}

// TestASettlementWaitsForWhatAnEarlierClaimLetGo: a key that could not be
// deleted yet is not forgotten because its owner claims something else.
func TestASettlementWaitsForWhatAnEarlierClaimLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := newTable(nil)
		broken := errors.New("busy")
		target.fail = func(op string, _ int) error {
			if op == "del" {
				return broken
			}
			return nil
		}
		var settled []Settlement[string]
		l := running(t, target, Options[string, int]{
			Settled: func(s []Settlement[string]) { settled = append(settled, s...) },
		})
		l.Synced()
		for version, put := range []map[int]string{{1: "a"}, nil, {2: "b"}} {
			l.Claim("o", Claim[int, string]{Version: uint64(version), Put: put})
			synctest.Wait()
		}
		leaving := []Settlement[string]{{Owner: "o", Version: 0}, {Owner: "o", Version: 1, Leaving: true}, {Owner: "o", Version: 2, Leaving: true}}
		if !slices.Equal(settled, leaving) {
			t.Errorf("settled %v while key 1 is still there, want %v", settled, leaving)
		}
		target.do(func() { broken = nil })
		time.Sleep(time.Minute)
		synctest.Wait()
		if want := append(leaving, Settlement[string]{Owner: "o", Version: 2}); !slices.Equal(settled, want) {
			t.Errorf("settled %v, want %v", settled, want)
		}
	})
}

// TestDeferredDeletion: a key that drains is no failure, is asked for again
// when it said, and comes back to life when it is wanted again.
func TestDeferredDeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := newTable(nil)
		asked := 0
		draining := true
		target.fail = func(op string, k int) error {
			if op != "del" || !draining {
				return nil
			}
			asked++
			target.content[k] = "draining"
			return &Deferred[string]{Spec: "draining", After: time.Second}
		}
		l := running(t, target, Options[string, int]{Audit: 10 * time.Second})
		sweep(l)
		l.Claim("o", want(map[int]string{1: "a", 2: "a"}))
		synctest.Wait()
		l.Claim("o", want(nil))
		time.Sleep(5500 * time.Millisecond)
		synctest.Wait()
		target.do(func() {
			if asked != 2*6 {
				t.Errorf("asked %d times in 5.5 s for two keys, want once at the start and once a second", asked)
			}
		})
		if s := l.Status(); s.FailingCount != 0 || s.Deferred != 2 || s.Dels != 2 {
			t.Errorf("status %+v, want two deferred deletions and no failure", s)
		}
		l.Claim("o", want(map[int]string{1: "a"}))
		synctest.Wait()
		target.equal(t, "one wanted again", map[int]string{1: "a", 2: "draining"})
		target.do(func() { draining = false })
		time.Sleep(20 * time.Second)
		synctest.Wait()
		target.equal(t, "drained", map[int]string{1: "a"})
		if s := l.Status(); s.Deferred != 0 || s.Drift != 0 {
			t.Errorf("status %+v, want nothing deferred and no drift", s)
		}
	})
}

func TestIdleLoopWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := newTable(nil)
		l := running(t, target, Options[string, int]{Audit: time.Second})
		l.Claim("o", want(map[int]string{1: "a"}))
		sweep(l)
		synctest.Wait()
		target.do(func() { target.put = nil })
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(target.put)+len(target.del) != 0 || l.Status().Applies != 1 {
			t.Errorf("an idle hour wrote %v and deleted %v in %d applies", target.put, target.del, l.Status().Applies)
		}
	})
}

// TestRandomHistoriesConverge: with 30 % of writes and listings failing and
// others meddling with the table, it deletes nothing before sync and ends as
// wanted, foreign objects untouched.
func TestRandomHistoriesConverge(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			faults := rand.New(rand.NewPCG(seed, 2))
			rate := 0.3
			fault := func() error {
				if faults.Float64() < rate {
					return errors.New("fault")
				}
				return nil
			}
			start := map[int]string{0: "x", 1: "y", 2: "x"}
			target := newTable(start)
			target.fail = func(string, int) error { return fault() }
			target.listErr = fault
			l := running(t, target, Options[string, int]{Audit: 20 * time.Second})
			final := map[string]map[int]string{}
			claim := func() {
				owner := string(rune('a' + rnd.IntN(3)))
				put := map[int]string{}
				for range rnd.IntN(4) {
					k := rnd.IntN(8)
					put[k] = string(rune('x' + k%2))
				}
				final[owner] = put
				l.Claim(owner, want(put))
			}
			for range 20 {
				claim()
				time.Sleep(time.Duration(rnd.IntN(400)) * time.Millisecond)
			}
			synctest.Wait()
			target.do(func() {
				if len(target.del) > 0 {
					t.Errorf("seed %d: %v deleted before sync", seed, target.del)
				}
			})
			sweep(l)
			for range 40 {
				claim()
				if rnd.IntN(3) == 0 {
					target.do(func() { target.content[rnd.IntN(8)] = "meddled" })
				}
				time.Sleep(time.Duration(rnd.IntN(400)) * time.Millisecond)
			}
			target.do(func() { rate = 0 })
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			union := map[int]string{}
			for _, put := range final {
				maps.Copy(union, put)
			}
			target.equal(t, "in the end", union)
		})
	}
}

// sweep allows all deletions.
func sweep[V comparable](l *Loop[string, int, V]) {
	l.Synced()
	l.Claim("sweeper", Claim[int, V]{Sweep: true})
}

// TestOrphansWaitForTheSweep: what was there before anybody wanted it, and what
// an owner let go, are deleted on different words; and an orphan that somebody
// wants after all is none any more.
func TestOrphansWaitForTheSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := newTable(map[int]string{1: "orphan", 2: "adopted", 3: "free", 4: "let go"})
		var settled []Settlement[string]
		l := running(t, target, Options[string, int]{
			Settled: func(s []Settlement[string]) { settled = append(settled, s...) },
			Free:    func(k int, wished func(int) bool) bool { return k == 3 && wished(5) },
		})
		l.Claim("o", Claim[int, string]{Version: 1, Put: map[int]string{4: "let go"}})
		l.Synced()
		synctest.Wait()
		target.equal(t, "nobody wants 5", map[int]string{1: "orphan", 2: "adopted", 3: "free", 4: "let go"})
		l.Claim("o", Claim[int, string]{Version: 2, Put: map[int]string{2: "adopted", 5: "new"}})
		synctest.Wait()
		target.equal(t, "4 is let go, 3 free", map[int]string{1: "orphan", 2: "adopted", 5: "new"})
		l.Claim("o", Claim[int, string]{Version: 3})
		synctest.Wait()
		target.equal(t, "2 is an orphan no more", map[int]string{1: "orphan"})
		settled = nil
		l.Claim("sweeper", Claim[int, string]{Version: 4, Sweep: true})
		synctest.Wait()
		target.equal(t, "swept", nil)
		if want := []Settlement[string]{{Owner: "sweeper", Version: 4}}; !slices.Equal(settled, want) {
			t.Errorf("settled %v, want %v", settled, want)
		}
	})
}

// TestAFailingOrphanWaitsInQuiet: what failed while somebody wanted it, and is
// an orphan now, is listed once more and then left alone until the sweep.
func TestAFailingOrphanWaitsInQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := newTable(map[int]string{1: "orphan"})
		listings := 0
		target.fail = func(op string, _ int) error {
			if op == "put" {
				return errors.New("refused")
			}
			return nil
		}
		target.listErr = func() error {
			if listings++; listings > 100 {
				return errors.New("listed without end") // which has the loop wait
			}
			return nil
		}
		l := running(t, target, Options[string, int]{})
		l.Claim("o", want(map[int]string{1: "wanted"}))
		synctest.Wait()
		l.Claim("o", want(nil))
		l.Synced()
		time.Sleep(time.Hour)
		synctest.Wait()
		target.equal(t, "not swept", map[int]string{1: "orphan"})
		if target.do(func() {}); listings > 10 {
			t.Errorf("listed %d times", listings)
		}
		sweep(l)
		synctest.Wait()
		target.equal(t, "swept", nil)
	})
}

// TestWhatStandsUnderAGateGoesWithIt, also while it is not due itself: deleting
// the gate deletes it, and the loop would go on believing that it is there.
func TestWhatStandsUnderAGateGoesWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := newTable(map[int]string{12: "orphan"})
		l := running(t, target, Options[string, int]{GateOf: func(k int) int { return k / 10 * 10 }})
		whole := map[int]string{10: "gate", 11: "under it", 12: "adopted"}
		l.Claim("o", want(map[int]string{10: "gate", 11: "under it"}))
		l.Synced()
		synctest.Wait()
		var asked []string
		target.do(func() {
			target.fail = func(op string, k int) error {
				asked = append(asked, fmt.Sprint(op, k))
				if k == 10 {
					return &Deferred[string]{Spec: "gate", After: 100 * time.Millisecond}
				}
				return errors.New("refused") // until 250 ms later
			}
		})
		l.Claim("o", want(nil))
		synctest.Wait()
		target.do(func() {
			asked, target.fail = nil, func(op string, k int) error { asked = append(asked, fmt.Sprint(op, k)); return nil }
		})
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		target.do(func() { slices.Sort(asked) })
		if want := []string{"del10", "del11", "del12"}; !slices.Equal(asked, want) {
			t.Errorf("with the gate went %v, want %v", asked, want)
		}
		target.do(func() { asked = nil })
		l.Claim("o", want(whole))
		synctest.Wait()
		target.equal(t, "wanted again", whole)
		if len(asked) != 3 {
			t.Errorf("wanted again: %v", asked)
		}
	})
}
