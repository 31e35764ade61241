package engine

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"sluice.dev/sluice/internal/ladder"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/internal/vip"
	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/nodeport"
)

// Options are what an Engine is made of. All but Problem, Patience and Log are
// required.
type Options struct {
	Store    model.StoreOptions
	Sources  int            // how many sources will say that they are synced
	Families []model.Family // families that this node's kernel serves

	IPVS    ipvs.Options // for ipvs.Desired
	Static  map[netfilter.Key]netfilter.Spec
	Targets Targets
	Audit   time.Duration // between two audits of a table; 0: none

	// Problem is told what is wrong with an object, once for as long as it
	// stays wrong. It must not block.
	Problem func(model.Problem)
	// Patience bounds the wait for all sources before the first Service is
	// resolved. After it what is known is added to the kernel; deletions
	// wait for as long as it takes.
	Patience time.Duration
	Log      *slog.Logger
}

// Targets are the kernel's tables.
type Targets struct {
	Rules     reconcile.Target[netfilter.Key, netfilter.Spec]
	Servers   reconcile.Target[ipvs.Key, ipvs.Spec]
	Addresses reconcile.Target[vip.Key, vip.Spec]
}

// Engine keeps the facts and has the tables follow them.
type Engine struct {
	opts  Options
	inbox inbox

	// What follows belongs to Run's goroutine.
	store    *model.Store
	unsynced int
	started  bool // Services are being resolved
	reported map[model.Name]map[model.Problem]struct{}
	ladder   *ladder.Ladder[Owner]

	rules     *ladder.Table[Owner, netfilter.Key, netfilter.Spec]
	servers   *ladder.Table[Owner, ipvs.Key, ipvs.Spec]
	addresses *ladder.Table[Owner, vip.Key, vip.Spec]
	loops     []tableLoop
}

// tableLoop is what the engine wants of a loop besides claims.
type tableLoop interface {
	Run(context.Context)
	Status() reconcile.Status
}

// The rungs, from the bottom.
const (
	rulesRung = iota
	serversRung
	addressesRung
)

// New makes an engine. It does nothing before Run.
func New(opts Options) *Engine {
	if opts.Problem == nil {
		opts.Problem = func(model.Problem) {}
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{
		opts:     opts,
		inbox:    inbox{wake: make(chan struct{}, 1)},
		store:    model.NewStore(opts.Store),
		unsynced: opts.Sources,
		reported: map[model.Name]map[model.Problem]struct{}{},
	}
	rules := newLoop(e, rulesRung, "netfilter", opts.Targets.Rules, self)
	servers := newLoop(e, serversRung, "ipvs", opts.Targets.Servers, serverOf)
	addresses := newLoop(e, addressesRung, "vip", opts.Targets.Addresses, self)
	e.loops = []tableLoop{rules, servers, addresses}

	e.rules = ladder.NewTable(rules, self[netfilter.Key])
	e.servers = ladder.NewTable(servers, serverOf)
	e.addresses = ladder.NewTable(addresses, self[vip.Key])
	e.ladder = ladder.New(node(), Owner{Kind: "sweep"}, ladder.Rung[Owner](e.rules), e.servers, e.addresses)
	return e
}

func newLoop[K, V comparable](e *Engine, rung int, name string, target reconcile.Target[K, V], gate func(K) K) *reconcile.Loop[Owner, K, V] {
	return reconcile.NewLoop(target, reconcile.Options[Owner, K]{
		Name:    name,
		Less:    less,
		GateOf:  gate,
		Settled: func(s []reconcile.Settlement[Owner]) { e.inbox.settled(rung, s) },
		Audit:   e.opts.Audit,
		Log:     e.opts.Log,
	})
}

func self[K any](k K) K { return k }

// serverOf is the virtual server a key stands under: itself or a destination's.
func serverOf(k ipvs.Key) ipvs.Key { return ipvs.Key{VirtualServer: k.VirtualServer} }

// node is the owner of what configuration alone wants.
func node() Owner { return Owner{Kind: "Node"} }

// Event takes a fact in. It never blocks and may be called from any goroutine.
func (e *Engine) Event(ev model.Event) { e.inbox.event(ev) }

// Status are the loops' states, in the order of the ladder.
func (e *Engine) Status() []reconcile.Status {
	out := make([]reconcile.Status, len(e.loops))
	for i, l := range e.loops {
		out[i] = l.Status()
	}
	return out
}

// Run drives the tables until ctx ends. They stay as they are then.
func (e *Engine) Run(ctx context.Context) {
	var loops sync.WaitGroup
	defer loops.Wait()
	for _, l := range e.loops {
		loops.Go(func() { l.Run(ctx) })
	}
	e.rules.Set(node(), e.opts.Static)
	e.ladder.Start(node())

	if e.unsynced == 0 {
		e.synced()
	}
	patience := time.NewTimer(e.opts.Patience)
	defer patience.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-patience.C:
			if !e.started {
				e.opts.Log.Warn("not every source has told all it knows; adding what is known, deleting nothing")
				e.started = true
			}
		case <-e.inbox.wake:
			e.take()
		}
		if e.started {
			e.resolve()
		}
	}
}

// take brings the store and the ladder up to date with the inbox.
func (e *Engine) take() {
	events, settled := e.inbox.take()
	wasSynced := e.unsynced == 0
	for _, ev := range events {
		switch {
		case ev.Problem != nil:
			e.opts.Problem(*ev.Problem)
		case ev.Synced:
			e.opts.Log.Info("source has told all it knows", "source", ev.Source)
			e.unsynced--
		default:
			e.store.Apply(ev)
		}
	}
	for _, s := range settled {
		e.ladder.Settled(s.rung, s.done)
	}
	if e.unsynced == 0 && !wasSynced {
		e.synced()
	}
}

// synced is when every source has told all it knows: with every claim made,
// what nobody wants may go.
func (e *Engine) synced() {
	e.started = true
	e.resolve()
	e.ladder.Sync()
}

// resolve works out anew what the touched Services want.
func (e *Engine) resolve() {
	for _, name := range e.store.TakeDirty() {
		view := model.Resolve(e.store, name)
		e.report(name, view.Problems)
		for _, f := range e.opts.Families {
			e.wish(Owner{Kind: "Service", Name: name, Family: f}, view.Only(f))
		}
	}
}

// wish has one owner's part of a view, as the subsystems want it, go its way.
func (e *Engine) wish(o Owner, view model.View) {
	if len(view.Frontends) == 0 && !e.rules.Knows(o) {
		return
	}
	changed := e.rules.Set(o, nodeport.Desired(view))
	changed = e.servers.Set(o, ipvs.Desired(view, e.opts.IPVS)) || changed
	changed = e.addresses.Set(o, vip.Desired(view)) || changed
	if changed {
		e.ladder.Start(o)
	}
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
			e.opts.Problem(p)
		}
		now[p] = struct{}{}
	}
	e.reported[name] = now
}
