package status

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"sluice.dev/sluice/internal/reconcile"
)

// WriteState writes the loops as a table, the failing keys below it.
func WriteState(w io.Writer, loops []reconcile.Status, now time.Time) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TABLE\tWANTED\tPRESENT\tDIRTY\tDRAINING\tFAILING\tDRIFT\tSYNCED\tLAST APPLIED")
	for _, s := range loops {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%t\t%s\n", s.Name, s.Wanted, s.Present,
			s.Puts+s.Dels-s.Deferred, s.Deferred, s.FailingCount, s.Drift, s.Synced, ago(s.LastApply, now))
	}
	_ = t.Flush() // as good as the writer, whose errors are its owner's
	for _, s := range loops {
		for _, f := range s.Failing {
			fmt.Fprintf(w, "%s: %s: %s (%d tries, for %v)\n", s.Name, f.Key, f.Error, f.Tries, now.Sub(f.Since).Round(time.Second))
		}
		if more := s.FailingCount - len(s.Failing); more > 0 {
			fmt.Fprintf(w, "%s: and %d more\n", s.Name, more)
		}
	}
}

func ago(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return now.Sub(t).Round(time.Millisecond).String() + " ago"
}
