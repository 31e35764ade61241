package ipvs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"strconv"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// Connection is one entry of the kernel's IPVS connection table: a connection,
// or a persistence template, whose source port is 0.
type Connection struct {
	Protocol    string // as the kernel names it: "TCP"
	Source      netip.AddrPort
	Virtual     netip.AddrPort
	Destination netip.AddrPort // the real server
	State       string         // as the kernel names it: "ESTABLISHED"; a template has none ("NONE") or is "ASSURED"
	Expires     uint32         // seconds until it is forgotten without another packet

	PEName, PEData string // of a template made by a persistence engine
}

// longestConnection bounds a line of the kernel's table, which is below 600
// bytes with all of a persistence engine's data.
const longestConnection = 4096

// ReadConnections reads the kernel's connection table from its text
// (/proc/net/ip_vs_conn), one entry at a time: the table may have millions. An
// error ends it.
//
// There is no netlink message for connections. The text is read while they
// come and go, so that an entry may be missed or seen twice.
func ReadConnections(r io.Reader) iter.Seq2[Connection, error] {
	return func(yield func(Connection, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, longestConnection)
		if !lines.Scan() && lines.Err() == nil {
			yield(Connection{}, errors.New("the kernel's connection table has no title"))
			return
		}
		for lines.Scan() {
			c, err := parseConnection(lines.Text())
			if !yield(c, err) || err != nil {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(Connection{}, fmt.Errorf("read connections: %w", err))
		}
	}
}

// parseConnection reads "TCP 0A600001 D61A 0A600001 0050 C0A80A01 1F90
// ESTABLISHED     899", where a name and data may follow. IPv6 addresses are
// written out in full and may be in brackets.
func parseConnection(line string) (c Connection, err error) {
	f := strings.Fields(line)
	if len(f) < 9 {
		return c, fmt.Errorf("connection %q has not nine fields", line)
	}
	c.Protocol, c.State = f[0], f[7]
	for i, a := range []*netip.AddrPort{&c.Source, &c.Virtual, &c.Destination} {
		if *a, err = parseEndpoint(f[1+2*i], f[2+2*i]); err != nil {
			return c, fmt.Errorf("connection %q: %w", line, err)
		}
	}
	expires, err := strconv.ParseUint(f[8], 10, 32)
	if err != nil {
		return c, fmt.Errorf("connection %q: %w", line, err)
	}
	c.Expires = uint32(expires)
	if len(f) > 10 {
		c.PEName, c.PEData = f[9], f[10]
	}
	return c, nil
}

func parseEndpoint(host, port string) (netip.AddrPort, error) {
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return netip.AddrPortFrom(addr, uint16(number)), nil
	}
	bits, err := strconv.ParseUint(host, 16, 32)
	if err != nil {
		return netip.AddrPort{}, err
	}
	addr := netip.AddrFrom4([4]byte{byte(bits >> 24), byte(bits >> 16), byte(bits >> 8), byte(bits)})
	return netip.AddrPortFrom(addr, uint16(number)), nil
}

// WriteConnectionTitle writes what stands above connections. Engines adds the
// columns of persistence engines (--persistent-conn).
func WriteConnectionTitle(w io.Writer, engines bool) {
	fmt.Fprint(w, "IPVS connection entries\n")
	if engines {
		fmt.Fprintf(w, "pro expire %-11s %-18s %-18s %-18s %-16s %s\n", "state", "source", "virtual", "destination", "pe name", "pe_data")
		return
	}
	fmt.Fprintf(w, "pro expire %-11s %-18s %-18s %s\n", "state", "source", "virtual", "destination")
}

// WriteConnection writes one line, byte by byte as ipvsadm 1.31 does; of style
// it uses the names. A note, if not "", ends the line.
func WriteConnection(w io.Writer, c Connection, style Style, engines bool, note string) {
	protocol := connectionProtocol(c.Protocol)
	expires := fmt.Sprintf("%02d:%02d", c.Expires/60, c.Expires%60)
	destination := style.fullAddress(c.Destination, protocol)
	if engines && c.PEName != "" {
		destination = fmt.Sprintf("%-16s %-18s %s", destination, c.PEName, c.PEData)
	}
	if note != "" {
		destination = fmt.Sprintf("%-18s  %s", destination, note)
	}
	fmt.Fprintf(w, "%-3s %-6s %-11s %-18s %-18s %s\n", c.Protocol, expires, c.State,
		style.fullAddress(c.Source, protocol), style.fullAddress(c.Virtual, protocol), destination)
}

// VirtualServer is the one that the connection belongs to, unless that is a
// firewall-mark service or one with persistence for all ports.
func (c Connection) VirtualServer() VirtualServer {
	return VirtualServer{Addr: c.Virtual, Protocol: connectionProtocol(c.Protocol)}
}

// connectionProtocol is 0 for what virtual servers have no option for.
func connectionProtocol(name string) model.Protocol {
	for _, p := range []model.Protocol{model.TCP, model.UDP, model.SCTP} {
		if p.String() == name {
			return p
		}
	}
	return 0
}
