package reconcile

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// asked is an owner that answers when it is woken, as loops do.
func asked(t *testing.T) (q *Questions, owned *int) {
	t.Helper()
	wake := make(chan struct{}, 1)
	q = NewQuestions(func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	owned = new(int)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		defer q.End()
		for {
			select {
			case <-ctx.Done():
				return
			case <-wake:
				*owned++ // a round
				q.Answer()
			}
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return q, owned
}

// TestManyAsk: questions see and change what only the owner may, without any lock,
// whether or not those who ask give up meanwhile. The race detector judges.
func TestManyAsk(t *testing.T) {
	q, owned := asked(t)
	var ran, answered atomic.Int64
	var asking sync.WaitGroup
	for i := range 200 {
		asking.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%3 == 0 {
				go cancel() // maybe before, maybe after the answer
			}
			mine := 0
			err := q.Ask(ctx, func() { *owned++; mine = *owned; ran.Add(1) })
			if err == nil {
				answered.Add(1)
			} else if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			if (mine > 0) != (err == nil) { // it would be a race if f ran later
				t.Errorf("question %d: saw %d, and %v", i, mine, err)
			}
		})
	}
	asking.Wait()
	if ran.Load() != answered.Load() || answered.Load() < 133 {
		t.Errorf("%d questions ran, %d were answered, of 200", ran.Load(), answered.Load())
	}
}

// TestOneQuestionARound: however many ask, the owner's own work goes on between
// two of them.
func TestOneQuestionARound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		woken := 0
		q := NewQuestions(func() { woken++ })
		said := ""
		for i := range 3 {
			go func() { _ = q.Ask(t.Context(), func() { said += fmt.Sprint(i) }) }()
			synctest.Wait()
		}
		for round := 1; round <= 4; round++ {
			woken = 0
			q.Answer()
			synctest.Wait()
			if want := "012"[:min(round, 3)]; said != want || (woken == 1) != (round < 3) {
				t.Errorf("after round %d: answered %q, woken again %d times", round, said, woken)
			}
		}
	})
}

// TestNoAnswer: a question that is given up, and those of an owner that has ended.
func TestNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQuestions(func() {})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		never := func() { t.Error("it was answered") }
		if err := q.Ask(ctx, never); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("nobody answers: %v", err)
		}
		q.Answer()
		failed := make(chan error)
		go func() { failed <- q.Ask(t.Context(), never) }()
		synctest.Wait()
		q.End()
		if err := <-failed; !errors.Is(err, ErrEnded) {
			t.Errorf("the owner ends: %v", err)
		}
		if err := q.Ask(t.Context(), never); !errors.Is(err, ErrEnded) {
			t.Errorf("it has ended: %v", err)
		}
	})
}

// TestLook: how keys stand while one of them fails and another takes its time to
// go.
func TestLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := newTable(map[int]string{11: "stays", 12: "goes", 99: "another's"})
		target.fail = func(op string, key int) error {
			switch {
			case op == "put" && key == 13:
				return errors.New("no room")
			case op == "del" && key == 12:
				return &Deferred[string]{After: time.Hour, Spec: "leaving"}
			case op == "del" && key == 99:
				return errors.New("busy")
			}
			return nil
		}
		l := running(t, target, Options[string, int]{GateOf: func(k int) int { return k / 10 * 10 }})
		l.Claim("o", want(map[int]string{10: "gate", 11: "stays", 13: "new"}))
		sweep(l)
		synctest.Wait()
		got, err := l.Look(t.Context(), []int{10, 11, 13, 50})
		if err != nil {
			t.Fatal(err)
		}
		failure := got[13].Failure
		if failure.Error != "no room" || failure.Tries != 1 || failure.Since.IsZero() || failure.Key != "13" {
			t.Errorf("the failure is %+v", failure)
		}
		for k, want := range map[int]Standing{
			10: {Wanted: true, Present: true},
			11: {Wanted: true, Present: true},
			12: {Present: true, Pending: true, Deferred: true}, // not asked for: it stands under 10
			13: {Wanted: true, Pending: true, Failure: failure},
			50: {},
		} {
			if got[k] != want {
				t.Errorf("%d: %+v, want %+v", k, got[k], want)
			}
		}
		if len(got) != 5 {
			t.Errorf("%v, want nothing of 99", got)
		}
	})
}

// TestLookAtALoopThatCannot: one that has not listed its table says so at once,
// and one that waits for its kernel when time is up.
func TestLookAtALoopThatCannot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := newTable(nil)
		target.listErr = func() error { return errors.New("no such table") }
		l := running(t, target, Options[string, int]{})
		synctest.Wait()
		if _, err := l.Look(t.Context(), nil); !errors.Is(err, errUnlisted) {
			t.Errorf("before the first listing: %v", err)
		}
		target.do(func() { target.listErr = func() error { return nil } })
		time.Sleep(time.Minute)
		if _, err := l.Look(t.Context(), nil); err != nil {
			t.Errorf("after it: %v", err)
		}
		release := make(chan struct{})
		target.fail = func(string, int) error { <-release; return nil }
		l.Claim("o", want(map[int]string{1: "a"}))
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := l.Look(ctx, []int{1})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while the kernel hangs: %v", err)
		}
		t.Log(err)
		close(release)
		if got, err := l.Look(t.Context(), []int{1}); err != nil || got[1] != (Standing{Wanted: true, Present: true}) {
			t.Errorf("when it is back: %v, %v", got, err)
		}
	})
}
