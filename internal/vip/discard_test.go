package vip_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/internal/vip"
	"sluice.dev/sluice/internal/vip/viptest"
)

// mainTable is the kernel's side of the discard routes: the fake, or a real one.
type mainTable struct {
	vip.DiscardHandle
	// others adds a route of somebody else's: unicast, or a blackhole.
	others func(p netip.Prefix, metric uint32, blackhole bool)
}

func fakeMainTable(*testing.T) mainTable {
	k := &viptest.MainTable{}
	return mainTable{k, func(p netip.Prefix, metric uint32, blackhole bool) {
		kind := "unicast"
		if blackhole {
			kind = "blackhole"
		}
		k.Add(p, metric, kind+", proto 4")
	}}
}

func TestFakeMainTable(t *testing.T)  { testMainTable(t, fakeMainTable) }
func TestDiscardsOnFake(t *testing.T) { testDiscards(t, fakeMainTable) }

// aggregate is the n-th prefix of a family, each inside the one before it.
func aggregate(f model.Family, n int) netip.Prefix {
	p := netip.PrefixFrom(service(f, 0), 20+n)
	if f == model.IPv6 {
		p = netip.PrefixFrom(service(f, 0), 112+n)
	}
	return p.Masked()
}

func (m mainTable) want(t *testing.T, want ...netip.Prefix) {
	t.Helper()
	got, err := m.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, netip.Prefix.Compare)
	slices.SortFunc(want, netip.Prefix.Compare)
	if !slices.Equal(got, want) {
		t.Errorf("routes %v, want %v", got, want)
	}
}

// testMainTable is what the tables have to do, fake or not.
func testMainTable(t *testing.T, fresh func(*testing.T) mainTable) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, mainTable, model.Family){
		"put and delete":            testPut,
		"others, a better metric":   testOthers,
		"others, the same metric":   testSameMetric,
		"a blackhole of others":     testBlackhole,
		"others that are not equal": testNested,
	} {
		for _, f := range families() {
			t.Run(fmt.Sprintf("%s %s", name, f), func(t *testing.T) { test(t, fresh(t), f) })
		}
	}
}

func testPut(t *testing.T, m mainTable, f model.Family) {
	t.Helper()
	ctx := t.Context()
	one, two := aggregate(f, 1), aggregate(f, 4)
	m.want(t)
	all(t, m.Delete(ctx, []netip.Prefix{one}), syscall.ESRCH)
	all(t, m.Put(ctx, []netip.Prefix{one, two}), nil)
	all(t, m.Put(ctx, []netip.Prefix{one, two}), syscall.EEXIST)
	m.want(t, one, two)
	all(t, m.Delete(ctx, []netip.Prefix{one}), nil)
	m.want(t, two)
	if errs := m.Put(ctx, []netip.Prefix{two, one}); len(errs) != 2 || !errors.Is(errs[0], syscall.EEXIST) || errs[1] != nil {
		t.Errorf("one there, one not: %v", errs)
	}
	all(t, m.Delete(ctx, []netip.Prefix{one, two}), nil)
	all(t, m.Put(ctx, nil), nil)
	all(t, m.Delete(ctx, nil), nil)
	m.want(t)
}

func (m mainTable) wantOther(t *testing.T, p netip.Prefix, want string) {
	t.Helper()
	others, err := m.Others(t.Context(), []netip.Prefix{p, aggregate(model.IPv4, 7), aggregate(model.IPv6, 7)})
	if err != nil {
		t.Fatal(err)
	}
	if others[p] != want || want == "" && len(others) != 0 || want != "" && len(others) != 1 {
		t.Errorf("others %v, want %q of %s", others, want, p)
	}
}

func testOthers(t *testing.T, m mainTable, f model.Family) {
	t.Helper()
	p := aggregate(f, 1)
	m.wantOther(t, p, "")
	m.others(p, 20, false)
	m.wantOther(t, p, "unicast, proto 4, metric 20")
	m.want(t)
	all(t, m.Delete(t.Context(), []netip.Prefix{p}), syscall.ESRCH)
	all(t, m.Put(t.Context(), []netip.Prefix{p}), nil) // behind it
	m.want(t, p)
	all(t, m.Delete(t.Context(), []netip.Prefix{p}), nil)
	m.wantOther(t, p, "unicast, proto 4, metric 20")
}

func testSameMetric(t *testing.T, m mainTable, f model.Family) {
	t.Helper()
	p := aggregate(f, 1)
	m.others(p, vip.DiscardMetric, false)
	all(t, m.Put(t.Context(), []netip.Prefix{p}), syscall.EEXIST)
	all(t, m.Delete(t.Context(), []netip.Prefix{p}), syscall.ESRCH)
	m.wantOther(t, p, fmt.Sprintf("unicast, proto 4, metric %d", uint32(vip.DiscardMetric)))
	m.want(t)
}

func testBlackhole(t *testing.T, m mainTable, f model.Family) {
	t.Helper()
	p := aggregate(f, 1)
	m.others(p, vip.DiscardMetric, true)
	m.want(t)
	all(t, m.Delete(t.Context(), []netip.Prefix{p}), syscall.ESRCH)
	m.wantOther(t, p, fmt.Sprintf("blackhole, proto 4, metric %d", uint32(vip.DiscardMetric)))
}

