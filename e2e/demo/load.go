package main

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice.dev/sluice/e2e/topo"
)

// tally counts the answers of requests.
type tally struct {
	mu     sync.Mutex
	pods   map[string]int
	failed int
	first  error // the first failure, for the message
}

func (t *tally) add(a topo.Answer, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.failed++
		if t.first == nil {
			t.first = err
		}
		return
	}
	if t.pods == nil {
		t.pods = map[string]int{}
	}
	t.pods[a.Pod]++
}

func (t *tally) counts() (answered, failed int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.pods {
		answered += n
	}
	return answered, t.failed
}

// String is "web-1 12, web-2 12".
func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var parts []string
	for _, pod := range slices.Sorted(maps.Keys(t.pods)) {
		parts = append(parts, fmt.Sprint(pod, " ", t.pods[pod]))
	}
	return strings.Join(parts, ", ")
}

// load is clients that ask without a pause, a new connection for every request,
// until they are stopped.
type load struct {
	tally
	stop context.CancelFunc
	wait sync.WaitGroup
}

// startLoad starts two clients outside, which ask the load-balancer IP, and
// two in a pod, which ask the cluster IP.
func (s *stage) startLoad(ctx context.Context) *load {
	ctx, stop := context.WithCancel(ctx)
	l := &load{stop: stop}
	for _, c := range []struct {
		from *topo.Host
		to   netip.AddrPort
	}{
		{s.net.Client, s.service(loadIP)}, {s.net.Client, s.service(loadIP)},
		{s.shell, s.service(clusterIP)}, {s.shell, s.service(clusterIP)},
	} {
		l.wait.Go(func() {
			for ctx.Err() == nil {
				// A request is never cut short: the end of the load is no failure.
				l.add(c.from.Ask(context.WithoutCancel(ctx), topo.HTTP, c.to))
			}
		})
	}
	return l
}

// endLoad stops the clients and takes their counts into the stage's.
func (s *stage) endLoad(l *load) error {
	l.stop()
	l.wait.Wait()
	answered, failed := l.counts()
	s.answered += answered
	s.failed += failed
	s.say("%d requests answered, %d failed: %s", answered, failed, &l.tally)
	if failed > 0 {
		return fmt.Errorf("%d requests failed, the first: %w", failed, l.first)
	}
	return nil
}

// during lets the load run for a while and says how it goes.
func (s *stage) during(ctx context.Context, l *load, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	answered, failed := l.counts()
	s.say("... %d requests answered so far, %d failed", answered, failed)
}
