//go:build lab

package loadbalancer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/agent"
	"sluice.dev/sluice/e2e/router"
	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

const (
	// auditPeriod is short, so that drift is put right within a test.
	auditPeriod = 2 * time.Second
	// notReadyAfter is how long a node may be NotReady and keep its routes.
	notReadyAfter = 3 * time.Second
	// soon is how long what is to happen may take: longer than this
	// one-processor world stands still when it shares its host. A route that was
	// withdrawn a moment ago comes back a second late by design.
	soon = 15 * time.Second
)

// The autonomous systems: nodes, and tor2 as an iBGP peer; tor1.
const nodesASN, towerASN = 64512, 64500

// The hold times differ, so that one frozen node shows both.
const hold1, hold2 = 9 * time.Second, 3 * time.Second

// world is what all tests share:
//
//	                    ┌─ tor1, FRR, eBGP ── client
//	node1  w1           │
//	node2  w2  ── segment
//	node3  w3           │
//	                    └─ tor2, BIRD, iBGP ── tor2-client
type world struct {
	*topo.Topology
	bin       string // the sluice binary
	dir       string // of everything that is written
	manifests agent.Manifests

	nodes      []*node
	pods       []*topo.Host // one on each node; they serve
	tor1, tor2 *tower
	frr        *router.FRR // that of tor1
	routerLog  *os.File

	services int // how many there have been: each has numbers of its own
}

// node is a node with sluice on it.
type node struct{ *suite.Node }

// tower is a router and a client behind it.
type tower struct {
	Name string // of its BGPPeer; the first one's host has another
	*topo.Host
	router.Router
	*topo.RouteWatch
	client *topo.Host
	asn    uint32
	hold   time.Duration
}

// shared is the world: TestMain has no other way to hand it to tests.
var shared *world

func TestMain(m *testing.M) {
	os.Exit(suite.Play("loadbalancer", "world of 3 nodes and 2 routers, with all sessions established", newWorld, func(w *world) int {
		shared = w
		return m.Run()
	}))
}

func newWorld(bin string) (w *world, err error) {
	w = &world{bin: bin}
	if w.dir, err = os.MkdirTemp("", "loadbalancer-"); err != nil {
		return w, err
	}
	w.manifests = agent.Manifests(filepath.Join(w.dir, "manifests"))
	if err := os.Mkdir(string(w.manifests), 0o755); err != nil {
		return w, err
	}
	if w.Topology, err = topo.New(3); err != nil {
		return w, err
	}
	for i, h := range w.Nodes {
		if err := w.addNode(h, i); err != nil {
			return w, err
		}
	}
	if err := w.addTowers(); err != nil {
		return w, err
	}
	if err := w.configure(); err != nil {
		return w, err
	}
	if err := w.start(w.nodes...); err != nil {
		return w, err
	}
	for _, r := range w.towers() {
		if err := suite.Eventually(soon, func() error { return r.established(w.nodes...) }); err != nil {
			return w, fmt.Errorf("%w; log of %s:\n%s", err, w.nodes[0].Name, w.nodes[0].LogSince(0))
		}
	}
	return w, nil
}

func (w *world) addNode(h *topo.Host, number int) error {
	n, err := suite.NewNode(h, "loadbalancer")
	if err != nil {
		return err
	}
	w.nodes = append(w.nodes, &node{n})
	pod, err := w.AddPod(h, fmt.Sprintf("w%d", number+1))
	if err != nil {
		return err
	}
	w.pods = append(w.pods, pod)
	_, err = pod.Serve(topo.TCP, podPort)
	return errors.Join(err, w.manifests.Write(agent.Node(h)))
}

