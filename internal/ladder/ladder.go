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
	// done lets go what is no longer wished.
	done(o O)
	// settled reports whether the owner's last claim has come true.
	settled(o O) bool
	// note takes a settlement in.
	note(s reconcile.Settlement[O])
	// forget drops an owner that wishes nothing here any more.
	forget(o O)
	// sync allows deletions, and has the loop settle a claim of the given
	// owner once it has gone through with them.
	sync(o O)
	// sweep has it settle another one when they have all been done.
	sweep(o O)
}

// Ladder moves owners over rungs. See the package comment.
type Ladder[O comparable] struct {
	rungs    []Rung[O]
	climbers map[O]*climber
	base     O
	based    bool
	sweeper  O
	swept    []int // how many of its claims each rung's loop has settled
}

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
		base: base, sweeper: sweeper, swept: make([]int, len(rungs)),
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

// climb moves an owner on for as long as the rung it stands on is settled.
func (l *Ladder[O]) climb(o O, c *climber) {
	top := len(l.rungs) - 1
	for l.rungs[c.at].settled(o) {
		switch {
		case o != l.base && !l.based:
			return
		case !c.down && c.at < top:
			c.at++
			l.rungs[c.at].hold(o)
		case !c.down:
			c.down = true
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
			l.sweep(rung)
			continue
		}
		l.rungs[rung].note(s)
		if c := l.climbers[s.Owner]; c != nil && c.at == rung {
			l.climb(s.Owner, c)
		}
	}
}

// Sync allows the deletion of what nobody wants: to be called once, when every
// owner has been started with what it wants. It goes from the top down, a rung
// when the loop above has gone through its own, so that what a former run left
// behind goes in order too, and what cannot be deleted holds up nothing else.
//
// But the lowest rung is what says whose the rest is (package nodeport's sets
// name our virtual servers) and what guards it: it waits until nothing is left
// above.
func (l *Ladder[O]) Sync() { l.rungs[len(l.rungs)-1].sync(l.sweeper) }

// sweep goes on with the deletion of what nobody wants.
func (l *Ladder[O]) sweep(rung int) {
	l.swept[rung]++
	if rung > 0 && l.swept[rung] == 1 {
		if rung > 1 {
			l.rungs[rung-1].sync(l.sweeper)
		}
		l.rungs[rung].sweep(l.sweeper)
		return
	}
	if rung > 0 && slices.Min(l.swept[1:]) > 1 {
		l.rungs[0].sync(l.sweeper)
	}
}

// Climbing counts the owners that have not arrived.
func (l *Ladder[O]) Climbing() int { return len(l.climbers) }
