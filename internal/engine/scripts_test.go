package engine_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

func quiet() { synctest.Wait() }

// newChaos has calls of the kernel fail at random, a fifth of them after they
// took effect.
func newChaos(seed uint64, rate float64) *chaos {
	return &chaos{rnd: rand.New(rand.NewPCG(seed, 5)), before: rate * 4 / 5, lost: rate / 5}
}

// TestScripts plays testdata on the fakes.
func TestScripts(t *testing.T) {
	for _, s := range scripts(t) {
		node := decode(t, "preamble", preamble)
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakes(t, s, way{name: s.name})
				f.tell(node)
				s.play(t, f)
				f.settle(t, anything)
			})
		})
	}
}

// TestScriptsOtherwise plays them with what may not matter changed: the order of
// events, their number, how many come at once, and calls of the kernel that
// fail.
func TestScriptsOtherwise(t *testing.T) {
	ways := []way{
		{name: "reversed", reversed: true},
		{name: "doubled", doubled: true},
		{name: "split", split: true},
		{name: "reversed, doubled, split", reversed: true, doubled: true, split: true},
	}
	faulty := 5
	if testing.Short() {
		faulty = 1
	}
	for seed := range faulty {
		ways = append(ways, way{
			name: fmt.Sprint("faults ", seed), faults: 0.1, seed: uint64(seed),
			reversed: seed%2 == 1, split: seed%3 == 1, doubled: seed%5 == 1,
		})
	}
	for _, s := range scripts(t) {
		node := decode(t, "preamble", preamble)
		for _, w := range ways {
			t.Run(s.name+"/"+w.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFakes(t, s, w)
					f.tell(node)
					s.play(t, f)
					f.settle(t, anything)
				})
			})
		}
	}
}

// stepByStep is where a script ends as it is written.
func stepByStep(t *testing.T, s script, node []any) *fakes {
	t.Helper()
	f := newFakes(t, s, way{name: "step by step"})
	f.tell(node)
	s.play(t, f)
	f.settle(t, anything)
	return f
}

// memoryless runs a test with every script whose end does not depend on its
// course, and what became of it step by step.
func memoryless(t *testing.T, test func(t *testing.T, s script, node []any, slow *fakes)) {
	t.Helper()
	for _, s := range scripts(t) {
		if !s.memoryless() {
			continue
		}
		node := decode(t, "preamble", preamble)
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, s, node, stepByStep(t, s, node)) })
		})
	}
}

// TestScriptsSquashed tells all facts of a script at once, those included that
// others replace: it ends where it ends step by step.
func TestScriptsSquashed(t *testing.T) {
	memoryless(t, func(t *testing.T, s script, node []any, slow *fakes) {
		t.Helper()
		for _, w := range []way{{name: "squashed"}, {name: "squashed, with faults", faults: 0.1}} {
			f := newFakes(t, s, w)
			f.tell(node)
			for _, c := range s.sections {
				f.tell(c.facts)
			}
			f.settle(t, anything)
			time.Sleep(time.Minute)
			f.settle(t, anything)
			differ(t, w.name, f.whole(t), slow.whole(t))
		}
	})
}

// TestScriptsLastWords tells only what holds in the end.
func TestScriptsLastWords(t *testing.T) {
	memoryless(t, func(t *testing.T, s script, _ []any, slow *fakes) {
		t.Helper()
		f := newFakes(t, s, way{name: "last words"})
		var facts []any
		for _, o := range slow.order {
			facts = append(facts, slow.last[o])
		}
		f.tell(facts)
		f.settle(t, anything)
		differ(t, "last words", f.whole(t), slow.whole(t))
	})
}
