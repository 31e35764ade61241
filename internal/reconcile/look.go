package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Standing is how one key of a table stands.
type Standing struct {
	Wanted  bool // somebody wants it there
	Present bool // it is believed to be
	Pending bool // it is not as wanted, or not known to be
	// Deferred: its deletion is under way and takes its time.
	Deferred bool
	// Failure is why a key that is pending could not be written; the zero
	// Failure: nobody has tried and failed.
	Failure Failure
}

// errUnlisted is why a loop that has just been started knows nothing.
var errUnlisted = errors.New("the table has not been listed yet")

// Look says how keys stand, and those under them (Options.GateOf) that are to
// go. A loop that waits for its kernel answers late.
func (l *Loop[O, K, V]) Look(ctx context.Context, keys []K) (map[K]Standing, error) {
	if !l.Status().Listed {
		return nil, fmt.Errorf("table %s: %w", l.opts.Name, errUnlisted)
	}
	standings := make(map[K]Standing, len(keys))
	err := l.questions.Ask(ctx, func() {
		for _, k := range keys {
			standings[k] = l.standing(k)
		}
		for k := range l.tracker.Dels() {
			if _, asked := standings[l.opts.GateOf(k)]; asked {
				standings[k] = l.standing(k)
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", l.opts.Name, l.late(err))
	}
	return standings, nil
}

// late says what keeps a loop from answering, if it is known.
func (l *Loop[O, K, V]) late(err error) error {
	since := l.Status().BusySince
	if since.IsZero() || errors.Is(err, ErrEnded) {
		return err
	}
	return fmt.Errorf("%w; a kernel call has not returned since %s", err, since.Format(time.TimeOnly))
}

func (l *Loop[O, K, V]) standing(k K) Standing {
	s := Standing{Wanted: l.wanted(k), Pending: l.tracker.Pending(k)}
	_, s.Present = l.tracker.Present(k)
	_, s.Deferred = l.deferred[k]
	if f, failing := l.failing[k]; failing {
		s.Failure = Failure{fmt.Sprint(k), f.err.Error(), f.since, f.tries}
	}
	return s
}
