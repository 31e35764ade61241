package bgp

import "context"

// Server is what speaks BGP, as the Target sees it. Its methods are called from
// one goroutine, but for Peers.
type Server interface {
	// Rows are the sessions and routes there are, established or not. A peer
	// whose session was refused (Open) has one with a zero Session.
	Rows() map[Key]Spec
	// Open makes a session that dials at once and tells the routes that the
	// peer has been given so far (Tell), and those that follow. A session that
	// is there and differs is closed first. An error names the peer, and then
	// there is no session: it never falls back to a weaker one.
	Open(peer string, s Session) error
	// Close ends a session with a notification; the peer drops its routes.
	// What it was told is kept for the next one.
	Close(peer string) error
	// Tell gives a peer a route, in the place of one for the same prefix;
	// without a session it is kept for one.
	Tell(k Key, r Route) error
	// Withdraw takes a route back.
	Withdraw(k Key) error
	// Peers are the sessions' states, by name. From any goroutine; it is cheap.
	Peers() []PeerState
	// WithdrawAll takes all routes back, and returns when that has been sent or
	// ctx ends; the error names the peers that were not told all. Sessions
	// stay, so that routers can converge before Stop. With keep, routes of
	// sessions with graceful restart stay. Whoever calls Tell (the loop) must
	// have ended.
	WithdrawAll(ctx context.Context, keep bool) error
	// Stop withdraws likewise and closes the sessions. With keep, those with
	// graceful restart are left as they are: the end of the process ends their
	// connections without a notification, and peers keep the routes.
	Stop(ctx context.Context, keep bool) error
}
