package ipvsadm

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/ipvs"
)

// The JSON form. Its field names are kept from version to version: fields may
// come, none goes or changes its meaning. Counters are whole numbers of up to
// 64 bits; rates are per second; times are seconds.

type tableJSON struct {
	Version         string       `json:"version,omitempty"` // of IPVS; only with the whole table, as the next
	ConnectionSlots uint32       `json:"connectionSlots,omitempty"`
	VirtualServers  []serverJSON `json:"virtualServers"`
}

type serverJSON struct {
	Protocol     string            `json:"protocol,omitempty"` // address and port are a firewall-mark service's not
	Address      *netip.Addr       `json:"address,omitempty"`
	Port         *uint16           `json:"port,omitempty"`
	Mark         uint32            `json:"mark,omitempty"`
	Family       string            `json:"family"`
	Service      string            `json:"service,omitempty"` // with --names
	Scheduler    schedulerJSON     `json:"scheduler"`
	Persistence  *persistenceJSON  `json:"persistence,omitempty"`
	OnePacket    bool              `json:"onePacket"`
	Counters     countersJSON      `json:"counters"`
	Rates        countersJSON      `json:"rates"`
	Destinations []destinationJSON `json:"destinations"`
}

type schedulerJSON struct {
	Name  string   `json:"name"`
	Flags []string `json:"flags,omitempty"` // "mh-port"; "flag-1" to "flag-3" where the scheduler has no name for it
}

type persistenceJSON struct {
	Timeout uint32 `json:"timeout"`
	Prefix  *int   `json:"prefixLength,omitempty"` // clients of one such prefix are one
	Mask    string `json:"mask,omitempty"`         // instead of it, where the mask is no prefix
	Engine  string `json:"engine,omitempty"`
}

type countersJSON struct {
	Connections uint64 `json:"connections"`
	PacketsIn   uint64 `json:"packetsIn"`
	PacketsOut  uint64 `json:"packetsOut"`
	BytesIn     uint64 `json:"bytesIn"`
	BytesOut    uint64 `json:"bytesOut"`
}

type destinationJSON struct {
	Address     netip.Addr      `json:"address"`
	Port        uint16          `json:"port"`
	Pod         string          `json:"pod,omitempty"` // with --names, as the next
	Node        string          `json:"node,omitempty"`
	Forward     string          `json:"forward"`
	Tunnel      *tunnelJSON     `json:"tunnel,omitempty"`
	Weight      uint32          `json:"weight"`
	Thresholds  thresholdsJSON  `json:"thresholds"`
	Connections connectionsJSON `json:"connections"`
	Counters    countersJSON    `json:"counters"`
	Rates       countersJSON    `json:"rates"`
}

type tunnelJSON struct {
	Type     string `json:"type"`
	Port     uint16 `json:"port,omitempty"`
	Checksum string `json:"checksum,omitempty"` // none, full or remote
}

type thresholdsJSON struct {
	Upper uint32 `json:"upper"` // 0: none
	Lower uint32 `json:"lower"`
}

type connectionsJSON struct {
	Active     uint32 `json:"active"`
	Inactive   uint32 `json:"inactive"`
	Persistent uint32 `json:"persistent"`
}

func writeTable(w io.Writer, l ipvs.Listing, style ipvs.Style, who *Identities) error {
	table := tableJSON{VirtualServers: make([]serverJSON, 0, len(l.Servers))}
	if l.Table != nil {
		v := l.Table.Version
		table.Version, table.ConnectionSlots = fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]), l.Table.ConnectionSlots
	}
	for _, s := range style.Sorted(l.Servers) {
		table.VirtualServers = append(table.VirtualServers, serverOf(s, style, who))
	}
	return indented(w, table)
}

