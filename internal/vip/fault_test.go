package vip_test

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"sluice.dev/sluice/internal/vip"
	"sluice.dev/sluice/internal/vip/viptest"
)

// TestFaults: with operations failing at random every address either has an
// error or is as wanted, and when the faults stop one more round puts all
// right.
func TestFaults(t *testing.T) {
	everything := sample(4)
	rapid.Check(t, func(rt *rapid.T) {
		k := viptest.New(nodeAddrs()...)
		r := rig{subject{Handle: k}, vip.New(k)}
		have := state{}
		for range rapid.IntRange(1, 5).Draw(rt, "rounds") {
			want := drawState(rt, everything)
			k.Fault = func(string, netip.Addr) error {
				if rapid.IntRange(0, 4).Draw(rt, "fault") == 0 {
					return errors.New("injected")
				}
				return nil
			}
			errs := r.target.Apply(t.Context(), difference(want, have))
			k.Fault = nil
			have = r.list(t)
			left := difference(want, have)
			for _, p := range left.Puts {
				if errs[p.Key] == nil {
					rt.Errorf("%s has no error and is %+v, want %+v", p.Key, have[p.Key], p.Spec)
				}
			}
			for _, key := range left.Dels {
				if errs[key] == nil {
					rt.Errorf("%s has no error and is still there", key)
				}
			}
		}
		r.reconcile(t, everything)
		r.reconcile(t, state{})
		if dump := k.Dump(); dump != "" {
			rt.Errorf("left behind:\n%s", dump)
		}
	})
}

// drawState is some of the addresses, with any source.
func drawState(t *rapid.T, s state) state {
	part := state{}
	for _, key := range slices.SortedFunc(maps.Keys(s), func(a, b vip.Key) int { return a.Addr.Compare(b.Addr) }) {
		switch n := rapid.IntRange(-1, 2).Draw(t, key.String()); n {
		case 2: // left out
		case -1:
			part[key] = vip.Spec{}
		default:
			part[key] = vip.Spec{Source: nodeAddr(key.Addr, n)}
		}
	}
	return part
}
