//go:build lab

package cluster

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// tale is what a test prints as it goes on, and what it has counted.
type tale struct {
	t     *testing.T
	w     *world
	out   io.Writer
	began time.Time

	chapters int
	sums     []sum
}

// sum is a line of the summary.
type sum struct {
	what        string
	asked, lost int
}

// tell begins a tale. It is also written to the file that SLUICE_STORY names,
// below the directory that a guest may write in.
func tell(t *testing.T) *tale {
	t.Helper()
	s := &tale{t: t, w: shared, out: os.Stdout, began: time.Now()}
	if name := os.Getenv("SLUICE_STORY"); name != "" {
		if !filepath.IsAbs(name) {
			name = filepath.Join(os.Getenv("SLUICE_LAB_OUT"), name)
		}
		file, err := os.Create(name)
		s.must(err)
		t.Cleanup(func() { file.Close() })
		s.out = io.MultiWriter(os.Stdout, file)
	}
	return s
}

func (s *tale) chapter(title string) {
	s.chapters++
	fmt.Fprintf(s.out, "\n== %d. %s\n", s.chapters, title)
}

// say prints a line of progress with the time since the beginning.
func (s *tale) say(format string, args ...any) {
	fmt.Fprintf(s.out, "   %5.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// quote prints a program's output, or a file.
func (s *tale) quote(text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(s.out, "          | %s\n", strings.TrimRight(line, " \n"))
	}
}

// show runs a command on a host and prints what it says.
func (s *tale) show(h *topo.Host, program string, args ...string) {
	s.t.Helper()
	name := program
	if program == "sluice" {
		program = s.w.bin
	}
	out, err := h.Run(s.t.Context(), program, args...)
	if out == "" { // some say with their status what they say in words
		s.must(err)
	}
	s.say("%s: %s %s", h.Name, name, strings.Join(args, " "))
	s.quote(out)
}

// must ends the test, with what may say why.
func (s *tale) must(err error) {
	s.t.Helper()
	if err == nil {
		return
	}
	for name, lines := range map[string]int{"kubelet.log": 30, "sluice-*.log": 12} {
		files, _ := filepath.Glob(filepath.Join(s.w.logDir(), name))
		for _, f := range files {
			text, _ := os.ReadFile(f) // shown as far as it is there
			s.t.Logf("end of %s:\n%s", filepath.Base(f), suite.Tail(string(text), lines))
		}
	}
	s.t.Fatal(err)
}

// await waits until something is so.
func (s *tale) await(f func() error) {
	s.t.Helper()
	s.must(eventually(s.t.Context(), soon, f))
}

// since is the time that something took, for a line.
func since(begin time.Time) string {
	return fmt.Sprintf("%.1f s", time.Since(begin).Seconds())
}

// traffic is several loads at once.
type traffic struct {
	s     *tale
	loads []named
}

// named is a load with words for it.
type named struct {
	what string
	*topo.Load
}

// every is the time between two requests of a load.
const every = 40 * time.Millisecond

// end stops the loads and tells what became of them: of every request that was
// lost this is where it shows.
func (l *traffic) end(what string) {
	l.s.t.Helper()
	total := sum{what: what}
	for _, one := range l.loads {
		by := map[string]int{}
		var lost []topo.Request
		requests := one.End()
		for _, r := range requests {
			if r.Err != nil {
				lost = append(lost, r)
				continue
			}
			by[r.Pod[:strings.LastIndex(r.Pod, "-")]]++
		}
		var parts []string
		for _, kind := range slices.Sorted(maps.Keys(by)) {
			parts = append(parts, fmt.Sprintf("%s %d", kind, by[kind]))
		}
		l.s.say("%-44s %5d requests, %d lost; answered by %s", one.what, len(requests), len(lost), strings.Join(parts, ", "))
		for _, r := range lost[:min(3, len(lost))] {
			l.s.t.Errorf("%s: lost: %v", one.what, r)
		}
		if len(requests) < 20 {
			l.s.t.Errorf("%s: %d requests are no load to speak of", one.what, len(requests))
		}
		total.asked += len(requests)
		total.lost += len(lost)
	}
	l.s.sums = append(l.s.sums, total)
}

// close tells the sums.
func (s *tale) summary() {
	s.chapter("Summary")
	all := sum{what: "in all"}
	for _, one := range s.sums {
		all.asked += one.asked
		all.lost += one.lost
	}
	for _, one := range append(s.sums, all) {
		fmt.Fprintf(s.out, "   %-44s %6d requests, %d lost\n", one.what, one.asked, one.lost)
	}
	fmt.Fprintf(s.out, "   %.0f seconds\n", time.Since(s.began).Seconds())
}
