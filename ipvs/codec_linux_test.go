package ipvs_test

import (
	"math"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/nlbatch"
	"sluice.dev/sluice/ipvs"
)

// Generators of everything the wire has a form for.

func genAddrPort(t *rapid.T, f model.Family) netip.AddrPort {
	n := 4
	if f == model.IPv6 {
		n = 16
	}
	a, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "addr"))
	if a.Is4In6() {
		a = netip.IPv6Unspecified()
	}
	return netip.AddrPortFrom(a, rapid.Uint16().Draw(t, "port"))
}

func genFamily(t *rapid.T) model.Family {
	return rapid.SampledFrom([]model.Family{model.IPv4, model.IPv6}).Draw(t, "family")
}

func genServer(t *rapid.T) ipvs.VirtualServer {
	if rapid.Bool().Draw(t, "mark") {
		return ipvs.VirtualServer{Mark: rapid.Uint32Range(1, math.MaxUint32).Draw(t, "n"), Family: genFamily(t)}
	}
	return ipvs.VirtualServer{
		Addr:     genAddrPort(t, genFamily(t)),
		Protocol: model.Protocol(rapid.Uint8Range(1, 255).Draw(t, "protocol")),
	}
}

func genServerSpec(t *rapid.T) ipvs.VirtualServerSpec {
	return ipvs.VirtualServerSpec{
		Scheduler: rapid.StringMatching(`[a-z]{0,15}`).Draw(t, "scheduler"),
		Flags:     ipvs.Flags(rapid.Uint32().Draw(t, "flags")) &^ 2,
		Timeout:   rapid.Uint32().Draw(t, "timeout"),
		Netmask:   rapid.Uint32().Draw(t, "netmask"),
		PEName:    rapid.StringMatching(`[a-z]{0,15}`).Draw(t, "pe"),
	}
}

func genDestSpec(t *rapid.T) ipvs.DestinationSpec {
	return ipvs.DestinationSpec{
		Weight:         rapid.Uint32().Draw(t, "weight"),
		Forward:        ipvs.Forward(rapid.Uint8Range(0, 7).Draw(t, "forward")),
		UpperThreshold: rapid.Uint32().Draw(t, "upper"),
		LowerThreshold: rapid.Uint32().Draw(t, "lower"),
		Tunnel: ipvs.Tunnel{
			Type:  ipvs.TunnelType(rapid.Uint8().Draw(t, "tunnel")),
			Port:  rapid.Uint16().Draw(t, "tunport"),
			Flags: ipvs.TunnelFlags(rapid.Uint16().Draw(t, "tunflags")),
		},
	}
}

// What a command says, the kernel's replies say in the same attributes.
func TestCommandRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := ipvs.Command{
			Op:  rapid.SampledFrom([]ipvs.Op{ipvs.Create, ipvs.Change, ipvs.Delete}).Draw(t, "op"),
			Key: ipvs.Key{VirtualServer: genServer(t)},
		}
		if rapid.Bool().Draw(t, "destination") {
			c.Key.RealServer = genAddrPort(t, genFamily(t))
			c.Spec.Destination = genDestSpec(t)
		} else {
			c.Spec.VirtualServer = genServerSpec(t)
		}
		var b nlbatch.Batch
		ipvs.EncodeCommand(&b, testFamily, c)
		msg := b.Message(0)
		if len(msg) == 0 {
			t.Fatalf("%+v was not encoded", c)
		}
		msg = msg[unix.NLMSG_HDRLEN:]
		wantVerb := uint8(ipvs.TestCmdNewService) + uint8(c.Op)
		if c.Key.IsDestination() {
			wantVerb = uint8(ipvs.TestCmdNewDest) + uint8(c.Op)
		}
		if msg[0] != wantVerb {
			t.Errorf("verb %d, want %d", msg[0], wantVerb)
		}
		if c.Op == ipvs.Delete {
			c.Spec = ipvs.Spec{}
		}
		e, err := ipvs.DecodeVirtualServer(msg)
		if err != nil || e.VirtualServer != c.Key.VirtualServer || e.Spec != c.Spec.VirtualServer {
			t.Fatalf("got %+v, %v; want %+v", e, err, c)
		}
		if !c.Key.IsDestination() {
			return
		}
		d, err := ipvs.DecodeDestination(msg, c.Key.IPFamily())
		if err != nil || d.RealServer != c.Key.RealServer || d.Spec != c.Spec.Destination {
			t.Fatalf("got %+v, %v; want %+v", d, err, c)
		}
	})
}

