package ladder

import (
	"maps"

	"sluice.dev/sluice/internal/reconcile"
)

// Loop is the side of a reconcile.Loop that claims are made on.
type Loop[O, K, V comparable] interface {
	Claim(O, reconcile.Claim[K, V])
	Synced()
}

// Table is a rung over a loop of keys K and specs V.
type Table[O, K, V comparable] struct {
	loop   Loop[O, K, V]
	gate   func(K) K
	free   func(k K, wished func(K) bool) bool
	claims uint64 // made so far: the version of the last
	owners map[O]*standing[K, V]
}

// standing is how far one owner's wishes have come into one table. Its maps are
// never changed: the loop has them too.
type standing[K, V comparable] struct {
	next     map[K]V // what is wished now
	held     map[K]V // claimed before and no longer wished, not let go yet
	drops    map[K]V // as they were given
	admitted map[K]V // what hold or done has put, with its gates
	sent     reconcile.Claim[K, V]
	added    bool // what sent puts is there
	settled  bool // and what it let go is gone
}

// NewTable makes a rung. gate names the key under which a key stands: itself,
// when it is a gate. Whoever wishes a key has to wish its gate too. free tells
// which keys that are no longer wished need not wait for the rungs above to let
// go, but only for them to have what is added, given what is wished instead;
// nil: none.
func NewTable[O, K, V comparable](l Loop[O, K, V], gate func(K) K, free func(k K, wished func(K) bool) bool) *Table[O, K, V] {
	return &Table[O, K, V]{loop: l, gate: gate, free: free, owners: map[O]*standing[K, V]{}}
}

// Knows reports whether an owner has wishes here, or has not let them go yet.
func (t *Table[O, K, V]) Knows(o O) bool { return t.owners[o] != nil }

// Set replaces what an owner wishes, and reports whether that differs from
// before. Nothing is claimed until the ladder starts the owner.
//
// What an owner wished before goes in order. With drops it names what may be
// there from a former run, of which it does not wish any: that goes in order too.
func (t *Table[O, K, V]) Set(o O, wish, drops map[K]V) (changed bool) {
	s := t.standing(o)
	if maps.Equal(s.next, wish) && maps.Equal(s.drops, drops) {
		return false
	}
	var held map[K]V
	for _, was := range [...]map[K]V{s.held, s.next, drops} {
		for k, v := range was {
			if _, still := wish[k]; !still {
				held = with(held, k, v)
			}
		}
	}
	s.next, s.held, s.drops = wish, held, drops
	return true
}

// with adds to a map, which is made when it is first needed: most are not.
func with[K, V comparable](m map[K]V, k K, v V) map[K]V {
	if m == nil {
		m = map[K]V{}
	}
	m[k] = v
	return m
}

func (t *Table[O, K, V]) standing(o O) *standing[K, V] {
	s := t.owners[o]
	if s == nil {
		s = &standing[K, V]{added: true, settled: true}
		t.owners[o] = s
	}
	return s
}

func (t *Table[O, K, V]) wait(o O) {
	s := t.standing(o)
	c := reconcile.Claim[K, V]{Keep: t.gatesToGo(s)}
	if len(s.admitted) == 0 {
		c.Under = s.next // nearly always
	} else {
		for k, v := range s.next {
			if _, admitted := s.admitted[t.gate(k)]; admitted {
				c.Put = with(c.Put, k, v)
			} else {
				c.Under = with(c.Under, k, v)
			}
		}
	}
	t.claim(o, s, c)
}

func (t *Table[O, K, V]) hold(o O) {
	s := t.standing(o)
	s.admitted = s.next
	t.claim(o, s, reconcile.Claim[K, V]{Put: s.next, Keep: t.gatesToGo(s)})
}

func (t *Table[O, K, V]) ease(o O) {
	s := t.owners[o]
	if t.free == nil || len(s.held) == 0 {
		return
	}
	wished := func(k K) bool { _, is := s.next[k]; return is }
	held := maps.Clone(s.held)
	maps.DeleteFunc(held, func(k K, _ V) bool { return t.free(k, wished) })
	s.held = held
	t.claim(o, s, reconcile.Claim[K, V]{Put: s.next, Keep: t.gatesToGo(s)})
}

func (t *Table[O, K, V]) done(o O) {
	s := t.owners[o]
	s.admitted, s.held = s.next, nil
	t.claim(o, s, reconcile.Claim[K, V]{Put: s.next})
}

// gatesToGo are the held keys whose gate goes too. What goes from under a gate
// that stays is let go at once.
func (t *Table[O, K, V]) gatesToGo(s *standing[K, V]) (keep map[K]V) {
	for k, v := range s.held {
		if _, stays := s.next[t.gate(k)]; !stays {
			keep = with(keep, k, v)
		}
	}
	return keep
}

// claim tells the loop, unless it has been told just that.
func (t *Table[O, K, V]) claim(o O, s *standing[K, V], c reconcile.Claim[K, V]) {
	if maps.Equal(c.Put, s.sent.Put) && maps.Equal(c.Under, s.sent.Under) && maps.Equal(c.Keep, s.sent.Keep) {
		return
	}
	t.claims++
	c.Version = t.claims
	s.sent, s.added, s.settled = c, false, false
	t.loop.Claim(o, c)
}

func (t *Table[O, K, V]) added(o O) bool { return t.owners[o].added }

func (t *Table[O, K, V]) cleared(o O) bool { return t.owners[o].settled }

func (t *Table[O, K, V]) note(done reconcile.Settlement[O]) {
	if s := t.owners[done.Owner]; s != nil && s.sent.Version == done.Version {
		s.added, s.settled = true, !done.Leaving
	}
}

func (t *Table[O, K, V]) forget(o O) {
	if s := t.owners[o]; len(s.next)+len(s.drops) == 0 {
		delete(t.owners, o)
	}
}

func (t *Table[O, K, V]) sync() { t.loop.Synced() }

func (t *Table[O, K, V]) sweep(o O) {
	t.claims++
	t.loop.Claim(o, reconcile.Claim[K, V]{Version: t.claims, Sweep: true})
}
