package bgp

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"google.golang.org/protobuf/types/known/anypb"

	"sluice.dev/sluice/internal/model"
)

// GoBGP waits five seconds after a session ended before it dials again, and one
// or two more. A neighbor that is added anew it dials after one or two.
const (
	idleHold  = 5 * time.Second
	firstDial = 2 * time.Second
	// hurry is until when after a session's end its neighbor may be added anew;
	// later it could be established again by itself.
	hurry = idleHold - time.Second
)

// session is a session with a peer, on a server of its own.
type session struct {
	spec    Session
	speaker *speaker
	status  *status
	log     *slog.Logger
	changed func(PeerState)
	unwatch context.CancelFunc

	mu    sync.Mutex // of what follows: adding the neighbor anew and closing exclude each other
	over  bool
	ended time.Time
	gone  bool // GoBGP has no neighbor: adding it failed
}

// open begins to dial. The server has its routes.
func (x *session) open() error {
	ctx, cancel := context.WithCancel(context.Background())
	x.unwatch = cancel
	err := x.speaker.bgp.WatchEvent(ctx, &api.WatchEventRequest{Peer: &api.WatchEventRequest_Peer{}}, x.event)
	if err == nil {
		err = x.speaker.bgp.AddPeer(ctx, &api.AddPeerRequest{Peer: x.spec.neighbor()})
	}
	if err != nil {
		cancel()
	}
	return err
}

// event is told of a state. GoBGP calls it from a goroutine of the watch, which
// has an unbounded queue: nothing in here keeps GoBGP waiting.
func (x *session) event(e *api.WatchEventResponse) {
	p := e.GetPeer()
	if p == nil || p.Type == api.WatchEventResponse_PeerEvent_END_OF_INIT || x.isOver() {
		return
	}
	now := strings.ToLower(p.Peer.State.SessionState.String())
	was := x.status.turn(now)
	switch {
	case now == was:
	case now == stateEstablished:
		state := x.status.up(x.takes())
		x.log.Info("session established", "addr", x.spec.Peer)
		x.changed(state)
	case was == stateEstablished:
		x.status.guess("the connection broke off")
		state, lasted := x.status.down()
		x.log.Warn("session lost", "addr", x.spec.Peer, "err", state.Error, "after", lasted.Round(time.Second))
		x.changed(state)
		x.again(lasted < x.spec.Hold)
	case now == stateOpenSent:
		x.expectWord()
	case now == stateIdle && (was == stateOpenSent || was == stateOpenConfirm):
		x.status.guess(x.spec.undone())
		x.again(true)
	}
}

// expectWord gives the router as long as the hold time to answer our OPEN, and
// then begins anew. GoBGP would give it four minutes.
func (x *session) expectWord() {
	since := x.status.turned()
	time.AfterFunc(x.spec.Hold, func() {
		if !x.status.leave(stateOpenSent, since) {
			return
		}
		x.status.fail(x.spec.mute())
		x.mu.Lock()
		x.ended = time.Now()
		x.mu.Unlock()
		x.redial()
	})
}

// takes says which families the router takes of those that are ours, and logs
// the others: it would be a mystery why their routes are missing.
func (x *session) takes() (takes [2]bool) {
	list := &api.ListPeerRequest{Address: x.spec.Peer.Addr().String()}
	err := x.speaker.bgp.ListPeer(context.Background(), list, func(p *api.Peer) {
		takes = familiesIn(p.State.GetRemoteCap())
	})
	if err != nil {
		x.log.Error("cannot ask GoBGP for the router's families", "err", err)
	}
	var ours [2]bool
	for _, f := range x.spec.families() {
		ours[indexOf(f)] = true
		if !takes[indexOf(f)] {
			x.log.Warn("the router takes no routes of this family: activate it for this node there, or leave it out of spec.families", "family", f)
		}
	}
	return [2]bool{takes[0] && ours[0], takes[1] && ours[1]}
}

// again has the neighbor added anew, so that it is dialled as spec.connectRetryTime
// says: at once after a session that lasted, else (flapping) after a pause.
func (x *session) again(flapping bool) {
	pause := time.Duration(0)
	if flapping {
		pause = min(max(x.spec.ConnectRetry-firstDial, 0), hurry-time.Second)
	}
	x.mu.Lock()
	x.ended = time.Now()
	x.mu.Unlock()
	time.AfterFunc(pause, x.redial)
}

func (x *session) redial() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over || time.Since(x.ended) > hurry && !x.gone {
		return
	}
	ctx := context.Background()
	if !x.gone {
		if err := x.speaker.bgp.DeletePeer(ctx, x.delete()); err != nil {
			x.log.Error("cannot dial sooner than GoBGP does", "err", err)
			return
		}
	}
	err := x.speaker.bgp.AddPeer(ctx, &api.AddPeerRequest{Peer: x.spec.neighbor()})
	if x.gone = err != nil; x.gone {
		x.log.Error("cannot dial; it is tried again", "err", err)
		x.status.fail("cannot dial: " + err.Error())
		time.AfterFunc(idleHold, x.redial)
	}
}

func (x *session) delete() *api.DeletePeerRequest {
	return &api.DeletePeerRequest{Address: x.spec.Peer.Addr().String()}
}

func (x *session) isOver() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.over
}

// finish has the session never dial again, nor its state be told. What is there
// of it stays.
func (x *session) finish() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.over = true
}

// close ends the session with a notification, if it is established, and gives
// the server back.
func (x *session) close() error {
	x.finish()
	x.unwatch()
	if err := x.speaker.bgp.DeletePeer(context.Background(), x.delete()); err != nil && !x.gone {
		return err
	}
	// GoBGP waits for the end of the connection, which may take as long as the
	// hold time where the router reads nothing.
	go x.speaker.rest()
	return nil
}

// familiesIn are those that the router has said in its OPEN that it takes: IPv4
// where it has said nothing.
func familiesIn(capabilities []*anypb.Any) (takes [2]bool) {
	said := false
	for _, packed := range capabilities {
		c := &api.MultiProtocolCapability{}
		if !packed.MessageIs(c) || packed.UnmarshalTo(c) != nil {
			continue
		}
		said = true
		for _, f := range []model.Family{model.IPv4, model.IPv6} {
			if c.Family.GetAfi() == apiFamily(f).Afi && c.Family.GetSafi() == apiFamily(f).Safi {
				takes[indexOf(f)] = true
			}
		}
	}
	if !said {
		takes[indexOf(model.IPv4)] = true
	}
	return takes
}
