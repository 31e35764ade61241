//go:build lab

package loadbalancer

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"

	"sluice.dev/sluice/e2e/agent"
	"sluice.dev/sluice/e2e/suite"
)

// absurd is longer than anything here takes that does not wait for a timer.
const absurd = 5 * time.Second

// long reports whether a run is to take as long as good figures need.
func long() bool { return os.Getenv("SLUICE_LONG") != "" }

// rounds is how often something slow is done.
func rounds(short, full int) int {
	if long() {
		return full
	}
	return short
}

// times are what was measured, by what.
type times struct {
	names   []string
	samples map[string][]time.Duration
}

func (m *times) add(name string, took time.Duration) {
	if m.samples == nil {
		m.samples = map[string][]time.Duration{}
	}
	if _, known := m.samples[name]; !known {
		m.names = append(m.names, name)
	}
	m.samples[name] = append(m.samples[name], took)
}

// String is a table of medians.
func (m *times) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%-58s %4s %9s %9s %9s", "", "runs", "median", "least", "most")
	for _, name := range m.names {
		s := slices.Sorted(slices.Values(m.samples[name]))
		fmt.Fprintf(&b, "\n%-58s %4d %9s %9s %9s", name, len(s), round(s[len(s)/2]), round(s[0]), round(s[len(s)-1]))
	}
	return b.String()
}

func round(d time.Duration) string {
	if d > 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// within checks that no sample of a name is absurd.
func (m *times) within(t *testing.T, name string, least, most time.Duration) {
	t.Helper()
	for _, took := range m.samples[name] {
		if took < least || took > most {
			t.Errorf("%s: %v, want %v to %v", name, took, least, most)
		}
	}
}

// TestTimes measures, from the moment a file is in its place or a process is
// stopped. Of the times at tor1, about 60 ms are FRR's own, which collects
// changes for 50 ms; BIRD's are 2 ms (see package router's test).
func TestTimes(t *testing.T) {
	w := enter(t)
	m := &times{}
	t.Cleanup(func() { t.Log(m) })
	t.Run("endpoint", func(t *testing.T) { w.timeEndpoint(t, m) })
	t.Run("routes", func(t *testing.T) { w.timeRoutes(t, m) })
	t.Run("killed", func(t *testing.T) { w.timeKilled(t, m) })
	t.Run("frozen", func(t *testing.T) { w.timeFrozen(t, m) })
}

// timeEndpoint: an endpoint turns not ready; the kernel gives it nothing more.
func (w *world) timeEndpoint(t *testing.T, m *times) {
	const name = "endpoint not ready -> IPVS weight 0"
	s := w.serve(t, "weighed", w.ready(1, 2), nil)
	s.told(t, w.nodes...)
	node1, vip, pod := w.nodes[0], s.frontends()[0], netip.AddrPortFrom(w.pods[0].V4, podPort)
	for range 12 {
		suite.Await(t, soon, func() error { return node1.weighs(vip, pod, true) })
		begin := time.Now()
		suite.Must(t, w.manifests.Write(agent.Slice(s.object, discoveryv1.AddressTypeIPv4, []endpoint{w.unready(1), w.on(2)})))
		for node1.weighs(vip, pod, false) != nil {
			if time.Since(begin) > soon {
				t.Fatal(node1.weighs(vip, pod, false))
			}
			time.Sleep(time.Millisecond)
		}
		m.add(name, time.Since(begin))
		s.scale(t, w.ready(1, 2)...)
	}
	m.within(t, name, 0, absurd)
}

// weighs says whether the kernel gives a pod connections, if that is not as
// wanted. It reads what the kernel prints, in no time, and all at once: where
// the kernel goes on from one reading to the next it counts the virtual servers
// of other namespaces too, and passes some over.
func (n *node) weighs(vip, pod netip.AddrPort, want bool) error {
	text := make([]byte, 1<<16)
	err := n.Do(func() error {
		file, err := os.Open("/proc/thread-self/net/ip_vs")
		if err != nil {
			return err
		}
		defer file.Close()
		size, err := file.Read(text)
		text = text[:size]
		return err
	})
	if err != nil {
		return err
	}
	server, weighs := "", false
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] != "->" { // the protocol
			server = f[0] + " " + f[1]
		}
		if len(f) >= 4 && f[0] == "->" && server == "TCP "+kernelHex(vip) && f[1] == kernelHex(pod) {
			weighs = f[3] != "0"
		}
	}
	if weighs != want {
		return fmt.Errorf("%s: %v of %v weighs something: %v, want %v", n.Name, pod, vip, weighs, want)
	}
	return nil
}

