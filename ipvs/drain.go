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

// drainCheck is how often a draining destination's connections are counted.
const drainCheck = time.Second

// step is what to do next with a destination that is to be deleted.
type step uint8

const (
	quiesce step = iota // weight 0: no new connections
	wait                // connections are still running
	remove
)

// drain says what to do next with a destination that is to be deleted. It is a
// pure function of what the kernel reports, so that a restart goes on where
// the former run ended.
//
//	UDP                              remove: it has no connections to wait for, and a
//	                                 sender that never pauses would keep it for ever
//	weight above 0                   quiesce, then look again
//	weight 0, no connections         remove
//	weight 0, past the deadline      remove
//	weight 0, connections            wait
//
// The kernel counts connections in TIME_WAIT as inactive; they are waited for
// too, because a packet of one would be refused once the destination is gone.
func drain(d DestinationEntry, protocol model.Protocol, left time.Duration) step {
	switch {
	case protocol == model.UDP:
		return remove
	case d.Spec.Weight > 0:
		return quiesce
	case d.Active+d.Inactive == 0 || left <= 0:
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
		if d, there := entries[k]; there && drain(d, k.Protocol, 0) == quiesce {
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
		until, draining := w.target.draining[k]
		if !draining {
			until = now.Add(w.target.opts.Drain)
			w.target.draining[k] = until
		}
		d, there := entries[k]
		if there && drain(d, k.Protocol, until.Sub(now)) != remove {
			w.failed[k] = &reconcile.Deferred[Spec]{Spec: Spec{Destination: d.Spec}, After: drainCheck}
			continue
		}
		idle = append(idle, Command{Op: Delete, Key: k})
	}
	return idle
}

// read is what the kernel reports of leaving destinations. Those of UDP are
// not looked at: they go whatever their connections.
func (w *writer) read(leaving []Key) map[Key]DestinationEntry {
	entries := make(map[Key]DestinationEntry)
	looked := make(map[VirtualServer]error)
	for _, k := range leaving {
		if k.Protocol == model.UDP {
			continue
		}
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
