//go:build lab

package semantics

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// drift is how many keys an agent has found changed by others, in these tables
// or in all.
func (n *node) drift(t *testing.T, tables ...string) float64 {
	t.Helper()
	ask := []map[string]string{nil}
	for i, table := range tables {
		ask = append(ask[:i], map[string]string{"table": table})
	}
	total := 0.0
	for _, labels := range ask {
		// Not t.Context, which has ended when cleanups run.
		keys, err := n.Agent.Metric(context.Background(), "sluice_table_drift_total", labels)
		suite.Must(t, err)
		total += keys
	}
	return total
}

// TestRepair: whatever somebody changes by hand is put right at the next audit,
// and counted under the table's name.
func TestRepair(t *testing.T) {
	w := enter(t)
	w.meddling = true
	n := w.nodes[0]
	s := w.serve(t, "repaired", ready(w.a1, w.b1), func(svc *corev1.Service) { svc.Spec.LoadBalancerSourceRanges = []string{network4, network6} })
	local := w.serve(t, "repaired-local", ready(w.a1, w.b1), externalLocal)
	w.settle(t)
	was := suite.Tables(t, n.Host)
	at4, at6 := s.at(clusterIP, topo.TCP, n.V4, nil), s.at(clusterIP, topo.TCP, n.V6, nil)
	script := strings.NewReplacer(
		"AT4", at4.String(), "AT6", at6.String(), "VIP4", at4.Addr().String(), "VIP6", at6.Addr().String(),
		"POD4", w.a1.V4.String()+":8080", "POD6", "["+w.a1.V6.String()+"]:8080",
		"LB4", s.at(balancerIP, topo.TCP, n.V4, nil).Addr().String(),
		"LB6", s.at(balancerIP, topo.TCP, n.V6, nil).Addr().String(),
	)
	for _, row := range []struct{ name, table, script string }{
		{"virtual servers deleted", "ipvs", "ipvsadm -D -t AT4; ipvsadm -D -t AT6"},
		{"a destination's weight changed", "ipvs", "ipvsadm -e -t AT4 -r POD4 -m -w 7; ipvsadm -e -t AT6 -r POD6 -m -w 0"},
		{"a chain flushed", "netfilter", "iptables -w -t nat -F SLUICE-SERVICES; ip6tables -w -F SLUICE-INPUT"},
		{"the shortcuts flushed", "netfilter", "iptables -w -t nat -F SLUICE-SHORTCUTS; ip6tables -w -t nat -F SLUICE-SHORTCUTS"},
		{"the source ranges' chain flushed", "netfilter", "iptables -w -t mangle -F SLUICE-FIREWALL; ip6tables -w -t mangle -F SLUICE-FIREWALL"},
		{"jumps deleted", "netfilter", "iptables -w -t mangle -F PREROUTING; iptables -w -t mangle -A PREROUTING -d 10.99.0.0/16 -j FOREIGN"},
		{"set members deleted", "netfilter", "ipset del SLUICE-CLUSTER-IP VIP4,tcp:80; ipset del SLUICE-RANGED LB4,tcp:80"},
		{"set flushed", "netfilter", "ipset flush SLUICE-ALLOWED; ipset flush SLUICE-LOCAL"},
		{"addresses removed", "vip", "ip addr del VIP4/32 dev sluice0; ip -6 route del local VIP6 table local"},
		{"sysctl changed", "sysctl", "echo 0 > /proc/sys/net/ipv4/vs/conntrack"},
		{"sysctl of the drain changed", "sysctl", "echo 0 > /proc/sys/net/ipv4/vs/expire_nodest_conn"},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := n.drift(t, row.table)
			_, err := n.Tool("sh", "-ec", script.Replace(row.script))
			suite.Must(t, err)
			suite.Await(t, 5*auditPeriod, func() error {
				if n.drift(t, row.table) == before {
					return errors.New("no drift is counted")
				}
				return nil
			})
			suite.Await(t, 5*auditPeriod, func() error { return was.Same(n.Host) })
			if row.table == "sysctl" {
				suite.Await(t, 5*auditPeriod, func() error { return switchedOn(n, "conntrack", "expire_nodest_conn") })
			}
			for _, c := range []way{
				{protocol: topo.TCP, from: w.near, to: at4},
				{protocol: topo.TCP, from: w.near, to: at6},
				{protocol: topo.TCP, from: w.near, to: local.at(balancerIP, topo.TCP, n.V6, nil)},
				{protocol: topo.TCP, from: w.Client, to: s.at(balancerIP, topo.TCP, n.V4, nil)},
			} {
				answers(t, c, w.a1, w.b1)
			}
			quiet(t, way{protocol: topo.TCP, from: w.near, to: s.at(balancerIP, topo.TCP, n.V4, nil)})
		})
	}
}

// switchedOn says which of IPVS's sysctls are not 1 on a node.
func switchedOn(n *node, names ...string) error {
	return n.Do(func() error {
		for _, name := range names {
			text, err := os.ReadFile("/proc/sys/net/ipv4/vs/" + name)
			if err == nil && strings.TrimSpace(string(text)) != "1" {
				err = fmt.Errorf("%s: %s is %q", n.Name, name, text)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// TestForeign: what others have beside ours is there while Services of all
// sorts come and go (and after every other test: see enter), and after sluice
// was cleaned up, when nothing else is.
func TestForeign(t *testing.T) {
	w := enter(t)
	untouched := func(when string) {
		t.Helper()
		for _, n := range w.nodes {
			now := suite.Tables(t, n.Host)
			for tool, lines := range n.Before {
				for _, l := range lines {
					if !slices.Contains(now[tool], l) {
						t.Errorf("%s, %s: %s: gone is %s", when, n.Name, tool, l)
					}
				}
			}
		}
	}
	var made []*service
	for i, p := range policies {
		made = append(made, w.serve(t, fmt.Sprintf("beside-%d", i), ready(w.a1, w.b1), p.edit))
	}
	made = append(made, w.serve(t, "beside-none", nil, func(svc *corev1.Service) {
		svc.Spec.LoadBalancerSourceRanges = []string{network4}
	}))
	w.settle(t)
	untouched("with Services")
	for _, s := range made[:4] {
		s.scale(t, ready(w.b1)...)
	}
	made[0].remove(t)
	w.settle(t)
	untouched("after changes")

	for _, n := range w.nodes {
		suite.Must(t, n.Agent.Stop())
	}
	for _, n := range w.nodes {
		for range 2 { // again, when there is nothing
			_, err := n.Run(t.Context(), w.bin, "cleanup")
			suite.Must(t, err)
		}
		if err := n.Before.Same(n.Host); err != nil {
			t.Errorf("after cleanup: %v", err)
		}
	}
	suite.Must(t, w.start(detector()...))
	untouched("started again")
	answers(t, way{protocol: topo.TCP, from: w.near, to: made[1].at(clusterIP, topo.TCP, w.near.V4, nil)}, w.b1)
}
