package reconcile

import "sync"

// Claim is all that one owner wants of a table.
type Claim[K, V comparable] struct {
	// Version comes back in the Settlement.
	Version uint64
	// Put are the keys that shall be present, with their specs.
	Put map[K]V
	// Keep are keys that stay as they are, present or not. Only the keys
	// count; the specs are there so that an owner can keep what it once put.
	Keep map[K]V
	// Under are keys that are put if their gate (Options.GateOf) is present
	// when the claim is taken in, and else kept; the gates among them are kept.
	Under map[K]V
	// Sweep allows the deletion of orphans (see Loop.Synced), and has the
	// Settlement wait until all is gone that nobody wanted when the claim was
	// taken in.
	Sweep bool
}

// Settlement says that a table is as an owner's claim wants it.
type Settlement[O comparable] struct {
	Owner   O
	Version uint64
	// Leaving: what the claim puts is there, but what it or an earlier one let
	// go is so too, for the time being. Another settlement follows when it has
	// gone.
	Leaving bool
}

// inbox is the one place where other goroutines reach a loop. It never blocks
// and keeps only the newest claim of each owner.
type inbox[O, K, V comparable] struct {
	mu     sync.Mutex
	claims map[O]Claim[K, V]
	synced bool
	wake   chan struct{}
}

func newInbox[O, K, V comparable]() *inbox[O, K, V] {
	return &inbox[O, K, V]{claims: map[O]Claim[K, V]{}, wake: make(chan struct{}, 1)}
}

func (b *inbox[O, K, V]) put(owner O, c Claim[K, V]) {
	b.mu.Lock()
	b.claims[owner] = c
	b.mu.Unlock()
	b.ring()
}

func (b *inbox[O, K, V]) sync() {
	b.mu.Lock()
	b.synced = true
	b.mu.Unlock()
	b.ring()
}

func (b *inbox[O, K, V]) ring() {
	select {
	case b.wake <- struct{}{}:
	default: // a wake-up is already on its way
	}
}

// take empties the inbox. synced is true from the moment sync was called.
func (b *inbox[O, K, V]) take() (claims map[O]Claim[K, V], synced bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	claims, b.claims = b.claims, map[O]Claim[K, V]{}
	return claims, b.synced
}
