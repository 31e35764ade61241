package conntrack_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sluice.dev/sluice/internal/conntrack"
	"sluice.dev/sluice/internal/model"
)

// table is a connection table in memory, with faults.
type table struct {
	mu      sync.Mutex
	entries []conntrack.Flow
	reads   int

	readErr   error                      // after half of the entries
	deleteErr func(conntrack.Flow) error // instead of deleting
	reading   func()                     // while an entry is being read, before it is given
	took      time.Duration              // a reading takes
}

var _ conntrack.Handle = (*table)(nil)

func (h *table) Close() error { return nil }

func (h *table) Flows(ctx context.Context, fn func(conntrack.Flow)) error {
	h.mu.Lock()
	h.reads++
	entries, err, reading, took := slices.Clone(h.entries), h.readErr, h.reading, h.took
	h.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(took):
	}
	if err != nil {
		entries = entries[:len(entries)/2]
	}
	for _, f := range entries {
		if reading != nil {
			reading()
		}
		fn(f)
	}
	return err
}

func (h *table) Delete(_ context.Context, flows []conntrack.Flow) []error {
	h.mu.Lock()
	defer h.mu.Unlock()
	errs := make([]error, len(flows))
	for i, f := range flows {
		if h.deleteErr != nil {
			errs[i] = h.deleteErr(f)
		}
		if errs[i] != nil {
			continue
		}
		at := slices.Index(h.entries, f)
		if at < 0 {
			errs[i] = syscall.ENOENT
			continue
		}
		h.entries = slices.Delete(h.entries, at, at+1)
	}
	return errs
}

func (h *table) do(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// backends are what the entries lead to.
func (h *table) backends() (all []string) {
	h.do(func() {
		for _, f := range h.entries {
			all = append(all, f.Backend.Addr().String())
		}
	})
	return all
}

func (h *table) equal(t *testing.T, when string, want ...string) {
	t.Helper()
	if got := h.backends(); !slices.Equal(got, want) {
		t.Errorf("%s: entries lead to %v, want %v", when, got, want)
	}
}

// to is a flow to the cluster's DNS.
func to(backend string) conntrack.Flow { return flow(model.UDP, "10.96.0.10:53", backend+":53") }

// serves is what an owner says of it.
func serves(backends ...string) map[model.FrontendKey][]netip.AddrPort {
	list := make([]netip.AddrPort, len(backends))
	for i, b := range backends {
		list[i] = at(b + ":53")
	}
	return map[model.FrontendKey][]netip.AddrPort{udp("10.96.0.10:53"): list}
}

// sweeping runs a Sweeper until the test ends.
func sweeping(t *testing.T, h *table, opts conntrack.Options) *conntrack.Sweeper[string] {
	t.Helper()
	opts.Handle = h
	s := conntrack.New[string](opts)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return s
}

// settle lets a sweep that was asked for go by.
func settle() {
	time.Sleep(200 * time.Millisecond)
	synctest.Wait()
}

func TestASweepFollowsARemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &table{entries: []conntrack.Flow{to("10.1.1.1"), to("10.1.2.1"), flow(model.UDP, "10.0.0.1:9", "10.0.0.1:9")}}
		s := sweeping(t, h, conntrack.Options{})
		s.Set("dns", serves("10.1.1.1", "10.1.2.1"))
		s.Synced()
		settle()
		h.equal(t, "all serve", "10.1.1.1", "10.1.2.1", "10.0.0.1")
		s.Set("dns", serves("10.1.2.1"))
		s.Kick() // whatever for
		settle()
		h.equal(t, "it has not left the kernel: it may answer", "10.1.1.1", "10.1.2.1", "10.0.0.1")
		s.Removed(conntrack.Gone{Frontend: udp("10.96.0.99:53"), Backend: at("10.1.1.1:53")}) // another's virtual server, by which some reach it
		synctest.Wait()
		h.equal(t, "it has left", "10.1.2.1", "10.0.0.1")
		if got := s.Stats(); got.Sweeps != 3 || got.Deleted != 1 || got.Failures != 0 || got.Err != "" || got.Last != time.Now() {
			t.Errorf("%+v", got)
		}
	})
}

