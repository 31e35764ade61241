package ladder

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice.dev/sluice/internal/reconcile"
)

// world is three tables, each with its real loop, over one strict log: writing
// a gate without the same gate in the table below, or deleting one that the
// table above still has, is the fault the ladder exists to exclude.
type world struct {
	mu       sync.Mutex
	tables   [3]map[string]string
	fail     func(table int, op, key string) error
	breaches []string
	log      []string

	rungs   [3]*Table[string, string, string]
	loops   [3]*reconcile.Loop[string, string, string]
	ladder  *Ladder[string]
	reports chan func()
}

// side is one table of the world as its loop's Target.
type side struct {
	*world
	i int
}

func (s side) List(context.Context, []string) iter.Seq2[reconcile.Section[string, string], error] {
	return func(yield func(reconcile.Section[string, string], error) bool) {
		s.mu.Lock()
		present := maps.Clone(s.tables[s.i])
		s.mu.Unlock()
		yield(reconcile.Section[string, string]{Covers: func(string) bool { return true }, Present: present}, nil)
	}
}

// gateOf: "web/1" stands under "web".
func gateOf(k string) string {
	gate, _, _ := strings.Cut(k, "/")
	return gate
}

func (s side) Apply(_ context.Context, c reconcile.Change[string, string]) map[string]error {
	s.mu.Lock()
	defer s.mu.Unlock()
	failed := map[string]error{}
	slices.SortFunc(c.Puts, func(a, b reconcile.Put[string, string]) int { return strings.Compare(a.Key, b.Key) })
	for _, p := range c.Puts {
		if err := s.fail(s.i, "put", p.Key); err != nil {
			failed[p.Key] = err
			continue
		}
		s.log = append(s.log, fmt.Sprint(s.i, "+", p.Key))
		if _, below := s.tables[max(s.i-1, 0)][p.Key]; s.i > 0 && gateOf(p.Key) == p.Key && !below {
			s.breaches = append(s.breaches, fmt.Sprintf("%s put into table %d before table %d has it", p.Key, s.i, s.i-1))
		}
		s.tables[s.i][p.Key] = p.Spec
	}
	for _, k := range c.Dels {
		if err := s.fail(s.i, "del", k); err != nil {
			failed[k] = err
			continue
		}
		s.log = append(s.log, fmt.Sprint(s.i, "-", k))
		if _, above := s.tables[min(s.i+1, 2)][k]; s.i < 2 && gateOf(k) == k && above {
			s.breaches = append(s.breaches, fmt.Sprintf("%s deleted from table %d while table %d has it", k, s.i, s.i+1))
		}
		delete(s.tables[s.i], k)
	}
	return failed
}

func newWorld(t *testing.T, present ...string) *world {
	t.Helper()
	w := &world{
		fail:    func(int, string, string) error { return nil },
		reports: make(chan func(), 10_000),
	}
	ctx, cancel := context.WithCancel(t.Context())
	var loops sync.WaitGroup
	for i := range w.tables {
		w.tables[i] = map[string]string{}
		for _, k := range present {
			w.tables[i][k] = "v"
		}
		l := reconcile.NewLoop(side{w, i}, reconcile.Options[string, string]{
			Name:   fmt.Sprint("table", i),
			Less:   func(a, b string) bool { return a < b },
			GateOf: gateOf,
			Settled: func(s []reconcile.Settlement[string]) {
				w.reports <- func() { w.ladder.Settled(i, s) }
			},
		})
		w.loops[i] = l
		w.rungs[i] = NewTable(l, gateOf, nil)
		loops.Go(func() { l.Run(ctx) })
	}
	w.ladder = New("base", "sweeper", Rung[string](w.rungs[0]), w.rungs[1], w.rungs[2])
	t.Cleanup(func() { cancel(); loops.Wait() })
	return w
}

// basedWorld is a world whose base has nothing to do and so has arrived.
func basedWorld(t *testing.T, present ...string) *world {
	t.Helper()
	w := newWorld(t, present...)
	w.want("base")
	return w
}

// want has an owner wish the same keys in every table, each "key" or
// "key=spec", keys under a gate in the middle table only (as destinations are).
func (w *world) want(owner string, keys ...string) {
	for i, r := range w.rungs {
		wish := map[string]string{}
		for _, k := range keys {
			k, spec, given := strings.Cut(k, "=")
			if !given {
				spec = "v"
			}
			if gateOf(k) == k || i == 1 {
				wish[k] = spec
			}
		}
		r.Set(owner, wish, nil)
	}
	w.ladder.Start(owner)
}

// quiet runs until nothing moves any more.
func (w *world) quiet() {
	for {
		synctest.Wait()
		select {
		case report := <-w.reports:
			report()
		default:
			return
		}
	}
}

