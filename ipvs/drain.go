package ipvs

import (
	"time"

	"sluice.dev/sluice/internal/model"
)

// DefaultDrain is how long a leaving destination keeps its established
// connections at most.
const DefaultDrain = 15 * time.Minute

const (
	// drainCheck is how often a draining destination's connections are counted.
	drainCheck = time.Second
	// drainUDP is how long a leaving destination of UDP stays, for answers
	// that are under way: with the destination go its connection entries, and
	// an answer without one reaches nobody.
	drainUDP = 500 * time.Millisecond
)

// step is what to do next with a destination or virtual server that is to be
// deleted.
type step uint8

const (
	quiesce step = iota // weight 0: no new connections
	wait                // connections are still running
	remove
)

// drain says what to do next with a destination that is to be deleted and has
// been leaving for some time, at most limit. It is a pure function of what the
// kernel reports, so that a restart goes on where the former run ended.
//
//	a limit below 0                     remove: nothing is drained
//	weight above 0                      quiesce, then look again
//	UDP, leaving for half a second      remove: it has no connections to wait for, and a
//	                                    sender that never pauses would keep it for ever
//	no connections, or past the limit   remove
//	connections                         wait
//
// The kernel counts connections in TIME_WAIT as inactive; they are waited for
// too, because a packet of one would be refused once the destination is gone.
// Clients that persistence binds to it are counted apart and not waited for:
// none of them has a connection, and their next one goes elsewhere
// (net.ipv4.vs.expire_quiescent_template).
func drain(d DestinationEntry, protocol model.Protocol, leaving, limit time.Duration) step {
	switch {
	case limit < 0:
		return remove
	case d.Spec.Weight > 0:
		return quiesce
	case protocol == model.UDP && leaving < drainUDP:
		return wait
	case protocol == model.UDP, d.Active+d.Inactive == 0, leaving >= limit:
		return remove
	}
	return wait
}

// drainServer says what to do next with a virtual server that is to be deleted,
// from what drain says of all its destinations.
//
//	its address does not answer here   remove: no packet gets to it
//	no destinations                    remove
//	all of them are to be removed      remove, and they go with it
//	one is not                         wait
func drainServer(answers bool, destinations []step) step {
	if !answers {
		return remove
	}
	for _, s := range destinations {
		if s != remove {
			return wait
		}
	}
	return remove
}
