package ipvs

import (
	"errors"
	"net/netip"
	"testing"

	"sluice.dev/sluice/internal/model"
)

// TestUntorn: a reading that passes some over is not believed.
func TestUntorn(t *testing.T) {
	all := []VirtualServerEntry{}
	for i := range 3 {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, 0, byte(i)}), 80)
		all = append(all, VirtualServerEntry{VirtualServer: VirtualServer{Addr: at, Protocol: model.TCP}})
	}
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		readings [][]VirtualServerEntry // the last one stays; nil: fails
		want     int
		err      error
	}{
		"nothing there":                  {[][]VirtualServerEntry{{}}, 0, nil},
		"quiet":                          {[][]VirtualServerEntry{all}, 3, nil},
		"one passed over":                {[][]VirtualServerEntry{all[:2], all}, 3, nil},
		"one passed over, another later": {[][]VirtualServerEntry{all[1:], all, all[:2], all}, 3, nil},
		"it fails":                       {[][]VirtualServerEntry{all, nil}, 0, broken},
		"never twice the same": {[][]VirtualServerEntry{
			all, all[:1], all, all[:1], all, all[:1], all, all[:1], all, all[:1], all,
		}, 0, errTorn},
	} {
		i := -1
		list, err := untorn(func() ([]VirtualServerEntry, error) {
			i = min(i+1, len(c.readings)-1)
			if c.readings[i] == nil {
				return nil, broken
			}
			return c.readings[i], nil
		})
		if len(list) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %d, %v; want %d, %v", name, len(list), err, c.want, c.err)
		}
	}
}
