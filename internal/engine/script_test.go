package engine_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source"
	"sluice.dev/sluice/internal/source/file"
)

// script is a history told in testdata: a text that says what it shows, and
// sections, each a step or what a table holds then. The form is that of
// golang.org/x/tools/txtar. The steps:
//
//	options    of the agent, on the first line: "nodeCIDR", "IPv4"
//	put        Kubernetes objects, in the YAML that the file source reads
//	delete     "Service web", "EndpointSlice web-x", "Node node2", one a line
//	local      the addresses that the host's interfaces have
//	connect    "TCP 10.96.0.1:80 -> 10.1.2.1:8080 3": so many connections there
//	sleep      for so long
//	meddle     what others do to the tables; see hands.meddle
//	restart    of the agent
//	cleanup    the agent stops, and `sluice cleanup` runs
//
// and the tables: ipvs, vip, sets, shortcuts and rules (see hands), health (see
// world.health), problems ("default/web FrontendInUse") and writes, which is
// what has been written since the last step.
//
// Before the first step there is the Node node1, in zone a, with the addresses
// 192.0.2.10 and fd00:a::10. The agent audits its tables every 30 seconds.
type script struct {
	name     string
	options  []string
	sections []section
}

// section is one step, or what one table holds.
type section struct {
	verb  string
	text  string
	line  int
	facts []any // put, delete, local
}

// preamble is told before the first step.
const preamble = `apiVersion: v1
kind: Node
metadata: {name: node1, labels: {topology.kubernetes.io/zone: a}}
status: {addresses: [{type: InternalIP, address: 192.0.2.10}, {type: InternalIP, address: "fd00:a::10"}]}
`

// scripts are those of testdata.
func scripts(t *testing.T) (all []script) {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, parseScript(t, path, string(data)))
	}
	return all
}

func parseScript(t *testing.T, path, data string) script {
	t.Helper()
	s := script{name: strings.TrimSuffix(filepath.Base(path), ".txtar")}
	n := 0
	for line := range strings.Lines(data) {
		n++
		if verb, ok := heading(line); ok {
			s.sections = append(s.sections, section{verb: verb, line: n})
		} else if last := len(s.sections) - 1; last >= 0 {
			s.sections[last].text += line
		}
	}
	for i := range s.sections {
		c := &s.sections[i]
		switch c.verb {
		case "put":
			c.facts = decode(t, fmt.Sprintf("%s:%d", path, c.line), c.text)
		case "delete":
			for _, line := range fields(c.text) {
				c.facts = append(c.facts, keyNamed(line))
			}
		case "local":
			c.facts = []any{model.LocalAddrs{Addrs: addrs(strings.Fields(c.text)...)}}
		case "options":
			s.options = strings.Fields(c.text)
		}
	}
	return s
}

// heading is the name of a section: "-- name --".
func heading(line string) (name string, ok bool) {
	line = strings.TrimSuffix(line, "\n")
	rest, begins := strings.CutPrefix(line, "-- ")
	name, ends := strings.CutSuffix(rest, " --")
	return strings.TrimSpace(name), begins && ends
}

// fields are a text's lines that are not empty.
func fields(text string) (out []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out
}

// decode reads objects as the file source does: by the file source.
func decode(t *testing.T, where, text string) (facts []any) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "objects.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := file.New(file.Options{Dir: dir}).Run(ctx, source.SinkFunc(func(e model.Event) {
		switch {
		case e.Problem != nil:
			t.Errorf("%s: %s", where, e.Problem.Message)
			cancel()
		case e.Synced:
			cancel()
		default:
			facts = append(facts, e.Put)
		}
	}))
	if err != nil || len(facts) == 0 {
		t.Fatalf("%s: no objects: %v", where, err)
	}
	return facts
}

// keyNamed is the key of "Service web".
func keyNamed(text string) any {
	kind, n, _ := strings.Cut(text, " ")
	switch kind {
	case "Service":
		return model.ServiceKey{Name: name(n)}
	case "EndpointSlice":
		return model.EndpointSliceKey{Name: name(n)}
	}
	return model.NodeKey{Name: n}
}

