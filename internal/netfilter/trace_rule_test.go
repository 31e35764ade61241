package netfilter_test

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
)

// TestTraceMatches: which packets a rule's match means, one rule that drops in
// a chain that every hook of the filter table jumps to.
func TestTraceMatches(t *testing.T) {
	const (
		remote = "198.18.9.1:4000"
		local  = "198.18.0.1:80"
	)
	bit := netfilter.HasMark{Value: 0x8000, Mask: 0x8000}
	unset := netfilter.HasMark{Value: 0x8000, Mask: 0x8000, Not: true}
	in := func(p netfiltertest.Packet) netfiltertest.Packet {
		p.Src, p.Dst = netip.MustParseAddrPort(remote), netip.MustParseAddrPort(local)
		return p
	}
	tcp := netfiltertest.Packet{Protocol: model.TCP}
	with := func(edit func(*netfiltertest.Packet)) netfiltertest.Packet {
		p := tcp
		edit(&p)
		return p
	}
	ports := func(first, last uint16) netfilter.Rule {
		return netfilter.Rule{Protocol: model.TCP, Ports: netfilter.PortRange{First: first, Last: last}}
	}
	for name, c := range map[string]struct {
		rule    netfilter.Rule
		packet  netfiltertest.Packet
		matches bool
	}{
		"the port":                        {ports(80, 80), tcp, true},
		"the first":                       {ports(80, 90), tcp, true},
		"the last":                        {ports(1, 80), tcp, true},
		"below":                           {ports(81, 90), tcp, false},
		"above":                           {ports(1, 79), tcp, false},
		"another protocol's":              {ports(80, 80), netfiltertest.Packet{Protocol: model.UDP}, false},
		"by an interface":                 {netfilter.Rule{NotFrom: "lo"}, with(func(p *netfiltertest.Packet) { p.In = "eth0" }), true},
		"by no interface that is named":   {netfilter.Rule{NotFrom: "lo"}, tcp, true},
		"by that interface":               {netfilter.Rule{NotFrom: "lo"}, with(func(p *netfiltertest.Packet) { p.In = "lo" }), false},
		"from that interface":             {netfilter.Rule{From: "eth0"}, with(func(p *netfiltertest.Packet) { p.In = "eth0" }), true},
		"from another":                    {netfilter.Rule{From: "eth0"}, with(func(p *netfiltertest.Packet) { p.In = "eth00" }), false},
		"from none that is named":         {netfilter.Rule{From: "eth0"}, tcp, false},
		"from one that begins so":         {netfilter.Rule{From: "cali+"}, with(func(p *netfiltertest.Packet) { p.In = "cali1f" }), true},
		"from one that begins otherwise":  {netfilter.Rule{From: "cali+"}, with(func(p *netfiltertest.Packet) { p.In = "cal" }), false},
		"from none, which begins not so":  {netfilter.Rule{From: "cali+"}, tcp, false},
		"not from one that begins so":     {netfilter.Rule{NotFrom: "cali+"}, with(func(p *netfiltertest.Packet) { p.In = "cali1f" }), false},
		"not from one that begins other":  {netfilter.Rule{NotFrom: "cali+"}, with(func(p *netfiltertest.Packet) { p.In = "eth0" }), true},
		"a connection with the bit":       {netfilter.Rule{ConnMark: bit}, with(func(p *netfiltertest.Packet) { p.ConnMark = 0x8001 }), true},
		"a connection without":            {netfilter.Rule{ConnMark: bit}, with(func(p *netfiltertest.Packet) { p.ConnMark = 0x4001 }), false},
		"the packet's mark only":          {netfilter.Rule{ConnMark: bit}, with(func(p *netfiltertest.Packet) { p.Mark = 0x8000 }), false},
		"not with the bit":                {netfilter.Rule{ConnMark: unset}, tcp, true},
		"no connection has not the bit":   {netfilter.Rule{ConnMark: unset}, with(func(p *netfiltertest.Packet) { p.State = netfilter.StateInvalid }), false},
		"no connection has no mark":       {netfilter.Rule{ConnMark: bit}, with(func(p *netfiltertest.Packet) { p.State, p.ConnMark = netfilter.StateUntracked, 0x8000 }), false},
		"within the limit":                {netfilter.Rule{Limit: 5}, tcp, true},
		"over the limit":                  {netfilter.Rule{Limit: 5}, with(func(p *netfiltertest.Packet) { p.Excess = true }), false},
		"no limit":                        {netfilter.Rule{}, with(func(p *netfiltertest.Packet) { p.Excess = true }), true},
		"ICMP, later":                     {netfilter.Rule{ICMP: netfilter.AnyICMP}, netfiltertest.Packet{Protocol: netfiltertest.ICMP, State: netfilter.StateRelated}, true},
		"ICMP, untracked":                 {netfilter.Rule{ICMP: netfilter.AnyICMP, State: netfilter.StateUntracked}, netfiltertest.Packet{Protocol: netfiltertest.ICMP, State: netfilter.StateUntracked}, true},
		"TCP, untracked":                  {netfilter.Rule{ICMP: netfilter.AnyICMP, State: netfilter.StateUntracked}, with(func(p *netfiltertest.Packet) { p.State = netfilter.StateUntracked }), false},
		"a later packet is not the first": {netfilter.Rule{State: netfilter.StateNew}, with(func(p *netfiltertest.Packet) { p.State = netfilter.StateEstablished }), false},
	} {
		c.rule.Do = netfilter.Do(netfilter.Drop)
		chain := netfilter.ChainKey(model.IPv4, netfilter.Filter, chainX)
		s := state{chain: netfilter.Chain{c.rule}.Spec(model.IPv4)}
		for _, h := range []netfilter.Hook{netfilter.Input, netfilter.Forward} {
			s[netfilter.JumpKey(model.IPv4, netfilter.Filter, h, chainX)] = netfilter.JumpSpec(10)
		}
		k := fakeWith(t, s)
		for _, h := range []netfiltertest.Host{{}, {Local: []netip.Addr{netip.MustParseAddrPort(local).Addr()}}} {
			if got := k.Trace(h, in(c.packet)); (got.Fate == netfiltertest.Dropped) != c.matches {
				t.Errorf("%s: matches %v wanted\n%s", name, c.matches, got)
			}
		}
	}
}

