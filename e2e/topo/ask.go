package topo

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// askTimeout bounds a question whose context has no deadline.
const askTimeout = 3 * time.Second

// Answer is what a server said, see Host.Serve.
type Answer struct {
	Pod    string         // the name of the host that answered
	Client netip.AddrPort // who it was asked by, as it saw it
}

func (a Answer) String() string { return fmt.Sprintf("pod=%s client=%s", a.Pod, a.Client) }

// ParseAnswer reads a server's line.
func ParseAnswer(line string) (Answer, error) {
	var a Answer
	pod, client, ok := strings.Cut(strings.TrimSpace(line), " client=")
	name, named := strings.CutPrefix(pod, "pod=")
	if !ok || !named {
		return a, fmt.Errorf("topo: %q is not an answer", line)
	}
	var err error
	if a.Client, err = netip.ParseAddrPort(client); err != nil {
		return a, fmt.Errorf("topo: %q is not an answer: %w", line, err)
	}
	a.Pod = name
	return a, nil
}

// Ask opens a connection from this host, of a protocol of Serve's, and returns
// the answer.
func (h *Host) Ask(ctx context.Context, protocol string, to netip.AddrPort) (Answer, error) {
	return h.AskFrom(ctx, protocol, netip.AddrPort{}, to)
}

// AskFrom is Ask with a source address and port; a zero one is left to the
// kernel.
func (h *Host) AskFrom(ctx context.Context, protocol string, from, to netip.AddrPort) (Answer, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	network := protocol
	if protocol == HTTP {
		network = TCP
	}
	conn, err := h.DialFrom(ctx, network, from, to)
	if err != nil {
		return Answer{}, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return Answer{}, fmt.Errorf("topo: ask %s %v from %q: %w", protocol, to, h.Name, err)
	}
	line, err := converse(protocol, conn)
	if err != nil {
		return Answer{}, fmt.Errorf("topo: ask %s %v from %q: %w", protocol, to, h.Name, err)
	}
	return ParseAnswer(line)
}

// converse gets one answer over a new connection.
func converse(protocol string, conn net.Conn) (string, error) {
	if protocol == UDP {
		if _, err := conn.Write([]byte("?\n")); err != nil {
			return "", err
		}
	}
	if protocol != HTTP {
		return bufio.NewReader(conn).ReadString('\n')
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: topo\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %s: %s", resp.Status, body)
	}
	return string(body), nil
}

// Dial opens a connection from this host over TCP, UDP or SCTP. It is the
// caller's to close.
func (h *Host) Dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	return h.DialFrom(ctx, network, netip.AddrPort{}, to)
}

// DialFrom is Dial with a source address and port, either of which may be zero.
func (h *Host) DialFrom(ctx context.Context, network string, from, to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := withDeadline(ctx)
	defer cancel()
	if !from.Addr().IsValid() {
		from = netip.AddrPortFrom(unspecified(to.Addr()), from.Port())
	}
	var conn net.Conn
	err := h.Do(func() (err error) {
		switch network {
		case TCP:
			d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from)}
			conn, err = d.DialContext(ctx, network, to.String())
		case UDP:
			d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(from)}
			conn, err = d.DialContext(ctx, network, to.String())
		case SCTP:
			conn, err = dialSCTP(ctx, from, to)
		default:
			err = fmt.Errorf("unknown network %q", network)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("topo: dial %s %v from %q: %w", network, to, h.Name, err)
	}
	return conn, nil
}

// HTTPClient makes requests from this host, each over a connection of its own.
func (h *Host) HTTPClient() *http.Client {
	return &http.Client{
		Timeout: askTimeout,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
				to, err := netip.ParseAddrPort(addr)
				if err != nil {
					return nil, fmt.Errorf("topo: there is no DNS: %w", err)
				}
				return h.Dial(ctx, TCP, to)
			},
		},
	}
}

func withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, askTimeout)
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// Eventually calls f until it returns nil, and returns its last error when ctx
// ends first. It is for what a program elsewhere is about to bring about.
func Eventually(ctx context.Context, f func() error) error {
	for {
		begin := time.Now()
		err := f()
		if err == nil {
			return nil
		}
		// There may be one processor: who looks all the time keeps others from
		// working.
		pause := max(50*time.Millisecond, time.Since(begin))
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(pause):
		}
	}
}
