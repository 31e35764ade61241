//go:build lab

package semantics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice.dev/sluice/e2e/topo"
)

const (
	// patience is how long an answer may take that has to come: longer than
	// this one-processor world stands still when it shares its host.
	patience = 5 * time.Second
	// silence is how long nobody may say anything before that is the answer.
	silence = time.Second
	// quickly is how long a refusal may take.
	quickly = 700 * time.Millisecond
)

// way is a way through the network.
type way struct {
	protocol string
	from     *topo.Host
	source   netip.Addr // of from, if not the kernel's choice
	to       netip.AddrPort
}

func (c way) String() string {
	from := c.from.Name
	if c.source.IsValid() {
		from += " (" + c.source.String() + ")"
	}
	return fmt.Sprintf("%s %s -> %s", c.protocol, from, c.to)
}

// ports hands out source ports, each of them once in minutes. The kernel takes
// one at random, maybe that of a connection of a moment ago: UDP and SCTP would
// be taken for a part of it, and of a TCP connection to the same endpoint the
// answers might be (as in TestSamePortDirectAndThroughService). Those for fixed
// use and the agents' are below, the kernel's own above.
var ports struct {
	sync.Mutex
	last uint16
}

func nextPort() uint16 {
	ports.Lock()
	defer ports.Unlock()
	if ports.last < 11000 || ports.last >= 29000 {
		ports.last = 11000
	}
	ports.last++
	return ports.last
}

// ask goes a way once.
func (c way) ask(ctx context.Context) (topo.Answer, error) {
	return c.from.AskFrom(ctx, c.protocol, netip.AddrPortFrom(c.source, nextPort()), c.to)
}

// The outcomes of asking where nobody answers.
const (
	silent  = "silent"
	refused = "refused"
)

// outcome says in a word what came of asking.
func outcome(got topo.Answer, err error) string {
	var timeout net.Error
	switch {
	case err == nil:
		return got.Pod
	case errors.Is(err, syscall.ECONNREFUSED):
		return refused
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout(),
		// What a blocking connect(2) says when its time is up.
		errors.Is(err, syscall.EINPROGRESS), errors.Is(err, syscall.EAGAIN),
		// A packet that this kernel drops, it does not send.
		errors.Is(err, syscall.EPERM):
		return silent
	}
	return err.Error()
}

// gets is the outcome of going a way once, when nobody need answer.
func (c way) gets(ctx context.Context) string { return c.getsWithin(ctx, silence) }

func (c way) getsWithin(ctx context.Context, limit time.Duration) string {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if c.protocol == topo.SCTP {
		no, err := c.from.RefusesSCTP(ctx, c.to)
		if no {
			return refused
		}
		if err != nil {
			return err.Error()
		}
		return silent
	}
	return outcome(c.ask(ctx))
}

// all checks the outcome of many ways at once. Each wait is a second's.
func all(t *testing.T, want string, ways ...way) {
	t.Helper()
	const atOnce = 32
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for _, c := range ways {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			begin := time.Now()
			got := c.gets(t.Context())
			took := time.Since(begin).Round(time.Millisecond)
			if got != want {
				t.Errorf("%v: %s after %v, want %s", c, got, took, want)
			}
		})
	}
	wg.Wait()
}

// fast checks that every way is refused, and soon. One that comes late may be
// due to whom this world shares its processor with, and is given another chance.
func fast(t *testing.T, ways ...way) {
	t.Helper()
	for _, c := range ways {
		for try := 1; ; try++ {
			begin := time.Now()
			got := c.gets(t.Context())
			took := time.Since(begin).Round(time.Millisecond)
			if got == refused && took <= quickly {
				break
			}
			if got != refused && got != silent || try == 3 {
				t.Errorf("%v: %s after %v, want a refusal within %v", c, got, took, quickly)
				break
			}
		}
	}
}

// reaches asks often enough to see every endpoint twice where they take turns,
// and returns the names of those seen, in order.
func (c way) reaches(t *testing.T, times int) (seen []string, err error) {
	t.Helper()
	for range times {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		got, err := c.ask(ctx)
		cancel()
		if err != nil {
			return seen, err
		}
		if !slices.Contains(seen, got.Pod) {
			seen = append(seen, got.Pod)
		}
	}
	slices.Sort(seen)
	return seen, nil
}

// answers checks that exactly these endpoints are reached, by schedulers that
// take turns.
func answers(t *testing.T, c way, endpoints ...*topo.Host) {
	t.Helper()
	var want []string
	for _, e := range endpoints {
		want = append(want, e.Name)
	}
	slices.Sort(want)
	seen, err := c.reaches(t, 2*len(want))
	if err != nil || !slices.Equal(seen, want) {
		t.Errorf("%v: %v answered, %v; want %v", c, seen, err, want)
	}
}

// get fetches a URL from a host; anything but 200 is an error.
func get(from *topo.Host, url string) (string, error) {
	resp, err := from.HTTPClient().Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s from %s: %s: %s", url, from.Name, resp.Status, strings.TrimSpace(string(body)))
	}
	return string(body), err
}
