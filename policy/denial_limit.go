package policy

import (
	"maps"
	"net/netip"
	"time"

	"sluice.dev/sluice/internal/model"
)

const (
	// flowsKept bounds the flows that are remembered, twice; with more, some
	// are reported more often than once in an interval.
	flowsKept = 4096
	// denialRate and denialBurst bound what all flows together report: a scan
	// of ports is a flow for each port.
	denialRate  = 50 // each second
	denialBurst = 500
	// deniedSeries bounds the policies that packets are counted by.
	deniedSeries = 1000
)

// flow is what is reported once in an interval: a connection without the
// client's port, of which every attempt has another.
type flow struct {
	side     string
	src      netip.Addr
	dst      netip.AddrPort
	protocol model.Protocol
}

// flowState is what is known of a flow.
type flowState struct {
	at         time.Time // of its last report; zero: none
	suppressed uint64    // packets since
	policies   []model.Name
}

// reported takes note of a report, and returns how many packets it stands for
// besides.
func (f *flowState) reported(at time.Time, policies []model.Name) (suppressed uint64) {
	suppressed = f.suppressed
	*f = flowState{at: at, policies: policies}
	return suppressed
}

// limiter says which packets are reported: of each flow the first at once and
// then at most one in an interval. It goes by the times of packets, not by a
// clock. Flows are in two generations, each of an interval or more: what was
// met in neither is forgotten, so that nothing has to be searched.
type limiter struct {
	interval     time.Duration
	young, old   map[flow]*flowState
	turned       time.Time // when young began
	tokens       float64
	tokensFilled time.Time
}

func newLimiter(interval time.Duration) *limiter {
	return &limiter{
		interval: interval, tokens: denialBurst,
		young: map[flow]*flowState{}, old: map[flow]*flowState{},
	}
}

// take looks a packet's flow up, and says whether the packet is to be reported.
// One that is not is suppressed.
func (l *limiter) take(key flow, at time.Time) (f *flowState, report bool) {
	if l.past(l.turned, at) || len(l.young) >= flowsKept {
		l.old, l.young, l.turned = l.young, map[flow]*flowState{}, at
	}
	f = l.young[key]
	if f == nil {
		if f = l.old[key]; f == nil {
			f = &flowState{}
		}
		l.young[key] = f
	}
	if l.past(f.at, at) && l.token(at) {
		return f, true
	}
	f.suppressed++
	return f, false
}

// past reports whether an interval has passed, or a clock was set back.
func (l *limiter) past(since, at time.Time) bool {
	return at.Sub(since) >= l.interval || at.Before(since)
}

// token takes what one report of all costs, if there is any left.
func (l *limiter) token(at time.Time) bool {
	if passed := at.Sub(l.tokensFilled); passed > 0 {
		l.tokens = min(l.tokens+passed.Seconds()*denialRate, denialBurst)
	}
	l.tokensFilled = at
	if l.tokens < 1 {
		return false
	}
	l.tokens--
	return true
}

// Denier is a policy whose isolation denied something on one side.
type Denier struct {
	Side   string // egress, ingress or revoked
	Policy model.Name
}

// DenialCounts count packets that the kernel has told of. It is told of a few
// packets of each flow only, so that they are less than it has refused.
type DenialCounts struct {
	Sides map[string]uint64 // all packets, by side
	// Policies counts a packet once for each policy that isolates the pod of
	// the side that denied it. Others is the packets that are in no count here
	// since there are too many policies.
	Policies map[Denier]uint64
	Others   uint64
}

func newDenialCounts() DenialCounts {
	c := DenialCounts{Sides: map[string]uint64{}, Policies: map[Denier]uint64{}}
	for _, side := range []string{DeniedEgress, DeniedIngress, DeniedUnknown, DeniedRevoked} {
		c.Sides[side] = 0 // to be seen before there are any
	}
	return c
}

func (c *DenialCounts) add(side string, policies []model.Name) {
	c.Sides[side]++
	missed := false
	for _, p := range policies {
		key := Denier{side, p}
		if _, there := c.Policies[key]; !there && len(c.Policies) >= deniedSeries {
			missed = true
			continue
		}
		c.Policies[key]++
	}
	if missed {
		c.Others++
	}
}

func (c DenialCounts) clone() DenialCounts {
	c.Sides, c.Policies = maps.Clone(c.Sides), maps.Clone(c.Policies)
	return c
}
