package ipam

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// Holder is a Service that has an address, by its UID too: a Service that was
// made anew under the same name is another one.
type Holder struct {
	Name model.Name
	UID  string
}

// String is the holder's name.
func (h Holder) String() string { return h.Name.String() }

// port is a port as Services that share an address must not have it twice.
type port struct {
	protocol model.Protocol
	number   uint16
}

// part is what a holder brings to an address that is shared.
type part struct {
	key   string
	ports []port // ordered
}

func partOf(s model.Service) part {
	p := part{key: s.Balancer.SharingKey, ports: make([]port, 0, len(s.Ports))}
	for _, sp := range s.Ports {
		p.ports = append(p.ports, port{sp.Protocol, sp.Port})
	}
	slices.SortFunc(p.ports, func(a, b port) int {
		return cmp.Or(cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.number, b.number))
	})
	p.ports = slices.Compact(p.ports)
	return p
}

func (p part) equal(o part) bool { return p.key == o.key && slices.Equal(p.ports, o.ports) }

// lease is an address that is taken, and by whom.
type lease struct {
	holders map[Holder]part
	ports   map[port]int   // how many holders have it
	keys    map[string]int // how many holders have it
	clashes int            // ports that several holders have
	filed   *file          // where those who share find it; nil: nowhere
}

func newLease() *lease {
	return &lease{holders: map[Holder]part{}, ports: map[port]int{}, keys: map[string]int{}}
}

func (l *lease) add(h Holder, p part) {
	l.remove(h)
	l.holders[h] = p
	l.keys[p.key]++
	for _, n := range p.ports {
		if l.ports[n]++; l.ports[n] == 2 {
			l.clashes++
		}
	}
}

func (l *lease) remove(h Holder) {
	p, held := l.holders[h]
	if !held {
		return
	}
	delete(l.holders, h)
	if l.keys[p.key]--; l.keys[p.key] == 0 {
		delete(l.keys, p.key)
	}
	for _, n := range p.ports {
		if l.ports[n]--; l.ports[n] == 1 {
			l.clashes--
		} else if l.ports[n] == 0 {
			delete(l.ports, n)
		}
	}
}

// contested reports whether holders have an address together that may not.
func (l *lease) contested() bool {
	return len(l.holders) > 1 && (len(l.keys) > 1 || l.keys[""] > 0 || l.clashes > 0)
}

// admits reports whether somebody may join the holders: all have the same key,
// and nobody has one of its ports. Neither the namespace nor the traffic policy
// is asked, as in MetalLB: the key is the agreement, and where Services of policy
// Local share an address it is advertised by the nodes that serve all of them.
func (l *lease) admits(h Holder, p part) bool {
	for other, has := range l.holders {
		if other != h && (has.key != p.key || has.key == "") {
			return false
		}
	}
	for _, n := range p.ports {
		if others := l.ports[n]; others > 1 || others == 1 && !l.holderHas(h, n) {
			return false
		}
	}
	return true
}

func (l *lease) holderHas(h Holder, n port) bool { return slices.Contains(l.holders[h].ports, n) }

// file is the addresses of one pool, family and key with the same ports in use,
// so that a Service that shares finds the lowest that has room for it without
// asking each.
type file struct {
	drawer drawer
	ports  string
	addrs  minSet[netip.Addr]
}

// drawer is what Services that share look into.
type drawer struct {
	pool   string
	family model.Family
	key    string
}

// portText makes ports a key of a map: three bytes for each.
func portText(ports []port) string {
	var b strings.Builder
	for _, p := range ports {
		b.Write([]byte{byte(p.protocol), byte(p.number >> 8), byte(p.number)})
	}
	return b.String()
}

// clash reports whether ports are among those of a portText.
func clash(ports []port, text string) bool {
	for i := 0; i+2 < len(text); i += 3 {
		if slices.Contains(ports, portAt(text, i)) {
			return true
		}
	}
	return false
}

// has reports whether one of the ports of a portText is in use.
func (l *lease) has(text string) bool {
	for i := 0; i+2 < len(text); i += 3 {
		if l.ports[portAt(text, i)] > 0 {
			return true
		}
	}
	return false
}

func portAt(text string, i int) port {
	return port{model.Protocol(text[i]), uint16(text[i+1])<<8 | uint16(text[i+2])}
}

// cabinet holds the files.
type cabinet map[drawer]map[string]*file

// put files an address, or takes it out when nobody may join its holders.
func (c cabinet) put(a netip.Addr, l *lease, poolName string) {
	c.drop(a, l)
	if poolName == "" || len(l.keys) != 1 || l.keys[""] > 0 || l.clashes > 0 {
		return
	}
	d := drawer{pool: poolName, family: model.FamilyOf(a)}
	for d.key = range l.keys {
	}
	ports := make([]port, 0, len(l.ports))
	for n := range l.ports {
		ports = append(ports, n)
	}
	slices.SortFunc(ports, func(a, b port) int {
		return cmp.Or(cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.number, b.number))
	})
	name := portText(ports)
	if c[d] == nil {
		c[d] = map[string]*file{}
	}
	f := c[d][name]
	if f == nil {
		f = &file{drawer: d, ports: name, addrs: newMinSet(netip.Addr.Less)}
		c[d][name] = f
	}
	f.addrs.add(a)
	l.filed = f
}

func (c cabinet) drop(a netip.Addr, l *lease) {
	f := l.filed
	if f == nil {
		return
	}
	l.filed = nil
	f.addrs.remove(a)
	if f.addrs.len() > 0 {
		return
	}
	delete(c[f.drawer], f.ports)
	if len(c[f.drawer]) == 0 {
		delete(c, f.drawer)
	}
}

// find is the lowest address in a drawer whose ports are not among these.
func (c cabinet) find(d drawer, ports []port, work *int) (netip.Addr, bool) {
	var best netip.Addr
	for _, f := range c[d] {
		*work++
		if clash(ports, f.ports) {
			continue
		}
		if a, ok := f.addrs.min(); ok && (!best.IsValid() || a.Less(best)) {
			best = a
		}
	}
	return best, best.IsValid()
}
