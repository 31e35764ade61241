//go:build lab

package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"sluice.dev/sluice/e2e/agent"
	"sluice.dev/sluice/e2e/topo"
)

// world is one node with two pods, of which one serves, and the image.
type world struct {
	*topo.Topology
	root        string // of the image
	server, pod *topo.Host
	before      topo.Tables
}

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == jailWord {
		fmt.Fprintln(os.Stderr, becomeJailed(os.Args[2]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const podPort = 8080

func newWorld(t *testing.T) *world {
	t.Helper()
	root := os.Getenv("SLUICE_ROOTFS")
	if root == "" {
		t.Fatal("SLUICE_ROOTFS does not say where the image's root is; see `make e2e`")
	}
	network, err := topo.New(1)
	must(t, err)
	t.Cleanup(func() { must(t, network.Close()) })
	w := &world{Topology: network, root: root}
	w.server, err = w.AddPod(w.Nodes[0], "server")
	must(t, err)
	w.pod, err = w.AddPod(w.Nodes[0], "pod")
	must(t, err)
	_, err = w.server.Serve(topo.TCP, podPort)
	must(t, err)
	must(t, w.Nodes[0].Furnish())
	w.before, err = w.Nodes[0].Tables()
	must(t, err)
	for _, to := range []string{"10.96.0.0/12"} {
		_, err := w.Router.Tool("ip", "route", "add", to, "via", w.Nodes[0].V4.String())
		must(t, err)
	}
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The Service's addresses.
var clusterIPs = []string{"10.96.0.80", "fd00:10:96::80"} //nolint:gochecknoglobals // a constant

const nodePort = 30080

// objects are a Service, its endpoints and the Node.
func (w *world) objects() []agent.Object {
	svc := &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeNodePort, ClusterIP: clusterIPs[0], ClusterIPs: clusterIPs,
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol},
			Ports:      []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: 80, NodePort: nodePort, TargetPort: intstr.FromInt32(podPort)}},
		},
	}
	node := agent.Node(w.Nodes[0])
	node.Spec.PodCIDRs = []string{"10.244.1.0/24", "fd00:10:244:1::/64"}
	list := []agent.Object{svc, node}
	for _, family := range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6} {
		list = append(list, agent.Slice(svc, family, []agent.Endpoint{{Pod: w.server, Node: w.Nodes[0].Name}}))
	}
	return list
}

// start starts a jailed program on the node.
func (w *world) start(j jail, log *buffer) (*topo.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args, err := j.args()
	if err != nil {
		return nil, err
	}
	return w.Nodes[0].Start(log, self, args...)
}

// run runs one until it ends.
func (w *world) run(t *testing.T, j jail) (string, error) {
	t.Helper()
	var log buffer
	p, err := w.start(j, &log)
	must(t, err)
	err = p.Err()
	return log.String(), err
}

// TestImage: the image does what an agent does, from the first module to the last
// trace, with what the manifests give it.
func TestImage(t *testing.T) {
	w := newWorld(t)
	list, err := os.ReadFile(w.root + ".txt")
	must(t, err)
	fmt.Printf("the image's files, with sizes:\n%s", list)

	pod, err := agentPod()
	must(t, err)
	w.loadsModules(t, pod)
	config := t.TempDir()
	must(t, configuration(config))
	manifests := agent.Manifests(t.TempDir())
	must(t, manifests.Write(w.objects()...))
	j, err := w.jailOf(pod, pod.Containers[0], map[string]string{"sluice": config})
	must(t, err)
	// The objects come from files: no API server is part of this.
	j.Mounts = append(j.Mounts, mount{From: string(manifests), To: "/tmp", ReadOnly: true})
	j.Args = append(j.Args, "--manifests=/tmp", "--address-state=/run/addresses.json")
	// A node here is no host of its own, whose limit could be written.
	j.Args = append(j.Args, "--conntrack-max-per-core=0")

	w.needsCapabilities(t, j)
	var log buffer
	p, err := w.start(j, &log)
	must(t, err)
	if err := w.ready(t.Context()); err != nil {
		t.Fatalf("%v; its log:\n%s", err, log.String())
	}
	bits, err := granted(p.Pid())
	must(t, err)
	fmt.Printf("the agent runs with the capabilities %s (%s)\n", strings.Join(j.Capabilities, ", "), bits)
	w.serves(t)
	w.setsSwitches(t, log.String())
	w.shows(t, j)
	must(t, p.Stop())
	w.serves(t) // the kernel goes on
	w.removesItself(t, pod)
}

// ready waits until the agent's tables hold what is wanted.
func (w *world) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	client := w.Nodes[0].HTTPClient()
	return topo.Eventually(ctx, func() error {
		answer, err := client.Get("http://" + netip.AddrPortFrom(w.Nodes[0].V4, 10256).String() + "/readyz")
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != 200 {
			return errors.New(answer.Status)
		}
		return nil
	})
}

