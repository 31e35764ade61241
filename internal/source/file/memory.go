package file

import (
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source"
	"sluice.dev/sluice/internal/source/convert"
)

const (
	// chunk is how many parts one goroutine decodes at a time.
	chunk = 64
	// maxFaults is how many mistakes of one file are told.
	maxFaults = 10
)

// memory is what the files said and what was told of it.
//
//	files       what each file last said, and its objects' last good state
//	told        key -> object: what the sink has
//	complaints  the problems the sink was told of and that still stand
type memory struct {
	decoder    decoder
	seed       maphash.Seed
	files      []*file // in order of their paths
	told       map[any]*object
	complaints map[model.Problem]struct{}
}

// file is one file.
type file struct {
	path    string
	looked  bool                 // sum is of a text that was looked at
	sum     uint64               // of the last text
	parts   map[uint64][]*object // what parts mean, by the hash of their text
	objects []*object            // of the last good text
	good    bool                 // there has been one
	faults  []fault              // of the last text; none: it is good
	depends []*object            // those among objects that have password files
}

// change is what was new in the files.
type change struct {
	changed int // files
	decoded int // parts
	busy    bool
	bad     []*file
	mended  []string
}

// reading is a changed file on its way.
type reading struct {
	file   *file
	data   []byte
	parts  []part
	sums   []uint64
	result [][]*object
	faults [][]fault
}

func newMemory(d decoder) *memory {
	return &memory{decoder: d, seed: maphash.MakeSeed(), told: map[any]*object{}, complaints: map[model.Problem]struct{}{}}
}

// take takes what the files now say. Files that are not among texts are gone.
func (m *memory) take(texts []text) change {
	known := make(map[string]*file, len(m.files))
	for _, f := range m.files {
		known[f.path] = f
	}
	var c change
	var readings []*reading
	m.files = m.files[:0:0]
	for _, t := range texts {
		f := known[t.path]
		delete(known, t.path)
		if f == nil {
			f = &file{path: t.path}
		}
		m.files = append(m.files, f)
		if r := m.look(f, t, &c); r != nil {
			readings = append(readings, r)
		}
	}
	c.changed += len(known) + len(readings)
	c.decoded = m.decode(readings)
	for _, r := range readings {
		m.finish(r, &c)
	}
	return c
}

// look compares a file's text with what was there before, and begins reading it
// when it changed.
func (m *memory) look(f *file, t text, c *change) *reading {
	if errors.Is(t.err, errBusy) {
		c.busy = true
		return nil
	}
	if t.err != nil {
		if faults := []fault{{reason: t.err.Error()}}; !slices.Equal(f.faults, faults) {
			f.looked, f.faults = false, faults
			c.changed++
			c.bad = append(c.bad, f)
		}
		return nil
	}
	sum := maphash.Bytes(m.seed, t.data)
	if f.looked && f.sum == sum && !f.stale() {
		return nil
	}
	f.looked, f.sum = true, sum
	return m.begin(f, t.data, true)
}

// stale reports whether a file that an object depends on has changed, and forgets
// what it said. As long as the text itself has faults its last good state stays.
func (f *file) stale() bool {
	stale := false
	for _, o := range f.depends {
		if len(f.faults) > 0 || !o.password.changed() {
			continue
		}
		stale = true
		maps.DeleteFunc(f.parts, func(_ uint64, objects []*object) bool { return slices.Contains(objects, o) })
	}
	return stale
}

// depends reports whether some object depends on a file.
func (m *memory) depends(path string) bool {
	return slices.ContainsFunc(m.files, func(f *file) bool {
		return slices.ContainsFunc(f.depends, func(o *object) bool { return o.password.path == path })
	})
}

func (m *memory) begin(f *file, data []byte, haste bool) *reading {
	r := &reading{file: f, data: data, parts: split(data, haste)}
	r.sums = make([]uint64, len(r.parts))
	r.result = make([][]*object, len(r.parts))
	r.faults = make([][]fault, len(r.parts))
	for i, p := range r.parts {
		r.sums[i] = maphash.Bytes(m.seed, p.text)
		if p.item { // the same text means something else in another list
			r.sums[i] ^= maphash.String(m.seed, p.of.APIVersion+" "+p.of.Kind)
		}
	}
	return r
}

// decode decodes the parts whose text is new, on all processors, and returns
// how many they were.
func (m *memory) decode(readings []*reading) int {
	type job struct {
		r *reading
		i int
	}
	var jobs []job
	for _, r := range readings {
		for i, sum := range r.sums {
			objects, known := r.file.parts[sum]
			r.result[i] = objects
			if !known {
				jobs = append(jobs, job{r, i})
			}
		}
	}
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for some := range slices.Chunk(jobs, chunk) {
		group.Go(func() error {
			for _, j := range some {
				j.r.result[j.i], j.r.faults[j.i] = m.decoder.part(j.r.parts[j.i])
			}
			return nil
		})
	}
	_ = group.Wait()
	return len(jobs)
}

