//go:build lab

package semantics

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

const (
	// every is how often a flow sends: too often for any table to forget it.
	every = 50 * time.Millisecond
	// moveWithin is how long a flow may be lost or with an endpoint that has
	// gone, from when the agent is told.
	moveWithin = time.Second
	// toldWithin is how long the file source waits for further changes before it
	// tells the agent.
	toldWithin = 100 * time.Millisecond
)

// flow is a UDP client with one socket, and so one source port, that sends and
// sends, as a resolver or QUIC would.
type flow struct {
	name string
	conn net.Conn
	wg   sync.WaitGroup
	stop chan struct{}

	mu      sync.Mutex
	answers []reply
}

// reply is when who answered.
type reply struct {
	at  time.Time
	pod string
}

func (w *world) flow(t *testing.T, from *topo.Host, to netip.AddrPort) *flow {
	t.Helper()
	conn, err := from.DialFrom(t.Context(), topo.UDP, netip.AddrPortFrom(netip.Addr{}, nextPort()), to)
	suite.Must(t, err)
	f := &flow{name: fmt.Sprintf("%s %s -> %s", from.Name, conn.LocalAddr(), to), conn: conn, stop: make(chan struct{})}
	f.wg.Go(f.send)
	f.wg.Go(f.hear)
	t.Cleanup(func() {
		close(f.stop)
		conn.Close()
		f.wg.Wait()
	})
	return f
}

func (f *flow) send() {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		_, _ = f.conn.Write([]byte("?\n")) // a refusal of the last one, maybe
		select {
		case <-tick.C:
		case <-f.stop:
			return
		}
	}
}

func (f *flow) hear() {
	lines := bufio.NewReader(f.conn)
	for {
		select {
		case <-f.stop:
			return
		default:
		}
		line, err := lines.ReadString('\n')
		if err != nil {
			time.Sleep(time.Millisecond) // refused, or closed
			continue
		}
		if got, err := topo.ParseAnswer(line); err == nil {
			f.mu.Lock()
			f.answers = append(f.answers, reply{time.Now(), got.Pod})
			f.mu.Unlock()
		}
	}
}

// since are the answers after a moment.
func (f *flow) since(begin time.Time) []reply {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, a := range f.answers {
		if a.at.After(begin) {
			return append([]reply(nil), f.answers[i:]...)
		}
	}
	return nil
}

// moves waits until a pod answers and nobody else did after it, and returns how
// long after begin that was, and the longest time without any answer.
func (f *flow) moves(t *testing.T, begin time.Time, to *topo.Host) (after, gap time.Duration) {
	t.Helper()
	suite.Await(t, 5*time.Second, func() error {
		list := f.since(begin)
		if len(list) == 0 || list[len(list)-1].pod != to.Name {
			return fmt.Errorf("%s: not answered by %s, but %d times by others", f.name, to.Name, len(list))
		}
		return nil
	})
	last := begin
	for _, a := range f.since(begin) {
		gap = max(gap, a.at.Sub(last))
		last = a.at
		if a.pod == to.Name && after == 0 {
			after = a.at.Sub(begin)
		}
		if a.pod != to.Name && after != 0 {
			t.Errorf("%s: %s answered after %s did", f.name, a.pod, to.Name)
		}
	}
	return after, gap
}

// movesSoon is moves with a limit.
func (f *flow) movesSoon(t *testing.T, begin time.Time, to *topo.Host) {
	t.Helper()
	after, gap := f.moves(t, begin, to)
	t.Logf("%s: %s answers %v after the files changed, longest time without an answer %v",
		f.name, to.Name, after.Round(time.Millisecond), gap.Round(time.Millisecond))
	if after > toldWithin+moveWithin || gap > moveWithin {
		t.Errorf("%s: %s answers only after %v, and nobody for %v", f.name, to.Name, after.Round(time.Millisecond), gap.Round(time.Millisecond))
	}
}

// TestUDPClientMoves: a client that keeps one source port gets to another
// endpoint when its own goes, and to a Service made anew, within a second. One
// whose endpoint stays is not disturbed.
func TestUDPClientMoves(t *testing.T) {
	w := enter(t)
	s := w.serve(t, "moving", ready(w.a1), nil)
	local := w.serve(t, "moving-local", ready(w.a1), externalLocal)
	other := w.serve(t, "staying", ready(w.a2), nil)
	w.settle(t)
	var flows, locals, staying []*flow
	for _, like := range w.families() {
		for _, c := range []struct {
			from *topo.Host
			kind string
		}{
			{w.near, clusterIP}, {w.nodes[0].Host, clusterIP}, {w.Client, nodePort}, {w.near, nodePort},
			{w.Client, balancerIP}, {w.Client, externalIP},
		} {
			flows = append(flows, w.flow(t, c.from, s.at(c.kind, topo.UDP, like, w.nodes[0])))
			staying = append(staying, w.flow(t, c.from, other.at(c.kind, topo.UDP, like, w.nodes[0])))
		}
		locals = append(locals, w.flow(t, w.near, local.at(balancerIP, topo.UDP, like, nil)), w.flow(t, w.near, local.at(nodePort, topo.UDP, like, w.nodes[0])))
	}
	begin := time.Now()
	check := func(t *testing.T, flows []*flow, begin time.Time, to *topo.Host) {
		t.Helper()
		var wg sync.WaitGroup // at once: those that fail take their time
		for _, f := range flows {
			wg.Go(func() { f.movesSoon(t, begin, to) })
		}
		wg.Wait()
	}
	check(t, slices.Concat(flows, locals), begin, w.a1)
	check(t, staying, begin, w.a2)

	for _, to := range []*topo.Host{w.b1, w.a2} {
		t.Run("endpoint replaced by "+to.Name, func(t *testing.T) {
			begin := time.Now()
			s.scale(t, ready(to)...)
			local.scale(t, ready(to)...)
			check(t, slices.Concat(flows, locals), begin, to)
		})
	}
	t.Run("one of two removed", func(t *testing.T) {
		s.scale(t, ready(w.a2, w.b1)...)
		w.settle(t)
		begin := time.Now()
		s.scale(t, ready(w.b1)...)
		check(t, flows, begin, w.b1)
	})
	t.Run("none, then one", func(t *testing.T) {
		s.scale(t)
		w.settle(t)
		time.Sleep(4 * every) // they meet the refusal
		begin := time.Now()
		s.scale(t, ready(w.a1)...)
		check(t, flows, begin, w.a1)
	})
	t.Run("Service deleted and made anew", func(t *testing.T) {
		s.remove(t)
		w.settle(t)
		time.Sleep(4 * every) // they meet nobody
		begin := time.Now()
		s.scale(t, ready(w.b1)...)
		suite.Must(t, w.manifests.Write(s.object))
		check(t, flows, begin, w.b1)
	})
	for _, f := range staying {
		last := begin
		for _, a := range f.since(begin) {
			if gap := a.at.Sub(last); gap > moveWithin || a.pod != w.a2.Name {
				t.Errorf("%s: was with %s, disturbed after %v, answered by %s", f.name, w.a2.Name, gap, a.pod)
			}
			last = a.at
		}
		if time.Since(last) > moveWithin {
			t.Errorf("%s: no answer for %v", f.name, time.Since(last))
		}
	}
}
