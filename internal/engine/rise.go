package engine

import (
	"maps"
	"time"

	"sluice.dev/sluice/healthcheck"
)

// rise is what waits for an owner's last change to have come true in every
// table.
type rise struct {
	triggers []time.Time // when the endpoints changed that brought it about
	health   map[healthcheck.Key]healthcheck.Spec
}

// await has an owner's health checks, and the measuring of its latency, wait
// for the tables. A health check that is answered already says at once what has
// changed; a new one would send clients to a node that is not ready for them.
func (e *Engine) await(o Owner, health map[healthcheck.Key]healthcheck.Spec) {
	r := e.rising[o]
	if r == nil {
		r = &rise{}
		e.rising[o] = r
	}
	r.health = health
	for _, t := range e.store.TakeTriggers(o.Name, o.Family) {
		if t.After(e.began) { // what happened before was not ours to program
			r.triggers = append(r.triggers, t)
		}
	}
	known := e.health.claimed(o)
	now := maps.Clone(health)
	maps.DeleteFunc(now, func(k healthcheck.Key, _ healthcheck.Spec) bool {
		_, answered := known[k]
		return !answered
	})
	e.health.set(o, now)
	e.risen(o)
}

// risen ends the wait of an owner whose last change has come true. When that
// is so of the node, others may have waited for it alone.
func (e *Engine) risen(o Owner) {
	if o == node() {
		for other := range e.rising {
			e.risen(other)
		}
		return
	}
	r := e.rising[o]
	if r == nil || !e.ladder.Up(o) {
		return
	}
	delete(e.rising, o)
	e.store.TouchVIPs(o.Name) // whose routes may have waited for this
	e.health.set(o, r.health)
	for _, t := range r.triggers {
		e.opts.Hooks.Programmed(o, time.Since(t))
	}
	e.opts.Hooks.Synced(o)
}
