package netfilter

import (
	"cmp"
	"slices"

	"sluice.dev/sluice/internal/model"
)

// writeRules writes one family's chains and jumps in one restore. Where the
// kernel refuses that, the good parts are found by halving; what was refused
// is tried again as long as others succeed, because it may need them: a chain
// those that it leads to, a jump its chain.
func (a *application) writeRules(f model.Family, w ruleWork) {
	// A chain before a jump: it is likelier to be needed than to need.
	slices.SortStableFunc(w.puts, func(x, y put) int { return cmp.Compare(x.Key.Kind, y.Key.Kind) })
	for progress := true; progress && w.size() > 0; {
		before := w.size()
		w = a.writeParts(f, w)
		progress = w.size() < before
	}
}

func (w ruleWork) size() int { return len(w.puts) + len(w.jumpDels) }

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
	return ruleWork{slices.Concat(one.puts, other.puts), slices.Concat(one.jumpDels, other.jumpDels)}
}

func (w ruleWork) each(fn func(Key)) {
	for _, p := range w.puts {
		fn(p.Key)
	}
	for _, k := range w.jumpDels {
		fn(k)
	}
}

// halves splits work that cannot be written whole. Jumps that go come last:
// only then is what they led to of no use.
func (w ruleWork) halves() (one, other ruleWork) {
	n := (len(w.puts) + len(w.jumpDels)) / 2
	if n <= len(w.puts) {
		return ruleWork{puts: w.puts[:n]}, ruleWork{puts: w.puts[n:], jumpDels: w.jumpDels}
	}
	n -= len(w.puts)
	return ruleWork{puts: w.puts, jumpDels: w.jumpDels[:n]}, ruleWork{jumpDels: w.jumpDels[n:]}
}

// tryRules writes the work as a whole. A builtin chain is read first when its
// jumps change: others write there too.
func (a *application) tryRules(f model.Family, w ruleWork) error {
	tables := map[Table]*tableText{NAT: {}, Filter: {}}
	hooks := map[Table]map[Hook]*jumpWork{NAT: {}, Filter: {}}
	at := func(k Key) *jumpWork {
		j := hooks[k.Table][k.Hook]
		if j == nil {
			j = &jumpWork{puts: map[string]int{}, gone: map[string]bool{}}
			hooks[k.Table][k.Hook] = j
		}
		return j
	}
	for _, p := range w.puts {
		if p.Key.Kind == KindChain {
			tables[p.Key.Table].chain(p.Key.Name, p.Spec)
		} else {
			at(p.Key).puts[p.Key.Name] = p.Spec.Order
		}
	}
	for _, k := range w.jumpDels {
		at(k).gone[k.Name] = true
	}
	for table, work := range hooks {
		if len(work) == 0 {
			continue
		}
		s, err := a.save(a.ctx, f, table)
		if err != nil {
			return err
		}
		for hook := Prerouting; hook <= Postrouting; hook++ {
			if j := work[hook]; j != nil {
				tables[table].jumps(hook, s.jumps[hook], j.puts, j.gone)
			}
		}
	}
	return a.restore(f, tables)
}

// jumpWork is what changes in one builtin chain.
type jumpWork struct {
	puts map[string]int
	gone map[string]bool
}

// restore hands one family's text to the kernel. Each table is written as a
// whole or not at all.
func (a *application) restore(f model.Family, tables map[Table]*tableText) error {
	return restore(a.ctx, a.opts.Runner, a.opts.Backend.restore(f), tables)
}

// dropChains removes chains, all in one restore if the kernel lets them go.
func (a *application) dropChains(f model.Family, dels []Key) {
	if len(dels) == 0 {
		return
	}
	tables := map[Table]*tableText{NAT: {}, Filter: {}}
	for _, k := range dels {
		tables[k.Table].drop(k.Name)
	}
	err := a.restore(f, tables)
	switch {
	case err == nil:
	case refused(err) && len(dels) > 1:
		a.dropChains(f, dels[:len(dels)/2])
		a.dropChains(f, dels[len(dels)/2:])
	default:
		for _, k := range dels {
			a.fail(k, "delete", err)
		}
	}
}
