package netfilter

import (
	"cmp"
	"iter"
	"slices"

	"sluice.dev/sluice/internal/model"
)

// writeRules writes one family's chains, mappings and jumps in one restore. Where the
// kernel refuses that, the good parts are found by halving; what was refused
// is tried again as long as others succeed, because it may need them: a chain
// those that it leads to, a jump its chain.
func (a *application) writeRules(f model.Family, w ruleWork) {
	// A chain before a mapping or jump: it is likelier to be needed than to need.
	slices.SortStableFunc(w.puts, func(x, y put) int { return cmp.Compare(x.Key.Kind, y.Key.Kind) })
	for progress := true; progress && w.size() > 0; {
		before := w.size()
		w = a.writeParts(f, w)
		progress = w.size() < before
	}
}

func (w ruleWork) size() int { return len(w.puts) + len(w.dels) }

// writeParts writes what it can and returns the rest, which has its errors.
func (a *application) writeParts(f model.Family, w ruleWork) (rest ruleWork) {
	err := a.tryRules(f, w)
	switch {
	case err == nil:
		w.each(func(k Key) { delete(a.errs, k) })
		return ruleWork{}
	case !refused(err):
		w.each(func(k Key) { a.fail(k, "write", err) })
		return ruleWork{} // trying again at once would meet the same
	case w.size() == 1:
		w.each(func(k Key) { a.fail(k, "write", err) })
		return w
	}
	one, other := w.halves()
	one, other = a.writeParts(f, one), a.writeParts(f, other)
	return ruleWork{slices.Concat(one.puts, other.puts), slices.Concat(one.dels, other.dels)}
}

func (w ruleWork) each(fn func(Key)) {
	for _, p := range w.puts {
		fn(p.Key)
	}
	for _, k := range w.dels {
		fn(k)
	}
}

// halves splits work that cannot be written whole. Jumps that go come last:
// only then is what they led to of no use.
func (w ruleWork) halves() (one, other ruleWork) {
	n := (len(w.puts) + len(w.dels)) / 2
	if n <= len(w.puts) {
		return ruleWork{puts: w.puts[:n]}, ruleWork{puts: w.puts[n:], dels: w.dels}
	}
	n -= len(w.puts)
	return ruleWork{puts: w.puts, dels: w.dels[:n]}, ruleWork{dels: w.dels[n:]}
}

// tryRules writes the work as a whole. What is there is read first where others
// write too (builtin chains) or a rule has to be named to be removed (mappings).
func (a *application) tryRules(f model.Family, w ruleWork) error {
	work := map[Table]*tableWork{}
	for _, t := range tables() {
		work[t] = &tableWork{hooks: map[Hook]*jumpWork{}, maps: map[string]*mapWork{}}
	}
	for _, p := range w.puts {
		work[p.Key.Table].put(p)
	}
	for _, k := range w.dels {
		work[k.Table].del(k)
	}
	got, err := a.read(a.ctx, f, slices.DeleteFunc(tables(), func(t Table) bool { return !work[t].reads }))
	if err != nil {
		return err
	}
	texts := emptyTexts()
	for t, w := range work {
		w.write(texts[t], got[t])
	}
	return a.restore(f, texts)
}

// tableWork is what changes in one table.
type tableWork struct {
	chains []put
	maps   map[string]*mapWork
	hooks  map[Hook]*jumpWork
	reads  bool // what is there has to be known
}

// mapWork is what changes in one map.
type mapWork struct{ puts, gone map[Entry]Spec }

// jumpWork is what changes in one builtin chain.
type jumpWork struct {
	puts map[string]int
	gone map[string]bool
}

func (w *tableWork) put(p put) {
	switch p.Key.Kind {
	case KindChain:
		w.chains = append(w.chains, p)
		w.reads = w.reads || p.Key.Table == NAT && p.Spec.Rules == "" // it may be a map
		return
	case KindMapping:
		w.mapping(p.Key.Name).puts[p.Key.Entry] = p.Spec
	default:
		w.hook(p.Key.Hook).puts[p.Key.Name] = p.Spec.Order
	}
	w.reads = true
}

