package ipvs_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/ipvs/ipvstest"
)

// checkApply applies random changes, with beliefs that may be wrong, to a
// table that others clear now and then, and compares every key that was
// reported as written with what a listing finds.
func checkApply(t *rapid.T, h ipvs.Handle) {
	target := newTarget(h)
	for range rapid.IntRange(1, 6).Draw(t, "rounds") {
		c := anyChange(t)
		failed := target.Apply(context.Background(), c)
		present := make(map[ipvs.Key]ipvs.Spec)
		for s, err := range target.List(context.Background(), nil) {
			if err != nil {
				return // faults: nothing to compare with
			}
			maps.Copy(present, s.Present)
		}
		leaving := make(map[ipvs.VirtualServer]bool)
		for _, k := range c.Dels {
			leaving[k.VirtualServer] = leaving[k.VirtualServer] || !k.IsDestination()
			if _, there := present[k]; there && failed[k] == nil {
				t.Errorf("%s was deleted and is there", k)
			}
		}
		for _, p := range c.Puts {
			if failed[p.Key] == nil && !leaving[p.Key.VirtualServer] && present[p.Key] != p.Spec {
				t.Errorf("%s: put %+v, found %+v", p.Key, p.Spec, present[p.Key])
			}
		}
		for k := range failed {
			if !mentions(c, k) {
				t.Errorf("%s failed and was not in the change", k)
			}
		}
	}
}

func mentions(c change, k ipvs.Key) bool {
	for _, p := range c.Puts {
		if p.Key == k {
			return true
		}
	}
	return slices.Contains(c.Dels, k)
}

// anyChange names each of few keys at most once.
func anyChange(t *rapid.T) change {
	var c change
	for i := range 3 {
		vs := serverKey(fmt.Sprintf("10.96.0.%d:80", i), model.TCP)
		keys := []ipvs.Key{vs}
		for j := range 3 {
			keys = append(keys, destKey(vs, fmt.Sprintf("10.1.1.%d:80", j)))
		}
		for _, k := range keys {
			switch rapid.IntRange(0, 3).Draw(t, k.String()) {
			case 0, 1:
				spec := dest(rapid.Uint32Range(0, 2).Draw(t, "weight"))
				if !k.IsDestination() {
					spec = serverSpec(rapid.SampledFrom([]string{"rr", "wlc", "sh", "nope"}).Draw(t, "scheduler"))
				}
				c.Puts = append(c.Puts, put{Key: k, Spec: spec, Present: rapid.Bool().Draw(t, "present")})
			case 2:
				c.Dels = append(c.Dels, k)
			}
		}
	}
	return c
}

func TestApplyEndsInWhatWasPut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { checkApply(t, ipvstest.New()) })
}

// The same with a kernel that fails at random, before or after the fact.
func TestApplyUnderFaults(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := ipvstest.New()
		fault := func(c ipvstest.Call) error {
			if rapid.IntRange(0, 9).Draw(t, "fault") == 0 && c.Spec != (ipvs.Spec{}) {
				return syscall.ENOMEM
			}
			return nil
		}
		k.FailBefore(fault)
		k.FailAfter(fault)
		checkApply(t, k)
	})
}
