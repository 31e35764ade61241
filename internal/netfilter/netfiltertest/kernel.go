package netfiltertest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
)

// Kernel is the packet filter of one imaginary network namespace. It is for
// one goroutine at a time.
type Kernel struct {
	// Fault, when set, is asked before each operation on its subject (a set's
	// kernel name, or a program's); its error is the operation's. Verbs:
	// headers, members, create, destroy, add, delete, run.
	Fault func(verb, subject string) error
	// Off are families whose tables the kernel lacks, Lacks are tables that it
	// has of no family.
	Off   map[model.Family]bool
	Lacks map[netfilter.Table]bool

	sets  map[string]*set
	rules ruleset
	used  map[model.Family]map[string]bool // tables
	count netfilter.Count
}

type set struct {
	netfilter.Set
	members map[netfilter.Entry]bool // value: nomatch
}

var (
	_ netfilter.Runner = (*Kernel)(nil)
	_ netfilter.Sets   = (*Kernel)(nil)
)

// New makes an empty kernel.
func New() *Kernel {
	return &Kernel{
		sets: map[string]*set{}, rules: newRuleset(),
		used: map[model.Family]map[string]bool{model.IPv4: {}, model.IPv6: {}},
	}
}

// Count is what was done so far.
func (k *Kernel) Count() netfilter.Count { return k.count }

func (k *Kernel) fault(ctx context.Context, verb, subject string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if k.Fault == nil {
		return nil
	}
	return k.Fault(verb, subject)
}

// Headers lists all sets.
func (k *Kernel) Headers(ctx context.Context) ([]netfilter.Set, error) {
	if err := k.fault(ctx, "headers", ""); err != nil {
		return nil, err
	}
	var out []netfilter.Set
	for _, name := range slices.Sorted(maps.Keys(k.sets)) {
		out = append(out, k.sets[name].Set)
	}
	return out, nil
}

// Members lists a set's entries.
func (k *Kernel) Members(ctx context.Context, name string) ([]netfilter.Member, error) {
	if err := k.fault(ctx, "members", name); err != nil {
		return nil, err
	}
	s := k.sets[name]
	if s == nil {
		return nil, syscall.ENOENT
	}
	var out []netfilter.Member
	for _, e := range s.sorted() {
		out = append(out, netfilter.Member{Set: name, Entry: e, NoMatch: s.members[e]})
	}
	return out, nil
}

func (s *set) sorted() []netfilter.Entry {
	return slices.SortedFunc(maps.Keys(s.members), func(a, b netfilter.Entry) int {
		return strings.Compare(a.String(), b.String())
	})
}

// Create makes sets.
func (k *Kernel) Create(ctx context.Context, sets []netfilter.Set) []error {
	return each(sets, func(s netfilter.Set) error {
		k.count.Commands++
		if err := k.fault(ctx, "create", s.Name); err != nil {
			return err
		}
		switch {
		case k.sets[s.Name] != nil:
			return syscall.EEXIST
		case len(s.Name) > netfilter.MaxSetName, dimensions(s.Type) == nil, s.Family == 0:
			return syscall.EINVAL
		}
		k.sets[s.Name] = &set{Set: s, members: map[netfilter.Entry]bool{}}
		return nil
	})
}

// Destroy removes sets.
func (k *Kernel) Destroy(ctx context.Context, names []string) []error {
	return each(names, func(name string) error {
		k.count.Commands++
		if err := k.fault(ctx, "destroy", name); err != nil {
			return err
		}
		switch {
		case k.sets[name] == nil:
			return syscall.ENOENT
		case k.rules.references(name):
			return syscall.EBUSY
		}
		delete(k.sets, name)
		return nil
	})
}

// entriesPerMessage is how many entries of one set, one behind the other, count
// as one command.
const entriesPerMessage = 400

// Add puts entries in.
func (k *Kernel) Add(ctx context.Context, members []netfilter.Member) []error {
	return k.move(ctx, "add", members, func(s *set, m netfilter.Member) error {
		if _, there := s.members[m.Entry]; !there && uint32(len(s.members)) >= s.MaxElem {
			return syscall.ENOSPC
		}
		s.members[m.Entry] = m.NoMatch
		return nil
	})
}

// Delete takes entries out.
func (k *Kernel) Delete(ctx context.Context, members []netfilter.Member) []error {
	return k.move(ctx, "delete", members, func(s *set, m netfilter.Member) error {
		delete(s.members, m.Entry)
		return nil
	})
}

func (k *Kernel) move(ctx context.Context, verb string, members []netfilter.Member, fn func(*set, netfilter.Member) error) []error {
	for i, n := 0, 0; i < len(members); i, n = i+1, n+1 {
		if n%entriesPerMessage == 0 || members[i].Set != members[i-1].Set {
			k.count.Commands++
			n = 0
		}
	}
	return each(members, func(m netfilter.Member) error {
		if err := k.fault(ctx, verb, m.Set); err != nil {
			return err
		}
		s := k.sets[m.Set]
		if s == nil {
			return syscall.ENOENT
		}
		if !s.takes(m) {
			return syscall.EINVAL
		}
		return fn(s, m)
	})
}

// takes reports whether an entry has the shape of the set's type.
func (s *set) takes(m netfilter.Member) bool {
	e := m.Entry
	hasPort, hasSecond, hasNet := false, false, false
	for i, d := range dimensions(s.Type) {
		hasNet = hasNet || d == "net"
		switch {
		case d == "port":
			hasPort = true
			continue
		case i == 0 && !s.fits(d, e.First):
			return false
		case i > 0 && !s.fits(d, e.Second):
			return false
		}
		hasSecond = i > 0
	}
	return hasPort == (e.Protocol != 0) && hasSecond == e.Second.IsValid() && (hasNet || !m.NoMatch)
}

// fits reports whether a dimension takes a prefix: one of the set's family,
// an ip all of it, a net at least one bit.
func (s *set) fits(dimension string, p netip.Prefix) bool {
	return p.IsValid() && p == p.Masked() && p.Bits() > 0 && model.FamilyOf(p.Addr()) == s.Family &&
		(dimension == "net" || p.IsSingleIP())
}

// dimensions are what a type's entries are made of; nil: an unknown type.
func dimensions(t netfilter.SetType) []string {
	switch t {
	case netfilter.HashIP, netfilter.HashNet, netfilter.HashIPPort, netfilter.HashIPPortIP, netfilter.HashIPPortNet:
		return strings.Split(strings.TrimPrefix(string(t), "hash:"), ",")
	}
	return nil
}

// each applies fn to all items; nil when none failed.
func each[T any](items []T, fn func(T) error) []error {
	errs := make([]error, len(items))
	failed := false
	for i, item := range items {
		errs[i] = fn(item)
		failed = failed || errs[i] != nil
	}
	if !failed {
		return nil
	}
	return errs
}

// Dump is everything the kernel holds, sorted, as a test compares it and a
// person reads it: sets with their entries, then each table's non-empty
// chains.
func (k *Kernel) Dump() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(k.sets)) {
		s := k.sets[name]
		fmt.Fprintf(&b, "set %s %s\n", name, s.Type)
		for _, e := range s.sorted() {
			fmt.Fprintf(&b, "  %s", e)
			if s.members[e] {
				b.WriteString(" nomatch")
			}
			b.WriteByte('\n')
		}
	}
	k.rules.dump(&b)
	return b.String()
}