// reply makes a reply about one entry, with more attributes in the nest.
func reply(outer uint16, entry, more func(*nlbatch.Batch)) []byte {
	var b nlbatch.Batch
	b.Begin(testFamily, unix.NLM_F_MULTI, ipvs.TestCmdNewService, 1, 0, 0)
	b.Nest(outer)
	entry(&b)
	if more != nil {
		more(&b)
	}
	return b.Message(0)[unix.NLMSG_HDRLEN:]
}

func stats32(b *nlbatch.Batch, attr uint16, from uint64) {
	b.Nest(attr)
	for i := uint16(1); i <= 10; i++ {
		if i == 4 || i == 5 { // bytes are of 64 bits in both
			b.U64(i, from+uint64(i))
			continue
		}
		b.U32(i, uint32(from)+uint32(i))
	}
	b.End()
}

func stats64(b *nlbatch.Batch, attr uint16, from uint64) {
	b.Nest(attr)
	for i := uint16(1); i <= 10; i++ {
		b.U64(i, from+uint64(i))
		b.Bytes(11, nil) // the kernel's padding
	}
	b.End()
}

func TestCounters(t *testing.T) {
	server := func(b *nlbatch.Batch) {
		ipvs.EncodeServer(b, ipvs.VirtualServerEntry{
			VirtualServer: ipvs.VirtualServer{Addr: netip.MustParseAddrPort("10.0.0.1:80"), Protocol: model.TCP},
		})
	}
	from := func(n uint64) ipvs.Counters {
		return ipvs.Counters{
			Connections: n + 1, PacketsIn: n + 2, PacketsOut: n + 3, BytesIn: n + 4, BytesOut: n + 5,
			ConnectionRate: n + 6, PacketRateIn: n + 7, PacketRateOut: n + 8, ByteRateIn: n + 9, ByteRateOut: n + 10,
		}
	}
	for _, tt := range []struct {
		name string
		more func(*nlbatch.Batch)
		want ipvs.Counters
	}{
		{"none", nil, ipvs.Counters{}},
		{"32 bits", func(b *nlbatch.Batch) { stats32(b, ipvs.TestSvcStats, 100) }, from(100)},
		{"64 bits win", func(b *nlbatch.Batch) {
			stats32(b, ipvs.TestSvcStats, 100)
			stats64(b, ipvs.TestSvcStats64, 1<<40)
		}, from(1 << 40)},
		{"64 bits win when first", func(b *nlbatch.Batch) {
			stats64(b, ipvs.TestSvcStats64, 1<<40)
			stats32(b, ipvs.TestSvcStats, 100)
		}, from(1 << 40)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, err := ipvs.DecodeVirtualServer(reply(ipvs.TestAttrService, server, tt.more))
			if err != nil || e.Counters != tt.want {
				t.Errorf("got %+v, %v", e.Counters, err)
			}
		})
	}
}

func TestDestinationReport(t *testing.T) {
	dest := func(b *nlbatch.Batch) {
		ipvs.EncodeDestination(b, ipvs.DestinationEntry{RealServer: netip.MustParseAddrPort("[fd00::1]:80")})
	}
	e, err := ipvs.DecodeDestination(reply(ipvs.TestAttrDest, dest, func(b *nlbatch.Batch) {
		for i := range uint16(3) {
			b.U32(ipvs.TestDestActive+i, uint32(i)+1)
		}
		stats32(b, 10, 5)
		stats64(b, 12, 1<<33)
	}), model.IPv6)
	if err != nil || e.Active != 1 || e.Inactive != 2 || e.Persistent != 3 || e.Counters.ByteRateOut != 1<<33+10 {
		t.Errorf("got %+v, %v", e, err)
	}
}

