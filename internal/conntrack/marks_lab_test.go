//go:build lab

package conntrack_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice.dev/sluice/internal/conntrack"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/ipvs"
)

// TestLabMarks: the kernel does with marks what the fake does.
func TestLabMarks(t *testing.T) {
	ns := netfiltertest.NewNamespace(t)
	var h *conntrack.KernelHandle
	var err error
	ns.Do(func() { h, err = conntrack.Dial() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	testMarks(t, h, func(c conntrack.Conn) {
		args := fmt.Sprintf("-I -t 300 -m %d -p %s -s %s -d %s --sport %d --dport %d -r %s -q %s --reply-port-src %d --reply-port-dst %d",
			c.Mark, strings.ToLower(c.Protocol.String()), c.Client.Addr(), c.Frontend.Addr(), c.Client.Port(), c.Frontend.Port(),
			c.Backend.Addr(), c.Seen.Addr(), c.Backend.Port(), c.Seen.Port())
		if c.Protocol != model.UDP {
			args += " --state ESTABLISHED"
		}
		if c.Protocol == model.SCTP {
			args += " --orig-vtag 1 --reply-vtag 2"
		}
		ns.Do(func() {
			if out, err := exec.Command("conntrack", strings.Fields(args)...).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", args, err, out)
			}
		})
	})
}

// TestLabRevoke: connections of TCP and UDP, direct, through IPVS and
// masqueraded, of which both ends speak without being asked. What is not allowed
// any more stops in both directions, and goes on when it is allowed again; the
// others never notice.
func TestLabRevoke(t *testing.T) {
	eachFamily(t, func(w *world) {
		w.stop(bit)
		talks := w.talks()
		denied := &atomic.Pointer[string]{}
		denied.Store(new(string))
		revoker := w.review(func(c conntrack.Conn) bool { return c.Client.String() != *denied.Load() })
		for name, talk := range talks {
			w.t.Run(name, func(t *testing.T) {
				client := talk.client.LocalAddr().String()
				talk.flows(w, true)
				denied.Store(&client)
				began := time.Now()
				revoker.Kick()
				w.until("marked", 2*time.Second, func() bool { return w.marked(client) })
				took := time.Since(began)
				talk.flows(w, false)
				for other, o := range talks {
					if other != name {
						o.flows(w, true)
					}
				}
				denied.Store(new(string))
				revoker.Kick()
				w.until("rid of the mark", 2*time.Second, func() bool { return !w.marked(client) })
				talk.flows(w, true)
				t.Logf("marked after %v; %+v", took, revoker.Stats())
			})
		}
	})
}

// TestLabMarkOfRecycled: what the kernel makes of an ID, which is why Marks says
// that an entry made anew is changed too.
func TestLabMarkOfRecycled(t *testing.T) {
	w := newWorld(t, model.IPv4)
	talk := w.talks()["UDP"]
	talk.flows(w, true)
	var is conntrack.Conn
	w.check(w.flows.Conns(t.Context(), func(c conntrack.Conn) {
		if c.Client.String() == talk.client.LocalAddr().String() {
			is = c
		}
	}))
	later := is
	later.ID++
	if err := errors.Join(w.flows.SetMark(t.Context(), []conntrack.Conn{later}, bit, bit)...); err != nil {
		t.Errorf("another ID: %v: the comments on Marks and encodeMark may go", err)
	}
}

// TestLabRelated: FTP's data connection is told from one that was judged.
func TestLabRelated(t *testing.T) {
	w := newWorld(t, model.IPv4)
	w.sh(w.node, "modprobe nf_conntrack_ftp; iptables -t raw -A PREROUTING -p tcp --dport 21 -j CT --helper ftp")
	control, data := netip.AddrPortFrom(w.oneAddr().Addr(), 21), netip.AddrPortFrom(w.oneAddr().Addr(), 27<<8|16)
	accepted, announced := make(chan net.Conn, 1), make(chan net.Conn, 1)
	w.accept("tcp", control, accepted)
	w.accept("tcp", data, announced)
	dial := func(to netip.AddrPort) (c net.Conn) {
		var err error
		w.client.Do(func() { c, err = net.DialTimeout("tcp", to.String(), 5*time.Second) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	client := dial(control)
	server := <-accepted
	t.Cleanup(func() { _ = server.Close() })
	for _, say := range []struct {
		from, to net.Conn
		line     string
	}{
		{server, client, "220 hello\r\n"}, {client, server, "PASV\r\n"}, {server, client, "227 Entering Passive Mode (10,0,2,2,27,16)\r\n"},
	} {
		_, err := say.from.Write([]byte(say.line))
		w.check(err)
		_, err = io.ReadFull(say.to, make([]byte, len(say.line)))
		w.check(err)
	}
	dial(data)
	_ = (<-announced).Close()
	related := map[netip.AddrPort]bool{}
	w.check(w.flows.Conns(t.Context(), func(c conntrack.Conn) { related[c.Frontend] = c.Related }))
	if r, seen := related[control]; r || !seen {
		t.Errorf("the control connection: %v, %v", r, seen)
	}
	if !related[data] {
		t.Errorf("the data connection is not related: %v", related)
	}
}

// BenchmarkLabReview reads a table, and changes the marks of some of it.
func BenchmarkLabReview(b *testing.B) {
	const entries, changed = 50_000, 1000
	h := filled(b, entries, entries/2)
	for b.Loop() {
		var conns []conntrack.Conn
		if err := h.Conns(b.Context(), func(c conntrack.Conn) { conns = append(conns, c) }); err != nil {
			b.Fatal(err)
		}
		if len(conns) != entries {
			b.Fatalf("read %d, want %d", len(conns), entries)
		}
		if err := errors.Join(h.SetMark(b.Context(), conns[:changed], bit, bit)...); err != nil {
			b.Fatal(err)
		}
	}
}

// marked reports whether the client's connection has the bit.
func (w *world) marked(client string) bool {
	family := "ipv4"
	if w.family == model.IPv6 {
		family = "ipv6"
	}
	from := netip.MustParseAddrPort(client)
	var out []byte
	w.node.Do(func() {
		out, _ = exec.Command("conntrack", "-L", "-f", family, "-s", from.Addr().String(), "-m", fmt.Sprintf("%d/%d", bit, bit)).Output()
	})
	return strings.Contains(string(out), fmt.Sprintf("sport=%d ", from.Port()))
}

// stop writes the rule that drops both directions of what has the bit. (What
// policies use rejects, and then a connection of TCP is over.)
func (w *world) stop(bit uint32) {
	w.t.Helper()
	var h *netfilter.Handle
	var err error
	w.node.Do(func() { h, err = netfilter.Dial() })
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = h.Close() })
	target := netfilter.New(netfilter.Options{Runner: w.node.Runner(h), Sets: h, Families: []model.Family{w.family}})
	const chain = "SLUICE-NP-REVOKED"
	rule := netfilter.Rule{ConnMark: netfilter.HasMark{Value: bit, Mask: bit}, Do: netfilter.Do(netfilter.Drop)}
	put := func(k netfilter.Key, s netfilter.Spec) reconcile.Put[netfilter.Key, netfilter.Spec] {
		return reconcile.Put[netfilter.Key, netfilter.Spec]{Key: k, Spec: s}
	}
	change := reconcile.Change[netfilter.Key, netfilter.Spec]{Puts: []reconcile.Put[netfilter.Key, netfilter.Spec]{
		put(netfilter.ChainKey(w.family, netfilter.Filter, chain), netfilter.Chain{rule}.Spec(w.family))}}
	for _, hook := range []netfilter.Hook{netfilter.Input, netfilter.Forward, netfilter.Output} {
		change.Puts = append(change.Puts, put(netfilter.JumpKey(w.family, netfilter.Filter, hook, chain), netfilter.JumpSpec(50)))
	}
	for _, err := range target.Apply(w.t.Context(), change) {
		w.t.Fatal(err)
	}
}

// review runs a Revoker until the test ends.
func (w *world) review(allowed func(conntrack.Conn) bool) *conntrack.Revoker {
	r := conntrack.NewRevoker(conntrack.RevokerOptions{Marks: w.flows, Bit: bit, Allowed: allowed})
	var done sync.WaitGroup
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done.Go(func() { r.Run(ctx) })
	w.t.Cleanup(func() {
		cancel()
		done.Wait()
	})
	return r
}

// talk is a connection whose ends send something every 10 ms, and count what
// comes.
type talk struct {
	client, server net.Conn
	heard          [2]atomic.Uint64 // by the client, by the server
}

// talks are one connection of each kind.
func (w *world) talks() map[string]*talk {
	w.t.Helper()
	all := map[string]*talk{}
	w.sh(w.node, w.iptables()+" -t nat -I POSTROUTING 1 -p tcp --dport 7001 -j RETURN") // one that is not masqueraded
	for i, c := range []struct {
		name, network string
		port          uint16
		vip           bool
	}{
		{"TCP", "tcp", 7001, false}, {"TCP masqueraded", "tcp", 7002, false}, {"TCP through IPVS", "tcp", 7003, true},
		{"UDP", "udp", 7004, false}, {"UDP through IPVS", "udp", 7005, true},
	} {
		server := netip.AddrPortFrom(w.oneAddr().Addr(), c.port)
		to := server
		if c.vip {
			to = w.vip(c.port)
			w.virtual(c.network, to, server)
		}
		all[c.name] = w.talk(c.network, w.from(6000+uint16(i)), to, server)
	}
	return all
}

// virtual makes a virtual server with one destination.
func (w *world) virtual(network string, vip, server netip.AddrPort) {
	w.t.Helper()
	p := model.TCP
	if network == "udp" {
		p = model.UDP
	}
	for k, spec := range w.serving(vip, server).Put {
		k.Protocol = p
		if k.RealServer.IsValid() {
			defer w.write(k, spec) // behind its virtual server
			continue
		}
		w.write(k, spec)
	}
}

func (w *world) write(k ipvs.Key, spec ipvs.Spec) {
	w.t.Helper()
	w.check(w.servers.Write(w.t.Context(), []ipvs.Command{{Op: ipvs.Create, Key: k, Spec: spec}})[0])
}

// talk connects a client to a server's address, or to one that leads there.
func (w *world) talk(network string, from, to, server netip.AddrPort) *talk {
	w.t.Helper()
	t := &talk{}
	accepted := make(chan net.Conn, 1)
	w.accept(network, server, accepted)
	dialer := net.Dialer{Timeout: 5 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(from)}
	if network == "udp" {
		dialer.LocalAddr = net.UDPAddrFromAddrPort(from)
	}
	var err error
	w.client.Do(func() { t.client, err = dialer.DialContext(w.t.Context(), network, to.String()) })
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = t.client.Close() })
	_, err = t.client.Write([]byte("hello"))
	w.check(err)
	t.server = <-accepted
	w.t.Cleanup(func() { _ = t.server.Close() })
	for i, c := range []net.Conn{t.client, t.server} {
		go count(c, &t.heard[i])
		go speak(c)
	}
	return t
}

