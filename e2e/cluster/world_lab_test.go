//go:build lab

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"sluice.dev/sluice/e2e/router"
	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// soon is how long what is to happen may take: longer than this one-processor
// world stands still when it shares its host.
const soon = 30 * time.Second

// The autonomous systems of the nodes and of the router, and the password
// between them.
const (
	nodesASN, routerASN = 64512, 64513
	password            = "correct-horse"
)

// world is what the tests share: a cluster that nothing is installed in.
//
//	node1 node2 node3 ── segment ── router, FRR ── client
//	                                   └── root ── 192.0.2.1: the API server
type world struct {
	*topo.Topology
	bin   string // the sluice binary
	image string // the root of its image
	dir   string // of everything that is written

	config  *rest.Config // who may do everything
	api     kubernetes.Interface
	objects dynamic.Interface
	audit   *audit

	kubelet   *kubelet
	frr       *router.FRR
	routes    *topo.RouteWatch // of the router's kernel
	before    map[*topo.Host]topo.Tables
	routerLog *os.File
}

// shared is the world: TestMain has no other way to hand it to tests.
var shared *world

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == containerName {
		fmt.Fprintln(os.Stderr, "container:", becomeContainer(os.Args[1]))
		os.Exit(127)
	}
	os.Exit(suite.Play("cluster", "three nodes with kubelets, and a router", newWorld, func(w *world) int {
		shared = w
		return m.Run()
	}))
}

func newWorld(bin string) (w *world, err error) {
	w = &world{bin: bin, before: map[*topo.Host]topo.Tables{}}
	if w.dir, err = os.MkdirTemp("", "cluster-"); err != nil {
		return w, err
	}
	if err := w.makeImage(); err != nil {
		return w, err
	}
	if w.Topology, err = topo.New(3); err != nil {
		return w, err
	}
	if err := w.connect(); err != nil {
		return w, err
	}
	if err := w.startRouter(); err != nil {
		return w, err
	}
	for _, n := range w.Nodes {
		if err := w.furnish(n); err != nil {
			return w, err
		}
	}
	w.kubelet, err = startKubelet(w)
	return w, err
}

// makeImage makes the root of the image, as its Dockerfile does, unless it is
// there: it takes seconds on a host, but a minute in a guest.
func (w *world) makeImage() error {
	if w.image = os.Getenv("SLUICE_ROOTFS"); w.image != "" {
		return nil
	}
	w.image = filepath.Join(w.dir, "image")
	if err := os.Mkdir(w.image, 0o755); err != nil {
		return err
	}
	out, err := exec.Command("../../deploy/image/rootfs.sh", w.bin, w.image).CombinedOutput()
	if err != nil {
		return fmt.Errorf("deploy/image/rootfs.sh: %w: %s", err, out)
	}
	return nil
}

// connect makes the clients of the API server, in the root namespace.
func (w *world) connect() (err error) {
	dir := os.Getenv("SLUICE_LAB_SHARED")
	w.config, err = clientcmd.BuildConfigFromFlags("", filepath.Join(dir, "kubeconfig"))
	if err != nil {
		return fmt.Errorf("kubeconfig (is controlplane lab's companion?): %w", err)
	}
	w.config.QPS = -1 // the server is ours alone
	w.config.WarningHandler = rest.NoWarnings{}
	if w.api, err = kubernetes.NewForConfig(w.config); err != nil {
		return err
	}
	if w.objects, err = dynamic.NewForConfig(w.config); err != nil {
		return err
	}
	w.audit = &audit{path: filepath.Join(dir, "audit.log")}
	return nil
}

// startRouter starts FRR, which knows the nodes before those dial, and keeps
// connections where they are, as routers with resilient hashing do.
func (w *world) startRouter() (err error) {
	if w.routerLog, err = os.Create(filepath.Join(w.logDir(), "router.log")); err != nil {
		return err
	}
	if w.routes, err = w.Router.WatchRoutes(); err != nil {
		return err
	}
	o := router.Options{ASN: routerASN, Log: w.routerLog}
	for _, n := range w.Nodes {
		o.Neighbors = append(o.Neighbors, router.Neighbor{Addr: n.V4, ASN: nodesASN, Password: password})
	}
	if w.frr, err = router.StartFRR(w.Router, o); err != nil {
		return err
	}
	_, err = w.Stick(w.Router)
	return err
}

// networkPlugin is what a network plugin leaves in a node's tables: pods reach
// what is outside the cluster with the node's address. The chain is the
// kubelet's word for which iptables the node uses.
const networkPlugin = `
	iptables-legacy -w -t mangle -N KUBE-IPTABLES-HINT; ip6tables-legacy -w -t mangle -N KUBE-IPTABLES-HINT
	iptables-legacy -w -t nat -A POSTROUTING -s ` + topo.ClusterCIDR4 + ` ! -d ` + topo.ClusterCIDR4 + ` -j MASQUERADE
	ip6tables-legacy -w -t nat -A POSTROUTING -s ` + topo.ClusterCIDR6 + ` ! -d ` + topo.ClusterCIDR6 + ` -j MASQUERADE
`

// furnish gives a node what others than sluice have there. Nothing of sluice's
// may ever touch it.
func (w *world) furnish(n *topo.Host) (err error) {
	if err := n.Furnish(); err != nil {
		return err
	}
	if _, err := n.Tool("sh", "-ec", networkPlugin); err != nil {
		return err
	}
	w.before[n], err = n.Tables()
	return err
}

// logDir is where logs are worth more than the run, if anywhere.
func (w *world) logDir() string {
	if out := os.Getenv("SLUICE_LAB_OUT"); out != "" {
		return out
	}
	return w.dir
}

func (w *world) Close() error {
	var errs []error
	if w.kubelet != nil {
		errs = append(errs, w.kubelet.close())
	}
	if w.frr != nil {
		errs = append(errs, w.frr.Stop())
	}
	if w.Topology != nil {
		errs = append(errs, w.Topology.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(w.dir))...)
}

// journal is a log that several write.
type journal struct {
	mu   sync.Mutex
	file *os.File
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.file.Write(p)
}

func (j *journal) say(format string, args ...any) {
	fmt.Fprintf(j, "%s %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
}

// eventually waits for a condition.
func eventually(ctx context.Context, limit time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %v", limit))
	defer cancel()
	return topo.Eventually(ctx, f)
}
