package convert

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"

	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/model"
)

var (
	errNotRange  = errors.New("is neither a CIDR nor a range of addresses")
	errMixed     = errors.New("begins and ends in different families")
	errBackwards = errors.New("ends before it begins")
	errMapped    = errors.New("is an IPv4 address in the form of an IPv6 one")
)

// AddressPool is an AddressPool. A range that cannot be read is left out, the
// others stay: fewer addresses harm nobody who has one already. A selector that
// cannot be read makes the whole pool unusable, since without it others would
// be given its addresses; so does a pool without a single range.
func AddressPool(p *v1alpha1.AddressPool) (pool model.AddressPool, ok bool, problems []model.Problem) {
	r := newReport(AddressPoolKind, &p.ObjectMeta)
	pool = model.AddressPool{
		Name:          p.Name,
		UID:           string(p.UID),
		Created:       p.CreationTimestamp.Time,
		Labels:        maps.Clone(p.Labels),
		Ranges:        ranges(p.Spec.Addresses, r),
		AvoidBuggyIPs: p.Spec.AvoidBuggyIPs,
		AutoAssign:    p.Spec.AutoAssign == nil || *p.Spec.AutoAssign,
		Disabled:      p.Spec.Disabled,
	}
	if len(p.Spec.Addresses) == 0 {
		r.add(InvalidRange, "spec.addresses", "", "holds no address", remedyRange)
	}
	if !allocation(&pool, p.Spec.ServiceAllocation, r) || len(pool.Ranges) == 0 {
		return model.AddressPool{}, false, r.list()
	}
	return pool, true, r.list()
}

// allocation reads which Services may have an address. false: somebody might
// be given one who may not.
func allocation(pool *model.AddressPool, given *v1alpha1.ServiceAllocation, r *report) (ok bool) {
	if given == nil {
		given = &v1alpha1.ServiceAllocation{}
	}
	const field = "spec.serviceAllocation."
	before := r.count()
	pool.Priority = int(given.Priority)
	switch {
	case given.Priority == 0: // as in MetalLB: those without come last
		pool.Priority = math.MaxInt32
	case given.Priority < 0:
		r.add(InvalidPriority, field+"priority", given.Priority, "is negative", "use 1 for the pool that is asked first, a higher number for later ones, or remove it")
	}
	pool.Namespaces = names(given.Namespaces, field+"namespaces", r)
	pool.NamespaceSelectors = selectors(given.NamespaceSelectors, field+"namespaceSelectors", r)
	pool.ServiceSelectors = selectors(given.ServiceSelectors, field+"serviceSelectors", r)
	pool.EnforceNamespaces = given.EnforceNamespaces
	return r.count() == before
}

// ranges reads the ranges of a pool, in order and without overlaps.
func ranges(given []v1alpha1.AddressRange, r *report) []model.AddrRange {
	var list []model.AddrRange
	for i, text := range given {
		a, err := parseRange(string(text))
		if err != nil {
			r.add(InvalidRange, fmt.Sprintf("spec.addresses[%d]", i), text, err.Error(), remedyRange+"; until then it is left out")
			continue
		}
		list = append(list, a)
	}
	return merge(list)
}

// merge sorts ranges and joins those that overlap or follow each other. The list
// given is changed.
func merge(list []model.AddrRange) []model.AddrRange {
	slices.SortFunc(list, func(a, b model.AddrRange) int { return a.First.Compare(b.First) })
	var merged []model.AddrRange
	for _, next := range list {
		if n := len(merged) - 1; n >= 0 && joins(merged[n], next) {
			if merged[n].Last.Less(next.Last) {
				merged[n].Last = next.Last
			}
			continue
		}
		merged = append(merged, next)
	}
	return merged
}

// joins reports whether there is no gap between a range and one that does not
// begin before it.
func joins(a, b model.AddrRange) bool {
	return a.Contains(b.First) || a.Last.Next() == b.First // the last address of a family has no next
}

// parseRange reads a CIDR, whose host bits are cleared, or a first and a last
// address.
func parseRange(text string) (model.AddrRange, error) {
	a, err := parseBounds(text)
	switch {
	case err != nil:
		return model.AddrRange{}, err
	case model.FamilyOf(a.First) != model.FamilyOf(a.Last):
		return model.AddrRange{}, errMixed
	case a.Last.Less(a.First):
		return model.AddrRange{}, errBackwards
	}
	for _, block := range notForHosts() {
		if a.Contains(block.Addr()) || block.Contains(a.First) {
			return model.AddrRange{}, fmt.Errorf("holds addresses of %s, which no Service can have", block)
		}
	}
	return a, nil
}

func parseBounds(text string) (a model.AddrRange, err error) {
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		p, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			return model.AddrRange{}, errNotRange
		case p.Addr().Is4In6():
			return model.AddrRange{}, errMapped
		}
		return model.AddrRange{First: p.Masked().Addr(), Last: lastOf(p)}, nil
	}
	if a.First, err = parseStrict(strings.TrimSpace(first)); err != nil {
		return model.AddrRange{}, fmt.Errorf("has a first address that %w", err)
	}
	if a.Last, err = parseStrict(strings.TrimSpace(last)); err != nil {
		return model.AddrRange{}, fmt.Errorf("has a last address that %w", err)
	}
	return a, nil
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	bytes := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 1 << (7 - bit%8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return last
}

// parseStrict reads an address in the forms that mean the same to everyone. What
// our own kinds say was never read in another way, so there is nothing to be
// lenient to.
func parseStrict(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		return netip.Addr{}, errNotAddress
	case a.Zone() != "":
		return netip.Addr{}, errZone
	case a.Is4In6():
		return netip.Addr{}, errMapped
	}
	return a, nil
}

// notForHosts are the blocks of which no address can be a Service's.
func notForHosts() []netip.Prefix {
	return []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{}), 8),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{169, 254}), 16),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{224}), 4),
		netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), 32),
		netip.PrefixFrom(netip.IPv6Unspecified(), 128),
		netip.PrefixFrom(netip.IPv6Loopback(), 128),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff}), 96),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfe, 0x80}), 10),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0xff}), 8),
	}
}
