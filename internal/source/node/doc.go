// Package node is the source that watches the addresses of this host's
// interfaces: what NodePorts listen on, what the host talks from, and what no
// Service may take for itself.
//
// It tells one fact, model.LocalAddrs: the global unicast addresses of all
// interfaces but those that bear VIPs (our own dummy device), sorted. Loopback
// and link-local addresses are none of it; a global address on the loopback
// interface is, as routing to the host likes to have it, and one that
// duplicate address detection has not passed is not yet.
//
// The kernel's notifications only say that it is time to list. They are asked
// for before the first listing, so that nothing falls between, and when some
// were lost (a full socket buffer) both begin anew. A listing that failed or was
// interrupted is repeated and never told: half of the addresses is not a fact.
package node
