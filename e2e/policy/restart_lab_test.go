//go:build lab

package policy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// watch tries the same connections again and again, some of which have to be
// allowed and some denied all the time.
type watch struct {
	w     *world
	flows []flow
	want  reach
	stop  chan struct{}
	done  sync.WaitGroup

	mu     sync.Mutex
	probes int
	faults []string
}

// watchEvery is how often each connection is tried.
const watchEvery = 250 * time.Millisecond

func (w *world) watch(t *testing.T, want string, flows []flow) *watch {
	t.Helper()
	r, err := parseReach(want)
	suite.Must(t, err)
	v := &watch{w: w, flows: flows, want: r, stop: make(chan struct{})}
	v.done.Go(func() {
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			select {
			case <-v.stop:
				return
			case <-tick.C:
			}
			v.round(t)
		}
	})
	t.Cleanup(func() { v.end(t) })
	return v
}

func (v *watch) round(t *testing.T) {
	t.Helper()
	begin := time.Now()
	got := v.w.try(t, v.flows)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.probes += len(got)
	for i, o := range got {
		if err := want(v.want, v.flows[i], o); err != nil {
			v.faults = append(v.faults, fmt.Sprintf("at %s: %v", begin.Format("15:04:05.000"), err))
		}
	}
}

// end stops the watch and reports what it saw. Ending again is fine.
func (v *watch) end(t *testing.T) {
	t.Helper()
	select {
	case <-v.stop:
		return
	default:
	}
	close(v.stop)
	v.done.Wait()
	t.Logf("%d probes, %d not as they had to be", v.probes, len(v.faults))
	for _, f := range v.faults[:min(10, len(v.faults))] {
		t.Error(f)
	}
}

// TestKilled: an agent that is killed at any moment and started again never
// opens what is denied and never stops what is allowed, be it a new connection
// or a long one.
func TestKilled(t *testing.T) {
	w := enter(t)
	// What changes meanwhile concerns others: z/c.
	const (
		base = `x: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}]}]}
y: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}, {namespaceSelector: {matchLabels: {ns: x}}}], ports: [{port: 80}, {port: 90}, {port: 80, protocol: UDP}, {port: 90, protocol: UDP}]}]}
`
		reach = `- * > x/*
			- x/* > *
			+ y/* > x/*
			- y/a > *
			+ y/a > x/*,y/* tcp:80,udp:80`
	)
	others := []string{
		`z: {podSelector: {matchLabels: {pod: c}}, ingress: [{from: [{podSelector: {}}]}]}`,
		`z: {podSelector: {matchLabels: {pod: c}}, policyTypes: [Ingress, Egress]}`,
		``,
	}
	w.apply(t, policyCase{policies: base, want: reach})
	var flows []flow
	for _, f := range matrix(false) {
		if f.protocol != topo.SCTP && f.from != "z/c" && f.to != "z/c" && (f.to == "x/a" || f.to == "x/b" || f.to == "y/b" || f.from == "y/a") {
			flows = append(flows, f)
		}
	}
	long := w.streams(t, every([2]actor{"y/a", "x/a"}, [2]actor{"y/b", "x/a"}, [2]actor{"y/b", "x/b"})...)
	v := w.watch(t, reach, flows)
	times := 3
	if os.Getenv("SLUICE_LONG") != "" {
		times = 30
	}
	for i := range times {
		n := w.nodes[i%len(w.nodes)]
		suite.Must(t, w.write(policyCase{policies: base + others[i%len(others)]}))
		// From before it notices to after it is done.
		time.Sleep(time.Duration(rand.IntN(600)) * time.Millisecond)
		suite.Must(t, n.Agent.Kill())
		if i%2 == 0 { // and sometimes it is away for a while
			time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
		}
		if i%3 == 2 {
			suite.Must(t, w.write(policyCase{policies: base + others[(i+1)%len(others)]}))
		}
		suite.Must(t, w.startOn([]*node{n}))
		w.settle(t)
		flowing(t, long)
	}
	v.end(t)
}