// addTowers starts the routers. They know the nodes before those dial.
func (w *world) addTowers() (err error) {
	if w.routerLog, err = os.Create(filepath.Join(suite.LogDir(), "loadbalancer-routers.log")); err != nil {
		return err
	}
	second, client, err := w.AddRouter("tor2")
	if err != nil {
		return err
	}
	w.tor1 = &tower{Name: "tor1", Host: w.Router, client: w.Client, asn: towerASN, hold: hold1}
	w.tor2 = &tower{Name: "tor2", Host: second, client: client, asn: nodesASN, hold: hold2}
	for _, r := range w.towers() {
		if r.RouteWatch, err = r.WatchRoutes(); err != nil {
			return err
		}
	}
	if w.frr, err = router.StartFRR(w.tor1.Host, w.options(w.tor1)); err != nil {
		return err
	}
	w.tor1.Router = w.frr
	bird, err := router.StartBIRD(w.tor2.Host, w.options(w.tor2))
	if err == nil {
		w.tor2.Router = bird
	}
	return err
}

func (w *world) towers() []*tower { return []*tower{w.tor1, w.tor2} }

// options are a router's that takes all nodes.
func (w *world) options(r *tower) router.Options {
	o := router.Options{ASN: r.asn, Hold: r.hold, Log: w.routerLog}
	for _, n := range w.nodes {
		o.Neighbors = append(o.Neighbors, router.Neighbor{Addr: n.V4, ASN: nodesASN})
	}
	return o
}

// start starts sluice on nodes, and waits.
func (w *world) start(nodes ...*node) error {
	for _, n := range nodes {
		err := n.StartAgent(w.bin, "--manifests", string(w.manifests), "--audit-period", auditPeriod.String(),
			"--cluster-cidr", topo.ClusterCIDR4+","+topo.ClusterCIDR6, "--not-ready-after", notReadyAfter.String(),
			"--address-state", filepath.Join(w.dir, n.Name+"-addresses.json"))
		if err != nil {
			return err
		}
	}
	return suite.Ready(nodes)
}

// established says which of the nodes has no session with the router.
func (r *tower) established(nodes ...*node) error {
	states, err := r.Sessions()
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if states[n.V4] != "Established" {
			return fmt.Errorf("%s: session of %s is %q", r.Name, n.Name, states[n.V4])
		}
	}
	return nil
}

func (w *world) Close() error {
	var errs []error
	if w.Topology == nil {
		return nil
	}
	for _, r := range w.towers() {
		if r != nil && r.Router != nil {
			errs = append(errs, r.Stop())
		}
	}
	return errors.Join(append(errs, w.Topology.Close(), os.RemoveAll(w.dir))...)
}

// enter is how a test begins. When it ends the world must be as it was: no
// routes of Services at the routers, all sessions, the nodes' kernels as at the
// beginning.
func enter(t *testing.T) *world {
	t.Helper()
	w := shared
	suite.Keep(t, w.nodes, soon, func() {
		for _, r := range w.towers() {
			suite.Await(t, soon, func() error { return errors.Join(r.established(w.nodes...), r.empty()) })
		}
	}, func(n *node) { suite.Await(t, soon, n.nothingDiscarded) })
	return w
}

// empty says which routes of Services a router still has.
func (r *tower) empty() error {
	for _, v6 := range []bool{false, true} {
		routes, err := r.Routes(v6)
		if err != nil || len(routes) > 0 {
			return errors.Join(err, fmt.Errorf("%s has routes: %v", r.Name, routes))
		}
	}
	return nil
}

// nothingDiscarded says which routes to nowhere a node has.
func (n *node) nothingDiscarded() error {
	out, err := n.Tool("sh", "-ec", discardRoutes)
	if err == nil && out != "" {
		err = fmt.Errorf("%s has routes to nowhere: %s", n.Name, out)
	}
	return err
}

// discardRoutes lists routes that lead nowhere. The kernel has one of its own,
// of IPv6, which is no default route's.
const discardRoutes = `for f in -4 -6; do ip $f route show table all | grep -E '^(blackhole|unreachable|prohibit)' | grep -v default || true; done`

// editNode changes a Node object until the test ends.
func (w *world) editNode(t *testing.T, n *node, edit func(*corev1.Node)) {
	t.Helper()
	o := agent.Node(n.Host)
	if edit != nil {
		edit(o)
	}
	suite.Must(t, w.manifests.Write(o))
	t.Cleanup(func() { suite.Must(t, w.manifests.Write(agent.Node(n.Host))) })
}
