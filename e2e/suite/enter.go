package suite

import (
	"context"
	"testing"
	"time"

	"sluice.dev/sluice/e2e/topo"
)

// Keep has a test leave nodes as it found them: when it ends restore is called,
// within limit every kernel must hold what it held, and well looks at each node.
// The logs of a test that failed are shown.
func Keep[N OnNode](t *testing.T, nodes []N, limit time.Duration, restore func(), well func(N)) {
	t.Helper()
	logged, was := make([]int64, len(nodes)), make([]topo.Tables, len(nodes))
	for i, n := range nodes {
		logged[i] = n.base().logged()
		was[i] = Tables(t, n.base().Host)
	}
	t.Cleanup(func() {
		restore()
		for i, n := range nodes {
			Await(t, limit, func() error { return was[i].Same(n.base().Host) })
			well(n)
		}
		if !t.Failed() {
			return
		}
		for i, n := range nodes {
			t.Logf("log of sluice on %s:\n%s", n.base().Name, n.base().LogSince(logged[i]))
		}
	})
}

// Tables is what a node's kernel holds.
func Tables(t *testing.T, h *topo.Host) topo.Tables {
	t.Helper()
	tables, err := h.Tables()
	Must(t, err)
	return tables
}

// Eventually waits for a condition.
func Eventually(limit time.Duration, f func() error) error {
	// Not a test's context: it has ended when cleanups run.
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return topo.Eventually(ctx, f)
}

// Await fails the test when a condition has not come about in time.
func Await(t *testing.T, limit time.Duration, f func() error) {
	t.Helper()
	if err := Eventually(limit, f); err != nil {
		t.Errorf("after %v: %v", limit, err)
	}
}

// Must fails the test at once.
func Must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
