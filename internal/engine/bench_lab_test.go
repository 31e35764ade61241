//go:build lab

package engine_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
	"sluice.dev/sluice/internal/source"
	"sluice.dev/sluice/internal/source/file"
	"sluice.dev/sluice/ipvs"
)

const (
	coldServices  = 10_000
	coldEndpoints = 3
)

// BenchmarkLabColdStart programs 10,000 Services of three endpoints from the
// file source, beside the raw batched writer with the same IPVS commands in a
// namespace of its own. Run it with -benchtime 1x: a table that was filled and
// emptied before is slower for minutes (the kernel's list of deleted servers).
//
//	raw-s         the 40,000 IPVS commands alone
//	read-s        from the start to the file source's Synced
//	programmed-s  from the first event to every table as wanted, addresses bound
//	all-s         from the start to that
func BenchmarkLabColdStart(b *testing.B) {
	addNodeAddr(b)
	dir := b.TempDir()
	writeManifests(b, dir)
	for b.Loop() {
		raw := writeRaw(b)
		n := startNode(b)
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
		stop()
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		for _, s := range n.engine.Status() {
			b.Logf("%s: %d keys in %d applies, the last took %v", s.Name, s.Written, s.Applies, s.LastApplyTook)
		}
		n.stop()
		b.ReportMetric(raw.Seconds(), "raw-s")
		b.ReportMetric(synced.Sub(began).Seconds(), "read-s")
		b.ReportMetric(end.Sub(first).Seconds(), "programmed-s")
		b.ReportMetric(end.Sub(began).Seconds(), "all-s")
		b.ReportMetric(end.Sub(first).Seconds()/raw.Seconds(), "programmed/raw")
	}
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

// writeManifests writes the Services into ten files, as YAML.
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
metadata: {name: %[1]s, namespace: default}
spec:
  clusterIP: %[2]s
  clusterIPs: [%[2]s]
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s, namespace: default, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
`, svc.Name.Name, svc.ClusterIPs[0])
			for _, e := range slice.Endpoints {
				fmt.Fprintf(&y, "  - {addresses: [%s], nodeName: node2, conditions: {ready: true}}\n", e.Addr)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%02d.yaml", f)), []byte(y.String()), 0o644); err != nil {
			b.Fatal(err)
		}
	}
}
