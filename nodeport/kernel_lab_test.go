//go:build lab

package nodeport_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
	"sluice.dev/sluice/internal/vip"
	"sluice.dev/sluice/nodeport"
)

// lab is the world of the packet tests in the kernel: a node with IPVS, a pod
// that is also an endpoint, an endpoint on the node, and the outside with a
// client and an endpoint of another node.
//
//	pod ── node ── outside
//	ep  ──┘
type lab struct {
	world
	node, pod, ep, outside netfiltertest.Namespace
	wait                   time.Duration // of clients
	port                   uint16        // the last that a client has had
	sets                   *netfilter.Handle
	rules                  netfilter.Runner
	dev                    *vip.Device
}

const sshd = 2222 // something on the node that listens on all addresses

const (
	// patience is how long a client waits that hopes for an answer: until a
	// lost packet has been sent again.
	patience = 1500 * time.Millisecond
	// silence is how long one waits that hopes for none: refusals come at once.
	silence = 300 * time.Millisecond
	// firstPort is where clients' ports begin.
	firstPort = 20000
)

func newLab(t *testing.T, w world) *lab {
	t.Helper()
	l := &lab{world: w, wait: patience, port: firstPort - 1}
	for _, ns := range []*netfiltertest.Namespace{&l.node, &l.pod, &l.ep, &l.outside} {
		*ns = netfiltertest.NewNamespace(t)
	}
	l.node.Do(func() {
		var err error
		l.sets, err = netfilter.Dial()
		check(t, err)
		l.dev, err = vip.Dial("sluice0")
		check(t, err)
	})
	l.rules = l.node.Runner(l.sets)
	l.wire(t)
	for ns, at := range map[*netfiltertest.Namespace]netip.AddrPort{
		&l.pod: netip.AddrPortFrom(w.pod, 8080), &l.ep: w.localEndpoint, &l.outside: w.remoteEndpoint,
		&l.node: netip.AddrPortFrom(netip.IPv6Unspecified(), sshd),
	} {
		echoPeer(t, *ns, at)
	}
	l.acquaint(t)
	return l
}

