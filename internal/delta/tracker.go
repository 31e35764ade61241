package delta

import (
	"iter"
	"maps"
	"slices"
)

// Tracker is the claims, beliefs and difference of one table, for owners O,
// keys K and specs V. The zero value is not usable; see New.
type Tracker[O, K, V comparable] struct {
	less func(a, b O) bool

	claims  map[O]*claim[O, K, V]
	wanted  map[K]claimants[O, K, V]
	present map[K]V

	puts map[K]struct{} // pending writes
	dels map[K]struct{}

	doubts map[K]struct{} // pending whatever is believed
}

// claim is what one owner wants. Its maps are never changed.
type claim[O, K, V comparable] struct {
	owner O
	put   map[K]V
	keep  map[K]struct{} // without those in put
}

// wish is what a claim says of one key: the spec, or (keep) no change.
type wish[V comparable] struct {
	spec V
	keep bool
}

func (c *claim[O, K, V]) wish(k K) (w wish[V], any bool) {
	if w.spec, any = c.put[k]; any {
		return w, true
	}
	_, w.keep = c.keep[k]
	return w, w.keep
}

// claimants are the claims on one key: nearly always one.
type claimants[O, K, V comparable] struct {
	one  *claim[O, K, V]
	more []*claim[O, K, V]
}

// New makes an empty tracker. less orders owners: of several that put the same
// key with different specs, the least one has its way.
func New[O, K, V comparable](less func(a, b O) bool) *Tracker[O, K, V] {
	return &Tracker[O, K, V]{
		less:    less,
		claims:  map[O]*claim[O, K, V]{},
		wanted:  map[K]claimants[O, K, V]{},
		present: map[K]V{},
		puts:    map[K]struct{}{},
		dels:    map[K]struct{}{},
		doubts:  map[K]struct{}{},
	}
}

// Claim replaces the wishes of owner: every key of put shall be present with
// its spec; every key of keep stays as it is, present or not. A key in both is
// put. Empty wishes release the owner. The result lists the keys that Claim
// touched and that are pending now. put is kept and must not be changed.
func (t *Tracker[O, K, V]) Claim(owner O, put map[K]V, keep iter.Seq[K]) []K {
	c := t.claims[owner]
	if c == nil {
		c = &claim[O, K, V]{owner: owner}
	}
	old := *c
	c.put, c.keep = put, nil
	for k := range keep {
		if _, both := put[k]; both {
			continue
		}
		if c.keep == nil {
			c.keep = map[K]struct{}{}
		}
		c.keep[k] = struct{}{}
	}
	if len(c.put)+len(c.keep) == 0 {
		delete(t.claims, owner)
	} else {
		t.claims[owner] = c
	}

	var pending []K
	for k := range old.keys {
		if _, stays := c.wish(k); !stays {
			t.unwish(c, k)
			pending = t.note(pending, k)
		}
	}
	for k := range c.keys {
		was, had := old.wish(k)
		if !had {
			t.wish(c, k)
		}
		if now, _ := c.wish(k); !had || was != now {
			t.settle(k)
		}
		pending = t.note(pending, k)
	}
	return pending
}

// keys are the keys of a claim.
func (c *claim[O, K, V]) keys(yield func(K) bool) {
	for k := range c.put {
		if !yield(k) {
			return
		}
	}
	for k := range c.keep {
		if !yield(k) {
			return
		}
	}
}

func (t *Tracker[O, K, V]) wish(c *claim[O, K, V], k K) {
	on := t.wanted[k]
	if on.one == nil {
		on.one = c
	} else {
		on.more = append(on.more, c)
	}
	t.wanted[k] = on
}

func (t *Tracker[O, K, V]) unwish(c *claim[O, K, V], k K) {
	on := t.wanted[k]
	switch last := len(on.more) - 1; {
	case on.one != c:
		on.more = slices.DeleteFunc(on.more, func(o *claim[O, K, V]) bool { return o == c })
	case last < 0:
		on.one = nil
	default:
		on.one = on.more[last]
		on.more = slices.Delete(on.more, last, last+1)
	}
	if on.one == nil {
		delete(t.wanted, k)
	} else {
		t.wanted[k] = on
	}
	t.settle(k)
}

func (t *Tracker[O, K, V]) note(pending []K, k K) []K {
	if t.Pending(k) {
		return append(pending, k)
	}
	return pending
}

