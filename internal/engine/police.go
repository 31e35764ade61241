package engine

import (
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/policy"
)

// police is NetworkPolicy's part of the engine: what the planner wishes goes
// the way of all rules, and what came true is told to the planner.
type police struct {
	planner  *policy.Planner // nil: none
	touched  bool            // facts or what stands have changed
	again    time.Time       // when the planner has something to do by itself; zero: never
	outgoing map[Owner]time.Time
	written  time.Time // when the last write of rules began that is known to have ended
}

func newPolice(planner *policy.Planner) police {
	return police{planner: planner, touched: true, outgoing: map[Owner]time.Time{}}
}

// note takes in how far the loop of the rules has come. It has to be read before
// the inbox is, in which what came true with the same write is told.
func (p *police) note(rules reconcile.Status) { p.written = rules.LastApply.Add(-rules.LastApplyTook) }

// event passes a fact on.
func (p *police) event(ev model.Event) {
	if p.planner != nil {
		p.planner.Apply(ev)
		p.touched = true
	}
}

// status is what is enforced.
func (p *police) status() policy.Status {
	if p.planner == nil {
		return policy.Status{}
	}
	return p.planner.Status()
}

// rising counts what policies want that has not come true yet.
func (p *police) rising() int {
	n := len(p.outgoing)
	if !p.again.IsZero() { // pods wait for rules that do not stand
		n++
	}
	return n
}

// enforce has what policies want on this node go its way. Before every source
// has told all it knows they would allow too little, and rules of a former run
// stay as they are.
func (e *Engine) enforce() {
	p := &e.police
	due := !p.again.IsZero() && !time.Now().Before(p.again)
	if p.planner == nil || e.unsynced > 0 || !p.touched && !due {
		return
	}
	p.touched = false
	p.planner.Written(p.written)
	wishes, again := p.planner.Take(time.Now(), func(o policy.Owner) bool { return e.ladder.Up(policyOwner(o)) })
	p.again = again
	for _, w := range wishes {
		o := policyOwner(w.Owner)
		if e.rules.Set(o, w.Keys, nil) {
			p.outgoing[o] = time.Now()
			e.ladder.Start(o)
			e.enforced(o)
		}
	}
	e.report(model.Name{Name: "policy"}, p.planner.Problems())
}

// policyOwner is the planner's owner as the tables know it. Its kinds are none
// of the engine's own.
func policyOwner(o policy.Owner) Owner { return Owner{Kind: o.Kind, Name: o.Name} }

// enforced tells who waits for it that rules, or members of sets, of an owner
// have come true.
func (e *Engine) enforced(o Owner) {
	since, waits := e.police.outgoing[o]
	if !waits || !e.ladder.Up(o) {
		return
	}
	delete(e.police.outgoing, o)
	e.police.touched = true
	e.opts.Hooks.Enforced(time.Since(since))
}
