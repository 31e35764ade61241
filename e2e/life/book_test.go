package life

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// alertRules is where the alerts are.
const alertRules = "../../deploy/monitoring/rules.yaml"

// metric is what Prometheus's text format says of one.
type metric struct {
	kind, help string
	labels     []string // in the order of the text
}

// exposition is what programs show, by name.
type exposition map[string]metric

// read takes what one program shows.
func (e exposition) read(text string) {
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimSpace(line), " ", 4)
		switch {
		case len(f) == 4 && f[0] == "#":
			m := e[f[2]]
			if f[1] == "HELP" {
				m.help = f[3]
			} else {
				m.kind = f[3]
			}
			e[f[2]] = m
		case len(f) >= 2 && f[0] != "#":
			e.series(line)
		}
	}
}

// label is one of a series'.
var label = regexp.MustCompile(`([a-z_]+)="`)

func (e exposition) series(line string) {
	name, rest, labelled := strings.Cut(line, "{")
	if !labelled {
		return
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base := strings.TrimSuffix(name, suffix); e[base].kind == "histogram" {
			name = base
		}
	}
	m, there := e[name]
	if !there {
		return
	}
	for _, l := range label.FindAllStringSubmatch(rest, -1) {
		if l[1] != "le" && !slices.Contains(m.labels, l[1]) {
			m.labels = append(m.labels, l[1])
		}
	}
	e[name] = m
}

// heading is a metric's name and labels, as pages have them.
func (e exposition) heading(name string) string {
	if labels := e[name].labels; len(labels) > 0 {
		return "`" + name + "` {" + strings.Join(labels, ", ") + "}"
	}
	return "`" + name + "`"
}

// headings finds the first cell of each row about a metric.
var headings = regexp.MustCompile("(?m)^\\| (`[a-z_]+`(?: {.*?})?) \\|")

// lacks is the first metric that a page has a row of and programs do not show yet:
// many have no series, or not all labels, until something has happened.
func (e exposition) lacks(page string) error {
	for _, row := range headings.FindAllStringSubmatch(page, -1) {
		name, _, _ := strings.Cut(row[1][1:], "`")
		if _, shown := e[name]; !shown || e.heading(name) != row[1] {
			return fmt.Errorf("nobody shows %s yet", row[1])
		}
	}
	return nil
}

// alerts are the names of alerts with what they ask.
func alerts(rules string) map[string]string {
	found := map[string]string{}
	for _, m := range regexp.MustCompile(`(?s)- alert: (\w+)\n(.*?)\n +annotations:`).FindAllStringSubmatch(rules, -1) {
		found[m[1]] = m[2]
	}
	return found
}

// book is what a page tells of metrics.
type book struct {
	exposition
	alerts map[string]string
	told   map[string]bool
}

// table has a row for each metric that begins so and is in no table yet.
func (b *book) table(prefix string) string {
	var rows strings.Builder
	rows.WriteString("| metric | type | meaning | alerts |\n|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(b.exposition)) {
		if !strings.HasPrefix(name, prefix) || b.told[name] {
			continue
		}
		b.told[name] = true
		m := b.exposition[name]
		fmt.Fprintf(&rows, "| %s | %s | %s | %s |\n", b.heading(name), m.kind, m.help, b.alertsOf(name))
	}
	return strings.TrimRight(rows.String(), "\n")
}

// alertsOf are the alerts that ask for a metric.
func (b *book) alertsOf(name string) string {
	var list []string
	asks := regexp.MustCompile(`\b` + name + `(_bucket|_sum|_count)?\b`)
	for _, alert := range slices.Sorted(maps.Keys(b.alerts)) {
		if asks.MatchString(b.alerts[alert]) {
			list = append(list, alert)
		}
	}
	return strings.Join(list, ", ")
}

// left are the metrics that no table has. Those of the Go runtime and the process
// are as everywhere.
func (b *book) left() (names []string) {
	for _, name := range slices.Sorted(maps.Keys(b.exposition)) {
		if !b.told[name] && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") && !strings.HasPrefix(name, "promhttp_") {
			names = append(names, name)
		}
	}
	return names
}

func TestBook(t *testing.T) {
	e := exposition{}
	e.read("# HELP sluice_b What it is.\n# TYPE sluice_b histogram\nsluice_b_bucket{table=\"x\",le=\"1\"} 3\nsluice_b_sum{table=\"x\"} 3\n" +
		"# HELP sluice_a Another.\n# TYPE sluice_a counter\nsluice_a 1\n# HELP go_x Go.\n# TYPE go_x gauge\ngo_x{v=\"1\"} 1\n# HELP kubeproxy_c C.\n# TYPE kubeproxy_c gauge\nkubeproxy_c 1\n")
	b := &book{exposition: e, told: map[string]bool{}, alerts: alerts("  - alert: Bad\n    expr: rate(sluice_b_bucket[5m])\n    annotations:\n  - alert: Worse\n    expr: sluice_ab\n    annotations:\n")}
	const want = "| metric | type | meaning | alerts |\n|---|---|---|---|\n| `sluice_a` | counter | Another. |  |\n| `sluice_b` {table} | histogram | What it is. | Bad |"
	if got := b.table("sluice_"); got != want {
		t.Errorf("\n%s\nwant\n%s", got, want)
	}
	if err := e.lacks(want); err != nil {
		t.Error(err)
	}
	for _, row := range []string{"| `sluice_d` | counter | D. |  |", "| `sluice_a` {table} | counter | Another. |  |", "| `sluice_b` | histogram | What it is. | Bad |"} {
		if e.lacks(want+"\n"+row) == nil {
			t.Errorf("not missed: %s", row)
		}
	}
	if left := b.left(); !slices.Equal(left, []string{"kubeproxy_c"}) {
		t.Errorf("left: %q", left)
	}
}

// TestEveryAlertHasARemedy: docs/troubleshooting.md says what to do about it.
func TestEveryAlertHasARemedy(t *testing.T) {
	rules, err := os.ReadFile(alertRules)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join("testdata", "troubleshooting.md.tmpl"))
	if err != nil {
		t.Fatal(err)
	}
	names := alerts(string(rules))
	if len(names) < 5 {
		t.Errorf("%s has %d alerts", alertRules, len(names))
	}
	for name := range names {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("testdata/troubleshooting.md.tmpl does not say what to do about %s", name)
		}
	}
}