// finish takes what a reading found into its file, as a whole or not at all.
func (m *memory) finish(r *reading, c *change) {
	faults := r.allFaults()
	if len(faults) > 0 && slices.ContainsFunc(r.parts, func(p part) bool { return p.item || p.json }) {
		// Perhaps it was cut where it may not be. In any case the whole
		// tells more of what is wrong.
		r = m.begin(r.file, r.data, false)
		c.decoded += m.decode([]*reading{r})
		faults = r.allFaults()
	}
	f := r.file
	parts := make(map[uint64][]*object, len(r.parts))
	for i, sum := range r.sums {
		if len(r.faults[i]) == 0 {
			parts[sum] = r.result[i]
		}
	}
	if len(faults) > 0 {
		maps.Copy(parts, f.parts) // the last good ones will be wanted
		f.parts, f.faults = parts, faults
		c.bad = append(c.bad, f)
		return
	}
	if len(f.faults) > 0 {
		c.mended = append(c.mended, f.path)
	}
	f.parts, f.objects, f.faults, f.good = parts, slices.Concat(r.result...), nil, true
	f.depends = nil
	for _, o := range f.objects {
		if o.password != nil {
			f.depends = append(f.depends, o)
		}
	}
}

// allFaults are what is wrong with the text, in the order of its lines.
func (r *reading) allFaults() []fault {
	faults := slices.Concat(r.faults...)
	if blank(r.data) {
		faults = []fault{{reason: "the file is empty; to delete its objects delete the file, or leave a comment in it"}}
	}
	slices.SortStableFunc(faults, func(a, b fault) int { return cmp.Compare(a.line, b.line) })
	return faults
}

// neverGood are the files that have not been good yet.
func (m *memory) neverGood() []string {
	var paths []string
	for _, f := range m.files {
		if !f.good {
			paths = append(paths, f.path)
		}
	}
	return paths
}

// events are what has changed since the last call.
func (m *memory) events() []model.Event {
	var events []model.Event
	tell := func(e model.Event) {
		e.Source = source.File
		events = append(events, e)
	}
	winners, problems := m.winners()
	now := make(map[any]*object, len(winners))
	for _, w := range winners {
		if before := m.told[w.key]; w.keeps && before != nil {
			now[w.key] = before
		} else if w.put != nil {
			now[w.key] = w
		}
	}
	pods, others := m.gone(now)
	for _, key := range pods { // before another of its name, or with its addresses, is told
		tell(model.Event{Delete: key})
	}
	for _, w := range winners {
		if w.put != nil && m.told[w.key] != w {
			tell(model.Event{Put: w.put})
		}
	}
	for _, key := range others {
		tell(model.Event{Delete: key})
	}
	m.told = now
	standing := make(map[model.Problem]struct{}, len(problems))
	for _, p := range problems {
		_, again := standing[p]
		_, before := m.complaints[p]
		standing[p] = struct{}{}
		if !again && !before {
			tell(model.Event{Problem: &p})
		}
	}
	m.complaints = standing
	return events
}

// gone are the keys of what was told and is not there any more.
func (m *memory) gone(now map[any]*object) (pods, others []any) {
	for key := range m.told {
		if now[key] != nil {
			continue
		}
		if _, isPod := key.(model.PodKey); isPod {
			pods = append(pods, key)
		} else {
			others = append(others, key)
		}
	}
	return pods, others
}

// winners are the objects that count, of each the first in the order of the
// files, and the problems of all files and objects.
func (m *memory) winners() (winners []*object, problems []model.Problem) {
	first := make(map[any]*file, len(m.told))
	for _, f := range m.files {
		for _, fault := range f.faults[:min(len(f.faults), maxFaults)] {
			problems = append(problems, problem(f.path, reasonFile,
				fault.String(f.path)+"; the last good state of the file stays; correct or remove it"))
		}
		for _, o := range f.objects {
			slot := o.slot()
			if other, taken := first[slot]; taken {
				problems = append(problems, twice(o.key, f, other))
				continue
			}
			first[slot] = f
			winners = append(winners, o)
			for _, p := range o.problems {
				p.Message += " (in " + filepath.Base(f.path) + ")"
				problems = append(problems, p)
			}
		}
	}
	return winners, problems
}

// slot is what only one object of all files can have: its kind and name.
func (o *object) slot() any {
	if pod, ok := o.key.(model.PodKey); ok {
		return model.PodKey{Name: pod.Name}
	}
	return o.key
}

func twice(key any, second, first *file) model.Problem {
	where := "is already in " + first.path
	if second == first {
		where = "stands there twice"
	}
	return problem(second.path, reasonTwice, fmt.Sprintf("%s: %s %s, which counts; remove one of them", second.path, nameOfKey(key), where))
}

func nameOfKey(key any) string {
	switch k := key.(type) {
	case model.ServiceKey:
		return convert.ServiceKind + " " + k.Name.String()
	case model.EndpointSliceKey:
		return convert.EndpointSliceKind + " " + k.Name.String()
	case model.NodeKey:
		return convert.NodeKind + " " + k.Name
	case model.SecretKey:
		return convert.SecretKind + " " + k.Name
	case model.NamespaceKey:
		return convert.NamespaceKind + " " + k.Name
	case model.AddressPoolKey:
		return convert.AddressPoolKind + " " + k.Name
	case model.PeerKey:
		return convert.BGPPeerKind + " " + k.Name
	case model.PodKey:
		return convert.PodKind + " " + k.Name.String()
	case model.NetworkPolicyKey:
		return convert.NetworkPolicyKind + " " + k.Name.String()
	case model.AdvertisementKey:
		return convert.BGPAdvertisementKind + " " + k.Name
	}
	return fmt.Sprint(key)
}

// blank reports whether a text holds nothing at all, not even a comment.
func blank(data []byte) bool {
	for _, c := range data {
		if c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			return false
		}
	}
	return true
}
