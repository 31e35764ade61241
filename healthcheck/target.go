package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
)

// reason is kube-proxy's reason of the Event for a port that cannot be had.
const reason = "FailedToStartServiceHealthcheck"

// lull is after how long without a failed try a failure counts as a new one. A
// loop tries a failing key at least every 30 s.
const lull = 2 * time.Minute

// Options are what a Target is made of. All may be left out.
type Options struct {
	// Listen opens a listener on an address and port of this node; nil: TCP.
	Listen func(ctx context.Context, addr netip.AddrPort) (net.Listener, error)
	// Healthy reports whether this node's tables are as wanted: a node that
	// could not serve must not be chosen for having endpoints. It is called
	// at every request and must not block. Nil: they always are.
	Healthy func() bool
	// Problem is told when a health check cannot listen, once for as long as
	// that lasts. It is called from the loop's goroutine and must not block.
	Problem func(model.Problem)
	Log     *slog.Logger // nil: discarded
}

// Target is the health checks as a reconcile loop sees them. Close ends it.
type Target struct {
	opts   Options
	open   map[Key]*server
	failed map[Key]failure // what Problem has been told of
}

// failure is a health check that could not listen when last tried.
type failure struct {
	service model.Name
	uid     string
	last    time.Time
}

var _ reconcile.Target[Key, Spec] = (*Target)(nil)

// New makes a Target. It opens nothing.
func New(opts Options) *Target {
	if opts.Listen == nil {
		opts.Listen = listen
	}
	if opts.Healthy == nil {
		opts.Healthy = func() bool { return true }
	}
	if opts.Problem == nil {
		opts.Problem = func(model.Problem) {}
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Target{opts: opts, open: map[Key]*server{}, failed: map[Key]failure{}}
}

type (
	section = reconcile.Section[Key, Spec]
	change  = reconcile.Change[Key, Spec]
)

// List yields the health checks that are answered, as one section. One whose
// listener broke is not among them.
func (t *Target) List(context.Context, []Key) iter.Seq2[section, error] {
	return func(yield func(section, error) bool) {
		present := make(map[Key]Spec, len(t.open))
		for k, s := range t.open {
			if s.alive() {
				present[k] = *s.spec.Load()
			}
		}
		yield(section{Covers: func(Key) bool { return true }, Present: present}, nil)
	}
}

// Apply closes what is to go, which may be in the way of the rest, and opens or
// changes what is wanted.
func (t *Target) Apply(ctx context.Context, c change) map[Key]error {
	for _, k := range c.Dels {
		t.shut(k)
		delete(t.failed, k)
	}
	errs := map[Key]error{}
	for _, p := range c.Puts {
		if err := t.put(ctx, p.Key, p.Spec); err != nil {
			errs[p.Key] = err
		}
	}
	return errs
}

func (t *Target) put(ctx context.Context, k Key, spec Spec) error {
	if s := t.open[k]; s != nil && s.alive() {
		s.spec.Store(&spec)
		return nil
	}
	t.shut(k) // its listener broke
	l, err := t.opts.Listen(ctx, k.Addr)
	if err != nil {
		t.tell(k, spec, err)
		return fmt.Errorf("health check of Service %s on %s: %w", spec.Service, k, err)
	}
	delete(t.failed, k)
	t.open[k] = serve(l, spec, t.opts)
	return nil
}

func (t *Target) shut(k Key) {
	if s := t.open[k]; s != nil {
		s.close()
		delete(t.open, k)
	}
}

// tell tells of a health check that cannot listen, unless it is known. A wish
// that goes while it fails leaves no trace here, so what has not been tried for
// a while is forgotten.
func (t *Target) tell(k Key, spec Spec, err error) {
	now := time.Now()
	for k, f := range t.failed {
		if now.Sub(f.last) > lull {
			delete(t.failed, k)
		}
	}
	was, known := t.failed[k]
	t.failed[k] = failure{service: spec.Service, uid: spec.UID, last: now}
	if known && was.service == spec.Service && was.uid == spec.UID {
		return
	}
	t.opts.Problem(model.Problem{
		Kind: "Service", Object: spec.Service, UID: spec.UID, Reason: reason,
		Message: fmt.Sprintf("spec.healthCheckNodePort: cannot answer load balancers' health checks on %s: %v; %s; it is tried again until it succeeds",
			k, err, remedy(err, k.Addr)),
	})
}

func remedy(err error, addr netip.AddrPort) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Sprintf("stop what listens on port %d of this node (ss -ltnp shows it), or make the Service anew with another port", addr.Port())
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Sprintf("give the node the address %s, or leave it out of --nodeport-addresses", addr.Addr())
	}
	return "remove what keeps Sluice from listening there"
}

// Close closes every health check: load balancers then take this node for one
// that is down. The loop must have ended.
func (t *Target) Close() {
	for k := range t.open {
		t.shut(k)
	}
}
