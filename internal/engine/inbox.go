package engine

import (
	"sync"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
)

// inbox is where other goroutines reach the engine. It never blocks: events
// are cheap to take in, and the tables' loops coalesce what they cause.
type inbox struct {
	mu     sync.Mutex
	events []model.Event
	done   []settlements
	wake   chan struct{}
}

// settlements are what one rung's loop reported.
type settlements struct {
	rung int
	done []reconcile.Settlement[Owner]
}

func (b *inbox) event(e model.Event) {
	b.mu.Lock()
	b.events = append(b.events, e)
	b.mu.Unlock()
	b.ring()
}

func (b *inbox) settled(rung int, done []reconcile.Settlement[Owner]) {
	b.mu.Lock()
	b.done = append(b.done, settlements{rung, done})
	b.mu.Unlock()
	b.ring()
}

func (b *inbox) ring() {
	select {
	case b.wake <- struct{}{}:
	default: // a wake-up is already on its way
	}
}

func (b *inbox) take() ([]model.Event, []settlements) {
	b.mu.Lock()
	defer b.mu.Unlock()
	events, done := b.events, b.done
	b.events, b.done = nil, nil
	return events, done
}
