//go:build lab

package semantics

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// sticky has a Service's clients stay for a time after their last connection.
func sticky(seconds int32) func(*corev1.Service) {
	return func(svc *corev1.Service) {
		svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		svc.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
	}
}

func free(svc *corev1.Service) {
	svc.Spec.SessionAffinity, svc.Spec.SessionAffinityConfig = corev1.ServiceAffinityNone, nil
}

// stays is who answers every one of several connections, which has to be one.
func stays(t *testing.T, c way) string {
	t.Helper()
	seen, err := c.reaches(t, 5)
	if err != nil || len(seen) != 1 {
		t.Fatalf("%v: %v answered, %v; want one to do so", c, seen, err)
	}
	return seen[0]
}

// TestAffinity: on, off, and its endpoint going, while it runs.
func TestAffinity(t *testing.T) {
	w := enter(t)
	pods := []*topo.Host{w.a1, w.b1, w.c1}
	s := w.serve(t, "sticky", ready(pods...), sticky(600))
	w.settle(t)
	ways := []way{
		{protocol: topo.TCP, from: w.near, to: s.at(clusterIP, topo.TCP, w.near.V4, nil)},
		{protocol: topo.UDP, from: w.far, to: s.at(clusterIP, topo.UDP, w.near.V6, nil)},
		{protocol: topo.UDP, from: w.Client, to: s.at(balancerIP, topo.UDP, w.near.V4, nil)},
		{protocol: topo.TCP, from: w.Client, to: s.at(nodePort, topo.TCP, w.near.V6, w.nodes[0])},
	}
	for _, c := range ways {
		t.Run(c.String(), func(t *testing.T) {
			stays(t, c)
		})
	}
	t.Run("off", func(t *testing.T) {
		s.update(t, free)
		w.settle(t)
		for _, c := range ways {
			answers(t, c, pods...)
		}
	})
	t.Run("on again", func(t *testing.T) {
		s.update(t, sticky(900))
		w.settle(t)
		for _, c := range ways {
			stays(t, c)
		}
	})
	for i, change := range []struct {
		name string
		edit func(e *endpoint) bool // false: it is gone
	}{
		{"its endpoint vanishes", func(*endpoint) bool { return false }},
		{"its endpoint terminates", func(e *endpoint) bool { e.terminating = true; return true }},
		{"its endpoint turns not ready", func(e *endpoint) bool { e.unready = true; return true }},
	} {
		t.Run(change.name, func(t *testing.T) {
			c := ways[i]
			s.scale(t, ready(pods...)...)
			w.settle(t)
			was := stays(t, c)
			list := ready(pods...)
			at := slices.IndexFunc(list, func(e endpoint) bool { return e.pod.Name == was })
			if !change.edit(&list[at]) {
				list = slices.Delete(list, at, at+1)
			}
			s.scale(t, list...)
			w.settle(t)
			if now := stays(t, c); now == was {
				t.Errorf("%v: still with %s", c, was)
			}
		})
	}
}

// TestAffinityShared: clients in the cluster are with the same endpoint by all
// addresses of a Service whose external ones are Local, as these lead to the
// cluster IP.
func TestAffinityShared(t *testing.T) {
	w := enter(t)
	s := w.serve(t, "shared", ready(w.a1, w.b1, w.c1), func(svc *corev1.Service) { externalLocal(svc); sticky(600)(svc) })
	w.settle(t)
	for _, from := range []*topo.Host{w.near, w.far, w.nodes[1].Host} {
		for _, protocol := range []string{topo.TCP, topo.UDP} {
			for _, like := range w.families() {
				was := ""
				for _, kind := range kinds {
					got := stays(t, way{protocol: protocol, from: from, to: s.at(kind, protocol, like, w.nodeOf(from))})
					if was != "" && got != was {
						t.Errorf("%s %s: with %s by its %s, and with %s before", from.Name, protocol, got, kind, was)
					}
					was = got
				}
			}
		}
	}
}

// TestAffinityTimeout: who does not come back in time is free again. A client
// does not leave while the kernel still knows a connection of its own, so this
// one has the kernel forget those of UDP at once.
func TestAffinityTimeout(t *testing.T) {
	const timeout = 3 * time.Second
	w := enter(t)
	set := func(udp int) {
		_, err := w.nodes[0].Tool("ipvsadm", "--set", "0", "0", fmt.Sprint(udp))
		suite.Must(t, err)
	}
	set(1)
	t.Cleanup(func() { set(300) })
	s := w.serve(t, "short", ready(w.a1, w.a2, w.b1), sticky(int32(timeout.Seconds())))
	w.settle(t)
	var ways []way
	for _, like := range w.families() {
		ways = append(ways, way{protocol: topo.UDP, from: w.near, to: s.at(clusterIP, topo.UDP, like, nil)})
	}
	was := map[netip.AddrPort]string{}
	for _, c := range ways {
		was[c.to] = stays(t, c)
	}
	// Longer than the timeout in all, and never so between two.
	for begin := time.Now(); time.Since(begin) < timeout+2*time.Second; time.Sleep(time.Second) {
		for _, c := range ways {
			if got := stays(t, c); got != was[c.to] {
				t.Errorf("%v: %s before its time, before it was %s", c, got, was[c.to])
			}
		}
	}
	time.Sleep(timeout + 4*time.Second) // and the kernel's own second or two
	for _, c := range ways {
		if got := stays(t, c); got == was[c.to] {
			t.Errorf("%v: %s again, want the next one", c, got)
		}
	}
}