// objectOf is the object that a fact is about.
func objectOf(fact any) string {
	switch f := fact.(type) {
	case model.Service:
		return "Service " + f.Name.String()
	case model.ServiceKey:
		return "Service " + f.Name.String()
	case model.EndpointSlice:
		return "EndpointSlice " + f.Name.String()
	case model.EndpointSliceKey:
		return "EndpointSlice " + f.Name.String()
	case model.Node:
		return "Node " + f.Name
	case model.NodeKey:
		return "Node " + f.Name
	}
	return "local"
}

// memoryless reports whether where a script ends depends on its last facts
// alone.
func (s script) memoryless() bool {
	return !slices.ContainsFunc(s.sections, func(c section) bool {
		return slices.Contains([]string{"connect", "meddle", "restart", "cleanup"}, c.verb)
	})
}

// tables are what scripts show of the kernel.
func tables() []string { return []string{"ipvs", "vip", "sets", "shortcuts", "rules"} }

// isTable reports whether a section says what there is, rather than what to do.
func (c section) isTable() bool {
	return slices.Contains(tables(), c.verb) || slices.Contains([]string{"health", "problems", "writes"}, c.verb)
}

// stage is where a script is played.
type stage interface {
	tell(facts []any)
	step(t *testing.T, c section)
	// settle waits until nothing moves any more, or what is waited for has
	// come; it asks for that at least once.
	settle(t *testing.T, done func() bool)
	// text is what a table holds.
	text(t *testing.T, table string) string
}

// play goes through a script.
func (s script) play(t *testing.T, on stage) {
	t.Helper()
	for i, c := range s.sections {
		switch {
		case c.verb == "options":
		case len(c.facts) > 0:
			on.tell(c.facts)
		case !c.isTable():
			on.step(t, c)
		default:
			s.check(t, on, i)
		}
	}
}

// check compares a table with its section. The tables that follow each other in
// a script are all of one moment.
func (s script) check(t *testing.T, on stage, i int) {
	t.Helper()
	c := s.sections[i]
	want := unindent(c.text)
	var got string
	on.settle(t, func() bool {
		got = on.text(t, c.verb)
		return got == want
	})
	if got != want {
		t.Errorf("testdata/%s.txtar:%d: %s\n%s\nwant\n%s", s.name, c.line, c.verb, got, want)
	}
}

// fakes is a stage of fakes in virtual time.
type fakes struct {
	w *world
	r *run
	e *expect
	c conditions

	way    way
	chaos  *chaos
	others bool // the order is others' to break
	synced bool
	last   map[string]any // facts by object
	order  []string       // of the objects
}

// way is how a script's facts are told.
type way struct {
	name                     string
	reversed, doubled, split bool
	faults                   float64 // of the kernel's calls
	seed                     uint64
}

func newFakes(t *testing.T, s script, w way) *fakes {
	t.Helper()
	f := &fakes{w: newWorld(), way: w, last: map[string]any{}}
	f.e = newExpect(f.w)
	f.c = conditions{sources: 1, audit: 30 * time.Second, nodeCIDR: slices.Contains(s.options, "nodeCIDR")}
	if slices.Contains(s.options, "IPv4") {
		f.c.families = []model.Family{model.IPv4}
	}
	if w.faults > 0 {
		f.chaos = newChaos(w.seed, w.faults)
		f.chaos.strike(f.w)
	}
	f.r = f.w.start(t, f.c)
	return f
}

func (f *fakes) tell(facts []any) {
	facts, f.others = slices.Clone(facts), false
	f.w.locked(func() { f.w.log = nil })
	if f.way.reversed {
		seen := map[string]bool{}
		for _, fact := range facts {
			seen[objectOf(fact)] = true
		}
		if len(seen) == len(facts) {
			slices.Reverse(facts)
		}
	}
	for _, fact := range facts {
		o := objectOf(fact)
		if _, known := f.last[o]; !known {
			f.order = append(f.order, o)
		}
		f.last[o] = fact
		f.e.tell(o, fact)
		f.r.tell(fact)
		if f.way.doubled {
			f.r.tell(fact)
		}
		if f.way.split {
			quiet()
		}
	}
	f.sync()
}

