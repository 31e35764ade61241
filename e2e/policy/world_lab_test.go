//go:build lab

package policy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"sluice.dev/sluice/e2e/agent"
	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

const (
	// auditPeriod is short, so that drift is put right within a test.
	auditPeriod = 2 * time.Second
	// soon is how long what is to happen may take: longer than this
	// one-processor world stands still when it shares its host.
	soon = 15 * time.Second
	// pushPort is where pods talk without being asked, once in pushEvery.
	pushPort  = 90
	pushEvery = 50 * time.Millisecond
	// patience is how long answers to some dozens of probes may take.
	patience = 5 * time.Second
)

// world is what all tests share, because it takes seconds to build: two nodes
// with nine pods, which serve TCP, UDP and SCTP on ports 80 and 81, as do the
// nodes and the client. The router knows the way to pods.
//
//	node1  x/a x/c y/b z/a z/c       client ── router ── nodes
//	node2  x/b y/a y/c z/b
type world struct {
	*topo.Topology
	bin       string          // the sluice binary
	manifests agent.Manifests // the directory that all agents read

	nodes   []*node
	hosts   map[actor]*topo.Host
	pushers map[actor]map[string]*topo.Pushers // by protocol
	probers map[actor]*topo.Prober
	written map[string]string // the objects of cases that are in files, by who
	marks   int               // how many times a test has waited for the agents
}

// node is a node with sluice on it.
type node struct{ *suite.Node }

// shared is the world: TestMain has no other way to hand it to tests.
var shared *world

func TestMain(m *testing.M) {
	os.Exit(suite.Play("policy", "world of 2 nodes and 9 pods, with sluice ready", newWorld, func(w *world) int {
		shared = w
		return m.Run()
	}))
}

func newWorld(bin string) (w *world, err error) {
	w = &world{bin: bin, hosts: map[actor]*topo.Host{}, pushers: map[actor]map[string]*topo.Pushers{}, probers: map[actor]*topo.Prober{}, written: map[string]string{}}
	if w.Topology, err = topo.New(len(nodes())); err != nil {
		return w, err
	}
	dir, err := os.MkdirTemp("", "manifests-")
	if err != nil {
		return w, err
	}
	w.manifests = agent.Manifests(dir)
	if err := w.addHosts(); err != nil {
		return w, err
	}
	for _, h := range w.Nodes {
		n, err := suite.NewNode(h, "policy")
		if err != nil {
			return w, err
		}
		w.nodes = append(w.nodes, &node{n})
		if err := w.manifests.Write(agent.Node(h)); err != nil {
			return w, err
		}
	}
	// After nodes have been furnished: that is less thorough.
	if err := w.Unlimited(); err != nil {
		return w, err
	}
	if err := w.write(policyCase{}); err != nil {
		return w, err
	}
	return w, errors.Join(w.writeServices(), w.writeMark(0), w.start())
}

// addHosts makes the pods and has everybody serve.
func (w *world) addHosts() error {
	for _, p := range places() {
		h, err := w.AddPod(w.Nodes[p.node-1], hostName(p.pod))
		if err != nil {
			return err
		}
		if own := p.addrs(); h.V4 != own[0] || h.V6 != own[1] {
			return fmt.Errorf("%s has addresses %s and %s, want %v", p.pod, h.V4, h.V6, own)
		}
		w.hosts[p.pod], w.pushers[p.pod] = h, map[string]*topo.Pushers{}
		for _, protocol := range []string{topo.TCP, topo.UDP} {
			if w.pushers[p.pod][protocol], err = h.ServePush(protocol, pushPort, pushEvery); err != nil {
				return err
			}
		}
	}
	var routes strings.Builder
	for i, n := range nodes() {
		w.hosts[n] = w.Nodes[i]
		fmt.Fprintf(&routes, "ip route add 10.244.%d.0/24 via %s; ip route add fd00:10:244:%[1]d::/64 via %[3]s\n", i+1, w.Nodes[i].V4, w.Nodes[i].V6)
	}
	w.hosts[client] = w.Client
	for who, h := range w.hosts {
		w.probers[who] = h.NewProber()
		for _, protocol := range []string{topo.TCP, topo.UDP, topo.SCTP} {
			for _, port := range []uint16{80, 81} {
				if _, err := h.Serve(protocol, port); err != nil {
					return err
				}
			}
		}
	}
	_, err := w.Router.Tool("sh", "-ec", routes.String())
	return err
}

// start starts sluice on every node with flags of its own, and waits.
func (w *world) start(flags ...string) error { return w.startOn(w.nodes, flags...) }

// flags are those of every agent, and more.
func (w *world) flags(more ...string) []string {
	return append([]string{
		"--manifests", string(w.manifests), "--audit-period", auditPeriod.String(),
		"--cluster-cidr", topo.ClusterCIDR4 + "," + topo.ClusterCIDR6, "--drain-timeout", "1s",
	}, more...)
}

