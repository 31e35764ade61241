package ipvs

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
)

// departure is what is to be deleted of one virtual server.
type departure struct {
	VirtualServer
	limit        time.Duration
	whole        bool  // the virtual server too
	answers      bool  // whole, and its address still answers here
	goes         bool  // whole, and its turn has come
	err          error // why nothing can be done about it now
	destinations []Key // asked for; more of them may be on their way already
	entries      map[netip.AddrPort]DestinationEntry
}

// key is the virtual server's own.
func (d *departure) key() Key { return Key{VirtualServer: d.VirtualServer} }

// all are the keys that were asked for.
func (d *departure) all() []Key {
	if d.whole {
		return append(slices.Clone(d.destinations), d.key())
	}
	return d.destinations
}

// leave brings deletions a step further: it sets to weight 0 what is in
// service, defers what has connections and deletes the rest, destinations
// first. Connections are counted after weight 0 was set, so that none that came
// in between is missed.
func (w *writer) leave(dels []Key, now time.Time) {
	departures := w.departures(dels)
	for _, d := range departures {
		w.read(d)
	}
	for _, d := range w.quiesce(departures) {
		w.read(d)
	}
	var destinations, servers []Command
	for _, d := range departures {
		if d.goes = w.serverLeaves(d, now); d.goes {
			servers = append(servers, Command{Op: Delete, Key: d.key()})
			continue
		}
		for _, k := range d.destinations {
			if w.destinationLeaves(d, k, now) {
				destinations = append(destinations, Command{Op: Delete, Key: k})
			}
		}
	}
	w.delete(destinations)
	w.delete(servers)
	for _, d := range departures {
		w.together(d)
	}
}

// departures sorts deletions by virtual server, and asks which of those that
// are to go still answer.
func (w *writer) departures(dels []Key) (list []*departure) {
	of := make(map[VirtualServer]*departure)
	for _, k := range dels {
		d := of[k.VirtualServer]
		if d == nil {
			d = &departure{VirtualServer: k.VirtualServer, limit: w.target.limit(k.VirtualServer)}
			of[k.VirtualServer] = d
			list = append(list, d)
		}
		if k.IsDestination() {
			d.destinations = append(d.destinations, k)
		} else {
			d.whole = true
		}
	}
	for _, d := range list {
		if !d.whole || d.limit < 0 || !d.Addr.IsValid() {
			continue
		}
		var err error
		if d.answers, err = w.target.opts.Local(w.ctx, d.Addr.Addr()); err != nil {
			w.stay(d, fmt.Errorf("does %s still answer here? %w", d.Addr.Addr(), err))
		}
	}
	return list
}

// stay files why nothing of a departure can be done now.
func (w *writer) stay(d *departure, err error) {
	d.err = err
	for _, k := range d.all() {
		w.failed[k] = fmt.Errorf("drain %s: %w", k.subject(), err)
	}
}

// read asks the kernel for destinations that may have to wait.
func (w *writer) read(d *departure) {
	if d.err != nil || d.limit < 0 || d.whole && !d.answers {
		return
	}
	list, err := w.target.handle.Destinations(w.ctx, d.VirtualServer)
	if err != nil && !gone(err) {
		w.stay(d, fmt.Errorf("count connections: %w", err))
		return
	}
	w.target.census.observe(d.VirtualServer, list)
	d.entries = make(map[netip.AddrPort]DestinationEntry, len(list))
	for _, e := range list {
		d.entries[e.RealServer] = e
	}
}

// quiesce sets to weight 0 what leaves and is in service; of a virtual server
// that goes, that is all there is. It returns the departures it wrote to.
func (w *writer) quiesce(departures []*departure) (touched []*departure) {
	var commands []Command
	var of []*departure
	for _, d := range departures {
		leaving := d.destinations
		if d.whole {
			leaving = d.present()
		}
		for _, k := range leaving {
			if e, there := d.entries[k.RealServer]; there && e.Spec.Weight > 0 {
				e.Spec.Weight = 0
				commands = append(commands, Command{Op: Change, Key: k, Spec: Spec{Destination: e.Spec}})
				of = append(of, d)
			}
		}
	}
	for i, err := range w.write(commands) {
		c := commands[i]
		switch {
		case err == nil, absent(c, err), noVirtualServer(c, err):
		case of[i].whole && of[i].err != nil: // one reason is enough
		case of[i].whole:
			w.stay(of[i], fmt.Errorf("set weight 0 of %s: %w", c.Key.RealServer, err))
		default:
			w.fail(c, err)
		}
	}
	return slices.Compact(of)
}

// present are the destinations that the kernel has.
func (d *departure) present() []Key {
	addrs := slices.SortedFunc(maps.Keys(d.entries), netip.AddrPort.Compare)
	keys := make([]Key, len(addrs))
	for i, a := range addrs {
		keys[i] = Key{VirtualServer: d.VirtualServer, RealServer: a}
	}
	return keys
}

// serverLeaves reports whether a virtual server is to be deleted now. One that
// has to wait is deferred.
func (w *writer) serverLeaves(d *departure, now time.Time) bool {
	if !d.whole || d.err != nil {
		return false
	}
	steps := make([]step, 0, len(d.entries))
	for _, k := range d.present() {
		steps = append(steps, w.step(d, k, now))
	}
	if drainServer(d.answers, steps) == remove {
		return true
	}
	e, err := w.target.handle.VirtualServer(w.ctx, d.VirtualServer)
	switch {
	case gone(err):
		return true
	case err != nil:
		w.stay(d, fmt.Errorf("read it: %w", err))
		return false
	}
	w.failed[d.key()] = d.later(Spec{VirtualServer: e.Spec})
	return false
}

// destinationLeaves reports whether a destination is to be deleted by itself
// now. One that has to wait is deferred.
func (w *writer) destinationLeaves(d *departure, k Key, now time.Time) bool {
	if w.failed[k] != nil {
		return false
	}
	e, there := d.entries[k.RealServer]
	if !there || w.step(d, k, now) == remove {
		return true
	}
	w.failed[k] = d.later(Spec{Destination: e.Spec})
	return false
}

// step asks drain about a destination that the kernel has.
func (w *writer) step(d *departure, k Key, now time.Time) step {
	leaving := now.Sub(w.target.census.leaving(k, now))
	return drain(d.entries[k.RealServer], d.Protocol, leaving, d.limit)
}

// later defers a deletion.
func (d *departure) later(there Spec) *reconcile.Deferred[Spec] {
	after := drainCheck
	if d.Protocol == model.UDP {
		after = drainUDP
	}
	return &reconcile.Deferred[Spec]{Spec: there, After: after}
}

// together files what became of destinations that were to go with their virtual
// server.
func (w *writer) together(d *departure) {
	if !d.goes {
		return
	}
	if err := w.failed[d.key()]; err != nil {
		for _, k := range d.destinations {
			w.failed[k] = fmt.Errorf("%s was to go with its virtual server: %w", k.subject(), err)
		}
		return
	}
	for _, k := range d.destinations {
		w.gone(k)
	}
}