// TestALeavingEndpoint may answer until it has left the kernel, but not for ever:
// nobody need ever say that it has.
func TestALeavingEndpoint(t *testing.T) {
	both, one, none := []string{"10.1.1.1", "10.1.2.1"}, []string{"10.1.2.1"}, []string(nil)
	virtualServer := conntrack.Gone{Frontend: udp("10.96.0.10:53")}
	for name, c := range map[string]struct {
		leaves []string // what is still named
		gone   []conntrack.Gone
		after  time.Duration
		want   []string
	}{
		"nothing has gone":                  {one, nil, time.Second, both},
		"nothing ever goes":                 {one, nil, 3 * time.Second, one},
		"it has gone":                       {one, []conntrack.Gone{{Frontend: udp("10.96.0.10:53"), Backend: at("10.1.1.1:53")}}, 0, one},
		"another one has":                   {one, []conntrack.Gone{{Frontend: udp("10.96.0.10:53"), Backend: at("10.1.2.1:53")}}, 0, both},
		"all leave and the virtual server":  {none, []conntrack.Gone{virtualServer}, 0, none},
		"all leave and one has gone":        {none, []conntrack.Gone{{Frontend: udp("10.96.0.10:53"), Backend: at("10.1.1.1:53")}}, 0, one},
		"named again before it went":        {both, nil, time.Hour, both},
		"another frontend's virtual server": {one, []conntrack.Gone{{Frontend: udp("10.96.0.99:53")}}, 0, both},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &table{entries: []conntrack.Flow{to("10.1.1.1"), to("10.1.2.1")}}
				s := sweeping(t, h, conntrack.Options{})
				s.Set("dns", serves("10.1.1.1", "10.1.2.1"))
				s.Synced()
				settle()
				s.Set("dns", serves("10.1.2.1"))
				s.Set("dns", serves(c.leaves...))
				s.Kick()
				s.Removed(c.gone...)
				time.Sleep(c.after)
				settle()
				h.equal(t, name, c.want...)
			})
		})
	}
}

// TestNothingIsDeletedBeforeSync: after a restart half of the endpoints are
// known before the other half, and no flow may suffer from it.
func TestNothingIsDeletedBeforeSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &table{entries: []conntrack.Flow{to("10.1.1.1"), to("10.1.2.1"), to("10.1.3.1")}}
		s := sweeping(t, h, conntrack.Options{Audit: time.Second})
		s.Set("dns", serves())
		s.Removed()
		time.Sleep(time.Hour)
		if h.reads != 0 {
			t.Errorf("read %d times before sync", h.reads)
		}
		s.Set("dns", serves("10.1.1.1", "10.1.2.1"))
		s.Synced()
		s.Synced()
		synctest.Wait()
		h.equal(t, "synced", "10.1.1.1", "10.1.2.1")
	})
}

// TestARemovedFrontendIsRemembered until a sweep that began after it left the
// kernel has succeeded, and no longer: then its address and port are anybody's.
func TestARemovedFrontendIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &table{entries: []conntrack.Flow{to("10.1.1.1")}}
		s := sweeping(t, h, conntrack.Options{})
		s.Set("dns", serves("10.1.1.1"))
		s.Synced()
		settle()
		h.do(func() { h.readErr = syscall.ENOBUFS })
		s.Set("dns", nil)
		s.Removed(conntrack.Gone{Frontend: udp("10.96.0.10:53")}, conntrack.Gone{Frontend: model.FrontendKey{Addr: at("10.96.0.10:53"), Protocol: model.TCP}})
		time.Sleep(time.Minute)
		synctest.Wait()
		h.equal(t, "reading fails", "10.1.1.1")
		if got := s.Stats().Removed; got != 1 {
			t.Errorf("%d frontends remembered, want 1", got)
		}
		h.do(func() { h.readErr = nil })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		h.equal(t, "reading works again")
		h.do(func() { h.entries = append(h.entries, to("10.1.1.1")) })
		s.Kick()
		settle()
		h.equal(t, "forgotten: whoever has it now is left alone", "10.1.1.1")
	})
}

// TestAFrontendRemovedDuringASweep is looked for by the next one too: its
// entries may have been read before.
func TestAFrontendRemovedDuringASweep(t *testing.T) {
	for name, tell := range map[string]func(*conntrack.Sweeper[string]){
		"its virtual server left the kernel": func(s *conntrack.Sweeper[string]) { s.Removed(conntrack.Gone{Frontend: udp("10.96.0.10:53")}) },
		"it had none":                        func(s *conntrack.Sweeper[string]) { s.Kick() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &table{entries: []conntrack.Flow{to("10.1.1.1")}, took: time.Second}
				s := sweeping(t, h, conntrack.Options{})
				s.Set("dns", serves("10.1.1.1"))
				s.Synced()
				time.Sleep(1500 * time.Millisecond) // the first is done
				s.Kick()
				time.Sleep(500 * time.Millisecond) // the second is reading
				h.do(func() { h.entries = append(h.entries, to("10.1.2.1")) })
				s.Set("dns", nil)
				tell(s)
				time.Sleep(700 * time.Millisecond)
				synctest.Wait()
				h.equal(t, "the sweep under way found what it had read", "10.1.2.1")
				time.Sleep(2 * time.Second)
				synctest.Wait()
				h.equal(t, "the next one finds the rest")
				if got := s.Stats(); got.Removed != 0 || got.Sweeps != 3 {
					t.Errorf("%+v", got)
				}
			})
		})
	}
}

