//go:build lab

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice.dev/sluice/internal/netfilter/netfiltertest"
)

// asSluice, in the environment, has this test be the program.
const asSluice = "SLUICE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asSluice) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// bench is a node in a namespace of its own, on which the program runs.
type bench struct {
	t    *testing.T
	node netfiltertest.Namespace
	dir  string
}

const service = `apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  type: NodePort
  clusterIPs: [10.96.0.80]
  clusterIP: 10.96.0.80
  ports: [{port: 80, targetPort: 8080, nodePort: 30080, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080, protocol: TCP, name: ""}]
endpoints: [{addresses: [10.244.1.2], conditions: {ready: true}, nodeName: node1}]
`

func newBench(t *testing.T) bench {
	t.Helper()
	b := bench{t, netfiltertest.NewNamespace(t), t.TempDir()}
	b.write("manifests/web.yaml", service)
	b.sh("sysctl -qw net.ipv6.conf.all.forwarding=1; ip link set lo up; ip link add eth0 type dummy; ip link set eth0 up; ip addr add 192.168.10.11/24 dev eth0; ip addr add 172.16.0.11/24 dev eth0")
	return b
}

func (b bench) write(name, text string) string {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
	return path
}

func (b bench) sh(script string) (out string) {
	b.t.Helper()
	b.node.Do(func() {
		text, err := exec.Command("sh", "-ec", script).CombinedOutput()
		if err != nil {
			b.t.Errorf("%s: %v\n%s", script, err, text)
		}
		out = string(text)
	})
	return out
}

// kubeadms writes the file that kubeadm makes, as a pod sees it.
func (b bench) kubeadms(name string) string {
	b.t.Helper()
	text, err := os.ReadFile(ofKubeProxy + name)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.write("config.conf", string(text))
}

// log is what the program says.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// start starts the program, as the container's command would be.
func (b bench) start(args ...string) (*exec.Cmd, *log) {
	b.t.Helper()
	cmd, said := exec.Command("/proc/self/exe", append([]string{"run"}, args...)...), &log{}
	cmd.Env = append(os.Environ(), asSluice+"=1")
	cmd.Stdout, cmd.Stderr = said, said
	var err error
	b.node.Do(func() { err = cmd.Start() })
	if err != nil {
		b.t.Fatal(err)
	}
	return cmd, said
}

// get asks the program over HTTP.
func (b bench) get(url string) (string, error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, addr string) (c net.Conn, err error) {
			b.node.Do(func() { c, err = net.DialTimeout(network, addr, 10*time.Second) })
			return c, err
		},
	}}
	r, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if r.StatusCode != http.StatusOK {
		return string(text), fmt.Errorf("%s: %s", url, r.Status)
	}
	return string(text), err
}

// ready awaits that the node serves all.
func (b bench) ready(said *log) {
	b.t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if _, err = b.get("http://127.0.0.1:10256/readyz"); err == nil {
			return
		}
	}
	b.t.Fatalf("not ready: %v\n%s", err, said)
}

func (b bench) stop(cmd *exec.Cmd, said *log) {
	b.t.Helper()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		b.t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		b.t.Errorf("it ended with %v\n%s", err, said)
	}
}

// expect looks for lines in a text, all of them.
func expect(t *testing.T, what, text string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !strings.Contains(text, l) {
			t.Errorf("%s: %q is missing in\n%s", what, l, text)
		}
	}
}

