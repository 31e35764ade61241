package bgp

import (
	"fmt"
	"time"
)

const (
	// firstWait is how long a route stays away that is told again soon after
	// it was withdrawn; it doubles from flap to flap.
	firstWait = time.Second
	// longestWait is the most that it stays away.
	longestWait = 30 * time.Second
	// peace is how long nothing has to happen for flaps to be forgotten.
	peace = 5 * time.Minute
)

// damp holds back an address's routes while they flap, so that routers are
// spared and damp nothing themselves, which takes them minutes to get over. It
// delays additions alone. The first is not delayed; one after a withdrawal
// waits until firstWait after it, and twice as long each time until nothing has
// happened for the time of peace. The wait begins with the withdrawal: what was
// gone for longer comes back at once.
//
// Attributes and peers that come and go are no flaps, nor is what somebody
// asked for: a node that is no longer drained waits for firstWait at most. The
// zero value has never told anything.
type damp struct {
	told    bool
	flaps   uint8     // withdrawals without peace between them
	changed time.Time // when it was last told or withdrawn
}

// due is when the route may be told; zero: at once.
func (d damp) due() time.Time {
	if d.told || d.flaps == 0 {
		return time.Time{}
	}
	return d.changed.Add(d.wait())
}

// hold says why an address that this node leads traffic to is not told yet, and
// until when if time is all that it takes. "": it is told.
func (d damp) hold(now time.Time, programmed bool) (why string, until time.Time) {
	switch due := d.due(); {
	case d.told:
		return "", time.Time{}
	case !programmed:
		return "waits until this node's tables have all that the address needs", time.Time{}
	case now.Before(due):
		return fmt.Sprintf("waits for %v until %s, because it flaps", d.wait(), due.Format(time.TimeOnly)), due
	}
	return "", time.Time{}
}

// after is the state after the address was decided on.
func (d damp) after(now time.Time, told, drained bool) damp {
	switch {
	case told:
		return d.tell(now)
	case drained:
		return d.withdraw(now).calm()
	}
	return d.withdraw(now)
}

// wait is how long the route stays away.
func (d damp) wait() time.Duration {
	const doublings = 5 // the next one would pass the longest wait
	return min(firstWait<<min(d.flaps-1, doublings), longestWait)
}

// tell is the state after the route was told.
func (d damp) tell(now time.Time) damp {
	switch {
	case d.told:
		return d
	case now.Sub(d.changed) >= peace:
		d.flaps = 0
	}
	d.told, d.changed = true, now
	return d
}

// withdraw is the state after the route was withdrawn.
func (d damp) withdraw(now time.Time) damp {
	const enough = 10 // flaps; more make no difference
	switch {
	case !d.told:
		return d
	case now.Sub(d.changed) >= peace:
		d.flaps = 1
	default:
		d.flaps = min(d.flaps+1, enough)
	}
	d.told, d.changed = false, now
	return d
}

// calm is the state when it is on purpose that the route is away.
func (d damp) calm() damp {
	d.flaps = min(d.flaps, 1)
	return d
}
