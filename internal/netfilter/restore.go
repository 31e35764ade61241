package netfilter

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// tableText builds the input of iptables-restore for one table.
type tableText struct {
	declare, rules []string
}

// chain replaces a chain, or makes it: with --noflush its declaration empties
// it and leaves all others alone.
func (t *tableText) chain(name string, spec Spec) {
	t.declare = append(t.declare, fmt.Sprintf(":%s - [0:0]", name))
	if spec.Rules == "" {
		return
	}
	comment := " -m comment --comment " + hashComment + hashOf(spec.Rules)
	for line := range strings.SplitSeq(spec.Rules, "\n") {
		t.rules = append(t.rules, "-A "+name+comment+" "+line)
		comment = ""
	}
}

// drop removes a chain. Its declaration makes the removal of an absent one
// succeed and has it let go of the chains it leads to.
func (t *tableText) drop(name string) {
	t.declare = append(t.declare, fmt.Sprintf(":%s - [0:0]", name))
	t.rules = append(t.rules, "-X "+name)
}

// mappings removes every copy of the mappings named in gone and in puts and
// adds those of puts. have is what the map holds now.
func (t *tableText) mappings(chain string, have []mapping, w *mapWork) {
	for _, is := range have {
		_, put := w.puts[is.entry]
		if _, gone := w.gone[is.entry]; put || gone {
			t.rules = append(t.rules, "-D "+chain+" "+is.text)
		}
	}
	for e, spec := range w.puts {
		t.rules = append(t.rules, "-A "+chain+" -m comment --comment "+mappingComment+" "+mappingRule(e, spec.To).Render(model.FamilyOf(spec.To.Addr())))
	}
}

// jumps removes every copy of the jumps to the chains named in gone and in
// puts and inserts those of puts where their order wants them. have is what
// the builtin chain holds now.
func (t *tableText) jumps(hook Hook, have []jump, puts map[string]int, gone map[string]bool) {
	var stay []int // the orders of our jumps that stay, from the top
	for _, j := range have {
		if _, put := puts[j.to]; put || gone[j.to] {
			t.rules = append(t.rules, "-D "+hook.String()+" "+j.text)
		} else if j.first {
			stay = append(stay, j.order)
		}
	}
	names := slices.SortedFunc(maps.Keys(puts), func(a, b string) int {
		return cmp.Or(cmp.Compare(puts[a], puts[b]), cmp.Compare(a, b))
	})
	for _, name := range names {
		at := 0
		for at < len(stay) && stay[at] <= puts[name] {
			at++
		}
		stay = slices.Insert(stay, at, puts[name])
		t.rules = append(t.rules, fmt.Sprintf("-I %s %d -m comment --comment %s%d -j %s",
			hook, at+1, orderComment, puts[name], name))
	}
}

// restore writes tables, each as a whole or not at all, and leaves what it
// does not name alone. It waits for the lock that the legacy programs share,
// but not for ever: others may hang while they hold it.
func restore(ctx context.Context, r Runner, program string, texts map[Table]*tableText) error {
	text := restoreText(texts)
	if len(text) == 0 {
		return nil
	}
	_, err := r.Run(ctx, text, program, "--noflush", "--wait=30")
	return err
}

// restoreText is the input for all tables that change.
func restoreText(texts map[Table]*tableText) []byte {
	var b bytes.Buffer
	for _, t := range tables() {
		text := texts[t]
		if text == nil || len(text.declare)+len(text.rules) == 0 {
			continue
		}
		fmt.Fprintf(&b, "*%s\n", t)
		for _, line := range slices.Concat(text.declare, text.rules) {
			b.WriteString(line)
			b.WriteByte('\n')
		}
		b.WriteString("COMMIT\n")
	}
	return b.Bytes()
}
