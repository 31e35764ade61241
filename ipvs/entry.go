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

// Timeouts are how long connections without traffic are kept, in whole
// seconds. They are one set for the whole network namespace.
type Timeouts struct {
	TCP    time.Duration
	TCPFin time.Duration
	UDP    time.Duration
}
