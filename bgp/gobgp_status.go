package bgp

import (
	"net/netip"
	"sync"
	"time"

	"sluice.dev/sluice/internal/model"
)

// The names of states that are asked for.
const (
	stateIdle        = "idle"
	stateOpenSent    = "opensent"
	stateOpenConfirm = "openconfirm"
	stateEstablished = "established"
)

// status is what is known about a session. GoBGP's goroutines write it, anybody
// reads it.
type status struct {
	mu    sync.Mutex
	state PeerState
	since time.Time // when state.State was turned to
	vague bool      // state.Error is a guess that a better word may replace
	held  [2]int    // routes for the peer, IPv4's first
	takes [2]bool
}

func newStatus(peer string) *status {
	return &status{state: PeerState{Peer: peer, State: stateIdle, Since: time.Now()}}
}

// opening says which session it is now.
func (s *status) opening(spec Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Since.IsZero() || s.state.Established() || s.state.Addr != spec.Peer { // else it is one more try
		s.state.Since = time.Now()
	}
	s.state.Addr, s.state.ASN, s.state.MyASN = spec.Peer, spec.ASN, spec.MyASN
	s.state.State, s.state.Error, s.vague = stateIdle, "", false
}

// turn notes a state, and returns the one before.
func (s *status) turn(state string) (was string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, s.state.State, s.since = s.state.State, state, time.Now()
	return was
}

// turned is when the state last turned.
func (s *status) turned() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since
}

// leave turns to idle, if the state is the one that it turned to at that time.
func (s *status) leave(state string, since time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.State != state || !s.since.Equal(since) {
		return false
	}
	s.state.State, s.since = stateIdle, time.Now()
	return true
}

// up says that the session is established, and for which families.
func (s *status) up(takes [2]bool) PeerState {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Since, s.state.Error, s.vague, s.takes = time.Now(), "", false, takes
	return s.get()
}

// down says that the session is not established any more. It returns how long
// it was.
func (s *status) down() (state PeerState, lasted time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lasted = time.Since(s.state.Since)
	s.state.Since = time.Now()
	s.state.Lost++
	return s.get(), lasted
}

// fail says why the session is not established.
func (s *status) fail(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Error, s.vague = reason, false
}

// guess is fail where nobody said why: what has been said before stands.
func (s *status) guess(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Error == "" || s.vague {
		s.state.Error, s.vague = reason, true
	}
}

// hold counts a route that the peer is to be told, or is not any more (-1).
func (s *status) hold(p netip.Prefix, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[indexOf(model.FamilyOf(p.Addr()))] += n
}

// snapshot is the state as it is now.
func (s *status) snapshot() PeerState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get()
}

func (s *status) get() PeerState {
	state := s.state
	if state.Established() {
		state.Error = ""
		for i, n := range s.held {
			if s.takes[i] {
				state.Told += n
			}
		}
	}
	return state
}

// established reports whether it is; cheaper than a snapshot.
func (s *status) established() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Established()
}

// indexOf is a family's place in arrays of both.
func indexOf(f model.Family) int {
	if f == model.IPv6 {
		return 1
	}
	return 0
}

// takesFamily reports whether the router takes routes of a prefix's family.
func (s *status) takesFamily(p netip.Prefix) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.takes[indexOf(model.FamilyOf(p.Addr()))]
}
