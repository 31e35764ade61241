//go:build lab

package services

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"sluice.dev/sluice/e2e/suite"
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
type node struct{ *suite.Node }

// shared is the world: TestMain has no other way to hand it to tests.
var shared *world

func TestMain(m *testing.M) {
	os.Exit(suite.Play("services", "world of 3 nodes and 6 pods, with sluice ready", newWorld, func(w *world) int {
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
	for i, h := range w.Nodes {
		n, err := suite.NewNode(h, "services")
		if err != nil {
			return w, err
		}
		w.nodes = append(w.nodes, &node{n})
		if err := w.register(w.nodes[i]); err != nil {
			return w, err
		}
	}
	return w, w.start(w.nodes...)
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

// flags are those of every agent.
func (w *world) flags() []string {
	return []string{
		"--kubeconfig", w.kubeconfig,
		"--cluster-cidr", topo.ClusterCIDR4 + "," + topo.ClusterCIDR6,
		"--audit-period", auditPeriod.String(),
		"--drain-timeout", drainTimeout.String(),
	}
}

// start starts sluice on nodes, as a DaemonSet would, and waits.
func (w *world) start(nodes ...*node) error { return suite.Start(w.bin, nodes, w.flags()...) }

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
	suite.Keep(t, w.nodes, 20*time.Second, func() {}, func(n *node) {
		suite.Await(t, 5*time.Second, func() error { return n.Probe("/healthz") })
	})
	return w
}
