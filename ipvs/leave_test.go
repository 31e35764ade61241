package ipvs_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/ipvs/ipvstest"
)

// everywhere is a Local that says so of all addresses.
func everywhere(context.Context, netip.Addr) (bool, error) { return true, nil }

// deferred are the keys that Apply put off, and how long; everything else that
// it returned is an error of the test.
func deferred(t *testing.T, failed map[ipvs.Key]error) map[ipvs.Key]time.Duration {
	t.Helper()
	later := make(map[ipvs.Key]time.Duration)
	for k, err := range failed {
		d, ok := errors.AsType[*reconcile.Deferred[ipvs.Spec]](err)
		if !ok {
			t.Errorf("%s: %v", k, err)
			continue
		}
		if k.IsDestination() && d.Spec.Destination.Weight != 0 || !k.IsDestination() && d.Spec != serverSpec("rr") {
			t.Errorf("%s is said to stay as %+v", k, d.Spec)
		}
		later[k] = d.After
	}
	return later
}

// TestAServerWhoseAddressAnswersIsDrained: at once nobody new gets in, who is
// in stays, and with the last connection it goes as a whole.
func TestAServerWhoseAddressAnswersIsDrained(t *testing.T) {
	k := filled(t)
	one, two := destKey(web(), "10.1.1.1:80"), destKey(web(), "10.1.1.2:80")
	k.Connect(one, 3)
	k.Connect(two, 1)
	target := ipvs.NewTarget(k, ipvs.TargetOptions{Local: everywhere})
	dels := change{Dels: []ipvs.Key{one, web(), two}}
	if later := deferred(t, target.Apply(t.Context(), dels)); len(later) != 3 || later[web()] != time.Second || later[one] != time.Second {
		t.Errorf("put off %v, want all three for a second", later)
	}
	const quiet = `TCP  10.96.0.1:80 rr
  -> 10.1.1.1:80                  Masq    0      3          0         
  -> 10.1.1.2:80                  Masq    0      1          0         
`
	if got := k.Dump(); !strings.HasPrefix(got, quiet) {
		t.Errorf("leaving:\n%s", got)
	}
	if got := target.Counts(); got.Draining != 2 {
		t.Errorf("%+v while two drain", got)
	}
	k.Connect(one, 0)
	calls := record(k)
	later := deferred(t, target.Apply(t.Context(), dels))
	if _, waits := later[one]; waits || len(later) != 2 {
		t.Errorf("one idle: put off %v", later)
	}
	want := []string{
		"Destinations TCP 10.96.0.1:80", "VirtualServer TCP 10.96.0.1:80",
		"delete TCP 10.96.0.1:80 -> 10.1.1.1:80",
	}
	if !slices.Equal(*calls, want) {
		t.Errorf("one idle:\n%s", strings.Join(*calls, "\n"))
	}
	k.Connect(two, 0)
	*calls = nil
	if later := deferred(t, target.Apply(t.Context(), dels)); len(later) != 0 {
		t.Errorf("all idle: put off %v", later)
	}
	want = []string{"Destinations TCP 10.96.0.1:80", "delete TCP 10.96.0.1:80"} // its destination goes with it
	if !slices.Equal(*calls, want) {
		t.Errorf("all idle:\n%s", strings.Join(*calls, "\n"))
	}
	if got := target.Counts().Draining; got != 0 {
		t.Errorf("%d drain when all are gone", got)
	}
}

// TestAServerGoesAtOnce when there is nobody to drain it for.
func TestAServerGoesAtOnce(t *testing.T) {
	for name, opts := range map[string]ipvs.TargetOptions{
		"nobody says where addresses are": {},
		"its address is gone": {Local: func(_ context.Context, a netip.Addr) (bool, error) {
			return a != web().Addr.Addr(), nil
		}},
		"nothing is drained": {Local: everywhere, Drain: -1},
		"it is not drained":  {Local: everywhere, Limit: func(ipvs.VirtualServer) time.Duration { return -1 }},
	} {
		t.Run(name, func(t *testing.T) {
			k := filled(t)
			one := destKey(web(), "10.1.1.1:80")
			k.Connect(one, 3)
			calls := record(k)
			failed := ipvs.NewTarget(k, opts).Apply(t.Context(), change{Dels: []ipvs.Key{one, web()}})
			if len(failed) != 0 || !slices.Equal(*calls, []string{"delete TCP 10.96.0.1:80"}) {
				t.Errorf("%v after\n%s", failed, strings.Join(*calls, "\n"))
			}
		})
	}
}

