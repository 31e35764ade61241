package ipvs_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/ipvs/ipvstest"
)

type (
	change = reconcile.Change[ipvs.Key, ipvs.Spec]
	put    = reconcile.Put[ipvs.Key, ipvs.Spec]
)

// ours is the ownership of the tests: 10.96.0.0/16 and fd00::/16.
func ours(vs ipvs.VirtualServer) bool {
	a := vs.Addr.Addr()
	return netip.MustParsePrefix("10.96.0.0/16").Contains(a) || netip.MustParsePrefix("fd00::/16").Contains(a)
}

func newTarget(h ipvs.Handle) *ipvs.Target {
	return ipvs.NewTarget(h, ipvs.TargetOptions{Ours: predicate(ours)})
}

func predicate(ours func(ipvs.VirtualServer) bool) func(context.Context) (func(ipvs.VirtualServer) bool, error) {
	return func(context.Context) (func(ipvs.VirtualServer) bool, error) { return ours, nil }
}

func web() ipvs.Key { return serverKey("10.96.0.1:80", model.TCP) }
func dns() ipvs.Key { return serverKey("10.96.0.10:53", model.UDP) }

func dest(weight uint32) ipvs.Spec {
	return ipvs.Spec{Destination: ipvs.DestinationSpec{Weight: weight}}
}

// record keeps the verbs that reach the kernel.
func record(k *ipvstest.Kernel) *[]string {
	var calls []string
	k.FailBefore(func(c ipvstest.Call) error {
		calls = append(calls, strings.TrimSpace(c.Verb+" "+c.Key.String()))
		return nil
	})
	return &calls
}

func apply(t *testing.T, h ipvs.Handle, c change) {
	t.Helper()
	for k, err := range newTarget(h).Apply(t.Context(), c) {
		t.Errorf("%s: %v", k, err)
	}
}

// filled is a table with two virtual servers and three destinations.
func filled(t *testing.T) *ipvstest.Kernel {
	t.Helper()
	k := ipvstest.New()
	apply(t, k, change{Puts: []put{
		{Key: destKey(web(), "10.1.1.1:80"), Spec: dest(1)},
		{Key: web(), Spec: serverSpec("rr")},
		{Key: destKey(dns(), "10.1.1.3:53"), Spec: dest(1)},
		{Key: destKey(web(), "10.1.1.2:80"), Spec: dest(1)},
		{Key: dns(), Spec: serverSpec("rr")},
	}})
	return k
}

const filledText = `TCP  10.96.0.1:80 rr
  -> 10.1.1.1:80                  Masq    1      0          0         
  -> 10.1.1.2:80                  Masq    1      0          0         
UDP  10.96.0.10:53 rr
  -> 10.1.1.3:53                  Masq    1      0          0         
`

func TestApplyOrder(t *testing.T) {
	k := filled(t)
	if got := k.Dump(); got != filledText {
		t.Fatalf("filled:\n%s", got)
	}
	calls := record(k)
	sctp := serverKey("10.96.0.1:80", model.SCTP)
	apply(t, k, change{
		Dels: []ipvs.Key{destKey(dns(), "10.1.1.3:53"), dns(), destKey(web(), "10.1.1.1:80")},
		Puts: []put{
			{Key: destKey(sctp, "10.1.1.9:80"), Spec: dest(1)},
			{Key: destKey(web(), "10.1.1.2:80"), Spec: dest(0), Present: true},
			{Key: sctp, Spec: serverSpec("rr")},
			{Key: web(), Spec: serverSpec("wlc"), Present: true},
		},
	})
	want := []string{
		"create SCTP 10.96.0.1:80",
		"change TCP 10.96.0.1:80",
		"create SCTP 10.96.0.1:80 -> 10.1.1.9:80",
		"change TCP 10.96.0.1:80 -> 10.1.1.2:80",
		"Destinations TCP 10.96.0.1:80",
		"change TCP 10.96.0.1:80 -> 10.1.1.1:80", // weight 0, then its connections are counted
		"Destinations TCP 10.96.0.1:80",
		"delete TCP 10.96.0.1:80 -> 10.1.1.1:80",
		"delete UDP 10.96.0.10:53", // and its destination with it
	}
	if !slices.Equal(*calls, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(*calls, "\n"), strings.Join(want, "\n"))
	}
	if got := k.Dump(); got != `TCP  10.96.0.1:80 wlc
  -> 10.1.1.2:80                  Masq    0      0          0         
SCTP 10.96.0.1:80 rr
  -> 10.1.1.9:80                  Masq    1      0          0         
` {
		t.Errorf("table:\n%s", got)
	}
}

