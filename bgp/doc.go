// Package bgp tells routers over BGP which load-balancer addresses this node
// serves: which it may tell (Announcer, pure), and the sessions over which it
// does (Server, on GoBGP). Nothing of GoBGP shows outside.
//
// # The table
//
// It is a table like the kernel's, driven by the same loop: a Key is a session
// with a peer, or a route told over it. Each peer has a GoBGP server of its own,
// so that a change of one peer is no other peer's business, routes may differ
// from peer to peer in every attribute without a policy, and graceful restart
// waits for nobody else (docs/decisions/013-a-server-per-peer.md).
//
// # What it never does
//
// It listens on no port, and learns no route. A peer that has a password and a
// kernel that cannot sign segments (RFC 2385) have no session. A session that
// is not to change is never touched: routes come and go by themselves.
package bgp
