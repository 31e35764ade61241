//go:build lab

package conntrack_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice.dev/sluice/internal/conntrack"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/ipvs"
)

// world is a node with IPVS, a client and two endpoints, each in a namespace
// of its own and one hop from the node:
//
//	client ── node ── one
//	              └── two
type world struct {
	t                      *testing.T
	family                 model.Family
	node, client, one, two netfiltertest.Namespace
	servers                *ipvs.KernelHandle
	flows                  *conntrack.KernelHandle
}

// addr is an address of the world's family: 10.0.a.b or fd00::a:b.
func (w *world) addr(a, b int) netip.Addr {
	if w.family == model.IPv4 {
		return netip.AddrFrom4([4]byte{10, 0, byte(a), byte(b)})
	}
	return netip.MustParseAddr(fmt.Sprintf("fd00::%d:%d", a, b))
}

func (w *world) clientAddr() netip.Addr         { return w.addr(1, 2) }
func (w *world) oneAddr() netip.AddrPort        { return netip.AddrPortFrom(w.addr(2, 2), 5353) }
func (w *world) twoAddr() netip.AddrPort        { return netip.AddrPortFrom(w.addr(3, 2), 5353) }
func (w *world) vip(port uint16) netip.AddrPort { return netip.AddrPortFrom(w.addr(96, 1), port) }

func eachFamily(t *testing.T, test func(*world)) {
	t.Helper()
	for _, f := range []model.Family{model.IPv4, model.IPv6} {
		t.Run(f.String(), func(t *testing.T) { test(newWorld(t, f)) })
	}
}

func newWorld(t *testing.T, f model.Family) *world {
	t.Helper()
	w := &world{t: t, family: f}
	for _, ns := range []*netfiltertest.Namespace{&w.node, &w.client, &w.one, &w.two} {
		*ns = netfiltertest.NewNamespace(t)
	}
	w.node.Do(func() {
		var err error
		w.servers, err = ipvs.Open(t.Context())
		w.check(err)
		w.flows, err = conntrack.Dial()
		w.check(err)
	})
	if t.Failed() {
		t.FailNow()
	}
	t.Cleanup(func() {
		w.check(w.servers.Close())
		w.check(w.flows.Close())
	})
	length := 24
	if f == model.IPv6 {
		length = 112
	}
	w.sh(w.node, fmt.Sprintf(`ip link set lo up; ip addr add %s dev lo
		sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
		sysctl -qw net.ipv4.vs.conntrack=1 net.ipv4.vs.expire_nodest_conn=1 net.ipv4.vs.expire_quiescent_template=1`, w.addr(96, 1)))
	for i, ns := range []netfiltertest.Namespace{w.client, w.one, w.two} {
		here, there := w.addr(i+1, 1), w.addr(i+1, 2)
		thread := make(chan int, 1)
		ns.Do(func() { thread <- syscall.Gettid() })
		w.sh(w.node, fmt.Sprintf(`ip link add v%d type veth peer name eth0 netns /proc/%d/ns/net
			ip link set v%d up; ip addr add %s/%d dev v%d nodad || ip addr add %s/%d dev v%d`, i, <-thread, i, here, length, i, here, length, i))
		w.sh(ns, fmt.Sprintf(`ip link set lo up; ip link set eth0 up
			ip addr add %s/%d dev eth0 nodad || ip addr add %s/%d dev eth0
			ip route add default via %s`, there, length, there, length, here))
	}
	// The rule has the namespace track connections at all, as the static rules
	// of a node do.
	w.sh(w.node, w.iptables()+" -t nat -A POSTROUTING -o v+ -j MASQUERADE --random-fully")
	w.serve(w.one, w.oneAddr())
	w.serve(w.two, w.twoAddr())
	return w
}

func (w *world) iptables() string {
	if w.family == model.IPv6 {
		return "ip6tables"
	}
	return "iptables"
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Error(err)
	}
}

func (w *world) sh(ns netfiltertest.Namespace, script string) {
	w.t.Helper()
	ns.Do(func() {
		if out, err := exec.Command("sh", "-exc", script).CombinedOutput(); err != nil {
			w.t.Errorf("%v\n%s", err, out)
		}
	})
	if w.t.Failed() {
		w.t.FailNow()
	}
}

