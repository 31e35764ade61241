package bgp_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"sluice.dev/sluice/bgp"
	"sluice.dev/sluice/bgp/bgptest"
)

// TestManyRoutes has 10,000 routes told before the session and 10,000 after it,
// and one of them changed: the router is sent each once.
func TestManyRoutes(t *testing.T) {
	t.Parallel()
	const count = 10_000
	r, n := startRouter(t), newNode(t)
	n.tellMany(t, count)
	must(t, n.Open("tor", r.session()))
	n.awaitUp(t)
	bgptest.Await(t, "all routes", func() bool { return bgp.Count(r.bgp) == count })
	before := r.state(t).State.Messages.Received.Update
	n.tellMany(t, count) // nothing new
	other := bgptest.Hop4()
	other.Communities = "64512:1"
	must(t, n.Tell(tor(bgptest.Prefix4(77)), other))
	must(t, n.Tell(tor(bgptest.Prefix4(count)), bgptest.Hop4()))
	bgptest.Await(t, "the new one", func() bool { return bgp.Count(r.bgp) == count+1 })
	if got := r.state(t).State.Messages.Received.Update - before; got != 2 {
		t.Errorf("%d updates for one changed and one new among %d routes", got, count)
	}
	if got := r.withdrawn(t); got != 0 {
		t.Errorf("%d withdrawn", got)
	}
	began, sent := time.Now(), n.Sent("tor")
	must(t, n.WithdrawAll(t.Context(), false))
	if got := n.Sent("tor") - sent; got != count+1 {
		t.Errorf("%d withdrawals sent by the time it says so, want %d", got, count+1)
	}
	bgptest.Await(t, "none", func() bool { return bgp.Count(r.bgp) == 0 })
	t.Logf("%d withdrawn in %v", count+1, time.Since(began))
}

// BenchmarkSessions is what sessions and the routes told over them take, of time
// and heap. They have no router, which would be in the same heap.
func BenchmarkSessions(b *testing.B) {
	const sessions, count = 20, 10_000
	n := bgp.NewGoBGP(bgp.GoBGPOptions{})
	name := func(i int) string { return fmt.Sprintf("peer%d", i) }
	for b.Loop() {
		empty := heap()
		for i := range sessions {
			s := someSession(byte(i))
			s.Source = netip.MustParseAddr("198.51.100.7") // nowhere to dial from
			if err := n.Open(name(i), s); err != nil {
				b.Fatal(err)
			}
		}
		opened := heap()
		began := time.Now()
		for i := range count {
			if err := n.Tell(bgp.Key{Peer: name(0), Prefix: bgptest.Prefix4(i)}, bgptest.Hop4()); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(time.Since(began).Nanoseconds())/count, "ns/route")
		b.ReportMetric(float64(opened-empty)/sessions, "B/session") // of the first round: later ones use the servers again
		b.ReportMetric(float64(heap()-opened)/count, "B/route")
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