// sync says once that all is told: with the first step's facts.
func (f *fakes) sync() {
	if !f.synced && len(f.last) > 1 {
		f.synced = true
		f.r.tell(synced)
	}
}

func (f *fakes) step(t *testing.T, c section) {
	t.Helper()
	f.settle(t, anything)
	f.w.locked(func() { f.w.log = nil })
	switch c.verb {
	case "sleep":
		d, err := time.ParseDuration(strings.TrimSpace(c.text))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(d)
	case "connect":
		for _, line := range fields(c.text) {
			f.connect(t, strings.Fields(line))
		}
	case "meddle":
		f.meddle(t, fields(c.text))
	case "restart":
		f.r.stop()
		f.r, f.synced = f.w.start(t, f.c), false
		var facts []any
		for _, o := range f.order {
			facts = append(facts, f.last[o])
		}
		f.tell(facts)
	case "cleanup":
		f.r.stop()
		f.w.calm()
		f.r = f.w.start(t, conditions{cleanup: true})
	default:
		t.Fatalf("line %d: no step %q", c.line, c.verb)
	}
	quiet()
}

func (f *fakes) connect(t *testing.T, words []string) {
	t.Helper()
	k, err := serverKey(words[0], words[1], words[3])
	n := 0
	if err == nil {
		_, err = fmt.Sscan(words[4], &n)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.w.table.Connect(k, uint32(n))
}

func (f *fakes) meddle(t *testing.T, lines []string) {
	t.Helper()
	f.w.quietly(func() {
		for _, line := range lines {
			if err := f.w.hands().meddle(t.Context(), line); err != nil {
				t.Error(err)
			}
			if words := strings.Fields(line); words[0] == "ipvs" && words[1] == "create" {
				if k, err := serverKey(words[2], words[3], ""); err == nil && !f.w.last.members[frontend(k.Addr, k.Protocol)] {
					f.w.foreign[k.VirtualServer] = true
				}
			}
		}
		f.w.last, f.others = f.w.look(), true
	})
}

// settle waits out retries, audits and answers under way.
func (f *fakes) settle(t *testing.T, done func() bool) {
	t.Helper()
	if f.chaos != nil {
		f.w.calm()
		time.Sleep(time.Minute)
	}
	time.Sleep(2 * time.Second)
	quiet()
	f.e.quiet(f.r)
	if f.others {
		f.w.locked(func() { f.w.breach = nil })
	}
	f.w.orderly(t, f.way.name)
	done()
	if f.chaos != nil {
		f.chaos.strike(f.w)
	}
}

// anything is what to wait for when nothing is.
func anything() bool { return true }

func (f *fakes) text(t *testing.T, table string) (text string) {
	t.Helper()
	switch table {
	case "health":
		return f.w.health()
	case "problems":
		told := f.r.told.take()
		if f.chaos != nil { // listening fails too, and that is told
			told = slices.DeleteFunc(told, func(p string) bool { return strings.HasSuffix(p, " FailedToStartServiceHealthcheck") })
		}
		return joined(told)
	case "writes":
		f.w.locked(func() { text = joined(f.w.log) })
		if f.way.plain() {
			return text
		}
		return ""
	}
	f.w.quietly(func() {
		var err error
		if text, err = f.w.hands().text(t.Context(), table); err != nil {
			t.Errorf("%s: %v", table, err)
		}
	})
	return text
}

func (w way) plain() bool { return !w.reversed && !w.doubled && !w.split && w.faults == 0 }

// hands reach into the fakes.
func (w *world) hands() hands {
	return hands{table: w.table, sets: w.filter, runner: w.filter, backend: "-legacy", links: w.links}
}

// calm ends all faults.
func (w *world) calm() { w.locked(func() { w.fault, w.lost = nil, nil }) }

// quietly runs f while no operation is under way, unseen and without faults.
func (w *world) quietly(f func()) {
	w.locked(func() {
		w.looking = true
		defer func() { w.looking = false }()
		f()
	})
}

// whole is what all tables hold.
func (f *fakes) whole(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, table := range append(tables(), "health") {
		b.WriteString("-- " + table + " --\n" + f.text(t, table))
	}
	return b.String()
}
