//go:build lab

package semantics

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

const (
	// fewPorts are a client's source ports where it is to use them again soon:
	// 100, as of these a socket that is bound first gets every second one.
	fewPorts = "40000\t40199"
	// burstTime is how long each part of the test of port reuse takes.
	burstTime = 2500 * time.Millisecond
	// burstPause is how long a client waits between two connections.
	burstPause = 4 * time.Millisecond
	// unhurt is how long a connection may take. One whose first packet was
	// dropped takes a second, after which the client sends it again.
	unhurt = 500 * time.Millisecond
)

// hasty adds a pod whose server closes every connection first, right after the
// answer. So the client's port is free again at once, while the node remembers
// the connection that it was in. The test's end takes the pod away.
func (w *world) hasty(t *testing.T, name string, on *node) *topo.Host {
	t.Helper()
	h, err := w.AddPod(on.Host, name)
	suite.Must(t, err)
	var l net.Listener
	suite.Must(t, h.Do(func() (err error) {
		var lc net.ListenConfig
		l, err = lc.Listen(context.Background(), topo.TCP, fmt.Sprintf(":%d", podPort))
		return err
	}))
	t.Cleanup(func() {
		l.Close()
		suite.Must(t, w.RemovePod(h))
	})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, h.Name)
			conn.Close()
		}
	}()
	return h
}

// few has a host use few source ports until the test ends.
func few(t *testing.T, h *topo.Host) {
	t.Helper()
	const ports = "net/ipv4/ip_local_port_range" // of both families
	var was []byte
	suite.Must(t, h.Do(func() (err error) {
		was, err = os.ReadFile("/proc/sys/" + ports)
		return err
	}))
	suite.Must(t, h.Sysctl(ports, fewPorts))
	t.Cleanup(func() { suite.Must(t, h.Sysctl(ports, strings.TrimSpace(string(was)))) })
}

// try is one connection of a burst.
type try struct {
	begin time.Time
	took  time.Duration
	beats int64 // of that time, see burst
	port  uint16
	pod   string
	err   error
}

// burst are the connections of a client that opens one after the other.
type burst struct {
	way
	tries []try
}

// beat is how often a burst's pulse beats while the world moves. It shares its
// processor, and stands still when others have that: a connection that took
// long while there was hardly a beat has waited for nobody.
const beat = 10 * time.Millisecond

// burst goes all ways again and again, until some time has passed and f has
// returned.
func (w *world) burst(t *testing.T, ways []way, f func()) []*burst {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var pulse atomic.Int64
	var list []*burst
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() {
		often(ctx, beat, func() { pulse.Add(1) })
	})
	for _, c := range ways {
		b := &burst{way: c}
		list = append(list, b)
		wg.Go(func() {
			often(ctx, burstPause, func() { b.tries = append(b.tries, c.try(&pulse)) })
		})
	}
	end := time.After(burstTime)
	f()
	<-end
	return list
}

// often calls f once each period, until ctx ends.
func often(ctx context.Context, period time.Duration, f func()) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for ctx.Err() == nil {
		f()
		<-tick.C
	}
}

// try opens a connection, from any port, and reads until the server closes it.
func (c way) try(pulse *atomic.Int64) try {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	one := try{begin: time.Now(), beats: -pulse.Load()}
	one.pod, one.port, one.err = c.hear(ctx)
	one.took, one.beats = time.Since(one.begin), one.beats+pulse.Load()
	return one
}

func (c way) hear(ctx context.Context) (pod string, port uint16, err error) {
	conn, err := c.from.Dial(ctx, c.protocol, c.to)
	if err != nil {
		return "", 0, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return "", 0, err
	}
	text, err := io.ReadAll(conn)
	local, _ := netip.ParseAddrPort(conn.LocalAddr().String())
	return string(text), local.Port(), err
}

// unhurt checks that every connection was answered, and none late.
func (b *burst) unhurt(t *testing.T) {
	t.Helper()
	ports := map[uint16]bool{}
	var longest time.Duration
	var bad []string
	for _, one := range b.tries {
		ports[one.port] = true
		longest = max(longest, one.took)
		late := one.took > unhurt && time.Duration(one.beats)*beat > unhurt/2
		if one.err != nil || one.pod == "" || late {
			bad = append(bad, fmt.Sprintf("at %s from port %d: %q after %v (%d beats), %v",
				one.begin.Format("15:04:05.000"), one.port, one.pod, one.took.Round(time.Millisecond), one.beats, one.err))
		}
	}
	t.Logf("%v: %d connections from %d ports, %.0f a second, the longest took %v", b.way, len(b.tries), len(ports),
		float64(len(b.tries))/burstTime.Seconds(), longest.Round(100*time.Microsecond))
	if len(b.tries) < 2*len(ports) {
		t.Errorf("%v: %d connections from %d ports: they are hardly used again", b.way, len(b.tries), len(ports))
	}
	for _, text := range bad[:min(3, len(bad))] {
		t.Errorf("%v: %d of %d failed or were late: %s", b.way, len(bad), len(b.tries), text)
	}
}

