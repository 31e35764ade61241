//go:build lab

package services

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// tables are the kernel tables in sluice's metrics.
var tables = []string{"netfilter", "ipvs", "vip"}

// startAgain starts sluice on all nodes, and waits until it has brought them up
// to date.
func (w *world) startAgain(t *testing.T) {
	t.Helper()
	for _, n := range w.nodes {
		suite.Must(t, n.StartAgent(w.bin, w.flags()...))
	}
	for _, n := range w.nodes {
		n.readyAgain(t)
	}
}

// readyAgain waits until a restarted agent has brought its node up to date.
func (n *node) readyAgain(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	suite.Must(t, n.Agent.Ready(ctx))
}

// wrote is how many writes of a kind an agent has made since it started.
func (n *node) wrote(t *testing.T, table string) (keys, commands float64) {
	t.Helper()
	labels := map[string]string{"table": table}
	keys, err := n.Agent.Metric(t.Context(), "sluice_table_writes_total", labels)
	suite.Must(t, err)
	commands, err = n.Agent.Metric(t.Context(), "sluice_kernel_commands_total", labels)
	suite.Must(t, err)
	return keys, commands
}

// audited waits until agents have compared every table so many times more.
func audited(t *testing.T, times float64, nodes ...*node) {
	t.Helper()
	audits := func(n *node, table string) (float64, error) {
		return n.Agent.Metric(t.Context(), "sluice_table_audits_total", map[string]string{"table": table})
	}
	until := map[string]float64{}
	for _, n := range nodes {
		for _, table := range tables {
			was, err := audits(n, table)
			suite.Must(t, err)
			until[n.Name+table] = was + times
		}
	}
	for _, n := range nodes {
		for _, table := range tables {
			suite.Await(t, 30*time.Second, func() error {
				now, err := audits(n, table)
				if want := until[n.Name+table]; err == nil && now < want {
					err = fmt.Errorf("%s: %s: %v audits, want %v", n.Name, table, now, want)
				}
				return err
			})
		}
	}
}

// TestRestart: sluice going away and coming back is noticed by nobody, and
// finds nothing to do.
func TestRestart(t *testing.T) {
	w := enter(t)
	a := w.create(t, "kept", ready(w.web[:3]...), everything)
	a.balance(t, balancerIPs...)
	sticky := w.create(t, "sticky", ready(w.web[:2]...), func(svc *corev1.Service) {
		svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		svc.Annotations = map[string]string{schedulerAnnotation: "wlc"}
	})
	empty := w.create(t, "empty", nil, func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeNodePort })
	w.follows(t, a, sticky, empty)
	w.settled(t)
	node1, node3 := w.nodes[0], w.nodes[2]
	kept := []*session{
		connect(t, w.near, a.at(t, node1, clusterIP, "tcp", node1.V4)),
		connect(t, w.Client, a.at(t, node1, balancerIP, "tcp", node1.V6)),
		connect(t, w.far, sticky.at(t, node3, clusterIP, "tcp", node1.V6)),
	}
	loads := []*load{
		requests(t, w.near, topo.HTTP, a.at(t, node1, clusterIP, "http", node1.V6)),
		requests(t, w.far, topo.UDP, a.at(t, node3, externalIP, "udp", node1.V4)),
		requests(t, w.Client, topo.TCP, a.at(t, node3, nodePort, "tcp", node1.V4)),
	}
	for _, way := range []struct {
		name string
		end  func(*node) error
	}{
		{"stopped", func(n *node) error { return n.Agent.Stop() }},
		{"killed", func(n *node) error { return n.Agent.Kill() }},
	} {
		t.Run(way.name, func(t *testing.T) {
			was := map[*node]topo.Tables{}
			for _, n := range w.nodes {
				was[n] = suite.Tables(t, n.Host)
				suite.Must(t, way.end(n))
			}
			for _, l := range loads {
				l.more(t, 5) // while nobody is there
			}
			for _, n := range w.nodes {
				if err := was[n].Same(n.Host); err != nil {
					t.Errorf("without sluice: %v", err)
				}
			}
			w.startAgain(t)
			audited(t, 1, w.nodes...)
			for _, n := range w.nodes {
				for _, table := range tables {
					if keys, commands := n.wrote(t, table); keys+commands != 0 {
						t.Errorf("%s: %s: %v keys written in %v commands after a restart, want none", n.Name, table, keys, commands)
					}
				}
				if err := was[n].Same(n.Host); err != nil {
					t.Errorf("restarted: %v", err)
				}
			}
			for _, l := range append(loads, kept[0].load, kept[1].load, kept[2].load) {
				l.more(t, 5)
			}
		})
	}
}

// TestChangedMeanwhile: what changed while sluice was away is made up for, what
// did not is left alone.
func TestChangedMeanwhile(t *testing.T) {
	w := enter(t)
	same := w.create(t, "same", ready(w.web[:2]...), nil)
	scaled := w.create(t, "scaled", ready(w.web[:2]...), nil)
	gone := w.create(t, "gone", ready(w.web[0]), everything)
	gone.balance(t, balancerIPs...)
	w.follows(t, same, scaled, gone)
	w.settled(t)
	node1 := w.nodes[0]
	l := requests(t, w.near, topo.TCP, same.at(t, node1, clusterIP, "tcp", node1.V4))
	for _, n := range w.nodes {
		suite.Must(t, n.Agent.Kill())
	}
	scaled.scale(t, ready(w.web[1], w.web[2])...)
	gone.remove(t)
	come := w.create(t, "come", ready(w.web[2]), nil)
	w.startAgain(t)
	w.follows(t, same, scaled, come)
	answers(t, w.near, topo.TCP, come.at(t, node1, clusterIP, "tcp", node1.V6), w.web[2:3], nil)
	for _, n := range w.nodes {
		st := suite.Tables(t, n.Host)
		for _, addr := range gone.svc.Spec.ClusterIPs {
			if st.Has("local routes", addr) || st.Has("ipset", addr) {
				t.Errorf("%s still has %s of a Service that is gone", n.Name, addr)
			}
		}
	}
	l.more(t, 5)
}

// settled waits until no node has anything left to write: virtual servers are
// followed by their addresses.
func (w *world) settled(t *testing.T) {
	t.Helper()
	for _, n := range w.nodes {
		n.readyAgain(t)
	}
}