// TestTraceInterface: what the node sends came in by no interface while it goes
// out, and by lo when it comes back.
func TestTraceInterface(t *testing.T) {
	const f = model.IPv6
	here, away := netip.AddrPortFrom(addr(f, 1), 80), netip.AddrPortFrom(addr(f, 2), 80)
	vip, server := netip.AddrPortFrom(addr(f, 3), 80), netip.AddrPortFrom(addr(f, 4), 8080)
	host := netfiltertest.Host{Local: []netip.Addr{here.Addr(), vip.Addr()}, Servers: map[model.FrontendKey]netip.AddrPort{{Addr: vip, Protocol: model.TCP}: server}}
	for _, c := range []struct {
		what   string
		packet netfiltertest.Packet
		not    string
		hooks  []netfilter.Hook // where a packet that did not come in by that is meant
	}{
		{"to itself", netfiltertest.Packet{Dst: here, FromNode: true}, "lo", []netfilter.Hook{netfilter.Output, netfilter.Postrouting}},
		{"away", netfiltertest.Packet{Dst: away, FromNode: true}, "lo", []netfilter.Hook{netfilter.Output, netfilter.Postrouting}},
		{"from elsewhere", netfiltertest.Packet{Dst: here, In: "eth0"}, "lo", []netfilter.Hook{netfilter.Prerouting, netfilter.Input}},
		{"from elsewhere to a server", netfiltertest.Packet{Dst: vip, In: "eth0"}, "lo",
			[]netfilter.Hook{netfilter.Prerouting, netfilter.Input, netfilter.Output, netfilter.Postrouting}},
		{"from there to a server", netfiltertest.Packet{Dst: vip, In: "eth0"}, "eth0", []netfilter.Hook{netfilter.Output, netfilter.Postrouting}},
		{"through", netfiltertest.Packet{Dst: away, In: "eth0"}, "lo", []netfilter.Hook{netfilter.Prerouting, netfilter.Forward, netfilter.Postrouting}},
	} {
		s := state{netfilter.ChainKey(f, netfilter.Mangle, chainX): netfilter.Chain{{NotFrom: c.not, Do: netfilter.LogTo(1, "met")}}.Spec(f)}
		for h := netfilter.Prerouting; h <= netfilter.Postrouting; h++ {
			s[netfilter.JumpKey(f, netfilter.Mangle, h, chainX)] = netfilter.JumpSpec(10)
		}
		c.packet.Src, c.packet.Protocol = netip.AddrPortFrom(addr(f, 9), 4000), model.TCP
		if got := fakeWith(t, s).Trace(host, c.packet); len(got.Logged) != len(c.hooks) {
			t.Errorf("%s: met %d times, want %v\n%s", c.what, len(got.Logged), c.hooks, got)
		}
	}
}

// TestTraceGoto: what returns from a chain that was gone to comes back behind
// the jump to the one that went, and in a builtin chain to the policy.
func TestTraceGoto(t *testing.T) {
	const f = model.IPv4
	log := func(prefix string) netfilter.Rule { return netfilter.Rule{Do: netfilter.LogTo(100, prefix)} }
	chain := func(name string, rules ...netfilter.Rule) state {
		return state{netfilter.ChainKey(f, netfilter.Filter, name): netfilter.Chain(rules).Spec(f)}
	}
	s := state{netfilter.JumpKey(f, netfilter.Filter, netfilter.Forward, "SLUICE-A"): netfilter.JumpSpec(1)}
	for _, c := range []state{
		chain("SLUICE-A", log("a1"), netfilter.Rule{Do: netfilter.To("SLUICE-B")}, log("a2")),
		chain("SLUICE-B", log("b1"), netfilter.Rule{Do: netfilter.GoTo("SLUICE-C")}, log("never")),
		chain("SLUICE-C", log("c1"), netfilter.Rule{Do: netfilter.Do(netfilter.Return)}, log("never")),
	} {
		maps.Copy(s, c)
	}
	k := fakeWith(t, s)
	packet := netfiltertest.Packet{Src: netip.AddrPortFrom(addr(f, 1), 1), Dst: netip.AddrPortFrom(addr(f, 2), 2), Protocol: model.UDP}
	met := func() (prefixes []string) {
		got := k.Trace(netfiltertest.Host{}, packet)
		for _, v := range got.Logged {
			prefixes = append(prefixes, v.Prefix)
		}
		return append(prefixes, string(got.Fate))
	}
	if got, want := met(), []string{"a1", "b1", "c1", "a2", string(netfiltertest.Sent)}; !slices.Equal(got, want) {
		t.Errorf("met %q, want %q", got, want)
	}
	subject{Runner: k, Sets: k}.restore(t, f, "*filter\n:FORWARD DROP [0:0]\n-I FORWARD 1 -g SLUICE-C\nCOMMIT\n")
	if got, want := met(), []string{"c1", string(netfiltertest.Dropped)}; !slices.Equal(got, want) {
		t.Errorf("met %q, want %q", got, want)
	}
}
