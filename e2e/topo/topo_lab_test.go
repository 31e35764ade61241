//go:build lab

package topo

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// cluster is two nodes with two pods on the first and one on the second.
func cluster(t *testing.T) (topology *Topology, pods []*Host) {
	t.Helper()
	begin := time.Now()
	topology, err := New(2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := topology.Close(); err != nil {
			t.Error(err)
		}
	})
	for i, node := range []int{0, 0, 1} {
		p, err := topology.AddPod(topology.Nodes[node], fmt.Sprintf("web-%d", i+1))
		if err != nil {
			t.Fatal(err)
		}
		pods = append(pods, p)
	}
	t.Logf("topology of 2 nodes and 3 pods built in %v", time.Since(begin).Round(time.Millisecond))
	return topology, pods
}

func TestReachability(t *testing.T) {
	topology, pods := cluster(t)
	node1, node2 := topology.Nodes[0], topology.Nodes[1]
	for _, server := range append([]*Host{node1, topology.Client}, pods...) {
		for _, protocol := range []string{TCP, UDP, SCTP} {
			if _, err := server.Serve(protocol, 80); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := server.Serve(HTTP, 8080); err != nil {
			t.Fatal(err)
		}
	}
	ways := []struct {
		name     string
		from, to *Host
	}{
		{"pod to pod on its node", pods[0], pods[1]},
		{"pod to pod on another node", pods[0], pods[2]},
		{"pod to itself", pods[0], pods[0]},
		{"node to its pod", node1, pods[0]},
		{"node to a pod elsewhere", node2, pods[0]},
		{"pod to node", pods[2], node1},
		{"client to node", topology.Client, node1},
		{"node to client", node2, topology.Client},
		{"root to node", topology.Root, node1},
	}
	for _, way := range ways {
		for _, to := range []netip.Addr{way.to.V4, way.to.V6} {
			for protocol, port := range map[string]uint16{TCP: 80, UDP: 80, SCTP: 80, HTTP: 8080} {
				t.Run(fmt.Sprintf("%s/%s/%v", way.name, protocol, to), func(t *testing.T) {
					got, err := way.from.Ask(t.Context(), protocol, netip.AddrPortFrom(to, port))
					if err != nil {
						t.Fatal(err)
					}
					source := way.from.Addr(to)
					if way.from == node1 && way.to == pods[0] {
						source = topology.Gateway(node1, to)
					}
					if got.Pod != way.to.Name || got.Client.Addr() != source {
						t.Errorf("got %v, want pod %s and client %v", got, way.to.Name, source)
					}
				})
			}
		}
	}
}

func TestPodAddressesStayInside(t *testing.T) {
	topology, pods := cluster(t)
	if _, err := topology.Client.Serve(TCP, 80); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	for _, to := range []netip.Addr{topology.Client.V4, topology.Client.V6} {
		if got, err := pods[0].Ask(ctx, TCP, netip.AddrPortFrom(to, 80)); err == nil {
			t.Errorf("a pod's own address got an answer from outside: %v", got)
		}
	}
}

func TestSourcePort(t *testing.T) {
	topology, _ := cluster(t)
	node := topology.Nodes[0]
	if _, err := node.Serve(TCP, 80); err != nil {
		t.Fatal(err)
	}
	from := netip.AddrPortFrom(topology.Client.V4, 4444)
	got, err := topology.Client.AskFrom(t.Context(), TCP, from, netip.AddrPortFrom(node.V4, 80))
	if err != nil || got.Client != from {
		t.Errorf("got %v, %v, want client %v", got, err, from)
	}
}

func TestConnectionOutlivesQuestions(t *testing.T) {
	topology, pods := cluster(t)
	stop, err := pods[2].Serve(TCP, 80)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pods[0].Dial(t.Context(), TCP, netip.AddrPortFrom(pods[2].V6, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "again\n"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1024)
	for lines := 0; lines < 2; {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		lines += strings.Count(string(buf[:n]), "\n")
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(buf); err == nil {
		t.Errorf("the server ended, but the connection says %q", buf[:n])
	}
	_ = topology
}

func TestHTTPClient(t *testing.T) {
	_, pods := cluster(t)
	if _, err := pods[1].Serve(HTTP, 80); err != nil {
		t.Fatal(err)
	}
	resp, err := pods[2].HTTPClient().Get(fmt.Sprintf("http://[%v]/any", pods[1].V6))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseAnswer(string(body)); err != nil || got.Pod != "web-2" || got.Client.Addr() != pods[2].V6 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestRemovedPodIsGone(t *testing.T) {
	topology, pods := cluster(t)
	if _, err := pods[1].Serve(TCP, 80); err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(pods[1].V4, 80)
	if _, err := pods[0].Ask(t.Context(), TCP, to); err != nil {
		t.Fatal(err)
	}
	if err := topology.RemovePod(pods[1]); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if got, err := pods[0].Ask(ctx, TCP, to); err == nil {
		t.Errorf("a removed pod answered: %v", got)
	}
	// The name and, in time, the link are free again; the address is not.
	again, err := topology.AddPod(topology.Nodes[0], "web-2")
	if err != nil {
		t.Fatal(err)
	}
	if again.V4 == to.Addr() {
		t.Errorf("a new pod got the old address %v", again.V4)
	}
}

func TestProcesses(t *testing.T) {
	topology, _ := cluster(t)
	node := topology.Nodes[1]
	out, err := node.Run(t.Context(), "sh", "-c", "hostname -I; ls /sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{node.V4.String(), node.V6.String(), "eth0", "web-3"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q lacks %s", out, want)
		}
	}
	if _, err := node.Run(t.Context(), "sh", "-c", "echo why >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("error %v, want one with the program's stderr", err)
	}

	var log strings.Builder
	p, err := node.Start(&log, "sh", "-c", "echo started; exec sleep 1000")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if err := p.Stop(); err != nil {
		t.Errorf("stopped again: %v", err)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", p.Pid())); err == nil {
		t.Error("the process is still there")
	}
	if err := p.Err(); err == nil {
		t.Error("no word of the signal")
	}
}

func TestIPVSPerNode(t *testing.T) {
	topology, pods := cluster(t)
	node := topology.Nodes[0]
	for _, p := range []*Host{pods[0], pods[2]} {
		if _, err := p.Serve(TCP, 80); err != nil {
			t.Fatal(err)
		}
	}
	vip := netip.MustParseAddrPort("10.96.0.1:80")
	script := strings.NewReplacer("VIP", vip.Addr().String(), "FIRST", pods[0].V4.String(), "SECOND", pods[2].V4.String()).Replace(
		`ip addr add VIP/32 dev lo && ipvsadm -A -t VIP:80 -s rr && ipvsadm -a -t VIP:80 -r FIRST:80 -m && ipvsadm -a -t VIP:80 -r SECOND:80 -m`)
	if _, err := node.Run(t.Context(), "sh", "-c", script); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for range 6 {
		got, err := pods[1].Ask(t.Context(), TCP, vip)
		if err != nil {
			t.Fatal(err)
		}
		seen[got.Pod]++
	}
	if seen["web-1"] != 3 || seen["web-3"] != 3 {
		t.Errorf("answers %v, want 3 of web-1 and of web-3", seen)
	}
	if out, err := topology.Nodes[1].Run(t.Context(), "ipvsadm", "-Sn"); err != nil || out != "" {
		t.Errorf("the other node's table: %q, %v, want an empty one", out, err)
	}
}

func TestEventually(t *testing.T) {
	calls := 0
	err := Eventually(t.Context(), func() error {
		if calls++; calls < 3 {
			return fmt.Errorf("call %d", calls)
		}
		return nil
	})
	if err != nil || calls != 3 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

func TestCompanionIsInReach(t *testing.T) {
	kubeconfig, err := os.ReadFile(os.Getenv("SLUICE_LAB_SHARED") + "/kubeconfig")
	if err != nil {
		t.Skip("needs lab -companion controlplane")
	}
	const server = "192.0.2.1:6443"
	if !strings.Contains(string(kubeconfig), server) {
		t.Fatalf("the API server is not at %s", server)
	}
	topology, _ := cluster(t)
	for _, host := range []*Host{topology.Root, topology.Nodes[1]} {
		conn, err := host.Dial(t.Context(), TCP, netip.MustParseAddrPort(server))
		if err != nil {
			t.Error(err)
			continue
		}
		conn.Close()
	}
}
