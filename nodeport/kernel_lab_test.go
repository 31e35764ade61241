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
	sets                   *netfilter.Handle
	rules                  netfilter.Runner
	dev                    *vip.Device
}

const sshd = 2222 // something on the node that listens on all addresses

func newLab(t *testing.T, w world) *lab {
	t.Helper()
	l := &lab{world: w}
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
	return l
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

// echoPeer tells everyone who connects who he is.
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
			_, _ = fmt.Fprint(conn, conn.RemoteAddr())
			_ = conn.Close()
		}
	}()
}

// configure writes rules, sets and addresses.
func (l *lab) configure(t *testing.T, cfg nodeport.Config) {
	t.Helper()
	view := model.View{Frontends: l.frontends()}
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
	if t.Failed() {
		t.FailNow()
	}
}

// serve has IPVS send everything to one endpoint, or to none.
func (l *lab) serve(t *testing.T, endpoint netip.AddrPort) {
	t.Helper()
	var script strings.Builder
	for _, f := range l.frontends() {
		fmt.Fprintf(&script, "ipvsadm -D -t %s || true\nipvsadm -A -t %s -s rr\n", f.Addr, f.Addr)
		if endpoint.IsValid() {
			fmt.Fprintf(&script, "ipvsadm -a -t %s -r %s -m\n", f.Addr, endpoint)
		}
	}
	sh(t, l.node, script.String())
}

// connect is what an endpoint calls a client that connects from a namespace.
func (l *lab) connect(ns netfiltertest.Namespace, from netip.Addr, to netip.AddrPort) (peer netip.Addr, err error) {
	var conn net.Conn
	ns.Do(func() {
		d := net.Dialer{Timeout: 3 * time.Second}
		if from.IsValid() {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		}
		conn, err = d.Dial("tcp", to.String())
	})
	if err != nil {
		return peer, err
	}
	defer conn.Close()
	text, err := io.ReadAll(conn)
	if err != nil {
		return peer, err
	}
	at, err := netip.ParseAddrPort(string(text))
	return at.Addr().Unmap(), err
}

// clients are where the truth table's traffic comes from. The node itself
// chooses its own source.
func (l *lab) clients() map[string]func(netip.AddrPort) (netip.Addr, error) {
	return map[string]func(netip.AddrPort) (netip.Addr, error){
		"pod":      func(to netip.AddrPort) (netip.Addr, error) { return l.connect(l.pod, l.world.pod, to) },
		"external": func(to netip.AddrPort) (netip.Addr, error) { return l.connect(l.outside, l.client, to) },
		"node":     func(to netip.AddrPort) (netip.Addr, error) { return l.connect(l.node, netip.Addr{}, to) },
	}
}

// TestKernelMasquerade is TestMasquerade with real packets through real IPVS.
func TestKernelMasquerade(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.family.String(), func(t *testing.T) {
			l := newLab(t, w)
			// A node that drops what it forwards, as one with docker does.
			sh(t, l.node, l.node4or6("iptables", "ip6tables")+" -A FORWARD -j DROP")
			for _, mode := range []string{"detector", "no detector", "masquerade all"} {
				l.configure(t, w.config(mode != "no detector", mode == "masquerade all"))
				for _, endpoint := range []netip.AddrPort{w.localEndpoint, w.remoteEndpoint} {
					l.serve(t, endpoint)
					for from, connect := range l.clients() {
						for to, at := range map[string]netip.AddrPort{"ClusterIP": w.clusterIP, "NodePort": w.nodePort, "externalIP": w.external, "LB IP": w.lb} {
							// The node is the node, masqueraded or not.
							masq := from == "node" || to != "ClusterIP" || mode == "masquerade all" || from == "external" && mode == "detector"
							// Unmasqueraded, an endpoint outside answers the client there directly.
							if from == "external" && endpoint == w.remoteEndpoint && !masq {
								continue
							}
							peer, err := connect(at)
							if err != nil || l.isNode(peer) != masq {
								t.Errorf("%s: %s to %s, endpoint %s: it saw %s, %v; want the node: %v", mode, from, to, endpoint, peer, err, masq)
							}
						}
					}
				}
				l.serve(t, netip.AddrPortFrom(w.pod, 8080))
				if peer, err := l.connect(l.pod, w.pod, w.clusterIP); err != nil || !l.isNode(peer) {
					t.Errorf("%s: hairpin: it saw %s, %v", mode, peer, err)
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
			l.configure(t, w.config(true, false))
			l.serve(t, w.localEndpoint)
			for from, connect := range l.clients() {
				if _, err := connect(netip.AddrPortFrom(w.node, sshd)); err != nil {
					t.Errorf("%s to the node's own address: %v", from, err)
				}
				for _, a := range []netip.AddrPort{w.clusterIP, w.external, w.lb} {
					began := time.Now()
					_, err := connect(netip.AddrPortFrom(a.Addr(), sshd))
					if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(began) > time.Second {
						t.Errorf("%s to %s port %d: %v after %s, want a quick refusal", from, a.Addr(), sshd, err, time.Since(began))
					}
					if err := l.ping(t, from, a.Addr()); err != nil {
						t.Errorf("%s pings %s: %v", from, a.Addr(), err)
					}
				}
				if _, err := connect(w.clusterIP); err != nil {
					t.Errorf("%s to the Service: %v", from, err)
				}
			}
			l.serve(t, netip.AddrPort{})
			for from, connect := range l.clients() {
				for _, f := range l.frontends() {
					// IPVS refuses with an ICMP error, which a busy socket loses:
					// then it takes a second.
					if _, err := connect(f.Addr); !errors.Is(err, syscall.ECONNREFUSED) {
						t.Errorf("%s to %s without endpoints: %v", from, f.Addr, err)
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
	// One datagram may be lost on its way (a neighbour entry that has just
	// expired): as ping does, ask again.
	for range 3 {
		if err = echo(conn, request, reply); err == nil {
			return nil
		}
	}
	return err
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
