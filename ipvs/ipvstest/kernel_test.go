package ipvstest_test

import (
	"testing"

	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/ipvs/ipvstest"
)

func TestKernelConforms(t *testing.T) {
	ipvstest.Conformance(t, func(*testing.T) ipvs.Handle { return ipvstest.New() })
}
