//go:build lab

package engine_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/engine"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/internal/source"
	"sluice.dev/sluice/internal/source/file"
	"sluice.dev/sluice/internal/vip"
	"sluice.dev/sluice/ipvs"
)

const (
	coldServices  = 10_000
	coldEndpoints = 3
)

// BenchmarkColdStart10k programs 10,000 Services of three endpoints from the
// file source, beside the raw batched writer with the same IPVS commands in a
// namespace of its own. Run it with -benchtime 1x: a table that was filled and
// emptied before is slower for minutes (the kernel's list of deleted servers).
//
//	raw-s           the 40,000 IPVS commands alone
//	read-s          from the start to the file source's Synced
//	programmed-s    from the first event to every table as wanted, addresses bound
//	all-s           from the start to that
//	apply-s         of programmed-s, what each table's writes took
//	heap-B/service  in use afterwards, with the file source's memory
//	restart-s       a second engine with the same facts, until it has found that
//	                nothing is to be written
//	faults          page faults meanwhile: 1 µs natively, 20 to 30 in a guest
func BenchmarkColdStart10k(b *testing.B) {
	addNodeAddr(b)
	dir := b.TempDir()
	writeManifests(b, dir)
	for b.Loop() {
		b.StopTimer()
		raw := writeRaw(b)
		before := heap()
		debug.FreeOSMemory() // begin with an empty heap, as a process does
		faults := pageFaults(b)
		b.StartTimer()
		n := startTimed(b)
		n.tellNode()
		began := time.Now()
		var first, synced time.Time
		ctx, stop := context.WithCancel(b.Context())
		done := make(chan error, 1)
		go func() {
			done <- file.New(file.Options{Dir: dir}).Run(ctx, source.SinkFunc(func(e model.Event) {
				if first.IsZero() {
					first = time.Now()
				}
				if e.Synced {
					synced = time.Now()
				}
				n.engine.Event(e)
			}))
		}()
		n.await(b, coldServices*(1+coldEndpoints), coldServices)
		end := time.Now()
		b.StopTimer()
		b.ReportMetric(float64(pageFaults(b)-faults), "faults")
		b.ReportMetric(float64(heap()-before)/coldServices, "heap-B/service")
		stop()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		for i, s := range n.engine.Status() {
			b.Logf("%s: %d keys in %d applies", s.Name, s.Written, s.Applies)
			b.ReportMetric(n.took[i].Seconds(), s.Name+"-apply-s")
		}
		n.stop()
		b.ReportMetric(restart(b).Seconds(), "restart-s")
		clean(b)
		b.ReportMetric(raw.Seconds(), "raw-s")
		b.ReportMetric(synced.Sub(began).Seconds(), "read-s")
		b.ReportMetric(end.Sub(first).Seconds(), "programmed-s")
		b.ReportMetric(end.Sub(began).Seconds(), "all-s")
		b.ReportMetric(end.Sub(first).Seconds()/raw.Seconds(), "programmed/raw")
		b.StartTimer()
	}
}

// restart starts an engine over what another one left.
func restart(b *testing.B) time.Duration {
	b.Helper()
	// A guest dies of more than 65,530 scattered pages (the host's
	// vm.max_map_count), which is 256 MB.
	debug.FreeOSMemory()
	began := time.Now()
	n := startNode(b)
	n.tellNode()
	n.tellServices(coldServices, coldEndpoints)
	n.await(b, coldServices*(1+coldEndpoints), coldServices)
	took := time.Since(began)
	for _, s := range n.engine.Status() {
		if s.Written+s.Deleted > 0 {
			b.Errorf("a restart wrote %d and deleted %d keys of %s", s.Written, s.Deleted, s.Name)
		}
	}
	n.stop()
	return took
}

// timedNode is a node whose tables tell how long their writes took.
type timedNode struct {
	*node
	took [3]time.Duration // rules, servers, addresses; read when nothing moves
}

