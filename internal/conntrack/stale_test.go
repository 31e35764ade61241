package conntrack_test

import (
	"net/netip"
	"testing"

	"sluice.dev/sluice/internal/conntrack"
	"sluice.dev/sluice/internal/model"
)

func at(addr string) netip.AddrPort { return netip.MustParseAddrPort(addr) }

func udp(addr string) model.FrontendKey {
	return model.FrontendKey{Addr: at(addr), Protocol: model.UDP}
}

func flow(p model.Protocol, frontend, backend string) conntrack.Flow {
	return conntrack.Flow{
		Protocol: p, Client: at("10.1.9.9:4000"), Frontend: at(frontend), Backend: at(backend), Seen: at("10.1.9.9:4000"),
	}
}

func TestStale(t *testing.T) {
	facts := conntrack.Facts{
		Backends: map[model.FrontendKey]conntrack.Backends{
			udp("10.96.0.10:53"):       {at("10.1.1.1:5353"): {}, at("10.1.2.1:5353"): {}},
			udp("192.168.10.11:30053"): {at("10.1.1.1:5353"): {}},
			udp("203.0.113.7:53"):      {at("10.1.1.1:5353"): {}},
			udp("10.96.0.20:53"):       {},
			udp("[fd00:96::10]:53"):    {at("[fd00:1::1]:5353"): {}},

			{Addr: at("10.96.0.10:53"), Protocol: model.TCP}:  {},
			{Addr: at("10.96.0.10:53"), Protocol: model.SCTP}: {},
		},
		Removed: map[model.FrontendKey]uint64{
			udp("10.96.0.30:53"): 1, udp("[fd00:96::30]:53"): 1,
			udp("203.0.113.7:53"):                            1, // and back
			{Addr: at("10.96.0.30:53"), Protocol: model.TCP}: 1,
		},
	}
	for name, c := range map[string]struct {
		flow conntrack.Flow
		want bool
	}{
		"a live endpoint":                        {flow(model.UDP, "10.96.0.10:53", "10.1.1.1:5353"), false},
		"the other live endpoint":                {flow(model.UDP, "10.96.0.10:53", "10.1.2.1:5353"), false},
		"a live endpoint, IPv6":                  {flow(model.UDP, "[fd00:96::10]:53", "[fd00:1::1]:5353"), false},
		"a removed endpoint":                     {flow(model.UDP, "10.96.0.10:53", "10.1.3.1:5353"), true},
		"a removed endpoint, IPv6":               {flow(model.UDP, "[fd00:96::10]:53", "[fd00:1::2]:5353"), true},
		"a removed endpoint of a NodePort":       {flow(model.UDP, "192.168.10.11:30053", "10.1.3.1:5353"), true},
		"a removed endpoint of a load balancer":  {flow(model.UDP, "203.0.113.7:53", "10.1.3.1:5353"), true},
		"a live endpoint of one that is back":    {flow(model.UDP, "203.0.113.7:53", "10.1.1.1:5353"), false},
		"another port of a live endpoint":        {flow(model.UDP, "10.96.0.10:53", "10.1.1.1:5354"), true},
		"an endpoint of another frontend only":   {flow(model.UDP, "192.168.10.11:30053", "10.1.2.1:5353"), true},
		"never translated":                       {flow(model.UDP, "10.96.0.10:53", "10.96.0.10:53"), true},
		"no backends any more":                   {flow(model.UDP, "10.96.0.20:53", "10.1.1.1:5353"), true},
		"no backends, never translated":          {flow(model.UDP, "10.96.0.20:53", "10.96.0.20:53"), true},
		"a removed Service":                      {flow(model.UDP, "10.96.0.30:53", "10.1.1.1:5353"), true},
		"a removed Service, never translated":    {flow(model.UDP, "10.96.0.30:53", "10.96.0.30:53"), true},
		"a removed Service, IPv6":                {flow(model.UDP, "[fd00:96::30]:53", "[fd00:1::1]:5353"), true},
		"TCP to the same port":                   {flow(model.TCP, "10.96.0.10:53", "10.1.3.1:5353"), false},
		"SCTP to the same port":                  {flow(model.SCTP, "10.96.0.10:53", "10.1.3.1:5353"), false},
		"TCP to a removed Service":               {flow(model.TCP, "10.96.0.30:53", "10.1.1.1:5353"), false},
		"another port of a Service's address":    {flow(model.UDP, "10.96.0.10:54", "10.1.3.1:5353"), false},
		"a node's own port":                      {flow(model.UDP, "192.168.10.11:123", "192.168.10.11:123"), false},
		"straight to an endpoint":                {flow(model.UDP, "10.1.1.1:5353", "10.1.1.1:5353"), false},
		"straight to an endpoint that has left":  {flow(model.UDP, "10.1.3.1:5353", "10.1.3.1:5353"), false},
		"translated by somebody else to another": {flow(model.UDP, "198.51.100.1:53", "10.1.3.1:5353"), false},
	} {
		if got := conntrack.Stale(c.flow, facts); got != c.want {
			t.Errorf("%s: stale %v, want %v", name, got, c.want)
		}
	}
}
