package ipvs

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// Counts are how many objects of ours the table holds.
type Counts struct {
	VirtualServers int
	Serving        int // destinations that take new connections
	Draining       int // destinations of weight 0
}

// census keeps count of what is in the table, and since when destinations
// leave. It knows what was read and what was written since; what others change
// shows with the next listing.
type census struct {
	destinations map[VirtualServer]int // how many each has
	// quiet are the destinations of weight 0, and since when they are to be
	// deleted; the zero time: nobody has asked for that.
	quiet map[VirtualServer]map[netip.AddrPort]time.Time

	total, draining int // over all of the above
	published       atomic.Pointer[Counts]
}

func newCensus() *census {
	c := &census{
		destinations: make(map[VirtualServer]int),
		quiet:        make(map[VirtualServer]map[netip.AddrPort]time.Time),
	}
	c.publish()
	return c
}

// publish shows the counts to other goroutines.
func (c *census) publish() {
	c.published.Store(&Counts{
		VirtualServers: len(c.destinations),
		Serving:        c.total - c.draining,
		Draining:       c.draining,
	})
}

// onlyServers takes in which virtual servers there are.
func (c *census) onlyServers(there map[VirtualServer]bool) {
	for vs := range c.destinations {
		if !there[vs] {
			c.gone(Key{VirtualServer: vs})
		}
	}
	for vs := range there {
		c.put(Key{VirtualServer: vs}, 0, true)
	}
}

// observe takes in all destinations of a virtual server. That there are none
// says nothing of the virtual server itself.
func (c *census) observe(vs VirtualServer, list []DestinationEntry) {
	if _, there := c.destinations[vs]; !there && len(list) == 0 {
		return
	}
	var quiet map[netip.AddrPort]time.Time
	for _, e := range list {
		if e.Spec.Weight > 0 {
			continue
		}
		if quiet == nil {
			quiet = make(map[netip.AddrPort]time.Time)
		}
		quiet[e.RealServer] = c.quiet[vs][e.RealServer]
	}
	c.total += len(list) - c.destinations[vs]
	c.destinations[vs] = len(list)
	c.hush(vs, quiet)
}

// hush replaces a virtual server's quiet destinations.
func (c *census) hush(vs VirtualServer, quiet map[netip.AddrPort]time.Time) {
	c.draining += len(quiet) - len(c.quiet[vs])
	if len(quiet) == 0 {
		delete(c.quiet, vs)
		return
	}
	c.quiet[vs] = quiet
}

// put takes in that an entry was written because it is wanted. known says that
// it was there before.
func (c *census) put(k Key, weight uint32, known bool) {
	n := c.destinations[k.VirtualServer]
	if k.IsDestination() && !known {
		n++
		c.total++
	}
	c.destinations[k.VirtualServer] = n
	if !k.IsDestination() {
		return
	}
	c.unhush(k)
	if weight > 0 {
		return
	}
	if c.quiet[k.VirtualServer] == nil {
		c.quiet[k.VirtualServer] = make(map[netip.AddrPort]time.Time)
	}
	c.quiet[k.VirtualServer][k.RealServer] = time.Time{}
	c.draining++
}

// unhush takes a destination off the quiet ones.
func (c *census) unhush(k Key) {
	quiet := c.quiet[k.VirtualServer]
	if _, there := quiet[k.RealServer]; !there {
		return
	}
	delete(quiet, k.RealServer)
	c.draining--
	if len(quiet) == 0 {
		delete(c.quiet, k.VirtualServer)
	}
}

// gone takes in that an entry is no more: with a virtual server go its
// destinations.
func (c *census) gone(k Key) {
	n, there := c.destinations[k.VirtualServer]
	switch {
	case !there:
	case !k.IsDestination():
		c.total -= n
		c.hush(k.VirtualServer, nil)
		delete(c.destinations, k.VirtualServer)
	case n > 0:
		c.total--
		c.destinations[k.VirtualServer] = n - 1
		c.unhush(k)
	}
}

// leaving is since when a destination is to be deleted: now, unless it was to
// be before. It only counts from when the destination takes no new connections.
func (c *census) leaving(k Key, now time.Time) time.Time {
	quiet := c.quiet[k.VirtualServer]
	since, there := quiet[k.RealServer]
	switch {
	case !there:
		return now
	case since.IsZero():
		quiet[k.RealServer] = now
		return now
	}
	return since
}
