package ipvs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/nlbatch"
)

// The generic netlink interface, as linux/ip_vs.h numbers it.
const (
	familyName    = "IPVS"
	familyVersion = 1

	cmdNewService = 1
	cmdSetService = 2
	cmdDelService = 3
	cmdGetService = 4
	cmdNewDest    = 5
	cmdSetDest    = 6
	cmdDelDest    = 7
	cmdGetDest    = 8
	cmdGetDaemon  = 11
	cmdGetInfo    = 15

	attrService = 1
	attrDest    = 2
	attrDaemon  = 3

	infoVersion = 1
	infoSlots   = 2

	svcFamily    = 1
	svcProtocol  = 2
	svcAddr      = 3
	svcPort      = 4
	svcMark      = 5
	svcScheduler = 6
	svcFlags     = 7
	svcTimeout   = 8
	svcNetmask   = 9
	svcStats     = 10
	svcPEName    = 11
	svcStats64   = 12

	destAddr        = 1
	destPort        = 2
	destForward     = 3
	destWeight      = 4
	destUpper       = 5
	destLower       = 6
	destActive      = 7
	destInactive    = 8
	destPersistent  = 9
	destStats       = 10
	destFamily      = 11
	destStats64     = 12
	destTunnelType  = 13
	destTunnelPort  = 14
	destTunnelFlags = 15

	// The ten counters are numbered alike in svcStats, svcStats64 and those of
	// destinations; the latter's values are all of 64 bits.
	statConnections    = 1
	statPacketsIn      = 2
	statPacketsOut     = 3
	statBytesIn        = 4
	statBytesOut       = 5
	statConnectionRate = 6
	statPacketRateIn   = 7
	statPacketRateOut  = 8
	statByteRateIn     = 9
	statByteRateOut    = 10
)

var errNoEntry = errors.New("the kernel's message describes no entry")

// commandVerb is the kernel's number for what a command does.
func commandVerb(c Command) uint8 {
	first := uint8(cmdNewService)
	if c.Key.IsDestination() {
		first = cmdNewDest
	}
	return first + uint8(c.Op)
}

// encodeCommand adds a command as one message. One that has no form on the
// wire keeps its place in the batch and fails there.
func encodeCommand(b *nlbatch.Batch, family uint16, c Command) {
	b.Begin(family, 0, commandVerb(c), familyVersion, 0, 0)
	if err := c.Validate(); err != nil {
		b.Fail(err)
		return
	}
	full := c.Op != Delete
	b.Nest(attrService)
	encodeServerKey(b, c.Key.VirtualServer)
	if full && !c.Key.IsDestination() {
		encodeServerSpec(b, c.Key.IPFamily(), c.Spec.VirtualServer)
	}
	b.End()
	if !c.Key.IsDestination() {
		return
	}
	b.Nest(attrDest)
	encodeDestinationKey(b, c.Key.RealServer)
	if full {
		encodeDestinationSpec(b, c.Spec.Destination)
	}
	b.End()
}

func encodeServerKey(b *nlbatch.Batch, vs VirtualServer) {
	b.U16(svcFamily, wireFamily(vs.IPFamily()))
	if vs.Mark != 0 {
		b.U32(svcMark, vs.Mark)
		return
	}
	b.U16(svcProtocol, uint16(vs.Protocol))
	b.Addr(svcAddr, vs.Addr.Addr())
	b.BE16(svcPort, vs.Addr.Port())
}

// encodeServerSpec sends the flags with a mask that leaves out the kernel's own.
func encodeServerSpec(b *nlbatch.Batch, family model.Family, spec VirtualServerSpec) {
	b.String(svcScheduler, spec.Scheduler)
	if spec.PEName != "" {
		b.String(svcPEName, spec.PEName)
	}
	var flags [8]byte
	binary.NativeEndian.PutUint32(flags[:], uint32(spec.Flags&^flagHashed))
	binary.NativeEndian.PutUint32(flags[4:], uint32(^flagHashed))
	b.Bytes(svcFlags, flags[:])
	b.U32(svcTimeout, spec.Timeout)
	if family == model.IPv6 {
		b.U32(svcNetmask, spec.Netmask) // a length
	} else {
		b.BE32(svcNetmask, spec.Netmask)
	}
}

func encodeDestinationKey(b *nlbatch.Batch, a netip.AddrPort) {
	b.U16(destFamily, wireFamily(model.FamilyOf(a.Addr())))
	b.Addr(destAddr, a.Addr())
	b.BE16(destPort, a.Port())
}

