package ipvs

// Spec is how one entry of the table is or should be set. A virtual server
// uses the one half, a destination the other; the unused half is zero.
type Spec struct {
	VirtualServer VirtualServerSpec
	Destination   DestinationSpec
}

// VirtualServerSpec are the settings of a virtual server.
type VirtualServerSpec struct {
	Scheduler string
	Flags     Flags
	Timeout   uint32 // seconds a client stays with its server; used with Persistent
	// Netmask groups clients for persistence. The kernel keeps two meanings
	// in one number: for IPv4 the mask (0xFFFFFF00 is /24), for IPv6 the
	// length of the prefix. It demands 1 to 128 of IPv6 even without Persistent.
	Netmask uint32
	PEName  string // persistence engine: "" or "sip"
}

// Masks that tell every client from every other.
const (
	HostMask4 uint32 = 0xFFFFFFFF
	HostMask6 uint32 = 128
)

// Flags of a virtual server. The meaning of the three scheduler flags is the
// scheduler's.
type Flags uint32

// The flags. The kernel has one more, which says that the service is in its
// hash table (2): it is the kernel's own and never shows here.
const (
	Persistent Flags = 0x0001
	OnePacket  Flags = 0x0004 // each UDP packet is scheduled by itself
	Sched1     Flags = 0x0008
	Sched2     Flags = 0x0010
	Sched3     Flags = 0x0020

	SHFallback = Sched1 // sh and mh: another server when the hashed one has weight 0
	SHPort     = Sched2 // sh and mh: hash the client's port too
	MHFallback = Sched1
	MHPort     = Sched2

	flagHashed Flags = 0x0002
)

// DestinationSpec are the settings of a destination.
type DestinationSpec struct {
	Weight  uint32 // 0: no new connections; at most 2^31-1
	Forward Forward

	UpperThreshold uint32 // connections at which no new ones are taken; 0: no limit
	LowerThreshold uint32 // connections below which new ones are taken again

	Tunnel Tunnel // used with ForwardTunnel; the kernel keeps it with any method
}

// Forward is how packets get to a destination.
type Forward uint8

// The forwarding methods, as the kernel counts them.
const (
	Masquerade    Forward = 0
	LocalNode     Forward = 1 // not to be asked for: the kernel forwards to itself whatever the method
	ForwardTunnel Forward = 2
	ForwardRoute  Forward = 3
	ForwardBypass Forward = 4
	forwardMask   Forward = 7
)

// Tunnel is the encapsulation to a destination.
type Tunnel struct {
	Type  TunnelType
	Port  uint16 // GUE only, which needs one
	Flags TunnelFlags
}

// TunnelType is a kind of encapsulation.
type TunnelType uint8

// The encapsulations.
const (
	IPIP TunnelType = 0
	GUE  TunnelType = 1
	GRE  TunnelType = 2
)

// TunnelFlags say how the outer header is checked.
type TunnelFlags uint16

// The tunnel flags.
const (
	NoChecksum     TunnelFlags = 0
	Checksum       TunnelFlags = 1
	RemoteChecksum TunnelFlags = 2
)
