//go:build lab

package semantics

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// words replaces every %s.
func words(text, word string) string { return strings.ReplaceAll(text, "%s", word) }

// held is a TCP connection that is kept.
type held struct {
	name  string
	pod   string // who it is with
	conn  net.Conn
	lines *bufio.Reader
}

// hold opens a connection and keeps it until the test ends.
func (w *world) hold(t *testing.T, from *topo.Host, to netip.AddrPort) *held {
	t.Helper()
	conn, err := from.Dial(t.Context(), topo.TCP, to)
	suite.Must(t, err)
	h := &held{name: fmt.Sprintf("connection of %s to %s", from.Name, to), conn: conn, lines: bufio.NewReader(conn)}
	t.Cleanup(func() {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // so that the kernels forget it soon
		}
		conn.Close()
	})
	h.pod, err = h.next()
	suite.Must(t, err)
	return h
}

func (h *held) next() (string, error) {
	if err := h.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	line, err := h.lines.ReadString('\n')
	if err != nil {
		return "", err
	}
	got, err := topo.ParseAnswer(line)
	return got.Pod, err
}

// alive fails the test unless the connection still carries questions to who it
// was with, and answers.
func (h *held) alive(t *testing.T) {
	t.Helper()
	if _, err := io.WriteString(h.conn, "?\n"); err != nil {
		t.Errorf("%s: %v", h.name, err)
		return
	}
	if got, err := h.next(); err != nil || got != h.pod {
		t.Errorf("%s: answered by %q, %v; want %s", h.name, got, err, h.pod)
	}
}

// load asks again and again, a new connection each time, until it is ended. None
// may fail.
type load struct {
	way
	stop context.CancelFunc
	done chan struct{}

	mu     sync.Mutex
	asked  int
	failed []error
}

func (w *world) load(t *testing.T, c way) *load {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	l := &load{way: c, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		// Leaves the one processor to others now and then.
		pause := time.NewTicker(20 * time.Millisecond)
		defer pause.Stop()
		for ctx.Err() == nil {
			begin := time.Now()
			asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
			got, err := c.ask(asking)
			cancel()
			if err == nil && got.Pod == "" {
				err = fmt.Errorf("nobody")
			}
			l.mu.Lock()
			l.asked++
			if err != nil {
				l.failed = append(l.failed, fmt.Errorf("at %s: %w", begin.Format("15:04:05.000"), err))
			}
			l.mu.Unlock()
			<-pause.C
		}
	}()
	t.Cleanup(func() { l.end(t) })
	return l
}

// end stops the load and reports its failures. Ending again is fine.
func (l *load) end(t *testing.T) {
	t.Helper()
	l.stop()
	<-l.done
	if l.asked == 0 {
		t.Errorf("%v: nothing was asked", l.way)
	}
	for _, err := range l.failed[:min(3, len(l.failed))] {
		t.Errorf("%v: %d of %d failed: %v", l.way, len(l.failed), l.asked, err)
	}
	l.failed = nil
}
