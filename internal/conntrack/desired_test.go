package conntrack

import (
	"net/netip"
	"reflect"
	"testing"

	"sluice.dev/sluice/internal/model"
)

// TestDesired: of UDP frontends all endpoints of both lists, of others nothing.
func TestDesired(t *testing.T) {
	at := netip.MustParseAddrPort
	key := func(a string, p model.Protocol) model.FrontendKey {
		return model.FrontendKey{Addr: at(a), Protocol: p}
	}
	backends := func(addrs ...string) (list []model.Backend) {
		for _, a := range addrs {
			list = append(list, model.Backend{Addr: at(a)})
		}
		return list
	}
	got := Desired(model.View{Frontends: []model.Frontend{
		{FrontendKey: key("10.96.0.1:53", model.UDP), Cluster: backends("10.1.0.1:53", "10.1.0.2:53"), Local: backends("10.1.0.3:53"), OnlyLocal: true},
		{FrontendKey: key("10.96.0.1:53", model.TCP), Cluster: backends("10.1.0.1:53")},
		{FrontendKey: key("10.96.0.2:53", model.UDP)},
	}})
	want := map[model.FrontendKey][]netip.AddrPort{
		key("10.96.0.1:53", model.UDP): {at("10.1.0.1:53"), at("10.1.0.2:53"), at("10.1.0.3:53")},
		key("10.96.0.2:53", model.UDP): {},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}