// startOn starts sluice on nodes, and waits until it is ready.
func (w *world) startOn(nodes []*node, flags ...string) error {
	return suite.Start(w.bin, nodes, w.flags(flags...)...)
}

// restart starts the agents again with other flags, for the length of a test.
func (w *world) restart(t *testing.T, flags ...string) {
	t.Helper()
	again := func(flags []string) {
		for _, n := range w.nodes {
			suite.Must(t, n.Agent.Stop())
		}
		suite.Must(t, w.start(flags...))
	}
	again(flags)
	t.Cleanup(func() { again(nil) })
}

func (w *world) Close() error {
	if w.Topology == nil {
		return nil
	}
	return errors.Join(w.Topology.Close(), os.RemoveAll(string(w.manifests)))
}

// enter is how a test begins. When it ends the world must be as it was: no
// policies, the kernels as at the beginning, the agents healthy.
func enter(t *testing.T) *world {
	t.Helper()
	w := shared
	restore := func() { suite.Must(t, errors.Join(w.write(policyCase{}), w.writeMark(0))) }
	suite.Keep(t, w.nodes, soon, restore, func(n *node) {
		suite.Await(t, soon, func() error { return n.Probe("/healthz") })
	})
	return w
}

// writeServices gives every pod a Service that leads to it alone: to port 80 by
// the same port, to 81 by another.
func (w *world) writeServices() error {
	for _, p := range places() {
		namespace, name, _ := strings.Cut(string(p.pod), "/")
		addrs := vips(p.pod)
		svc := clusterIPService(namespace, "s-"+name, addrs[:])
		svc.UID = types.UID("uid-service-" + hostName(p.pod))
		for _, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP} {
			for _, port := range []uint16{80, 81, pushPort} {
				svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{
					Name: fmt.Sprintf("%s-%d", strings.ToLower(string(protocol)), port), Protocol: protocol,
					Port: int32(vipPort(port)), TargetPort: intstr.FromInt32(int32(port)),
				})
			}
		}
		end := []agent.Endpoint{{Pod: w.hosts[p.pod], Node: string(p.host())}}
		if err := w.manifests.Write(svc, agent.Slice(svc, discoveryv1.AddressTypeIPv4, end), agent.Slice(svc, discoveryv1.AddressTypeIPv6, end)); err != nil {
			return err
		}
	}
	return nil
}

func clusterIPService(namespace, name string, addrs []netip.Addr) *corev1.Service {
	svc := &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-" + namespace + "-" + name)},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP},
	}
	for _, a := range addrs {
		family := corev1.IPv4Protocol
		if a.Is6() {
			family = corev1.IPv6Protocol
		}
		svc.Spec.ClusterIPs = append(svc.Spec.ClusterIPs, a.String())
		svc.Spec.IPFamilies = append(svc.Spec.IPFamilies, family)
	}
	svc.Spec.ClusterIP = svc.Spec.ClusterIPs[0]
	if len(addrs) > 1 {
		svc.Spec.IPFamilyPolicy = new(corev1.IPFamilyPolicyRequireDualStack)
	}
	return svc
}

// markAt is the address of the mark, a Service without endpoints that moves with
// every change of the files: whose node has it has read them.
func markAt(number int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 97, byte(number / 250), byte(1 + number%250)})
}

// writeMark writes the mark last of all.
func (w *world) writeMark(number int) error {
	svc := clusterIPService("zz-mark", "mark", []netip.Addr{markAt(number)})
	svc.Spec.Ports = []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromInt32(80)}}
	return w.manifests.Write(svc)
}

// settle waits until every agent has read what was written before, and its
// node's tables are what it wants of them.
func (w *world) settle(t *testing.T) {
	t.Helper()
	w.settleWithin(t, soon)
}

func (w *world) settleWithin(t *testing.T, limit time.Duration) {
	t.Helper()
	// When a second mark is there, all that was read with the first has begun.
	w.mark(t, limit)
	w.mark(t, limit)
	w.ready(t, limit)
}

// mark waits until every agent has read what was written before.
func (w *world) mark(t *testing.T, limit time.Duration) {
	t.Helper()
	w.marks++
	suite.Must(t, w.writeMark(w.marks))
	for _, n := range w.nodes {
		suite.Await(t, limit, func() error { return n.hasAddress(markAt(w.marks)) })
	}
}

// ready waits until every agent says so, again and again: between two steps
// towards what is wanted it does for a moment.
func (w *world) ready(t *testing.T, limit time.Duration) {
	t.Helper()
	for range 3 {
		for _, n := range w.nodes {
			suite.Await(t, limit, func() error { return n.Probe("/readyz") })
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// hasAddress says that a host does not have an address.
func (n *node) hasAddress(addr netip.Addr) error {
	return n.Do(func() error {
		var lc net.ListenConfig
		conn, err := lc.ListenPacket(context.Background(), "udp4", netip.AddrPortFrom(addr, 0).String())
		if err != nil {
			return fmt.Errorf("%s: %w", n.Name, err)
		}
		return conn.Close()
	})
}