// acquaint has everybody meet everybody without a Service between them: who
// asks for a neighbour's link address too early asks again a second later.
func (l *lab) acquaint(t *testing.T) {
	t.Helper()
	for _, to := range []netip.AddrPort{netip.AddrPortFrom(l.world.pod, 8080), l.localEndpoint, l.remoteEndpoint, netip.AddrPortFrom(l.world.node, sshd)} {
		for from, ns := range map[netip.Addr]netfiltertest.Namespace{
			l.world.pod: l.pod, l.localEndpoint.Addr(): l.ep, l.client: l.outside, l.world.node: l.node,
		} {
			var err error
			for range 5 {
				if _, _, err = l.connect(ns, from, to); err == nil {
					break
				}
			}
			check(t, err)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// sh runs commands in a namespace.
func sh(t *testing.T, ns netfiltertest.Namespace, script string) {
	t.Helper()
	ns.Do(func() {
		if out, err := exec.Command("sh", "-exc", script).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// wire makes the links. Each namespace's process id in /proc names it for ip.
func (l *lab) wire(t *testing.T) {
	t.Helper()
	length := l.node4or6("32", "128")
	sh(t, l.node, "ip link set lo up; sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.vs.conntrack=1")
	for i, end := range []struct {
		ns    netfiltertest.Namespace
		addrs []netip.Addr
		here  netip.Addr // the node's address on this link
	}{
		{l.pod, []netip.Addr{l.world.pod}, l.gateway()},
		{l.ep, []netip.Addr{l.localEndpoint.Addr()}, l.gateway()},
		{l.outside, []netip.Addr{l.client, l.remoteEndpoint.Addr()}, l.world.node},
	} {
		thread := make(chan int, 1)
		end.ns.Do(func() { thread <- syscall.Gettid() })
		sh(t, l.node, fmt.Sprintf("ip link add v%d type veth peer name eth0 netns /proc/%d/ns/net", i, <-thread))
		script := "ip link set lo up; ip link set eth0 up\n"
		nodeSide := fmt.Sprintf("ip link set v%d up; ip addr add %s/%s dev v%d nodad || true\n", i, end.here, length, i)
		for _, a := range end.addrs {
			script += fmt.Sprintf("ip addr add %s/%s dev eth0 nodad\n", a, length)
			nodeSide += fmt.Sprintf("ip route add %s dev v%d\n", a, i)
		}
		sh(t, l.node, nodeSide)
		sh(t, end.ns, script+fmt.Sprintf("ip route add %s dev eth0; ip route add default via %s onlink dev eth0\n", end.here, end.here))
	}
}

func (l *lab) node4or6(four, six string) string {
	if l.family == model.IPv4 {
		return four
	}
	return six
}

// gateway is the node's address towards pods.
func (l *lab) gateway() netip.Addr {
	return netip.MustParseAddr(l.node4or6("10.1.0.1", "fd00:1::1"))
}

// isNode reports whether an address is the node's.
func (l *lab) isNode(a netip.Addr) bool { return a == l.world.node || a == l.gateway() }

// echoPeer tells everyone who connects where he came and who he is.
func echoPeer(t *testing.T, ns netfiltertest.Namespace, at netip.AddrPort) {
	t.Helper()
	var listener net.Listener
	ns.Do(func() {
		var err error
		listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		check(t, err)
	})
	if listener == nil {
		t.FailNow()
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprint(conn, conn.LocalAddr(), " ", conn.RemoteAddr())
			_ = conn.Close()
		}
	}()
}

// configure writes rules, sets and addresses, and has IPVS serve the view.
func (l *lab) configure(t *testing.T, cfg nodeport.Config, view model.View) {
	t.Helper()
	want := nodeport.Static(cfg)
	maps.Copy(want, nodeport.Desired(view))
	rules := netfilter.New(netfilter.Options{Runner: l.rules, Sets: l.sets, Families: cfg.Families})
	have := map[netfilter.Key]netfilter.Spec{}
	for s, err := range rules.List(t.Context(), nil) {
		check(t, err)
		maps.Copy(have, s.Present)
	}
	for _, err := range rules.Apply(t.Context(), difference(want, have)) {
		t.Error(err)
	}
	for _, err := range vip.New(l.dev).Apply(t.Context(), difference(vip.Desired(view), nil)) {
		t.Error(err)
	}
	script := "ipvsadm -C\n"
	for _, f := range view.Frontends {
		for i, b := range f.Backends() {
			if i == 0 {
				script += fmt.Sprintf("ipvsadm -A -t %s -s rr\n", f.Addr)
			}
			script += fmt.Sprintf("ipvsadm -a -t %s -r %s -m\n", f.Addr, b.Addr)
		}
	}
	sh(t, l.node, script)
	if t.Failed() {
		t.FailNow()
	}
}

// connect is which endpoint answers a client that connects from a namespace,
// and what it calls him. No client has a port that another has had: IPVS keeps
// connections that have ended for two minutes, longer than the Services here,
// and would send the next one of that port where they went.
func (l *lab) connect(ns netfiltertest.Namespace, from netip.Addr, to netip.AddrPort) (endpoint netip.AddrPort, peer netip.Addr, err error) {
	var conn net.Conn
	l.port++
	ns.Do(func() {
		// From no address: the kernel chooses one.
		d := net.Dialer{Timeout: l.wait, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, l.port))}
		conn, err = d.Dial("tcp", to.String())
	})
	if err != nil {
		return endpoint, peer, err
	}
	defer conn.Close()
	text, err := io.ReadAll(conn)
	if err != nil {
		return endpoint, peer, err
	}
	here, there, _ := strings.Cut(string(text), " ")
	endpoint, err = netip.ParseAddrPort(here)
	if err != nil {
		return endpoint, peer, err
	}
	at, err := netip.ParseAddrPort(there)
	return endpoint, at.Addr().Unmap(), err
}

// ask connects as one of the truth table's sources. The node itself chooses
// its own address.
func (l *lab) ask(from string, to netip.AddrPort) (endpoint netip.AddrPort, peer netip.Addr, err error) {
	switch from {
	case "pod":
		return l.connect(l.pod, l.world.pod, to)
	case "external":
		return l.connect(l.outside, l.client, to)
	}
	return l.connect(l.node, netip.Addr{}, to)
}

// outcome is a cell's answer as the kernel gives it: which of the two endpoints
// are reached, and whether they see the node.
func (l *lab) outcome(from string, to netip.AddrPort) string {
	reached, nodes := map[netip.AddrPort]bool{}, 0
	const asks = 4
	for range asks {
		endpoint, peer, err := l.ask(from, to)
		if err != nil {
			return err.Error()
		}
		reached[endpoint] = true
		if l.isNode(peer) {
			nodes++
		}
	}
	got := fmt.Sprint(reached)
	switch {
	case reached[l.localEndpoint] && reached[l.remoteEndpoint]:
		got = "all"
	case reached[l.localEndpoint]:
		got = "local"
	}
	switch {
	case nodes == asks && from != "node": // the node is the node, masqueraded or not
		got += " masq"
	case nodes != 0 && nodes != asks:
		got += " sometimes masq"
	}
	return got
}

// TestKernelTruthTable is TestTruthTable with real packets through real IPVS.
func TestKernelTruthTable(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.family.String(), func(t *testing.T) {
			l := newLab(t, w)
			// A node that drops what it forwards, as one with docker does.
			sh(t, l.node, l.node4or6("iptables", "ip6tables")+" -A FORWARD -j DROP")
			for _, mode := range modes() {
				for policy, set := range policies() {
					l.configure(t, mode.config(w), w.service(t, []string{"here", "elsewhere"}, set))
					for _, c := range cells(mode.table) {
						if c.policy != policy {
							continue
						}
						want := c.want
						if c.from == "node" {
							want = strings.TrimSuffix(want, " masq")
						}
						// Unmasqueraded, the endpoint elsewhere answers the client directly,
						// who knows nothing of it.
						if c.from == "external" && want == "all" {
							continue
						}
						if got := l.outcome(c.from, w.frontend(c.to)); got != want {
							t.Errorf("%s, %s: %s to %s: %s, want %s", mode.name, c.policy, c.from, c.to, got, c.want)
						}
					}
				}
			}
		})
	}
}

// TestKernelHairpin: an endpoint that meets itself sees the node.
func TestKernelHairpin(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.family.String(), func(t *testing.T) {
			self := w
			self.localEndpoint = netip.AddrPortFrom(w.pod, 8080)
			l := newLab(t, w)
			for policy, set := range policies() {
				for _, detector := range []bool{true, false} {
					l.configure(t, w.config(detector, false), self.service(t, []string{"here"}, set))
					for _, to := range []string{"ClusterIP", "NodePort", "externalIP", "LB"} {
						if _, peer, err := l.ask("pod", w.frontend(to)); err != nil || !l.isNode(peer) {
							t.Errorf("%s, detector %v, %s: it saw %s, %v", policy, detector, to, peer, err)
						}
					}
				}
			}
		})
	}
}