func (w *world) listen(ns netfiltertest.Namespace, at netip.AddrPort) (conn *net.UDPConn) {
	w.t.Helper()
	var err error
	ns.Do(func() { conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)) })
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// serve answers every datagram at an address with its text and that address.
func (w *world) serve(ns netfiltertest.Namespace, at netip.AddrPort) {
	conn := w.listen(ns, at)
	go func() {
		buf := make([]byte, 64)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDPAddrPort(append(buf[:n:n], at.String()...), from)
		}
	}()
}

// serving is a virtual server with its endpoints, as a claim wants them.
func (w *world) serving(vip netip.AddrPort, endpoints ...netip.AddrPort) reconcile.Claim[ipvs.Key, ipvs.Spec] {
	vs := ipvs.VirtualServer{Addr: vip, Protocol: model.UDP}
	spec := ipvs.Spec{VirtualServer: ipvs.VirtualServerSpec{Scheduler: "rr", Netmask: ipvs.HostMask4}}
	if w.family == model.IPv6 {
		spec.VirtualServer.Netmask = ipvs.HostMask6
	}
	put := map[ipvs.Key]ipvs.Spec{{VirtualServer: vs}: spec}
	for _, e := range endpoints {
		put[ipvs.Key{VirtualServer: vs, RealServer: e}] = ipvs.Spec{Destination: ipvs.DestinationSpec{Weight: 1}}
	}
	return reconcile.Claim[ipvs.Key, ipvs.Spec]{Put: put}
}

// run starts a loop over IPVS and a Sweeper, connected as the engine does it.
// Without a Sweeper nobody sweeps.
func (w *world) run(sweeps bool) *running {
	w.t.Helper()
	n := &running{world: w, sweeper: conntrack.New[string](conntrack.Options{Handle: w.flows}), removed: make(chan time.Time, 100)}
	target := ipvs.NewTarget(w.servers, ipvs.TargetOptions{
		Ours: func(context.Context) (func(ipvs.VirtualServer) bool, error) {
			return func(ipvs.VirtualServer) bool { return true }, nil
		},
		Removed: func(keys []ipvs.Key) {
			var gone []conntrack.Gone
			for _, k := range keys {
				gone = append(gone, conntrack.Gone{Frontend: model.FrontendKey{Addr: k.Addr, Protocol: k.Protocol}, Backend: k.RealServer})
			}
			n.sweeper.Removed(gone...)
			n.removed <- time.Now()
		},
	})
	n.loop = reconcile.NewLoop(target, reconcile.Options[string, ipvs.Key]{
		Name: "ipvs", Less: func(a, b string) bool { return a < b },
		GateOf: func(k ipvs.Key) ipvs.Key { return ipvs.Key{VirtualServer: k.VirtualServer} },
	})
	n.loop.Synced()
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	var both sync.WaitGroup
	both.Go(func() { n.loop.Run(ctx) })
	if sweeps {
		both.Go(func() { n.sweeper.Run(ctx) })
	}
	w.t.Cleanup(func() {
		cancel()
		both.Wait()
	})
	return n
}

// running is a world whose node runs.
type running struct {
	*world
	loop    *reconcile.Loop[string, ipvs.Key, ipvs.Spec]
	sweeper *conntrack.Sweeper[string]
	removed chan time.Time // when something had left the kernel
}

// want is what the engine does with a Service of one port: facts first.
func (n *running) want(service string, vip netip.AddrPort, endpoints ...netip.AddrPort) {
	n.sweeper.Set(service, map[model.FrontendKey][]netip.AddrPort{{Addr: vip, Protocol: model.UDP}: endpoints})
	if len(endpoints) == 0 {
		n.loop.Claim(service, reconcile.Claim[ipvs.Key, ipvs.Spec]{})
		return
	}
	n.loop.Claim(service, n.serving(vip, endpoints...))
}

// ready waits until IPVS has a virtual server with its endpoints.
func (n *running) ready(vips ...netip.AddrPort) {
	n.t.Helper()
	for _, vip := range vips {
		n.until("a virtual server "+vip.String(), 5*time.Second, func() bool {
			var out []byte
			n.node.Do(func() { out, _ = exec.Command("ipvsadm", "-L", "-n", "-u", vip.String()).Output() })
			return strings.Contains(string(out), "Masq")
		})
	}
}

// drop is what it does with a deleted one.
func (n *running) drop(service string) {
	n.sweeper.Set(service, nil)
	n.loop.Claim(service, reconcile.Claim[ipvs.Key, ipvs.Spec]{})
}

