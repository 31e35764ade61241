//go:build lab

package life

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice/e2e/agent"
	"sluice.dev/sluice/e2e/router"
	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

const (
	// soon is how long what is to happen may take: longer than this
	// one-processor world stands still when it shares its host.
	soon = 20 * time.Second
	// barred is an address of the client's that a policy excepts.
	barred = "192.168.20.66"
	// netnsEtc is where `ip netns exec` finds a host's own files of /etc.
	netnsEtc = "/etc/netns"
)

// The autonomous systems of the router and of the nodes, as bgp.yaml has them.
const routerASN, nodesASN = 64513, 64512

// world is what all pages share, because it takes seconds to build: three nodes
// with sluice, FRR on the router between them and the client.
type world struct {
	*topo.Topology
	bin    string // the sluice binary
	dir    string // of everything that is written
	hosts  map[string]*topo.Host
	agents []*agent.Agent // by node
	logs   []*os.File
	frr    *router.FRR
	*cluster
	marks   int            // how many times somebody has waited for the agents
	closers []func() error // of what the world has running itself
}

// shared is the world: TestMain has no other way to hand it to tests.
var shared *world

func TestMain(m *testing.M) {
	os.Exit(suite.Play("life", "world of 3 nodes and a BGP router, with sluice ready", newWorld, func(w *world) int {
		shared = w
		return m.Run()
	}))
}

func newWorld(bin string) (w *world, err error) {
	w = &world{bin: bin, hosts: map[string]*topo.Host{}}
	if w.dir, err = os.MkdirTemp("", "life-"); err != nil {
		return w, err
	}
	w.cluster = newCluster(agent.Manifests(filepath.Join(w.dir, "manifests")))
	if err := os.Mkdir(string(w.manifests), 0o755); err != nil {
		return w, err
	}
	if err := ownEtc(); err != nil {
		return w, err
	}
	if w.Topology, err = topo.New(3); err != nil {
		return w, err
	}
	for _, h := range append([]*topo.Host{w.Client, w.Router}, w.Nodes...) {
		w.hosts[h.Name] = h
	}
	if _, err := w.Client.Tool("ip", "addr", "add", barred+"/24", "dev", "eth0"); err != nil {
		return w, err
	}
	if err := errors.Join(w.Unlimited(), w.startRouter()); err != nil {
		return w, err
	}
	for _, n := range w.Nodes {
		if err := w.startAgent(n); err != nil {
			return w, err
		}
	}
	for _, file := range []string{"pods.yaml", "dns.yaml"} {
		if err := w.apply(file); err != nil {
			return w, err
		}
	}
	return w, w.settle()
}

// ownEtc gives this world an /etc/netns of its own, where pods have their
// resolv.conf.
func ownEtc() error {
	if err := os.MkdirAll(netnsEtc, 0o755); err != nil {
		return err
	}
	return unix.Mount("tmpfs", netnsEtc, "tmpfs", 0, "mode=755")
}

func (w *world) startRouter() error {
	log, err := w.log("router")
	if err != nil {
		return err
	}
	o := router.Options{ASN: routerASN, Log: log}
	for _, n := range w.Nodes {
		o.Neighbors = append(o.Neighbors, router.Neighbor{Addr: n.V4, ASN: nodesASN})
	}
	w.frr, err = router.StartFRR(w.Router, o)
	return err
}

// startAgent starts sluice on a node that the cluster has from now on.
func (w *world) startAgent(n *topo.Host) error {
	if err := w.manifests.Write(agent.Node(n)); err != nil {
		return err
	}
	log, err := w.log(n.Name)
	if err != nil {
		return err
	}
	a, err := agent.Start(n, w.bin, log, "--manifests", string(w.manifests), "--hostname-override", n.Name,
		"--cluster-cidr", topo.ClusterCIDR4+","+topo.ClusterCIDR6, "--drain-timeout", "1s", "--audit-period", "5s",
		"--address-state", filepath.Join(w.dir, n.Name+"-addresses.json"))
	w.agents = append(w.agents, a)
	return err
}

// log opens the file of what a program says.
func (w *world) log(name string) (*os.File, error) {
	f, err := os.Create(filepath.Join(w.dir, name+".log"))
	w.logs = append(w.logs, f)
	return f, err
}

func (w *world) Close() error {
	if w.Topology == nil {
		return nil
	}
	var errs []error
	if w.frr != nil {
		errs = append(errs, w.frr.Stop())
	}
	for _, f := range w.closers {
		errs = append(errs, f())
	}
	errs = append(errs, w.Topology.Close())
	for _, l := range w.logs {
		errs = append(errs, l.Close())
	}
	return errors.Join(append(errs, unix.Unmount(netnsEtc, 0), os.RemoveAll(w.dir))...)
}

// enter is how a test begins. When it ends nothing but the pods is left.
func enter(t *testing.T) *world {
	t.Helper()
	w := shared
	if err := w.calm(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(w.reset(), w.settle()); err != nil {
			t.Error(err)
		}
		if !t.Failed() {
			return
		}
		for _, l := range w.logs {
			text, _ := os.ReadFile(l.Name()) // shown as far as it is there
			t.Logf("%s:\n%s", filepath.Base(l.Name()), suite.Tail(string(text), 40))
		}
	})
	return w
}

// calm waits until nothing of what was there before is on its way out: endpoints
// that drain, sessions.
func (w *world) calm() error {
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	for _, a := range w.agents {
		err := topo.Eventually(ctx, func() error {
			leaving, err := a.Metric(ctx, "sluice_table_deferred_keys", nil)
			if err != nil {
				return err
			}
			sessions, err := a.Metric(ctx, "sluice_table_keys", map[string]string{"table": "bgp"})
			if err == nil && leaving+sessions > 0 {
				err = fmt.Errorf("%s has %v keys that drain and %v of BGP", a.Host.Name, leaving, sessions)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// settle waits until every agent has read what was written before, and its
// node's tables are what it wants of them. Agents show by a Service, the mark,
// that they have read what was written before it; when a second mark is there,
// all that was read with the first has begun.
func (w *world) settle() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*soon)
	defer cancel()
	for range 2 {
		w.marks++
		if err := w.writeMark(w.marks); err != nil {
			return err
		}
		if err := w.marked(ctx, markAt(w.marks), true); err != nil {
			return err
		}
	}
	if err := w.eraseMark(); err != nil {
		return err
	}
	if err := w.marked(ctx, markAt(w.marks), false); err != nil {
		return err
	}
	// Between two steps towards what is wanted an agent is ready for a moment.
	for range 3 {
		for _, a := range w.agents {
			if err := a.Ready(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// marked waits until every node has the address of a mark, or has it no more.
func (w *world) marked(ctx context.Context, mark netip.Addr, want bool) error {
	for _, n := range w.Nodes {
		err := topo.Eventually(ctx, func() error {
			has, err := hasAddress(n, mark)
			if err == nil && has != want {
				err = fmt.Errorf("%s has the mark %v: %t", n.Name, mark, has)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// hasAddress reports whether an address is a host's own.
func hasAddress(h *topo.Host, addr netip.Addr) (has bool, err error) {
	err = h.Do(func() error {
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
		if errors.Is(err, unix.EADDRNOTAVAIL) {
			return nil
		}
		if err != nil {
			return err
		}
		has = true
		return conn.Close()
	})
	return has, err
}
