package ipvs

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// servicesFile is where ports have their names.
const servicesFile = "/etc/services"

// keptHosts bounds how many names of addresses are remembered: a table of
// connections names as many as there are clients.
const keptHosts = 4096

// SystemNames finds names as ipvsadm without -n does: in /etc/services, and by
// reverse look-up of addresses, which may take the resolver's timeout each. And
// it finds what they name.
type SystemNames struct {
	ctx   context.Context // Names is a look-up inside one listing
	ports map[portKey]string
	named map[nameKey]uint16
	hosts map[netip.Addr]string
}

type portKey struct {
	port     uint16
	protocol string
}

type nameKey struct{ name, protocol string }

var _ Names = (*SystemNames)(nil)

// NewSystemNames reads /etc/services; without that file ports stay numbers.
// The context bounds the look-ups of addresses; after it they stay numbers.
func NewSystemNames(ctx context.Context) (*SystemNames, error) {
	n := &SystemNames{ctx: ctx, hosts: make(map[netip.Addr]string)}
	text, err := os.ReadFile(servicesFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	n.ports, n.named = parseServices(string(text))
	return n, nil
}

// parseServices reads "http 80/tcp www # comment". The first name of a port is
// its name; each of its names is it, unless it was another's before.
func parseServices(text string) (map[portKey]string, map[nameKey]uint16) {
	ports, named := make(map[portKey]string), make(map[nameKey]uint16)
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		number, protocol, _ := strings.Cut(fields[1], "/")
		port, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			continue // not a line of that form; the C library skips it too
		}
		k := portKey{uint16(port), protocol}
		if _, known := ports[k]; !known {
			ports[k] = fields[0]
		}
		for _, name := range append(fields[2:], fields[0]) {
			k := nameKey{name, protocol}
			if _, known := named[k]; !known {
				named[k] = uint16(port)
			}
		}
	}
	return ports, named
}

// Service implements Names.
func (n *SystemNames) Service(port uint16, protocol model.Protocol) string {
	return n.ports[portKey{port, strings.ToLower(protocol.String())}]
}

// Port is the port of a name, if there is one.
func (n *SystemNames) Port(name string, protocol model.Protocol) (uint16, bool) {
	port, known := n.named[nameKey{name, strings.ToLower(protocol.String())}]
	return port, known
}

// Address is a host's first IPv4 address, if there is one: ipvsadm knows no
// names for others. In /etc/hosts the first is the first of the file.
func (n *SystemNames) Address(host string) (netip.Addr, bool) {
	found, err := net.DefaultResolver.LookupHost(n.ctx, host)
	if err != nil {
		return netip.Addr{}, false
	}
	for _, text := range found {
		if a, err := netip.ParseAddr(text); err == nil && a.Unmap().Is4() {
			return a.Unmap(), true
		}
	}
	return netip.Addr{}, false
}

// Host implements Names. An address is looked up once, as far as that can be
// remembered.
func (n *SystemNames) Host(addr netip.Addr) string {
	name, known := n.hosts[addr]
	if known {
		return name
	}
	names, err := net.DefaultResolver.LookupAddr(n.ctx, addr.String())
	if err == nil && len(names) > 0 {
		name = strings.TrimSuffix(names[0], ".")
	}
	if len(n.hosts) >= keptHosts {
		clear(n.hosts)
	}
	n.hosts[addr] = name
	return name
}
