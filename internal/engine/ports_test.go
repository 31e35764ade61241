package engine_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// ports are the ports of the node that health checks listen on, without
// sockets: virtual time stands still while a socket is waited for.
type ports struct {
	mu   sync.Mutex
	open map[netip.AddrPort]*port
}

// port is a listener whose clients are in this process.
type port struct {
	ports *ports
	at    netip.AddrPort
	dials chan net.Conn
	done  chan struct{}
	close func()
}

// listen is a healthcheck.Options.Listen.
func (w *world) listen(_ context.Context, at netip.AddrPort) (net.Listener, error) {
	var err error
	w.locked(func() { err = w.asked(op{"health", "listen", at.String()}) })
	if err != nil {
		return nil, err
	}
	w.ports.mu.Lock()
	defer w.ports.mu.Unlock()
	if w.ports.open[at] != nil {
		return nil, syscall.EADDRINUSE
	}
	p := &port{ports: &w.ports, at: at, dials: make(chan net.Conn), done: make(chan struct{})}
	p.close = sync.OnceFunc(func() { close(p.done) })
	if w.ports.open == nil {
		w.ports.open = map[netip.AddrPort]*port{}
	}
	w.ports.open[at] = p
	return p, nil
}

// Accept implements net.Listener.
func (p *port) Accept() (net.Conn, error) {
	select {
	case c := <-p.dials:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *port) Close() error {
	p.ports.mu.Lock()
	defer p.ports.mu.Unlock()
	if p.ports.open[p.at] == p {
		delete(p.ports.open, p.at)
	}
	p.close()
	return nil
}

// Addr implements net.Listener.
func (p *port) Addr() net.Addr { return net.TCPAddrFromAddrPort(p.at) }

// health is what every health check answers, one line each:
//
//	192.0.2.10:32000 200 default/web 2
func (w *world) health() string {
	w.ports.mu.Lock()
	open := make([]*port, 0, len(w.ports.open))
	for _, p := range w.ports.open {
		open = append(open, p)
	}
	w.ports.mu.Unlock()
	slices.SortFunc(open, func(a, b *port) int { return a.at.Compare(b.at) })
	var b strings.Builder
	for _, p := range open {
		mine, its := net.Pipe()
		p.dials <- its
		b.WriteString(p.at.String() + " " + probe(mine) + "\n")
	}
	return b.String()
}

// probe asks a health check over a connection: "200 default/web 2".
func probe(c net.Conn) string {
	defer c.Close()
	if _, err := c.Write([]byte("GET /healthz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")); err != nil {
		return err.Error()
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	var body struct {
		Service        struct{ Namespace, Name string }
		LocalEndpoints int
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s/%s %d", resp.StatusCode, body.Service.Namespace, body.Service.Name, body.LocalEndpoints)
}
