package ipvs

import (
	"testing"
	"time"

	"sluice.dev/sluice/internal/model"
)

func TestDrain(t *testing.T) {
	for name, c := range map[string]struct {
		weight, active, inactive uint32
		protocol                 model.Protocol
		left                     time.Duration
		want                     step
	}{
		"in service":                {1, 0, 0, model.TCP, time.Minute, quiesce},
		"in service and connected":  {1, 5, 0, model.SCTP, time.Minute, quiesce},
		"quiet and idle":            {0, 0, 0, model.TCP, time.Minute, remove},
		"quiet and connected":       {0, 1, 0, model.TCP, time.Minute, wait},
		"quiet, only in TIME_WAIT":  {0, 0, 3, model.TCP, time.Minute, wait},
		"quiet, past its deadline":  {0, 7, 3, model.TCP, 0, remove},
		"UDP never drains":          {1, 0, 9, model.UDP, time.Minute, remove},
		"UDP at weight 0 neither":   {0, 0, 9, model.UDP, time.Minute, remove},
		"past its deadline, weight": {1, 7, 3, model.TCP, -time.Second, quiesce},
	} {
		d := DestinationEntry{Spec: DestinationSpec{Weight: c.weight}, Active: c.active, Inactive: c.inactive}
		if got := drain(d, c.protocol, c.left); got != c.want {
			t.Errorf("%s: step %d, want %d", name, got, c.want)
		}
	}
}
