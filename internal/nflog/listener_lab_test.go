//go:build lab

package nflog_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
	"sluice.dev/sluice/internal/nflog"
	"sluice.dev/sluice/internal/reconcile"
)

const (
	group  = 100
	prefix = "sluice-ingress"
	limit  = 3
)

// world is a node with rules that tell of what they refuse, and what is outside
// of it.
type world struct {
	t             *testing.T
	family        model.Family
	node, outside netfiltertest.Namespace
}

// eachWorld is one for each family on each backend that the machine has.
func eachWorld(t *testing.T, test func(*world)) {
	t.Helper()
	for _, b := range []netfilter.Backend{netfilter.Legacy, netfilter.NFT} {
		for _, f := range []model.Family{model.IPv4, model.IPv6} {
			t.Run(fmt.Sprintf("%s %s", b, f), func(t *testing.T) {
				w := &world{t: t, family: f, node: netfiltertest.NewNamespace(t), outside: netfiltertest.NewNamespace(t)}
				w.rules(b)
				w.wire()
				test(w)
			})
		}
	}
}

func (w *world) addr(n int) netip.Addr {
	if w.family == model.IPv4 {
		return netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})
	}
	return netip.MustParseAddr(fmt.Sprintf("fd00::%d", n))
}

// rules has the node drop what comes in by a link but ICMP of its own needs, and
// tell of it, with a limit below port 9000.
func (w *world) rules(b netfilter.Backend) {
	w.t.Helper()
	var h *netfilter.Handle
	var err error
	w.node.Do(func() { h, err = netfilter.Dial() })
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = h.Close() })
	runner := w.node.Runner(h)
	families := []model.Family{w.family}
	if _, err := netfilter.Usable(w.t.Context(), runner, b, families); err != nil {
		w.t.Skip(err)
	}
	const chain, refuse = "SLUICE-X", "SLUICE-REFUSE"
	rules := map[netfilter.Key]netfilter.Spec{
		netfilter.JumpKey(w.family, netfilter.Filter, netfilter.Input, chain): netfilter.JumpSpec(10),
		netfilter.ChainKey(w.family, netfilter.Filter, chain): netfilter.Chain{
			{ICMP: netfilter.EchoRequest, Do: netfilter.GoTo(refuse)},
			{ICMP: netfilter.AnyICMP, Do: netfilter.Do(netfilter.Return)},
			{NotFrom: "lo", Do: netfilter.GoTo(refuse)},
		}.Spec(w.family),
		netfilter.ChainKey(w.family, netfilter.Filter, refuse): netfilter.Chain{
			{Protocol: model.UDP, Ports: netfilter.PortRange{First: 9000, Last: 9000}, Do: netfilter.LogTo(group, "flood")},
			{Protocol: model.UDP, Ports: netfilter.PortRange{First: 9000, Last: 9000}, Do: netfilter.Do(netfilter.Drop)},
			{Limit: limit, Do: netfilter.LogTo(group, prefix)},
			{Protocol: model.TCP, Do: netfilter.Do(netfilter.Reset)},
			{Do: netfilter.Do(netfilter.Drop)},
		}.Spec(w.family),
	}
	var c reconcile.Change[netfilter.Key, netfilter.Spec]
	for k, s := range rules {
		c.Puts = append(c.Puts, reconcile.Put[netfilter.Key, netfilter.Spec]{Key: k, Spec: s})
	}
	target := netfilter.New(netfilter.Options{Runner: runner, Sets: h, Backend: b, Families: families})
	for _, err := range target.Apply(w.t.Context(), c) {
		w.t.Fatal(err)
	}
}

