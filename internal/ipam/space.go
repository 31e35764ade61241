package ipam

import (
	"math"
	"net/netip"

	"sluice.dev/sluice/internal/model"
)

// space is what a pool can give of one family. It finds the lowest free address
// without looking at the others: whatever is free below next is in freed, and
// next never goes back.
//
//	first ........ next ................ last
//	taken, or in   |   not looked at yet
//	freed          |
//
// Nothing is kept of addresses that were never given.
type space struct {
	ranges []model.AddrRange // ordered and disjoint
	skip   bool              // the buggy ones
	at     int               // the range that next is in; len(ranges): all were looked at
	next   netip.Addr
	freed  minSet[netip.Addr]

	total    int64 // that can be given; at most math.MaxInt64
	used     int64 // of these
	assigned int64 // to Services, those included that would not be given again

	waiting minSet[turn] // Services that would take the next address, the oldest first
	work    *int         // addresses looked at
}

func newSpace(ranges []model.AddrRange, skip bool, work *int) *space {
	s := &space{
		ranges: ranges, skip: skip, work: work,
		freed:   newMinSet(netip.Addr.Less),
		waiting: newMinSet(turn.before),
	}
	for _, r := range ranges {
		n := size(r)
		if skip {
			n -= buggyIn(r)
		}
		s.total = addSaturated(s.total, n)
	}
	s.enter(0)
	return s
}

// enter puts next at the beginning of a range.
func (s *space) enter(i int) {
	s.at = i
	if i < len(s.ranges) {
		s.next = s.ranges[i].First
	}
}

// lowest is the lowest free address, if there is one. It stays free.
func (s *space) lowest(taken func(netip.Addr) bool) (netip.Addr, bool) {
	if a, ok := s.freed.min(); ok {
		*s.work++
		return a, true
	}
	for s.at < len(s.ranges) {
		*s.work++
		if skipped := s.skip && buggy(s.next); !skipped && !taken(s.next) {
			return s.next, true
		}
		if s.next == s.ranges[s.at].Last {
			s.enter(s.at + 1)
		} else {
			s.next = s.next.Next()
		}
	}
	return netip.Addr{}, false
}

// take says that a free address of the space is taken now.
func (s *space) take(a netip.Addr) {
	if s.skip && buggy(a) {
		return
	}
	s.used++
	s.freed.remove(a)
}

// free says that a taken address of the space is free now.
func (s *space) free(a netip.Addr) {
	if s.skip && buggy(a) {
		return
	}
	s.used--
	if s.at >= len(s.ranges) || a.Less(s.next) {
		s.freed.add(a)
	}
}

// available is how many addresses are free, at most math.MaxInt64.
func (s *space) available() int64 {
	if s.total == math.MaxInt64 {
		return s.total
	}
	return s.total - s.used
}