// TestRunWithKubeadmsFile: the file that kubeadm makes, unchanged, one of our own
// and kubeadm's command line are what the agent needs, and what they say is what
// the kernel does then.
func TestRunWithKubeadmsFile(t *testing.T) {
	b := newBench(t)
	own := b.write("agent.yaml", agentDoc+"conntrackMaxPerCore: 0 # it is the whole host's\nlogJSON: false\n")
	cmd, said := b.start("--config="+b.kubeadms("kubeadm-tuned.conf"), "--config="+own, "--hostname-override=Node1", "--manifests="+b.dir+"/manifests")
	b.ready(said)
	expect(t, "switches", b.sh("sysctl net.ipv4.conf.all.arp_ignore net.ipv4.conf.all.arp_announce net.netfilter.nf_conntrack_tcp_timeout_established "+
		"net.netfilter.nf_conntrack_tcp_timeout_close_wait net.netfilter.nf_conntrack_tcp_be_liberal net.netfilter.nf_conntrack_udp_timeout"),
		"arp_ignore = 1", "arp_announce = 2", "established = 43200", "close_wait = 3600", "be_liberal = 1", "udp_timeout = 40")
	table := b.sh("ipvsadm -Ln; ipvsadm -L --timeout")
	expect(t, "IPVS", table, "TCP  192.168.10.11:30080 lc", "TCP  10.96.0.80:80 lc", "10.244.1.2:8080", "Timeout (tcp tcpfin udp): 900 ", " 300\n")
	if strings.Contains(table, "172.16.0.11") {
		t.Errorf("NodePorts are served outside nodePortAddresses:\n%s", table)
	}
	expect(t, "rules", b.sh("iptables-save -t nat"), "--match-set SLUICE-CLUSTER-IP dst,dst -j MARK")
	if text, err := b.get("http://192.168.10.11:10249/debug/pprof/goroutine?debug=1"); err != nil || !strings.Contains(text, "goroutine profile") {
		t.Errorf("profiles at metricsBindAddress: %v\n%s", err, text)
	}
	expect(t, "log", said.String(), "msg=\"sluice is running\"", "node=node1")
	t.Logf("what is ignored of it:")
	n := 0
	for line := range strings.Lines(said.String()) {
		if strings.Contains(line, "setting is ignored") {
			t.Log(strings.TrimSpace(line))
			n++
		}
		if strings.Contains(line, "level=ERROR") {
			t.Error(line)
		}
	}
	if n != 12 {
		t.Errorf("%d lines, want 11 fields, and the kubeconfig that --manifests makes needless", n)
	}
	b.sh("sysctl -qw net.netfilter.nf_conntrack_udp_timeout=50")
	b.stop(cmd, said)

	cmd, said = b.start("--config="+b.kubeadms("kubeadm.conf"), "--config="+own, "--manifests="+b.dir+"/manifests")
	b.ready(said)
	expect(t, "after kubeadm's default file", b.sh("ipvsadm -Ln; sysctl net.netfilter.nf_conntrack_tcp_timeout_established net.netfilter.nf_conntrack_udp_timeout net.ipv4.conf.all.arp_ignore"),
		"TCP  10.96.0.80:80 rr", "established = 86400", "udp_timeout = 50", "arp_ignore = 1")
	expect(t, "log", said.String(), "setting=nodePortAddresses value=\"(not set)\"")
	b.stop(cmd, said)

	cmd, said = b.start("--proxy-mode=ipvs", "--detect-local-mode=BridgeInterface", "--pod-bridge-interface=cni0", "--conntrack-max-per-core=0", "--manifests="+b.dir+"/manifests",
		"--metrics-bind-address=", "--bind-address=::")
	b.ready(said)
	expect(t, "rules", b.sh("(iptables-save -t nat; ip6tables-save -t nat) | sed 's/ -m comment --comment [^ ]*//'"),
		"-A SLUICE-SERVICES ! -i cni0 -m set --match-set SLUICE-CLUSTER-IP dst,dst", "-A SLUICE-SERVICES ! -i cni0 -m set --match-set SLUICE-6-CLUSTER-IP dst,dst",
		"-A SLUICE-SERVICES -i cni0 -m set --match-set SLUICE-LOCAL dst,dst")
	if _, err := b.get("http://127.0.0.1:10249/metrics"); err == nil {
		t.Error("metrics are served, although nowhere was asked for")
	}
	b.stop(cmd, said)
}

// TestInitOnly sets the kernel's switches and ends; that they could not be set
// is an error.
func TestInitOnly(t *testing.T) {
	b := newBench(t)
	own := b.write("agent.yaml", agentDoc+"conntrackMaxPerCore: 0\nipvsStrictARP: true\n")
	cmd, said := b.start("--init-only", "--config="+own)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
	expect(t, "switches", b.sh("sysctl net.ipv4.vs.conntrack net.ipv4.vs.expire_nodest_conn net.ipv4.conf.all.arp_ignore net.netfilter.nf_conntrack_tcp_timeout_established"),
		"vs.conntrack = 1", "expire_nodest_conn = 1", "arp_ignore = 1", "established = 86400")
	t.Logf("\n%s", said)
	if table := b.sh("ipvsadm -Ln; ip link show"); strings.Contains(table, "10.96.0.80") {
		t.Errorf("it serves:\n%s", table)
	}
	cmd, said = b.start("--init-only", "--conntrack-max-per-core=1000000")
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("a limit that is not this namespace's: %v\n%s", err, said)
	}
	expect(t, "error", said.String(), "sluice: sysctl net.netfilter.nf_conntrack_buckets=", "\nsysctl net.netfilter.nf_conntrack_max=", "permission denied; in a container, mount the host's /proc/sys")
}