// serves asks the Service from everywhere.
func (w *world) serves(t *testing.T) {
	t.Helper()
	node := w.Nodes[0]
	for _, c := range []struct {
		from *topo.Host
		to   netip.AddrPort
	}{
		{w.pod, netip.AddrPortFrom(netip.MustParseAddr(clusterIPs[0]), 80)},
		{w.pod, netip.AddrPortFrom(netip.MustParseAddr(clusterIPs[1]), 80)},
		{w.server, netip.AddrPortFrom(netip.MustParseAddr(clusterIPs[0]), 80)}, // itself
		{node, netip.AddrPortFrom(netip.MustParseAddr(clusterIPs[0]), 80)},
		{w.Client, netip.AddrPortFrom(node.V4, nodePort)},
		{w.Client, netip.AddrPortFrom(node.V6, nodePort)},
	} {
		answer, err := c.from.Ask(t.Context(), topo.TCP, c.to)
		if err != nil || answer.Pod != w.server.Name {
			t.Errorf("%s asks %v: %v, %v", c.from.Name, c.to, answer, err)
			continue
		}
		fmt.Printf("%s -> %v: %v\n", c.from.Name, c.to, answer)
	}
}

// loadsModules runs the init container, and once more with a module that nobody
// has loaded yet.
func (w *world) loadsModules(t *testing.T, pod corev1.PodSpec) {
	t.Helper()
	j, err := w.jailOf(pod, pod.InitContainers[0], nil)
	must(t, err)
	if out, err := w.run(t, j); err != nil {
		t.Fatalf("%v: %v: %s", j.Args, err, out)
	}
	const other = "ip_vs_ftp"
	if modules(t)[other] {
		t.Logf("%s is loaded already", other)
		return
	}
	j.Args = slices.Concat(j.Args[:len(j.Args)-1], []string{other})
	without := j
	without.Capabilities = nil
	if out, err := w.run(t, without); err == nil || modules(t)[other] {
		t.Errorf("modprobe without a capability: %v: %s", err, out)
	}
	if out, err := w.run(t, j); err != nil || !modules(t)[other] {
		t.Errorf("%v: %v: %s", j.Args, err, out)
	}
}

// modules are those that the kernel has loaded.
func modules(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile("/proc/modules")
	must(t, err)
	loaded := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		loaded[strings.Fields(line)[0]] = true
	}
	return loaded
}

// needsCapabilities starts the agent without each of its capabilities: if it got
// on, the capability would be one too many.
func (w *world) needsCapabilities(t *testing.T, j jail) {
	t.Helper()
	for i, name := range j.Capabilities {
		without := j
		without.Capabilities = slices.Concat(j.Capabilities[:i], j.Capabilities[i+1:])
		out, err := w.run(t, without)
		if err == nil {
			t.Errorf("the agent gets on without %s:\n%s", name, out)
		}
		fmt.Printf("without %s: %s\n", name, lastLine(out))
	}
}

// setsSwitches: the agent writes the node's switches, though its own /proc/sys is
// read-only.
func (w *world) setsSwitches(t *testing.T, log string) {
	t.Helper()
	for _, name := range []string{"net.ipv4.vs.conntrack", "net.ipv4.vs.expire_nodest_conn"} {
		out, err := w.Nodes[0].Tool("sysctl", "-n", name)
		if err != nil || strings.TrimSpace(out) != "1" {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
	if strings.Contains(log, "read-only") || strings.Contains(log, "permission denied") || strings.Contains(log, "not permitted") {
		t.Errorf("the agent is refused something:\n%s", log)
	}
}

// shows: the image lists what the kernel holds, under both names.
func (w *world) shows(t *testing.T, agent jail) {
	t.Helper()
	show := agent
	show.Args = []string{"ipvs", "-Ln"}
	listed, err := w.run(t, show)
	if err != nil || !strings.Contains(listed, "TCP  10.96.0.80:80 rr") {
		t.Errorf("sluice ipvs -Ln: %v:\n%s", err, listed)
	}
	show.Args, show.Command = []string{"ipvsadm", "-Ln"}, true
	if again, err := w.run(t, show); err != nil || again != listed {
		t.Errorf("ipvsadm -Ln in the image: %v:\n%s\nwant\n%s", err, again, listed)
	}
	fmt.Print(listed)
}

// removesItself runs the Pod that removes what is left on a node.
func (w *world) removesItself(t *testing.T, of corev1.PodSpec) {
	t.Helper()
	pod, err := cleanupPod(of)
	must(t, err)
	j, err := w.jailOf(pod, pod.Containers[0], nil)
	must(t, err)
	out, err := w.run(t, j)
	if err != nil {
		t.Errorf("cleanup: %v: %s", err, out)
	}
	after, err := w.Nodes[0].Tables()
	must(t, err)
	for tool, lines := range w.before {
		if !slices.Equal(lines, after[tool]) {
			t.Errorf("%s: before\n%s\nafter\n%s", tool, strings.Join(lines, "\n"), strings.Join(after[tool], "\n"))
		}
	}
	fmt.Printf("sluice %s: %s", strings.Join(j.Args, " "), out)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// buffer takes what a program writes while others read it.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
