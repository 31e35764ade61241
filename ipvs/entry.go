package ipvs

import (
	"net/netip"
	"time"
)

// VirtualServerEntry is a virtual server as the kernel reports it.
type VirtualServerEntry struct {
	VirtualServer
	Spec     VirtualServerSpec
	Counters Counters
}

// DestinationEntry is a destination as the kernel reports it.
type DestinationEntry struct {
	RealServer netip.AddrPort
	Spec       DestinationSpec

	Active     uint32 // connections in an active state; UDP has none
	Inactive   uint32 // all other connections
	Persistent uint32 // clients bound here by persistence

	Counters Counters
}

// Counters are totals and rates. The kernel's estimator fills them in every
// two seconds; rates are averages over that.
type Counters struct {
	Connections, PacketsIn, PacketsOut, BytesIn, BytesOut uint64

	ConnectionRate, PacketRateIn, PacketRateOut, ByteRateIn, ByteRateOut uint64 // per second
}

// Table is what the kernel says of its IPVS as a whole.
type Table struct {
	Version         [3]uint8 // of IPVS, not of the kernel
	ConnectionSlots uint32   // size of the connection hash table
}

// Daemon is one of the kernel's two sync daemons, which tell connections to
// other directors (master) or are told them (backup). Sluice uses none.
type Daemon struct {
	State     DaemonState
	Interface string // multicast goes out, or comes in, here
	SyncID    uint32
	MaxLength uint16     // of a sync message; 0: not told (as below)
	Group     netip.Addr // multicast group; the zero Addr: not told
	Port      uint16
	TTL       uint8
}

// DaemonState is which of the two a sync daemon is.
type DaemonState uint32

// The states.
const (
	DaemonMaster DaemonState = 1
	DaemonBackup DaemonState = 2
)

// String is "master" or "backup", and "" for anything else.
func (s DaemonState) String() string {
	switch {
	case s&DaemonMaster != 0:
		return "master"
	case s&DaemonBackup != 0:
		return "backup"
	}
	return ""
}

// Timeouts are how long connections without traffic are kept, in whole
// seconds. They are one set for the whole network namespace.
type Timeouts struct {
	TCP    time.Duration
	TCPFin time.Duration
	UDP    time.Duration
}