// without checks that nobody got to a pod once it had left, not even by a port
// whose last connection before had been to that pod.
func (b *burst) without(t *testing.T, pod *topo.Host, left time.Time) {
	t.Helper()
	last := map[uint16]string{} // by port, until it is used again: whom it led to before
	again := 0
	var bad []string
	for _, one := range b.tries {
		if !one.begin.After(left) {
			last[one.port] = one.pod
			continue
		}
		if one.pod == pod.Name {
			bad = append(bad, fmt.Sprintf("port %d after %v", one.port, one.begin.Sub(left).Round(time.Millisecond)))
		}
		if last[one.port] == pod.Name {
			again++
		}
		delete(last, one.port)
	}
	t.Logf("%v: %d ports that had led to %s were used again", b.way, again, pod.Name)
	if again < 5 {
		t.Errorf("%v: %d ports that had led to %s were used again: too few to tell", b.way, again, pod.Name)
	}
	if len(bad) > 0 {
		t.Errorf("%v: %d led to %s when that had left, the first by %s", b.way, len(bad), pod.Name, bad[0])
	}
}

// weighs says how the weights that a node's kernel gives a pod in its frontends
// of TCP, each weight once, differ from these.
func (n *node) weighs(pod *topo.Host, want ...string) error {
	out, err := n.Tool("ipvsadm", "-Sn")
	if err != nil {
		return err
	}
	var got []string
	for line := range strings.Lines(out) {
		f := strings.Fields(line) // -a -t FRONTEND -r SERVER -m -w WEIGHT
		if len(f) < 8 || f[1] != "-t" {
			continue
		}
		at, err := netip.ParseAddrPort(f[4])
		if err == nil && at.Addr() == pod.Addr(at.Addr()) && !slices.Contains(got, f[7]) {
			got = append(got, f[7])
		}
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("%s: %s has the weights %q, want %q", n.Name, pod.Name, got, want)
	}
	return nil
}

// linger opens connections all ways that stay half closed until the test ends,
// one to each of so many endpoints: they keep those that leave at weight 0.
func linger(t *testing.T, ways []way, endpoints int) {
	t.Helper()
	for _, c := range ways {
		for range endpoints {
			conn, err := c.from.Dial(t.Context(), c.protocol, c.to)
			suite.Must(t, err)
			t.Cleanup(func() { conn.Close() })
		}
	}
}

// drainedWithin says how long an endpoint that leaves may keep its connections.
func drainedWithin(limit string) func(*corev1.Service) {
	return func(svc *corev1.Service) { svc.Annotations = map[string]string{"sluice.dev/drain-timeout": limit} }
}

// TestPortReuse: clients that open connections faster than the node forgets the
// closed ones, from ports that come round several times a second. No first
// packet may be lost, and none may be led by what the node remembers to an
// endpoint that has left.
func TestPortReuse(t *testing.T) {
	w := enter(t)
	node1 := w.nodes[0]
	var pods []*topo.Host
	for i, n := range w.nodes {
		pods = append(pods, w.hasty(t, fmt.Sprintf("hasty%d", i+1), n))
	}
	s := w.serve(t, "hasty", ready(pods...), drainedWithin("1m"))
	w.settle(t)
	few(t, w.near)
	few(t, w.Client)
	var ways []way
	for _, like := range w.families() {
		ways = append(ways,
			way{protocol: topo.TCP, from: w.near, to: s.at(clusterIP, topo.TCP, like, nil)},
			way{protocol: topo.TCP, from: w.Client, to: s.at(nodePort, topo.TCP, like, node1)})
	}
	t.Run("endpoints stay", func(t *testing.T) {
		for _, b := range w.burst(t, ways, func() {}) {
			b.unhurt(t)
		}
	})
	t.Run("one leaves", func(t *testing.T) {
		leaver := pods[2]
		linger(t, ways, len(pods))
		var left time.Time
		leave := func() {
			time.Sleep(burstTime / 3) // every port has led somewhere
			leaving := ready(pods...)
			leaving[2].terminating = true
			s.scale(t, leaving...)
			suite.Await(t, patience, func() error { return node1.weighs(leaver, "0") })
			left = time.Now()
		}
		for _, b := range w.burst(t, ways, leave) {
			b.unhurt(t)
			b.without(t, leaver, left)
		}
		if err := node1.weighs(leaver, "0"); err != nil {
			t.Errorf("at the end: %v", err)
		}
	})
	s.update(t, drainedWithin("0")) // so that nothing is waited for at the end
	suite.Await(t, patience, func() error { return node1.weighs(pods[2]) })
}

