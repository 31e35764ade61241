package nlbatch_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/nlbatch"
)

// Generic netlink: one command to a family, whose id is the message type. The
// fixed header is struct genlmsghdr: command, version, two zero bytes.
func Example_generic() {
	conn, err := nlbatch.Dial(unix.NETLINK_GENERIC)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	family, err := conn.Family(context.Background(), "IPVS")
	if err != nil {
		log.Fatal(err)
	}
	const cmdNewService, attrService, attrFamily, attrMark = 1, 1, 1, 5
	var b nlbatch.Batch
	b.Begin(family, 0, cmdNewService, 1, 0, 0)
	b.Nest(attrService)
	b.U16(attrFamily, unix.AF_INET)
	b.U32(attrMark, 7)
	b.End()
	for _, err := range conn.Do(context.Background(), &b) {
		fmt.Println(err)
	}
}

// Rtnetlink: addresses for a device. The fixed header is struct ifaddrmsg:
// family, prefix length, flags, scope, and the device's index as a native u32.
func Example_addresses() {
	conn, err := nlbatch.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	const device = 3
	var b nlbatch.Batch
	for _, addr := range []netip.Addr{netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("10.96.0.2")} {
		b.Begin(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
			unix.AF_INET, 32, 0, unix.RT_SCOPE_UNIVERSE, device, 0, 0, 0) // little-endian index
		b.Addr(unix.IFA_LOCAL, addr)
		b.Addr(unix.IFA_ADDRESS, addr)
	}
	for _, err := range conn.Do(context.Background(), &b) {
		fmt.Println(err) // errors.Is(err, unix.EEXIST): there already
	}
}

// Nfnetlink: entries for an ipset. The type is subsystem<<8 | command, the
// fixed header struct nfgenmsg: family, version, resource id. ipset wants
// multi-byte numbers in network order and marked so. One message may carry
// many entries (ADT), each then with its line number.
func Example_ipset() {
	conn, err := nlbatch.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	const (
		subsysIPSet, cmdAdd                                 = 6, 9
		attrProtocol, attrSetName, attrData                 = 1, 2, 7
		attrIP, attrPort, attrProto, attrIPv4, netByteOrder = 1, 4, 7, 1, unix.NLA_F_NET_BYTEORDER
	)
	var b nlbatch.Batch
	b.Begin(subsysIPSet<<8|cmdAdd, unix.NLM_F_EXCL, unix.AF_INET, 0, 0, 0)
	b.U8(attrProtocol, 7)
	b.String(attrSetName, "SLUICE-VIP")
	b.Nest(attrData)
	b.Nest(attrIP)
	b.Bytes(attrIPv4|netByteOrder, []byte{10, 96, 0, 1})
	b.End()
	b.BE16(attrPort|netByteOrder, 443)
	b.U8(attrProto, unix.IPPROTO_TCP)
	b.End()
	for _, err := range conn.Do(context.Background(), &b) {
		fmt.Println(err)
	}
}
