package engine

import (
	"context"
	"log/slog"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"sluice.dev/sluice/bgp"
	"sluice.dev/sluice/healthcheck"
	"sluice.dev/sluice/internal/ladder"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/internal/vip"
	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/nodeport"
	"sluice.dev/sluice/policy"
)

// Options are what an Engine is made of. All but Announcer, Planner, Patience,
// Hooks and Log are required.
type Options struct {
	Store    model.StoreOptions
	Sources  int            // how many sources will say that they are synced
	Families []model.Family // families that this node's kernel serves

	IPVS ipvs.Options // for ipvs.Desired
	// Rules are the node's sets, chains and jumps; see nodeport.Static. With
	// NodeCIDR they depend on the ranges in which the Node says that its pods
	// are, and are asked for again when these change; else pods is empty.
	// Nil: none.
	NodeCIDR bool
	Rules    func(pods []netip.Prefix) map[netfilter.Key]netfilter.Spec
	Targets  Targets
	// Announcer decides what is told to routers; nil: nothing.
	Announcer *bgp.Announcer
	// Planner works out what NetworkPolicies want; nil: nothing, and what a
	// former run enforced goes.
	Planner *policy.Planner
	// Hooks is told what happens; see there.
	Hooks Hooks
	Audit time.Duration // between two audits of a table; 0: none

	// Patience bounds the wait for all sources before the first Service is
	// resolved. After it what is known is added to the kernel; deletions
	// wait for as long as it takes.
	Patience time.Duration
	Log      *slog.Logger
}

// Targets are the kernel's tables, the health check ports and what routers are
// told. From Health on nil stands for none.
type Targets struct {
	Rules     reconcile.Target[netfilter.Key, netfilter.Spec]
	Servers   reconcile.Target[ipvs.Key, ipvs.Spec]
	Addresses reconcile.Target[vip.Key, vip.Spec]
	Health    reconcile.Target[healthcheck.Key, healthcheck.Spec]
	Routes    reconcile.Target[bgp.Key, bgp.Spec]
	Discards  reconcile.Target[vip.Discard, struct{}]
}

// Hooks are told what happens, from the engine's goroutine; they must not
// block. Nil: nobody is told.
type Hooks struct {
	// Problem is what is wrong with an object, once for as long as it stays
	// wrong.
	Problem func(model.Problem)
	// Resolved is what a Service means now in one family, before it is wanted
	// of any table; an empty view: nothing.
	Resolved func(Owner, model.View)
	// Queued: what it wants of the tables has changed. Synced: they hold what
	// it wants; what it wants no more may still be on its way out.
	Queued, Synced func(Owner)
	// Programmed is how long ago endpoints changed, as their EndpointSlice
	// says, that the tables hold now: the network programming latency of
	// Kubernetes' service level objectives.
	Programmed func(Owner, time.Duration)
	// Enforced is how long a change of what policies want took to come true.
	Enforced func(time.Duration)
	// CaughtUp: every Service that facts so far have touched is resolved.
	CaughtUp func()
	// Complete: and the sources have told all they know. It is told once.
	Complete func()
	// Applied is how long a table's loop took for a batch, Failed what it
	// could not list or write. These come from the loops' goroutines.
	Applied func(table string, took time.Duration)
	Failed  func(table string, err error)
}

// fill gives the hooks that nobody gave.
func (h *Hooks) fill() {
	or(&h.Problem, func(model.Problem) {})
	or(&h.Resolved, func(Owner, model.View) {})
	or(&h.Queued, func(Owner) {})
	or(&h.Synced, func(Owner) {})
	or(&h.Programmed, func(Owner, time.Duration) {})
	or(&h.Enforced, func(time.Duration) {})
	or(&h.CaughtUp, func() {})
	or(&h.Complete, func() {})
	or(&h.Applied, func(string, time.Duration) {})
	or(&h.Failed, func(string, error) {})
}

func or[F any](f *F, nobody F) {
	if reflect.ValueOf(*f).IsNil() {
		*f = nobody
	}
}

// Engine keeps the facts and has the tables follow them.
type Engine struct {
	opts  Options
	inbox inbox
	facts atomic.Pointer[Facts]
	asked *reconcile.Questions
	tables
	state  // Run's goroutine's
	routes routes
	police police
}

// tables are where wishes go.
type tables struct {
	ladder    *ladder.Ladder[Owner]
	rules     *ladder.Table[Owner, netfilter.Key, netfilter.Spec]
	servers   *ladder.Table[Owner, ipvs.Key, ipvs.Spec]
	addresses *ladder.Table[Owner, vip.Key, vip.Spec]
	health    *side[healthcheck.Key, healthcheck.Spec]
	loops     []tableLoop
	look      lookers
}

