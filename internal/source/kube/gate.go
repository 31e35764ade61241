package kube

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
)

const (
	// absentAgain is how often a server is asked for what it does not have, or
	// does not let us see; up to half more, so that nodes do not ask together.
	absentAgain = 30 * time.Second
	// refusalTime is how long a refusal has to last to be believed: a server
	// that has just started refuses what it has not read the permission of yet.
	refusalTime = 10 * time.Second
	// failureMost is the longest pause after a failure that says nothing about
	// the resource.
	failureMost = 30 * time.Second
)

// gate holds back the informer of a resource that an API server need not have:
// of our own kinds, which somebody has to install, and of Secrets, which somebody
// has to let us see. An informer would hold back Synced for ever and fill the
// log.
//
// A server that says that it does not know the resource is believed at once: one
// that has just started says that it is not ready instead (since Kubernetes
// 1.23). What does not exist has no objects, so Synced need not wait. A refusal
// is believed after a while: then there are no objects for us, and whoever needs
// them goes without, as a peer without its password does. Any other failure says
// nothing, and Synced waits.
//
// Once a resource was there, its informer runs for good: if it vanishes later,
// what was known stays.
type gate struct {
	resource string
	probe    func(context.Context) error
	link     *link
	log      *slog.Logger
	settled  chan struct{} // Synced need not wait for the resource any more
	once     sync.Once
}

func newGate(resource string, probe func(context.Context) error, l *link) *gate {
	return &gate{resource: resource, probe: probe, link: l, log: l.log.With("resource", resource), settled: make(chan struct{})}
}

// Name implements cache.DoneChecker.
func (g *gate) Name() string { return g.resource }

// Done implements cache.DoneChecker.
func (g *gate) Done() <-chan struct{} { return g.settled }

func (g *gate) settle() { g.once.Do(func() { close(g.settled) }) }

// wait returns when the resource is there; false: ctx was done first.
func (g *gate) wait(ctx context.Context) bool {
	var refused time.Time // since when; zero: not
	failure := wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.5, Steps: 10, Cap: failureMost}
	said := ""
	for {
		err := g.probe(ctx)
		pause := wait.Jitter(absentAgain, 0.5)
		switch {
		case ctx.Err() != nil:
			return false
		case err == nil:
			g.link.note(ctx, g.resource, opList, nil)
			if said != "" {
				g.log.Info("API server has the resource now, reading it")
			}
			return true
		case apierrors.IsNotFound(err):
			g.missing(ctx, &said, "API server does not know the resource, going on without; install the CRDs to use it", err)
		case apierrors.IsForbidden(err) && refused.IsZero():
			refused, pause = time.Now(), failure.Step()
		case apierrors.IsForbidden(err) && time.Since(refused) < refusalTime:
			pause = failure.Step()
		case apierrors.IsForbidden(err):
			g.missing(ctx, &said, "API server refuses the resource, going on without; allow it to be listed and watched to use it", err)
		default:
			g.link.note(ctx, g.resource, opList, err)
			pause = failure.Step()
		}
		sleep(ctx, pause)
	}
}

// missing says once why Synced does not wait any more.
func (g *gate) missing(ctx context.Context, said *string, why string, err error) {
	g.link.note(ctx, g.resource, opList, nil) // it has answered
	if *said != why {
		*said = why
		g.log.Warn(why, "err", err)
	}
	g.settle()
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// run reads the resource until ctx is done, as soon as it is there.
func (f feed) run(ctx context.Context) {
	if f.gate == nil || f.gate.wait(ctx) {
		f.informer.RunWithContext(ctx)
	}
}

// settled is done when everything that there is of the resource has been told.
func (f feed) settled(ctx context.Context, group *errgroup.Group) cache.DoneChecker {
	if f.gate == nil {
		return f.told
	}
	group.Go(func() error {
		select {
		case <-ctx.Done():
		case <-f.told.Done():
			f.gate.settle()
		}
		return nil
	})
	return f.gate
}
