package node

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source"
)

const (
	settle     = 100 * time.Millisecond // quiet time after a change
	settleMost = 10                     // settle times that steady change can put off a listing
	retryFirst = 100 * time.Millisecond
	retryMost  = 10 * time.Second
	tornMost   = 5 // listings interrupted one after another that nobody hears of
)

// What happens in the ordinary course of things when thousands of addresses are
// put on our own device.
var (
	errLost = errors.New("notifications were lost")
	errTorn = errors.New("listing was interrupted by a change")
)

// Options are what a Source needs.
type Options struct {
	// VIPDevices are the interfaces whose addresses are not the host's but
	// Services': our own dummy device, and that of a predecessor as long as
	// it may be there.
	VIPDevices []string
	Logger     *slog.Logger // nil: silence
}

// Source tells the host's addresses.
type Source struct {
	opts   Options
	log    *slog.Logger
	kernel kernel

	told   []netip.Addr
	synced bool
	failed int   // attempts in a row
	warned bool  // of these
	ignore []int // indexes of the VIP devices at the last listing
}

// kernel is what the source asks of rtnetlink.
type kernel interface {
	// list is every address of the host and the index of every interface;
	// an interrupted listing is an error.
	list() (listing, error)
	// subscribe sends a change for every address that comes, goes or
	// changes. The channel is closed when ctx is done or notifications were
	// lost; until then it has to be read.
	subscribe(ctx context.Context) (<-chan change, error)
}

type listing struct {
	addresses []address
	devices   map[string]int // index by name
}

// address is one address of an interface.
type address struct {
	addr   netip.Addr
	index  int  // of the interface
	global bool // its scope
	usable bool // duplicate address detection has passed it
}

// change says where something changed.
type change struct {
	index  int
	global bool
}

// New makes a source; nothing is read before Run.
func New(opts Options) *Source {
	log := opts.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Source{opts: opts, log: log.With("source", source.Node), kernel: rtnetlink{}}
}

// Run implements source.Source.
func (s *Source) Run(ctx context.Context, sink source.Sink) error {
	pause := retryFirst
	for {
		listed, err := s.follow(ctx, sink)
		if ctx.Err() != nil {
			return nil
		}
		if listed {
			pause = retryFirst
		}
		s.fail(err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, retryMost)
	}
}

// fail says once that following does not work.
func (s *Source) fail(err error) {
	ordinary := errors.Is(err, errLost)
	if !ordinary {
		s.failed++
		ordinary = errors.Is(err, errTorn) && s.failed <= tornMost
	}
	switch {
	case ordinary:
		s.log.Debug("listing anew", "err", err)
	case !s.warned:
		s.warned = true
		s.log.Warn("addresses of the host cannot be read, keeping what is known", "err", err)
	}
}

// follow tells the addresses until something goes wrong, and whether at least
// the first listing succeeded.
func (s *Source) follow(ctx context.Context, sink source.Sink) (listed bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	changes, err := s.kernel.subscribe(ctx)
	if err != nil {
		cancel()
		return false, err
	}
	defer func() {
		cancel()
		for range changes { // its sender waits for us
		}
	}()
	if err := s.list(sink); err != nil {
		return false, err
	}
	timer := time.NewTimer(settle)
	timer.Stop()
	defer timer.Stop()
	var since time.Time // of the first change not listed yet; zero: none
	for {
		select {
		case <-timer.C:
			since = time.Time{}
			if err := s.list(sink); err != nil {
				return true, err
			}
		case c, open := <-changes:
			if !open {
				return true, errLost
			}
			if !c.global || slices.Contains(s.ignore, c.index) {
				continue
			}
			now := time.Now()
			if since.IsZero() {
				since = now
			}
			timer.Reset(min(settle, since.Add(settleMost*settle).Sub(now)))
		}
	}
}

// list lists the addresses and tells them if they changed.
func (s *Source) list(sink source.Sink) error {
	l, err := s.kernel.list()
	if err != nil {
		return err
	}
	if s.warned {
		s.log.Info("addresses of the host can be read again")
	}
	s.failed, s.warned = 0, false
	s.ignore = s.ignore[:0]
	for _, name := range s.opts.VIPDevices {
		if index, ok := l.devices[name]; ok {
			s.ignore = append(s.ignore, index)
		}
	}
	addrs := hostAddrs(l.addresses, s.ignore)
	if !s.synced || !slices.Equal(addrs, s.told) {
		s.told = addrs
		s.log.Info("addresses of the host", "addrs", addrs)
		sink.Event(model.Event{Source: source.Node, Put: model.LocalAddrs{Addrs: addrs}})
	}
	if !s.synced {
		s.synced = true
		sink.Event(model.Event{Source: source.Node, Synced: true})
	}
	return nil
}

// hostAddrs are the addresses that are the host's own, sorted and each once.
func hostAddrs(all []address, ignore []int) []netip.Addr {
	var own []netip.Addr
	for _, a := range all {
		if a.global && a.usable && a.addr.IsGlobalUnicast() && !slices.Contains(ignore, a.index) {
			own = append(own, a.addr)
		}
	}
	slices.SortFunc(own, netip.Addr.Compare)
	return slices.Compact(own)
}
