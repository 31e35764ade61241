package ipvs

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// Listing is the table, or a part of it, as it is shown to people: everything
// that is there, not only what is ours.
type Listing struct {
	// Table heads a listing of the whole table. It is nil for a part, which
	// ipvsadm shows without that line.
	Table   *Table
	Servers []ListedServer
}

// ListedServer is a virtual server with its destinations.
type ListedServer struct {
	VirtualServerEntry
	Destinations []DestinationEntry
}

// Style says how a listing is written.
type Style struct {
	// Names turns addresses and ports into names; nil leaves them numbers,
	// which is ipvsadm's -n.
	Names Names
	// Unsorted leaves the kernel's order (--nosort).
	Unsorted bool
	// Columns are the facts that stand behind the names.
	Columns Columns
	// Exact writes large counters in full (--exact).
	Exact bool
	// Notes say more of each line than ipvsadm does; nil: nothing.
	Notes Notes
}

// Notes tell of an entry what the kernel does not know; "" is nothing.
type Notes interface {
	VirtualServer(vs VirtualServer) string
	RealServer(a netip.AddrPort) string
}

// Names finds names for numbers, and "" where there is none.
type Names interface {
	Host(addr netip.Addr) string
	Service(port uint16, protocol model.Protocol) string
}

// ReadListing reads the whole table.
func ReadListing(ctx context.Context, h Handle) (Listing, error) {
	table, err := h.Table(ctx)
	if err != nil {
		return Listing{}, err
	}
	entries, err := h.VirtualServers(ctx)
	if err != nil {
		return Listing{}, fmt.Errorf("list virtual servers: %w", err)
	}
	l := Listing{Table: &table, Servers: make([]ListedServer, 0, len(entries))}
	for _, e := range entries {
		dests, err := h.Destinations(ctx, e.VirtualServer)
		if err != nil && !gone(err) {
			return Listing{}, fmt.Errorf("list destinations of %s: %w", e.VirtualServer, err)
		}
		l.Servers = append(l.Servers, ListedServer{e, dests})
	}
	return l, nil
}

// WriteListing writes a listing byte by byte as ipvsadm 1.31 does (ipvsadm
// -L -n, or -L with names), unless there are Notes.
//
// One difference: a destination's counters of connections and packets are of
// 64 bits here. ipvsadm shows the lower 32 bits of what the kernel tells it.
func WriteListing(w io.Writer, l Listing, style Style) error {
	out := bufio.NewWriter(w)
	if l.Table != nil {
		v := l.Table.Version
		fmt.Fprintf(out, "IP Virtual Server version %d.%d.%d (size=%d)\n", v[0], v[1], v[2], l.Table.ConnectionSlots)
	}
	cols := style.columns()
	title := cols.title()
	lines := noted{out, style.Notes != nil, max(len(title[0]), len(title[1]))}
	lines.write(title[0], "Service")
	lines.write(title[1], "Pod (Node)")
	for _, s := range style.Sorted(l.Servers) {
		lines.write(cols.server(style.server(s.VirtualServer), s.VirtualServerEntry), style.note(s.VirtualServer, netip.AddrPort{}))
		for _, d := range style.SortedDestinations(s.Destinations) {
			lines.write(cols.destination(style.address(d.RealServer, s.Protocol), d), style.note(s.VirtualServer, d.RealServer))
		}
	}
	return out.Flush()
}

// noted writes lines with notes behind them, from a column on if they are
// short enough. Errors stay in the writer.
type noted struct {
	w     io.Writer
	on    bool
	width int
}

func (n noted) write(line, note string) {
	if !n.on || note == "" {
		fmt.Fprintln(n.w, line)
		return
	}
	fmt.Fprintf(n.w, "%-*s  %s\n", n.width, strings.TrimRight(line, " "), note)
}

// note is what Notes say of a destination, or of a virtual server if there is
// no real server.
func (s Style) note(vs VirtualServer, real netip.AddrPort) string {
	switch {
	case s.Notes == nil:
		return ""
	case real == netip.AddrPort{}:
		return s.Notes.VirtualServer(vs)
	}
	return s.Notes.RealServer(real)
}

// Sorted is virtual servers in the order they are shown in.
func (s Style) Sorted(servers []ListedServer) []ListedServer {
	if s.Unsorted {
		return servers
	}
	return mergeSort(servers, compareServers)
}

// SortedDestinations is the same for destinations.
func (s Style) SortedDestinations(dests []DestinationEntry) []DestinationEntry {
	if s.Unsorted {
		return dests
	}
	return mergeSort(dests, compareDestinations)
}