func TestNothingIsDrained(t *testing.T) {
	k := filled(t)
	one := destKey(web(), "10.1.1.1:80")
	k.Connect(one, 3)
	calls := record(k)
	failed := ipvs.NewTarget(k, ipvs.TargetOptions{Drain: -1}).Apply(t.Context(), change{Dels: []ipvs.Key{one}})
	if len(failed) != 0 || !slices.Equal(*calls, []string{"delete " + one.String()}) {
		t.Errorf("%v after\n%s", failed, strings.Join(*calls, "\n"))
	}
}

// TestAnEmptyServerGoesAtOnce, its address answering or not.
func TestAnEmptyServerGoesAtOnce(t *testing.T) {
	k := ipvstest.New()
	apply(t, k, change{Puts: []put{{Key: web(), Spec: serverSpec("rr")}}})
	target := ipvs.NewTarget(k, ipvs.TargetOptions{Local: everywhere})
	if failed := target.Apply(t.Context(), change{Dels: []ipvs.Key{web()}}); len(failed) != 0 || k.Dump() != "" {
		t.Errorf("%v, %s", failed, k.Dump())
	}
}

// TestWhatOthersPutIntoALeavingServer gets no new connections either, and is
// waited for.
func TestWhatOthersPutIntoALeavingServer(t *testing.T) {
	k := filled(t)
	other := destKey(web(), "10.1.1.2:80") // not asked for: not known, or already on its way out
	k.Connect(other, 1)
	target := ipvs.NewTarget(k, ipvs.TargetOptions{Local: everywhere})
	dels := change{Dels: []ipvs.Key{web(), destKey(web(), "10.1.1.1:80")}}
	if later := deferred(t, target.Apply(t.Context(), dels)); len(later) != 1 || later[web()] == 0 {
		t.Errorf("put off %v, want the virtual server", later)
	}
	if got := k.Dump(); !strings.Contains(got, "10.1.1.2:80                  Masq    0      1") {
		t.Errorf("table:\n%s", got)
	}
	k.Connect(other, 0)
	if failed := target.Apply(t.Context(), change{Dels: []ipvs.Key{web()}}); len(failed) != 0 {
		t.Errorf("idle: %v", failed)
	}
}

// TestLimitsOfVirtualServers: each server's own limit ends its draining, and
// that of its destinations; UDP has its half second.
func TestLimitsOfVirtualServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := ipvstest.New()
		var limits ipvs.Limits
		servers := map[string]ipvs.Key{
			"its own":     serverKey("10.96.0.1:80", model.TCP),
			"the default": serverKey("10.96.0.2:80", model.TCP),
			"taken back":  serverKey("10.96.0.3:80", model.TCP),
			"UDP":         serverKey("10.96.0.4:53", model.UDP),
		}
		want := map[string]time.Duration{
			"its own": 3 * time.Second, "the default": 10 * time.Second, "taken back": 10 * time.Second, "UDP": 500 * time.Millisecond,
		}
		limits.Set(servers["its own"].VirtualServer, 3*time.Second)
		limits.Set(servers["taken back"].VirtualServer, time.Second)
		limits.Set(servers["taken back"].VirtualServer, 0)
		limits.Set(servers["UDP"].VirtualServer, time.Hour)
		target := ipvs.NewTarget(k, ipvs.TargetOptions{Local: everywhere, Drain: 10 * time.Second, Limit: limits.For})
		l := run(t, target)
		wish := make(map[ipvs.Key]ipvs.Spec)
		for _, vs := range servers {
			wish[vs] = serverSpec("rr")
			wish[destKey(vs, "10.1.1.1:80")] = dest(1)
		}
		l.Claim("o", reconcile.Claim[ipvs.Key, ipvs.Spec]{Put: wish})
		l.Synced()
		synctest.Wait()
		for _, vs := range servers {
			k.Connect(destKey(vs, "10.1.1.1:80"), 1)
		}
		l.Claim("o", reconcile.Claim[ipvs.Key, ipvs.Spec]{})
		began := time.Now()
		for len(servers) > 0 && time.Since(began) < time.Minute {
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			for name, vs := range servers {
				if !strings.Contains(k.Dump(), vs.Addr.String()) {
					if took := time.Since(began); took < want[name] || took > want[name]+100*time.Millisecond {
						t.Errorf("%s: gone after %v, want %v", name, took, want[name])
					}
					delete(servers, name)
				}
			}
		}
		if s := l.Status(); s.FailingCount != 0 || s.Dels != 0 || target.Counts() != (ipvs.Counts{}) {
			t.Errorf("in the end %+v, %+v; %d servers left", s, target.Counts(), len(servers))
		}
	})
}

