// Package bgptest is a BGP server in memory, with a router for each session that
// hears what it is told, and the conformance of servers, which the fake and the
// real one both pass. The fake is strict: what the real one refuses it refuses.
package bgptest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"sluice.dev/sluice/bgp"
)

// Server is a bgp.Server in memory. A session is established at once, unless
// Hold says otherwise. All methods may be called from any goroutine.
type Server struct {
	// Fail is asked before each call, "open", "close", "tell" or "withdraw",
	// whether it fails. Nil: none does.
	Fail func(call string, k bgp.Key) error
	// Changed is as bgp.GoBGPOptions.Changed.
	Changed func(bgp.PeerState)

	mu      sync.Mutex
	peers   map[string]*peer
	held    map[string]string
	calls   []string
	stopped bool
}

type peer struct {
	state   bgp.PeerState
	session *bgp.Session
	refused bool
	routes  map[netip.Prefix]bgp.Route
	heard   map[netip.Prefix]bgp.Route // what the router holds
}

var _ bgp.Server = (*Server)(nil)

// New makes a server with no session.
func New() *Server { return &Server{peers: map[string]*peer{}, held: map[string]string{}} }

// Hold keeps a peer's session from being established, or ends it if it is, for
// this reason; "" lets it be established.
func (s *Server) Hold(name, reason string) {
	s.mu.Lock()
	p := s.peer(name)
	was := p.state.Established()
	if reason == "" {
		delete(s.held, name)
	} else {
		s.held[name] = reason
	}
	s.meet(name, p)
	if was && !p.state.Established() {
		p.state.Lost++
	}
	state, told := p.state, p.state.Established() != was
	s.mu.Unlock()
	if told {
		s.changed(state)
	}
}

// Heard is what a router holds of the routes that it was told.
func (s *Server) Heard(name string) map[netip.Prefix]bgp.Route {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.peer(name).heard)
}

// TakeCalls are the calls since the last time that did something, in order:
// "open tor1", "tell tor1 10.0.0.1/32", "withdraw …", "close …", "stop".
func (s *Server) TakeCalls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	return calls
}

func (s *Server) peer(name string) *peer {
	p := s.peers[name]
	if p == nil {
		p = &peer{routes: map[netip.Prefix]bgp.Route{}, heard: map[netip.Prefix]bgp.Route{}}
		p.state = bgp.PeerState{Peer: name, State: "idle", Since: time.Now()}
		s.peers[name] = p
	}
	return p
}

// meet has a peer's session be what it should be, and its router hold what it
// would: a router drops the routes of a session that ended.
func (s *Server) meet(name string, p *peer) {
	reason := s.held[name]
	up := p.session != nil && reason == ""
	if up != p.state.Established() {
		p.state.Since = time.Now()
	}
	p.state.State, p.state.Error = "idle", reason
	clear(p.heard)
	p.state.Told = 0
	if !up {
		return
	}
	p.state.State, p.state.Error = "established", ""
	for prefix, r := range p.routes {
		if takes(*p.session, prefix) {
			p.heard[prefix] = r
		}
	}
	p.state.Told = len(p.heard)
}

func takes(s bgp.Session, p netip.Prefix) bool {
	return p.Addr().Is4() && s.IPv4 || p.Addr().Is6() && s.IPv6
}

func (s *Server) fail(call string, k bgp.Key) error {
	if s.Fail == nil {
		return nil
	}
	return s.Fail(call, k)
}

func (s *Server) changed(state bgp.PeerState) {
	if s.Changed != nil {
		s.Changed(state)
	}
}

// Rows are the sessions and routes there are.
func (s *Server) Rows() map[bgp.Key]bgp.Spec {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows := map[bgp.Key]bgp.Spec{}
	for name, p := range s.peers {
		switch {
		case p.session != nil:
			rows[bgp.Key{Peer: name}] = bgp.Spec{Session: *p.session}
		case p.refused:
			rows[bgp.Key{Peer: name}] = bgp.Spec{}
		}
		for prefix, r := range p.routes {
			rows[bgp.Key{Peer: name, Prefix: prefix}] = bgp.Spec{Route: r}
		}
	}
	return rows
}

