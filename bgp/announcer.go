package bgp

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"sluice.dev/sluice/internal/model"
)

// AnnouncerOptions are an Announcer's settings.
type AnnouncerOptions struct {
	// NotReadyAfter is how long a node may be NotReady before its routes go.
	NotReadyAfter time.Duration
}

// Announcement is what one address wants of the tables.
type Announcement struct {
	Routes map[Key]Spec
	// Discard are the aggregates among the routes' prefixes, which this host
	// has to discard what is for none of their addresses.
	Discard []netip.Prefix
	// Again is when to decide again although no fact changes; zero: never.
	Again time.Time
	// Problems are what is wrong with Services and advertisements. Addresses
	// with the same trouble have equal ones.
	Problems []model.Problem
}

// Announcer decides which routes this node tells to whom. It has one owner, no
// goroutine and no clock; Rows may be called from any goroutine.
//
// What it decides depends on facts alone (decide, plan), but for two things that
// it remembers of each address: whether it is told, which lets it stay while
// tables are written, and how often it was withdrawn of late (damp).
type Announcer struct {
	opts    AnnouncerOptions
	network *network

	mu     sync.Mutex // for Rows; only the owner writes
	states map[netip.Addr]state
}

// state is what is remembered of an address.
type state struct {
	damp     damp
	services []model.Name // never changed in place
	lines    []line       // never changed in place
}

// NewAnnouncer makes one that knows nothing yet.
func NewAnnouncer(opts AnnouncerOptions) *Announcer {
	return &Announcer{opts: opts, network: compile(model.Network{}), states: map[netip.Addr]state{}}
}

// Network takes in what concerns every address, says which sessions there are
// to be, and what is wrong with peers and advertisements. Decide has to be
// called for every address after it.
func (a *Announcer) Network(n model.Network) (sessions map[Key]Spec, problems []model.Problem) {
	a.network = compile(n)
	return a.network.peers.sessions(routerID(n.Node, n.Source[0])), a.network.problems
}

// Decide says what an address wants now. programmed says that this node's
// tables hold all that the address needs: until then nobody is told an address
// that is not told yet; one that is told stays, to peers that are new too, for
// this node gets its traffic already.
func (a *Announcer) Decide(now time.Time, v model.VIP, programmed bool) Announcement {
	if len(v.Services) == 0 { // it is nobody's
		a.forget(v.Addr)
		return Announcement{}
	}
	was := a.states[v.Addr]
	meant := a.network.matches(v)
	telling, empty := meant, vacant(v.Services)
	if empty {
		telling = a.network.keepers(meant)
	}
	d := decide(v, site{
		node: a.network.Node, now: now, patience: a.opts.NotReadyAfter,
		keepEmpty: len(telling) > 0, others: a.network.othersOf(v, empty),
	})
	hold, until := "", time.Time{}
	if d.leads {
		hold, until = was.damp.hold(now, programmed)
	}
	is := state{services: names(was.services, v.Services), lines: a.network.lines(v, meant, telling, answer{d, hold})}
	out := announced(v.Addr, is.lines)
	out.Again = earliest(d.again, until)
	out.Problems = a.network.plan(v.Addr, meant).problems
	if p, ok := apart(v); ok {
		out.Problems = append(slices.Clip(out.Problems), p)
	}
	is.damp = was.damp.after(now, len(out.Routes) > 0, d.drained)
	a.remember(v.Addr, is)
	return out
}

// answer is whether this node leads traffic to an address, and why it is not
// told for now although it does; "": it is told.
type answer struct {
	verdict
	hold string
}

// lines are what Rows shows of an address, at least one. meant are the
// advertisements for it, telling those of them that tell it if this node leads.
func (n *network) lines(v model.VIP, meant, telling []match, a answer) []line {
	all := n.plan(v.Addr, meant).tells
	if len(all) == 0 {
		return []line{{bits: uint8(v.Addr.BitLen()), reason: n.explain(v)}} //nolint:gosec // at most 128
	}
	out := make([]line, len(all))
	for i := range all {
		out[i] = all[i].line(a)
	}
	if len(telling) == len(meant) || !a.leads {
		return out
	}
	// Nothing but what keeps empty addresses is left; the rest is not told.
	_, empty := union(v.Services, false)
	some := n.plan(v.Addr, telling).tells
	for i, t := range all {
		kept := slices.IndexFunc(some, func(k tell) bool { return k.peer == t.peer && k.bits == t.bits })
		if kept < 0 {
			out[i].told, out[i].reason = false, empty
			continue
		}
		out[i] = some[kept].line(a)
	}
	return out
}

// line is what becomes of a route.
func (t *tell) line(a answer) line {
	out := line{peer: t.peer, bits: uint8(t.bits), route: &t.route} //nolint:gosec // at most 128
	switch {
	case !a.leads:
		out.reason = a.reason
	case t.silent != "":
		out.reason = t.silent
	case a.hold != "":
		out.reason = a.hold
	default:
		out.told, out.reason = true, a.reason+t.note
	}
	return out
}

// announced is what the tables get of an address with these lines.
func announced(addr netip.Addr, lines []line) (out Announcement) {
	for _, l := range lines {
		if !l.told {
			continue
		}
		if out.Routes == nil {
			out.Routes = make(map[Key]Spec, len(lines))
		}
		prefix := l.prefix(addr)
		out.Routes[Key{Peer: l.peer, Prefix: prefix}] = Spec{Route: *l.route}
		if !prefix.IsSingleIP() && !slices.Contains(out.Discard, prefix) {
			out.Discard = append(out.Discard, prefix)
		}
	}
	return out
}

// earliest is the earlier of two times of which zero is never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// names are the names of Services: those given, if it is them.
func names(was []model.Name, services []model.Share) []model.Name {
	same := func(n model.Name, s model.Share) bool { return n == s.Service }
	if slices.EqualFunc(was, services, same) {
		return was
	}
	out := make([]model.Name, len(services))
	for i, s := range services {
		out[i] = s.Service
	}
	return out
}

func (a *Announcer) remember(addr netip.Addr, s state) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.states[addr] = s
}

func (a *Announcer) forget(addr netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.states, addr)
}
