package ipvs

import (
	"testing"
	"time"

	"sluice.dev/sluice/internal/model"
)

func TestDrain(t *testing.T) {
	const limit = time.Minute
	for name, c := range map[string]struct {
		weight, active, inactive, persistent uint32
		protocol                             model.Protocol
		leaving, limit                       time.Duration
		want                                 step
	}{
		"in service":                  {1, 0, 0, 0, model.TCP, 0, limit, quiesce},
		"in service and connected":    {1, 5, 0, 0, model.SCTP, 0, limit, quiesce},
		"in service again by hand":    {1, 7, 3, 0, model.TCP, 2 * limit, limit, quiesce},
		"quiet and idle":              {0, 0, 0, 0, model.TCP, 0, limit, remove},
		"quiet and connected":         {0, 1, 0, 0, model.TCP, time.Second, limit, wait},
		"quiet, only in TIME_WAIT":    {0, 0, 3, 0, model.TCP, time.Second, limit, wait},
		"quiet, past its limit":       {0, 7, 3, 0, model.TCP, limit, limit, remove},
		"quiet, only clients bound":   {0, 0, 0, 9, model.TCP, time.Second, limit, remove},
		"UDP in service":              {1, 0, 9, 0, model.UDP, 0, limit, quiesce},
		"UDP, answers under way":      {0, 0, 9, 0, model.UDP, 0, limit, wait},
		"UDP never waits for more":    {0, 0, 9, 0, model.UDP, drainUDP, limit, remove},
		"nothing is drained":          {1, 7, 3, 0, model.TCP, 0, -1, remove},
		"nothing is drained, not UDP": {1, 0, 9, 0, model.UDP, 0, -1, remove},
	} {
		d := DestinationEntry{
			Spec: DestinationSpec{Weight: c.weight}, Active: c.active, Inactive: c.inactive, Persistent: c.persistent,
		}
		if got := drain(d, c.protocol, c.leaving, c.limit); got != c.want {
			t.Errorf("%s: step %d, want %d", name, got, c.want)
		}
	}
}

func TestDrainServer(t *testing.T) {
	for name, c := range map[string]struct {
		answers      bool
		destinations []step
		want         step
	}{
		"its address is gone":         {false, []step{wait, quiesce}, remove},
		"no destinations":             {true, nil, remove},
		"all may go":                  {true, []step{remove, remove}, remove},
		"one has connections":         {true, []step{remove, wait}, wait},
		"one could not be made quiet": {true, []step{quiesce, remove}, wait},
	} {
		if got := drainServer(c.answers, c.destinations); got != c.want {
			t.Errorf("%s: step %d, want %d", name, got, c.want)
		}
	}
}