func (w *tableWork) del(k Key) {
	if k.Kind == KindMapping {
		w.mapping(k.Name).gone[k.Entry] = Spec{}
	} else {
		w.hook(k.Hook).gone[k.Name] = true
	}
	w.reads = true
}

func (w *tableWork) mapping(chain string) *mapWork {
	if w.maps[chain] == nil {
		w.maps[chain] = &mapWork{puts: map[Entry]Spec{}, gone: map[Entry]Spec{}}
	}
	return w.maps[chain]
}

func (w *tableWork) hook(h Hook) *jumpWork {
	if w.hooks[h] == nil {
		w.hooks[h] = &jumpWork{puts: map[string]int{}, gone: map[string]bool{}}
	}
	return w.hooks[h]
}

func (w *tableWork) write(t *tableText, have saved) {
	for _, p := range w.chains {
		t.chain(p.Key.Name, p.Spec)
		// That empties it. The mappings of a map are other keys'.
		m := w.mapping(p.Key.Name)
		for _, is := range have.mappings[p.Key.Name] {
			_, put := m.puts[is.entry]
			_, gone := m.gone[is.entry]
			if !put && !gone {
				m.puts[is.entry] = MappingSpec(is.to)
			}
		}
		delete(have.mappings, p.Key.Name)
	}
	for chain, m := range w.maps {
		t.mappings(chain, have.mappings[chain], m)
	}
	for hook := Prerouting; hook <= Postrouting; hook++ {
		if j := w.hooks[hook]; j != nil {
			t.jumps(hook, have.jumps[hook], j.puts, j.gone)
		}
	}
}

func emptyTexts() map[Table]*tableText {
	texts := map[Table]*tableText{}
	for _, t := range tables() {
		texts[t] = &tableText{}
	}
	return texts
}

// restore hands one family's text to the kernel. Each table is written as a
// whole or not at all.
func (a *application) restore(f model.Family, texts map[Table]*tableText) error {
	return restore(a.ctx, a.opts.Runner, a.opts.Backend.restore(f), texts)
}

// dropChains removes chains, all in one restore if the kernel lets them go. It
// keeps those that others still lead to, and they all they lead to themselves.
func (a *application) dropChains(f model.Family, dels []Key) {
	if len(dels) == 0 {
		return
	}
	texts := emptyTexts()
	for _, k := range dels {
		texts[k.Table].drop(k.Name)
	}
	err := a.restore(f, texts)
	switch {
	case err == nil:
	case refused(err) && len(dels) > 1:
		free, held := a.leadTo(f, dels)
		for _, k := range held {
			a.fail(k, "delete", err)
		}
		if len(held) > 0 {
			a.dropChains(f, free)
			return
		}
		a.dropChains(f, dels[:len(dels)/2])
		a.dropChains(f, dels[len(dels)/2:])
	default:
		for _, k := range dels {
			a.fail(k, "delete", err)
		}
	}
}

// leadTo tells the chains that nothing leads to once they have all gone from
// those that something does, be it one of these. Without a reading, or if it
// tells of none, the kernel has other reasons.
func (a *application) leadTo(f model.Family, dels []Key) (free, held []Key) {
	got, err := a.read(a.ctx, f, tables())
	if err != nil {
		return dels, nil
	}
	going := map[Key]bool{}
	for _, k := range dels {
		going[k] = true
	}
	for again := true; again; {
		again = false
		for table, s := range got {
			for to := range s.leads(func(from string) bool { return !going[ChainKey(f, table, from)] }) {
				k := ChainKey(f, table, to)
				again = again || going[k]
				delete(going, k)
			}
		}
	}
	for _, k := range dels {
		if going[k] {
			free = append(free, k)
		} else {
			held = append(held, k)
		}
	}
	return free, held
}

// leads are the chains that jumps, and rules of some chains, lead to.
func (s saved) leads(from func(chain string) bool) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, jumps := range s.jumps {
			for _, j := range jumps {
				if !yield(j.to) {
					return
				}
			}
		}
		for chain, rules := range s.chains {
			for _, r := range rules {
				if from(chain) && !yield(target(r)) {
					return
				}
			}
		}
	}
}