func encodeDestinationSpec(b *nlbatch.Batch, spec DestinationSpec) {
	b.U32(destForward, uint32(spec.Forward&forwardMask))
	b.U32(destWeight, spec.Weight)
	b.U32(destUpper, spec.UpperThreshold)
	b.U32(destLower, spec.LowerThreshold)
	b.U8(destTunnelType, uint8(spec.Tunnel.Type))
	b.BE16(destTunnelPort, spec.Tunnel.Port)
	b.U16(destTunnelFlags, uint16(spec.Tunnel.Flags))
}

// nested finds the one attribute that a message of ours consists of.
func nested(msg []byte, attr uint16) (nlbatch.Decoder, error) {
	if len(msg) < unix.GENL_HDRLEN {
		return nlbatch.Decoder{}, errNoEntry
	}
	d := nlbatch.Decode(msg[unix.GENL_HDRLEN:])
	for d.Next() {
		if d.Type() == attr {
			return d.Nested(), nil
		}
	}
	return nlbatch.Decoder{}, errors.Join(errNoEntry, d.Err())
}

// decodeVirtualServer reads a virtual server from a reply.
func decodeVirtualServer(msg []byte) (VirtualServerEntry, error) {
	d, err := nested(msg, attrService)
	if err != nil {
		return VirtualServerEntry{}, err
	}
	var e VirtualServerEntry
	raw := rawServer{entry: &e}
	for d.Next() {
		raw.attribute(&d)
	}
	if err := d.Err(); err != nil {
		return VirtualServerEntry{}, fmt.Errorf("virtual server: %w", err)
	}
	if err := raw.finish(); err != nil {
		return VirtualServerEntry{}, err
	}
	return e, nil
}

// rawServer is a virtual server whose attributes that depend on others are
// still bytes: what an address and a netmask mean depends on the family, which
// need not come first.
type rawServer struct {
	entry    *VirtualServerEntry
	family   uint16
	protocol uint16
	addr     []byte
	port     uint16
	netmask  []byte
	wide     bool // counters of 64 bits were seen
}

func (r *rawServer) attribute(d *nlbatch.Decoder) {
	e := r.entry
	switch d.Type() {
	case svcFamily:
		r.family = d.U16()
	case svcProtocol:
		r.protocol = d.U16()
	case svcAddr:
		r.addr = d.Bytes()
	case svcPort:
		r.port = d.BE16()
	case svcMark:
		e.Mark = d.U32()
	case svcScheduler:
		e.Spec.Scheduler = d.String()
	case svcPEName:
		e.Spec.PEName = d.String()
	case svcFlags:
		if v := d.Bytes(); len(v) >= 4 {
			e.Spec.Flags = Flags(binary.NativeEndian.Uint32(v)) &^ flagHashed
		}
	case svcTimeout:
		e.Spec.Timeout = d.U32()
	case svcNetmask:
		d.U32() // for its check of the length
		r.netmask = d.Bytes()
	case svcStats, svcStats64:
		r.wide = decodeCounters(d, &e.Counters, r.wide, svcStats64)
	}
}

func (r *rawServer) finish() error {
	e := r.entry
	family, err := readFamily(r.family)
	if err != nil {
		return fmt.Errorf("virtual server: %w", err)
	}
	if len(r.netmask) == 4 {
		e.Spec.Netmask = binary.BigEndian.Uint32(r.netmask)
		if family == model.IPv6 {
			e.Spec.Netmask = binary.NativeEndian.Uint32(r.netmask)
		}
	}
	if e.Mark != 0 {
		e.Family = family
		return nil
	}
	if r.protocol == 0 || r.protocol > math.MaxUint8 {
		return fmt.Errorf("virtual server with protocol %d", r.protocol)
	}
	e.Protocol = model.Protocol(r.protocol)
	e.Addr, err = readAddr(family, r.addr, r.port)
	return err
}

// decodeDestination reads a destination from a reply about a virtual server of
// a family, which is the destination's own in kernels that tell none (< 3.18).
func decodeDestination(msg []byte, of model.Family) (DestinationEntry, error) {
	d, err := nested(msg, attrDest)
	if err != nil {
		return DestinationEntry{}, err
	}
	e := DestinationEntry{}
	raw := rawDestination{entry: &e, family: wireFamily(of)}
	for d.Next() {
		raw.attribute(&d)
	}
	if err := d.Err(); err != nil {
		return DestinationEntry{}, fmt.Errorf("destination: %w", err)
	}
	family, err := readFamily(raw.family)
	if err != nil {
		return DestinationEntry{}, fmt.Errorf("destination: %w", err)
	}
	e.RealServer, err = readAddr(family, raw.addr, raw.port)
	return e, err
}