// table is the connection table as conntrack(8) tells it: the handle is the
// Sweeper's. The key is the client's port and the frontend.
func (w *world) table() map[string]string {
	w.t.Helper()
	family := "ipv4"
	if w.family == model.IPv6 {
		family = "ipv6"
	}
	var out []byte
	var err error
	w.node.Do(func() {
		out, err = exec.Command("conntrack", "-L", "-f", family, "-p", "udp", "-o", "id").Output()
	})
	w.check(err)
	all := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		var v []string // src, dst, sport, dport of both directions, id
		for field := range strings.FieldsSeq(line) {
			if name, value, ok := strings.Cut(field, "="); ok && (name == "src" || name == "dst" || name == "sport" || name == "dport" || name == "id") {
				v = append(v, value)
			}
		}
		if len(v) == 9 {
			all[v[2]+" to "+netip.MustParseAddr(v[1]).String()+" "+v[3]] = netip.MustParseAddr(v[4]).String() + " " + v[6] + " id " + v[8]
		}
	}
	return all
}

func (w *world) entry(client uint16, frontend netip.AddrPort) string {
	w.t.Helper()
	return w.table()[key(client, frontend)]
}

func key(client uint16, frontend netip.AddrPort) string {
	return fmt.Sprintf("%d to %s %d", client, frontend.Addr(), frontend.Port())
}

// leadsTo reports whether an entry is one to a backend.
func leadsTo(entry string, backend netip.AddrPort) bool {
	return strings.HasPrefix(entry, fmt.Sprintf("%s %d id ", backend.Addr(), backend.Port()))
}

// until waits for a condition and says how long it took.
func (w *world) until(what string, atMost time.Duration, done func() bool) time.Duration {
	w.t.Helper()
	began := time.Now()
	for !done() {
		if time.Since(began) > atMost {
			w.t.Fatalf("not %s after %v; table:\n%v", what, atMost, w.table())
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(began)
}

// sender sends numbered datagrams from one port, one every interval, and keeps
// who answered which and when.
type sender struct {
	conn *net.UDPConn
	stop chan struct{}
	done sync.WaitGroup

	mu      sync.Mutex
	sent    []time.Time
	answers map[uint64]string
}

func (w *world) send(ns netfiltertest.Namespace, from, to netip.AddrPort, every time.Duration) *sender {
	w.t.Helper()
	s := &sender{conn: w.listen(ns, from), stop: make(chan struct{}), answers: map[uint64]string{}}
	s.done.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-s.stop:
				return
			case <-tick.C:
			}
			s.mu.Lock()
			n := uint64(len(s.sent))
			s.sent = append(s.sent, time.Now())
			s.mu.Unlock()
			_, _ = s.conn.WriteToUDPAddrPort(binary.BigEndian.AppendUint64(nil, n), to)
		}
	})
	go func() {
		buf := make([]byte, 128)
		for {
			n, _, err := s.conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if n > 8 {
				s.mu.Lock()
				s.answers[binary.BigEndian.Uint64(buf)] = string(buf[8:n])
				s.mu.Unlock()
			}
		}
	}()
	w.t.Cleanup(s.end)
	return s
}

func (s *sender) end() {
	select {
	case <-s.stop:
	default:
		close(s.stop)
	}
	s.done.Wait()
}

func (s *sender) port() uint16 { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

// last is who answered the newest datagram that was answered at all, and when
// that was sent.
func (s *sender) last() (who string, sent time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, at := range slices.Backward(s.sent) {
		if who, ok := s.answers[uint64(n)]; ok {
			return who, at
		}
	}
	return "", time.Time{}
}

// answeredBy waits until somebody answers a datagram that is sent from now on.
func (s *sender) answeredBy(w *world, who netip.AddrPort, atMost time.Duration) time.Duration {
	w.t.Helper()
	began := time.Now()
	return w.until("answered by "+who.String(), atMost, func() bool {
		is, sent := s.last()
		return is == who.String() && sent.After(began)
	})
}

// lost are the datagrams sent after a moment that nobody answered, though later
// ones were. Ends the sender.
func (s *sender) lost(after time.Time) (when []time.Duration) {
	s.end()
	_, until := s.last()
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, at := range s.sent {
		if _, ok := s.answers[uint64(n)]; !ok && at.After(after) && at.Before(until) {
			when = append(when, at.Sub(after))
		}
	}
	return when
}
