package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// story is what the demo tells, and what it has counted for the summary.
type story struct {
	out      io.Writer
	began    time.Time
	chapters int

	answered, failed int // requests
	facts            []string
}

func (s *story) chapter(title string) {
	s.chapters++
	fmt.Fprintf(s.out, "\n== %d. %s\n", s.chapters, title)
}

// say prints a line of progress with the time since the beginning.
func (s *story) say(format string, args ...any) {
	fmt.Fprintf(s.out, "   %5.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// quote prints a program's output, or a file.
func (s *story) quote(text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(s.out, "          | %s\n", strings.TrimRight(line, " \n"))
	}
}

// fact keeps a line for the summary.
func (s *story) fact(format string, args ...any) {
	s.facts = append(s.facts, fmt.Sprintf(format, args...))
}

// count takes a tally into the sums. A request that failed is an error.
func (s *story) count(t *tally) error {
	answered, failed := t.counts()
	s.answered += answered
	s.failed += failed
	if failed > 0 {
		return fmt.Errorf("%d of %d requests failed, the first: %w", failed, failed+answered, t.first)
	}
	return nil
}

func (s *story) summary() {
	fmt.Fprintf(s.out, "\n== Summary\n")
	for _, f := range s.facts {
		fmt.Fprintf(s.out, "   %s\n", f)
	}
	fmt.Fprintf(s.out, "   %d requests answered, %d failed\n", s.answered, s.failed)
	fmt.Fprintf(s.out, "   %.0f seconds in all\n", time.Since(s.began).Seconds())
}