func TestLimitsForget(t *testing.T) {
	var l ipvs.Limits
	vs := web().VirtualServer
	for _, step := range []struct {
		do   func()
		want time.Duration
	}{
		{func() {}, 0},
		{func() { l.Forget(vs) }, 0},
		{func() { l.Set(vs, -1) }, -1},
		{func() { l.Set(vs, time.Minute) }, time.Minute},
		{func() { l.Set(vs, 0) }, 0},
		{func() { l.Set(vs, time.Minute); l.Forget(vs) }, 0},
	} {
		if step.do(); l.For(vs) != step.want {
			t.Errorf("got %v, want %v", l.For(vs), step.want)
		}
	}
}

// TestDrainingFails: what cannot be looked at or made quiet stays as it is and
// is an error of those concerned, with their names.
func TestDrainingFails(t *testing.T) {
	one, other := destKey(web(), "10.1.1.1:80"), destKey(dns(), "10.1.1.3:53")
	noRoute := func(_ context.Context, a netip.Addr) (bool, error) {
		if a == web().Addr.Addr() {
			return false, syscall.ENOBUFS
		}
		return true, nil
	}
	for name, c := range map[string]struct {
		local func(context.Context, netip.Addr) (bool, error)
		verb  string
		want  string
	}{
		"no answer about the address": {noRoute, "", "drain virtual server TCP 10.96.0.1:80: does 10.96.0.1 still answer here? no buffer space available"},
		"connections not counted":     {everywhere, "Destinations", "drain virtual server TCP 10.96.0.1:80: count connections: cannot allocate memory"},
		"not made quiet":              {everywhere, "change", "drain virtual server TCP 10.96.0.1:80: set weight 0 of 10.1.1.1:80: cannot allocate memory"},
		"not read":                    {everywhere, "VirtualServer", "drain virtual server TCP 10.96.0.1:80: read it: cannot allocate memory"},
		"not deleted":                 {nil, "delete", "delete virtual server TCP 10.96.0.1:80: cannot allocate memory"},
	} {
		t.Run(name, func(t *testing.T) {
			k := filled(t)
			k.Connect(one, 1)
			k.FailBefore(func(call ipvstest.Call) error {
				if call.Verb == c.verb && call.Key.VirtualServer == web().VirtualServer {
					return syscall.ENOMEM
				}
				return nil
			})
			target := ipvs.NewTarget(k, ipvs.TargetOptions{Local: c.local})
			failed := target.Apply(t.Context(), change{Dels: []ipvs.Key{one, web(), other}})
			if err := failed[web()]; err == nil || err.Error() != c.want {
				t.Errorf("the virtual server: %v, want %q", err, c.want)
			}
			if err := failed[one]; err == nil || errors.As(err, new(*reconcile.Deferred[ipvs.Spec])) {
				t.Errorf("its destination: %v", err)
			}
			if later, ok := errors.AsType[*reconcile.Deferred[ipvs.Spec]](failed[other]); !ok {
				t.Errorf("another's destination: %v", later)
			}
			if got := k.Dump(); !strings.Contains(got, "10.96.0.1:80") || strings.Count(got, "\n") != 5 {
				t.Errorf("table:\n%s", got)
			}
		})
	}
}

// run drives a target by a loop until the test ends.
func run(tb testing.TB, target *ipvs.Target) *reconcile.Loop[string, ipvs.Key, ipvs.Spec] {
	tb.Helper()
	l, _ := start(tb, target)
	return l
}

// start drives a target by a loop until it is stopped or the test ends.
func start(tb testing.TB, target *ipvs.Target) (l *reconcile.Loop[string, ipvs.Key, ipvs.Spec], stop func()) {
	tb.Helper()
	l = reconcile.NewLoop(target, reconcile.Options[string, ipvs.Key]{
		Name: "ipvs", Less: func(a, b string) bool { return a < b },
		GateOf: func(k ipvs.Key) ipvs.Key { return ipvs.Key{VirtualServer: k.VirtualServer} },
	})
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	tb.Cleanup(stop)
	return l, stop
}

