package topo

import (
	"net/netip"
	"testing"
)

func TestParseAnswer(t *testing.T) {
	want := Answer{Pod: "web-1", Client: netip.MustParseAddrPort("[fd00::1]:80")}
	got, err := ParseAnswer(answer("web-1", addrOf(want.Client)))
	if err != nil || got != want {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, line := range []string{"", "pod=x", "client=1.2.3.4:5", "pod=x client=y"} {
		if got, err := ParseAnswer(line); err == nil {
			t.Errorf("%q: got %v, want an error", line, got)
		}
	}
}

type addrOf netip.AddrPort

func (a addrOf) Network() string { return TCP }
func (a addrOf) String() string  { return netip.AddrPort(a).String() }

func TestMappedClientIsIPv4(t *testing.T) {
	got := addrPort(addrOf(netip.MustParseAddrPort("[::ffff:1.2.3.4]:5")))
	if got.String() != "1.2.3.4:5" {
		t.Errorf("got %v", got)
	}
}

func TestNotOutsideTheLab(t *testing.T) {
	t.Setenv("SLUICE_LAB", "")
	if _, err := New(1); err == nil {
		t.Error("built a network outside the lab")
	}
}