// TestKernelGuard: a listener on all addresses is reached through the node's
// addresses and through no Service's, whoever asks.
func TestKernelGuard(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.family.String(), func(t *testing.T) {
			l := newLab(t, w)
			l.configure(t, w.config(true, false), w.service(t, []string{"here"}, policies()["Cluster"]))
			for _, from := range []string{"pod", "node", "external"} {
				if _, _, err := l.ask(from, netip.AddrPortFrom(w.node, sshd)); err != nil {
					t.Errorf("%s to the node's own address: %v", from, err)
				}
				for _, a := range []netip.AddrPort{w.clusterIP, w.external, w.lb} {
					l.expectRefused(t, from, netip.AddrPortFrom(a.Addr(), sshd))
					if err := l.ping(t, from, a.Addr()); err != nil {
						t.Errorf("%s pings %s: %v", from, a.Addr(), err)
					}
				}
				if _, _, err := l.ask(from, w.clusterIP); err != nil {
					t.Errorf("%s to the Service: %v", from, err)
				}
			}
		})
	}
}

// expectSilence has a client wait for an answer in vain.
func (l *lab) expectSilence(t *testing.T, from string, to netip.AddrPort) {
	t.Helper()
	l.wait = silence
	defer func() { l.wait = patience }()
	_, _, err := l.ask(from, to)
	if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
		t.Errorf("%s to %s: %v, want silence", from, to, err)
	}
}

