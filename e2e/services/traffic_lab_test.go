//go:build lab

package services

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// network is topo's name of a protocol.
func network(p corev1.Protocol) string {
	return map[corev1.Protocol]string{
		corev1.ProtocolTCP: topo.TCP, corev1.ProtocolUDP: topo.UDP, corev1.ProtocolSCTP: topo.SCTP,
	}[p]
}

// patience is how long an answer may take. Longer than it takes TCP
// to repeat itself a few times, and than this one-processor world stands still
// when it shares its host; what nobody answers, nobody answers later.
const patience = 10 * time.Second

// ask is Host.Ask with patience.
func ask(t *testing.T, from *topo.Host, protocol string, to netip.AddrPort) (topo.Answer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return from.Ask(ctx, protocol, to)
}

// answers asks until every one of the pods has answered, and no other may. It
// is for schedulers that take turns: nobody is asked more than three times.
func answers(t *testing.T, from *topo.Host, protocol string, to netip.AddrPort, pods []*topo.Host, check func(topo.Answer)) {
	t.Helper()
	missing := map[string]bool{}
	for _, p := range pods {
		missing[p.Name] = true
	}
	for range 3 * len(pods) {
		got, err := ask(t, from, protocol, to)
		if err != nil {
			t.Error(err)
			return
		}
		if !slices.ContainsFunc(pods, func(p *topo.Host) bool { return p.Name == got.Pod }) {
			t.Errorf("%s %s from %s: %s answered", protocol, to, from.Name, got.Pod)
		}
		if check != nil {
			check(got)
		}
		delete(missing, got.Pod)
		if len(missing) == 0 {
			return
		}
	}
	t.Errorf("%s %s from %s: no answer from %v", protocol, to, from.Name, slices.Sorted(maps.Keys(missing)))
}

// refused fails unless the answer is a refusal, within the limit. One that comes
// late may be due to whom this world shares its processor with, and is given
// another chance.
func refused(t *testing.T, from *topo.Host, protocol string, to netip.AddrPort, limit time.Duration) {
	t.Helper()
	for try := 1; ; try++ {
		begin := time.Now()
		got, err := from.Ask(t.Context(), protocol, to)
		took := time.Since(begin)
		// A node's own datagram is not even sent: the kernel says EPERM where
		// it drops what a process sends.
		no := errors.Is(err, syscall.ECONNREFUSED) || protocol == topo.UDP && errors.Is(err, syscall.EPERM)
		if no && took <= limit {
			return
		}
		if !no || try == 3 {
			t.Errorf("%s %s from %s: %v, %v after %v; want a refusal within %v", protocol, to, from.Name, got, err, took.Round(time.Millisecond), limit)
			return
		}
	}
}

// silent fails if anybody answers within a short time, or refuses: there is
// nobody.
func silent(t *testing.T, from *topo.Host, protocol string, to netip.AddrPort) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if got, err := from.Ask(ctx, protocol, to); err == nil {
		t.Errorf("%s %s from %s: %v; want nobody there", protocol, to, from.Name, got)
	}
}

// load asks again and again until it is ended.
type load struct {
	name string
	stop context.CancelFunc
	done chan struct{}

	mu     sync.Mutex
	asked  int
	seen   map[string]int // answers by pod
	failed []error
	worst  time.Duration
}

// runLoad starts a load. Each ask may take its time, but none may fail.
func runLoad(t *testing.T, name string, ask func(context.Context) (topo.Answer, error)) *load {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	l := &load{name: name, stop: stop, done: make(chan struct{}), seen: map[string]int{}}
	go func() {
		defer close(l.done)
		// Leaves the one processor to sluice now and then, as load from
		// other machines would.
		pause := time.NewTicker(10 * time.Millisecond)
		defer pause.Stop()
		for ctx.Err() == nil {
			begin := time.Now()
			got, err := ask(ctx)
			if ctx.Err() != nil {
				return
			}
			l.note(got, err, begin)
			<-pause.C
		}
	}()
	t.Cleanup(func() { l.end(t) })
	return l
}

func (l *load) note(got topo.Answer, err error, begin time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	l.seen[got.Pod]++
	l.worst = max(l.worst, time.Since(begin))
	if err != nil && len(l.failed) < 5 {
		l.failed = append(l.failed, fmt.Errorf("request %d, begun %s: %w", l.asked, begin.Format("15:04:05.000"), err))
	}
}

// end stops a load and reports its failures. Ending again is fine.
func (l *load) end(t *testing.T) {
	t.Helper()
	select {
	case <-l.done:
		return
	default:
	}
	l.stop()
	<-l.done
	if l.asked == 0 {
		t.Errorf("%s: nothing was asked", l.name)
	}
	for _, err := range l.failed {
		t.Errorf("%s: %v", l.name, err)
	}
	t.Logf("%s: %d requests, answered by %v, the slowest after %v", l.name, l.asked, l.seen, l.worst.Round(time.Millisecond))
}

// count is how often a pod has answered.
func (l *load) count(pod *topo.Host) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[pod.Name]
}

// total is how often anybody was asked.
func (l *load) total() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked
}

// more waits until a load has had some more requests answered: what has been
// changed before has been tried then.
func (l *load) more(t *testing.T, requests int) {
	t.Helper()
	from := l.total()
	suite.Await(t, 20*time.Second, func() error {
		if now := l.total(); now < from+requests {
			return fmt.Errorf("%s: %d requests, want %d", l.name, now, from+requests)
		}
		return nil
	})
}

// requests is a load of short connections, each its own.
func requests(t *testing.T, from *topo.Host, protocol string, to netip.AddrPort) *load {
	t.Helper()
	source := netip.AddrPort{}
	port := uint16(20000)
	return runLoad(t, fmt.Sprintf("%s requests from %s to %s", protocol, from.Name, to), func(ctx context.Context) (topo.Answer, error) {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if protocol == topo.SCTP || protocol == topo.UDP {
			// The kernel takes a port at random, maybe that of a connection
			// of a moment ago; when its endpoint has just gone, IPVS drops
			// the first packet. SCTP waits three seconds before it sends
			// another, and nobody repeats a datagram here.
			port++
			source = netip.AddrPortFrom(from.Addr(to.Addr()), port)
		}
		return from.AskFrom(ctx, protocol, source, to)
	})
}

// session is a TCP connection that is kept and used all the time.
type session struct {
	*load
	pod  string // who it is with
	conn net.Conn
}

func connect(t *testing.T, from *topo.Host, to netip.AddrPort) *session {
	t.Helper()
	conn, err := from.Dial(t.Context(), topo.TCP, to)
	suite.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	lines := bufio.NewReader(conn)
	next := func() (topo.Answer, error) {
		limit := conn.SetReadDeadline(time.Now().Add(patience))
		line, err := lines.ReadString('\n')
		if err := errors.Join(limit, err); err != nil {
			return topo.Answer{}, err
		}
		return topo.ParseAnswer(line)
	}
	first, err := next()
	suite.Must(t, err)
	s := &session{pod: first.Pod, conn: conn}
	s.load = runLoad(t, fmt.Sprintf("connection of %s to %s", from.Name, to), func(context.Context) (topo.Answer, error) {
		if _, err := io.WriteString(conn, "?\n"); err != nil {
			return topo.Answer{}, err
		}
		return next()
	})
	return s
}

// reset ends a connection without farewell, so that the kernel soon forgets it.
func (s *session) reset(t *testing.T) {
	t.Helper()
	s.end(t)
	if tcp, ok := s.conn.(*net.TCPConn); ok {
		suite.Must(t, tcp.SetLinger(0))
	}
	s.conn.Close()
}
