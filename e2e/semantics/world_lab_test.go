//go:build lab

package semantics

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/e2e/agent"
	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// auditPeriod is short, so that drift is put right within a test.
const auditPeriod = 2 * time.Second

// drainTimeout is short too: no test is about connections to what has gone, and
// those that have ended would keep virtual servers for minutes.
const drainTimeout = time.Second

// podPort is where every endpoint serves TCP, UDP and SCTP.
const podPort = 8080

// world is what all tests share, because it takes seconds to build. Traffic
// from outside to any Service's address comes in through one node, node1 unless
// a test has the router send it elsewhere.
//
//	node1  a1 a2 near        client ── router ── nodes
//	node2  b1
//	node3  c1 far
type world struct {
	*topo.Topology
	bin       string          // the sluice binary
	manifests agent.Manifests // the directory that all agents read

	nodes          []*node
	a1, a2, b1, c1 *topo.Host // pods that serve
	near, far      *topo.Host // pods that only ask

	services int  // how many Services there have been: each has numbers of its own
	marks    int  // how many times a test has waited for the agents
	meddling bool // whether this test changes tables by hand
}

// node is a node with sluice on it.
type node struct{ *suite.Node }

// shared is the world: TestMain has no other way to hand it to tests.
var shared *world

func TestMain(m *testing.M) {
	os.Exit(suite.Play("semantics", "world of 3 nodes and 6 pods, with sluice ready", newWorld, func(w *world) int {
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
	dir, err := os.MkdirTemp("", "manifests-")
	if err != nil {
		return w, err
	}
	w.manifests = agent.Manifests(dir)
	for i, h := range w.Nodes {
		n, err := suite.NewNode(h, "semantics")
		if err != nil {
			return w, err
		}
		w.nodes = append(w.nodes, &node{n})
		if err := w.manifests.Write(w.nodeObject(w.nodes[i], i)); err != nil {
			return w, err
		}
	}
	return w, errors.Join(w.route("add", w.nodes[0]), w.writeMark(0), w.start(detector()...))
}

func (w *world) addPods() error {
	for _, p := range []struct {
		name  string
		node  int
		pod   **topo.Host
		serve bool
	}{
		{"a1", 0, &w.a1, true}, {"a2", 0, &w.a2, true}, {"near", 0, &w.near, false},
		{"b1", 1, &w.b1, true},
		{"c1", 2, &w.c1, true}, {"far", 2, &w.far, false},
	} {
		h, err := w.AddPod(w.Nodes[p.node], p.name)
		if err != nil {
			return err
		}
		*p.pod = h
		if !p.serve {
			continue
		}
		for _, protocol := range []string{topo.TCP, topo.UDP, topo.SCTP} {
			if _, err := h.Serve(protocol, podPort); err != nil {
				return err
			}
		}
	}
	return nil
}

// outsideRanges are the addresses that no node or pod has: ClusterIPs, external
// IPs and a load balancer's.
var outsideRanges = []string{"10.96.0.0/12", "198.51.100.0/24", "203.0.113.0/24", "fd00:10:96::/112", "2001:db8::/32"}

// route has the router send Services' addresses to a node ("add", "replace").
func (w *world) route(verb string, via *node) error {
	var script strings.Builder
	for _, to := range outsideRanges {
		at := via.Addr(netip.MustParsePrefix(to).Addr())
		fmt.Fprintf(&script, "ip route %s %s via %s\n", verb, to, at)
	}
	_, err := w.Router.Tool("sh", "-ec", script.String())
	return err
}

// routeBy is route for the length of a test.
func (w *world) routeBy(t *testing.T, via *node) {
	t.Helper()
	suite.Must(t, w.route("replace", via))
	t.Cleanup(func() { suite.Must(t, w.route("replace", w.nodes[0])) })
}

// detector are the flags that let sluice tell pods from others, which is how it
// runs but where a test says otherwise.
func detector() []string {
	return []string{"--cluster-cidr", topo.ClusterCIDR4 + "," + topo.ClusterCIDR6}
}

// start starts sluice on every node with flags of its own, and waits.
func (w *world) start(flags ...string) error { return w.startOn(w.nodes, flags...) }

func (w *world) startOn(nodes []*node, flags ...string) error {
	return suite.Start(w.bin, nodes, append([]string{
		"--manifests", string(w.manifests), "--audit-period", auditPeriod.String(), "--drain-timeout", drainTimeout.String(),
	}, flags...)...)
}

// restart starts the agents again with other flags, for the length of a test.
func (w *world) restart(t *testing.T, flags ...string) {
	t.Helper()
	w.restartOn(t, w.nodes, flags...)
}

func (w *world) restartOn(t *testing.T, nodes []*node, flags ...string) {
	t.Helper()
	again := func(flags []string) {
		for _, n := range nodes {
			suite.Must(t, n.Agent.Stop())
		}
		suite.Must(t, w.startOn(nodes, flags...))
	}
	again(flags)
	t.Cleanup(func() { again(detector()) })
}

func (w *world) Close() error {
	if w.Topology == nil {
		return nil
	}
	return errors.Join(w.Topology.Close(), os.RemoveAll(string(w.manifests)))
}

// enter is how a test begins. When it ends the world must be as it was: no
// Services, the kernels as at the beginning with all that others have there,
// the agents the same processes and healthy.
func enter(t *testing.T) *world {
	t.Helper()
	w := shared
	w.meddling = false
	drift := map[int]float64{} // by pid
	for _, n := range w.nodes {
		drift[n.Agent.Pid()] = n.drift(t)
	}
	suite.Keep(t, w.nodes, 8*time.Second, func() { suite.Must(t, w.writeMark(0)) }, func(n *node) {
		suite.Await(t, 5*time.Second, func() error { return n.Probe("/healthz") })
		if before, same := drift[n.Agent.Pid()]; same && !w.meddling && n.drift(t) > before {
			t.Errorf("%s: sluice found %v keys changed by others, who changed nothing", n.Name, n.drift(t)-before)
		}
	})
	return w
}
