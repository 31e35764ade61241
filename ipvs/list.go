package ipvs

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"syscall"

	"sluice.dev/sluice/internal/reconcile"
)

// sectionSize is how many virtual servers' destinations make one section. The
// kernel has one dump per virtual server, about 0.15 ms each, so that a
// section is a stop of some tens of milliseconds and not of seconds.
const sectionSize = 256

type section = reconcile.Section[Key, Spec]

// List yields what of ours is in the table: first all virtual servers (which
// says of every other virtual server that its destinations are gone too), then
// the destinations, some virtual servers at a time. A virtual server that
// vanishes in between has no destinations. With keys given, it reads the
// virtual servers of these keys, each with all of its destinations.
func (t *Target) List(ctx context.Context, only []Key) iter.Seq2[section, error] {
	if only != nil {
		return t.listServers(ctx, only)
	}
	return func(yield func(section, error) bool) {
		// What is ours is asked first: a virtual server that we make
		// afterwards would be there and not be known as ours.
		owns, err := t.opts.Ours(ctx)
		if err != nil {
			yield(section{}, err)
			return
		}
		entries, err := t.handle.VirtualServers(ctx)
		if err != nil {
			yield(section{}, fmt.Errorf("list virtual servers: %w", err))
			return
		}
		present := make(map[Key]Spec, len(entries))
		ours := make([]VirtualServer, 0, len(entries))
		for _, e := range entries {
			if owns(e.VirtualServer) {
				present[Key{VirtualServer: e.VirtualServer}] = Spec{VirtualServer: e.Spec}
				ours = append(ours, e.VirtualServer)
			}
		}
		there := setOf(ours)
		t.census.onlyServers(there)
		t.census.publish()
		first := section{Present: present, Covers: func(k Key) bool {
			return owns(k.VirtualServer) && (!k.IsDestination() || !there[k.VirtualServer])
		}}
		if !yield(first, nil) {
			return
		}
		for servers := range slices.Chunk(ours, sectionSize) {
			s, err := t.destinations(ctx, servers)
			if !yield(s, err) || err != nil {
				return
			}
		}
	}
}

// destinations reads the destinations of some virtual servers.
func (t *Target) destinations(ctx context.Context, servers []VirtualServer) (section, error) {
	present := make(map[Key]Spec)
	for _, vs := range servers {
		if err := t.addDestinations(ctx, vs, present); err != nil {
			return section{}, err
		}
	}
	t.census.publish()
	covered := setOf(servers)
	return section{Present: present, Covers: func(k Key) bool {
		return k.IsDestination() && covered[k.VirtualServer]
	}}, nil
}

// listServers reads the virtual servers that the keys belong to.
func (t *Target) listServers(ctx context.Context, only []Key) iter.Seq2[section, error] {
	return func(yield func(section, error) bool) {
		var servers []VirtualServer
		seen := make(map[VirtualServer]bool)
		for _, k := range only {
			if !seen[k.VirtualServer] {
				seen[k.VirtualServer] = true
				servers = append(servers, k.VirtualServer)
			}
		}
		for part := range slices.Chunk(servers, sectionSize) {
			s, err := t.whole(ctx, part)
			if !yield(s, err) || err != nil {
				return
			}
		}
	}
}

// whole reads some virtual servers, each with its destinations.
func (t *Target) whole(ctx context.Context, servers []VirtualServer) (section, error) {
	present := make(map[Key]Spec)
	for _, vs := range servers {
		e, err := t.handle.VirtualServer(ctx, vs)
		if gone(err) {
			t.census.gone(Key{VirtualServer: vs})
			continue
		}
		if err != nil {
			return section{}, fmt.Errorf("read virtual server %s: %w", vs, err)
		}
		present[Key{VirtualServer: vs}] = Spec{VirtualServer: e.Spec}
		if err := t.addDestinations(ctx, vs, present); err != nil {
			return section{}, err
		}
	}
	t.census.publish()
	covered := setOf(servers)
	return section{Present: present, Covers: func(k Key) bool { return covered[k.VirtualServer] }}, nil
}

func (t *Target) addDestinations(ctx context.Context, vs VirtualServer, present map[Key]Spec) error {
	entries, err := t.handle.Destinations(ctx, vs)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list destinations of %s: %w", vs, err)
	}
	t.census.observe(vs, entries)
	for _, e := range entries {
		present[Key{VirtualServer: vs, RealServer: e.RealServer}] = Spec{Destination: e.Spec}
	}
	return nil
}

// gone tells that a virtual server vanished while we were reading.
func gone(err error) bool {
	return errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.ENOENT)
}

func setOf(servers []VirtualServer) map[VirtualServer]bool {
	set := make(map[VirtualServer]bool, len(servers))
	for _, vs := range servers {
		set[vs] = true
	}
	return set
}
