package ipvs

import (
	"context"
	"fmt"
	"math"
	"syscall"
	"time"

	moby "github.com/moby/ipvs"
)

// timeoutSocket is where the connection timeouts are read and written, through
// the library the project has for control operations. It is opened when first
// used, because opening it runs modprobe, and in the calling thread's network
// namespace.
//
// The library waits for ever when an answer is lost (it takes its own receive
// timeout for a reason to try again). So it works in a goroutine of its own;
// when the deadline comes first, its socket is closed under it, which ends the
// wait, and the next call opens a new one.
type timeoutSocket struct{ handle *moby.Handle }

// timeoutDeadline is how long one answer may take.
const timeoutDeadline = 5 * time.Second

func (s *timeoutSocket) close() {
	if s.handle != nil {
		s.handle.Close()
		s.handle = nil
	}
}

// do runs one operation of the library, and gives its socket up when it does
// not end in time.
func (s *timeoutSocket) do(ctx context.Context, op func(*moby.Handle) error) error {
	if s.handle == nil {
		h, err := moby.New("")
		if err != nil {
			return err
		}
		s.handle = h
	}
	ctx, cancel := context.WithTimeout(ctx, timeoutDeadline)
	defer cancel()
	h, ended := s.handle, make(chan error, 1)
	go func() {
		defer func() {
			// It takes the first message of an answer without looking
			// whether there is one.
			if r := recover(); r != nil {
				ended <- fmt.Errorf("github.com/moby/ipvs: %v", r)
			}
		}()
		ended <- op(h)
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	s.close()
	// The closed socket ends it, so that nothing is left behind; it may also
	// have come to its end by itself just now.
	if err := <-ended; err == nil {
		return nil
	}
	return fmt.Errorf("no answer from the kernel: %w", context.Cause(ctx))
}

// Timeouts implements Handle.
func (h *KernelHandle) Timeouts(ctx context.Context) (Timeouts, error) {
	var config *moby.Config
	err := h.timeouts.do(ctx, func(m *moby.Handle) (err error) {
		config, err = m.GetConfig()
		return err
	})
	if err != nil {
		return Timeouts{}, fmt.Errorf("read IPVS timeouts: %w", err)
	}
	return Timeouts{TCP: config.TimeoutTCP, TCPFin: config.TimeoutTCPFin, UDP: config.TimeoutUDP}, nil
}

// SetTimeouts implements Handle.
func (h *KernelHandle) SetTimeouts(ctx context.Context, t Timeouts) error {
	for _, d := range []time.Duration{t.TCP, t.TCPFin, t.UDP} {
		if d < 0 || d > math.MaxInt32*time.Second {
			return fmt.Errorf("set IPVS timeouts: %s: %w", d, syscall.EINVAL)
		}
	}
	config := &moby.Config{
		TimeoutTCP:    roundUp(t.TCP),
		TimeoutTCPFin: roundUp(t.TCPFin),
		TimeoutUDP:    roundUp(t.UDP),
	}
	if err := h.timeouts.do(ctx, func(m *moby.Handle) error { return m.SetConfig(config) }); err != nil {
		return fmt.Errorf("set IPVS timeouts: %w", err)
	}
	return nil
}

// roundUp makes whole seconds: the library cuts, and 0 means "as it is".
func roundUp(d time.Duration) time.Duration {
	return (d + time.Second - 1) / time.Second * time.Second
}