func startTimed(b *testing.B) *timedNode {
	b.Helper()
	n := &timedNode{}
	n.node = startNode(b, func(t engine.Targets) engine.Targets {
		return engine.Targets{
			Rules:     timed[netfilter.Key, netfilter.Spec]{t.Rules, &n.took[0]},
			Servers:   timed[ipvs.Key, ipvs.Spec]{t.Servers, &n.took[1]},
			Addresses: timed[vip.Key, vip.Spec]{t.Addresses, &n.took[2]},
		}
	})
	return n
}

// timed is a Target that adds up the time its writes take.
type timed[K, V comparable] struct {
	reconcile.Target[K, V]
	took *time.Duration
}

func (t timed[K, V]) Apply(ctx context.Context, c reconcile.Change[K, V]) map[K]error {
	began := time.Now()
	defer func() { *t.took += time.Since(began) }()
	return t.Target.Apply(ctx, c)
}

func pageFaults(tb testing.TB) int64 {
	tb.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return u.Minflt
}

// writeRaw is the batched writer alone.
func writeRaw(b *testing.B) (took time.Duration) {
	b.Helper()
	var commands []ipvs.Command
	for i := range coldServices {
		svc, slice := numbered(i, coldEndpoints)
		view := viewOf(svc, slice)
		wish := ipvs.Desired(view, ipvs.Options{})
		vs := ipvs.Key{VirtualServer: ipvs.VirtualServer{Addr: view.Frontends[0].Addr, Protocol: model.TCP}}
		commands = append(commands, ipvs.Command{Key: vs, Spec: wish[vs]})
		for k, spec := range wish {
			if k.IsDestination() {
				commands = append(commands, ipvs.Command{Key: k, Spec: spec})
			}
		}
	}
	netfiltertest.NewNamespace(b).Do(func() {
		// Without its loopback device a namespace has no routes to endpoints.
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err != nil {
			b.Error(err)
			return
		}
		h, err := ipvs.Open(b.Context())
		if err != nil {
			b.Error(err)
			return
		}
		defer h.Close()
		began := time.Now()
		for i, err := range h.Write(b.Context(), commands) {
			if err != nil {
				b.Errorf("%s: %v", commands[i].Key, err)
				return
			}
		}
		took = time.Since(began)
	})
	return took
}

func viewOf(svc model.Service, slice model.EndpointSlice) model.View {
	s := model.NewStore(model.StoreOptions{NodeName: "node1"})
	s.Apply(model.Event{Put: svc})
	s.Apply(model.Event{Put: slice})
	return model.Resolve(s, svc.Name)
}

// writeManifests writes the Services into ten files, in the style of kubectl.
func writeManifests(b *testing.B, dir string) {
	b.Helper()
	const files = 10
	for f := range files {
		var y strings.Builder
		for i := f * coldServices / files; i < (f+1)*coldServices/files; i++ {
			svc, slice := numbered(i, coldEndpoints)
			fmt.Fprintf(&y, `---
apiVersion: v1
kind: Service
metadata:
  name: %[1]s
  namespace: default
  labels:
    app: %[1]s
spec:
  type: ClusterIP
  clusterIP: %[2]s
  clusterIPs:
  - %[2]s
  selector:
    app: %[1]s
  ports:
  - name: http
    protocol: TCP
    port: 80
    targetPort: 8080
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: %[1]s
  namespace: default
  labels:
    kubernetes.io/service-name: %[1]s
addressType: IPv4
ports:
- name: http
  protocol: TCP
  port: 8080
endpoints:
`, svc.Name.Name, svc.ClusterIPs[0])
			for _, e := range slice.Endpoints {
				fmt.Fprintf(&y, `- addresses:
  - %s
  conditions:
    ready: true
    serving: true
    terminating: false
  nodeName: node2
`, e.Addr)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%02d.yaml", f)), []byte(y.String()), 0o644); err != nil {
			b.Fatal(err)
		}
	}
}
