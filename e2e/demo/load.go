package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice.dev/sluice/e2e/topo"
)

// tally counts requests by who answered, or by where they went.
type tally struct {
	mu     sync.Mutex
	by     map[string]int // guarded by mu, as all below
	failed int
	first  error // the first failure, for the message
}

func (t *tally) add(who string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.failed++
		if t.first == nil {
			t.first = err
		}
		return
	}
	if t.by == nil {
		t.by = map[string]int{}
	}
	t.by[who]++
}

func (t *tally) counts() (answered, failed int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.by {
		answered += n
	}
	return answered, t.failed
}

// of is how many there were of one kind.
func (t *tally) of(who string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.by[who]
}

// kinds is how many different ones there were.
func (t *tally) kinds() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.by)
}

// String is "web-1 12, web-2 12".
func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var parts []string
	for _, who := range slices.Sorted(maps.Keys(t.by)) {
		parts = append(parts, fmt.Sprint(who, " ", t.by[who]))
	}
	return strings.Join(parts, ", ")
}

// client asks once.
type client func() (topo.Answer, error)

// load is clients that ask again and again until they are stopped.
type load struct {
	tally // by pod
	// ways counts the requests that were begun since the last turn, by the node
	// that they came in at.
	ways atomic.Pointer[tally]
	stop context.CancelFunc
	wait sync.WaitGroup
}

// startLoad starts clients.
func (s *stage) startLoad(ctx context.Context, clients ...client) *load {
	ctx, stop := context.WithCancel(ctx)
	l := &load{stop: stop}
	l.turn()
	for _, ask := range clients {
		l.wait.Go(func() {
			for ctx.Err() == nil {
				ways := l.ways.Load()
				a, err := ask()
				l.add(a.Pod, err)
				ways.add(s.way(a), err)
			}
		})
	}
	return l
}

// turn begins to count ways anew.
func (l *load) turn() { l.ways.Store(new(tally)) }

// caller is a client that asks without a pause, a new connection for every
// request. A request is never cut short: the end of the load is no failure.
func (s *stage) caller(from *topo.Host, ip string) client {
	to := s.service(ip)
	return func() (topo.Answer, error) { return from.Ask(context.Background(), topo.HTTP, to) }
}

// startWebLoad starts two clients outside, which ask the load-balancer IP, and
// two in a pod, which ask the cluster IP.
func (s *stage) startWebLoad(ctx context.Context) *load {
	outside, inside := s.caller(s.net.Client, loadIP), s.caller(s.shell, clusterIP)
	return s.startLoad(ctx, outside, outside, inside, inside)
}

// endLoad stops the clients and takes their counts into the story's.
func (s *stage) endLoad(l *load) error {
	l.stop()
	l.wait.Wait()
	answered, failed := l.counts()
	s.say("%d requests answered, %d failed: %s", answered, failed, &l.tally)
	return s.count(&l.tally)
}

// during lets the load run for a while and says how it goes.
func (s *stage) during(ctx context.Context, l *load, d time.Duration) {
	pause(ctx, d)
	answered, failed := l.counts()
	s.say("... %d requests answered so far, %d failed", answered, failed)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