// Kernels before 3.18 do not tell a destination's family, and all send
// addresses in 16 bytes.
func TestDestinationOfOldKernel(t *testing.T) {
	msg := reply(ipvs.TestAttrDest, func(b *nlbatch.Batch) {
		b.Bytes(1, append([]byte{10, 1, 1, 1}, make([]byte, 12)...))
		b.BE16(2, 80)
	}, nil)
	e, err := ipvs.DecodeDestination(msg, model.IPv4)
	if err != nil || e.RealServer != netip.MustParseAddrPort("10.1.1.1:80") {
		t.Errorf("got %+v, %v", e, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, msg := range map[string][]byte{
		"nothing":              nil,
		"a header":             {1, 1, 0, 0},
		"the other kind":       reply(ipvs.TestAttrDest, func(*nlbatch.Batch) {}, nil),
		"no family":            reply(ipvs.TestAttrService, func(*nlbatch.Batch) {}, nil),
		"unknown family":       reply(ipvs.TestAttrService, func(b *nlbatch.Batch) { b.U16(1, 7) }, nil),
		"no protocol":          reply(ipvs.TestAttrService, func(b *nlbatch.Batch) { b.U16(1, 2); b.Bytes(3, make([]byte, 4)) }, nil),
		"protocol above 255":   reply(ipvs.TestAttrService, func(b *nlbatch.Batch) { b.U16(1, 2); b.U16(2, 300); b.Bytes(3, make([]byte, 4)) }, nil),
		"no address":           reply(ipvs.TestAttrService, func(b *nlbatch.Batch) { b.U16(1, 2); b.U16(2, 6) }, nil),
		"short IPv6 address":   reply(ipvs.TestAttrService, func(b *nlbatch.Batch) { b.U16(1, 10); b.U16(2, 6); b.Bytes(3, make([]byte, 4)) }, nil),
		"family of four bytes": reply(ipvs.TestAttrService, func(b *nlbatch.Batch) { b.U32(1, 2) }, nil),
		"wrong counters": reply(ipvs.TestAttrService, func(b *nlbatch.Batch) {
			b.U16(1, 2)
			b.U32(5, 7)
			b.Nest(10)
			b.U16(1, 7)
			b.End()
		}, nil),
	} {
		if e, err := ipvs.DecodeVirtualServer(msg); err == nil {
			t.Errorf("%s: got %+v", name, e)
		}
	}
}

// The decoders never panic, and what they accept can be written again.
func FuzzDecode(f *testing.F) {
	f.Add(reply(ipvs.TestAttrService, func(b *nlbatch.Batch) {
		ipvs.EncodeServer(b, ipvs.VirtualServerEntry{VirtualServer: ipvs.VirtualServer{Mark: 7, Family: model.IPv6}})
		stats64(b, ipvs.TestSvcStats64, 1)
	}, nil))
	f.Add(reply(ipvs.TestAttrDest, func(b *nlbatch.Batch) {
		ipvs.EncodeDestination(b, ipvs.DestinationEntry{RealServer: netip.MustParseAddrPort("10.1.1.1:80")})
	}, nil))
	f.Fuzz(func(t *testing.T, msg []byte) {
		if e, err := ipvs.DecodeVirtualServer(msg); err == nil {
			e.Counters = ipvs.Counters{}
			again, err := ipvs.DecodeVirtualServer(reply(ipvs.TestAttrService, func(b *nlbatch.Batch) { ipvs.EncodeServer(b, e) }, nil))
			if err != nil || again != e {
				t.Errorf("%+v became %+v, %v", e, again, err)
			}
		}
		for _, family := range []model.Family{model.IPv4, model.IPv6} {
			if e, err := ipvs.DecodeDestination(msg, family); err == nil {
				spec := e
				spec.Active, spec.Inactive, spec.Persistent, spec.Counters = 0, 0, 0, ipvs.Counters{}
				again, err := ipvs.DecodeDestination(reply(ipvs.TestAttrDest, func(b *nlbatch.Batch) { ipvs.EncodeDestination(b, spec) }, nil), family)
				if err != nil || again != spec {
					t.Errorf("%+v became %+v, %v", spec, again, err)
				}
			}
		}
	})
}