// state is what the engine knows.
type state struct {
	store    *model.Store
	unsynced int // sources
	phase    phase
	began    time.Time
	reported map[model.Name]map[model.Problem]struct{}
	rising   map[Owner]*rise
	pods     []netip.Prefix // that the node's wish was made of
	based    bool           // the node has wished
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
	opts.Hooks.fill()
	if opts.Rules == nil {
		opts.Rules = func([]netip.Prefix) map[netfilter.Key]netfilter.Spec {
			return nil
		}
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{
		opts:  opts,
		inbox: inbox{wake: make(chan struct{}, 1)},
		state: state{
			store:    model.NewStore(opts.Store),
			unsynced: opts.Sources,
			reported: map[model.Name]map[model.Problem]struct{}{},
			rising:   map[Owner]*rise{},
		},
	}
	e.asked = reconcile.NewQuestions(e.inbox.ring)
	e.publish()
	rules := newLoop(e, opts.Targets.Rules, table[netfilter.Key]{rulesRung, "netfilter", self[netfilter.Key], nodeport.Free})
	servers := newLoop(e, opts.Targets.Servers, table[ipvs.Key]{serversRung, "ipvs", serverOf, nil})
	addresses := newLoop(e, opts.Targets.Addresses, table[vip.Key]{addressesRung, "vip", self[vip.Key], nil})
	e.loops = []tableLoop{rules, servers, addresses}
	e.look = lookers{rules: rules, servers: servers, addresses: addresses}

	e.rules = ladder.NewTable(rules, self[netfilter.Key], nodeport.Free)
	e.servers = ladder.NewTable(servers, serverOf, nil)
	e.addresses = ladder.NewTable(addresses, self[vip.Key], nil)
	if opts.Targets.Health != nil {
		e.health = newSide(e, "healthcheck", opts.Targets.Health)
		e.loops = append(e.loops, e.health.loop)
		e.look.health = e.health.loop
	}
	e.routes = newRoutes(e)
	e.police = newPolice(opts.Planner)
	e.ladder = ladder.New(node(), sweeper(), ladder.Rung[Owner](e.rules), e.servers, e.addresses)
	return e
}

// table is what a rung's loop has to know of its keys.
type table[K comparable] struct {
	rung int
	name string
	gate func(K) K
	free func(k K, wished func(K) bool) bool
}

func newLoop[K, V comparable](e *Engine, target reconcile.Target[K, V], of table[K]) *reconcile.Loop[Owner, K, V] {
	return reconcile.NewLoop(target, reconcile.Options[Owner, K]{
		Name:    of.name,
		Less:    less,
		GateOf:  of.gate,
		Free:    of.free,
		Settled: func(s []reconcile.Settlement[Owner]) { e.inbox.settled(of.rung, s) },
		Applied: func(took time.Duration) { e.opts.Hooks.Applied(of.name, took) },
		Failed:  func(err error) { e.opts.Hooks.Failed(of.name, err) },
		Audit:   e.opts.Audit,
		Log:     e.opts.Log,
	})
}

func self[K any](k K) K { return k }

// serverOf is the virtual server a key stands under: itself or a destination's.
func serverOf(k ipvs.Key) ipvs.Key { return ipvs.Key{VirtualServer: k.VirtualServer} }

// sweeper is the owner of claims on nothing, that let orphans go.
func sweeper() Owner { return Owner{Kind: "sweep"} }

// Event takes a fact in. It never blocks and may be called from any goroutine.
func (e *Engine) Event(ev model.Event) { e.inbox.event(ev) }

// Status are the loops' states: those of the kernel's tables in the order of
// the ladder, then those of the others there are.
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
	defer e.asked.End()
	for _, l := range e.loops {
		loops.Go(func() { l.Run(ctx) })
	}
	e.began = time.Now()
	e.wishNode()

	patience := time.NewTimer(e.opts.Patience)
	defer patience.Stop()
	e.proceed(patience) // without sources nothing is waited for
	for {
		alarm, stop := e.alarm()
		select {
		case <-ctx.Done():
			stop()
			return
		case <-patience.C:
			e.hurry(patience)
		case <-e.inbox.wake:
			e.take()
		case <-alarm:
			e.take()
		}
		stop()
		e.proceed(patience)
		e.resolve()
		e.announce()
		e.publish()
		e.asked.Answer()
	}
}

// alarm is a channel that fires when something is due by itself; stop releases
// it.
func (e *Engine) alarm() (<-chan time.Time, func() bool) {
	next := e.routes.next
	if again := e.police.again; next.IsZero() || !again.IsZero() && again.Before(next) {
		next = again
	}
	if next.IsZero() {
		return nil, func() bool { return true }
	}
	t := time.NewTimer(time.Until(next))
	return t.C, t.Stop
}

// take brings the store and the ladder up to date with the inbox.
func (e *Engine) take() {
	e.police.note(e.loops[rulesRung].Status())
	events, settled := e.inbox.take()
	for _, ev := range events {
		switch {
		case ev.Problem != nil:
			e.opts.Hooks.Problem(*ev.Problem)
		case ev.Synced:
			e.opts.Log.Info("source has told all it knows", "source", ev.Source)
			e.unsynced--
		default:
			e.store.Apply(ev)
			e.police.event(ev)
		}
	}
	for _, s := range settled {
		e.ladder.Settled(s.rung, s.done)
		for _, d := range s.done {
			e.risen(d.Owner)
			e.enforced(d.Owner)
		}
	}
}
