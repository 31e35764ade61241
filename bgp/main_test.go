// Go's listeners speak Multipath TCP, on which no kernel signs segments: the
// routers of these tests would take sessions without a password. Dialling does not.
//
//go:debug multipathtcp=0
package bgp_test

import (
	"flag"
	"os"
	"testing"
)

// Tests of sessions wait for GoBGP's dials nearly all of their time, so many of
// them run at once, however few processors there are.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "32"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
