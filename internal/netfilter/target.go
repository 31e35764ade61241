package netfilter

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"syscall"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
)

// Options are what a Target is made of.
type Options struct {
	Runner   Runner
	Sets     Sets
	Backend  Backend
	Families []model.Family // see Usable; keys of others are refused
}

// Target is the packet filter as a reconcile loop sees it.
//
// A change is written in the order in which its parts depend on each other:
// sets, members, chains and jumps in one restore per family, chains that go,
// members that go, sets that go. A chain thus never names a set that is not
// there and filled, and a set never goes while a chain names it.
type Target struct {
	opts Options
}

var _ reconcile.Target[Key, Spec] = (*Target)(nil)

// New makes a Target. It touches nothing.
func New(opts Options) *Target { return &Target{opts: opts} }

type section = reconcile.Section[Key, Spec]

// List yields a section for each family's tables, one for all sets, and one for
// the members of each set: what one call read is one section, because what has
// been read and not been taken yet would be stale after an Apply in between. It
// starts one program for each family with
// chains or jumps among what is asked for. A family or table that cannot be
// read does not keep the others from being listed: its error comes last.
func (t *Target) List(ctx context.Context, only []Key) iter.Seq2[section, error] {
	return func(yield func(section, error) bool) {
		var errs []error
		for _, f := range t.opts.Families {
			got, err := t.read(ctx, f, slices.DeleteFunc(tables(), func(table Table) bool { return !concerned(only, f, table) }))
			if err != nil {
				errs = append(errs, err)
			}
			if len(got) > 0 && !yield(sectionOf(f, got), nil) {
				return
			}
		}
		if !t.listSets(ctx, only, yield) {
			return
		}
		if err := errors.Join(errs...); err != nil {
			yield(section{}, err)
		}
	}
}

// concerned reports whether a listing of these keys has to look at a table.
func concerned(only []Key, f model.Family, table Table) bool {
	return only == nil || slices.ContainsFunc(only, func(k Key) bool {
		return k.rule() && k.Family == f && k.Table == table
	})
}

func (k Key) rule() bool { return k.Kind >= KindChain }

// sectionOf is what was read of a family's tables, as the loop sees it.
func sectionOf(f model.Family, got map[Table]saved) section {
	present := map[Key]Spec{}
	for table, s := range got {
		maps.Copy(present, s.specs(table))
	}
	return section{
		Covers: func(k Key) bool {
			_, read := got[k.Table]
			return k.rule() && k.Family == f && read
		},
		Present: present,
	}
}

// read is what tables of one family hold; the error is that of the tables left
// out. More than one are read by one program, which prints all there are. A
// table that it did not print is asked for by its name: nothing of ours is in
// it yet, or the kernel lacks it, and only then does the program say so.
func (t *Target) read(ctx context.Context, f model.Family, which []Table) (map[Table]saved, error) {
	got := map[Table]saved{}
	if len(which) > 1 {
		out, err := t.opts.Runner.Run(ctx, nil, t.opts.Backend.save(f))
		if err != nil && !refused(err) {
			return nil, fmt.Errorf("list %s tables: %w", f, err)
		}
		for table, lines := range splitTables(out) {
			got[table] = parseSave(f, lines)
		}
		maps.DeleteFunc(got, func(table Table, _ saved) bool { return !slices.Contains(which, table) })
	}
	var errs []error
	for _, table := range which {
		if _, done := got[table]; done {
			continue
		}
		out, err := t.opts.Runner.Run(ctx, nil, t.opts.Backend.save(f), "-t", table.String())
		if err != nil {
			errs = append(errs, fmt.Errorf("list %s table %s: %w", f, table, t.opts.Backend.lacking(f, table, err)))
			continue
		}
		got[table] = parseSave(f, out)
	}
	return got, errors.Join(errs...)
}

// listSets yields the sections of sets and members. It returns false when the
// sequence has ended.
func (t *Target) listSets(ctx context.Context, only []Key, yield func(section, error) bool) bool {
	if only != nil && !slices.ContainsFunc(only, func(k Key) bool { return !k.rule() }) {
		return true
	}
	headers, err := t.opts.Sets.Headers(ctx)
	if err != nil {
		yield(section{}, fmt.Errorf("list sets: %w", err))
		return false
	}
	sets, readable := t.ownSets(headers)
	// A set that is absent has no members; one of the wrong family can have
	// none of ours.
	covers := func(k Key) bool {
		_, has := readable[SetKey(k.Family, k.Name)]
		return t.serves(k.Family) && (k.Kind == KindSet || k.Kind == KindMember && !has)
	}
	if !yield(section{Covers: covers, Present: sets}, nil) {
		return false
	}
	for set, kernel := range readable {
		if !wantsMembers(only, set) {
			continue
		}
		s, err := t.listMembers(ctx, set, kernel)
		if !yield(s, err) || err != nil {
			return false
		}
	}
	return true
}

// ownSets are the specs of our sets, and the kernel names of those that may
// have members.
func (t *Target) ownSets(headers []Set) (sets map[Key]Spec, readable map[Key]string) {
	sets, readable = map[Key]Spec{}, map[Key]string{}
	for _, h := range headers {
		f, name, ours := parseKernelSet(h.Name)
		if !ours || !t.serves(f) {
			continue
		}
		key := SetKey(f, name)
		sets[key] = h.spec(f)
		if sets[key].Type == h.Type {
			readable[key] = h.Name
		}
	}
	return sets, readable
}

// spec is a set's spec; a set of the wrong family has a type that none of ours has.
func (s Set) spec(f model.Family) Spec {
	if s.Family != f {
		s.Type += SetType(" of " + s.Family.String())
	}
	return Spec{Type: s.Type, MaxElem: s.MaxElem}
}

func wantsMembers(only []Key, set Key) bool {
	return only == nil || slices.ContainsFunc(only, func(k Key) bool {
		return !k.rule() && SetKey(k.Family, k.Name) == set
	})
}

func (t *Target) listMembers(ctx context.Context, set Key, kernel string) (section, error) {
	members, err := t.opts.Sets.Members(ctx, kernel)
	// Between the headers and now an Apply may have destroyed it.
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return section{}, fmt.Errorf("list %s: %w", set, err)
	}
	present := make(map[Key]Spec, len(members))
	for _, m := range members {
		present[MemberKey(set.Family, set.Name, m.Entry)] = Spec{NoMatch: m.NoMatch}
	}
	return section{
		Covers:  func(k Key) bool { return k.Kind == KindMember && SetKey(k.Family, k.Name) == set },
		Present: present,
	}, nil
}

func (t *Target) serves(f model.Family) bool { return slices.Contains(t.opts.Families, f) }

// refuse is why a key must not be written; nil: it may.
func (t *Target) refuse(k Key) error {
	switch {
	case !strings.HasPrefix(k.Name, Prefix):
		return fmt.Errorf("%s: not ours: the name does not begin with %s", k, Prefix)
	case !t.serves(k.Family):
		return fmt.Errorf("%s: this node does not serve %s", k, k.Family)
	case !k.rule() && len(KernelSet(k.Family, k.Name)) > MaxSetName:
		return fmt.Errorf("%s: the name is longer than %d characters", k, MaxSetName)
	case k.rule() && len(k.Name) > MaxChainName:
		return fmt.Errorf("%s: the name is longer than %d characters", k, MaxChainName)
	case (k.Kind == KindMember || k.Kind == KindMapping) && model.FamilyOf(k.Entry.First.Addr()) != k.Family:
		return fmt.Errorf("%s: the entry is not %s", k, k.Family)
	}
	return nil
}
