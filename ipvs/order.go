package ipvs

import (
	"cmp"
	"net/netip"
	"slices"
)

// mergeSort sorts a copy the way glibc's qsort does, comparison by comparison.
// ipvsadm subtracts 32-bit numbers to compare them, which overflows for
// addresses more than half the address space apart: 203.0.113.10 comes before
// 10.96.0.1. Such an order is circular (a before b before c before a), so that
// what comes out depends on the algorithm and on the order that goes in.
func mergeSort[T any](in []T, compare func(a, b T) int32) []T {
	out := slices.Clone(in)
	mergeInto(out, slices.Clone(in), compare)
	return out
}

// mergeInto sorts a, using tmp of the same length.
func mergeInto[T any](a, tmp []T, compare func(a, b T) int32) {
	if len(a) <= 1 {
		return
	}
	half := len(a) / 2
	left, right := a[:half], a[half:]
	mergeInto(left, tmp[:half], compare)
	mergeInto(right, tmp[half:], compare)
	merged := tmp[:0]
	for len(left) > 0 && len(right) > 0 {
		if compare(left[0], right[0]) <= 0 {
			merged, left = append(merged, left[0]), left[1:]
		} else {
			merged, right = append(merged, right[0]), right[1:]
		}
	}
	merged = append(append(merged, left...), right...)
	copy(a, merged)
}

// compareServers orders by mark, family, protocol, address and port.
func compareServers(a, b ListedServer) int32 {
	return cmp.Or(
		overflowing(a.Mark, b.Mark),
		int32(a.IPFamily())-int32(b.IPFamily()),
		int32(a.Protocol)-int32(b.Protocol),
		compareAddrs(a.Addr.Addr(), b.Addr.Addr()),
		int32(a.Addr.Port())-int32(b.Addr.Port()))
}

// compareDestinations orders by address and port.
func compareDestinations(a, b DestinationEntry) int32 {
	return cmp.Or(
		compareAddrs(a.RealServer.Addr(), b.RealServer.Addr()),
		int32(a.RealServer.Port())-int32(b.RealServer.Port()))
}

// compareAddrs compares 32 bits at a time, as many as a has. Where families
// are mixed (tunnels), an IPv4 address counts as the first 32 of 128 bits.
func compareAddrs(a, b netip.Addr) int32 {
	x, y := words(a), words(b)
	n := len(x)
	if a.Is4() {
		n = 1
	}
	for i := range n {
		if d := overflowing(x[i], y[i]); d != 0 {
			return d
		}
	}
	return 0
}

func words(a netip.Addr) (w [4]uint32) {
	for i, b := range a.AsSlice() {
		w[i/4] = w[i/4]<<8 | uint32(b)
	}
	return w
}

// overflowing is C's int r = a - b of unsigned numbers.
func overflowing(a, b uint32) int32 { return int32(a - b) } // the point of it