// TestNothingToDo: an agent that starts again finds everything as it should be
// and writes nothing.
func TestNothingToDo(t *testing.T) {
	w := enter(t)
	w.apply(t, policyCase{policies: `x: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}, {ipBlock: {cidr: 0.0.0.0/0, except: [10.244.0.0/16]}}], ports: [{port: web}, {port: 80, endPort: 90}]}]}
y: {podSelector: {matchLabels: {pod: a}}, ingress: []}`})
	for _, n := range w.nodes {
		was, err := n.Tables()
		suite.Must(t, err)
		suite.Must(t, n.Agent.Kill())
		suite.Must(t, w.startOn([]*node{n}))
		if err := was.Same(n.Host); err != nil {
			t.Errorf("restarted: %v", err)
		}
		written, err := n.Agent.Metric(t.Context(), "sluice_table_writes_total", map[string]string{"table": "netfilter"})
		suite.Must(t, err)
		if written != 0 {
			t.Errorf("%s: after a restart %v keys of netfilter were written, want none", n.Name, written)
		}
	}
}

// onlyFromY isolates namespace x, both ways, but for what comes from y.
func onlyFromY() policyCase {
	return policyCase{policies: `x: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}]}]}`, want: `- * > x/*
		- x/* > *
		+ y/* > x/*`}
}

// TestRestartAmongMany: with 500 classes on the node an agent takes seconds to
// read what is there. A restart is none the less noticed by nobody, be it that
// nothing has changed meanwhile, or that all these have gone.
func TestRestartAmongMany(t *testing.T) {
	long(t)
	w := enter(t)
	c := onlyFromY()
	w.apply(t, c)
	w.crowd(t, 500)
	w.idle(t)
	node1 := w.nodes[0]
	var flows []flow
	for _, f := range matrix(false) {
		if f.protocol != topo.SCTP && f.to == "x/a" {
			flows = append(flows, f)
		}
	}
	for _, step := range []struct {
		name  string
		erase bool
	}{{"nothing has changed", false}, {"all have gone", true}} {
		t.Run(step.name, func(t *testing.T) {
			v := w.watch(t, c.want, flows)
			suite.Must(t, node1.Agent.Kill())
			if step.erase {
				suite.Must(t, w.manifests.EraseText(crowdFile))
			}
			begin := time.Now()
			suite.Must(t, w.startOn([]*node{node1}))
			t.Logf("ready %v after it was started", time.Since(begin).Round(100*time.Millisecond))
			written, err := node1.Agent.Metric(t.Context(), "sluice_table_writes_total", map[string]string{"table": "netfilter", "op": "put"})
			suite.Must(t, err)
			if written != 0 && !step.erase { // else the way to classes is written anew
				t.Errorf("%v keys of netfilter were put, want none", written)
			}
			v.end(t)
		})
	}
}

// TestKilledWhileWriting: the agent is killed while 500 policies come into force,
// at several moments of it. What is in force already stays so.
func TestKilledWhileWriting(t *testing.T) {
	long(t)
	w := enter(t)
	c := onlyFromY()
	w.apply(t, c)
	w.idle(t)
	node1 := w.nodes[0]
	var flows []flow
	for _, f := range matrix(false) {
		if f.protocol != topo.SCTP && f.to == "x/a" {
			flows = append(flows, f)
		}
	}
	v := w.watch(t, c.want, flows)
	w.crowd(t, 500)
	for _, after := range []time.Duration{200 * time.Millisecond, 700 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second} {
		time.Sleep(after) // a moment is all that is meant
		suite.Must(t, node1.Agent.Kill())
		suite.Must(t, node1.StartAgent(w.bin, w.flags()...))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	suite.Must(t, node1.Agent.Ready(ctx))
	w.idle(t)
	v.end(t)
	w.crowd(t, 0)
}

// TestManyAtOnce: 501 policies come at once, which takes the kernel seconds.
// Meanwhile a pod is under what was before or under what is to be, and what both
// allow goes on.
func TestManyAtOnce(t *testing.T) {
	long(t)
	w := enter(t)
	var flows []flow
	for _, f := range matrix(false) {
		if f.protocol != topo.SCTP && f.to == "x/a" && f.from != "z/a" && f.from != "z/b" && f.from != "z/c" {
			flows = append(flows, f)
		}
	}
	v := w.watch(t, "", flows)
	suite.Must(t, w.write(policyCase{policies: `x: {podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: ns, operator: NotIn, values: [z]}]}}]}]}`}))
	w.crowd(t, 500)
	w.idle(t)
	v.end(t)
	w.crowd(t, 0)
}