// wire joins the two by a link that the node calls "uplink".
func (w *world) wire() {
	w.t.Helper()
	thread := make(chan int, 1)
	w.outside.Do(func() { thread <- syscall.Gettid() })
	length := w.addr(1).BitLen() - 8
	nodad := ""
	if w.family == model.IPv6 {
		nodad = "nodad"
	}
	here := fmt.Sprintf(`ip link set lo up; ip link add uplink type veth peer name eth0 netns /proc/%d/ns/net
		ip link set uplink up; ip addr add %s/%d dev uplink %s`, <-thread, w.addr(1), length, nodad)
	there := fmt.Sprintf("ip link set lo up; ip link set eth0 up; ip addr add %s/%d dev eth0 %s", w.addr(2), length, nodad)
	for _, c := range []struct {
		ns     netfiltertest.Namespace
		script string
	}{{w.node, here}, {w.outside, there}} {
		c.ns.Do(func() {
			if out, err := exec.Command("sh", "-exc", c.script).CombinedOutput(); err != nil {
				w.t.Errorf("%v\n%s", err, out)
			}
		})
	}
	if w.t.Failed() {
		w.t.FailNow()
	}
	w.refused(7) // a link just made loses what it is given until it is up
}

func (w *world) listen() (l *nflog.Listener, err error) {
	w.node.Do(func() { l, err = nflog.Listen(group) })
	return l, err
}

// hear runs a Listener until the test ends.
func (w *world) hear() <-chan nflog.Record {
	w.t.Helper()
	l, err := w.listen()
	if err != nil {
		w.t.Fatal(err)
	}
	return w.run(l)
}