// Whatever the table really holds, a put ends in what was put and a delete in
// nothing.
func TestApplyIsIdempotent(t *testing.T) {
	for _, present := range []bool{false, true} {
		for _, key := range []ipvs.Key{web(), destKey(web(), "10.1.1.1:80")} {
			t.Run(fmt.Sprintf("%s believed present %v", key, present), func(t *testing.T) {
				k := filled(t)
				spec := dest(7)
				if !key.IsDestination() {
					spec = serverSpec("sh")
				}
				c := change{Puts: []put{{Key: key, Spec: spec, Present: present}}}
				apply(t, k, c) // is there
				apply(t, k, c) // is there, and equal
				if got := listed(t, newTarget(k), nil)[key]; got != spec {
					t.Errorf("got %+v", got)
				}
				apply(t, k, change{Dels: []ipvs.Key{key}})
				apply(t, k, change{Dels: []ipvs.Key{key}}) // is absent
				apply(t, k, c)                             // is absent
				if got := listed(t, newTarget(k), nil)[key]; got != spec {
					t.Errorf("after delete: got %+v", got)
				}
				apply(t, k, change{Dels: []ipvs.Key{web()}})
				apply(t, k, change{Dels: []ipvs.Key{key, destKey(web(), "10.1.1.1:80")}}) // nor is the virtual server
			})
		}
	}
}

func TestApplyErrors(t *testing.T) {
	gone := serverKey("10.96.9.9:80", model.TCP)
	for _, tt := range []struct {
		name   string
		change change
		want   map[ipvs.Key]string // of each failed key: part of the text
	}{
		{"unknown scheduler, created", change{Puts: []put{
			{Key: gone, Spec: serverSpec("nope")},
			{Key: destKey(gone, "10.1.1.1:80"), Spec: dest(1)},
			{Key: destKey(web(), "10.1.1.9:80"), Spec: dest(1)},
		}}, map[ipvs.Key]string{
			gone:                         `create virtual server TCP 10.96.9.9:80: the kernel has no scheduler "nope" (module ip_vs_nope)`,
			destKey(gone, "10.1.1.1:80"): `create destination 10.1.1.1:80 of TCP 10.96.9.9:80: create virtual server TCP 10.96.9.9:80: the kernel has no scheduler "nope"`,
		}},
		{"unknown scheduler, changed: destinations go on", change{Puts: []put{
			{Key: web(), Spec: serverSpec("nope"), Present: true},
			{Key: destKey(web(), "10.1.1.9:80"), Spec: dest(1)},
		}}, map[ipvs.Key]string{web(): `change virtual server TCP 10.96.0.1:80: the kernel has no scheduler "nope"`}},
		{"unknown persistence engine", change{Puts: []put{{Key: gone, Spec: serverSpec("rr", func(s *ipvs.VirtualServerSpec) { s.PEName = "x" })}}},
			map[ipvs.Key]string{gone: `or no persistence engine "x" (module ip_vs_pe_x)`}},
		{"virtual server vanished", change{Puts: []put{{Key: destKey(gone, "10.1.1.1:80"), Spec: dest(1), Present: true}}},
			map[ipvs.Key]string{destKey(gone, "10.1.1.1:80"): "the virtual server is not there: "}},
		{"refused", change{Puts: []put{{Key: destKey(web(), "224.0.0.1:80"), Spec: dest(1)}, {Key: destKey(web(), "10.1.1.9:80"), Spec: dest(1)}}},
			map[ipvs.Key]string{destKey(web(), "224.0.0.1:80"): "create destination 224.0.0.1:80 of TCP 10.96.0.1:80: invalid argument"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := filled(t)
			failed := newTarget(k).Apply(t.Context(), tt.change)
			for key, text := range tt.want {
				if err := failed[key]; err == nil || !strings.Contains(err.Error(), text) {
					t.Errorf("%s: got %v, want %q", key, err, text)
				}
			}
			if len(failed) != len(tt.want) {
				t.Errorf("failed: %v", failed)
			}
			present := listed(t, newTarget(k), nil)
			for _, p := range tt.change.Puts {
				if _, bad := tt.want[p.Key]; !bad && present[p.Key] != p.Spec {
					t.Errorf("%s was not written: %+v", p.Key, present[p.Key])
				}
			}
		})
	}
}

