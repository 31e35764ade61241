package ladder

import (
	"slices"

	"sluice.dev/sluice/internal/reconcile"
)

// Rung is one table as the ladder sees it: a *Table of whatever keys.
type Rung[O comparable] interface {
	// wait claims what may be written although the rungs below are not
	// there yet: changes under gates that were admitted before, or that the
	// table has from a former run.
	wait(o O)
	// hold admits and puts everything wished, and keeps what is to go.
	hold(o O)
	// ease lets go, of what is no longer wished, what only stands in the way of
	// what is.
	ease(o O)
	// done lets go what is no longer wished.
	done(o O)
	// added reports whether what the owner's last claim puts is there, cleared
	// whether what it let go is gone too.
	added(o O) bool
	cleared(o O) bool
	// note takes a settlement in.
	note(s reconcile.Settlement[O])
	// forget drops an owner that wishes nothing here any more.
	forget(o O)
	// sync allows the deletion of what owners let go.
	sync()
	// sweep allows the deletion of what no owner ever wanted, and has the loop
	// settle a claim of the given owner when it has gone.
	sweep(o O)
}

// Ladder moves owners over rungs. See the package comment.
type Ladder[O comparable] struct {
	rungs    []Rung[O]
	climbers map[O]*climber
	base     O
	based    bool
	sweeper  O
	swept    []progress // of each rung
}

// progress is how far a rung has come with what no owner ever wanted.
type progress uint8

const (
	untouched progress = iota
	tried              // deleted, but for what takes its time or fails
	swept
)

// climber is where one owner stands.
type climber struct {
	at   int
	down bool
}

// New makes a ladder. Nobody climbs higher than the first rung before the
// owner base has arrived once. sweeper is a name for the ladder's own claims,
// which are empty.
func New[O comparable](base, sweeper O, rungs ...Rung[O]) *Ladder[O] {
	return &Ladder[O]{
		rungs: rungs, climbers: map[O]*climber{},
		base: base, sweeper: sweeper, swept: make([]progress, len(rungs)),
	}
}

// Start sends an owner whose wishes changed (Set) on its way. Rungs that it has
// not reached are claimed on as far as they need not wait.
func (l *Ladder[O]) Start(o O) {
	c := &climber{}
	l.climbers[o] = c
	for _, r := range l.rungs[1:] {
		r.wait(o)
	}
	l.rungs[0].hold(o)
	l.climb(o, c)
}

// climb moves an owner on for as long as the rung it stands on has what it
// needs: on the way up what was added there, on the way down also that what was
// dropped has gone. So what takes its time to go (a virtual server whose
// connections have not ended) keeps nothing new waiting.
func (l *Ladder[O]) climb(o O, c *climber) {
	top := len(l.rungs) - 1
	for l.rungs[c.at].added(o) && (!c.down || l.rungs[c.at].cleared(o)) {
		switch {
		case o != l.base && !l.based:
			return
		case !c.down && c.at < top:
			c.at++
			l.rungs[c.at].hold(o)
		case !c.down:
			c.down = true
			for _, r := range l.rungs[:top] {
				r.ease(o)
			}
			l.rungs[top].done(o)
		case c.at > 0:
			c.at--
			l.rungs[c.at].done(o)
		default:
			l.arrive(o)
			return
		}
	}
}

// arrive ends an owner's way.
func (l *Ladder[O]) arrive(o O) {
	delete(l.climbers, o)
	for _, r := range l.rungs {
		r.forget(o)
	}
	if o == l.base && !l.based {
		l.based = true
		for other, c := range l.climbers {
			l.climb(other, c)
		}
	}
}

// Settled takes in what the loop of the given rung reports.
func (l *Ladder[O]) Settled(rung int, done []reconcile.Settlement[O]) {
	for _, s := range done {
		if s.Owner == l.sweeper {
			l.sweep(rung, s.Leaving)
			continue
		}
		l.rungs[rung].note(s)
		if c := l.climbers[s.Owner]; c != nil && c.at == rung {
			l.climb(s.Owner, c)
		}
	}
}

// Sync allows deletions: to be called once, when every owner has been started
// with what it wants. What owners let go has its order by their climbing. What
// no owner ever wanted, because a former run left it behind, goes from the top
// down, a rung when the loop above has gone through its own: what cannot be
// deleted, or takes its time, holds up nothing else.
//
// But the lowest rung is what says whose the rest is (package nodeport's sets
// name our virtual servers) and what guards it: there it waits until nothing
// of the kind is left above.
func (l *Ladder[O]) Sync() {
	for _, r := range l.rungs {
		r.sync()
	}
	l.rungs[len(l.rungs)-1].sweep(l.sweeper)
}

// sweep goes on with the deletion of what no owner ever wanted.
func (l *Ladder[O]) sweep(rung int, leaving bool) {
	first := l.swept[rung] == untouched
	l.swept[rung] = tried
	if !leaving {
		l.swept[rung] = swept
	}
	if first && rung > 1 {
		l.rungs[rung-1].sweep(l.sweeper)
	}
	if rung > 0 && slices.Min(l.swept[1:]) == swept {
		l.rungs[0].sweep(l.sweeper)
	}
}

// Up reports whether all that an owner added has come true on every rung. What
// it dropped may still be on its way out.
func (l *Ladder[O]) Up(o O) bool {
	c := l.climbers[o]
	return c == nil || c.down
}

// Climbing counts the owners that have not arrived.
func (l *Ladder[O]) Climbing() int { return len(l.climbers) }
