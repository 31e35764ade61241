//go:build lab

package policy

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// long skips a test of which SLUICE_LONG=1 has to ask.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("SLUICE_LONG") == "" {
		t.Skip("takes minutes; SLUICE_LONG=1 asks for it")
	}
}

// quantile is one of a list that is not empty, for instance 0.99.
func quantile(list []time.Duration, q float64) time.Duration {
	list = slices.Sorted(slices.Values(list))
	return list[min(len(list)-1, int(q*float64(len(list))))]
}

// TestTimes measures how long it takes from a file's new name to a new
// connection's being judged by it: with nothing else there, and among 500
// policies. How long the source waits for files to come to rest is part of it.
func TestTimes(t *testing.T) {
	long(t)
	w := enter(t)
	const allow = `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80}]}]}`
	const deny = `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 81}]}]}`
	for _, among := range []int{0, 500} {
		w.crowd(t, among)
		for _, node := range []string{"the same node", "the other node"} {
			from := map[string]actor{"the same node": "z/a", "the other node": "z/b"}[node]
			took := map[string][]time.Duration{}
			w.apply(t, policyCase{policies: allow})
			to := netip.AddrPortFrom(w.own("x/a", false), 80)
			for i := range 40 {
				name, policies := "denied", deny
				if i%2 == 1 {
					name, policies = "allowed", allow
				}
				time.Sleep(300 * time.Millisecond) // no change is taken together with the one before
				suite.Must(t, w.write(policyCase{policies: policies}))
				begin := time.Now()
				for {
					// One that is under way at that moment may hear nothing.
					got, err := w.probers[from].Try(t.Context(), 100*time.Millisecond, []topo.Probe{{Protocol: topo.TCP, To: to}})
					suite.Must(t, err)
					if (got[0].Err == nil) == (name == "allowed") {
						break
					}
					if time.Since(begin) > soon {
						t.Fatalf("not %s after %v", name, soon)
					}
				}
				took[name] = append(took[name], time.Since(begin))
			}
			for _, name := range []string{"denied", "allowed"} {
				t.Logf("file renamed -> new connection from %s %s, among %d other policies: p50 %v, p99 %v, of %d", node, name, among,
					quantile(took[name], 0.5).Round(time.Millisecond), quantile(took[name], 0.99).Round(time.Millisecond), len(took[name]))
			}
		}
	}
}

const crowdFile = "crowd.yaml"

// crowd gives node1 so many more pods, each isolated by a policy of its own
// with its own ports and peers: so many classes. They have no namespaces of the
// kernel. 0 takes them away.
func (w *world) crowd(t *testing.T, pods int) {
	t.Helper()
	var text strings.Builder
	for i := range pods {
		fmt.Fprintf(&text, `---
apiVersion: v1
kind: Pod
metadata: {namespace: crowd, name: "p%[1]d", uid: "uid-crowd-%[1]d", labels: {pod: "p%[1]d"}}
spec: {nodeName: node1, containers: [{name: serve, image: serve}]}
status: {phase: Running, podIPs: [{ip: 10.244.%[2]d.%[3]d}, {ip: "fd00:10:244:%[4]x::1"}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: crowd, name: "p%[1]d"}
spec: {podSelector: {matchLabels: {pod: "p%[1]d"}}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {pod: "p%[5]d"}}}], ports: [{port: %[6]d}]}], egress: [{to: [{podSelector: {matchLabels: {pod: "p%[5]d"}}}]}]}
`, i, 100+i/200, 1+i%200, 0x8000+i, (i+1)%pods, 1000+i)
	}
	if pods == 0 {
		suite.Must(t, w.manifests.EraseText(crowdFile))
	} else {
		suite.Must(t, w.manifests.WriteText(crowdFile, text.String()))
		t.Cleanup(func() { suite.Must(t, w.manifests.EraseText(crowdFile)) })
	}
	w.settleWithin(t, 2*time.Minute)
}

