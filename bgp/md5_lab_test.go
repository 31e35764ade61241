//go:build lab

package bgp_test

import "testing"

// skipOrFail fails: the lab's kernel signs segments.
func skipOrFail(t *testing.T, err error) {
	t.Helper()
	t.Fatalf("the lab's kernel signs no segments: %v", err)
}
