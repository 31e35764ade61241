package reconcile

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// ErrEnded is why nobody answers any more.
var ErrEnded = errors.New("it has ended")

// Questions are how other goroutines look at what belongs to one: what they ask is
// answered by that goroutine, between two of its rounds, so that nothing is
// locked and nothing is seen half done.
//
// One question is answered in a round. However many ask, what the goroutine is
// there for waits for one of them at most: a question has to be short.
type Questions struct {
	wake func() // the owner, who then calls Answer; it must not block

	mu    sync.Mutex
	list  []*question
	ended bool
}

// question is one that was asked.
type question struct {
	f        func()
	done     chan struct{} // closed when f has run, or never will
	answered bool          // f has run; to be read when done is closed
}

// NewQuestions makes questions of an owner that wake wakes.
func NewQuestions(wake func()) *Questions { return &Questions{wake: wake} }

// Ask has the owner call f, and returns when that is done. Without an error f has
// run; with one it never will, so that what f writes may be used then as well.
func (q *Questions) Ask(ctx context.Context, f func()) error {
	one := &question{f: f, done: make(chan struct{})}
	if !q.put(one) {
		return ErrEnded
	}
	q.wake()
	select {
	case <-one.done:
	case <-ctx.Done():
		if q.withdraw(one) {
			return fmt.Errorf("no answer in time: %w", context.Cause(ctx))
		}
		<-one.done // it is being answered at this moment
	}
	if !one.answered {
		return ErrEnded
	}
	return nil
}

func (q *Questions) put(one *question) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return false
	}
	q.list = append(q.list, one)
	return true
}

// withdraw takes a question back, unless it was taken.
func (q *Questions) withdraw(one *question) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, o := range q.list {
		if o == one {
			q.list = append(q.list[:i:i], q.list[i+1:]...)
			return true
		}
	}
	return false
}

// take takes the oldest question; more: there are others.
func (q *Questions) take() (one *question, more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) == 0 {
		return nil, false
	}
	one, q.list = q.list[0], q.list[1:]
	return one, len(q.list) > 0
}

// Answer answers one question. It is for the owner's goroutine, and wakes it
// again when there are others.
func (q *Questions) Answer() {
	one, more := q.take()
	if one == nil {
		return
	}
	one.f()
	one.answered = true
	close(one.done)
	if more {
		q.wake()
	}
}

// End says that the owner answers no more.
func (q *Questions) End() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	for _, one := range q.list {
		close(one.done)
	}
	q.list = nil
}
