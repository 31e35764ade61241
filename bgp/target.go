package bgp

import (
	"context"
	"iter"

	"sluice.dev/sluice/internal/reconcile"
)

// Target is the sessions and routes as a reconcile loop sees them.
type Target struct{ server Server }

var _ reconcile.Target[Key, Spec] = (*Target)(nil)

// NewTarget makes a Target. It opens nothing.
func NewTarget(s Server) *Target { return &Target{server: s} }

type (
	section = reconcile.Section[Key, Spec]
	change  = reconcile.Change[Key, Spec]
)

// List yields everything as one section.
func (t *Target) List(context.Context, []Key) iter.Seq2[section, error] {
	return func(yield func(section, error) bool) {
		yield(section{Covers: func(Key) bool { return true }, Present: t.server.Rows()}, nil)
	}
}

// Apply withdraws first: a dead route must not wait for new ones, and a peer's
// old session not be in the way of one by another name. Routes are told before
// their sessions are opened, and withdrawn before they are closed: so a session
// begins with all it has to say, which graceful restart needs.
func (t *Target) Apply(_ context.Context, c change) map[Key]error {
	errs := map[Key]error{}
	note := func(k Key, err error) {
		if err != nil {
			errs[k] = err
		}
	}
	for _, k := range c.Dels {
		if !k.IsSession() {
			note(k, t.server.Withdraw(k))
		}
	}
	for _, k := range c.Dels {
		if k.IsSession() {
			note(k, t.server.Close(k.Peer))
		}
	}
	for _, p := range c.Puts {
		if !p.Key.IsSession() {
			note(p.Key, t.server.Tell(p.Key, p.Spec.Route))
		}
	}
	for _, p := range c.Puts {
		if p.Key.IsSession() {
			note(p.Key, t.server.Open(p.Key.Peer, p.Spec.Session))
		}
	}
	return errs
}
