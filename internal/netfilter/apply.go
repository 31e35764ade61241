package netfilter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
)

type (
	change = reconcile.Change[Key, Spec]
	put    = reconcile.Put[Key, Spec]
)

// Apply writes a change in the order of the Target's comment. Parts of a
// restore that the kernel refuses are found by halving, so that the others
// are written.
func (t *Target) Apply(ctx context.Context, c change) map[Key]error {
	a := &application{Target: t, ctx: ctx, errs: map[Key]error{}}
	a.sort(c)
	a.keepOffGoing()
	a.createSets()
	a.addMembers()
	for _, f := range t.opts.Families {
		a.writeRules(f, a.rules[f])
	}
	for _, f := range t.opts.Families {
		a.dropChains(f, a.chainDels[f])
	}
	a.deleteMembers()
	a.destroySets()
	return a.errs
}

// application is one Apply on its way.
type application struct {
	*Target
	ctx context.Context //nolint:containedctx // lives for one call

	sets, members       []put
	rules               map[model.Family]ruleWork
	chainDels           map[model.Family][]Key
	memberDels, setDels []Key
	going               map[Key]bool // setDels

	errs map[Key]error
}

// ruleWork is what changes in one family's chains, mappings and jumps. Chains
// that go are not part of it.
type ruleWork struct {
	puts []put
	dels []Key // mappings, jumps
}

func (a *application) fail(k Key, doing string, err error) {
	a.errs[k] = fmt.Errorf("%s %s: %w", doing, k, err)
}

// sort puts each part of a change with its kind.
func (a *application) sort(c change) {
	a.rules = map[model.Family]ruleWork{}
	a.chainDels = map[model.Family][]Key{}
	for _, p := range c.Puts {
		if err := a.refuse(p.Key); err != nil {
			a.errs[p.Key] = err
			continue
		}
		switch p.Key.Kind {
		case KindSet:
			a.sets = append(a.sets, p)
		case KindMember:
			a.members = append(a.members, p)
		case KindChain, KindMapping, KindJump:
			a.addRule(p)
		}
	}
	for _, k := range c.Dels {
		if err := a.refuse(k); err != nil {
			a.errs[k] = err
			continue
		}
		switch k.Kind {
		case KindSet:
			a.setDels = append(a.setDels, k)
		case KindMember:
			a.memberDels = append(a.memberDels, k)
		case KindChain:
			a.chainDels[k.Family] = append(a.chainDels[k.Family], k)
		case KindMapping, KindJump:
			w := a.rules[k.Family]
			w.dels = append(w.dels, k)
			a.rules[k.Family] = w
		}
	}
}

func (a *application) addRule(p put) {
	w := a.rules[p.Key.Family]
	w.puts = append(w.puts, p)
	a.rules[p.Key.Family] = w
}

// createSets makes the sets that are absent and makes those anew that are
// there with another type or size.
func (a *application) createSets() {
	if len(a.sets) == 0 {
		return
	}
	sets := make([]Set, len(a.sets))
	for i, p := range a.sets {
		sets[i] = kernelSet(p)
	}
	for i, err := range a.opts.Sets.Create(a.ctx, sets) {
		switch {
		case errors.Is(err, syscall.EEXIST):
			a.replaceSet(a.sets[i])
		case err != nil:
			a.fail(a.sets[i].Key, "create", err)
		}
	}
}

func kernelSet(p put) Set {
	return Set{
		Name: KernelSet(p.Key.Family, p.Key.Name), Family: p.Key.Family,
		Type: p.Spec.Type, MaxElem: p.Spec.MaxElem,
	}
}

// replaceSet has a set that exists be what is wanted. Its members are put by
// the same change: List shows a set of the wrong type as one without members.
func (a *application) replaceSet(p put) {
	want := kernelSet(p)
	headers, err := a.opts.Sets.Headers(a.ctx)
	if err != nil {
		a.fail(p.Key, "look at", err)
		return
	}
	if slices.Contains(headers, want) {
		return
	}
	if err := a.unreferSet(p.Key); err != nil {
		a.fail(p.Key, "take rules away from", err)
		return
	}
	if err := a.destroyFreed(want.Name); err != nil {
		a.fail(p.Key, "replace", err)
		return
	}
	if err := first(a.opts.Sets.Create(a.ctx, []Set{want})); err != nil {
		a.fail(p.Key, "create", err)
	}
}

