//go:build lab

package services

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// TestScale adds and removes endpoints under load: nobody notices, and the
// kernel's destinations follow.
func TestScale(t *testing.T) {
	w := enter(t)
	web, node1, node3 := w.web, w.nodes[0], w.nodes[2]
	a := w.create(t, "scale", ready(web[:2]...), func(svc *corev1.Service) {
		svc.Spec.Type = corev1.ServiceTypeNodePort
		svc.Annotations = map[string]string{drainAnnotation: "1m"}
	})
	w.follows(t, a)

	four, six := w.far.V4, w.far.V6
	loads := []*load{
		requests(t, w.far, topo.TCP, a.at(t, node3, clusterIP, "tcp", four)),
		requests(t, w.far, topo.UDP, a.at(t, node3, clusterIP, "udp", six)),
		requests(t, w.far, topo.SCTP, a.at(t, node3, clusterIP, "sctp", four)),
		requests(t, w.Client, topo.HTTP, a.at(t, node3, nodePort, "http", six)),
	}
	answered := func(pods ...*topo.Host) {
		t.Helper()
		for _, l := range loads {
			for _, p := range pods {
				was := l.count(p)
				suite.Await(t, 10*time.Second, func() error {
					if l.count(p) > was {
						return nil
					}
					return fmt.Errorf("%s: no answer from %s", l.name, p.Name)
				})
			}
		}
	}
	answered(web[:2]...)
	// The only connection through node1, so that what becomes of it alone says
	// when the kernel lets its endpoint go.
	kept := connect(t, w.near, a.at(t, node1, clusterIP, "tcp", four))
	pinned := slices.IndexFunc(web, func(p *topo.Host) bool { return p.Name == kept.pod })

	t.Run("up", func(t *testing.T) {
		a.scale(t, ready(web...)...)
		w.follows(t, a)
		answered(web...)
	})
	at := kernelPort(corev1.ProtocolTCP, a.at(t, node1, clusterIP, "tcp", four))
	leaving := fmt.Sprintf("-a %s -r %s -m -w 0", at, netip.AddrPortFrom(web[pinned].V4, webPort))
	rest := slices.Delete(slices.Clone(web), pinned, pinned+1)
	for _, step := range []struct {
		name      string
		endpoints []endpoint
	}{
		{"one terminates", append(ready(rest...), endpoint{pod: web[pinned], terminating: true})},
		{"it is gone from the slice", ready(rest...)},
	} {
		t.Run(step.name, func(t *testing.T) {
			a.scale(t, step.endpoints...)
			w.follows(t, a)
			was := make([]int, len(loads))
			for i, l := range loads {
				l.more(t, 1) // which was under way when the kernel changed
				was[i] = l.count(web[pinned])
			}
			answered(rest...)
			for i, l := range loads {
				if now := l.count(web[pinned]); now != was[i] {
					t.Errorf("%s: %d new connections to an endpoint that has left", l.name, now-was[i])
				}
			}
			kept.more(t, 10)
			if have, err := node1.servers(); err != nil || !slices.Contains(have, leaving) {
				t.Errorf("node1 has no %q while a connection runs: %v\n%s", leaving, err, strings.Join(have, "\n"))
			}
			w.listsAsIPVSAdm(t, node1)
		})
	}
	t.Run("its last connection ends", func(t *testing.T) {
		kept.reset(t)
		suite.Await(t, 20*time.Second, func() error {
			have, err := node1.servers()
			if err == nil && slices.Contains(have, leaving) {
				err = fmt.Errorf("still there: %s", leaving)
			}
			return err
		})
	})
	t.Run("down to none and up again", func(t *testing.T) {
		for _, l := range loads {
			l.end(t)
		}
		a.update(t, func(svc *corev1.Service) { svc.Annotations = nil }) // those that have ended are not waited for so long
		a.scale(t)
		w.follows(t, a)
		refused(t, w.near, topo.UDP, a.at(t, node1, clusterIP, "udp", four), time.Second)
		a.scale(t, ready(web[3])...)
		w.follows(t, a)
		answers(t, w.near, topo.UDP, a.at(t, node1, clusterIP, "udp", four), web[3:], nil)
		answers(t, w.near, topo.TCP, a.at(t, node1, clusterIP, "tcp", six), web[3:], nil)
	})
}

// TestLastEndpointsTerminate: while a rolling update has nothing ready, what
// still serves gets the traffic (KEP-1669).
func TestLastEndpointsTerminate(t *testing.T) {
	w := enter(t)
	node1 := w.nodes[0]
	a := w.create(t, "update", ready(w.web[0]), nil)
	w.follows(t, a)
	l := requests(t, w.near, topo.TCP, a.at(t, node1, clusterIP, "tcp", w.near.V4))
	for _, step := range []struct {
		name string
		old  endpoint
		next []endpoint
		by   *topo.Host
	}{
		{"it terminates, nobody else", endpoint{pod: w.web[0], terminating: true}, nil, w.web[0]},
		{"its successor is not ready", endpoint{pod: w.web[0], terminating: true}, []endpoint{{pod: w.web[2], unready: true}}, w.web[0]},
		{"its successor is ready", endpoint{pod: w.web[0], terminating: true}, ready(w.web[2]), w.web[2]},
	} {
		t.Run(step.name, func(t *testing.T) {
			a.scale(t, append(step.next, step.old)...)
			w.follows(t, a)
			l.more(t, 20)
			was := l.count(step.by)
			l.more(t, 5)
			if l.count(step.by) == was {
				t.Errorf("%s does not answer", step.by.Name)
			}
		})
	}
}
