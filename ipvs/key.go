package ipvs

import (
	"fmt"
	"net/netip"
	"syscall"

	"sluice.dev/sluice/internal/model"
)

// VirtualServer names a virtual server. It has two forms: an address, port and
// protocol, or a firewall mark and a family. What the one form uses is zero in
// the other, so that == is identity.
type VirtualServer struct {
	Addr     netip.AddrPort
	Protocol model.Protocol

	Mark   uint32       // not 0: a firewall-mark service
	Family model.Family // of a firewall-mark service; otherwise 0
}

// IPFamily is the server's family in either form.
func (v VirtualServer) IPFamily() model.Family {
	if v.Mark != 0 {
		return v.Family
	}
	return model.FamilyOf(v.Addr.Addr())
}

// String is "TCP 10.96.0.1:443", "FWM 78" or "FWM 79 IPv6".
func (v VirtualServer) String() string {
	switch {
	case v.Mark == 0:
		return fmt.Sprintf("%s %s", v.Protocol, v.Addr)
	case v.Family == model.IPv6:
		return fmt.Sprintf("FWM %d IPv6", v.Mark)
	}
	return fmt.Sprintf("FWM %d", v.Mark)
}

// validate refuses what the wire has no form for, and addresses that no key of
// ours may have.
func (v VirtualServer) validate() error {
	if err := v.ValidateRead(); err != nil || v.Mark != 0 {
		return err
	}
	return validateAddr(v.Addr)
}

// ValidateRead refuses, with EINVAL, what cannot be asked for. Unlike in a
// command, an address may be of the 4-in-6 form: a foreigner's may be.
func (v VirtualServer) ValidateRead() error {
	if v.Mark != 0 {
		if v.Addr != (netip.AddrPort{}) || v.Protocol != 0 || (v.Family != model.IPv4 && v.Family != model.IPv6) {
			return fmt.Errorf("firewall-mark service %d needs a family and nothing else: %w", v.Mark, syscall.EINVAL)
		}
		return nil
	}
	if v.Family != 0 || v.Protocol == 0 {
		return fmt.Errorf("virtual server %s needs an address, a port and a protocol: %w", v, syscall.EINVAL)
	}
	if !v.Addr.IsValid() || v.Addr.Addr().Zone() != "" {
		return fmt.Errorf("address %q: %w", v.Addr.String(), syscall.EINVAL)
	}
	return nil
}

// Key names one entry of the table: a virtual server, or one of its
// destinations when RealServer is not the zero value.
type Key struct {
	VirtualServer
	RealServer netip.AddrPort
}

// IsDestination reports whether the key names a destination.
func (k Key) IsDestination() bool { return k.RealServer != netip.AddrPort{} }

// String is the virtual server, and " -> " and the real server.
func (k Key) String() string {
	if !k.IsDestination() {
		return k.VirtualServer.String()
	}
	return k.VirtualServer.String() + " -> " + k.RealServer.String()
}

// subject is the key as errors name it.
func (k Key) subject() string {
	if !k.IsDestination() {
		return "virtual server " + k.String()
	}
	return "destination " + k.RealServer.String() + " of " + k.VirtualServer.String()
}

func (k Key) validate() error {
	if err := k.VirtualServer.validate(); err != nil {
		return err
	}
	if !k.IsDestination() {
		return nil
	}
	return validateAddr(k.RealServer)
}

// validateAddr refuses zones and the 4-in-6 form, which would make two keys of
// one address.
func validateAddr(a netip.AddrPort) error {
	if !a.IsValid() || a.Addr().Is4In6() || a.Addr().Zone() != "" {
		return fmt.Errorf("address %q: %w", a.String(), syscall.EINVAL)
	}
	return nil
}
