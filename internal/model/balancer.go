package model

import (
	"net/netip"
	"time"
)

// Balancer is what a Service asks of whoever gives it its load-balancer
// addresses, and what it has got.
type Balancer struct {
	Wanted bool   // spec.type: LoadBalancer
	Class  string // spec.loadBalancerClass; "": whoever is the default

	// Status are the addresses in status.loadBalancer, of whatever ipMode.
	Status []netip.Addr
	// Requested are the addresses asked for by name: spec.loadBalancerIP or
	// an annotation. None: any.
	Requested []netip.Addr
	// Unclear says that addresses were asked for in a way that cannot be read.
	// Nothing is allocated then, and what the Service has stays.
	Unclear bool
	// Withheld says that no address of the Service may be served: it asks for
	// source ranges, and none of them can be used.
	Withheld bool
	Pool     string // annotation: the only pool that addresses may come from
	// SharingKey allows one address for several Services that have the same
	// key, if their ports differ. "": the address is the Service's alone.
	SharingKey string
	// Reallocate asks, each time its value changes, for the addresses to be
	// allocated anew; see package ipam.
	Reallocate string

	Families  []Family // spec.ipFamilies, in order
	DualStack DualStack
}

// DualStack is spec.ipFamilyPolicy.
type DualStack uint8

// The policies.
const (
	SingleStack      DualStack = iota
	PreferDualStack            // one family will do
	RequireDualStack           // both or none
)

// AddressPool is a set of addresses that load-balancer IPs are taken from.
type AddressPool struct {
	Name    string
	UID     string
	Created time.Time
	Labels  map[string]string

	Ranges []AddrRange // ordered and disjoint
	// AvoidBuggyIPs leaves out the IPv4 addresses that end in .0 and .255,
	// which some old devices take for a network's or a broadcast address.
	AvoidBuggyIPs bool
	AutoAssign    bool // false: addresses are given only by name, of address or pool
	Disabled      bool // nothing new is given; what was given stays
	Priority      int  // lower is asked first

	// Namespaces and NamespaceSelectors: a Service's namespace has to be
	// named by either; ServiceSelectors: one of them has to match its labels.
	// None of a kind: no condition.
	Namespaces         []string
	NamespaceSelectors []Selector
	ServiceSelectors   []Selector
	// EnforceNamespaces applies the conditions on namespaces also to Services
	// that ask for the pool or an address of it by name.
	EnforceNamespaces bool
}

// AddrRange are the addresses from First to Last, both included and of one
// family.
type AddrRange struct{ First, Last netip.Addr }

// Contains reports whether an address is in the range.
func (r AddrRange) Contains(a netip.Addr) bool {
	return FamilyOf(a) == FamilyOf(r.First) && r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
}

// Contains reports whether an address is in one of the pool's ranges.
func (p AddressPool) Contains(a netip.Addr) bool {
	for _, r := range p.Ranges {
		if r.Contains(a) {
			return true
		}
	}
	return false
}

// Namespace is a Namespace.
type Namespace struct {
	Name   string
	Labels map[string]string
}