// TestDrainingAcrossARestart: what the former run had set to weight 0 is
// restored when it is wanted and drained on when it is not; so are virtual
// servers.
func TestDrainingAcrossARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := filled(t)
		back, leaving := destKey(web(), "10.1.1.1:80"), destKey(web(), "10.1.1.2:80")
		old := serverKey("10.96.0.2:80", model.TCP)
		apply(t, k, change{Puts: []put{
			{Key: back, Spec: dest(0), Present: true}, {Key: leaving, Spec: dest(0), Present: true},
			{Key: old, Spec: serverSpec("rr")}, {Key: destKey(old, "10.1.1.9:80"), Spec: dest(0)},
		}})
		for _, d := range []ipvs.Key{back, leaving, destKey(old, "10.1.1.9:80")} {
			k.Connect(d, 1)
		}
		target := ipvs.NewTarget(k, ipvs.TargetOptions{Ours: predicate(ours), Local: everywhere, Drain: time.Minute})
		l := run(t, target)
		synctest.Wait()
		if got, want := target.Counts(), (ipvs.Counts{VirtualServers: 3, Serving: 1, Draining: 3}); got != want {
			t.Errorf("listed: %+v, want %+v", got, want)
		}
		l.Claim("o", reconcile.Claim[ipvs.Key, ipvs.Spec]{Put: map[ipvs.Key]ipvs.Spec{web(): serverSpec("rr"), back: dest(1)}})
		l.Synced()
		l.Claim("sweeper", reconcile.Claim[ipvs.Key, ipvs.Spec]{Sweep: true})
		time.Sleep(30 * time.Second)
		synctest.Wait()
		const draining = `TCP  10.96.0.1:80 rr
  -> 10.1.1.1:80                  Masq    1      1          0         
  -> 10.1.1.2:80                  Masq    0      1          0         
TCP  10.96.0.2:80 rr
  -> 10.1.1.9:80                  Masq    0      1          0         
`
		if got := k.Dump(); got != draining {
			t.Errorf("draining:\n%s", got)
		}
		k.Connect(destKey(old, "10.1.1.9:80"), 0)
		time.Sleep(time.Second)
		synctest.Wait()
		if got := k.Dump(); strings.Contains(got, "10.96.0.2") {
			t.Errorf("idle:\n%s", got)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if got := k.Dump(); strings.Contains(got, "10.1.1.2") || !strings.Contains(got, "10.1.1.1") {
			t.Errorf("past its limit:\n%s", got)
		}
	})
}

// TestWantedAgainWhileDraining: a virtual server that is wanted again is in
// service at once, and when it leaves another time, its time begins anew.
func TestWantedAgainWhileDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := ipvstest.New()
		d := destKey(web(), "10.1.1.1:80")
		target := ipvs.NewTarget(k, ipvs.TargetOptions{Ours: predicate(ours), Local: everywhere, Drain: time.Minute})
		l := run(t, target)
		wish := reconcile.Claim[ipvs.Key, ipvs.Spec]{Put: map[ipvs.Key]ipvs.Spec{web(): serverSpec("rr"), d: dest(1)}}
		l.Claim("o", wish)
		l.Synced()
		synctest.Wait()
		k.Connect(d, 1)
		for range 3 {
			l.Claim("o", reconcile.Claim[ipvs.Key, ipvs.Spec]{})
			time.Sleep(40 * time.Second)
			synctest.Wait()
			if got := k.Dump(); !strings.Contains(got, "Masq    0      1") {
				t.Fatalf("draining:\n%s", got)
			}
			l.Claim("o", wish)
			synctest.Wait()
			if got := k.Dump(); !strings.Contains(got, "Masq    1      1") {
				t.Fatalf("wanted again:\n%s", got)
			}
		}
		if got, want := target.Counts(), (ipvs.Counts{VirtualServers: 1, Serving: 1}); got != want || l.Status().Deferred != 0 {
			t.Errorf("in the end %+v, %+v", got, l.Status())
		}
	})
}

