package delta

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func newTracker() *Tracker[string, int, string] {
	return New[string, int, string](func(a, b string) bool { return a < b })
}

func keys(ks ...int) map[int]string {
	m := map[int]string{}
	for _, k := range ks {
		m[k] = ""
	}
	return m
}

func none() map[int]string { return nil }

func TestSharedKeyStaysWhileAnyoneClaimsIt(t *testing.T) {
	tr := newTracker()
	tr.Claim("a", map[int]string{1: "x"}, maps.Keys(none()))
	tr.Claim("b", map[int]string{1: "x"}, maps.Keys(none()))
	tr.DidPut(1, "x")
	if pending := tr.Claim("a", nil, maps.Keys(none())); len(pending) != 0 {
		t.Errorf("releasing one of two claims left %v pending", pending)
	}
	if pending := tr.Claim("b", nil, maps.Keys(none())); !slices.Equal(pending, []int{1}) {
		t.Errorf("releasing the last claim left %v pending, want [1]", pending)
	}
	if got := slices.Collect(tr.Dels()); !slices.Equal(got, []int{1}) {
		t.Errorf("to delete: %v, want [1]", got)
	}
}

func TestLeastOwnerSettlesASharedKeyWhateverTheOrder(t *testing.T) {
	for _, order := range [][]string{{"a", "b"}, {"b", "a"}} {
		tr := newTracker()
		for _, owner := range order {
			tr.Claim(owner, map[int]string{1: "of " + owner}, maps.Keys(none()))
		}
		if got := maps.Collect(tr.Puts()); got[1] != "of a" {
			t.Errorf("claims in order %v: puts %v, want a's spec", order, got)
		}
	}
}

func TestKeepNeitherAddsNorDeletesNorChanges(t *testing.T) {
	tr := newTracker()
	tr.DidPut(1, "there")
	tr.DidPut(2, "there")
	pending := tr.Claim("a", nil, maps.Keys(keys(1, 3)))
	if len(pending) != 0 {
		t.Errorf("keeping left %v pending", pending)
	}
	if got := slices.Collect(tr.Dels()); !slices.Equal(got, []int{2}) {
		t.Errorf("to delete %v, want only the key nobody keeps", got)
	}
	if pending := tr.Claim("b", map[int]string{1: "new"}, maps.Keys(none())); !slices.Equal(pending, []int{1}) {
		t.Errorf("another owner's put of a kept key: pending %v, want [1]", pending)
	}
}

func TestObserveCoversOnlyItsSection(t *testing.T) {
	tr := newTracker()
	for k := range 4 {
		tr.DidPut(k, "v")
	}
	tr.Claim("a", map[int]string{0: "v", 1: "v", 2: "v", 3: "v"}, maps.Keys(none()))
	n := tr.Observe(func(k int) bool { return k < 2 }, map[int]string{0: "changed"})
	if n != 2 {
		t.Errorf("corrected %d beliefs, want 2 (one changed, one gone)", n)
	}
	if got := maps.Collect(tr.Puts()); !maps.Equal(got, map[int]string{0: "v", 1: "v"}) {
		t.Errorf("puts %v, want keys 0 and 1 only", got)
	}
}

// model is the tracker's specification, recomputed from scratch.
type model struct {
	claims  map[string]map[int]wish[string]
	present map[int]string
}

func (m model) difference() (puts map[int]string, dels map[int]struct{}) {
	puts, dels = map[int]string{}, map[int]struct{}{}
	wanted := map[int]bool{}
	for _, owner := range slices.Backward(slices.Sorted(maps.Keys(m.claims))) {
		for k, w := range m.claims[owner] {
			wanted[k] = true
			if !w.keep {
				puts[k] = w.spec // the least owner comes last
			}
		}
	}
	maps.DeleteFunc(puts, func(k int, v string) bool { have, ok := m.present[k]; return ok && have == v })
	for k := range m.present {
		if !wanted[k] {
			dels[k] = struct{}{}
		}
	}
	return puts, dels
}

