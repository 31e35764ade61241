//go:build lab

package services

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"sluice.dev/sluice/e2e/agent"
	"sluice.dev/sluice/e2e/topo"
)

// Where nodes keep looking for what others changed; short, so that drift is
// put right within a test.
const auditPeriod = 2 * time.Second

// drainTimeout is how long connections keep what has gone in a node's tables,
// ended ones too. A test that needs more has its Service say so.
const drainTimeout = 5 * time.Second

// The ports of every web pod.
const (
	webPort  = 8080 // TCP, UDP and SCTP
	httpPort = 8081
)

// The addresses that no cluster allocates. The router sends them to node1.
const (
	externalRange4 = "198.51.100.0/24" // external IPs
	balancerRange4 = "203.0.113.0/24"  // a load balancer's
	outsideRange6  = "2001:db8::/32"   // both: …:1:: and …:2::
)

// world is what all tests share, because it takes seconds to build:
//
//	node1  web-1 web-2 near        client ── router ── nodes
//	node2  web-3
//	node3  web-4 far
type world struct {
	*topo.Topology
	api        kubernetes.Interface
	kubeconfig string
	bin        string // the sluice binary

	nodes     []*node
	web       []*topo.Host // pods that serve; web-4 joins for scaling
	near, far *topo.Host   // pods that only ask: beside endpoints, and not
}

// node is a node with sluice on it.
type node struct {
	*topo.Host
	agent  *agent.Agent
	log    *os.File
	before topo.Tables // what was there before sluice was first started
}

// shared is the world: TestMain has no other way to hand it to tests.
var shared *world

func TestMain(m *testing.M) {
	os.Exit(agent.Play("services", "world of 3 nodes and 6 pods, with sluice ready", newWorld, func(w *world) int {
		shared = w
		return m.Run()
	}))
}

func newWorld(bin string) (w *world, err error) {
	w = &world{bin: bin}
	if w.Topology, err = topo.New(3); err != nil {
		return w, err
	}
	if err := w.addPods(); err != nil {
		return w, err
	}
	if err := w.connect(); err != nil {
		return w, err
	}
	if err := w.routes(); err != nil {
		return w, err
	}
	for _, h := range w.Nodes {
		n := &node{Host: h}
		w.nodes = append(w.nodes, n)
		if err := w.furnish(n); err != nil {
			return w, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, n := range w.nodes {
		if err := w.start(n); err != nil {
			return w, err
		}
	}
	for _, n := range w.nodes {
		if err := n.agent.Ready(ctx); err != nil {
			return w, fmt.Errorf("%w; its log:\n%s", err, n.logSince(0))
		}
	}
	return w, nil
}

func (w *world) addPods() error {
	for _, p := range []struct {
		name string
		node int
	}{{"web-1", 0}, {"web-2", 0}, {"web-3", 1}, {"web-4", 2}, {"near", 0}, {"far", 2}} {
		h, err := w.AddPod(w.Nodes[p.node], p.name)
		if err != nil {
			return err
		}
		switch p.name {
		case "near":
			w.near = h
			continue
		case "far":
			w.far = h
			continue
		}
		w.web = append(w.web, h)
		for _, s := range []struct {
			protocol string
			port     uint16
		}{{topo.TCP, webPort}, {topo.UDP, webPort}, {topo.SCTP, webPort}, {topo.HTTP, httpPort}} {
			if _, err := h.Serve(s.protocol, s.port); err != nil {
				return err
			}
		}
	}
	return nil
}

// connect makes the client of the API server, in the root namespace.
func (w *world) connect() error {
	w.kubeconfig = filepath.Join(os.Getenv("SLUICE_LAB_SHARED"), "kubeconfig")
	config, err := clientcmd.BuildConfigFromFlags("", w.kubeconfig)
	if err != nil {
		return fmt.Errorf("kubeconfig (is controlplane lab's companion?): %w", err)
	}
	config.QPS = -1                           // the server is ours alone
	config.WarningHandler = rest.NoWarnings{} // of external IPs, which are deprecated
	w.api, err = kubernetes.NewForConfig(config)
	return err
}

// routes has the router send the outside world's Service addresses to node1.
func (w *world) routes() error {
	via := w.Nodes[0]
	for to, gateway := range map[string]netip.Addr{
		externalRange4: via.V4, balancerRange4: via.V4, outsideRange6: via.V6,
	} {
		if _, err := tool(w.Router, "ip", "route", "add", to, "via", gateway.String()); err != nil {
			return err
		}
	}
	return nil
}

// furnish gives a node what others than sluice have there, and its Node object.
// Nothing of sluice's may ever touch it.
func (w *world) furnish(n *node) error {
	if err := n.Furnish(); err != nil {
		return err
	}
	var err error
	if n.before, err = n.Tables(); err != nil {
		return err
	}
	if n.log, err = os.Create(filepath.Join(logDir(), n.Name+".log")); err != nil {
		return err
	}
	return w.register(n)
}

// logDir is where logs are worth more than the run, if anywhere.
func logDir() string {
	if out := os.Getenv("SLUICE_LAB_OUT"); out != "" {
		return out
	}
	return os.TempDir()
}

// start starts sluice on a node, as a DaemonSet would.
func (w *world) start(n *node) (err error) {
	n.agent, err = agent.Start(n.Host, w.bin, n.log,
		"--kubeconfig", w.kubeconfig,
		"--hostname-override", n.Name,
		"--cluster-cidr", topo.ClusterCIDR4+","+topo.ClusterCIDR6,
		"--audit-period", auditPeriod.String(),
		"--drain-timeout", drainTimeout.String(),
	)
	return err
}

func (w *world) Close() error {
	if w.Topology == nil {
		return nil
	}
	return w.Topology.Close()
}

// enter is how a test begins. When it ends the world must be as it was: no
// Services, the kernels as at the beginning, the agents healthy.
func enter(t *testing.T) *world {
	t.Helper()
	w := shared
	marks := map[*node]int64{}
	was := map[*node]topo.Tables{}
	for _, n := range w.nodes {
		marks[n], _ = n.log.Seek(0, 1)
		was[n] = n.mustState(t)
	}
	t.Cleanup(func() {
		for _, n := range w.nodes {
			await(t, 20*time.Second, func() error { return was[n].Same(n.Host) })
			await(t, 5*time.Second, func() error { return n.probe("/healthz") })
		}
		if !t.Failed() {
			return
		}
		for _, n := range w.nodes {
			t.Logf("log of sluice on %s:\n%s", n.Name, n.logSince(marks[n]))
		}
	})
	return w
}

// probe asks sluice's own opinion, as a kubelet does.
func (n *node) probe(path string) error {
	resp, err := n.HTTPClient().Get("http://127.0.0.1:10256" + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", n.Name, path, resp.Status)
	}
	return nil
}

// logSince is the tail of what sluice logged after an offset.
func (n *node) logSince(offset int64) string {
	const most = 40
	text, err := os.ReadFile(n.log.Name())
	if err != nil {
		return err.Error()
	}
	lines := strings.SplitAfter(string(text[min(offset, int64(len(text))):]), "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "")
}

// await fails the test when a condition has not come about in time.
func await(t *testing.T, limit time.Duration, f func() error) {
	t.Helper()
	// Not t.Context: it has ended when cleanups run.
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err := topo.Eventually(ctx, func() error {
		begin := time.Now()
		err := f()
		if err != nil {
			// There is one processor: whoever looks all the time keeps
			// others from working.
			<-time.After(time.Since(begin))
		}
		return err
	})
	if err != nil {
		t.Errorf("after %v: %v", limit, err)
	}
}

// must fails the test at once.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