// TestRemovedIsTold of UDP only, and only of what the kernel has no more.
func TestRemovedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := filled(t)
		other := serverKey("10.96.0.11:53", model.UDP)
		apply(t, k, change{Puts: []put{{Key: other, Spec: serverSpec("rr")}, {Key: destKey(other, "10.1.1.3:53"), Spec: dest(1)}}})
		var told []string
		target := ipvs.NewTarget(k, ipvs.TargetOptions{Removed: func(keys []ipvs.Key) {
			for _, key := range keys {
				told = append(told, key.String())
				if !key.IsDestination() && strings.Contains(k.Dump(), key.Addr.String()) {
					t.Errorf("told of %s, which is there", key)
				}
			}
		}})
		one := destKey(dns(), "10.1.1.3:53")
		dels := change{Dels: []ipvs.Key{one, destKey(web(), "10.1.1.1:80"), other, destKey(other, "10.1.1.3:53")}}
		target.Apply(t.Context(), dels)
		if want := []string{other.String(), destKey(other, "10.1.1.3:53").String()}; !slices.Equal(told, want) {
			t.Errorf("told of %q, want %q", told, want)
		}
		told = nil
		time.Sleep(500 * time.Millisecond)
		k.FailBefore(func(c ipvstest.Call) error {
			if c.Verb == "delete" {
				return syscall.ENOMEM
			}
			return nil
		})
		target.Apply(t.Context(), change{Dels: []ipvs.Key{one}})
		if len(told) != 0 {
			t.Errorf("told of %q, which could not be deleted", told)
		}
		k.FailBefore(nil)
		target.Apply(t.Context(), change{Dels: []ipvs.Key{one}})
		if !slices.Equal(told, []string{one.String()}) {
			t.Errorf("told of %q, want %s", told, one)
		}
	})
}

// TestCountsFollowWhatIsWritten: after any changes that start from what is
// there, the counts are those of a listing.
func TestCountsFollowWhatIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := ipvstest.New()
		target := ipvs.NewTarget(k, ipvs.TargetOptions{
			Ours: predicate(ours), Local: everywhere,
			Drain: rapid.SampledFrom([]time.Duration{-1, time.Hour}).Draw(t, "drain"),
		})
		for range rapid.IntRange(1, 8).Draw(t, "rounds") {
			there := tableOf(t, k)
			c := anyChange(t)
			for i, p := range c.Puts {
				_, c.Puts[i].Present = there[p.Key]
			}
			c.Dels = slices.DeleteFunc(c.Dels, func(key ipvs.Key) bool {
				_, present := there[key]
				return !present
			})
			target.Apply(context.Background(), c)
			want := ipvs.Counts{}
			for key, spec := range tableOf(t, k) {
				switch {
				case !key.IsDestination():
					want.VirtualServers++
				case spec.Destination.Weight > 0:
					want.Serving++
				default:
					want.Draining++
				}
				if key.IsDestination() && rapid.Bool().Draw(t, "connected") {
					k.Connect(key, 1)
				}
			}
			if got := target.Counts(); got != want {
				t.Fatalf("after %+v: %+v, want %+v\n%s", c, got, want, k.Dump())
			}
		}
	})
}

// tableOf is the whole table, read by another Target.
func tableOf(t *rapid.T, k *ipvstest.Kernel) map[ipvs.Key]ipvs.Spec {
	all := make(map[ipvs.Key]ipvs.Spec)
	for s, err := range newTarget(k).List(context.Background(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(all, s.Present)
	}
	return all
}

// TestCountsFollowListings: what others changed shows with the next one.
func TestCountsFollowListings(t *testing.T) {
	k := filled(t)
	target := newTarget(k)
	for i, step := range []struct {
		do   change
		only []ipvs.Key
		want ipvs.Counts
	}{
		{want: ipvs.Counts{VirtualServers: 2, Serving: 3}},
		{do: change{Puts: []put{{Key: destKey(web(), "10.1.1.1:80"), Spec: dest(0), Present: true}}}, want: ipvs.Counts{VirtualServers: 2, Serving: 2, Draining: 1}},
		{do: change{Dels: []ipvs.Key{web()}}, want: ipvs.Counts{VirtualServers: 1, Serving: 1}},
		{do: change{Dels: []ipvs.Key{dns()}}, only: []ipvs.Key{dns()}, want: ipvs.Counts{}},
	} {
		apply(t, k, step.do)
		listed(t, target, step.only)
		if got := target.Counts(); got != step.want {
			t.Errorf("step %d: %+v, want %+v", i, got, step.want)
		}
	}
}

// TestCountsMayBeAskedAnyTime: with the race detector.
func TestCountsMayBeAskedAnyTime(t *testing.T) {
	k := filled(t)
	target := newTarget(k)
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			if c := target.Counts(); c.VirtualServers > 100 {
				t.Error(c)
			}
		}
	}()
	for i := range 100 {
		vs := serverKey(fmt.Sprintf("10.96.1.%d:80", i), model.TCP)
		target.Apply(t.Context(), change{Puts: []put{{Key: vs, Spec: serverSpec("rr")}}})
	}
	stop.Store(true)
	<-done
}
