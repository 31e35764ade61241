package reconcile

import (
	"context"
	"fmt"
	"iter"
	"time"
)

// Target is one kernel table as a Loop sees it: a listing and a batch of
// idempotent writes. It is called from one goroutine only.
//
// Its own rules of order (sets before the rules that name them, virtual
// servers before their destinations) are its private matter.
type Target[K, V comparable] interface {
	// List yields what of ours is in the table, in sections. Each section
	// is complete for the keys it covers: a covered key that is not in
	// Present is absent from the table. Objects that are not ours never
	// appear, and every Target documents how it recognises its own.
	//
	// only == nil asks for the whole table. Otherwise it is enough that the
	// sections together cover these keys (more is welcome).
	//
	// Each section is read when it is asked for and taken for the truth of
	// that moment: Apply may be called between two sections.
	//
	// A listing that failed or was torn yields an error and no section for
	// the part concerned; after an error the sequence ends.
	List(ctx context.Context, only []K) iter.Seq2[Section[K, V], error]

	// Apply writes a change and returns the error of each key that failed,
	// with its subject in the text; keys not in the result were written. Put
	// and delete are idempotent: putting what is there and deleting what is
	// absent succeed. One key's error never keeps the others from being
	// written. The map may be nil. A *Deferred in the place of an error says
	// that a deletion is under way.
	Apply(ctx context.Context, change Change[K, V]) map[K]error
}

// Section is one part of a listing.
type Section[K, V comparable] struct {
	Covers  func(K) bool
	Present map[K]V
}

// Change is what differs between what is wanted and what is there. A key
// stands at most once in the whole of it.
type Change[K, V comparable] struct {
	Puts []Put[K, V]
	Dels []K
}

// Put is one key to be written.
type Put[K, V comparable] struct {
	Key  K
	Spec V
	// Present says that the table is believed to hold the key already, with
	// another spec: a change rather than a creation. It is a hint; the kernel
	// may have been changed by others since.
	Present bool
}

// Deferred says that a key which is to be deleted stays for now, and why that
// is no failure: a destination whose connections are still running.
type Deferred[V comparable] struct {
	Spec  V             // what the table holds under the key meanwhile
	After time.Duration // when to ask again
}

// Error makes a Deferred fit where Apply reports errors.
func (d *Deferred[V]) Error() string { return fmt.Sprintf("not yet, asking again in %v", d.After) }
