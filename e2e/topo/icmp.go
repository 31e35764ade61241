package topo

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// The ICMP and ICMPv6 messages that matter here.
const (
	echoRequest4, echoReply4            = 8, 0
	echoRequest6, echoReply6            = 128, 129
	unreachable4, portUnreachable4      = 3, 3
	unreachable6, portUnreachable6      = 1, 4
	exceeded4, exceeded6                = 11, 3
	icmpHeader                          = 8
	destination4, destination6          = 16, 24 // offsets in the IP header of what was refused
	protocolSCTP4, protocolSCTP6        = 9, 6
	headerLength6                       = 40
	sctpNumber                     byte = 132
)

// Ping sends one echo request and waits two seconds for the answer.
func (h *Host) Ping(to netip.Addr) error {
	conn, err := h.icmp(to)
	if err != nil {
		return err
	}
	defer conn.Close()
	request, reply := byte(echoRequest4), byte(echoReply4)
	if to.Is6() {
		request, reply = echoRequest6, echoReply6
	}
	// The first word and its complement make the checksum; the kernel fills in
	// that of ICMPv6.
	if _, err := conn.WriteToIP([]byte{request, 0, ^request, 0xff, 0, 0, 0, 0}, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return fmt.Errorf("topo: ping %s from %q: %w", to, h.Name, err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return fmt.Errorf("topo: ping %s from %q: %w", to, h.Name, err)
	}
	buf := make([]byte, 256)
	for {
		n, who, err := conn.ReadFromIP(buf) // without the IPv4 header
		if err != nil {
			return fmt.Errorf("topo: ping %s from %q: %w", to, h.Name, err)
		}
		from, _ := netip.AddrFromSlice(who.IP)
		if n > 0 && buf[0] == reply && from.Unmap() == to {
			return nil
		}
	}
}

// icmp opens a raw socket that hears all ICMP of the address's family.
func (h *Host) icmp(like netip.Addr) (*net.IPConn, error) {
	network := "ip4:icmp"
	if like.Is6() {
		network = "ip6:ipv6-icmp"
	}
	var conn *net.IPConn
	err := h.Do(func() (err error) {
		conn, err = net.ListenIP(network, &net.IPAddr{IP: unspecified(like).AsSlice()})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("topo: open %s socket on %q: %w", network, h.Name, err)
	}
	return conn, nil
}

// RefusesSCTP sends the first packet of an SCTP connection and reports whether
// "port unreachable" came back before ctx ended. A socket of SCTP keeps that to
// itself and tries on. It is an error when somebody answers.
func (h *Host) RefusesSCTP(ctx context.Context, to netip.AddrPort) (bool, error) {
	hears, err := h.icmp(to.Addr())
	if err != nil {
		return false, err
	}
	defer hears.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	refused := make(chan bool, 1)
	go func() { refused <- hearRefusal(hears, to) }()
	answered := make(chan Answer, 1)
	go func() {
		if got, err := h.Ask(ctx, SCTP, to); err == nil {
			answered <- got
		}
	}()
	select {
	case yes := <-refused:
		return yes, nil
	case got := <-answered:
		return false, fmt.Errorf("topo: SCTP %s from %q: %v", to, h.Name, got)
	case <-ctx.Done():
		return false, nil
	}
}

// hearRefusal waits for the word that a packet of SCTP to this destination
// found nobody, until the socket is closed.
func hearRefusal(conn *net.IPConn, to netip.AddrPort) bool {
	buf := make([]byte, 2048)
	for {
		n, _, err := conn.ReadFromIP(buf)
		if err != nil {
			return false
		}
		if tellsOf(buf[:n], to) {
			return true
		}
	}
}

// tellsOf reports whether an ICMP message is "port unreachable" about a packet
// of SCTP to this destination.
func tellsOf(message []byte, to netip.AddrPort) bool {
	_, at, ok := refusedSCTP(message, to.Addr().Is6())
	return ok && at == to
}

// refusedSCTP takes from an ICMP message, of which family is said, where the
// packet of SCTP was from and to that it calls refused. ok: it is such a
// message.
func refusedSCTP(message []byte, six bool) (from uint16, to netip.AddrPort, ok bool) {
	kind, code, dest, size, proto := byte(unreachable4), byte(portUnreachable4), destination4, 4, protocolSCTP4
	if six {
		kind, code, dest, size, proto = unreachable6, portUnreachable6, destination6, 16, protocolSCTP6
	}
	if len(message) < icmpHeader+headerLength6 || message[0] != kind || message[1] != code {
		return 0, to, false
	}
	packet := message[icmpHeader:]
	header := headerLength6
	if !six {
		header = int(packet[0]&0xf) * 4
	}
	if len(packet) < header+4 || packet[proto] != sctpNumber {
		return 0, to, false
	}
	addr, _ := netip.AddrFromSlice(packet[dest : dest+size])
	port := func(at int) uint16 { return uint16(packet[at])<<8 | uint16(packet[at+1]) }
	return port(header), netip.AddrPortFrom(addr, port(header+2)), true
}

// What may come back for a packet that nobody need answer.
const (
	Answered    = "answered"
	Unreachable = "unreachable"
	Looped      = "time exceeded"
	Silence     = "silence"
)

// Fate sends an echo request and says what came back for it before ctx ended.
func (h *Host) Fate(ctx context.Context, to netip.Addr) (string, error) {
	conn, err := h.icmp(to)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		err = conn.SetReadDeadline(deadline)
	}
	if err != nil {
		return "", fmt.Errorf("topo: ping %s from %q: %w", to, h.Name, err)
	}
	kinds := map[byte]string{echoReply4: Answered, unreachable4: Unreachable, exceeded4: Looped}
	request := byte(echoRequest4)
	if to.Is6() {
		kinds = map[byte]string{echoReply6: Answered, unreachable6: Unreachable, exceeded6: Looped}
		request = echoRequest6
	}
	if _, err := conn.WriteToIP([]byte{request, 0, ^request, 0xff, 0, 0, 0, 0}, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return "", fmt.Errorf("topo: ping %s from %q: %w", to, h.Name, err)
	}
	buf := make([]byte, 2048)
	for {
		n, who, err := conn.ReadFromIP(buf)
		if err != nil {
			return Silence, nil
		}
		from, _ := netip.AddrFromSlice(who.IP)
		kind, known := kinds[buf[0]]
		// An error has the packet in it that it is about.
		if known && (from.Unmap() == to || kind != Answered && bytes.Contains(buf[:n], to.AsSlice())) {
			return kind, nil
		}
	}
}
