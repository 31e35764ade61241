package engine

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"sluice.dev/sluice/bgp"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/vip"
)

// preload is how long sessions wait, at the start, for every Service to be
// programmed: a peer that kept the routes of a former run (graceful restart)
// drops those that it is not told when the session is there. Services that fail
// for longer lose theirs.
const preload = 10 * time.Second

// routes are what this node tells routers. They are decided when the facts are
// whole (phase synced), since a route taken back for want of a fact is an
// outage.
type routes struct {
	announcer *bgp.Announcer
	table     *side[bgp.Key, bgp.Spec]
	discards  *side[vip.Discard, struct{}]

	sessions map[bgp.Key]bgp.Spec // wished, once they are opened
	opened   bool
	until    time.Time                // when they are opened at the latest
	again    map[netip.Addr]time.Time // to be decided anew although no fact changes
	trouble  map[netip.Addr][]model.Problem
	troubled map[model.Problem]int // of how many addresses
	wrong    []model.Problem       // with peers and advertisements, whatever the address
	next     time.Time             // the first of these, or of what sessions wait for; zero: none
}

func newRoutes(e *Engine) routes {
	r := routes{
		announcer: e.opts.Announcer, again: map[netip.Addr]time.Time{},
		trouble: map[netip.Addr][]model.Problem{}, troubled: map[model.Problem]int{},
	}
	if e.opts.Targets.Routes != nil {
		r.table = newSide(e, "bgp", e.opts.Targets.Routes)
		e.loops = append(e.loops, r.table.loop)
	}
	if e.opts.Targets.Discards != nil {
		r.discards = newSide(e, "discard", e.opts.Targets.Discards)
		e.loops = append(e.loops, r.discards.loop)
	}
	return r
}

// address is the owner of the routes that lead to an address, peers that of the
// sessions.
func address(a netip.Addr) Owner { return Owner{Kind: "Address", Name: model.Name{Name: a.String()}} }

func peers() Owner { return Owner{Kind: "Peers"} }

// announce decides the routes of every address that facts, the tables or the
// clock have touched.
func (e *Engine) announce() {
	r := &e.routes
	if r.announcer == nil || e.phase < synced {
		return
	}
	now := time.Now()
	touched, network := e.store.TakeVIPs()
	if network {
		sessions, problems := r.announcer.Network(e.store.Network())
		r.sessions, r.wrong = sessions, problems
		e.report(model.Name{}, problems)
	}
	for a, at := range r.again {
		if !at.After(now) {
			touched = append(touched, a)
		}
	}
	for _, a := range touched {
		e.decide(now, a)
	}
	e.open(now)
	r.next = r.due()
}

// decide has the routes of one address follow what is known of it.
func (e *Engine) decide(now time.Time, a netip.Addr) {
	r := &e.routes
	vip := e.store.VIP(a)
	said := r.announcer.Decide(now, vip, e.programmed(vip))
	r.table.set(address(a), said.Routes)
	r.discards.set(address(a), discards(said.Discard))
	e.troubles(a, said.Problems)
	delete(r.again, a)
	if !said.Again.IsZero() {
		r.again[a] = said.Again
	}
}

// troubles passes on the problems of an address that none has had so far: one
// wrong advertisement is wrong for thousands.
func (e *Engine) troubles(a netip.Addr, problems []model.Problem) {
	r := &e.routes
	for _, p := range problems {
		if r.troubled[p]++; r.troubled[p] == 1 {
			e.opts.Hooks.Problem(p)
		}
	}
	for _, p := range r.trouble[a] {
		if r.troubled[p]--; r.troubled[p] == 0 {
			delete(r.troubled, p)
		}
	}
	delete(r.trouble, a)
	if len(problems) > 0 {
		r.trouble[a] = problems
	}
}

// problems are what is wrong with routes at this moment.
func (r *routes) problems() []model.Problem {
	return slices.AppendSeq(slices.Clone(r.wrong), maps.Keys(r.troubled))
}

// programmed reports whether this node's tables hold everything that the
// Services of an address want.
func (e *Engine) programmed(v model.VIP) bool {
	for _, s := range v.Services {
		if !e.ladder.Up(Owner{Kind: "Service", Name: s.Service, Family: model.FamilyOf(v.Addr)}) {
			return false
		}
	}
	return true
}

// open has the sessions follow the peers, from when every route there is to
// tell has been decided.
func (e *Engine) open(now time.Time) {
	r := &e.routes
	if !r.opened && e.ladder.Climbing() > 0 && now.Before(r.until) {
		return
	}
	r.opened = true
	r.table.set(peers(), r.sessions)
}

// due is when something is to be decided anew though nothing happens; zero:
// never.
func (r *routes) due() (next time.Time) {
	sooner := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	for _, at := range r.again {
		sooner(at)
	}
	if !r.opened {
		sooner(r.until)
	}
	return next
}

// syncRoutes is for when all is told: routes that are not decided from then on
// may go.
func (e *Engine) syncRoutes() {
	e.routes.until = time.Now().Add(preload)
	e.routes.table.sync(sweeper())
	e.routes.discards.sync(sweeper())
}

func discards(prefixes []netip.Prefix) map[vip.Discard]struct{} {
	if len(prefixes) == 0 {
		return nil
	}
	wish := make(map[vip.Discard]struct{}, len(prefixes))
	for _, p := range prefixes {
		wish[vip.Discard{Prefix: p}] = struct{}{}
	}
	return wish
}
