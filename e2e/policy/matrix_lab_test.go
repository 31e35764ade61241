//go:build lab

package policy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"sluice.dev/sluice/e2e/agent"
	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// lateMost is how long after the agents said that they are ready a connection
// may still be judged by what was before.
const lateMost = 2 * time.Second

// result is a line of the table that TestMatrix prints.
type result struct {
	name                    string
	probes, allowed, denied int
	kernel, explain         int // connections of which kernel or agent say otherwise than the case
	late                    int // of which the kernel said otherwise a moment before
	took                    time.Duration
}

// TestMatrix tries every case's complete matrix: by real connections, and by
// what the agent explains. It prints a table of all. SLUICE_LONG=1 takes all
// cases, else there is a selection with every feature.
func TestMatrix(t *testing.T) {
	w := enter(t)
	var results []result
	for _, c := range cases() {
		if !c.quick && os.Getenv("SLUICE_LONG") == "" {
			continue
		}
		for i, step := range c.steps() {
			name := c.name
			if i > 0 {
				name += ": " + step.name
			}
			t.Run(name, func(t *testing.T) {
				step.outside = c.outside
				w.apply(t, step)
				results = append(results, w.check(t, name, step))
			})
		}
	}
	t.Log(table(results))
}

func table(results []result) string {
	var b strings.Builder
	out := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "\nCASE\tPROBES\tALLOWED\tDENIED\tKERNEL DISAGREES\tEXPLAIN DISAGREES\tLATE\tTOOK")
	sum := result{name: fmt.Sprintf("%d cases and steps", len(results))}
	line := func(r result) {
		fmt.Fprintf(out, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%v\n", r.name, r.probes, r.allowed, r.denied, r.kernel, r.explain, r.late, r.took.Round(10*time.Millisecond))
	}
	for _, r := range results {
		line(r)
		sum.probes, sum.allowed, sum.denied = sum.probes+r.probes, sum.allowed+r.allowed, sum.denied+r.denied
		sum.kernel, sum.explain, sum.late, sum.took = sum.kernel+r.kernel, sum.explain+r.explain, sum.late+r.late, sum.took+r.took
	}
	line(sum)
	_ = out.Flush() // into memory
	return b.String()
}

// check compares kernel, agent and the case's words about a case that is in
// force.
func (w *world) check(t *testing.T, name string, c policyCase) result {
	t.Helper()
	r, err := parseReach(c.want)
	suite.Must(t, err)
	flows := matrix(c.outside)
	res := result{name: name, probes: len(flows)}
	begin := time.Now()
	got := w.try(t, flows)
	res.took = time.Since(begin)
	explained := w.explain(t, w.nodes[0], flows)
	var wrong []int
	for i, f := range flows {
		if want(r, f, got[i]) != nil {
			wrong = append(wrong, i)
		}
	}
	if len(wrong) > 0 {
		res.late = w.again(t, r, flows, got, wrong)
	}
	var faults []string
	for i, f := range flows {
		if got[i].Err == nil {
			res.allowed++
		} else {
			res.denied++
		}
		if err := want(r, f, got[i]); err != nil {
			res.kernel++
			faults = append(faults, err.Error())
		}
		if explained != nil && explained[i].Allowed != r.allows(f) {
			res.explain++
			faults = append(faults, fmt.Sprintf("%v: explained as allowed: %t %s, want %t", f, explained[i].Allowed, explained[i].Error, r.allows(f)))
		}
	}
	const most = 12
	for _, fault := range faults[:min(most, len(faults))] {
		t.Error(fault)
	}
	if len(faults) > most {
		t.Errorf("and %d more", len(faults)-most)
	}
	return res
}

// again tries what was wrong until it has come right, for a while: then it is
// not wrong, but late.
func (w *world) again(t *testing.T, r reach, flows []flow, got []topo.Outcome, wrong []int) (late int) {
	t.Helper()
	begin, first := time.Now(), want(r, flows[wrong[0]], got[wrong[0]])
	for len(wrong) > 0 && time.Since(begin) < lateMost {
		var list []flow
		for _, i := range wrong {
			list = append(list, flows[i])
		}
		var still []int
		for j, o := range w.try(t, list) {
			got[wrong[j]] = o
			if want(r, list[j], o) == nil {
				late++
			} else {
				still = append(still, wrong[j])
			}
		}
		wrong = still
	}
	if late > 0 {
		t.Logf("%d were late by up to %v, the first: %v", late, time.Since(begin).Round(time.Millisecond), first)
	}
	return late
}

// want says how an outcome differs from what is right: an answer of whom it was
// for, or a refusal.
func want(r reach, f flow, o topo.Outcome) error {
	if r.allows(f) {
		if o.Err != nil || o.Pod != hostName(f.to) {
			return fmt.Errorf("%v: %v, want it allowed", f, o)
		}
		return nil
	}
	if !errors.Is(o.Err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%v: %v, want it refused", f, o)
	}
	return nil
}

// address is where a connection goes.
func (w *world) address(f flow) netip.AddrPort {
	family := 0
	if f.six {
		family = 1
	}
	if f.vip {
		return netip.AddrPortFrom(vips(f.to)[family], vipPort(f.port))
	}
	return netip.AddrPortFrom(w.own(f.to, f.six), f.port)
}

func (w *world) own(a actor, six bool) netip.Addr {
	if six {
		return w.hosts[a].V6
	}
	return w.hosts[a].V4
}

// try makes connections, those of every source at the same time.
func (w *world) try(t *testing.T, flows []flow) []topo.Outcome {
	t.Helper()
	return w.tryFor(t, patience, flows)
}

// tryFor is try with a time after which silence is the answer.
func (w *world) tryFor(t *testing.T, patience time.Duration, flows []flow) []topo.Outcome {
	t.Helper()
	outcomes := make([]topo.Outcome, len(flows))
	bySource := map[actor][]int{}
	for i, f := range flows {
		bySource[f.from] = append(bySource[f.from], i)
	}
	var wg sync.WaitGroup
	for from, list := range bySource {
		wg.Go(func() {
			var probes []topo.Probe
			for _, i := range list {
				probes = append(probes, topo.Probe{Protocol: flows[i].protocol, To: w.address(flows[i])})
			}
			got, err := w.probers[from].Try(t.Context(), patience, probes)
			if err != nil {
				t.Error(err)
				return
			}
			for j, i := range list {
				outcomes[i] = got[j]
			}
		})
	}
	wg.Wait()
	return outcomes
}

// explain asks an agent about connections.
func (w *world) explain(t *testing.T, n *node, flows []flow) []agent.Verdict {
	t.Helper()
	questions := make([]agent.Question, len(flows))
	for i, f := range flows {
		to := w.address(f)
		questions[i] = agent.Question{From: w.own(f.from, f.six).String(), To: to.String(), Protocol: strings.ToUpper(f.protocol), Port: to.Port()}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	verdicts, err := n.Agent.Explain(ctx, questions)
	if err != nil {
		t.Fatal(err)
	}
	return verdicts
}
