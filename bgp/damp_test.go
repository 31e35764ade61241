package bgp

import (
	"testing"
	"time"
)

// start is when the tests' time begins.
func start() time.Time { return time.Date(2025, 1, 1, 12, 0, 0, 0, time.UTC) }

// flap withdraws a route that is told, and tells it as soon as it may be. It
// says how long that was.
func flap(d damp, now time.Time) (damp, time.Duration) {
	d = d.withdraw(now)
	wait := max(d.due().Sub(now), 0)
	return d.tell(now.Add(wait)), wait
}

func TestDamp(t *testing.T) {
	second := func(n ...int) (waits []time.Duration) {
		for _, s := range n {
			waits = append(waits, time.Duration(s)*time.Second)
		}
		return waits
	}
	for name, c := range map[string]struct {
		pause time.Duration // between being told and the next withdrawal
		calm  bool          // withdrawn on purpose
		want  []time.Duration
	}{
		"doubles while it flaps":      {time.Second, false, second(1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30, 30, 30)},
		"still, minutes apart":        {peace - time.Second, false, second(1, 2, 4, 8)},
		"forgotten after peace":       {peace, false, second(1, 1, 1)},
		"drained: a second, not more": {time.Second, true, second(1, 1, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			now := start()
			d := damp{}
			if !d.due().IsZero() {
				t.Errorf("the first time it is due at %v, not at once", d.due())
			}
			d = d.tell(now)
			for i, want := range c.want {
				now = now.Add(c.pause)
				d = d.withdraw(now)
				if c.calm {
					d = d.calm()
				}
				if got := d.due().Sub(now); got != want {
					t.Errorf("wait %d is %v, want %v", i+1, got, want)
				}
				now = d.due()
				d = d.tell(now)
			}
		})
	}
}

func TestDampAway(t *testing.T) {
	worst := func() (damp, time.Time) {
		now := start()
		d := damp{}.tell(now)
		for range 10 {
			var waited time.Duration
			d, waited = flap(d, now)
			now = now.Add(waited)
		}
		return d, now
	}
	t.Run("drained while it flaps", func(t *testing.T) {
		d, now := worst()
		d = d.withdraw(now).calm()
		if got := d.due().Sub(now); got != firstWait {
			t.Errorf("waits %v", got)
		}
	})
	t.Run("drained while it waits", func(t *testing.T) {
		d, now := worst()
		d = d.withdraw(now)
		now = now.Add(time.Second)
		if d = d.calm(); d.due().After(now) {
			t.Errorf("waits %v more", d.due().Sub(now))
		}
	})
	t.Run("away for minutes", func(t *testing.T) {
		d, now := worst()
		d = d.withdraw(now)
		now = now.Add(peace)
		if d.due().After(now) {
			t.Errorf("waits %v more", d.due().Sub(now))
		}
		if _, wait := flap(d.tell(now), now); wait != firstWait {
			t.Errorf("after that it waits %v", wait)
		}
	})
	t.Run("said twice", func(t *testing.T) {
		d, now := worst()
		if again := d.tell(now.Add(peace)); again != d {
			t.Errorf("told twice: %+v, want %+v", again, d)
		}
		d = d.withdraw(now)
		if again := d.withdraw(now.Add(time.Hour)); again != d {
			t.Errorf("withdrawn twice: %+v, want %+v", again, d)
		}
	})
}