// serverFlags is what stands behind the scheduler.
func serverFlags(e VirtualServerEntry) string {
	var s strings.Builder
	spec := e.Spec
	if spec.Flags&schedFlags != 0 {
		s.WriteString(" (" + schedulerFlags(spec) + ")")
	}
	if spec.Flags&Persistent != 0 {
		fmt.Fprintf(&s, " persistent %d", spec.Timeout)
		s.WriteString(maskText(" mask ", e.IPFamily(), spec.Netmask))
		if spec.PEName != "" {
			s.WriteString(" pe " + spec.PEName)
		}
	}
	if spec.Flags&OnePacket != 0 {
		s.WriteString(" ops")
	}
	return s.String()
}

// maskText is the persistence mask with a word before it, unless it tells
// every client apart.
func maskText(word string, family model.Family, mask uint32) string {
	switch {
	case family == model.IPv6 && mask != HostMask6:
		return word + strconv.Itoa(int(int32(mask))) // signed as ipvsadm prints it
	case family == model.IPv4 && mask != HostMask4:
		return word + netip.AddrFrom4([4]byte{byte(mask >> 24), byte(mask >> 16), byte(mask >> 8), byte(mask)}).String()
	}
	return ""
}

const schedFlags = Sched1 | Sched2 | Sched3

// schedulerFlags names the three flags as their scheduler does. Those that
// have names of their own have two, and ipvsadm passes over the third.
func schedulerFlags(spec VirtualServerSpec) string {
	names := []string{"flag-1", "flag-2", "flag-3"}
	if spec.Scheduler == "sh" || spec.Scheduler == "mh" {
		names = []string{spec.Scheduler + "-fallback", spec.Scheduler + "-port"}
	}
	var set []string
	for i, name := range names {
		if spec.Flags&(Sched1<<i) != 0 {
			set = append(set, name)
		}
	}
	return strings.Join(set, ",")
}

// String is the method's name in a listing.
func (f Forward) String() string {
	switch f {
	case Masquerade:
		return "Masq"
	case LocalNode:
		return "Local"
	case ForwardTunnel:
		return "Tunnel"
	case ForwardRoute:
		return "Route"
	case ForwardBypass:
		return "Bypass"
	}
	return "method " + strconv.Itoa(int(f))
}

// server is a virtual server's name in a listing. ipvsadm prints a mark as a
// signed number.
func (s Style) server(vs VirtualServer) string {
	if vs.Mark == 0 {
		return fmt.Sprintf("%-4s %s", protocolName(vs.Protocol), s.address(vs.Addr, vs.Protocol))
	}
	name := "FWM  " + strconv.Itoa(int(int32(vs.Mark))) // see above
	if vs.Family == model.IPv6 {
		name += " IPv6"
	}
	return name
}

// protocolName is "?" for what no tool makes virtual servers of.
func protocolName(p model.Protocol) string {
	switch p {
	case model.TCP, model.UDP, model.SCTP:
		return p.String()
	}
	return "?"
}

// The longest texts of address and port: ipvsadm cuts those of IPv4 in a table
// at the width of their column and others at the end of its buffer. Only names
// are that long.
const (
	longest4 = 28
	longest6 = 59
)

// address is an address and port as a table has them.
func (s Style) address(a netip.AddrPort, protocol model.Protocol) string {
	text := s.fullAddress(a, protocol)
	if a.Addr().Is4() {
		return text[:min(len(text), longest4)]
	}
	return text
}

// fullAddress is an address and port. A protocol of 0, which is what
// firewall-mark services have, has no names for ports.
func (s Style) fullAddress(a netip.AddrPort, protocol model.Protocol) string {
	host, port := hostText(a.Addr()), strconv.Itoa(int(a.Port()))
	if s.Names != nil {
		if name := s.Names.Host(a.Addr()); name != "" {
			host = name
		}
		if name := s.Names.Service(a.Port(), protocol); name != "" {
			port = name
		}
	}
	text := host + ":" + port
	if a.Addr().Is6() {
		text = "[" + host + "]:" + port
	}
	return text[:min(len(text), longest6)]
}

// hostText is an address as inet_ntop writes it: netip writes the obsolete
// "IPv4-compatible" addresses (::192.0.2.1) in hexadecimal.
func hostText(a netip.Addr) string {
	if !a.Is6() {
		return a.String()
	}
	b := a.As16()
	if [12]byte(b[:12]) == [12]byte{} && (b[12] != 0 || b[13] != 0) {
		return "::" + netip.AddrFrom4([4]byte(b[12:])).String()
	}
	return a.String()
}