// accept gives the first connection of a server, once it has spoken.
func (w *world) accept(network string, at netip.AddrPort, accepted chan<- net.Conn) {
	w.t.Helper()
	if network == "udp" {
		conn := w.listen(w.one, at)
		go func() {
			_, from, _ := conn.ReadFromUDPAddrPort(make([]byte, 64))
			accepted <- answering{conn, from}
		}()
		return
	}
	var l net.Listener
	var err error
	w.one.Do(func() { l, err = net.Listen(network, at.String()) })
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = l.Close() })
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
}

// answering is a UDP socket that writes to one peer.
type answering struct {
	*net.UDPConn
	to netip.AddrPort
}

func (a answering) Write(b []byte) (int, error) { return a.WriteToUDPAddrPort(b, a.to) }

func count(r io.Reader, heard *atomic.Uint64) {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		heard.Add(uint64(n))
		if err != nil && n == 0 && errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

func speak(w io.Writer) {
	for {
		if _, err := w.Write([]byte(".")); errors.Is(err, net.ErrClosed) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// flows waits until both ends hear each other, or checks that neither does.
func (t *talk) flows(w *world, want bool) {
	w.t.Helper()
	grows := func(atMost time.Duration) [2]bool {
		was := [2]uint64{t.heard[0].Load(), t.heard[1].Load()}
		var did [2]bool
		for began := time.Now(); time.Since(began) < atMost && did != [2]bool{true, true}; time.Sleep(time.Millisecond) {
			for i := range did {
				did[i] = t.heard[i].Load() > was[i]
			}
		}
		return did
	}
	if want {
		if got := grows(10 * time.Second); got != [2]bool{true, true} {
			w.t.Errorf("heard by client and server: %v", got)
		}
		return
	}
	grows(20 * time.Millisecond) // what was under way
	if got := grows(500 * time.Millisecond); got != [2]bool{false, false} {
		w.t.Errorf("still heard by client and server: %v", got)
	}
}