// A virtual server that cannot be deleted keeps its destinations, and both
// stay to be deleted.
func TestApplyDeleteFails(t *testing.T) {
	k := filled(t)
	k.FailBefore(func(c ipvstest.Call) error {
		if c.Verb == "delete" {
			return syscall.ENOMEM
		}
		return nil
	})
	d := destKey(web(), "10.1.1.1:80")
	failed := newTarget(k).Apply(t.Context(), change{Dels: []ipvs.Key{d, web()}})
	if !errors.Is(failed[web()], syscall.ENOMEM) || !errors.Is(failed[d], syscall.ENOMEM) || len(failed) != 2 {
		t.Errorf("failed: %v", failed)
	}
	if got := k.Dump(); got != filledText {
		t.Errorf("table:\n%s", got)
	}
}

// Somebody deletes what we create as fast as we create it: an error, no loop.
func TestApplyContradictedTwice(t *testing.T) {
	k := filled(t)
	k.FailBefore(func(c ipvstest.Call) error {
		return map[string]error{"create": syscall.EEXIST, "change": syscall.ESRCH}[c.Verb]
	})
	before := k.Commands()
	failed := newTarget(k).Apply(t.Context(), change{Puts: []put{{Key: web(), Spec: serverSpec("wlc")}}})
	if !errors.Is(failed[web()], syscall.ESRCH) || k.Commands()-before != 2 {
		t.Errorf("%v after %d commands", failed, k.Commands()-before)
	}
}

// listed reads a listing and checks the contract of its sections: what is
// present is covered, and nothing is present twice.
func listed(t *testing.T, target *ipvs.Target, only []ipvs.Key) map[ipvs.Key]ipvs.Spec {
	t.Helper()
	all := make(map[ipvs.Key]ipvs.Spec)
	var sections []reconcile.Section[ipvs.Key, ipvs.Spec]
	for s, err := range target.List(t.Context(), only) {
		if err != nil {
			t.Fatal(err)
		}
		sections = append(sections, s)
		for k, v := range s.Present {
			if _, twice := all[k]; twice || !s.Covers(k) {
				t.Errorf("%s: twice %v, covered %v", k, twice, s.Covers(k))
			}
			all[k] = v
		}
	}
	for _, k := range only {
		if !slices.ContainsFunc(sections, func(s reconcile.Section[ipvs.Key, ipvs.Spec]) bool { return s.Covers(k) }) && ours(k.VirtualServer) {
			t.Errorf("%s is not covered", k)
		}
	}
	return all
}

func covered(t *testing.T, target *ipvs.Target, only []ipvs.Key, k ipvs.Key) bool {
	t.Helper()
	for s, err := range target.List(t.Context(), only) {
		if err != nil {
			t.Fatal(err)
		}
		if s.Covers(k) {
			return true
		}
	}
	return false
}