func testNested(t *testing.T, m mainTable, f model.Family) {
	t.Helper()
	p := aggregate(f, 3)
	m.others(aggregate(f, 1), 20, false)
	m.others(aggregate(f, 5), vip.DiscardMetric, true)
	m.wantOther(t, p, "")
	all(t, m.Put(t.Context(), []netip.Prefix{p}), nil)
	m.wantOther(t, p, "")
	m.want(t, p)
	all(t, m.Delete(t.Context(), []netip.Prefix{p}), nil)
	m.wantOther(t, aggregate(f, 5), fmt.Sprintf("blackhole, proto 4, metric %d", uint32(vip.DiscardMetric)))
	m.wantOther(t, aggregate(f, 1), "unicast, proto 4, metric 20")
}

type (
	discards      = map[vip.Discard]struct{}
	discardChange = reconcile.Change[vip.Discard, struct{}]
)

func listDiscards(t *testing.T, d *vip.Discards) (got discards) {
	t.Helper()
	for section, err := range d.List(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if got != nil || !section.Covers(vip.Discard{}) {
			t.Error("not one section of all")
		}
		got = section.Present
	}
	return got
}

func discardDifference(want, have discards) (c discardChange) {
	for k := range want {
		if _, there := have[k]; !there {
			c.Puts = append(c.Puts, reconcile.Put[vip.Discard, struct{}]{Key: k})
		}
	}
	for k := range have {
		if _, wanted := want[k]; !wanted {
			c.Dels = append(c.Dels, k)
		}
	}
	return c
}

// testDiscards is what the Target has to do on any table.
func testDiscards(t *testing.T, fresh func(*testing.T) mainTable) {
	t.Helper()
	want := discards{}
	for _, f := range families() {
		for n := range 3 {
			want[vip.Discard{Prefix: aggregate(f, n)}] = struct{}{}
		}
	}
	t.Run("round trip, twice", func(t *testing.T) {
		m := fresh(t)
		d := vip.NewDiscards(m)
		for _, c := range []discardChange{discardDifference(want, nil), discardDifference(want, nil), discardDifference(nil, want), discardDifference(nil, want)} {
			for _, err := range d.Apply(t.Context(), c) {
				t.Error(err)
			}
			if got := listDiscards(t, d); len(got) != len(c.Puts) {
				t.Errorf("listed %v", got)
			}
		}
	})
	t.Run("another's route to the very prefix", func(t *testing.T) {
		for _, metric := range []uint32{20, vip.DiscardMetric} {
			m := fresh(t)
			d := vip.NewDiscards(m)
			taken := aggregate(model.IPv4, 1)
			m.others(taken, metric, false)
			errs := d.Apply(t.Context(), discardDifference(want, nil))
			err := errs[vip.Discard{Prefix: taken}]
			if len(errs) != 1 || !errors.Is(err, syscall.EEXIST) || !strings.Contains(err.Error(), taken.String()) || !strings.Contains(err.Error(), "unicast, proto 4") {
				t.Errorf("metric %d: errors %v", metric, errs)
			}
			got := listDiscards(t, d)
			if _, there := got[vip.Discard{Prefix: taken}]; there || len(got) != len(want)-1 {
				t.Errorf("metric %d: listed %v", metric, got)
			}
			for _, err := range d.Apply(t.Context(), discardDifference(nil, want)) {
				t.Error(err)
			}
			m.wantOther(t, taken, fmt.Sprintf("unicast, proto 4, metric %d", metric))
		}
	})
}

// TestDiscardFaults: with operations failing at random every prefix either has
// an error or is as wanted; a listing that failed is no observation.
func TestDiscardFaults(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		k := &viptest.MainTable{}
		d := vip.NewDiscards(k)
		have := discards{}
		for range rapid.IntRange(1, 5).Draw(rt, "rounds") {
			want := discards{}
			for _, f := range families() {
				for n := range 4 {
					if rapid.Bool().Draw(rt, "wanted") {
						want[vip.Discard{Prefix: aggregate(f, n)}] = struct{}{}
					}
				}
			}
			k.Fault = func(string, netip.Prefix) error {
				if rapid.IntRange(0, 4).Draw(rt, "fault") == 0 {
					return errors.New("injected")
				}
				return nil
			}
			errs := d.Apply(t.Context(), discardDifference(want, have))
			k.Fault = nil
			have = listDiscards(t, d)
			left := discardDifference(want, have)
			for _, p := range left.Puts {
				if errs[p.Key] == nil {
					rt.Errorf("%s has no error and is not there", p.Key)
				}
			}
			for _, key := range left.Dels {
				if errs[key] == nil {
					rt.Errorf("%s has no error and is still there", key)
				}
			}
			for key, err := range errs {
				if !strings.Contains(err.Error(), key.String()) {
					rt.Errorf("the error of %s does not name it: %v", key, err)
				}
			}
		}
		k.Fault = func(string, netip.Prefix) error { return errors.New("injected") }
		for section, err := range d.List(t.Context(), nil) {
			if err == nil || section.Present != nil {
				rt.Errorf("a failed listing says %v, %v", section.Present, err)
			}
		}
	})
}

// TestDiscardUnseen: without knowing what others have, nothing is put.
func TestDiscardUnseen(t *testing.T) {
	k := &viptest.MainTable{Fault: func(verb string, _ netip.Prefix) error {
		if verb == "others" {
			return errors.New("injected")
		}
		return nil
	}}
	key := vip.Discard{Prefix: aggregate(model.IPv4, 1)}
	d := vip.NewDiscards(k)
	errs := d.Apply(t.Context(), discardDifference(discards{key: {}}, nil))
	if got := listDiscards(t, d); errs[key] == nil || len(got) != 0 {
		t.Errorf("errors %v, listed %v", errs, got)
	}
}
