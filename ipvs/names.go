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

// SystemNames finds names as ipvsadm without -n does: in /etc/services, and by
// reverse look-up of addresses, which may take the resolver's timeout each.
type SystemNames struct {
	ctx   context.Context // Names is a look-up inside one listing
	ports map[portKey]string
	hosts map[netip.Addr]string
}

type portKey struct {
	port     uint16
	protocol string
}

var _ Names = (*SystemNames)(nil)

// NewSystemNames reads /etc/services; without that file ports stay numbers.
// The context bounds the look-ups of addresses; after it they stay numbers.
func NewSystemNames(ctx context.Context) (*SystemNames, error) {
	n := &SystemNames{ctx: ctx, hosts: make(map[netip.Addr]string)}
	text, err := os.ReadFile(servicesFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	n.ports = parseServices(string(text))
	return n, nil
}

// parseServices reads "http 80/tcp www # comment". The first name of a port is
// its name.
func parseServices(text string) map[portKey]string {
	ports := make(map[portKey]string)
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
		if _, named := ports[k]; !named {
			ports[k] = fields[0]
		}
	}
	return ports
}

// Service implements Names.
func (n *SystemNames) Service(port uint16, protocol model.Protocol) string {
	return n.ports[portKey{port, strings.ToLower(protocol.String())}]
}

// Host implements Names. Each address is looked up once.
func (n *SystemNames) Host(addr netip.Addr) string {
	name, known := n.hosts[addr]
	if known {
		return name
	}
	names, err := net.DefaultResolver.LookupAddr(n.ctx, addr.String())
	if err == nil && len(names) > 0 {
		name = strings.TrimSuffix(names[0], ".")
	}
	n.hosts[addr] = name
	return name
}
