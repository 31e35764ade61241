//go:build lab

package services

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// tool is Host.Tool.
func tool(h *topo.Host, name string, args ...string) (string, error) { return h.Tool(name, args...) }

// by hand, as an administrator would.
func byHand(t *testing.T, h *topo.Host, script string) {
	t.Helper()
	_, err := tool(h, "sh", "-exc", script)
	suite.Must(t, err)
}

// servers is the node's virtual servers and destinations, one per line.
func (n *node) servers() ([]string, error) {
	out, err := tool(n.Host, "ipvsadm", "-Sn")
	var lines []string
	for line := range strings.Lines(out) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines, err
}

// lists reports whether so many of the node's lines begin with a text.
func (n *node) lists(prefix string, want int) error {
	all, err := n.servers()
	if err != nil {
		return err
	}
	rest := slices.DeleteFunc(slices.Clone(all), func(l string) bool { return !strings.HasPrefix(l, prefix) })
	if len(rest) != want {
		return fmt.Errorf("%s has %d of %q, want %d", n.Name, len(rest), prefix, want)
	}
	return nil
}

// kernelPort is ipvsadm's name of a frontend.
func kernelPort(protocol corev1.Protocol, at netip.AddrPort) string {
	return map[corev1.Protocol]string{
		corev1.ProtocolTCP: "-t ", corev1.ProtocolUDP: "-u ", corev1.ProtocolSCTP: "--sctp-service ",
	}[protocol] + at.String()
}

// servers are the lines of `ipvsadm -Sn` that an app wants on a node: none if
// there is nobody to serve.
func (a *app) servers(n *node) []string {
	var lines []string
	if len(a.usable()) == 0 {
		return nil
	}
	for _, f := range a.frontends(n) {
		at := kernelPort(f.protocol, f.at)
		head := "-A " + at + " -s " + a.scheduler()
		if c := a.svc.Spec.SessionAffinityConfig; a.svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
			head += fmt.Sprintf(" -p %d", *c.ClientIP.TimeoutSeconds)
		}
		lines = append(lines, head)
		for _, e := range a.usable() {
			to := netip.AddrPortFrom(e.pod.Addr(f.at.Addr()), targetPort(f.port))
			lines = append(lines, fmt.Sprintf("-a %s -r %s -m -w 1", at, to))
		}
	}
	return lines
}

// follows waits until every node's table is that of these apps, of the API
// server's own Service, and of foreigners. Destinations that drain are in
// neither: see the tests about them.
func (w *world) follows(t *testing.T, apps ...*app) {
	t.Helper()
	for _, n := range w.nodes {
		n.follows(t, apps...)
	}
	if t.Failed() {
		t.FailNow()
	}
}

func (n *node) follows(t *testing.T, apps ...*app) {
	t.Helper()
	want := map[string]bool{
		"-A -t 10.96.0.1:443 -s rr":                     true,
		"-a -t 10.96.0.1:443 -r 192.0.2.1:6443 -m -w 1": true,
	}
	for _, l := range n.Before["ipvsadm"] {
		want[l] = true
	}
	for _, a := range apps {
		for _, l := range a.servers(n) {
			want[l] = true
		}
	}
	sorted := slices.Sorted(maps.Keys(want))
	suite.Await(t, 15*time.Second, func() error {
		have, err := n.servers()
		if err != nil {
			return err
		}
		have = slices.DeleteFunc(have, func(l string) bool { return strings.HasSuffix(l, " -w 0") })
		if d := topo.Difference(sorted, have); d != "" {
			return fmt.Errorf("ipvsadm on %s:%s", n.Name, d)
		}
		return nil
	})
}
