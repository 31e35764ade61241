package topo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Pushers talk without being asked: to everybody who has connected (TCP), or
// has ever sent something (UDP), they send a word again and again, whatever
// becomes of it. So what an isolated pod is still told can be seen.
type Pushers struct {
	every time.Duration

	mu   sync.Mutex
	from map[netip.AddrPort]*Pulse // what they got, by who sent it
}

// Pulse is what came in one direction of a Stream.
type Pulse struct {
	mu     sync.Mutex
	last   time.Time
	gap    time.Duration
	gapEnd time.Time
	count  int
	no     int
	err    error
}

func (p *Pulse) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if gap := now.Sub(p.last); p.count > 0 && gap > p.gap {
		p.gap, p.gapEnd = gap, now
	}
	p.last = now
	p.count++
}

func (p *Pulse) refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.no++
}

// Refused is how often a word of UDP was refused; TCP ends then.
func (p *Pulse) Refused() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.no
}

// end says why nothing comes any more; the first reason counts.
func (p *Pulse) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
}

// Last is when something came, Count how often.
func (p *Pulse) Last() (at time.Time, count int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last, p.count
}

// Gap is the longest time without anything between two beats, and when it
// ended; the time since the last beat counts as one.
func (p *Pulse) Gap() (longest time.Duration, end time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if since := time.Since(p.last); p.count > 0 && since > p.gap {
		return since, time.Now()
	}
	return p.gap, p.gapEnd
}

// Err is why nothing comes any more; nil: it may.
func (p *Pulse) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// ServePush has the host push on a port of TCP or UDP until the topology
// closes.
func (h *Host) ServePush(protocol string, port uint16, every time.Duration) (*Pushers, error) {
	p := &Pushers{every: every, from: map[netip.AddrPort]*Pulse{}}
	err := h.Do(func() error {
		var lc net.ListenConfig
		at := fmt.Sprintf(":%d", port)
		if protocol == TCP {
			l, err := lc.Listen(context.Background(), TCP, at)
			if err == nil {
				h.onClose(l.Close)
				go p.accept(l)
			}
			return err
		}
		conn, err := lc.ListenPacket(context.Background(), UDP, at)
		if err == nil {
			h.onClose(conn.Close)
			go p.listen(conn)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("topo: push %s on port %d of %q: %w", protocol, port, h.Name, err)
	}
	return p, nil
}

// pulse is that of a client.
func (p *Pushers) pulse(client netip.AddrPort) *Pulse {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.from[client] == nil {
		p.from[client] = &Pulse{}
	}
	return p.from[client]
}

func (p *Pushers) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // of the one connection, which is gone
		}
		got := p.pulse(addrPort(conn.RemoteAddr()))
		go func() {
			defer conn.Close()
			receive(conn, got)
		}()
		go push(conn, p.every, got)
	}
}

// quiet is how long a client of UDP is told things without being heard of.
const quiet = 20 * time.Second

func (p *Pushers) listen(conn net.PacketConn) {
	told := map[netip.AddrPort]time.Time{} // until when at least
	buf := make([]byte, 256)
	for {
		_, from, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error for an earlier word
		}
		client := addrPort(from)
		p.pulse(client).beat()
		// Who is heard of after that is told again.
		if now := time.Now(); told[client].Before(now) {
			told[client] = now.Add(quiet)
			go p.tell(conn, from, told[client])
		}
	}
}

// tell sends to a client of UDP until some time.
func (p *Pushers) tell(conn net.PacketConn, to net.Addr, until time.Time) {
	for time.Now().Before(until) {
		if _, err := conn.WriteTo([]byte("!\n"), to); errors.Is(err, net.ErrClosed) {
			return
		}
		time.Sleep(p.every)
	}
}

// push sends until that fails for good; the other side is told of it in got.
func push(conn net.Conn, every time.Duration, got *Pulse) {
	for {
		// UDP hears here that an earlier word was refused, and goes on.
		if _, err := conn.Write([]byte("!\n")); err != nil && (conn.RemoteAddr().Network() == TCP || errors.Is(err, net.ErrClosed)) {
			got.end(err)
			return
		}
		time.Sleep(every)
	}
}

func receive(conn net.Conn, got *Pulse) {
	buf := make([]byte, 256)
	for {
		_, err := conn.Read(buf)
		switch {
		case err == nil:
			got.beat()
		case conn.RemoteAddr().Network() == TCP, errors.Is(err, net.ErrClosed):
			got.end(err)
			return
		default:
			got.refuse()
		}
	}
}

// Stream is a connection on which both ends talk all the time.
type Stream struct {
	Name             string
	AtServer, AtHost *Pulse // what came at the server and at the host that opened it
	conn             net.Conn
}

// OpenStream opens a connection to a server of Pushers and talks on it. It
// returns when something has come at both ends. Close it.
func (h *Host) OpenStream(ctx context.Context, protocol string, to netip.AddrPort, server *Pushers) (*Stream, error) {
	conn, err := h.Dial(ctx, protocol, to)
	if err != nil {
		return nil, err
	}
	s := &Stream{
		Name: fmt.Sprintf("%s stream %s > %s", protocol, h.Name, to), conn: conn,
		AtServer: server.pulse(addrPort(conn.LocalAddr())), AtHost: &Pulse{},
	}
	go receive(conn, s.AtHost)
	go push(conn, server.every, s.AtHost)
	err = Eventually(ctx, func() error {
		_, here := s.AtHost.Last()
		_, there := s.AtServer.Last()
		if here == 0 || there == 0 {
			return fmt.Errorf("%s: %d words here, %d at the server", s.Name, here, there)
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close ends the stream without farewell.
func (s *Stream) Close() error {
	if tcp, ok := s.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // the kernels forget it sooner
	}
	return s.conn.Close()
}
