//go:build lab

package netfilter_test

import (
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
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
)

// TestJourneysOnKernel sends the datagrams that the fake's tracer follows.
func TestJourneysOnKernel(t *testing.T) {
	for _, b := range backends(t) {
		for _, f := range families() {
			t.Run(fmt.Sprintf("%s %s", b, f), func(t *testing.T) { testJourneys(t, b, destinationsOf(f)) })
		}
	}
}

func testJourneys(t *testing.T, b netfilter.Backend, d destinations) {
	t.Helper()
	node, outside := netfiltertest.NewNamespace(t), netfiltertest.NewNamespace(t)
	wire(t, d.family, node, outside)
	var h *netfilter.Handle
	node.Do(func() {
		var err error
		if h, err = netfilter.Dial(); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	t.Cleanup(func() { _ = h.Close() })
	newRig(subject{Runner: node.Runner(h), Sets: h, backend: b, count: h.Count}).reconcile(t, d.state())
	for _, at := range d.all() {
		answer(t, node, at)
	}
	for from, c := range map[string]struct {
		ns   netfiltertest.Namespace
		base int
	}{"node": {node, fromNode}, "outside": {outside, fromOutside}} {
		for _, j := range d.journeys() {
			if j.from != "" && j.from != from {
				continue
			}
			t.Run(j.what+" from "+from, func(t *testing.T) {
				socket := dial(t, c.ns, netip.AddrPortFrom(addr(d.family, c.base+j.client), 0), j.to)
				for _, which := range []string{"first", "second"} { // the second one's connection is known
					fate, at := send(t, socket)
					if fate != j.fate || fate == netfiltertest.ToProcess && at != j.at.String() {
						t.Errorf("%s datagram %s %s, want %s %s", which, fate, at, j.fate, j.at)
					}
				}
			})
		}
	}
}

// wire joins the node and the outside, and gives them their addresses.
func wire(t *testing.T, f model.Family, node, outside netfiltertest.Namespace) {
	t.Helper()
	thread := make(chan int, 1)
	outside.Do(func() { thread <- syscall.Gettid() })
	length := addr(f, 0).BitLen()
	here := fmt.Sprintf("ip link set lo up\nip link add out type veth peer name in netns /proc/%d/ns/net\nip link set out up\n", <-thread)
	there := "ip link set lo up\nip link set in up\n"
	// The way to addresses on lo leads over one on the link itself.
	gateway := addr(f, 0xa00)
	here += fmt.Sprintf("ip addr add %s/%d dev out nodad\n", gateway, length)
	there += fmt.Sprintf("ip route add %s/%d dev in\n", gateway, length)
	for _, at := range destinationsOf(f).all() {
		here += fmt.Sprintf("ip addr replace %s/%d dev lo nodad\n", at.Addr(), length)
		there += fmt.Sprintf("ip route replace %s/%d via %s dev in onlink\n", at.Addr(), length, gateway)
	}
	for _, client := range []int{member, exception, stranger} {
		here += fmt.Sprintf("ip addr add %s/%d dev lo nodad\n", addr(f, fromNode+client), length)
		here += fmt.Sprintf("ip route add %s/%d dev out\n", addr(f, fromOutside+client), length)
		there += fmt.Sprintf("ip addr add %s/%d dev in nodad\n", addr(f, fromOutside+client), length)
	}
	for _, c := range []struct {
		ns     netfiltertest.Namespace
		script string
	}{{node, here}, {outside, there}} {
		c.ns.Do(func() {
			if out, err := exec.Command("sh", "-exc", c.script).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// answer has a socket of the node tell who writes to it where he arrived.
func answer(t *testing.T, node netfiltertest.Namespace, at netip.AddrPort) {
	t.Helper()
	var socket *net.UDPConn
	node.Do(func() {
		var err error
		if socket, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)); err != nil {
			t.Error(err)
		}
	})
	if socket == nil {
		t.FailNow()
	}
	t.Cleanup(func() { _ = socket.Close() })
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := socket.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = socket.WriteToUDPAddrPort([]byte(at.String()), from)
		}
	}()
}

func dial(t *testing.T, ns netfiltertest.Namespace, from, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	var socket *net.UDPConn
	ns.Do(func() {
		var err error
		if socket, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to)); err != nil {
			t.Error(err)
		}
	})
	if socket == nil {
		t.FailNow()
	}
	t.Cleanup(func() { _ = socket.Close() })
	return socket
}

// send sends a datagram and says what came of it. Silence for a while is a
// drop: an answer takes microseconds.
func send(t *testing.T, socket *net.UDPConn) (fate netfiltertest.Fate, at string) {
	t.Helper()
	_, err := socket.Write([]byte("where am I?"))
	buf := make([]byte, 100)
	n := 0
	if err == nil {
		_ = socket.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		n, err = socket.Read(buf)
	}
	switch {
	case err == nil:
		return netfiltertest.ToProcess, strings.TrimSpace(string(buf[:n]))
	case errors.Is(err, syscall.ECONNREFUSED):
		return netfiltertest.Rejected, ""
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.EPERM):
		return netfiltertest.Dropped, ""
	}
	t.Errorf("send: %v", err)
	return "", ""
}