func TestListWhole(t *testing.T) {
	k := filled(t)
	other := ipvs.NewTarget(k, ipvs.TargetOptions{Ours: predicate(func(ipvs.VirtualServer) bool { return true })})
	foreign := serverKey("192.0.2.1:80", model.TCP)
	mark := ipvs.Key{VirtualServer: ipvs.VirtualServer{Mark: 9, Family: model.IPv4}}
	if failed := other.Apply(t.Context(), change{Puts: []put{
		{Key: foreign, Spec: serverSpec("rr")}, {Key: destKey(foreign, "10.1.1.1:80"), Spec: dest(1)}, {Key: mark, Spec: serverSpec("rr")},
	}}); len(failed) > 0 {
		t.Fatal(failed)
	}
	target := newTarget(k)
	got := listed(t, target, nil)
	want := map[ipvs.Key]ipvs.Spec{
		web(): serverSpec("rr"), destKey(web(), "10.1.1.1:80"): dest(1), destKey(web(), "10.1.1.2:80"): dest(1),
		dns(): serverSpec("rr"), destKey(dns(), "10.1.1.3:53"): dest(1),
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	absent := serverKey("10.96.0.99:80", model.TCP)
	for key, want := range map[ipvs.Key]bool{
		absent:                          true,
		destKey(absent, "10.1.1.1:80"):  true, // gone with its virtual server
		destKey(web(), "10.9.9.9:80"):   true,
		foreign:                         false,
		destKey(foreign, "10.1.1.1:80"): false,
		mark:                            false,
	} {
		if covered(t, target, nil, key) != want {
			t.Errorf("%s: covered %v", key, !want)
		}
	}
	nobody := ipvs.NewTarget(k, ipvs.TargetOptions{})
	if got := listed(t, nobody, nil); len(got) != 0 {
		t.Errorf("without a predicate: %v", got)
	}
}

// TestDraining: a leaving destination stops getting connections at once, stays
// while it has some, and goes when they end or its time is over; one that comes
// back is put into service again.
func TestDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := filled(t)
		one, two := destKey(web(), "10.1.1.1:80"), destKey(web(), "10.1.1.2:80")
		k.Connect(one, 3)
		k.Connect(two, 1)
		target := ipvs.NewTarget(k, ipvs.TargetOptions{Drain: time.Minute})
		leave := func(keys ...ipvs.Key) map[ipvs.Key]error { return target.Apply(t.Context(), change{Dels: keys}) }
		weights := func() string {
			entries, err := k.Destinations(t.Context(), web().VirtualServer)
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, e := range entries {
				out = append(out, fmt.Sprint(e.RealServer.Addr(), "=", e.Spec.Weight))
			}
			slices.Sort(out)
			return strings.Join(out, " ")
		}
		for _, err := range leave(one, two) {
			later, ok := errors.AsType[*reconcile.Deferred[ipvs.Spec]](err)
			if !ok || later.Spec.Destination.Weight != 0 || later.After != time.Second {
				t.Errorf("connected destinations: %v, want them deferred at weight 0", err)
			}
		}
		if got := weights(); got != "10.1.1.1=0 10.1.1.2=0" {
			t.Errorf("leaving: %s", got)
		}
		calls := record(k)
		k.Connect(one, 0)
		if failed := leave(one, two); len(failed) != 1 || failed[two] == nil {
			t.Errorf("one idle: %v", failed)
		}
		want := []string{"Destinations TCP 10.96.0.1:80", "delete TCP 10.96.0.1:80 -> 10.1.1.1:80"}
		if !slices.Equal(*calls, want) {
			t.Errorf("one idle: %q, want %q", *calls, want)
		}
		target.Apply(t.Context(), change{Puts: []put{{Key: two, Spec: dest(1), Present: true}}})
		if got := weights(); got != "10.1.1.2=1" {
			t.Errorf("back again: %s", got)
		}
		time.Sleep(2 * time.Minute)
		if failed := leave(two); len(failed) != 1 {
			t.Errorf("its time begins anew: %v", failed)
		}
		time.Sleep(2 * time.Minute)
		if failed := leave(two); len(failed) != 0 || weights() != "" {
			t.Errorf("past its time: %v, %s", failed, weights())
		}
	})
}

