package ipvs

import (
	"fmt"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
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

// step is what to do next with a destination that is to be deleted.
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
//	weight above 0                      quiesce, then look again
//	UDP, leaving for half a second      remove: it has no connections to wait for, and a
//	                                    sender that never pauses would keep it for ever
//	no connections, or past the limit   remove
//	connections                         wait
//
// The kernel counts connections in TIME_WAIT as inactive; they are waited for
// too, because a packet of one would be refused once the destination is gone.
func drain(d DestinationEntry, protocol model.Protocol, leaving, limit time.Duration) step {
	switch {
	case d.Spec.Weight > 0:
		return quiesce
	case protocol == model.UDP && leaving < drainUDP:
		return wait
	case protocol == model.UDP, d.Active+d.Inactive == 0, leaving >= limit:
		return remove
	}
	return wait
}

// drain brings leaving destinations a step further: it sets to weight 0 those
// that are in service, defers those with connections and returns the rest for
// deletion. Connections are counted after weight 0 was set, so that none that
// came in between is missed.
func (w *writer) drain(leaving []Key, now time.Time) (idle []Command) {
	var quiet []Command
	entries := w.read(leaving)
	for _, k := range leaving {
		if d, there := entries[k]; there && d.Spec.Weight > 0 {
			d.Spec.Weight = 0
			quiet = append(quiet, Command{Op: Change, Key: k, Spec: Spec{Destination: d.Spec}})
		}
	}
	for i, err := range w.write(quiet) {
		if err != nil && !absent(quiet[i], err) && !noVirtualServer(quiet[i], err) {
			w.fail(quiet[i], err)
		}
	}
	if len(quiet) > 0 {
		entries = w.read(leaving)
	}
	for _, k := range leaving {
		if w.failed[k] != nil {
			continue
		}
		since, draining := w.target.draining[k]
		if !draining {
			since = now
			w.target.draining[k] = since
		}
		d, there := entries[k]
		if there && drain(d, k.Protocol, now.Sub(since), w.target.opts.Drain) != remove {
			later := &reconcile.Deferred[Spec]{Spec: Spec{Destination: d.Spec}, After: drainCheck}
			if k.Protocol == model.UDP {
				later.After = drainUDP
			}
			w.failed[k] = later
			continue
		}
		idle = append(idle, Command{Op: Delete, Key: k})
	}
	return idle
}

// read is what the kernel reports of leaving destinations.
func (w *writer) read(leaving []Key) map[Key]DestinationEntry {
	entries := make(map[Key]DestinationEntry)
	looked := make(map[VirtualServer]error)
	for _, k := range leaving {
		err, done := looked[k.VirtualServer]
		if !done {
			err = w.readServer(k.VirtualServer, entries)
			looked[k.VirtualServer] = err
		}
		if err != nil {
			w.failed[k] = fmt.Errorf("count connections of %s: %w", k.subject(), err)
		}
	}
	return entries
}

func (w *writer) readServer(vs VirtualServer, into map[Key]DestinationEntry) error {
	list, err := w.target.handle.Destinations(w.ctx, vs)
	if gone(err) {
		return nil
	}
	for _, d := range list {
		into[Key{VirtualServer: vs, RealServer: d.RealServer}] = d
	}
	return err
}
