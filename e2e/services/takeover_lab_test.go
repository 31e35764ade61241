//go:build lab

package services

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// foreignServers are the addresses of others' virtual servers: kube-proxy deletes
// those that it is not told of.
var foreignServers = []string{"10.99.0.0/24", "10.96.0.1/32"}

// TestTakeOver: nodes that kube-proxy serves become sluice's under load. No
// connection breaks and no request fails, and nothing of kube-proxy is left.
func TestTakeOver(t *testing.T) {
	for _, mode := range []string{"ipvs", "iptables"} {
		t.Run(mode, func(t *testing.T) { testTakeOver(t, mode) })
	}
}

func testTakeOver(t *testing.T, mode string) {
	w := enter(t)
	node1, node2, node3 := w.nodes[0], w.nodes[1], w.nodes[2]
	for _, n := range w.nodes {
		suite.Must(t, n.Agent.Stop())
		_, err := tool(n.Host, w.bin, "cleanup")
		suite.Must(t, err)
	}
	shop := w.create(t, "shop", ready(w.web[:3]...), everything)
	shop.balance(t, balancerIPs...)
	gone := w.create(t, "gone", ready(w.web[:2]...), func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeNodePort })
	proxies := w.startKubeProxies(t, mode)
	for _, n := range w.nodes {
		for _, a := range []*app{shop, gone} {
			at := a.at(t, n, clusterIP, "tcp", n.V6)
			suite.Await(t, time.Minute, func() error { _, err := ask(t, n.Host, topo.TCP, at); return err })
		}
	}
	kept := []*session{
		connect(t, w.near, shop.at(t, node1, clusterIP, "tcp", node1.V4)),
		connect(t, node2.Host, shop.at(t, node2, clusterIP, "tcp", node1.V6)),
		connect(t, w.Client, shop.at(t, node1, balancerIP, "tcp", node1.V6)),
		connect(t, w.Client, shop.at(t, node3, nodePort, "tcp", node1.V4)),
	}
	loads := []*load{
		requests(t, w.near, topo.HTTP, shop.at(t, node1, clusterIP, "http", node1.V6)),
		requests(t, w.far, topo.UDP, shop.at(t, node3, externalIP, "udp", node1.V4)),
		requests(t, w.Client, topo.TCP, shop.at(t, node3, nodePort, "tcp", node1.V4)),
		requests(t, node2.Host, topo.TCP, shop.at(t, node2, clusterIP, "tcp", node1.V4)),
	}
	for _, s := range kept {
		loads = append(loads, s.load)
	}
	for _, p := range proxies {
		suite.Must(t, p.Stop())
	}
	gone.remove(t) // while nobody looks
	for _, l := range loads {
		l.more(t, 5)
	}
	for _, n := range w.nodes {
		suite.Must(t, n.StartAgent(w.bin, append(w.flags(), "--remove-kube-proxy")...))
		suite.Must(t, n.Ready())
	}
	for _, n := range w.nodes {
		suite.Await(t, 30*time.Second, func() error { return kubeProxyLeft(n) })
		byHand(t, n.Host, strings.ReplaceAll(removeKubelets, "iptables", "iptables-legacy")+strings.ReplaceAll(removeKubelets, "iptables", "ip6tables-legacy"))
	}
	for _, l := range loads {
		l.more(t, 20)
	}
	for _, l := range loads {
		l.end(t)
	}
	w.follows(t, shop)
}

// startKubeProxies starts kube-proxy on all nodes.
func (w *world) startKubeProxies(t *testing.T, mode string) (proxies []*topo.Process) {
	t.Helper()
	// It calls iptables by its plain name.
	dir := t.TempDir()
	for _, name := range []string{"iptables", "ip6tables"} {
		for _, verb := range []string{"", "-save", "-restore"} {
			legacy, err := filepath.EvalSymlinks("/usr/sbin/" + name + "-legacy" + verb)
			suite.Must(t, err)
			// The program looks at its own name.
			script := fmt.Sprintf("#!/bin/sh\nexec %s %s%s \"$@\"\n", legacy, name, verb)
			suite.Must(t, os.WriteFile(filepath.Join(dir, name+verb), []byte(script), 0o755))
		}
	}
	for _, n := range w.nodes {
		log, err := os.Create(filepath.Join(suite.LogDir(), "kube-proxy-"+n.Name+"-"+mode+".log"))
		suite.Must(t, err)
		p, err := n.Start(log, "env", "PATH="+dir+":"+os.Getenv("PATH"), os.Getenv("SLUICE_KUBE_PROXY"),
			"--proxy-mode="+mode, "--kubeconfig="+w.kubeconfig, "--hostname-override="+n.Name, "--cluster-cidr="+topo.ClusterCIDR4+","+topo.ClusterCIDR6,
			"--ipvs-exclude-cidrs="+strings.Join(foreignServers, ","), "--conntrack-max-per-core=0", "--conntrack-min=0", "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0")
		suite.Must(t, err)
		t.Cleanup(func() {
			_ = p.Kill() // it has ended, if all went well
			text, _ := os.ReadFile(log.Name())
			if t.Failed() {
				t.Logf("end of kube-proxy's log on %s:\n%s", n.Name, suite.Tail(string(text), 25))
			}
		})
		proxies = append(proxies, p)
	}
	return proxies
}

// removeKubelets removes the kubelet's chain, which kube-proxy makes too in mode
// iptables, and which is nobody's who leaves.
const removeKubelets = `
	if iptables -w -L KUBE-FIREWALL >/dev/null 2>&1; then
		iptables -w -D INPUT -j KUBE-FIREWALL; iptables -w -D OUTPUT -j KUBE-FIREWALL
		iptables -w -F KUBE-FIREWALL; iptables -w -X KUBE-FIREWALL
	fi
`

// kubeProxyLeft says what of kube-proxy is still on a node.
func kubeProxyLeft(n *node) error {
	now, err := n.Tables()
	if err != nil {
		return err
	}
	var left []string
	for name, lines := range now {
		for _, l := range lines {
			if (strings.Contains(l, "KUBE-") && !strings.Contains(l, "KUBE-FIREWALL") || strings.Contains(l, "kube-ipvs0")) && !slices.Contains(n.Before[name], l) {
				left = append(left, name+": "+l)
			}
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("%s has still %d lines of kube-proxy, such as %s", n.Name, len(left), left[0])
	}
	return nil
}
