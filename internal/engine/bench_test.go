package engine_test

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"sluice.dev/sluice/internal/engine"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/internal/vip"
	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/nodeport"
)

const (
	manyServices  = 10_000
	manyEndpoints = 3
)

// manyFacts are n Services with three endpoints each, and the node.
func manyFacts(n int) []any {
	facts := []any{node1()}
	for i := range n {
		facts = append(facts, manyService(i), manySlice(i, manyEndpoints))
	}
	return facts
}

func manyService(i int) model.Service {
	svc := service(fmt.Sprint("svc-", i), "0.0.0.0")
	svc.ClusterIPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})}
	return svc
}

func manySlice(i, n int) model.EndpointSlice {
	sl := endpoints(fmt.Sprint("svc-", i))
	sl.Family = model.IPv4
	for d := range n {
		a := netip.AddrFrom4([4]byte{10, byte(128 + d), byte(i >> 8), byte(i)})
		sl.Endpoints = append(sl.Endpoints, model.Endpoint{Addr: a, Node: "node2", Ready: true, Serving: true})
	}
	return sl
}

// void is a table that takes everything and is empty to look at.
type void[K, V comparable] struct{}

func (void[K, V]) List(context.Context, []K) iter.Seq2[reconcile.Section[K, V], error] {
	return func(func(reconcile.Section[K, V], error) bool) {}
}

func (void[K, V]) Apply(context.Context, reconcile.Change[K, V]) map[K]error { return nil }

func voids() engine.Targets {
	return engine.Targets{
		Rules:     void[netfilter.Key, netfilter.Spec]{},
		Servers:   void[ipvs.Key, ipvs.Spec]{},
		Addresses: void[vip.Key, vip.Spec]{},
	}
}

// begin runs an engine with one source over targets.
func begin(tb testing.TB, targets engine.Targets, sources int) (e *engine.Engine, stop func()) {
	tb.Helper()
	families := []model.Family{model.IPv4, model.IPv6}
	e = engine.New(engine.Options{
		Store: model.StoreOptions{
			NodeName:  "node1",
			NodePorts: func(a []netip.Addr) []netip.Addr { return nodeport.Select(a, nil) },
		},
		Sources:  sources,
		Families: families,
		Rules: func(_ []netip.Prefix) map[netfilter.Key]netfilter.Spec {
			return nodeport.Static(nodeport.Config{Families: families})
		},
		Targets:  targets,
		Patience: time.Hour,
		Hooks:    engine.Hooks{Problem: func(p model.Problem) { tb.Errorf("%+v", p) }},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { e.Run(ctx); close(done) }()
	return e, func() { cancel(); <-done }
}

// settle waits until n Services stand in every table and no claim is open.
func settle(tb testing.TB, e *engine.Engine, n int) {
	tb.Helper()
	for limit := time.Now().Add(5 * time.Minute); !settled(e, n); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			tb.Fatalf("not settled: %+v", e.Status())
		}
	}
}

func settled(e *engine.Engine, n int) bool {
	s := e.Status()
	for _, l := range s {
		if !l.Synced || l.Puts+l.Dels+l.FailingCount > 0 {
			return false
		}
	}
	return s[1].Present == n*(1+manyEndpoints) && s[2].Present == n
}

// BenchmarkEngine10k is what the engine itself takes to bring 10,000 Services
// to tables that cost nothing, and to the fakes; and what it then keeps.
func BenchmarkEngine10k(b *testing.B) {
	facts := manyFacts(manyServices)
	for _, c := range []struct {
		name    string
		targets func() engine.Targets
	}{
		{"void", voids},
		{"fakes", func() engine.Targets {
			w := newWorld()
			w.blind = true
			return w.targets([]model.Family{model.IPv4, model.IPv6})
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				targets := c.targets()
				before := heap()
				b.StartTimer()
				e, stop := begin(b, targets, 1)
				for _, f := range facts {
					e.Event(event(f))
				}
				e.Event(synced)
				settle(b, e, manyServices)
				b.StopTimer()
				b.ReportMetric(float64(heap()-before)/manyServices, "heap-B/service")
				stop()
				b.StartTimer()
			}
		})
	}
}

// heap is what is in use after a collection.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkOneEndpoint is one endpoint more or less among 10,000 Services,
// from the event to the write.
func BenchmarkOneEndpoint(b *testing.B) {
	e, stop := begin(b, voids(), 1)
	defer stop()
	for _, f := range manyFacts(manyServices) {
		e.Event(event(f))
	}
	e.Event(synced)
	settle(b, e, manyServices)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		n := manyEndpoints + 1 - i%2
		before := e.Status()[1]
		e.Event(event(manySlice(77, n)))
		for e.Status()[1].Written+e.Status()[1].Deleted == before.Written+before.Deleted {
			runtime.Gosched()
		}
	}
}
