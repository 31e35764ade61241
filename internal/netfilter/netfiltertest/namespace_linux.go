package netfiltertest

import (
	"context"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/netfilter"
)

// Namespace is a goroutine on a thread in a network namespace of its own; the
// thread is never given back and dies with it. Sockets opened there may be
// used from anywhere afterwards. Programs have to be started there: a subtest
// runs on another thread, where they would meet the machine's own rules.
type Namespace chan func()

// NewNamespace makes a namespace that lasts as long as the test. It takes root.
func NewNamespace(tb testing.TB) Namespace {
	tb.Helper()
	ns := make(Namespace)
	ready := make(chan error)
	go func() {
		runtime.LockOSThread()
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for fn := range ns {
			fn()
		}
	}()
	if err := <-ready; err != nil {
		tb.Fatalf("new network namespace: %v", err)
	}
	tb.Cleanup(func() { close(ns) })
	return ns
}

// Do runs fn in the namespace and waits for it. fn must not end the test.
func (ns Namespace) Do(fn func()) {
	done := make(chan struct{})
	ns <- func() {
		defer close(done)
		fn()
	}
	<-done
}

// Runner runs another runner's programs in the namespace.
func (ns Namespace) Runner(r netfilter.Runner) netfilter.Runner { return pinned{r, ns} }

type pinned struct {
	runner netfilter.Runner
	ns     Namespace
}

// Run runs a program in the namespace.
func (p pinned) Run(ctx context.Context, stdin []byte, program string, args ...string) (out []byte, err error) {
	p.ns.Do(func() { out, err = p.runner.Run(ctx, stdin, program, args...) })
	return out, err
}
