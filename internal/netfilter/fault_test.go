package netfilter_test

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
)

// TestFaults: with operations failing at random every key either has an error
// or is as wanted, and when the faults stop one more round puts all right.
func TestFaults(t *testing.T) {
	everything := sample()
	rapid.Check(t, func(rt *rapid.T) {
		k := netfiltertest.New()
		r := newRig(subject{Runner: k, Sets: k, count: k.Count})
		have := state{}
		for range rapid.IntRange(1, 4).Draw(rt, "rounds") {
			want := drawPart(rt, everything)
			k.Fault = func(string, string) error {
				if rapid.IntRange(0, 4).Draw(rt, "fault") == 0 {
					return errors.New("injected")
				}
				return nil
			}
			errs := r.target.Apply(t.Context(), difference(want, have))
			k.Fault = nil
			have = r.list(t)
			checkWritten(rt, want, have, errs)
		}
		r.reconcile(t, everything)
		r.reconcile(t, state{})
		if dump := k.Dump(); dump != "" {
			rt.Errorf("left behind:\n%s", dump)
		}
	})
}

// drawPart is some of a state, without members of sets and mappings of chains
// that it leaves out.
func drawPart(t *rapid.T, s state) state {
	part := state{}
	for _, key := range slices.SortedFunc(maps.Keys(s), func(a, b netfilter.Key) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), strings.Compare(a.String(), b.String()))
	}) {
		_, hasSet := part[netfilter.SetKey(key.Family, key.Name)]
		_, hasChain := part[netfilter.ChainKey(key.Family, key.Table, key.Name)]
		if rapid.Bool().Draw(t, key.String()) && (key.Kind != netfilter.KindMember || hasSet) && (key.Kind != netfilter.KindMapping || hasChain) {
			part[key] = s[key]
		}
	}
	return part
}

func checkWritten(t *rapid.T, want, have state, errs map[netfilter.Key]error) {
	for key, spec := range want {
		if is, present := have[key]; errs[key] == nil && (!present || is != spec) {
			t.Errorf("%s has no error and is %+v (present %v), want %+v", key, is, present, spec)
		}
	}
	for key := range have {
		if _, wanted := want[key]; !wanted && errs[key] == nil {
			t.Errorf("%s has no error and is still there", key)
		}
	}
}
