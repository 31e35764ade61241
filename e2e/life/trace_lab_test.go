//go:build lab

package life

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice/e2e/topo"
)

// capture has sockets on hosts that see every packet, on its way in and out of
// every interface.
type capture struct {
	hosts []*topo.Host
	fds   []int
}

// listen starts a capture. The router's ports of the nodes' segment are left out:
// there packets pass from node to node that are not the router's.
func (w *world) listen() (*capture, error) {
	c := &capture{}
	for _, h := range w.hosts {
		err := h.Do(func() error {
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(networkOrder(unix.ETH_P_ALL)))
			if err != nil {
				return err
			}
			c.hosts, c.fds = append(c.hosts, h), append(c.fds, fd)
			return errors.Join(
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20),
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
			)
		})
		if err != nil {
			c.close()
			return nil, fmt.Errorf("capture on %s: %w", h.Name, err)
		}
	}
	return c, nil
}

func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

func (c *capture) close() {
	for _, fd := range c.fds {
		_ = unix.Close(fd) // it was only for this
	}
}

// take returns what was seen so far, in the order of time.
func (c *capture) take() ([]sighting, error) {
	var all []sighting
	for i, fd := range c.fds {
		names, err := interfaces(c.hosts[i])
		if err != nil {
			return nil, err
		}
		for {
			s, ok, err := receive(fd)
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("capture on %s: %w", c.hosts[i].Name, err)
			}
			s.Host, s.Device = c.hosts[i].Name, names[s.index]
			routed := s.Host != "router" || s.Device == "segment" || s.Device == "client"
			if ok && s.Device != "lo" && routed {
				all = append(all, s)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b sighting) int { return a.At.Compare(b.At) })
	return all, nil
}

func interfaces(h *topo.Host) (map[int]string, error) {
	names := map[int]string{}
	return names, h.Do(func() error {
		all, err := net.Interfaces()
		for _, i := range all {
			names[i.Index] = i.Name
		}
		return err
	})
}

// receive reads one packet; ok says whether it is one of those that are followed.
func receive(fd int) (s sighting, ok bool, err error) {
	buf, control := make([]byte, 2048), make([]byte, 256)
	n, nc, _, from, err := unix.Recvmsg(fd, buf, control, 0)
	if err != nil {
		return s, false, err
	}
	link, is := from.(*unix.SockaddrLinklayer)
	if !is {
		return s, false, nil
	}
	s.index, s.Out = link.Ifindex, link.Pkttype == unix.PACKET_OUTGOING
	messages, err := unix.ParseSocketControlMessage(control[:nc])
	if err != nil {
		return s, false, err
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
			s.At = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	if link.Protocol != networkOrder(unix.ETH_P_IP) {
		return s, false, nil
	}
	s.packet, ok = dissect(buf[:n])
	return s, ok, nil
}

// trace asks an address over TCP from a host, and returns the way of the
// connection's first packet and of what came back for it. With a name it asks
// until a host of that name was on the way.
func (w *world) trace(from *topo.Host, source netip.Addr, to netip.AddrPort, by string) (trip, error) {
	const tries = 40
	for range tries {
		t, err := w.traceOnce(from, source, to)
		if err != nil {
			return trip{}, err
		}
		if by == "" || t.passes(by) {
			return t, nil
		}
	}
	return trip{}, fmt.Errorf("none of %d connections from %s to %v came by %s", tries, from.Name, to, by)
}

func (w *world) traceOnce(from *topo.Host, source netip.Addr, to netip.AddrPort) (trip, error) {
	c, err := w.listen()
	if err != nil {
		return trip{}, err
	}
	defer c.close()
	answer, failed := w.askBriefly(from, source, to)
	seen, err := c.take()
	if err != nil {
		return trip{}, err
	}
	t, err := follow(from.Name, seen)
	if err != nil {
		return trip{}, fmt.Errorf("%s -> %v (%v, %v): %w", from.Name, to, answer, failed, err)
	}
	return t, nil
}