func indented(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func serverOf(s ipvs.ListedServer, style ipvs.Style, who *Identities) serverJSON {
	out := serverJSON{
		Mark: s.Mark, Family: s.IPFamily().String(), Service: who.service(s.VirtualServer),
		Scheduler: schedulerJSON{Name: s.Spec.Scheduler}, Persistence: persistenceOf(s),
		OnePacket: s.Spec.Flags&ipvs.OnePacket != 0,
		Counters:  totals(s.Counters), Rates: rates(s.Counters),
		Destinations: make([]destinationJSON, 0, len(s.Destinations)),
	}
	if s.Mark == 0 {
		addr, port := s.Addr.Addr(), s.Addr.Port()
		out.Protocol, out.Address, out.Port = s.Protocol.String(), &addr, &port
	}
	flags := []string{"flag-1", "flag-2", "flag-3"}
	if name := s.Spec.Scheduler; name == "sh" || name == "mh" {
		flags[0], flags[1] = name+"-fallback", name+"-port"
	}
	for i, flag := range flags {
		if s.Spec.Flags&(ipvs.Sched1<<i) != 0 {
			out.Scheduler.Flags = append(out.Scheduler.Flags, flag)
		}
	}
	for _, d := range style.SortedDestinations(s.Destinations) {
		out.Destinations = append(out.Destinations, destinationOf(d, who))
	}
	return out
}

func persistenceOf(s ipvs.ListedServer) *persistenceJSON {
	if s.Spec.Flags&ipvs.Persistent == 0 {
		return nil
	}
	p := &persistenceJSON{Timeout: s.Spec.Timeout, Engine: s.Spec.PEName}
	length := int(s.Spec.Netmask)
	if s.IPFamily() == model.IPv4 {
		var prefix bool
		if length, prefix = maskLength(s.Spec.Netmask); !prefix {
			p.Mask = netip.AddrFrom4([4]byte{byte(s.Spec.Netmask >> 24), byte(s.Spec.Netmask >> 16), byte(s.Spec.Netmask >> 8), byte(s.Spec.Netmask)}).String()
			return p
		}
	}
	p.Prefix = &length
	return p
}

// maskLength is the length of the prefix that a mask is, if it is one.
func maskLength(mask uint32) (int, bool) {
	n := 0
	for ; mask&(1<<31) != 0; mask <<= 1 {
		n++
	}
	return n, mask == 0
}

func destinationOf(d ipvs.DestinationEntry, who *Identities) destinationJSON {
	pod := who.pod(d.RealServer)
	return destinationJSON{
		Address: d.RealServer.Addr(), Port: d.RealServer.Port(), Pod: pod.Pod, Node: pod.Node,
		Forward: d.Spec.Forward.String(), Tunnel: tunnelOf(d.Spec), Weight: d.Spec.Weight,
		Thresholds:  thresholdsJSON{d.Spec.UpperThreshold, d.Spec.LowerThreshold},
		Connections: connectionsJSON{d.Active, d.Inactive, d.Persistent},
		Counters:    totals(d.Counters), Rates: rates(d.Counters),
	}
}

func tunnelOf(spec ipvs.DestinationSpec) *tunnelJSON {
	if spec.Forward != ipvs.ForwardTunnel {
		return nil
	}
	t := &tunnelJSON{Type: fmt.Sprint(spec.Tunnel.Type)}
	if names := tunnelNames(); int(spec.Tunnel.Type) < len(names) {
		t.Type = names[spec.Tunnel.Type]
	}
	if spec.Tunnel.Type == ipvs.IPIP {
		return t
	}
	t.Port = spec.Tunnel.Port
	t.Checksum = map[ipvs.TunnelFlags]string{ipvs.NoChecksum: "none", ipvs.Checksum: "full", ipvs.RemoteChecksum: "remote"}[spec.Tunnel.Flags]
	return t
}

func totals(c ipvs.Counters) countersJSON {
	return countersJSON{c.Connections, c.PacketsIn, c.PacketsOut, c.BytesIn, c.BytesOut}
}

func rates(c ipvs.Counters) countersJSON {
	return countersJSON{c.ConnectionRate, c.PacketRateIn, c.PacketRateOut, c.ByteRateIn, c.ByteRateOut}
}

func writeTimeouts(w io.Writer, t ipvs.Timeouts) error {
	return indented(w, map[string]map[string]int64{"timeouts": {
		"tcp": int64(t.TCP.Seconds()), "tcpFin": int64(t.TCPFin.Seconds()), "udp": int64(t.UDP.Seconds()),
	}})
}

type daemonJSON struct {
	State     string      `json:"state"`
	Interface string      `json:"interface"`
	SyncID    uint32      `json:"syncID"`
	MaxLength uint16      `json:"maxLength,omitempty"`
	Group     *netip.Addr `json:"group,omitempty"`
	Port      uint16      `json:"port,omitempty"`
	TTL       uint8       `json:"ttl,omitempty"`
}

func writeDaemons(w io.Writer, daemons []ipvs.Daemon) error {
	list := make([]daemonJSON, 0, len(daemons))
	for _, d := range daemons {
		out := daemonJSON{State: d.State.String(), Interface: d.Interface, SyncID: d.SyncID, MaxLength: d.MaxLength, Port: d.Port, TTL: d.TTL}
		if d.Group.IsValid() {
			out.Group = &d.Group
		}
		list = append(list, out)
	}
	return indented(w, map[string][]daemonJSON{"daemons": list})
}

type connectionJSON struct {
	Protocol    string `json:"protocol"`
	Source      string `json:"source"` // address and port, as the next two
	Virtual     string `json:"virtual"`
	Destination string `json:"destination"`
	State       string `json:"state"`
	Expires     uint32 `json:"expires"`
	Engine      string `json:"engine,omitempty"`
	EngineData  string `json:"engineData,omitempty"`
	Service     string `json:"service,omitempty"` // with --names, as the next two
	Pod         string `json:"pod,omitempty"`
	Node        string `json:"node,omitempty"`
}

// jsonConnections writes one document with a connection on each line, so that
// it can be written, and read, without having all of it.
type jsonConnections struct {
	w     *bufio.Writer
	notes *Identities
}

func (j *jsonConnections) begin() { fmt.Fprint(j.w, `{"connections": [`) }

func (j *jsonConnections) connection(c ipvs.Connection, first bool) error {
	pod := j.notes.pod(c.Destination)
	text, err := json.Marshal(connectionJSON{
		Protocol: c.Protocol, Source: c.Source.String(), Virtual: c.Virtual.String(), Destination: c.Destination.String(),
		State: c.State, Expires: c.Expires, Engine: c.PEName, EngineData: c.PEData,
		Service: j.notes.service(c.VirtualServer()), Pod: pod.Pod, Node: pod.Node,
	})
	if err != nil {
		return err
	}
	if !first {
		fmt.Fprint(j.w, ",")
	}
	fmt.Fprintf(j.w, "\n  %s", text)
	return nil
}

// end says whether there were more connections than the limit.
func (j *jsonConnections) end(more bool) { fmt.Fprintf(j.w, "\n], \"more\": %v}\n", more) }