// Open makes a session.
func (s *Server) Open(name string, spec bgp.Session) error {
	s.mu.Lock()
	p := s.peer(name)
	if p.session != nil && *p.session == spec {
		s.mu.Unlock()
		return nil
	}
	p.session = nil
	s.meet(name, p)
	p.state.Addr, p.state.ASN, p.state.MyASN = spec.Peer, spec.ASN, spec.MyASN
	err := cmp.Or(spec.Check(), s.fail("open", bgp.Key{Peer: name}))
	if p.refused = err != nil; p.refused {
		p.state.Error = err.Error()
		s.mu.Unlock()
		return fmt.Errorf("BGP peer %s: %w", name, err)
	}
	s.calls = append(s.calls, "open "+name)
	p.session = &spec
	maps.DeleteFunc(p.routes, func(prefix netip.Prefix, r bgp.Route) bool {
		return r.Check(prefix, spec.Peer.Addr()) != nil
	})
	s.meet(name, p)
	state := p.state
	s.mu.Unlock()
	if state.Established() {
		s.changed(state)
	}
	return nil
}

// Close ends a session.
func (s *Server) Close(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fail("close", bgp.Key{Peer: name}); err != nil {
		return fmt.Errorf("BGP peer %s: close: %w", name, err)
	}
	p := s.peer(name)
	if p.session != nil {
		s.calls = append(s.calls, "close "+name)
	}
	p.session, p.refused, p.state.Addr = nil, false, netip.AddrPort{}
	s.meet(name, p)
	return nil
}

// Tell gives a peer a route.
func (s *Server) Tell(k bgp.Key, r bgp.Route) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peer(k.Peer)
	if was, known := p.routes[k.Prefix]; known && was == r {
		return nil
	}
	var addr netip.Addr
	if p.session != nil {
		addr = p.session.Peer.Addr()
	}
	if err := cmp.Or(r.Check(k.Prefix, addr), s.fail("tell", k)); err != nil {
		return fmt.Errorf("BGP peer %s: tell route %s: %w", k.Peer, k.Prefix, err)
	}
	s.calls = append(s.calls, "tell "+k.String())
	p.routes[k.Prefix] = r
	if p.state.Established() && takes(*p.session, k.Prefix) {
		p.heard[k.Prefix] = r
		p.state.Told = len(p.heard)
	}
	return nil
}

// Withdraw takes a route back.
func (s *Server) Withdraw(k bgp.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peer(k.Peer)
	if _, known := p.routes[k.Prefix]; !known {
		return nil
	}
	if err := s.fail("withdraw", k); err != nil {
		return fmt.Errorf("BGP peer %s: withdraw route %s: %w", k.Peer, k.Prefix, err)
	}
	s.calls = append(s.calls, "withdraw "+k.String())
	delete(p.routes, k.Prefix)
	delete(p.heard, k.Prefix)
	p.state.Told = len(p.heard)
	return nil
}

// Peers are the sessions' states.
func (s *Server) Peers() []bgp.PeerState {
	s.mu.Lock()
	defer s.mu.Unlock()
	var states []bgp.PeerState
	for _, p := range s.peers {
		if p.state.Addr.IsValid() {
			states = append(states, p.state)
		}
	}
	slices.SortFunc(states, func(a, b bgp.PeerState) int { return cmp.Compare(a.Peer, b.Peer) })
	return states
}

// WithdrawAll takes all routes back.
func (s *Server) WithdrawAll(ctx context.Context, keep bool) error {
	s.mu.Lock()
	names := slices.Sorted(maps.Keys(s.peers))
	s.mu.Unlock()
	var errs []error
	for _, name := range names {
		if s.kept(name, keep) {
			continue
		}
		s.mu.Lock()
		prefixes := slices.Collect(maps.Keys(s.peers[name].routes))
		s.mu.Unlock()
		for _, p := range prefixes {
			errs = append(errs, s.Withdraw(bgp.Key{Peer: name, Prefix: p}))
		}
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// kept reports whether a session's routes stay.
func (s *Server) kept(name string, keep bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[name]
	return p.session == nil || keep && p.session.Restart > 0
}

// Stop ends all. What a router with graceful restart has been told it holds on.
func (s *Server) Stop(ctx context.Context, keep bool) error {
	err := s.WithdrawAll(ctx, keep)
	s.mu.Lock()
	names := slices.Sorted(maps.Keys(s.peers))
	s.calls, s.stopped = append(s.calls, "stop"), true
	s.mu.Unlock()
	for _, name := range names {
		if !s.kept(name, keep) {
			err = errors.Join(err, s.Close(name))
		}
	}
	return err
}

// Stopped reports whether Stop was called.
func (s *Server) Stopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}
