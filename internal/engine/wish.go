package engine

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"sluice.dev/sluice/healthcheck"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/internal/vip"
	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/nodeport"
)

// resolve works out anew what the node wants, what policies want, and what the
// touched Services want as far as the phase lets them.
func (e *Engine) resolve() {
	e.wishNode()
	e.enforce()
	var now func(model.Name) bool // nil: all
	switch e.phase {
	case waiting:
		return
	case urgent:
		now = e.store.Urgent
	case open, synced:
	}
	for _, name := range e.store.TakeDirty(now) {
		view := model.Resolve(e.store, name)
		e.report(name, view.Problems)
		for _, f := range e.opts.Families {
			e.wish(Owner{Kind: "Service", Name: name, Family: f}, view.Only(f))
		}
	}
	if e.phase >= open {
		e.opts.Hooks.CaughtUp()
	}
}

// wish has one owner's part of a view, as the subsystems want it, go its way.
func (e *Engine) wish(o Owner, view model.View) {
	if len(view.Frontends)+len(view.Health) == 0 && !e.rules.Knows(o) {
		return
	}
	e.opts.Hooks.Resolved(o, view)
	changed := e.rules.Set(o, nodeport.Desired(view), nil)
	changed = e.servers.Set(o, ipvs.Desired(view, e.opts.IPVS), ipvs.Vacant(view)) || changed
	changed = e.addresses.Set(o, vip.Desired(view), nil) || changed
	if changed {
		e.opts.Hooks.Queued(o)
		e.ladder.Start(o)
	}
	e.await(o, healthcheck.Desired(view))
}

// node is the owner of what is wanted whatever Services there are.
func node() Owner { return Owner{Kind: "Node"} }

// wishNode has what the node wants by itself go its way, when that has changed.
// Until it is known where the pods are nobody goes anywhere: rules of a former
// run stay as they are.
func (e *Engine) wishNode() {
	var pods []netip.Prefix
	if e.opts.NodeCIDR {
		pods = e.store.PodCIDRs()
		if len(pods) == 0 && e.unsynced > 0 {
			return
		}
	}
	if e.based && slices.Equal(pods, e.pods) {
		return
	}
	changed := e.rules.Set(node(), e.opts.Rules(pods), nil)
	if changed || !e.based {
		e.ladder.Start(node())
	}
	e.based, e.pods = true, pods
}

// report passes on the problems that are new.
func (e *Engine) report(name model.Name, problems []model.Problem) {
	was := e.reported[name]
	if len(problems) == 0 {
		delete(e.reported, name)
		return
	}
	now := make(map[model.Problem]struct{}, len(problems))
	for _, p := range problems {
		if _, known := was[p]; !known {
			e.opts.Hooks.Problem(p)
		}
		now[p] = struct{}{}
	}
	e.reported[name] = now
}

// side is a table that stands beside the ladder: nothing waits for it.
type side[K, V comparable] struct {
	loop   *reconcile.Loop[Owner, K, V]
	wishes map[Owner]map[K]V
	claims uint64
}

func newSide[K, V comparable](e *Engine, name string, target reconcile.Target[K, V]) *side[K, V] {
	loop := reconcile.NewLoop(target, reconcile.Options[Owner, K]{
		Name: name, Less: less, Audit: e.opts.Audit, Log: e.opts.Log,
		Applied: func(took time.Duration) { e.opts.Hooks.Applied(name, took) },
		Failed:  func(err error) { e.opts.Hooks.Failed(name, err) },
	})
	return &side[K, V]{loop: loop, wishes: map[Owner]map[K]V{}}
}

// claimed is what an owner wishes.
func (s *side[K, V]) claimed(o Owner) map[K]V {
	if s == nil {
		return nil
	}
	return s.wishes[o]
}

// set replaces what an owner wishes. Without a table nothing happens.
func (s *side[K, V]) set(o Owner, wish map[K]V) {
	if s == nil || maps.Equal(s.wishes[o], wish) {
		return
	}
	s.wishes[o] = wish
	if len(wish) == 0 {
		delete(s.wishes, o)
	}
	s.claims++
	s.loop.Claim(o, reconcile.Claim[K, V]{Version: s.claims, Put: wish})
}

// sync allows deletions.
func (s *side[K, V]) sync(sweeper Owner) {
	if s != nil {
		s.loop.Synced()
		s.loop.Claim(sweeper, reconcile.Claim[K, V]{Sweep: true})
	}
}