func (l *lab) expectRefused(t *testing.T, from string, to netip.AddrPort) {
	t.Helper()
	began := time.Now()
	_, _, err := l.ask(from, to)
	if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(began) > time.Second {
		t.Errorf("%s to %s: %v after %s, want a quick refusal", from, to, err, time.Since(began))
	}
}

// TestKernelMissingEndpoints is TestMissingEndpoints with real packets: TCP
// clients are reset at once, or hear nothing.
func TestKernelMissingEndpoints(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.family.String(), func(t *testing.T) {
			l := newLab(t, w)
			for policy, set := range policies() {
				l.configure(t, w.config(true, false), w.service(t, nil, set))
				for _, c := range cells(vacancyTable) {
					if c.policy == policy {
						l.expectRefused(t, c.from, w.frontend(c.to))
					}
				}
				l.configure(t, w.config(true, false), w.service(t, []string{"elsewhere"}, set))
				for _, c := range cells(vacancyTable) {
					if c.policy == policy && c.want == "drop" {
						l.expectSilence(t, c.from, w.frontend(c.to))
					}
				}
			}
		})
	}
}

// TestKernelSourceRanges: not even the node itself gets around them.
func TestKernelSourceRanges(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.family.String(), func(t *testing.T) {
			l := newLab(t, w)
			host := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
			for in, allowed := range map[string]netip.Prefix{"external": host(w.client), "pod": w.pods, "node": host(w.node)} {
				for policy, set := range policies() {
					view := w.service(t, []string{"here"}, func(s *model.Service) { set(s); s.SourceRanges = []netip.Prefix{allowed} })
					l.configure(t, w.config(true, false), view)
					if _, _, err := l.ask(in, w.lb); err != nil {
						t.Errorf("%s, %s in range: %v", policy, in, err)
					}
					for _, out := range []string{"external", "pod", "node"} {
						if out == in {
							continue
						}
						l.expectSilence(t, out, w.lb)
						if _, _, err := l.ask(out, w.nodePort); err != nil {
							t.Errorf("%s, only %s in range: %s to the NodePort: %v", policy, in, out, err)
						}
					}
				}
			}
		})
	}
}

// ping sends an echo request and waits for the answer.
func (l *lab) ping(t *testing.T, from string, to netip.Addr) error {
	t.Helper()
	ns := map[string]netfiltertest.Namespace{"pod": l.pod, "external": l.outside, "node": l.node}[from]
	const request4, reply4, request6, reply6 = 8, 0, 128, 129
	network, request, reply := "ip4:icmp", byte(request4), byte(reply4)
	if to.Is6() {
		network, request, reply = "ip6:ipv6-icmp", request6, reply6
	}
	var conn net.Conn
	var err error
	ns.Do(func() { conn, err = net.Dial(network, to.String()) })
	if err != nil {
		return err
	}
	defer conn.Close()
	return echo(conn, request, reply)
}

// echo sends one request and waits a second for its reply.
func echo(conn net.Conn, request, reply byte) error {
	// The sum of the first word and its complement is the checksum; the
	// kernel fills in that of ICMPv6 itself.
	if _, err := conn.Write([]byte{request, 0, ^request, 0xff, 0, 0, 0, 0}); err != nil {
		return err
	}
	buf := make([]byte, 128)
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	for {
		n, _, err := conn.(*net.IPConn).ReadFromIP(buf) // without the IPv4 header
		if err != nil {
			return err
		}
		if n > 0 && buf[0] == reply {
			return nil
		}
	}
}
