package status

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"sluice.dev/sluice/bgp"
	"sluice.dev/sluice/internal/model"
)

// peerKind is the kind of the objects that sessions are made of.
const peerKind = "BGPPeer"

// The reasons of the problems that Sessions tells.
const (
	SessionLost           = "SessionLost"
	SessionNotEstablished = "SessionNotEstablished"
)

const (
	// lookEvery is how often Sessions looks at the sessions, unless it is
	// told of a change.
	lookEvery = time.Second
	// lossEvery is how often at most one peer's losses become a problem:
	// those in between are told together.
	lossEvery = time.Minute
	// defaultHold is the hold time of a peer that no source has told of.
	defaultHold = 9 * time.Second
)

// SessionsOptions are what Sessions needs. Peers and Problem are required.
type SessionsOptions struct {
	Node  string // this node's name, for whoever reads an Event
	Peers func() []bgp.PeerState
	// Problem is told of sessions that broke off and that do not come about.
	// It must not block.
	Problem func(model.Problem)
}

// Sessions looks after the sessions with peers, and turns what goes wrong with
// them into problems (Events on the BGPPeer), where the server of the sessions
// logs each change:
//
//	lost                             SessionLost, at most one a minute for each peer: what is lost
//	                                 in between is counted, and told when the minute is over
//	not established for longer       SessionNotEstablished, once until it is established,
//	than the hold time               and not after a SessionLost
//
// A session that is closed because it is not wished any more, or is to be
// another one, is not lost.
type Sessions struct {
	opts SessionsOptions
	kick chan struct{}

	mu    sync.Mutex
	facts map[string]peerFacts
	down  []Down

	known map[string]*session // Run's
}

// peerFacts are what sources tell of a peer and its session does not.
type peerFacts struct {
	uid  string
	hold time.Duration
}

// Down is a session that is not established.
type Down struct {
	Peer  string // the BGPPeer's name
	Since time.Time
	Error string // why, as far as anybody said
	Long  bool   // for longer than the peer's hold time
}

// session is what has been seen and said of one session.
type session struct {
	last  bgp.PeerState
	why   string    // it was down last, if anybody said
	lost  uint64    // losses not told yet
	told  time.Time // the last SessionLost
	quiet bool      // that it is down has been told
}

// NewSessions makes one that has seen nothing yet.
func NewSessions(opts SessionsOptions) *Sessions {
	return &Sessions{
		opts: opts, kick: make(chan struct{}, 1),
		facts: map[string]peerFacts{}, known: map[string]*session{},
	}
}

// Event takes note of a fact that is on its way to the engine. Only peers
// count. From any goroutine.
func (s *Sessions) Event(e model.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := e.Put.(model.Peer); ok {
		s.facts[p.Name] = peerFacts{uid: p.UID, hold: p.Hold}
	}
	if gone, ok := e.Delete.(model.PeerKey); ok {
		delete(s.facts, gone.Name)
	}
}

// Changed says that a session has changed, so that it is looked at now. It
// does not block; from any goroutine. Which state counts is decided by what
// Peers says then: changes that are told out of order do no harm, and one that
// is not told is seen a second later.
func (s *Sessions) Changed(bgp.PeerState) {
	select {
	case s.kick <- struct{}{}:
	default: // it is about to look
	}
}

// Run looks after the sessions until ctx ends.
func (s *Sessions) Run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		s.look(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.kick:
		}
	}
}

// Down are the sessions that are not established, by peer. From any goroutine.
func (s *Sessions) Down() []Down {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down
}

func (s *Sessions) look(now time.Time) {
	there := map[string]bool{}
	var down []Down
	for _, p := range s.opts.Peers() {
		there[p.Peer] = true
		facts := s.factsOf(p.Peer)
		was := s.known[p.Peer]
		if was == nil {
			was = &session{}
			s.known[p.Peer] = was
		}
		// A loss that is being noted may still show since when it was up.
		fresh := was.last.Established()
		d := Down{Peer: p.Peer, Since: p.Since, Error: oneLine(p.Error), Long: !fresh && now.Sub(p.Since) > facts.hold}
		was.see(p)
		s.tell(was, facts, now, !p.Established() && d.Long)
		if !p.Established() {
			down = append(down, d)
		}
	}
	for peer := range s.known {
		if !there[peer] {
			delete(s.known, peer)
		}
	}
	slices.SortFunc(down, func(a, b Down) int { return cmp.Compare(a.Peer, b.Peer) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *Sessions) factsOf(peer string) peerFacts {
	s.mu.Lock()
	defer s.mu.Unlock()
	facts := s.facts[peer]
	facts.hold = cmp.Or(facts.hold, defaultHold)
	return facts
}

// see takes in the session's state.
func (s *session) see(now bgp.PeerState) {
	was := s.last
	s.last = now
	if now.Lost < was.Lost {
		was.Lost = 0 // counted anew
	}
	s.lost += now.Lost - was.Lost
	if now.Established() {
		s.quiet = false
	} else {
		s.why = now.Error
	}
}

// tell tells of what has to be told by now; long says that the session has been
// down for longer than its hold time.
func (s *Sessions) tell(of *session, facts peerFacts, now time.Time, long bool) {
	switch p := of.last; {
	case of.lost > 0 && (of.told.IsZero() || now.Sub(of.told) >= lossEvery):
		s.problem(p.Peer, facts, SessionLost, lossMessage(s.opts.Node, of))
		of.told, of.lost, of.quiet = now, 0, !p.Established()
	case of.lost == 0 && long && !of.quiet:
		s.problem(p.Peer, facts, SessionNotEstablished, missingMessage(s.opts.Node, p))
		of.quiet = true
	}
}

func (s *Sessions) problem(peer string, facts peerFacts, reason, message string) {
	s.opts.Problem(model.Problem{
		Kind: peerKind, Object: model.Name{Name: peer}, UID: facts.uid, Reason: reason, Message: message,
	})
}

// lossMessage tells of losses. The count since the start keeps the messages
// apart: equal ones are told once an hour.
func lossMessage(node string, of *session) string {
	p, times := of.last, "its session"
	if of.lost > 1 {
		times = fmt.Sprintf("%d sessions", of.lost)
	}
	state := "until there is one again the router learns nothing from the node: see that it is up and can be reached"
	if p.Established() {
		state = "there is one again since " + p.Since.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("node %s lost %s with %v (AS %d), %d in all since the agent's start%s; %s",
		node, times, p.Addr, p.ASN, p.Lost, because(of.why), state)
}

func missingMessage(node string, p bgp.PeerState) string {
	why := cmp.Or(because(p.Error), fmt.Sprintf("; see that the router is up and can be reached from the node, and has the node "+
		"as a neighbor of AS %d, with the same password and TTL", p.MyASN))
	return fmt.Sprintf("node %s has had no session with %v (AS %d) since %s%s",
		node, p.Addr, p.ASN, p.Since.UTC().Format(time.RFC3339), why)
}

func because(err string) string {
	if err == "" {
		return ""
	}
	return ": " + oneLine(err)
}
