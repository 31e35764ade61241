package sysctl

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Bridges finds the bridges of this host that pods sit on. Packets between two
// ports of a bridge pass no rule unless the kernel is told to show them to
// iptables, and with them everything that policy denies.
type Bridges struct {
	Root string // the directory that has the host's sys and proc: "/"
	// Pods are the addresses of this node's pods; nil: none is known.
	Pods func() []netip.Addr
}

// Settings are the switches that bridged packets of pods need to be judged by
// rules; none where no pod sits on a bridge.
func (b Bridges) Settings() ([]Setting, error) {
	names, err := b.names()
	if err != nil || len(names) == 0 {
		return nil, err
	}
	why := "pods sit on bridge " + strings.Join(names, ", ") + ", and packets between them would pass no NetworkPolicy"
	var settings []Setting
	for _, name := range []string{"iptables", "ip6tables"} {
		settings = append(settings, Setting{
			Path: "net/bridge/bridge-nf-call-" + name, Value: "1", Why: why, Module: "br_netfilter", VitalTo: Policies,
		})
	}
	return settings, nil
}

// names are the bridges that pods sit on: those with a port that may be a veth,
// and those that are in one network with a pod of this node.
func (b Bridges) names() ([]string, error) {
	devices, err := os.ReadDir(b.device())
	if err != nil {
		return nil, fmt.Errorf("cannot tell whether pods sit on a bridge: %w; the agent needs the host's /sys", err)
	}
	var pods []netip.Addr
	if b.Pods != nil {
		pods = b.Pods()
	}
	var names []string
	for _, d := range devices { // in order of their names
		name := d.Name()
		if _, err := os.Stat(b.device(name, "bridge")); err != nil {
			continue
		}
		veths, err := b.hasVeth(name)
		if err != nil {
			return nil, err
		}
		if veths || slices.ContainsFunc(b.networks(name), func(n netip.Prefix) bool { return slices.ContainsFunc(pods, n.Contains) }) {
			names = append(names, name)
		}
	}
	return names, nil
}

// device is a file of a network device, or the directory of all.
func (b Bridges) device(path ...string) string {
	return filepath.Join(append([]string{b.Root, "sys/class/net"}, path...)...)
}

func (b Bridges) hasVeth(bridge string) (bool, error) {
	ports, err := os.ReadDir(b.device(bridge, "brif"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // it has gone since
		return false, fmt.Errorf("cannot tell whether pods sit on bridge %s: %w", bridge, err)
	}
	return slices.ContainsFunc(ports, func(port fs.DirEntry) bool { return b.isVeth(port.Name()) }), nil
}

// isVeth reports whether a device is an end of a veth pair, of which /sys has no
// word. It is an Ethernet device without a kind (DEVTYPE), without hardware,
// without a device below it, that resolves addresses, is no tap, and has a peer.
func (b Bridges) isVeth(name string) bool {
	for _, not := range []string{"device", "tun_flags"} {
		if _, err := os.Stat(b.device(name, not)); err == nil {
			return false
		}
	}
	if below, err := filepath.Glob(b.device(name, "lower_*")); err != nil || len(below) > 0 {
		return false
	}
	uevent, err := read(b.device(name, "uevent"))
	if err != nil || strings.Contains(uevent, "DEVTYPE=") {
		return false
	}
	const ethernet, noARP = 1, 0x80
	return b.number(name, "type") == ethernet && b.number(name, "flags")&noARP == 0 && b.number(name, "iflink") != 0
}

// number is a device's file with a number in it; 0: it has none.
func (b Bridges) number(device, file string) uint64 {
	text, err := read(b.device(device, file))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(text, 0, 64)
	if err != nil {
		return 0
	}
	return n
}

// networks are what a device says it is directly in, of both families.
func (b Bridges) networks(device string) []netip.Prefix {
	return append(b.networks4(device), b.networks6(device)...)
}

// networks4 are a device's routes without a gateway, from lines of
// "Iface Destination Gateway Flags RefCnt Use Metric Mask ...".
func (b Bridges) networks4(device string) (list []netip.Prefix) {
	for _, line := range b.lines("proc/net/route") {
		f := strings.Fields(line)
		if len(f) < 8 || f[0] != device || f[2] != "00000000" {
			continue
		}
		destination, err := address4(f[1])
		if err != nil {
			continue
		}
		mask, err := address4(f[7])
		if err != nil {
			continue
		}
		ones := 0
		for m := binary.BigEndian.Uint32(mask.AsSlice()); m&(1<<31) != 0; m <<= 1 {
			ones++
		}
		if ones > 0 { // a default route is no network
			list = append(list, netip.PrefixFrom(destination, ones))
		}
	}
	return list
}

// address4 reads an address that the kernel has printed as a number, in the
// machine's byte order.
func address4(text string) (netip.Addr, error) {
	n, err := strconv.ParseUint(text, 16, 32)
	var bytes [4]byte
	binary.NativeEndian.PutUint32(bytes[:], uint32(n))
	return netip.AddrFrom4(bytes), err
}

// networks6 are those of a device's addresses, from lines of
// "address index length scope flags name", numbers in hex.
func (b Bridges) networks6(device string) (list []netip.Prefix) {
	for _, line := range b.lines("proc/net/if_inet6") {
		f := strings.Fields(line)
		if len(f) != 6 || f[5] != device {
			continue
		}
		bytes, err := hex.DecodeString(f[0])
		if err != nil || len(bytes) != 16 {
			continue
		}
		length, err := strconv.ParseUint(f[2], 16, 8)
		if err != nil {
			continue
		}
		if p, err := netip.AddrFrom16([16]byte(bytes)).Prefix(int(length)); err == nil {
			list = append(list, p)
		}
	}
	return list
}

// lines are a file's; none of one that is not there, as without IPv6.
func (b Bridges) lines(path string) []string {
	text, err := read(filepath.Join(b.Root, path))
	if err != nil {
		return nil
	}
	return strings.Split(text, "\n")
}
