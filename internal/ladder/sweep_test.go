package ladder

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestALeftoverThatStays: what a former run left and cannot be deleted holds up
// no other leftover in the upper tables. The lowest one, which says whose the
// rest is, lets nothing go before all of it is gone.
func TestALeftoverThatStays(t *testing.T) {
	for table, stuck := range map[int]string{
		1: "bad web worse | bad web | web",
		2: "bad web worse | web | bad web",
	} {
		synctest.Test(t, func(t *testing.T) {
			w := basedWorld(t, "web", "bad", "worse")
			broken := errors.New("busy")
			w.fail = func(i int, op, key string) error {
				if i == table && op == "del" && key == "bad" {
					return broken
				}
				return nil
			}
			w.want("o", "web")
			w.ladder.Sync()
			w.quiet()
			time.Sleep(time.Minute)
			w.quiet()
			w.mu.Lock()
			w.breaches = nil // in table 1 its own gate may go
			w.mu.Unlock()
			w.sees(t, "while one cannot be deleted", stuck)
			w.mu.Lock()
			broken = nil
			w.mu.Unlock()
			time.Sleep(time.Minute)
			w.quiet()
			w.sees(t, "once it can", "web | web | web")
		})
	}
}
