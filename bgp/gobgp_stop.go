package bgp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"

	api "github.com/osrg/gobgp/v3/api"
)

// beat is how often GoBGP is asked, when stopping, how far it is. It has no
// other way to say so.
const beat = 10 * time.Millisecond

// WithdrawAll takes all routes back; see Server.
func (g *GoBGP) WithdrawAll(ctx context.Context, keep bool) error {
	return g.each(func(name string, p *neighbor) error {
		if p.session == nil || p.session.kept(keep) {
			return nil
		}
		if err := p.session.withdrawAll(ctx, maps.Clone(p.routes)); err != nil {
			return fmt.Errorf("BGP peer %s: withdraw all routes: %w", name, err)
		}
		for prefix := range p.routes {
			p.status.hold(prefix, -1)
		}
		clear(p.routes)
		return nil
	})
}

// Stop ends all; see Server.
func (g *GoBGP) Stop(ctx context.Context, keep bool) error {
	err := g.WithdrawAll(ctx, keep)
	return errors.Join(err, g.each(func(name string, p *neighbor) error {
		if p.session == nil {
			return nil
		}
		p.session.finish()
		if p.session.kept(keep) {
			return nil
		}
		if err := p.session.shutdown(ctx); err != nil {
			return fmt.Errorf("BGP peer %s: close: %w", name, err)
		}
		return nil
	}))
}

// each does something with all peers at a time: one that is stuck must not keep
// the others from it.
func (g *GoBGP) each(do func(name string, p *neighbor) error) error {
	g.mu.Lock()
	peers := maps.Clone(g.peers)
	g.mu.Unlock()
	var all sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for name, p := range peers {
		all.Go(func() {
			err := do(name, p)
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// kept reports whether the session's routes outlive the process.
func (x *session) kept(keep bool) bool { return keep && x.spec.Restart > 0 }

// withdrawAll withdraws the routes, and waits until GoBGP has written that to
// the connection: an update for each, and none of those before still on its way.
func (x *session) withdrawAll(ctx context.Context, routes map[netip.Prefix]Route) error {
	return bounded(ctx, func() error {
		before, up := x.sent()
		due := before
		for prefix, r := range routes {
			if err := x.withdraw(Key{Prefix: prefix}, r); err != nil {
				return err
			}
			if x.status.takesFamily(prefix) {
				due++
			}
		}
		last := before
		for up {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(beat):
			}
			var now uint64 // of one look, as up is
			now, up = x.sent()
			if now >= due && now == last {
				return nil
			}
			last = now
		}
		return nil // it has no session any more, or never had one
	})
}

// sent is how many updates have been written to the session's connections, and
// whether it is established.
func (x *session) sent() (updates uint64, up bool) {
	list := &api.ListPeerRequest{Address: x.spec.Peer.Addr().String()}
	err := x.speaker.bgp.ListPeer(context.Background(), list, func(p *api.Peer) {
		updates = p.State.GetMessages().GetSent().GetUpdate()
		up = p.State.GetSessionState() == api.PeerState_ESTABLISHED
	})
	return updates, up && err == nil
}

// shutdown ends the session with a notification, behind everything that is still
// to be sent.
func (x *session) shutdown(ctx context.Context) error {
	return bounded(ctx, func() error {
		_, up := x.sent()
		if up {
			ask := &api.ShutdownPeerRequest{Address: x.spec.Peer.Addr().String()}
			if err := x.speaker.bgp.ShutdownPeer(ctx, ask); err != nil {
				return err
			}
		}
		for up {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(beat):
			}
			_, up = x.sent()
		}
		return x.close()
	})
}

// bounded does something that may hang in GoBGP, and gives up when ctx ends.
func bounded(ctx context.Context, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
