//go:build !lab

package bgp_test

import "testing"

// skipOrFail skips what this kernel cannot do.
func skipOrFail(t *testing.T, err error) {
	t.Helper()
	t.Skipf("this kernel signs no segments (%v): the lab runs this test (-tags lab)", err)
}