// TestDifferenceIsAlwaysWantedMinusPresent replays random histories of claims,
// kernel results, meddling and partial listings against the model.
func TestDifferenceIsAlwaysWantedMinusPresent(t *testing.T) {
	key := rapid.IntRange(0, 9)
	spec := rapid.SampledFrom([]string{"x", "y"})
	rapid.Check(t, func(t *rapid.T) {
		tr := newTracker()
		m := model{claims: map[string]map[int]wish[string]{}, present: map[int]string{}}
		t.Repeat(map[string]func(*rapid.T){
			"claim": func(t *rapid.T) {
				owner := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "owner")
				put := rapid.MapOf(key, spec).Draw(t, "put")
				keep := rapid.MapOf(key, spec).Draw(t, "keep")
				tr.Claim(owner, put, maps.Keys(keep))
				m.claims[owner] = map[int]wish[string]{}
				for k := range keep {
					m.claims[owner][k] = wish[string]{keep: true}
				}
				for k, v := range put {
					m.claims[owner][k] = wish[string]{spec: v}
				}
			},
			"put": func(t *rapid.T) {
				k, v := key.Draw(t, "key"), spec.Draw(t, "spec")
				tr.DidPut(k, v)
				m.present[k] = v
			},
			"delete": func(t *rapid.T) {
				k := key.Draw(t, "key")
				tr.DidDel(k)
				delete(m.present, k)
			},
			"observe": func(t *rapid.T) {
				listed := rapid.MapOf(key, spec).Draw(t, "listed")
				bound := key.Draw(t, "bound")
				maps.DeleteFunc(listed, func(k int, _ string) bool { return k >= bound })
				tr.Observe(func(k int) bool { return k < bound }, listed)
				maps.DeleteFunc(m.present, func(k int, _ string) bool { return k < bound })
				maps.Copy(m.present, listed)
			},
			"": func(t *rapid.T) {
				puts, dels := m.difference()
				if got := maps.Collect(tr.Puts()); !maps.Equal(got, puts) {
					t.Fatalf("puts %v, want %v", got, puts)
				}
				if got := len(slices.Collect(tr.Dels())); got != len(dels) {
					t.Fatalf("%d deletes, want %v", got, dels)
				}
				for k := range tr.Dels() {
					if _, ok := dels[k]; !ok {
						t.Fatalf("deletes %d, which is wanted or absent", k)
					}
				}
			},
		})
	})
}

// TestOneChangeTouchesOnlyItsOwner is the package's budget: at 10,000 owners
// of ten keys, one owner's change leaves one pending key and allocates for its
// own wish only.
func TestOneChangeTouchesOnlyItsOwner(t *testing.T) {
	tr := New[int, [2]int, string](func(a, b int) bool { return a < b })
	claim := func(owner, n int) map[[2]int]string {
		put := map[[2]int]string{}
		for i := range n {
			put[[2]int{owner, i}] = "v"
		}
		return put
	}
	nothing := maps.Keys(map[[2]int]string(nil))
	for owner := range 10_000 {
		put := claim(owner, 10)
		tr.Claim(owner, put, nothing)
		for k, v := range put {
			tr.DidPut(k, v)
		}
	}
	pending := tr.Claim(77, claim(77, 11), nothing)
	if len(pending) != 1 || tr.Counts().Puts != 1 || tr.Counts().Dels != 0 {
		t.Errorf("one key added: pending %v, counts %+v; want exactly one put", pending, tr.Counts())
	}
	put := claim(77, 11)
	allocs := testing.AllocsPerRun(100, func() { tr.Claim(77, put, nothing) })
	if allocs > 12 {
		t.Errorf("an unchanged claim of 11 keys allocates %.0f times; it must not grow with the table", allocs)
	}
}

func BenchmarkClaimOfOneOwnerAmong10000(b *testing.B) {
	tr := New[int, string, string](func(a, b int) bool { return a < b })
	wish := func(owner, n int) map[string]string {
		put := map[string]string{}
		for i := range n {
			put[fmt.Sprint(owner, "/", i)] = "v"
		}
		return put
	}
	nothing := maps.Keys(map[string]string(nil))
	for owner := range 10_000 {
		put := wish(owner, 10)
		tr.Claim(owner, put, nothing)
		for k, v := range put {
			tr.DidPut(k, v)
		}
	}
	ten, eleven := wish(77, 10), wish(77, 11)
	for i := 0; b.Loop(); i++ {
		if i%2 == 0 {
			tr.Claim(77, eleven, nothing)
		} else {
			tr.Claim(77, ten, nothing)
		}
	}
}

// BenchmarkColdStart is what a tracker costs when 10,000 owners of four keys
// each come at once.
func BenchmarkColdStart(b *testing.B) {
	nothing := maps.Keys(map[[2]int]string(nil))
	puts := make([]map[[2]int]string, 10_000)
	for owner := range puts {
		puts[owner] = map[[2]int]string{}
		for i := range 4 {
			puts[owner][[2]int{owner, i}] = "v"
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		tr := New[int, [2]int, string](func(a, b int) bool { return a < b })
		for owner, put := range puts {
			tr.Claim(owner, put, nothing)
		}
		for k, v := range tr.Puts() {
			tr.DidPut(k, v)
		}
	}
}
