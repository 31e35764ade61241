package topo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// Protocols that hosts serve and ask in.
const (
	TCP  = "tcp"
	UDP  = "udp"
	SCTP = "sctp"
	HTTP = "http"
)

// Serve answers on a port, on all addresses of the host in both families, until
// the returned function is called or the topology closes. The answer is one
// line: `pod=NAME client=ADDRESS:PORT`, as the server sees it. Over TCP and SCTP
// it comes at once, and again for every line the client sends; over UDP for
// every datagram; over HTTP for every request, whatever its path.
//
// Ending a server closes its connections.
func (h *Host) Serve(protocol string, port uint16) (stop func() error, err error) {
	var s service
	err = h.Do(func() error {
		s, err = h.listen(protocol, port)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("topo: serve %s port %d on %q: %w", protocol, port, h.Name, err)
	}
	stop = sync.OnceValue(s.close)
	go s.serve()
	h.onClose(stop)
	return stop, nil
}

// ServePolitely is Serve for HTTP with an end as real servers have it when they
// are told to stop: the returned function takes no more connections, closes
// those without a request, lets the others end, and waits for them. They go
// hard when the topology closes.
func (h *Host) ServePolitely(port uint16) (stop func(context.Context) error, err error) {
	var l net.Listener
	err = h.Do(func() error {
		l, err = listenStream(TCP, port)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("topo: serve http port %d on %q: %w", port, h.Name, err)
	}
	s := &http.Server{Handler: httpAnswer(h.Name), ReadHeaderTimeout: time.Minute}
	go func() { _ = s.Serve(l) }()
	h.onClose(s.Close)
	return s.Shutdown, nil
}

// service is a server whose sockets are open.
type service struct {
	serve func()
	close func() error
}

func (h *Host) listen(protocol string, port uint16) (service, error) {
	switch protocol {
	case TCP, SCTP:
		l, err := listenStream(protocol, port)
		if err != nil {
			return service{}, err
		}
		s := &streamServer{name: h.Name, listener: l, conns: map[net.Conn]bool{}}
		return service{s.serve, s.close}, nil
	case HTTP:
		l, err := listenStream(TCP, port)
		if err != nil {
			return service{}, err
		}
		s := &http.Server{Handler: httpAnswer(h.Name), ReadHeaderTimeout: time.Minute}
		return service{func() { _ = s.Serve(l) }, s.Close}, nil
	case UDP:
		return listenUDP(h.Name, port)
	}
	return service{}, fmt.Errorf("unknown protocol %q", protocol)
}

func listenStream(protocol string, port uint16) (net.Listener, error) {
	if protocol == SCTP {
		return listenSCTP(port)
	}
	var lc net.ListenConfig
	return lc.Listen(context.Background(), "tcp", fmt.Sprintf(":%d", port))
}

// answer is the line every server sends.
func answer(name string, client net.Addr) string {
	return fmt.Sprintf("pod=%s client=%s\n", name, addrPort(client))
}

// addrPort takes a socket's address; an IPv4 client of a dual-stack socket is
// an IPv4 client.
func addrPort(addr net.Addr) netip.AddrPort {
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

func httpAnswer(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		client, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = io.WriteString(w, answer(name, net.TCPAddrFromAddrPort(client)))
	}
}

// streamServer serves connections of TCP and SCTP.
type streamServer struct {
	name     string
	listener net.Listener

	mu    sync.Mutex
	conns map[net.Conn]bool // guarded by mu
}

func (s *streamServer) serve() {
	for {
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // of the one connection, which is gone
		}
		s.mu.Lock()
		s.conns[conn] = true
		s.mu.Unlock()
		go s.talk(conn)
	}
}

func (s *streamServer) talk(conn net.Conn) {
	defer func() {
		conn.Close()
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	line := answer(s.name, conn.RemoteAddr())
	lines := bufio.NewScanner(conn)
	for {
		if _, err := io.WriteString(conn, line); err != nil {
			return
		}
		if !lines.Scan() {
			return
		}
	}
}

func (s *streamServer) close() error {
	err := s.listener.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		conn.Close()
	}
	return err
}

// listenUDP opens a socket per family. A datagram is answered from the address
// it was sent to, which on a node is not always the one routing would choose.
func listenUDP(name string, port uint16) (service, error) {
	var lc net.ListenConfig
	four, err := lc.ListenPacket(context.Background(), "udp4", fmt.Sprintf("0.0.0.0:%d", port))
	if err != nil {
		return service{}, err
	}
	six, err := lc.ListenPacket(context.Background(), "udp6", fmt.Sprintf("[::]:%d", port))
	if err != nil {
		return service{}, errors.Join(err, four.Close())
	}
	p4, p6 := ipv4.NewPacketConn(four), ipv6.NewPacketConn(six)
	if err := errors.Join(p4.SetControlMessage(ipv4.FlagDst, true), p6.SetControlMessage(ipv6.FlagDst, true)); err != nil {
		return service{}, errors.Join(err, four.Close(), six.Close())
	}
	return service{
		serve: func() {
			go answer6(name, p6)
			answer4(name, p4)
		},
		close: func() error { return errors.Join(four.Close(), six.Close()) },
	}, nil
}

func answer4(name string, conn *ipv4.PacketConn) {
	buf := make([]byte, 2048)
	for {
		_, cm, client, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || cm == nil {
			continue // an ICMP error for an earlier answer
		}
		_, _ = conn.WriteTo([]byte(answer(name, client)), &ipv4.ControlMessage{Src: cm.Dst}, client)
	}
}

func answer6(name string, conn *ipv6.PacketConn) {
	buf := make([]byte, 2048)
	for {
		_, cm, client, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || cm == nil {
			continue
		}
		_, _ = conn.WriteTo([]byte(answer(name, client)), &ipv6.ControlMessage{Src: cm.Dst}, client)
	}
}