func TestListOnly(t *testing.T) {
	k := filled(t)
	calls := record(k)
	target := newTarget(k)
	absent := serverKey("10.96.0.99:80", model.TCP)
	got := listed(t, target, []ipvs.Key{destKey(web(), "10.1.1.1:80"), destKey(web(), "10.9.9.9:80"), destKey(absent, "10.1.1.1:80")})
	want := map[ipvs.Key]ipvs.Spec{
		web(): serverSpec("rr"), destKey(web(), "10.1.1.1:80"): dest(1), destKey(web(), "10.1.1.2:80"): dest(1),
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	wantCalls := []string{"VirtualServer TCP 10.96.0.1:80", "Destinations TCP 10.96.0.1:80", "VirtualServer TCP 10.96.0.99:80"}
	if !slices.Equal(*calls, wantCalls) {
		t.Errorf("read %q", *calls)
	}
	if got := listed(t, target, []ipvs.Key{}); len(got) != 0 {
		t.Errorf("no keys: %v", got)
	}
}

func TestListSections(t *testing.T) {
	k := ipvstest.New()
	var puts []put
	for i := range 600 {
		vs := serverKey(fmt.Sprintf("10.96.%d.%d:80", i/250, i%250), model.TCP)
		puts = append(puts, put{Key: vs, Spec: serverSpec("rr")}, put{Key: destKey(vs, "10.1.1.1:80"), Spec: dest(1)})
	}
	apply(t, k, change{Puts: puts})
	n := 0
	for range newTarget(k).List(t.Context(), nil) {
		n++
	}
	if n != 4 || len(listed(t, newTarget(k), nil)) != 1200 {
		t.Errorf("%d sections", n)
	}
	for range newTarget(k).List(t.Context(), nil) {
		break // the consumer may stop at any section
	}
}

func TestListFails(t *testing.T) {
	for _, tt := range []struct {
		verb     string
		only     []ipvs.Key
		err      error
		sections int
		fails    bool
	}{
		{"VirtualServers", nil, syscall.EPERM, 0, true},
		{"VirtualServers", nil, syscall.ENOENT, 0, true}, // of a dump it does not mean "absent"
		{"Destinations", nil, syscall.EPERM, 1, true},
		{"Destinations", nil, syscall.ESRCH, 2, false}, // vanished in between
		{"Destinations", nil, syscall.ENOENT, 2, false},
		{"VirtualServer", []ipvs.Key{web()}, syscall.EPERM, 0, true},
		{"Destinations", []ipvs.Key{web()}, syscall.EPERM, 0, true},
		{"Destinations", []ipvs.Key{web()}, syscall.ESRCH, 1, false},
	} {
		t.Run(fmt.Sprintf("%s %v %v", tt.verb, tt.only, tt.err), func(t *testing.T) {
			k := filled(t)
			k.FailBefore(func(c ipvstest.Call) error {
				if c.Verb == tt.verb {
					return tt.err
				}
				return nil
			})
			sections, ended := 0, false
			for s, err := range newTarget(k).List(context.Background(), tt.only) {
				if ended {
					t.Error("goes on after an error")
				}
				switch {
				case err != nil:
					ended = true
					if !errors.Is(err, tt.err) || s.Present != nil || s.Covers != nil {
						t.Errorf("%+v with %v", s, err)
					}
				default:
					sections++
				}
			}
			if ended != tt.fails || sections != tt.sections {
				t.Errorf("%d sections, failed %v", sections, ended)
			}
		})
	}
}