// dialShared opens a TCP connection from a port that others may have too.
func dialShared(ctx context.Context, from *topo.Host, port uint16, to netip.AddrPort) (conn net.Conn, err error) {
	d := net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from.Addr(to.Addr()), port)),
		Control: func(_, _ string, c syscall.RawConn) (err error) {
			set := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1) })
			if set != nil {
				return set
			}
			return err
		},
	}
	err = from.Do(func() error {
		conn, err = d.DialContext(ctx, topo.TCP, to.String())
		return err
	})
	return conn, err
}

// pair are two TCP connections of one client from one port of it, one to a pod
// and one to a Service that the pod is behind.
type pair struct {
	from            *topo.Host
	direct, through netip.AddrPort
	throughFirst    bool
}

func (p pair) String() string {
	order := "directly first"
	if p.throughFirst {
		order = "through the Service first"
	}
	return fmt.Sprintf("%s -> %s and %s, %s", p.from.Name, p.direct, p.through, order)
}

// answered opens both connections, and returns who answers over each of them
// when both have been opened.
func (p pair) answered(ctx context.Context) (direct, through string) {
	port := nextPort()
	order := []netip.AddrPort{p.direct, p.through}
	if p.throughFirst {
		slices.Reverse(order)
	}
	open := map[netip.AddrPort]*talk{}
	for i, to := range order {
		dialing, cancel := context.WithTimeout(ctx, quickly)
		conn, err := dialShared(dialing, p.from, port, to)
		cancel()
		if err != nil {
			continue
		}
		defer conn.Close()
		k := &talk{conn, bufio.NewReader(conn)}
		if k.line() == silent && i == 0 {
			break // that it was lost later could not be told
		}
		open[to] = k
	}
	return open[p.direct].asked(), open[p.through].asked()
}

// talk is a TCP connection to a server that says a line at the beginning, and
// one for every line it is sent.
type talk struct {
	conn  net.Conn
	lines *bufio.Reader
}

// line is who says the next line, or in a word what comes instead.
func (k *talk) line() string {
	_ = k.conn.SetReadDeadline(time.Now().Add(quickly))
	line, err := k.lines.ReadString('\n')
	if err != nil {
		return outcome(topo.Answer{}, err)
	}
	return outcome(topo.ParseAnswer(line))
}

// asked is who answers now; nobody where there is no connection.
func (k *talk) asked() string {
	if k == nil {
		return silent
	}
	if _, err := io.WriteString(k.conn, "?\n"); err != nil {
		return outcome(topo.Answer{}, err)
	}
	return k.line()
}

// TestSamePortDirectAndThroughService: a client that has one port for a Service
// and for a pod behind it keeps one of the two connections only, whichever it
// has opened first; the other one hangs. It is the kernel that does so.
//
//	a pod        IPVS knows the answers over a Service's connection by the pod and the
//	             client, whose port stays with the client when it is masqueraded. So it
//	             takes the pod's own answers for the Service's, and the client gets them
//	             from an address that it has not asked
//	the node     the kernel looks for the socket before IPVS has put the Service's address
//	             back, and finds the other one (net.ipv4.tcp_early_demux)
func TestSamePortDirectAndThroughService(t *testing.T) {
	w := enter(t)
	s := w.serve(t, "same-port", ready(w.b1), drainedWithin("0"))
	w.settle(t)
	var wg sync.WaitGroup
	for _, c := range []struct {
		from            *topo.Host
		direct, through string
	}{
		{w.near, silent, "b1"},
		{w.nodes[0].Host, "b1", silent},
	} {
		for _, like := range w.families() {
			for _, kind := range []string{clusterIP, nodePort} {
				for _, throughFirst := range []bool{false, true} {
					p := pair{c.from, netip.AddrPortFrom(w.b1.Addr(like), podPort), s.at(kind, topo.TCP, like, w.nodes[0]), throughFirst}
					wg.Go(func() {
						if direct, through := p.answered(t.Context()); direct != c.direct || through != c.through {
							t.Errorf("%v: %s directly and %s through the Service, want %s and %s", p, direct, through, c.direct, c.through)
						}
					})
				}
			}
		}
	}
	wg.Wait()
}
