//go:build lab

package ipvs_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/ipvs"
)

// drainLab is a node that is client, virtual server and endpoint at once.
type drainLab struct {
	t        *testing.T
	h        *ipvs.KernelHandle
	vip      netip.Addr
	endpoint netip.AddrPort
	target   *ipvs.Target
	loop     *reconcile.Loop[string, ipvs.Key, ipvs.Spec]
}

func newDrainLab(t *testing.T, vip, endpoint string) *drainLab {
	t.Helper()
	l := &drainLab{t: t, h: open(t), vip: netip.MustParseAddr(vip), endpoint: netip.MustParseAddrPort(endpoint)}
	for _, a := range []netip.Addr{l.vip, l.endpoint.Addr()} {
		out, err := exec.Command("ip", "addr", "add", fmt.Sprintf("%s/%d", a, a.BitLen()), "dev", "lo").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for name, value := range map[string]string{"conntrack": "1", "expire_nodest_conn": "1", "expire_quiescent_template": "1"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/vs/"+name, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(l.endpoint))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				lines := bufio.NewReader(conn)
				for {
					line, err := lines.ReadString('\n')
					if err != nil {
						_ = conn.Close()
						return
					}
					_, _ = conn.Write([]byte(line))
				}
			}()
		}
	}()
	return l
}

// start is a new run of the program: a Target and a loop that know nothing.
func (l *drainLab) start(opts ipvs.TargetOptions) (stop func()) {
	l.t.Helper()
	opts.Ours = predicate(func(ipvs.VirtualServer) bool { return true })
	opts.Local = everywhere
	l.target = ipvs.NewTarget(l.h, opts)
	l.loop, stop = start(l.t, l.target)
	l.loop.Synced()
	l.loop.Claim("sweeper", reconcile.Claim[ipvs.Key, ipvs.Spec]{Sweep: true})
	return stop
}

func (l *drainLab) server(port uint16) ipvs.Key {
	return ipvs.Key{VirtualServer: ipvs.VirtualServer{Addr: netip.AddrPortFrom(l.vip, port), Protocol: model.TCP}}
}

// wish is one port of the Service, or more, with the endpoint behind each.
func (l *drainLab) wish(edit func(*ipvs.VirtualServerSpec), ports ...uint16) reconcile.Claim[ipvs.Key, ipvs.Spec] {
	put := make(map[ipvs.Key]ipvs.Spec)
	for _, p := range ports {
		vs := l.server(p)
		spec := ipvs.Spec{VirtualServer: ipvs.VirtualServerSpec{Scheduler: "rr", Netmask: ipvs.HostMask4}}
		if l.vip.Is6() {
			spec.VirtualServer.Netmask = ipvs.HostMask6
		}
		if edit != nil {
			edit(&spec.VirtualServer)
		}
		put[vs] = spec
		put[ipvs.Key{VirtualServer: vs.VirtualServer, RealServer: l.endpoint}] = dest(1)
	}
	return reconcile.Claim[ipvs.Key, ipvs.Spec]{Put: put}
}

// until waits for a condition for as long as it may take.
func (l *drainLab) until(what string, atMost time.Duration, done func() bool) time.Duration {
	l.t.Helper()
	began := time.Now()
	for !done() {
		if time.Since(began) > atMost {
			l.t.Fatalf("not %s after %v:\n%s", what, atMost, l.table())
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

// table is what another handle would see; the loop owns ours.
func (l *drainLab) table() string {
	out, err := exec.Command("ipvsadm", "-L", "-n").CombinedOutput()
	if err != nil {
		l.t.Error(err)
	}
	return string(out)
}

func (l *drainLab) weight(port uint16) string {
	out, _ := exec.Command("ipvsadm", "-L", "-n", "-t", netip.AddrPortFrom(l.vip, port).String()).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) == 6 && fields[0] == "->" && fields[1] == l.endpoint.String() {
			return fields[3]
		}
	}
	return "gone"
}

func (l *drainLab) dial(port uint16) *net.TCPConn {
	l.t.Helper()
	conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(l.vip, port).String(), time.Second)
	if err != nil {
		l.t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// echoes reports whether a connection is alive.
func echoes(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("hello\n")); err != nil {
		return err
	}
	_, err := bufio.NewReader(conn).ReadString('\n')
	return err
}

// reset ends a connection without leaving it in TIME_WAIT, which takes two
// minutes.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	_ = conn.Close()
}

func eachDrainLab(t *testing.T, test func(*drainLab)) {
	t.Helper()
	for _, a := range [][2]string{{"10.96.0.1", "10.1.1.1:8080"}, {"fd00:96::1", "[fd00:1::1]:8080"}} {
		t.Run(a[0], func(t *testing.T) { test(newDrainLab(t, a[0], a[1])) })
	}
}