// TestAnEndpointNamedDuringASweep: its first flow may be among what is read,
// and is judged with what is known then.
func TestAnEndpointNamedDuringASweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &table{entries: []conntrack.Flow{to("10.1.2.1")}}
		s := sweeping(t, h, conntrack.Options{})
		s.Set("dns", serves("10.1.1.1"))
		h.reading = func() { s.Set("dns", serves("10.1.1.1", "10.1.2.1")) }
		s.Synced()
		settle()
		h.equal(t, "new endpoint", "10.1.2.1")
	})
}

// TestOwnersOfOneFrontend: while a frontend goes from one Service to another
// both may name it; it is removed when neither does.
func TestOwnersOfOneFrontend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := []conntrack.Flow{to("10.1.1.1"), to("10.1.2.1"), to("10.1.3.1")}
		h := &table{}
		s := sweeping(t, h, conntrack.Options{})
		s.Synced()
		for _, step := range []struct {
			name     string
			owner    string
			backends []string
			gone     bool
			want     []string
		}{
			{"one", "a", []string{"10.1.1.1"}, false, []string{"10.1.1.1"}},
			{"both", "b", []string{"10.1.2.1"}, false, []string{"10.1.1.1", "10.1.2.1"}},
			{"both, one more", "b", []string{"10.1.2.1", "10.1.3.1"}, false, []string{"10.1.1.1", "10.1.2.1", "10.1.3.1"}},
			{"the other", "a", nil, true, []string{"10.1.2.1", "10.1.3.1"}},
			{"a stranger leaves", "c", nil, true, []string{"10.1.2.1", "10.1.3.1"}},
			{"without backends", "b", nil, false, nil},
			{"nobody", "b", nil, true, nil},
			{"back", "a", []string{"10.1.1.1"}, false, []string{"10.1.1.1"}},
		} {
			h.do(func() { h.entries = slices.Clone(all) })
			frontends := serves(step.backends...)
			if step.gone {
				frontends = nil
			}
			s.Set(step.owner, frontends)
			s.Kick()
			time.Sleep(3 * time.Second) // nobody leaves any more
			settle()
			h.equal(t, step.name, step.want...)
		}
	})
}

// TestOtherProtocolsAreNotKept: all frontends may be given.
func TestOtherProtocolsAreNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &table{entries: []conntrack.Flow{flow(model.TCP, "10.96.0.1:443", "10.1.1.1:6443"), flow(model.SCTP, "10.96.0.2:36412", "10.1.1.1:36412")}}
		s := sweeping(t, h, conntrack.Options{})
		s.Synced()
		frontends := map[model.FrontendKey][]netip.AddrPort{
			{Addr: at("10.96.0.1:443"), Protocol: model.TCP}:    nil,
			{Addr: at("10.96.0.2:36412"), Protocol: model.SCTP}: nil,
		}
		s.Set("api", frontends)
		s.Set("api", nil)
		s.Removed()
		settle()
		if got := s.Stats(); len(h.entries) != 2 || got.Removed != 0 || h.reads != 0 {
			t.Errorf("%d entries, %+v, read %d times; want none, without UDP", len(h.entries), got, h.reads)
		}
	})
}

// TestKicksCoalesce: a thousand removals in a second are a few sweeps, and one
// comes after the last.
func TestKicksCoalesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &table{took: 50 * time.Millisecond}
		s := sweeping(t, h, conntrack.Options{})
		s.Set("dns", serves("10.1.1.1"))
		s.Synced()
		settle()
		h.do(func() { h.reads = 0 })
		for range 1000 {
			s.Removed()
			time.Sleep(time.Millisecond)
		}
		h.do(func() { h.entries = []conntrack.Flow{to("10.1.2.1")} })
		s.Removed()
		time.Sleep(250 * time.Millisecond)
		synctest.Wait()
		h.equal(t, "after the last")
		if h.reads < 5 || h.reads > 10 {
			t.Errorf("%d sweeps, want one every 150 ms", h.reads)
		}
		reads := h.reads
		time.Sleep(time.Hour)
		synctest.Wait()
		if h.reads != reads {
			t.Errorf("%d more sweeps that nobody asked for", h.reads-reads)
		}
	})
}

