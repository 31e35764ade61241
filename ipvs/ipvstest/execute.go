package ipvstest

import (
	"math"
	"net/netip"
	"slices"
	"syscall"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/ipvs"
)

// execute does one command, with the kernel's checks in the kernel's order.
func (k *Kernel) execute(c ipvs.Command) error {
	if c.Key.IsDestination() {
		return k.destination(c)
	}
	return k.server(c)
}

func (k *Kernel) server(c ipvs.Command) error {
	vs := c.Key.VirtualServer
	there := k.servers[vs]
	switch {
	case c.Op == ipvs.Create && there != nil:
		return syscall.EEXIST
	case c.Op != ipvs.Create && there == nil:
		return syscall.ESRCH
	case c.Op == ipvs.Delete:
		delete(k.servers, vs)
		return nil
	}
	spec := c.Spec.VirtualServer
	if err := checkServer(vs.IPFamily(), spec); err != nil {
		return err
	}
	spec.Flags &^= hashed
	if there == nil {
		there = &server{
			dests: make(map[netip.AddrPort]ipvs.DestinationSpec),
			conns: make(map[netip.AddrPort]uint32),
		}
		k.servers[vs] = there
	}
	there.spec = spec
	return nil
}

// hashed is the flag that the kernel keeps for itself.
const hashed ipvs.Flags = 2

// longestName is the longest scheduler or persistence engine name.
const longestName = 15

// checkServer does not know persistence without a port, flags that mean
// nothing to the scheduler, one-packet scheduling of TCP or a timeout of 0:
// the kernel has no rule about them.
func checkServer(family model.Family, spec ipvs.VirtualServerSpec) error {
	switch {
	case len(spec.Scheduler) > longestName, len(spec.PEName) > longestName:
		return syscall.EINVAL
	case spec.Scheduler != "none" && !slices.Contains(schedulers(), spec.Scheduler):
		return syscall.ENOENT
	case spec.PEName != "" && spec.PEName != "sip":
		return syscall.ENOENT
	case family == model.IPv6 && (spec.Netmask < 1 || spec.Netmask > 128):
		return syscall.EINVAL
	}
	return nil
}

// schedulers are those of the kernel we test against, which has no twos.
func schedulers() []string {
	return slices.DeleteFunc(ipvs.Schedulers(), func(s string) bool { return s == "twos" })
}

func (k *Kernel) destination(c ipvs.Command) error {
	s := k.servers[c.Key.VirtualServer]
	if s == nil {
		return syscall.ESRCH
	}
	a, spec := c.Key.RealServer, c.Spec.Destination
	if c.Op != ipvs.Delete {
		if err := checkDestination(c.Key, spec); err != nil {
			return err
		}
	}
	_, there := s.dests[a]
	switch {
	case c.Op == ipvs.Create && there:
		return syscall.EEXIST
	case c.Op != ipvs.Create && !there:
		return syscall.ENOENT
	case c.Op == ipvs.Create && !unicast(a.Addr()):
		return syscall.EINVAL
	case c.Op == ipvs.Delete:
		delete(s.dests, a)
		delete(s.conns, a)
		return nil
	}
	spec.Forward &= 7
	s.dests[a] = spec
	return nil
}

func checkDestination(key ipvs.Key, spec ipvs.DestinationSpec) error {
	switch {
	case model.FamilyOf(key.RealServer.Addr()) != key.IPFamily() && spec.Forward != ipvs.ForwardTunnel:
		return syscall.EINVAL
	case spec.Weight > math.MaxInt32:
		return syscall.ERANGE
	case spec.LowerThreshold > spec.UpperThreshold:
		return syscall.ERANGE
	case spec.Tunnel.Type == ipvs.GUE && spec.Tunnel.Port == 0:
		return syscall.EINVAL
	}
	return nil
}

// unicast is the kernel's view of an address it has no route for. Broadcast
// addresses of its own networks it refuses too; we have none.
func unicast(a netip.Addr) bool {
	if a.Is4() {
		return !a.IsMulticast() && !a.IsUnspecified() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
	}
	return !a.IsMulticast() && !a.IsUnspecified() && !a.IsLinkLocalUnicast()
}
