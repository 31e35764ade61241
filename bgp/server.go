package bgp

import "context"

// Server is what speaks BGP, as the Target sees it. Its methods may be called
// from one goroutine, but for Peers.
type Server interface {
	// Rows are the sessions and routes there are.
	Rows() map[Key]Spec
	// Open makes a session that dials at once and tells the routes that the
	// peer has been given so far (Tell), and those that follow. A session that
	// is there and differs is closed first.
	Open(peer string, s Session) error
	// Close ends a session with a notification; the peer drops its routes.
	Close(peer string) error
	// Tell gives a peer a route, in the place of one for the same prefix;
	// without a session it is kept for one.
	Tell(k Key, r Route) error
	// Withdraw takes a route back.
	Withdraw(k Key) error
	// Peers are the sessions' states, by name. From any goroutine.
	Peers() []PeerState
	// Stop ends all. With keep the connections of sessions with graceful
	// restart just end, so that peers keep the routes; all others have their
	// routes withdrawn, and are closed when that has been sent.
	Stop(ctx context.Context, keep bool)
}