// kernelHex is an IPv4 address and port as /proc/net/ip_vs has them.
func kernelHex(a netip.AddrPort) string {
	return strings.ToUpper(hex.EncodeToString(a.Addr().AsSlice())) + fmt.Sprintf(":%04X", a.Port())
}

// timeRoutes: a Service comes, and its last local endpoint goes.
func (w *world) timeRoutes(t *testing.T, m *times) {
	for range 12 {
		s := w.newService("timed")
		local(s)
		s.scale(t, w.ready(1)...)
		marks, begin := w.marks(), time.Now()
		suite.Must(t, w.manifests.Write(s.object))
		for _, r := range w.towers() {
			m.add("new Service -> route at "+r.Name, r.changed(t, marks[r], s.routes()[0], w.nodes[0]).Sub(begin))
		}
		s.told(t, w.nodes[0])
		marks, begin = w.marks(), time.Now()
		suite.Must(t, w.manifests.Write(agent.Slice(s.object, discoveryv1.AddressTypeIPv4, nil)))
		for _, r := range w.towers() {
			m.add("last local endpoint gone -> no route at "+r.Name, r.changed(t, marks[r], s.routes()[0]).Sub(begin))
		}
		s.remove(t)
		s.told(t)
	}
	for _, name := range m.names {
		m.within(t, name, 0, absurd)
	}
}

// left waits for the moment from which a router's kernel has no way to a prefix
// by a node.
func (r *tower) left(t *testing.T, mark int, p netip.Prefix, n *node) time.Time {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon+r.hold)
	defer cancel()
	c, err := r.Await(ctx, mark, p, func(hops []netip.Addr) bool { return !slices.Contains(hops, n.Addr(p.Addr())) })
	suite.Must(t, err)
	return c.At
}

// timeKilled: the kernel says goodbye for a process that was killed.
func (w *world) timeKilled(t *testing.T, m *times) {
	s := w.serve(t, "killed", w.ready(1), nil)
	for range rounds(1, 4) {
		s.told(t, w.nodes...)
		for _, n := range w.nodes {
			marks, begin := w.marks(), time.Now()
			suite.Must(t, n.Agent.Kill())
			for _, r := range w.towers() {
				m.add("agent killed -> moved on at "+r.Name, r.left(t, marks[r], s.routes()[0], n).Sub(begin))
			}
		}
		suite.Must(t, w.start(w.nodes...))
	}
	for _, r := range w.towers() {
		m.within(t, "agent killed -> moved on at "+r.Name, 0, absurd)
	}
}

// timeFrozen: nobody says anything for a node that hangs; the hold time has to
// pass since it last spoke.
func (w *world) timeFrozen(t *testing.T, m *times) {
	s := w.serve(t, "frozen", w.ready(1), nil)
	name := func(r *tower) string {
		return fmt.Sprintf("node frozen, hold time %v -> moved on at %s", r.hold, r.Name)
	}
	for range rounds(1, 4) {
		s.told(t, w.nodes...)
		time.Sleep(time.Second) // so that they have spoken
		marks, begin := w.marks(), time.Now()
		for _, n := range w.nodes {
			suite.Must(t, n.Agent.Freeze())
		}
		for _, n := range w.nodes {
			for _, r := range w.towers() {
				m.add(name(r), r.left(t, marks[r], s.routes()[0], n).Sub(begin))
			}
		}
		begin = time.Now()
		for _, n := range w.nodes {
			suite.Must(t, n.Agent.Thaw())
		}
		s.told(t, w.nodes...)
		m.add("nodes thawed -> all routes at both", time.Since(begin))
	}
	for _, r := range w.towers() {
		// The last word was up to a third of the hold time before.
		m.within(t, name(r), r.hold*2/3-500*time.Millisecond, r.hold+absurd)
	}
}
