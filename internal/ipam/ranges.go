package ipam

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"slices"

	"sluice.dev/sluice/internal/model"
)

// rangeOf are the addresses of a prefix.
func rangeOf(p netip.Prefix) model.AddrRange {
	first := p.Masked().Addr()
	raw := first.AsSlice()
	for bit := p.Bits(); bit < len(raw)*8; bit++ {
		raw[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(raw)
	return model.AddrRange{First: first, Last: last}
}

func single(a netip.Addr) model.AddrRange { return model.AddrRange{First: a, Last: a} }

func sortRanges(r []model.AddrRange) {
	slices.SortFunc(r, func(a, b model.AddrRange) int {
		return cmp.Or(a.First.Compare(b.First), a.Last.Compare(b.Last))
	})
}

// overlap is what two ranges have in common.
func overlap(a, b model.AddrRange) (model.AddrRange, bool) {
	if model.FamilyOf(a.First) != model.FamilyOf(b.First) {
		return model.AddrRange{}, false
	}
	both := a
	if both.First.Less(b.First) {
		both.First = b.First
	}
	if b.Last.Less(both.Last) {
		both.Last = b.Last
	}
	return both, both.First.Compare(both.Last) <= 0
}

// without is what remains of a range when others, in any order, are cut out.
func without(r model.AddrRange, cuts []model.AddrRange) []model.AddrRange {
	var rest []model.AddrRange
	cuts = slices.Clone(cuts)
	sortRanges(cuts)
	for _, c := range cuts {
		both, ok := overlap(r, c)
		if !ok {
			continue
		}
		if r.First.Less(both.First) {
			rest = append(rest, model.AddrRange{First: r.First, Last: both.First.Prev()})
		}
		if both.Last == r.Last {
			return rest
		}
		r.First = both.Last.Next()
	}
	return append(rest, r)
}

// size is how many addresses a range has, at most math.MaxInt64.
func size(r model.AddrRange) int64 {
	firstHigh, firstLow := halves(r.First)
	lastHigh, lastLow := halves(r.Last)
	low, borrow := bits.Sub64(lastLow, firstLow, 0)
	high, _ := bits.Sub64(lastHigh, firstHigh, borrow)
	if high > 0 || low >= math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(low) + 1
}

func halves(a netip.Addr) (high, low uint64) {
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}

// buggy reports whether some old devices take an address for a network's or a
// broadcast address.
func buggy(a netip.Addr) bool {
	if !a.Is4() {
		return false
	}
	last := a.As4()[3]
	return last == 0 || last == 255
}

// buggyIn counts the buggy addresses of a range.
func buggyIn(r model.AddrRange) int64 {
	if !r.First.Is4() {
		return 0
	}
	upTo := func(n uint64) int64 { // of the addresses 0 to n-1
		blocks, rest := n/256, n%256
		return int64(2*blocks + min(rest, 1))
	}
	_, first := halves(r.First)
	_, last := halves(r.Last)
	return upTo(last&math.MaxUint32+1) - upTo(first&math.MaxUint32)
}

// addSaturated adds two counts.
func addSaturated(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// text is a range as pools have it.
func text(r model.AddrRange) string {
	if r.First == r.Last {
		return r.First.String()
	}
	return r.First.String() + "-" + r.Last.String()
}