// TestThroughput compares what gets through between pods of a node that has 500
// isolated pods, each of a class of its own, with what does without: new
// connections, and bytes. The pods that talk are isolated themselves in both
// cases. Both are measured in turn, so that what else the machine does falls on
// both.
func TestThroughput(t *testing.T) {
	long(t)
	w := enter(t)
	// This world has one processor, and an audit of so much is not what is
	// measured here.
	w.restart(t, "--audit-period", "1h")
	w.sink(t, "x/a")
	const policies = `x: {podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}]}]}
y: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: x}}}]}]}`
	const rounds, connections, texts = 6, 1000, 8 // so many that no source port comes again soon
	text := bytes.Repeat([]byte("0123456789abcdef"), 4<<20)
	type measure struct{ opened, sent []float64 }
	got := map[string]*measure{"no policies": {}, "policies of the two": {}, "500 more classes": {}}
	for range rounds {
		for _, c := range []struct {
			name     string
			policies string
			crowd    int
		}{{"no policies", "", 0}, {"policies of the two", policies, 0}, {"500 more classes", policies, 500}} {
			suite.Must(t, w.write(policyCase{policies: c.policies}))
			w.crowd(t, c.crowd)
			w.idle(t)
			begin := time.Now()
			for _, vip := range []bool{false, true} {
				f := flow{"y/b", "x/a", topo.TCP, 80, false, vip}
				outcomes, err := w.probers[f.from].Try(t.Context(), patience, slices.Repeat([]topo.Probe{{Protocol: topo.TCP, To: w.address(f)}}, connections))
				suite.Must(t, err)
				for _, o := range outcomes {
					suite.Must(t, o.Err)
				}
			}
			got[c.name].opened = append(got[c.name].opened, 2*connections/time.Since(begin).Seconds())
			begin = time.Now()
			for range texts {
				_, err := w.send("y/b", netip.AddrPortFrom(w.own("x/a", false), sinkPort), text)
				suite.Must(t, err)
			}
			got[c.name].sent = append(got[c.name].sent, texts*float64(len(text))/1e6/time.Since(begin).Seconds())
		}
	}
	w.crowd(t, 0)
	median := func(list []float64) float64 { return slices.Sorted(slices.Values(list))[len(list)/2] }
	none := got["no policies"]
	for _, name := range []string{"no policies", "policies of the two", "500 more classes"} {
		m := got[name]
		t.Logf("%s: %.0f new connections in a second (%.2f), %.0f MB/s (%.2f)", name,
			median(m.opened), median(m.opened)/median(none.opened), median(m.sent), median(m.sent)/median(none.sent))
	}
	const least = 0.9
	if crowd := got["500 more classes"]; median(crowd.opened) < least*median(none.opened) || median(crowd.sent) < least*median(none.sent) {
		t.Errorf("with 500 more classes less than %.1f of what gets through without", least)
	}
}

// idle waits until the agents have nothing to do for a while: they share the
// processor with what is measured.
func (w *world) idle(t *testing.T) {
	t.Helper()
	const while, little = 500 * time.Millisecond, 0.02 // seconds of the processor
	for _, n := range w.nodes {
		used := func() float64 {
			v, err := n.Agent.Metric(t.Context(), "process_cpu_seconds_total", nil)
			suite.Must(t, err)
			return v
		}
		suite.Await(t, time.Minute, func() error {
			before := used()
			time.Sleep(while)
			if now := used(); now-before > little {
				return fmt.Errorf("%s is busy: %v seconds of the processor in %v", n.Name, now-before, while)
			}
			return nil
		})
	}
}

// TestChurn: with 500 policies on the node, pods that come, change their labels
// and go run iptables not once.
func TestChurn(t *testing.T) {
	w := enter(t)
	count := 50
	if os.Getenv("SLUICE_LONG") != "" {
		count = 500
	}
	const policies = `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}`
	w.restart(t, "--audit-period", "1h") // an audit runs iptables-save
	suite.Must(t, w.write(policyCase{policies: policies}))
	w.crowd(t, count)
	node1 := w.nodes[0]
	execs := func() float64 {
		n, err := node1.Agent.Metric(t.Context(), "sluice_execs_total", map[string]string{"table": "netfilter"})
		suite.Must(t, err)
		return n
	}
	before := execs()
	for _, c := range []policyCase{
		{policies: policies, pods: map[string]podState{"x/b": gone, "y/b": gone}, want: "- * > x/a"},
		{policies: policies, want: "- * > x/a\n+ x/b > x/a"},
		{policies: policies, labels: map[string]string{"x/c": "pod=b"}, want: "- * > x/a\n+ x/b,x/c > x/a"},
		{policies: policies, pods: map[string]podState{"x/b": recreated}, want: "- * > x/a\n+ x/b > x/a"},
		{policies: policies, labels: map[string]string{"x/c": "pod=a", "x/a": "pod=c"}, want: "- * > x/c\n+ x/b > x/c"},
	} {
		w.apply(t, c)
		r, err := parseReach(c.want)
		suite.Must(t, err)
		suite.Await(t, soon, func() error { return w.wrong(t, r, some(matrix(false))) })
	}
	defer w.crowd(t, 0)
	if n := execs() - before; n != 0 {
		t.Errorf("with %d more policies, pods that came and went ran iptables %v times, want none", count, n)
	}
}