func TestAudit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &table{}
		s := sweeping(t, h, conntrack.Options{Audit: 30 * time.Second})
		s.Set("dns", serves("10.1.1.1"))
		s.Synced()
		settle()
		h.do(func() { h.entries = []conntrack.Flow{to("10.1.2.1")} })
		time.Sleep(31 * time.Second)
		synctest.Wait()
		h.equal(t, "after an audit")
		h.do(func() { h.reads = 0 })
		time.Sleep(300 * time.Second)
		synctest.Wait()
		if h.reads < 10 || h.reads > 13 {
			t.Errorf("%d audits in ten periods, each shorter by up to a fifth", h.reads)
		}
	})
}

// TestAFailedSweepIsTriedAgain with growing pauses, is counted each time and
// logged when it begins and ends; what could be deleted is.
func TestAFailedSweepIsTriedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		breaks func(*table)
		want   string
		gone   int // entries deleted all the same
	}{
		"reading": {func(h *table) { h.readErr = syscall.ENOBUFS }, "read UDP connections: no buffer space available", 1},
		"deleting": {func(h *table) {
			h.deleteErr = func(f conntrack.Flow) error {
				if f.Backend.Addr() == at("10.1.2.1:53").Addr() {
					return syscall.EPERM
				}
				return nil
			}
		}, "1 of 1 stale UDP connections stay: delete connection of 10.1.9.9:4000 to 10.96.0.10:53: operation not permitted", 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				var told []conntrack.Sweep
				h := &table{entries: []conntrack.Flow{to("10.1.1.1"), to("10.1.2.1")}}
				c.breaks(h)
				s := sweeping(t, h, conntrack.Options{
					Swept: func(d conntrack.Sweep) { told = append(told, d) },
					Log:   slog.New(slog.NewTextHandler(&log, nil)),
				})
				s.Set("dns", serves())
				began := time.Now()
				s.Synced()
				time.Sleep(time.Minute)
				synctest.Wait()
				stats := s.Stats()
				if stats.Err != c.want || !stats.Since.Equal(began) || stats.Deleted != uint64(c.gone) {
					t.Errorf("%+v, want %q since the start", stats, c.want)
				}
				if stats.Failures != stats.Sweeps || stats.Failures < 8 || stats.Failures > 12 {
					t.Errorf("%d of %d failed in a minute, want about ten with pauses that grow", stats.Failures, stats.Sweeps)
				}
				if len(told) != int(stats.Sweeps) || told[0].Err == nil || told[0].Deleted != c.gone {
					t.Errorf("told of %+v", told)
				}
				h.do(func() { h.readErr, h.deleteErr = nil, nil })
				time.Sleep(20 * time.Second)
				synctest.Wait()
				h.equal(t, "it works again")
				if after := s.Stats(); after.Err != "" || !after.Since.IsZero() || after.Sweeps != stats.Sweeps+1 {
					t.Errorf("works again: %+v", after)
				}
				c.breaks(h)
				h.do(func() { h.entries = []conntrack.Flow{to("10.1.1.1"), to("10.1.2.1")} })
				s.Kick()
				time.Sleep(600 * time.Millisecond)
				if again := s.Stats(); again.Failures != stats.Failures+2 {
					t.Errorf("%d failures soon after it failed anew, want 2: the pauses begin small again", again.Failures-stats.Failures)
				}
				if strings.Count(log.String(), "level=ERROR") != 2 || strings.Count(log.String(), "level=INFO") != 1 {
					t.Errorf("logged\n%s", log.String())
				}
			})
		})
	}
}

// TestAnEntryThatEndedByItself is no failure.
func TestAnEntryThatEndedByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &table{entries: []conntrack.Flow{to("10.1.1.1")}}
		h.deleteErr = func(conntrack.Flow) error { return fmt.Errorf("delete: %w", syscall.ENOENT) }
		s := sweeping(t, h, conntrack.Options{})
		s.Set("dns", serves())
		s.Synced()
		settle()
		if got := s.Stats(); got.Failures != 0 || got.Deleted != 0 || got.Sweeps != 1 {
			t.Errorf("%+v", got)
		}
	})
}

// TestStoppingIsNoFailure, be it while a sweep is under way or before any.
func TestStoppingIsNoFailure(t *testing.T) {
	for name, synced := range map[string]bool{"in a sweep": true, "before sync": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &table{took: time.Hour}
				s := conntrack.New[string](conntrack.Options{Handle: h})
				s.Set("dns", serves("10.1.1.1"))
				if synced {
					s.Synced()
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				done := make(chan struct{})
				go func() {
					defer close(done)
					s.Run(ctx)
				}()
				time.Sleep(time.Minute)
				cancel(errors.New("stop"))
				<-done
				if got := s.Stats(); got != (conntrack.Stats{}) {
					t.Errorf("%+v", got)
				}
			})
		})
	}
}
