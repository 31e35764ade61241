package topo

import (
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// Tool runs one of the system's tools in the host's namespace and returns what
// it printed. It does without `ip netns exec` between, which costs as much
// again; tools that need their own /sys are for Run.
func (h *Host) Tool(name string, args ...string) (string, error) {
	var out []byte
	err := h.Do(func() (err error) {
		out, err = exec.Command(name, args...).Output()
		return err
	})
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("topo: %s %s on %q: %w: %s", name, strings.Join(args, " "), h.Name, err, exit.Stderr)
	}
	return string(out), err
}

// Tables is all that anybody has in a host's kernel tables, as text that is the
// same when the tables are: the lines, by the tool that says them.
type Tables map[string][]string

// tableTool says it.
type tableTool struct {
	name, command string
	ordered       bool // whether the order of lines means something
}

func tableTools() []tableTool {
	return []tableTool{
		{"ipvsadm", "ipvsadm -Sn", false},
		{"iptables", "iptables-save", true},
		{"ip6tables", "ip6tables-save", true},
		{"ipset", "ipset save", false},
		{"addresses", "ip -o addr | sed 's/^[0-9]*: //'", false},
		{"local routes", "ip route show table local; ip -6 route show table local", false},
	}
}

// noise is what differs between equal tables: counters, comments with the time,
// a set's seed and size; built-in chains, as a table that was never used is as
// good as an empty one.
var noise = regexp.MustCompile(`^#.*|^COMMIT$|^\*.*|^:(PREROUTING|INPUT|FORWARD|OUTPUT|POSTROUTING) .*| \[\d+:\d+\]| initval \S+| hashsize \d+`)

// Tables reads the host's tables.
func (h *Host) Tables() (Tables, error) {
	var script strings.Builder
	for _, s := range tableTools() {
		fmt.Fprintf(&script, "echo '== %s'; %s\n", s.name, s.command)
	}
	out, err := h.Tool("sh", "-ec", script.String())
	if err != nil {
		return nil, err
	}
	tables := parseTables(out)
	for _, s := range tableTools() {
		if !s.ordered {
			slices.Sort(tables[s.name])
		}
	}
	// Empty chains come in an order of their own, and rules that exclude each
	// other in any.
	for _, name := range []string{"iptables", "ip6tables"} {
		slices.SortStableFunc(tables[name], func(a, b string) int {
			return strings.Compare(place(a), place(b))
		})
	}
	return tables, nil
}

func parseTables(out string) Tables {
	tables, table, name := Tables{}, "", ""
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, " \n")
		if section, ok := strings.CutPrefix(line, "== "); ok {
			name, table = section, ""
			continue
		}
		if t, ok := strings.CutPrefix(line, "*"); ok {
			table = t + " "
		}
		line = strings.TrimRight(noise.ReplaceAllString(line, ""), " ")
		if line != "" && !second(line) {
			tables[name] = append(tables[name], table+line)
		}
	}
	return tables
}

// second reports whether a route is the one the kernel makes of an IPv4
// address whose route of sluice's is there already, as when somebody takes the
// address away and sluice puts it back. It stands behind that and has no use.
func second(line string) bool {
	f := strings.Fields(line)
	return len(f) > 9 && f[0] == "local" && f[3] == "sluice0" && f[1] == f[9]
}

// place is where a line of iptables-save belongs: after those of other chains,
// and with the rules that map addresses, of which one at most matches, in the
// order of their text.
func place(line string) string {
	if strings.Contains(line, "--comment sluice-mapping ") {
		return chainOf(line) + " " + line
	}
	return chainOf(line)
}

// chainOf is the table and chain of a line of iptables-save.
func chainOf(line string) string {
	f := strings.Fields(strings.Replace(line, " :", " -N ", 1))
	if len(f) < 3 {
		return line
	}
	return f[0] + " " + f[2]
}

// Has reports whether one of a tool's lines has a word.
func (t Tables) Has(tool, word string) bool {
	return slices.ContainsFunc(t[tool], func(line string) bool {
		words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" ,/\\", r) })
		return slices.Contains(words, word)
	})
}

// Same says how the host's tables now differ from t.
func (t Tables) Same(h *Host) error {
	now, err := h.Tables()
	if err != nil {
		return err
	}
	for _, part := range tableTools() {
		want, have := t[part.name], now[part.name]
		if slices.Equal(want, have) {
			continue
		}
		if d := Difference(want, have); d != "" {
			return fmt.Errorf("%s: %s differ:%s", h.Name, part.name, d)
		}
		return fmt.Errorf("%s: %s are in another order:\n%s\nnot\n%s", h.Name, part.name, strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
	return nil
}

// Difference is the lines of one list that the other lacks; "" is none.
func Difference(want, have []string) string {
	var b strings.Builder
	for _, l := range want {
		if !slices.Contains(have, l) {
			fmt.Fprintf(&b, "\n  missing: %s", l)
		}
	}
	for _, l := range have {
		if !slices.Contains(want, l) {
			fmt.Fprintf(&b, "\n  extra:   %s", l)
		}
	}
	return b.String()
}
