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
// -L -n, or -L with names).
func WriteListing(w io.Writer, l Listing, style Style) error {
	out := bufio.NewWriter(w)
	if l.Table != nil {
		v := l.Table.Version
		fmt.Fprintf(out, "IP Virtual Server version %d.%d.%d (size=%d)\n", v[0], v[1], v[2], l.Table.ConnectionSlots)
	}
	cols := columns(ruleColumns{})
	cols.title(out)
	servers := l.Servers
	if !style.Unsorted {
		servers = mergeSort(servers, compareServers)
	}
	for _, s := range servers {
		cols.server(out, style.server(s.VirtualServer), s.VirtualServerEntry)
		dests := s.Destinations
		if !style.Unsorted {
			dests = mergeSort(dests, compareDestinations)
		}
		for _, d := range dests {
			cols.destination(out, style.address(d.RealServer, s.Protocol), d)
		}
	}
	return out.Flush()
}

// columns is what the listing options differ in: which facts of an entry stand
// behind its name. Errors stay in the writer.
type columns interface {
	title(w io.Writer)
	server(w io.Writer, name string, e VirtualServerEntry)
	destination(w io.Writer, name string, e DestinationEntry)
}

// ruleColumns is the listing without options.
type ruleColumns struct{}

func (ruleColumns) title(w io.Writer) {
	fmt.Fprint(w, "Prot LocalAddress:Port Scheduler Flags\n"+
		"  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n")
}

func (ruleColumns) server(w io.Writer, name string, e VirtualServerEntry) {
	fmt.Fprintf(w, "%s %s%s\n", name, e.Spec.Scheduler, serverFlags(e))
}

func (ruleColumns) destination(w io.Writer, name string, e DestinationEntry) {
	fmt.Fprintf(w, "  -> %-28s %-7s %-6d %-10d %-10d\n",
		name, e.Spec.Forward, int32(e.Spec.Weight), e.Active, e.Inactive) // signed in the kernel
}

// serverFlags is what stands behind the scheduler.
func serverFlags(e VirtualServerEntry) string {
	var s strings.Builder
	spec := e.Spec
	if names := schedulerFlags(spec); len(names) > 0 {
		s.WriteString(" (" + strings.Join(names, ",") + ")")
	}
	if spec.Flags&Persistent != 0 {
		fmt.Fprintf(&s, " persistent %d", spec.Timeout)
		s.WriteString(maskText(e.IPFamily(), spec.Netmask))
		if spec.PEName != "" {
			s.WriteString(" pe " + spec.PEName)
		}
	}
	if spec.Flags&OnePacket != 0 {
		s.WriteString(" ops")
	}
	return s.String()
}

// maskText is the persistence mask, unless it tells every client apart.
func maskText(family model.Family, mask uint32) string {
	switch {
	case family == model.IPv6 && mask != HostMask6:
		return " mask " + strconv.Itoa(int(int32(mask))) // signed as ipvsadm prints it
	case family == model.IPv4 && mask != HostMask4:
		return " mask " + netip.AddrFrom4([4]byte{byte(mask >> 24), byte(mask >> 16), byte(mask >> 8), byte(mask)}).String()
	}
	return ""
}

// schedulerFlags names the three flags as their scheduler does.
func schedulerFlags(spec VirtualServerSpec) []string {
	names := [3]string{"flag-1", "flag-2", "flag-3"}
	if spec.Scheduler == "sh" || spec.Scheduler == "mh" {
		names[0], names[1] = spec.Scheduler+"-fallback", spec.Scheduler+"-port"
	}
	var set []string
	for i, f := range [3]Flags{Sched1, Sched2, Sched3} {
		if spec.Flags&f != 0 {
			set = append(set, names[i])
		}
	}
	return set
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
		return fmt.Sprintf("%-4s %s", vs.Protocol, s.address(vs.Addr, vs.Protocol))
	}
	name := "FWM  " + strconv.Itoa(int(int32(vs.Mark))) // see above
	if vs.Family == model.IPv6 {
		name += " IPv6"
	}
	return name
}

// The longest texts of address and port: ipvsadm cuts those of IPv4 at the
// width of their column and others at the end of its buffer. Only names are
// that long.
const (
	longest4 = 28
	longest6 = 59
)

// address is an address and port. A protocol of 0, which is what firewall-mark
// services have, has no names for ports.
func (s Style) address(a netip.AddrPort, protocol model.Protocol) string {
	host, port := hostText(a.Addr()), strconv.Itoa(int(a.Port()))
	if s.Names != nil {
		if name := s.Names.Host(a.Addr()); name != "" {
			host = name
		}
		if name := s.Names.Service(a.Port(), protocol); name != "" {
			port = name
		}
	}
	text, longest := host+":"+port, longest4
	if a.Addr().Is6() {
		text, longest = "["+host+"]:"+port, longest6
	}
	return text[:min(len(text), longest)]
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
