package netfilter_test

import (
	"slices"
	"strings"
	"testing"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
)

// others is a table with chains that are to go, KUBE-*, and some that stay.
const others = `*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-A - [0:0]
:KUBE-SEP-A - [0:0]
:KUBE-MARK - [0:0]
:KUBE-MASK - [0:0]
:CNI-HOSTPORT - [0:0]
-A PREROUTING -m comment --comment "service portals" -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A PREROUTING -j CNI-HOSTPORT
-A KUBE-SERVICES -p tcp -j KUBE-SVC-A
-A KUBE-SVC-A -j KUBE-SEP-A
-A KUBE-SEP-A -j KUBE-MARK
-A KUBE-MARK -j KUBE-MASK
-A KUBE-MASK -j MARK --set-xmark 0x4000/0x4000
-A CNI-HOSTPORT -p tcp -j KUBE-MARK
COMMIT
`

// testStrip: chains of others go with the rules that lead to them, but for those
// that somebody's rules still need.
func testStrip(t *testing.T, s subject, f model.Family) {
	t.Helper()
	s.restore(t, f, others)
	strip := func() netfilter.Stripped {
		t.Helper()
		did, err := netfilter.Strip(t.Context(), s, s.backend, []model.Family{f}, func(chain string) bool { return strings.HasPrefix(chain, "KUBE-") })
		if err != nil {
			t.Fatal(err)
		}
		return did
	}
	did := strip()
	prefix := f.String() + " nat "
	if want := []string{prefix + "KUBE-SEP-A", prefix + "KUBE-SERVICES", prefix + "KUBE-SVC-A"}; !slices.Equal(did.Removed, want) {
		t.Errorf("removed %q, want %q", did.Removed, want)
	}
	kept := []string{prefix + "KUBE-MARK", prefix + "KUBE-MASK"}
	if !slices.Equal(did.Kept, kept) {
		t.Errorf("kept %q, want %q", did.Kept, kept)
	}
	for chain, want := range map[string]int{"PREROUTING": 1, "OUTPUT": 0, "CNI-HOSTPORT": 1, "KUBE-MARK": 1, "KUBE-MASK": 1, "KUBE-SERVICES": 0} {
		if rules := s.rules(t, f, "nat", chain); len(rules) != want {
			t.Errorf("%s has %q, want %d rules", chain, rules, want)
		}
	}
	if again := strip(); len(again.Removed) != 0 || !slices.Equal(again.Kept, kept) {
		t.Errorf("again: %+v", again)
	}
}
