package bgp

import (
	"context"
	"fmt"
	"sync"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/server"
)

// speaker is one GoBGP server.
type speaker struct {
	bgp    *server.BgpServer
	log    *logger
	room   *room
	parked bool // waits in Observe; of the room's mutex
}

// room is where the process's GoBGP servers are. It is for two faults of theirs.
//
// A server cannot be ended: its goroutine runs for ever. So one that is done
// with rests here and is used again, and there are never more than there have
// been sessions at a time.
//
// And StartBgp writes package variables that every server reads (the rules of
// best path selection), without a lock. So all others are made to stand still
// meanwhile: each calls its timing hook after whatever it did, and is held there.
type room struct {
	starts   sync.Mutex // held by who starts one
	mu       sync.Mutex
	changed  sync.Cond
	starting *speaker
	all      []*speaker
	resting  []*speaker
}

// theRoom is of the process because GoBGP's variables are.
//
//nolint:gochecknoglobals // it guards package variables of GoBGP
var theRoom = func() *room {
	r := &room{}
	r.changed.L = &r.mu
	return r
}()

// start starts a server, with no peer and no route.
func (r *room) start(g *api.Global) (*speaker, error) {
	r.starts.Lock()
	defer r.starts.Unlock()
	sp := r.begin()
	defer r.finish()
	if err := sp.bgp.StartBgp(context.Background(), &api.StartBgpRequest{Global: g}); err != nil {
		return nil, err
	}
	return sp, nil
}

// begin chooses the server that is to be started, and returns when all others
// stand still.
func (r *room) begin() *speaker {
	r.mu.Lock()
	defer r.mu.Unlock()
	var sp *speaker
	if n := len(r.resting); n > 0 {
		sp, r.resting = r.resting[n-1], r.resting[:n-1]
	} else {
		sp = &speaker{log: newLogger(), room: r}
		sp.bgp = server.NewBgpServer(server.LoggerOption(sp.log), server.TimingHookOption(sp))
		r.all = append(r.all, sp)
		go sp.bgp.Serve()
	}
	r.starting = sp
	for _, other := range r.all {
		if other != sp {
			go other.bgp.GetBgp(context.Background(), &api.GetBgpRequest{}) //nolint:errcheck // something to do, so that it comes by
		}
	}
	for !r.still() {
		r.changed.Wait()
	}
	return sp
}

func (r *room) still() bool {
	for _, sp := range r.all {
		if sp != r.starting && !sp.parked {
			return false
		}
	}
	return true
}

func (r *room) finish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.starting = nil
	r.changed.Broadcast()
}

// Observe is called by GoBGP's goroutine after each piece of work.
func (s *speaker) Observe(server.FSMOperation, time.Duration, time.Duration) {
	r := s.room
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.starting != nil && r.starting != s {
		if !s.parked {
			s.parked = true
			r.changed.Broadcast()
		}
		r.changed.Wait()
	}
	s.parked = false
}

// rest gives a server back whose peer has been deleted.
func (s *speaker) rest() {
	if err := s.bgp.DeletePath(context.Background(), &api.DeletePathRequest{}); err != nil { // all
		return // it is not known what it holds: it is not used again
	}
	s.log.forget()
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	s.room.resting = append(s.room.resting, s)
}

// importNothing has the server refuse every route but our own. What a router
// sends is still stored with its session, so routers had better send nothing.
func (s *speaker) importNothing() error {
	const name = "own"
	ctx := context.Background()
	own := &api.Policy{Name: name, Statements: []*api.Statement{{
		Name:       name,
		Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL},
		Actions:    &api.Actions{RouteAction: api.RouteAction_ACCEPT},
	}}}
	if err := s.bgp.AddPolicy(ctx, &api.AddPolicyRequest{Policy: own}); err != nil {
		return fmt.Errorf("import policy: %w", err)
	}
	err := s.bgp.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: &api.PolicyAssignment{
		Name: "global", Direction: api.PolicyDirection_IMPORT,
		Policies: []*api.Policy{{Name: name}}, DefaultAction: api.RouteAction_REJECT,
	}})
	if err != nil {
		return fmt.Errorf("import policy: %w", err)
	}
	return nil
}
