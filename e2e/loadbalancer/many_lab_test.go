//go:build lab

package loadbalancer

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"sluice.dev/sluice/e2e/agent"
	"sluice.dev/sluice/e2e/suite"
)

// TestMany advertises thousands of addresses from one node, as each node has a
// processor of its own elsewhere: time and memory.
func TestMany(t *testing.T) {
	w := enter(t)
	many := rounds(2000, 10000)
	if text := os.Getenv("SLUICE_VIPS"); text != "" {
		var err error
		many, err = strconv.Atoi(text)
		suite.Must(t, err)
	}
	node1 := w.nodes[0]
	for _, n := range w.nodes[1:] {
		suite.Must(t, n.Agent.Stop())
		t.Cleanup(func() { suite.Must(t, w.start(n)) })
	}
	before := node1.memory(t)
	w.writeText(t, "many-pool.yaml", `
apiVersion: sluice.dev/v1alpha1
kind: AddressPool
metadata: {name: many}
spec: {autoAssign: false, addresses: [10.200.0.0/16]}
`)
	text, err := w.many(many)
	suite.Must(t, err)
	t.Logf("one file of %d Services and EndpointSlices: %d MB", many, len(text)>>20)

	pool := netip.MustParsePrefix("10.200.0.0/16")
	ours := func(p netip.Prefix) bool { return pool.Contains(p.Addr()) }
	begin := time.Now()
	w.writeText(t, "many.json", text)
	w.reach(t, ours, many, begin)
	t.Logf("memory of the agent: %d MB before, %d MB now", before, node1.memory(t))

	// It goes on as fast as ever.
	marks, begin := w.marks(), time.Now()
	s := w.serve(t, "one-more", w.ready(1), nil)
	for _, r := range w.towers() {
		t.Logf("one more: at %s after %v", r.Name, r.changed(t, marks[r], s.routes()[0], node1).Sub(begin).Round(time.Millisecond))
	}
	begin = time.Now()
	suite.Must(t, w.manifests.EraseText("many.json"))
	w.reach(t, ours, 0, begin)
}

// reach waits until every router's kernel has a number of routes.
func (w *world) reach(t *testing.T, ours func(netip.Prefix) bool, want int, begin time.Time) {
	t.Helper()
	for _, r := range w.towers() {
		suite.Await(t, 3*time.Minute, func() error {
			got, err := r.Count(ours)
			if err == nil && got != want {
				err = fmt.Errorf("%s: %d routes, want %d", r.Name, got, want)
			}
			return err
		})
		changes, err := r.Since(0)
		suite.Must(t, err)
		t.Logf("%d routes at %s %v after the file changed", want, r.Name, changes[len(changes)-1].At.Sub(begin).Round(time.Millisecond))
	}
}

// many is a List of Services of one endpoint and one IPv4 address each.
func (w *world) many(count int) (string, error) {
	items := make([]json.RawMessage, 0, 2*count)
	for i := range count {
		s := w.newService(fmt.Sprintf("many-%d", i))
		w.services-- // it has other numbers
		n := i + 1
		o := s.object
		o.UID = ""
		o.Annotations[poolAnnotation] = "many"
		delete(o.Annotations, addressesAnnotation)
		o.Spec.ClusterIP = fmt.Sprintf("10.97.%d.%d", n>>8, n&255)
		o.Spec.ClusterIPs = []string{o.Spec.ClusterIP}
		o.Spec.IPFamilies = o.Spec.IPFamilies[:1]
		o.Spec.IPFamilyPolicy = new(corev1.IPFamilyPolicySingleStack)
		for _, o := range []agent.Object{o, agent.Slice(o, discoveryv1.AddressTypeIPv4, w.ready(1))} {
			text, err := json.Marshal(o)
			if err != nil {
				return "", err
			}
			items = append(items, text)
		}
	}
	text, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": items})
	return string(text), err
}

// memory is what the agent has in memory, in MB.
func (n *node) memory(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.Agent.Pid()))
	suite.Must(t, err)
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			kb, err := strconv.Atoi(f[1])
			suite.Must(t, err)
			return kb >> 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