func (w *world) run(l *nflog.Listener) <-chan nflog.Record {
	w.t.Helper()
	heard := make(chan nflog.Record, 100000)
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	var done sync.WaitGroup
	done.Go(func() {
		if err := l.Run(ctx, func(r nflog.Record) { heard <- r }); err != nil {
			w.t.Error(err)
		}
	})
	w.t.Cleanup(func() {
		cancel()
		done.Wait()
		if err := l.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return heard
}

// next is the next record.
func (w *world) next(heard <-chan nflog.Record) nflog.Record {
	w.t.Helper()
	select {
	case r := <-heard:
		return r
	case <-time.After(10 * time.Second):
		w.t.Fatal("told of nothing for 10 s")
	}
	return nflog.Record{}
}

// dial is a socket of the outside's to the node.
func (w *world) dial(network string, port uint16) net.Conn {
	w.t.Helper()
	to := netip.AddrPortFrom(w.addr(1), port).String()
	if port == 0 {
		to = w.addr(1).String()
	}
	var c net.Conn
	var err error
	w.outside.Do(func() { c, err = net.Dial(network, to) })
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestLabRecords: what is refused is told of soon, with its two ends and the way
// it came.
func TestLabRecords(t *testing.T) {
	eachWorld(t, func(w *world) {
		t := w.t
		heard := w.hear()
		ip, echo, icmp := "ip4:", "\x08\x00\xf7\xfd\x00\x01\x00\x01", nflog.ICMP
		if w.family == model.IPv6 {
			ip, echo, icmp = "ip6:", "\x80\x00\x00\x00\x00\x01\x00\x01", nflog.ICMPv6
		}
		from := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(w.addr(2), port) }
		to := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(w.addr(1), port) }
		for _, c := range []struct {
			what string
			send func() netip.AddrPort // where from
			want nflog.Record
		}{
			{"UDP", func() netip.AddrPort { return w.datagrams(5353, 1) }, nflog.Record{Dst: to(5353), Protocol: model.UDP}},
			{"TCP", func() netip.AddrPort { return w.refused(80) }, nflog.Record{Dst: to(80), Protocol: model.TCP}},
			{"SCTP", func() netip.AddrPort {
				w.raw(ip+"132", "\x03\xe8\x07\xd0\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x04")
				return from(1000)
			}, nflog.Record{Dst: to(2000), Protocol: model.SCTP}},
			{"echo", func() netip.AddrPort {
				w.raw(fmt.Sprintf("%s%d", ip, icmp), echo)
				return from(0)
			}, nflog.Record{Dst: to(0), Protocol: icmp}},
		} {
			began := time.Now()
			c.want.Src = c.send()
			c.want.Prefix, c.want.In = prefix, "uplink"
			got := w.next(heard)
			took := time.Since(began)
			if got.At.Before(began) || time.Since(got.At) > time.Second {
				t.Errorf("%s: at %s", c.what, got.At)
			}
			got.At = time.Time{}
			if got != c.want {
				t.Errorf("%s: %+v, want %+v", c.what, got, c.want)
			}
			if t.Logf("%s: told of after %v", c.what, took); took > 300*time.Millisecond {
				t.Errorf("%s: told of after %v", c.what, took)
			}
		}
	})
}

// TestLabLimit: one flow does not fill the log, nor keep another's first packet
// out of it.
func TestLabLimit(t *testing.T) {
	eachWorld(t, func(w *world) {
		heard := w.hear()
		began := time.Now()
		w.datagrams(5353, 500)
		w.datagrams(5354, 1)
		count := 0
		for w.next(heard).Dst.Port() != 5354 {
			count++
		}
		most := limit + limit*int(time.Since(began)/time.Second+1)
		if w.t.Logf("%d of 500", count); count < limit || count > most {
			w.t.Errorf("told of %d of 500 datagrams, want %d to %d", count, limit, most)
		}
	})
}

// TestLabLost: a flood that nobody reads costs no more than its records, and it
// is known how many.
func TestLabLost(t *testing.T) {
	eachWorld(t, func(w *world) {
		l, err := w.listen()
		if err != nil {
			w.t.Fatal(err)
		}
		const flood = 20000
		w.datagrams(9000, flood)
		heard := w.run(l)
		// What comes next tells how much is missing. It is lost too as long as
		// the kernel has not seen the queue empty, so there are more of it until
		// one is heard.
		sent, upTo := uint64(flood), map[netip.AddrPort]uint64{}
		pause := time.NewTicker(200 * time.Millisecond)
		defer pause.Stop()
		for got := uint64(0); ; {
			select {
			case r := <-heard:
				if r.Prefix != prefix {
					got++
					continue
				}
				w.t.Logf("heard %d of %d, lost %d", got, flood, l.Lost())
				if got == 0 || got == flood || got+l.Lost() != upTo[r.Src] {
					w.t.Errorf("heard %d and lost %d of %d", got, l.Lost(), upTo[r.Src])
				}
				return
			case <-pause.C:
				upTo[w.datagrams(5353, 1)] = sent
				sent++
			}
		}
	})
}

// TestLabHeld: a group has one listener, and the second is told so.
func TestLabHeld(t *testing.T) {
	eachWorld(t, func(w *world) {
		first, err := w.listen()
		if err != nil {
			w.t.Fatal(err)
		}
		second, err := w.listen()
		if !errors.Is(err, nflog.ErrHeld) {
			w.t.Errorf("a second listener: %v, %v", second, err)
		}
		w.t.Log(err)
		if err := first.Close(); err != nil {
			w.t.Error(err)
		}
		if third, err := w.listen(); err != nil {
			w.t.Errorf("when the first has gone: %v", err)
		} else if err := third.Close(); err != nil {
			w.t.Error(err)
		}
	})
}

// datagrams sends so many from one socket, and says which.
func (w *world) datagrams(port uint16, n int) netip.AddrPort {
	w.t.Helper()
	c := w.dial("udp", port)
	for range n {
		if _, err := c.Write([]byte("hello")); err != nil {
			w.t.Fatal(err)
		}
	}
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// refused dials a port of TCP that is refused, from a port that it says.
func (w *world) refused(port uint16) netip.AddrPort {
	w.t.Helper()
	from := netip.AddrPortFrom(w.addr(2), 40000)
	dialer := net.Dialer{Timeout: 5 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(from)}
	var err error
	w.outside.Do(func() {
		_, err = dialer.DialContext(w.t.Context(), "tcp", netip.AddrPortFrom(w.addr(1), port).String())
	})
	if !errors.Is(err, syscall.ECONNREFUSED) {
		w.t.Errorf("dialled: %v", err)
	}
	return from
}

// raw sends what stands behind an IP header.
func (w *world) raw(network, payload string) {
	w.t.Helper()
	if _, err := w.dial(network, 0).Write([]byte(payload)); err != nil {
		w.t.Fatal(err)
	}
}