// settle brings puts and dels up to date for one key.
func (t *Tracker[O, K, V]) settle(k K) {
	have, present := t.present[k]
	want, put, anyone := t.want(k)
	switch {
	case put && (!present || have != want):
		t.puts[k] = struct{}{}
		t.dels = drop(t.dels, k)
	case !anyone && present:
		t.dels[k] = struct{}{}
		t.puts = drop(t.puts, k)
	default:
		t.puts = drop(t.puts, k)
		t.dels = drop(t.dels, k)
	}
}

// want is what the owners together want of a key: the spec to put, if one of
// them puts it, and whether anyone wants it at all.
func (t *Tracker[O, K, V]) want(k K) (spec V, put, anyone bool) {
	on := t.wanted[k]
	if on.one == nil {
		return spec, false, false
	}
	spec, put = on.one.put[k]
	by := on.one.owner
	for _, c := range on.more {
		if v, puts := c.put[k]; puts && (!put || t.less(c.owner, by)) {
			spec, by, put = v, c.owner, true
		}
	}
	return spec, put, true
}

// drop deletes a key, and replaces a map that became empty: ranging over a Go
// map costs the size it once had (34 µs instead of 1.8 after a large start).
func drop[K comparable, V any](m map[K]V, k K) map[K]V {
	if _, ok := m[k]; !ok {
		return m
	}
	delete(m, k)
	if len(m) == 0 {
		return map[K]V{}
	}
	return m
}

// DidPut records that a key was written.
func (t *Tracker[O, K, V]) DidPut(k K, v V) {
	t.present[k] = v
	t.doubts = drop(t.doubts, k)
	t.settle(k)
}

// DidDel records that a key was deleted.
func (t *Tracker[O, K, V]) DidDel(k K) {
	delete(t.present, k)
	t.doubts = drop(t.doubts, k)
	t.settle(k)
}

// Doubt records that writing a key failed: the belief about it stays, but the
// write may have done its work, so the key is pending until it is observed or
// written.
func (t *Tracker[O, K, V]) Doubt(k K) { t.doubts[k] = struct{}{} }

// Doubtful reports whether the belief about the key is in doubt.
func (t *Tracker[O, K, V]) Doubtful(k K) bool {
	_, doubtful := t.doubts[k]
	return doubtful
}

// Observe takes a listing for the truth about the keys it covers, and counts
// the beliefs it corrected that were not in doubt: keys missing, unexpected or
// different. A covered key that is not in listed is absent.
func (t *Tracker[O, K, V]) Observe(covers func(K) bool, listed map[K]V) (corrected int) {
	correct := func(k K) {
		if !t.Doubtful(k) {
			corrected++
		}
	}
	for k, v := range listed {
		if have, ok := t.present[k]; !ok || have != v {
			correct(k)
			t.DidPut(k, v)
		}
	}
	for k := range t.present {
		if _, ok := listed[k]; !ok && covers(k) {
			correct(k)
			t.DidDel(k)
		}
	}
	for k := range t.doubts {
		if _, ok := listed[k]; ok || covers(k) {
			delete(t.doubts, k)
		}
	}
	return corrected
}

// Pending reports whether the key has to be written, deleted or observed.
func (t *Tracker[O, K, V]) Pending(k K) bool {
	if _, ok := t.puts[k]; ok {
		return true
	}
	if _, ok := t.dels[k]; ok {
		return true
	}
	return t.Doubtful(k)
}

// Puts are the keys to write, each with its spec.
func (t *Tracker[O, K, V]) Puts() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for k := range t.puts {
			if spec, _, _ := t.want(k); !yield(k, spec) {
				return
			}
		}
	}
}

// Dels are the keys to delete.
func (t *Tracker[O, K, V]) Dels() iter.Seq[K] { return maps.Keys(t.dels) }

// Dropped reports whether the key is one of Dels.
func (t *Tracker[O, K, V]) Dropped(k K) bool {
	_, dropped := t.dels[k]
	return dropped
}

// Wanted is the spec to put under the key, if anyone puts it.
func (t *Tracker[O, K, V]) Wanted(k K) (V, bool) {
	spec, put, _ := t.want(k)
	return spec, put
}

// Present is what the table is believed to hold under the key.
func (t *Tracker[O, K, V]) Present(k K) (V, bool) {
	v, ok := t.present[k]
	return v, ok
}

// All are all keys believed to be present.
func (t *Tracker[O, K, V]) All() iter.Seq2[K, V] { return maps.All(t.present) }

// Counts is the size of each side of the difference.
func (t *Tracker[O, K, V]) Counts() Counts {
	return Counts{Wanted: len(t.wanted), Present: len(t.present), Puts: len(t.puts), Dels: len(t.dels)}
}

// Counts are the sizes of a tracker's maps.
type Counts struct{ Wanted, Present, Puts, Dels int }
