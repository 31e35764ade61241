package bgp

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"

	api "github.com/osrg/gobgp/v3/api"

	"sluice.dev/sluice/internal/model"
)

// GoBGPOptions are what a GoBGP is made of. All may be left out.
type GoBGPOptions struct {
	// Changed is told when a session was established, or lost; PeerState says
	// which, and why. Calls come one at a time, for each peer in order, and may
	// take their time, but they must not call the GoBGP but for Peers. A
	// session that is closed (Close, Stop, Open of another) is not lost.
	Changed func(PeerState)
	Log     *slog.Logger // nil: discarded
}

// GoBGP is the Server, with an embedded GoBGP server for each peer.
//
// A router can make GoBGP v3 panic by what it sends, in goroutines of its own
// where nothing can recover: the process ends then, and starts again. So only
// routers that are configured get to send anything (nothing listens), over
// segments that with TTL security come from no farther than the next hop, and
// with a password from nobody else.
type GoBGP struct {
	opts GoBGPOptions
	sign func(netip.Addr, model.Password) error // trySigning, but in tests

	telling sync.Mutex // one call of Changed at a time

	mu    sync.Mutex // of peers, which only one goroutine changes
	peers map[string]*neighbor
}

// neighbor is a router: what it is to be told, and the session if there is one.
type neighbor struct {
	routes  map[netip.Prefix]Route
	session *session
	refused bool // the session was refused: there is none
	status  *status
}

var _ Server = (*GoBGP)(nil)

// NewGoBGP makes a Server with no session.
func NewGoBGP(opts GoBGPOptions) *GoBGP {
	if opts.Changed == nil {
		opts.Changed = func(PeerState) {}
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &GoBGP{opts: opts, sign: trySigning, peers: map[string]*neighbor{}}
}

// Rows are the sessions and routes there are; see Server.
func (g *GoBGP) Rows() map[Key]Spec {
	rows := map[Key]Spec{}
	for name, p := range g.peers {
		switch {
		case p.session != nil:
			rows[Key{Peer: name}] = Spec{Session: p.session.spec}
		case p.refused:
			rows[Key{Peer: name}] = Spec{}
		}
		for prefix, r := range p.routes {
			rows[Key{Peer: name, Prefix: prefix}] = Spec{Route: r}
		}
	}
	return rows
}

// peer returns a peer, which is made if it is not there.
func (g *GoBGP) peer(name string) *neighbor {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.peers[name]
	if p == nil {
		p = &neighbor{routes: map[netip.Prefix]Route{}, status: newStatus(name)}
		g.peers[name] = p
	}
	return p
}

// prune forgets a peer of which nothing is left.
func (g *GoBGP) prune(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.peers[name]; p != nil && p.session == nil && !p.refused && len(p.routes) == 0 {
		delete(g.peers, name)
	}
}

// Open makes a session; see Server.
func (g *GoBGP) Open(name string, spec Session) error {
	p := g.peer(name)
	if p.session != nil && p.session.spec == spec {
		return nil
	}
	if err := g.end(name, p); err != nil {
		return err
	}
	p.status.opening(spec)
	if err := g.begin(name, p, spec); err != nil {
		p.refused = true
		p.status.fail(err.Error())
		return fmt.Errorf("BGP peer %s: %w", name, err)
	}
	p.refused = false
	return nil
}

// begin opens a session where there is none, with its routes told.
func (g *GoBGP) begin(name string, p *neighbor, spec Session) error {
	if err := spec.Check(); err != nil {
		return err
	}
	if err := checkPassword(spec, g.sign); err != nil {
		return err
	}
	sp, err := theRoom.start(spec.global())
	if err != nil {
		return fmt.Errorf("GoBGP does not start: %w", err)
	}
	if err := sp.importNothing(); err != nil {
		go sp.rest()
		return fmt.Errorf("GoBGP takes no import policy: %w", err)
	}
	log := g.opts.Log.With("peer", name)
	sp.log.attend(log, spec, p.status)
	x := &session{spec: spec, speaker: sp, status: p.status, log: log, changed: g.changed}
	for prefix, r := range p.routes {
		if err := x.tell(Key{name, prefix}, r); err != nil {
			log.Error("a route cannot be told", "route", prefix, "err", err)
			delete(p.routes, prefix) // the loop's audit finds it missing, and tries
			p.status.hold(prefix, -1)
		}
	}
	if err := x.open(); err != nil {
		go sp.rest()
		return fmt.Errorf("GoBGP takes no neighbor: %w", err)
	}
	p.session = x
	return nil
}

func (g *GoBGP) changed(s PeerState) {
	g.telling.Lock()
	defer g.telling.Unlock()
	g.opts.Changed(s)
}

// Close ends a session; see Server.
func (g *GoBGP) Close(name string) error {
	p := g.peer(name)
	defer g.prune(name)
	p.refused = false
	return g.end(name, p)
}

func (g *GoBGP) end(name string, p *neighbor) error {
	if p.session == nil {
		return nil
	}
	if err := p.session.close(); err != nil {
		return fmt.Errorf("BGP peer %s: close: %w", name, err)
	}
	p.session = nil
	p.status.opening(Session{})
	return nil
}

// Tell gives a peer a route; see Server.
func (g *GoBGP) Tell(k Key, r Route) error {
	p := g.peer(k.Peer)
	was, known := p.routes[k.Prefix]
	if known && was == r {
		return nil
	}
	if err := p.tell(k, r); err != nil {
		g.prune(k.Peer)
		return fmt.Errorf("BGP peer %s: tell route %s: %w", k.Peer, k.Prefix, err)
	}
	p.routes[k.Prefix] = r
	if !known {
		p.status.hold(k.Prefix, 1)
	}
	return nil
}

// tell tells the session, or else checks that it could be told.
func (p *neighbor) tell(k Key, r Route) error {
	if p.session != nil {
		return p.session.tell(k, r)
	}
	return r.Check(k.Prefix, netip.Addr{})
}

func (x *session) tell(k Key, r Route) error {
	t, err := toPath(k, r, x.spec.Peer.Addr())
	if err != nil {
		return err
	}
	_, err = x.speaker.bgp.AddPath(context.Background(), &api.AddPathRequest{Path: t})
	return err
}

// Withdraw takes a route back; see Server.
func (g *GoBGP) Withdraw(k Key) error {
	p := g.peer(k.Peer)
	defer g.prune(k.Peer)
	r, known := p.routes[k.Prefix]
	if !known {
		return nil
	}
	if p.session != nil {
		if err := p.session.withdraw(k, r); err != nil {
			return fmt.Errorf("BGP peer %s: withdraw route %s: %w", k.Peer, k.Prefix, err)
		}
	}
	delete(p.routes, k.Prefix)
	p.status.hold(k.Prefix, -1)
	return nil
}

func (x *session) withdraw(k Key, r Route) error {
	t, err := toPath(k, r, x.spec.Peer.Addr())
	if err != nil {
		return err
	}
	return x.speaker.bgp.DeletePath(context.Background(), &api.DeletePathRequest{Path: t})
}

// Peers are the sessions' states, those refused included; see Server.
func (g *GoBGP) Peers() []PeerState {
	g.mu.Lock()
	peers := slices.Collect(maps.Values(g.peers))
	g.mu.Unlock()
	states := make([]PeerState, 0, len(peers))
	for _, p := range peers {
		if s := p.status.snapshot(); s.Addr.IsValid() {
			states = append(states, s)
		}
	}
	slices.SortFunc(states, func(a, b PeerState) int { return cmp.Compare(a.Peer, b.Peer) })
	return states
}