func (w *world) sees(t *testing.T, what string, want string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var got []string
	for _, table := range w.tables {
		got = append(got, strings.Join(slices.Sorted(maps.Keys(table)), " "))
	}
	if s := strings.Join(got, " | "); s != want {
		t.Errorf("%s: tables hold\n%s\nwant\n%s", what, s, want)
	}
	for _, b := range w.breaches {
		t.Errorf("%s: %s", what, b)
	}
}

func (w *world) does(t *testing.T, what string, want ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.log, want) {
		t.Errorf("%s: writes %v, want %v", what, w.log, want)
	}
	w.log = nil
}

func TestAddingClimbsAndDroppingComesDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := basedWorld(t)
		w.ladder.Sync()
		w.want("o", "web")
		w.quiet()
		w.does(t, "add", "0+web", "1+web", "2+web")
		w.want("o", "www")
		w.quiet()
		w.does(t, "replace", "0+www", "1+www", "2+www", "2-web", "1-web", "0-web")
		w.want("o")
		w.quiet()
		w.does(t, "drop", "2-www", "1-www", "0-www")
		w.sees(t, "in the end", " |  | ")
		if w.ladder.Climbing() != 0 || w.rungs[0].Knows("o") {
			t.Errorf("the owner is not forgotten: %d climbing", w.ladder.Climbing())
		}
	})
}

func TestWhatStandsUnderAnAdmittedGateNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := basedWorld(t)
		w.ladder.Sync()
		w.want("o", "web", "web/1")
		w.quiet()
		w.does(t, "add", "0+web", "1+web", "1+web/1", "2+web")
		w.want("o", "web", "web/2")
		w.quiet()
		w.does(t, "one endpoint for another, one table", "1+web/2", "1-web/1")
		w.fail = func(table int, _, key string) error {
			if table == 0 && key == "new" {
				return errors.New("never")
			}
			return nil
		}
		w.want("o", "web", "web/3", "new", "new/1")
		w.quiet()
		w.does(t, "an endpoint while another gate is stuck below", "1+web/3", "1-web/2")
		w.want("o", "web")
		w.quiet()
		w.sees(t, "when the stuck gate is given up", "web | web | web")
	})
}

func TestNobodyClimbsBeforeTheBase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		broken := true
		w.fail = func(_ int, _, key string) error {
			if broken && key == "rules" {
				return errors.New("iptables is missing")
			}
			return nil
		}
		w.rungs[0].Set("base", map[string]string{"rules": "v"}, nil)
		w.ladder.Start("base")
		w.want("o", "web")
		w.quiet()
		w.sees(t, "without the base", "web |  | ")
		w.mu.Lock()
		broken = false
		w.mu.Unlock()
		time.Sleep(time.Minute)
		w.quiet()
		w.sees(t, "with it", "rules web | web | web")
	})
}

// TestRestart: what is there stays there, untouched, while owners climb; what
// a former run left behind goes in order.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := basedWorld(t, "web", "stale")
		w.want("o", "web")
		w.ladder.Sync()
		w.quiet()
		w.does(t, "restart", "2-stale", "1-stale", "0-stale")
		w.sees(t, "restart", "web | web | web")
	})
}

// TestRandomWishesKeepTheOrder: whatever is wished, and with a fifth of the
// writes failing, no gate ever stands without the one below, and in the end
// every table is as wished.
func TestRandomWishesKeepTheOrder(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			rnd, faults := rand.New(rand.NewPCG(seed, 0)), rand.New(rand.NewPCG(seed, 1))
			w := basedWorld(t)
			rate := 0.2
			w.fail = func(int, string, string) error {
				if faults.Float64() < rate {
					return errors.New("fault")
				}
				return nil
			}
			w.ladder.Sync()
			wishes := map[string][]string{}
			for range 60 {
				owner := fmt.Sprint("o", rnd.IntN(3))
				var keys []string
				for range rnd.IntN(4) {
					gate := owner + string(rune('a'+rnd.IntN(3)))
					keys = append(keys, fmt.Sprint(gate, "=", rnd.IntN(2)), fmt.Sprint(gate, "/", rnd.IntN(3)))
				}
				wishes[owner] = keys
				w.want(owner, keys...)
				if rnd.IntN(2) == 0 {
					w.quiet()
				}
				time.Sleep(time.Duration(rnd.IntN(300)) * time.Millisecond)
			}
			w.mu.Lock()
			rate = 0
			w.mu.Unlock()
			for range 20 {
				w.quiet()
				time.Sleep(31 * time.Second)
			}
			gates, all := map[string]bool{}, map[string]bool{}
			for _, keys := range wishes {
				for _, k := range keys {
					k, _, _ = strings.Cut(k, "=")
					gates[gateOf(k)], all[k] = true, true
				}
			}
			g := strings.Join(slices.Sorted(maps.Keys(gates)), " ")
			w.sees(t, fmt.Sprint("seed ", seed), g+" | "+strings.Join(slices.Sorted(maps.Keys(all)), " ")+" | "+g)
			if n := w.ladder.Climbing(); n != 0 {
				t.Errorf("seed %d: %d owners never arrived", seed, n)
			}
		})
	}
}
