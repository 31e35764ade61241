package status

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteState writes the loops as a table, the failing keys below it.
func WriteState(w io.Writer, loops []Loop, now time.Time) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TABLE\tWANTED\tPRESENT\tDIRTY\tDRAINING\tFAILING\tDRIFT\tSYNCED\tLAST APPLIED")
	for _, l := range loops {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%t\t%s\n", l.Table, l.Wanted, l.Present,
			l.Dirty, l.Draining, l.FailingCount, l.Work.Drift, l.Synced, ago(l.Work.LastApplied, now))
	}
	_ = t.Flush() // as good as the writer, whose errors are its owner's
	for _, l := range loops {
		for _, f := range l.Failing {
			fmt.Fprintf(w, "%s: %s: %s (%d tries, for %v)\n", l.Table, f.Key, f.Error, f.Tries, now.Sub(f.Since).Round(time.Second))
		}
		if more := l.FailingCount - len(l.Failing); more > 0 {
			fmt.Fprintf(w, "%s: and %d more\n", l.Table, more)
		}
	}
}

// WriteStatus writes how an agent is: in a few words, its tables, its sessions.
func WriteStatus(w io.Writer, s State) {
	fmt.Fprintf(w, "sluice %s on %s, serving %s\n", cmp.Or(s.Version, "?"), cmp.Or(s.Node, "?"), cmp.Or(strings.Join(s.Families, " and "), "?"))
	fmt.Fprintln(w, s.Health.words())
	for _, r := range s.Health.Reasons {
		fmt.Fprintf(w, "  %s\n", r)
	}
	if p := s.Policy; p == nil {
		fmt.Fprintln(w, "NetworkPolicy is not enforced")
	} else {
		fmt.Fprintf(w, "NetworkPolicy: %d policies isolate pods here, of %d pods %d for ingress and %d for egress\n",
			p.Policies, p.Pods, p.IsolatedIngress, p.IsolatedEgress)
	}
	fmt.Fprintln(w)
	WriteState(w, s.Loops, s.Time)
	for _, l := range s.Loops {
		if d := s.Time.Sub(l.BusySince); !l.BusySince.IsZero() && d >= time.Second {
			fmt.Fprintf(w, "%s: a kernel call has not returned for %v\n", l.Table, d.Round(time.Second))
		}
	}
	if s.BGP != nil && len(s.BGP.Peers)+len(s.BGP.Problems) > 0 {
		fmt.Fprintln(w)
		WritePeers(w, *s.BGP, s.Time, false)
	}
}

// words are the verdict as a line.
func (v Verdict) words() string {
	health, ready, use := "healthy", "ready", "load balancers may use this node"
	if !v.Healthy {
		health = "not healthy"
	}
	if !v.Ready {
		ready = "not ready (" + v.NotReady + ")"
	}
	if !v.Eligible {
		use = "load balancers are to leave this node"
	}
	return health + ", " + ready + ", " + use
}

func ago(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return now.Sub(t).Round(time.Millisecond).String() + " ago"
}
