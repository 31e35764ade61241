package netfilter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// Stripped is what became of chains of others.
type Stripped struct {
	Removed []string // as "IPv4 nat KUBE-SERVICES"
	// Kept are those that a rule of somebody else's chain leads to, and what
	// they lead to themselves.
	Kept []string
}

// Strip removes chains of others, with the rules of builtin chains that lead to
// them: each table of a family in one step, so that no packet meets half of
// them. gone says which chains, by name.
func Strip(ctx context.Context, r Runner, b Backend, families []model.Family, gone func(chain string) bool) (Stripped, error) {
	var did Stripped
	var errs []error
	for _, f := range families {
		texts := map[Table]*tableText{}
		var removed []string
		for _, t := range tables() {
			out, err := r.Run(ctx, nil, b.save(f), "-t", t.String())
			if err != nil {
				errs = append(errs, fmt.Errorf("read %s table %s: %w", f, t, err))
				continue
			}
			s := parseForeign(out, gone)
			texts[t] = s.strip()
			removed = append(removed, s.named(f, t, false)...)
			did.Kept = append(did.Kept, s.named(f, t, true)...)
		}
		if err := restore(ctx, r, b.restore(f), texts); err != nil {
			errs = append(errs, fmt.Errorf("remove chains of %s: %w", f, err))
			continue
		}
		did.Removed = append(did.Removed, removed...)
	}
	return did, errors.Join(errs...)
}

// foreign is what of a table is to go.
type foreign struct {
	chains map[string][]string // to chains that are to go: what they lead to
	jumps  []string            // as printed, without "-A ": rules of builtin chains to these
	kept   map[string]bool
}

// parseForeign reads what iptables-save printed of one table.
func parseForeign(out []byte, gone func(chain string) bool) foreign {
	s := foreign{chains: map[string][]string{}, kept: map[string]bool{}}
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSuffix(line, "\n")
		if name, declared := strings.CutPrefix(line, ":"); declared {
			if name, _, _ = strings.Cut(name, " "); gone(name) {
				s.chains[name] = nil
			}
			continue
		}
		rule, appended := strings.CutPrefix(line, "-A ")
		if !appended {
			continue
		}
		name, text, _ := strings.Cut(rule, " ")
		to := target(text)
		_, builtin := ParseHook(name)
		switch {
		case !gone(to) && !gone(name):
		case gone(name):
			s.chains[name] = append(s.chains[name], to)
		case builtin:
			s.jumps = append(s.jumps, rule)
		default:
			s.kept[to] = true
		}
	}
	// Whom a chain that stays leads to stays.
	for queue := slices.Collect(maps.Keys(s.kept)); len(queue) > 0; queue = queue[1:] {
		for _, to := range s.chains[queue[0]] {
			if gone(to) && !s.kept[to] {
				s.kept[to] = true
				queue = append(queue, to)
			}
		}
	}
	return s
}

// strip is the change: every chain is emptied before one is removed, because
// they lead to each other.
func (s foreign) strip() *tableText {
	t := &tableText{}
	for _, rule := range s.jumps {
		t.rules = append(t.rules, "-D "+rule)
	}
	for _, name := range slices.Sorted(maps.Keys(s.chains)) {
		if !s.kept[name] {
			t.drop(name)
		}
	}
	return t
}

// named are the chains that go, or those that stay.
func (s foreign) named(f model.Family, t Table, kept bool) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(s.chains)) {
		if s.kept[name] == kept {
			names = append(names, fmt.Sprintf("%s %s %s", f, t, name))
		}
	}
	return names
}