// TestLabServerIsDrained: a Service loses its ports while its address stays.
// Connections go on, nobody new gets in; port 1 goes with its last connection,
// although persistence remembers its client for an hour, port 2 at its limit.
func TestLabServerIsDrained(t *testing.T) {
	eachDrainLab(t, func(l *drainLab) {
		t := l.t
		var limits ipvs.Limits
		limits.Set(l.server(2).VirtualServer, 4*time.Second)
		l.start(ipvs.TargetOptions{Limit: limits.For})
		l.loop.Claim("o", l.wish(func(s *ipvs.VirtualServerSpec) { s.Flags, s.Timeout = ipvs.Persistent, 3600 }, 1))
		l.loop.Claim("p", l.wish(nil, 2))
		l.until("in service", 5*time.Second, func() bool { return l.weight(1) == "1" && l.weight(2) == "1" })
		one, two := l.dial(1), l.dial(2)
		l.loop.Claim("o", reconcile.Claim[ipvs.Key, ipvs.Spec]{})
		l.loop.Claim("p", reconcile.Claim[ipvs.Key, ipvs.Spec]{})
		began := time.Now()
		l.until("quiet", time.Second, func() bool { return l.weight(1) == "0" && l.weight(2) == "0" })
		// The kernel shows a write before the target has heard that it succeeded.
		l.until("counted", time.Second, func() bool { return l.target.Counts() == ipvs.Counts{VirtualServers: 2, Draining: 2} })
		for _, port := range []uint16{1, 2} {
			conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(l.vip, port).String(), 300*time.Millisecond)
			if err == nil {
				t.Errorf("a new connection to port %d of a leaving virtual server", port)
				_ = conn.Close()
			}
		}
		time.Sleep(2 * time.Second) // for draining to look at them
		if err := errors.Join(echoes(one), echoes(two)); err != nil {
			t.Errorf("established connections: %v", err)
		}
		l.until("past its limit", 5*time.Second, func() bool { return l.weight(2) == "gone" })
		if took := time.Since(began); took < 4*time.Second || took > 6*time.Second {
			t.Errorf("port 2 went after %v, want 4 s", took)
		}
		if err := echoes(two); err == nil {
			t.Error("a connection outlived its virtual server")
		}
		if err := echoes(one); err != nil {
			t.Errorf("port 1: %v", err)
		}
		reset(one)
		took := l.until("drained", 20*time.Second, func() bool { return l.weight(1) == "gone" })
		t.Logf("port 1 went %v after its last connection was reset", took)
		l.until("forgotten", time.Second, func() bool { return l.target.Counts() == ipvs.Counts{} })
		if s := l.loop.Status(); s.FailingCount != 0 {
			t.Errorf("in the end %+v", s)
		}
	})
}

// TestLabTemplatesAreNotConnections shows what the draining of a persistent
// virtual server rests on: the kernel counts the clients bound to a
// destination apart from its connections, and sends them elsewhere.
func TestLabTemplatesAreNotConnections(t *testing.T) {
	eachDrainLab(t, func(l *drainLab) {
		t := l.t
		put := l.wish(func(s *ipvs.VirtualServerSpec) { s.Flags, s.Timeout = ipvs.Persistent, 3600 }, 1).Put
		var c change
		for k, v := range put {
			c.Puts = append(c.Puts, reconcile.Put[ipvs.Key, ipvs.Spec]{Key: k, Spec: v})
		}
		apply(t, l.h, c)
		entry := func() ipvs.DestinationEntry {
			list, err := l.h.Destinations(t.Context(), l.server(1).VirtualServer)
			if err != nil || len(list) != 1 {
				t.Fatal(list, err)
			}
			return list[0]
		}
		conn := l.dial(1)
		if e := entry(); e.Active != 1 || e.Inactive != 0 || e.Persistent != 1 {
			t.Errorf("connected: %+v", e)
		}
		reset(conn)
		l.until("idle", 20*time.Second, func() bool { e := entry(); return e.Active+e.Inactive == 0 })
		if e := entry(); e.Persistent != 1 {
			t.Errorf("idle: %+v, want the client still bound", e)
		}
		target := ipvs.NewTarget(l.h, ipvs.TargetOptions{Local: everywhere})
		if failed := target.Apply(t.Context(), change{Dels: []ipvs.Key{l.server(1)}}); len(failed) != 0 {
			t.Errorf("not deleted: %v", failed)
		}
	})
}

// TestLabRestartWhileDraining: a new run finds weight 0 and restores what is
// wanted, and goes on draining what is not, without a connection lost.
func TestLabRestartWhileDraining(t *testing.T) {
	eachDrainLab(t, func(l *drainLab) {
		t := l.t
		stop := l.start(ipvs.TargetOptions{})
		l.loop.Claim("o", l.wish(nil, 1, 2))
		l.until("in service", 5*time.Second, func() bool { return l.weight(1) == "1" && l.weight(2) == "1" })
		one, two := l.dial(1), l.dial(2)
		l.loop.Claim("o", reconcile.Claim[ipvs.Key, ipvs.Spec]{})
		l.until("quiet", time.Second, func() bool { return l.weight(1) == "0" && l.weight(2) == "0" })
		stop()
		l.start(ipvs.TargetOptions{Drain: 3 * time.Second})
		l.loop.Claim("o", l.wish(nil, 1))
		l.until("restored", time.Second, func() bool { return l.weight(1) == "1" })
		if err := errors.Join(echoes(one), echoes(two), echoes(l.dial(1))); err != nil {
			t.Errorf("connections: %v", err)
		}
		if got := l.weight(2); got != "0" {
			t.Errorf("port 2 has weight %s, want to go on draining", got)
		}
		l.until("drained", 5*time.Second, func() bool { return l.weight(2) == "gone" })
		if err := echoes(one); err != nil {
			t.Errorf("the restored one's connection: %v", err)
		}
		// Nothing behind it any more: what comes is refused, and IPVS is out of it.
		if _, err := net.DialTimeout("tcp", netip.AddrPortFrom(l.vip, 2).String(), time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("port 2: %v", err)
		}
	})
}