// rawDestination is to DestinationEntry what rawServer is to VirtualServerEntry.
type rawDestination struct {
	entry  *DestinationEntry
	family uint16
	addr   []byte
	port   uint16
	wide   bool
}

func (r *rawDestination) attribute(d *nlbatch.Decoder) {
	e := r.entry
	switch d.Type() {
	case destFamily:
		r.family = d.U16()
	case destAddr:
		r.addr = d.Bytes()
	case destPort:
		r.port = d.BE16()
	case destForward:
		e.Spec.Forward = Forward(d.U32()) & forwardMask // three bits remain
	case destWeight:
		e.Spec.Weight = d.U32()
	case destUpper:
		e.Spec.UpperThreshold = d.U32()
	case destLower:
		e.Spec.LowerThreshold = d.U32()
	case destTunnelType:
		e.Spec.Tunnel.Type = TunnelType(d.U8())
	case destTunnelPort:
		e.Spec.Tunnel.Port = d.BE16()
	case destTunnelFlags:
		e.Spec.Tunnel.Flags = TunnelFlags(d.U16())
	default:
		r.report(d)
	}
}

// report reads what the kernel counts.
func (r *rawDestination) report(d *nlbatch.Decoder) {
	e := r.entry
	switch d.Type() {
	case destActive:
		e.Active = d.U32()
	case destInactive:
		e.Inactive = d.U32()
	case destPersistent:
		e.Persistent = d.U32()
	case destStats, destStats64:
		r.wide = decodeCounters(d, &e.Counters, r.wide, destStats64)
	}
}

// decodeCounters reads the counters, those of 64 bits if there are any
// (kernel 4.1): the others wrap. It returns whether it has seen them.
func decodeCounters(d *nlbatch.Decoder, c *Counters, seenWide bool, wide uint16) bool {
	if seenWide {
		return true
	}
	*c = Counters{}
	in := d.Nested()
	for in.Next() {
		if p := c.field(in.Type()); p != nil {
			*p = number(&in)
		}
	}
	if err := in.Err(); err != nil {
		d.Fail(err)
	}
	return d.Type() == wide
}

func (c *Counters) field(attr uint16) *uint64 {
	fields := [...]*uint64{
		statConnections: &c.Connections, statPacketsIn: &c.PacketsIn, statPacketsOut: &c.PacketsOut,
		statBytesIn: &c.BytesIn, statBytesOut: &c.BytesOut,
		statConnectionRate: &c.ConnectionRate, statPacketRateIn: &c.PacketRateIn, statPacketRateOut: &c.PacketRateOut,
		statByteRateIn: &c.ByteRateIn, statByteRateOut: &c.ByteRateOut,
	}
	if int(attr) >= len(fields) {
		return nil
	}
	return fields[attr]
}

// number reads a counter of either width.
func number(d *nlbatch.Decoder) uint64 {
	if len(d.Bytes()) == 4 {
		return uint64(d.U32())
	}
	return d.U64()
}

// decodeTable reads the reply to GET_INFO.
func decodeTable(msg []byte) (Table, error) {
	if len(msg) < unix.GENL_HDRLEN {
		return Table{}, errNoEntry
	}
	var t Table
	d := nlbatch.Decode(msg[unix.GENL_HDRLEN:])
	for d.Next() {
		switch d.Type() {
		case infoVersion:
			v := d.U32()
			t.Version = [3]uint8{uint8(v >> 16), uint8(v >> 8), uint8(v)} // one byte each
		case infoSlots:
			t.ConnectionSlots = d.U32()
		}
	}
	return t, d.Err()
}

func wireFamily(f model.Family) uint16 {
	if f == model.IPv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func readFamily(f uint16) (model.Family, error) {
	switch f {
	case unix.AF_INET:
		return model.IPv4, nil
	case unix.AF_INET6:
		return model.IPv6, nil
	}
	return 0, fmt.Errorf("address family %d", f)
}

// readAddr reads an address, for which the kernel always sends 16 bytes.
func readAddr(family model.Family, b []byte, port uint16) (netip.AddrPort, error) {
	switch {
	case family == model.IPv4 && len(b) >= 4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), port), nil
	case family == model.IPv6 && len(b) == 16:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)), port), nil
	}
	return netip.AddrPort{}, fmt.Errorf("%s address of %d bytes", family, len(b))
}