// destroyFreed destroys a set that no rule refers to any more. The nft backend
// lets go of it only a moment after its rules have gone, and the rules come
// back at the end of this change.
func (a *application) destroyFreed(name string) error {
	const tries, pause = 20, 10 * time.Millisecond
	for n := 1; ; n++ {
		err := first(a.opts.Sets.Destroy(a.ctx, []string{name}))
		if errors.Is(err, syscall.ENOENT) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) || n == tries {
			return err
		}
		select {
		case <-a.ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// first is the error of a call with one item.
func first(errs []error) error { return errors.Join(errs...) }

// unreferSet empties our chains that mention a set and has this application
// write them again.
func (a *application) unreferSet(set Key) error {
	got, err := a.read(a.ctx, set.Family, tables())
	if err != nil {
		return err
	}
	texts := map[Table]*tableText{}
	for table, s := range got {
		text := &tableText{}
		for name, rules := range s.chains {
			if !slices.ContainsFunc(rules, func(r string) bool { return mentions(r, set) }) {
				continue
			}
			text.chain(name, Spec{})
			was, _ := s.render(rules)
			a.rewrite(ChainKey(set.Family, table, name), Spec{Rules: was})
		}
		texts[table] = text
	}
	return a.restore(set.Family, texts)
}

func mentions(rule string, set Key) bool {
	words, err := split(rule)
	return err == nil && slices.Contains(words, KernelSet(set.Family, set.Name))
}

// rewrite adds a chain to what is to be written, unless it is there already
// or about to go.
func (a *application) rewrite(chain Key, spec Spec) {
	wanted := slices.ContainsFunc(a.rules[chain.Family].puts, func(p put) bool { return p.Key == chain })
	if !wanted && !slices.Contains(a.chainDels[chain.Family], chain) {
		a.addRule(put{Key: chain, Spec: spec, Present: true})
	}
}

// keepOffGoing refuses members for sets, and mappings for chains, that go in the
// same change: they would be written, and be gone.
func (a *application) keepOffGoing() {
	a.going = make(map[Key]bool, len(a.setDels))
	for _, k := range a.setDels {
		a.going[k] = true
	}
	a.members = a.keepOff(a.members, func(k Key) bool { return a.going[SetKey(k.Family, k.Name)] })
	for f, w := range a.rules {
		w.puts = a.keepOff(w.puts, func(k Key) bool {
			return k.Kind == KindMapping && slices.Contains(a.chainDels[f], ChainKey(f, k.Table, k.Name))
		})
		a.rules[f] = w
	}
}

func (a *application) keepOff(puts []put, goes func(Key) bool) []put {
	return slices.DeleteFunc(puts, func(p put) bool {
		if goes(p.Key) {
			a.fail(p.Key, "add", errGoes)
			return true
		}
		return false
	})
}

var errGoes = errors.New("what it is part of is being removed")

func (a *application) addMembers() {
	if len(a.members) == 0 {
		return
	}
	slices.SortStableFunc(a.members, func(x, y put) int { return bySet(x.Key, y.Key) })
	members := make([]Member, len(a.members))
	for i, p := range a.members {
		members[i] = kernelMember(p.Key, p.Spec)
	}
	for i, err := range a.opts.Sets.Add(a.ctx, members) {
		if err != nil {
			a.fail(a.members[i].Key, "add", err)
		}
	}
}

// bySet brings the members of a set together: they share messages.
func bySet(x, y Key) int {
	return cmp.Or(cmp.Compare(x.Family, y.Family), strings.Compare(x.Name, y.Name))
}

func kernelMember(k Key, s Spec) Member {
	return Member{Set: KernelSet(k.Family, k.Name), Entry: k.Entry, NoMatch: s.NoMatch}
}

// deleteMembers leaves the members of sets that go to their sets.
func (a *application) deleteMembers() {
	slices.SortStableFunc(a.memberDels, bySet)
	var dels []Key
	var members []Member
	for _, k := range a.memberDels {
		if !a.going[SetKey(k.Family, k.Name)] {
			dels = append(dels, k)
			members = append(members, kernelMember(k, Spec{}))
		}
	}
	if len(members) == 0 {
		return
	}
	for i, err := range a.opts.Sets.Delete(a.ctx, members) {
		if err != nil && !errors.Is(err, syscall.ENOENT) { // no set, no member
			a.fail(dels[i], "delete", err)
		}
	}
}

func (a *application) destroySets() {
	if len(a.setDels) == 0 {
		return
	}
	names := make([]string, len(a.setDels))
	for i, k := range a.setDels {
		names[i] = KernelSet(k.Family, k.Name)
	}
	stay := map[Key]error{}
	for i, err := range a.opts.Sets.Destroy(a.ctx, names) {
		if err != nil && !errors.Is(err, syscall.ENOENT) {
			a.fail(a.setDels[i], "destroy", err)
			stay[a.setDels[i]] = err
		}
	}
	for _, k := range a.memberDels {
		if err := stay[SetKey(k.Family, k.Name)]; err != nil {
			a.fail(k, "delete with its set", err)
		}
	}
}
