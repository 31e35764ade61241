package ipvs

import (
	"testing"
	"time"

	"sluice.dev/sluice/internal/model"
)

func TestDrain(t *testing.T) {
	const limit = time.Minute
	for name, c := range map[string]struct {
		weight, active, inactive uint32
		protocol                 model.Protocol
		leaving                  time.Duration
		want                     step
	}{
		"in service":               {1, 0, 0, model.TCP, 0, quiesce},
		"in service and connected": {1, 5, 0, model.SCTP, 0, quiesce},
		"in service again by hand": {1, 7, 3, model.TCP, 2 * limit, quiesce},
		"quiet and idle":           {0, 0, 0, model.TCP, 0, remove},
		"quiet and connected":      {0, 1, 0, model.TCP, time.Second, wait},
		"quiet, only in TIME_WAIT": {0, 0, 3, model.TCP, time.Second, wait},
		"quiet, past its limit":    {0, 7, 3, model.TCP, limit, remove},
		"UDP in service":           {1, 0, 9, model.UDP, 0, quiesce},
		"UDP, answers under way":   {0, 0, 9, model.UDP, 0, wait},
		"UDP never waits for more": {0, 0, 9, model.UDP, drainUDP, remove},
	} {
		d := DestinationEntry{Spec: DestinationSpec{Weight: c.weight}, Active: c.active, Inactive: c.inactive}
		if got := drain(d, c.protocol, c.leaving, limit); got != c.want {
			t.Errorf("%s: step %d, want %d", name, got, c.want)
		}
	}
}
