package topo

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Request is one of a load's.
type Request struct {
	Begin, End time.Time
	Pod        string // who answered
	Err        error
}

func (r Request) String() string {
	return fmt.Sprintf("%s after %v: %v", r.Begin.Format("15:04:05.000"), r.End.Sub(r.Begin).Round(time.Millisecond), r.Err)
}

// Load asks at a fixed rate, whatever becomes of the requests before, each over
// a connection of its own.
type Load struct {
	stop context.CancelFunc
	wait sync.WaitGroup

	mu       sync.Mutex
	requests []Request // in the order of their ends
}

// StartLoad starts a load of a protocol of Serve's against addresses in turn.
// End it.
func (h *Host) StartLoad(protocol string, every time.Duration, to ...netip.AddrPort) *Load {
	ctx, stop := context.WithCancel(context.Background())
	l := &Load{stop: stop}
	l.wait.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			l.wait.Go(func() { l.request(h, protocol, to[i%len(to)]) })
			<-tick.C
		}
	})
	return l
}

// request is never cut short: the end of the load is no failure.
func (l *Load) request(h *Host, protocol string, to netip.AddrPort) {
	begin := time.Now()
	got, err := h.Ask(context.Background(), protocol, to)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests = append(l.requests, Request{begin, time.Now(), got.Pod, err})
}

// Requests are those that have ended so far.
func (l *Load) Requests() []Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clip(l.requests)
}

// End stops the load, waits for what is under way, and returns all requests.
// Ending again is fine.
func (l *Load) End() []Request {
	l.stop()
	l.wait.Wait()
	return l.Requests()
}
