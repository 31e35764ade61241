package netfilter_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
)

// journey is a first packet over UDP, and where it ends: on the fake, and in
// the lab as a datagram that a socket sends.
type journey struct {
	what   string
	client int // the last part of its address in its net
	to     netip.AddrPort
	fate   netfiltertest.Fate
	at     netip.AddrPort // where it arrives
	rule   string         // what stopped it begins so
	from   string         // only from "node" or "outside"; "": from both
}

// destinations are what the rules of a family are about.
type destinations struct {
	family                                   model.Family
	short, shortElse, hidden, ranged, halves netip.AddrPort
	open, shut, beyond                       netip.AddrPort // ports 5000 to 5002, of which 5001 is shut, and 5003
}

func destinationsOf(f model.Family) destinations {
	at := func(n int, port uint16) netip.AddrPort { return netip.AddrPortFrom(addr(f, n), port) }
	return destinations{family: f, short: at(10, 80), shortElse: at(10, 81), hidden: at(11, 4000), ranged: at(12, 80), halves: at(13, 80),
		open: at(14, 5000), shut: at(14, 5001), beyond: at(14, 5003)}
}

func (d destinations) all() []netip.AddrPort {
	return []netip.AddrPort{d.short, d.shortElse, d.hidden, d.ranged, d.halves, d.open, d.shut, d.beyond}
}

// Where packets come from: nets of four addresses.
const (
	fromNode    = 0x100
	fromOutside = 0x200
)

// Each net's addresses: one that may, one that may not though its net may, and
// one of another net.
const (
	member, exception, stranger = 1, 2, 5
)

func (d destinations) journeys() []journey {
	return []journey{
		{"rewritten", member, d.short, netfiltertest.ToProcess, d.hidden, "", ""},
		{"rewritten, but not from there", stranger, d.short, netfiltertest.Dropped, netip.AddrPort{}, "mangle SLUICE-FIREWALL: ", ""},
		{"rewritten, but not from that one", exception, d.short, netfiltertest.Dropped, netip.AddrPort{}, "mangle SLUICE-FIREWALL: ", ""},
		{"that one, to the port beside", exception, d.shortElse, netfiltertest.ToProcess, d.shortElse, "", ""},
		{"the port beside", stranger, d.shortElse, netfiltertest.ToProcess, d.shortElse, "", ""},
		{"what only rewriting leads to", member, d.hidden, netfiltertest.Rejected, netip.AddrPort{}, "filter SLUICE-INPUT: ", ""},
		{"ranges of another port", member, d.ranged, netfiltertest.Dropped, netip.AddrPort{}, "mangle SLUICE-FIREWALL: ", ""},
		{"everyone, by halves", stranger, d.halves, netfiltertest.ToProcess, d.halves, "", ""},
		{"goes on behind the jump", member, d.open, netfiltertest.ToProcess, d.open, "", "outside"},
		{"gone to for good", member, d.shut, netfiltertest.Rejected, netip.AddrPort{}, "filter SLUICE-AWAY: ", "outside"},
		{"what came in by lo stays", member, d.open, netfiltertest.Dropped, netip.AddrPort{}, "filter SLUICE-PORTS: ", "node"},
		{"a port that is not in the range", member, d.beyond, netfiltertest.ToProcess, d.beyond, "", ""},
	}
}

// state has the rules and sets.
func (d destinations) state() state {
	f := d.family
	s := state{
		netfilter.SetKey(f, "SLUICE-RANGED"):  netfilter.SetSpec(netfilter.HashIPPort),
		netfilter.SetKey(f, "SLUICE-ALLOWED"): netfilter.SetSpec(netfilter.HashIPPortNet),
		netfilter.SetKey(f, "SLUICE-HIDDEN"):  netfilter.SetSpec(netfilter.HashIPPort),
	}
	in := func(set string) netfilter.InSet { return netfilter.In(set, netfilter.Dst, netfilter.Dst) }
	chain := func(t netfilter.Table, name string, c netfilter.Chain, hooks ...netfilter.Hook) {
		s[netfilter.ChainKey(f, t, name)] = c.Spec(f)
		for _, h := range hooks {
			s[netfilter.JumpKey(f, t, h, name)] = netfilter.JumpSpec(10)
		}
	}
	chain(netfilter.Mangle, "SLUICE-FIREWALL", netfilter.Chain{{
		Sets: [2]netfilter.InSet{in("SLUICE-RANGED"), netfilter.NotIn("SLUICE-ALLOWED", netfilter.Dst, netfilter.Dst, netfilter.Src)},
		Do:   netfilter.Do(netfilter.Drop),
	}}, netfilter.Prerouting, netfilter.Output)
	chain(netfilter.NAT, "SLUICE-SHORT", netfilter.Chain{
		{Protocol: model.TCP, To: d.short, Do: netfilter.DNATTo(d.halves)},
		{Protocol: model.UDP, To: d.short, Do: netfilter.DNATTo(d.hidden)},
	}, netfilter.Prerouting, netfilter.Output)
	chain(netfilter.Filter, "SLUICE-INPUT", netfilter.Chain{
		{Sets: [2]netfilter.InSet{in("SLUICE-HIDDEN")}, State: netfilter.StateDNAT, Do: netfilter.Do(netfilter.Return)},
		{Sets: [2]netfilter.InSet{in("SLUICE-HIDDEN")}, Do: netfilter.Do(netfilter.Reject)},
		{Protocol: model.UDP, Ports: netfilter.PortRange{First: d.open.Port(), Last: d.beyond.Port() - 1}, Do: netfilter.To("SLUICE-PORTS")},
	}, netfilter.Input)
	chain(netfilter.Filter, "SLUICE-PORTS", netfilter.Chain{
		{NotFrom: "lo", Do: netfilter.GoTo("SLUICE-AWAY")},
		{Do: netfilter.Do(netfilter.Drop)},
	})
	chain(netfilter.Filter, "SLUICE-AWAY", netfilter.Chain{
		{Limit: 1, Do: netfilter.LogTo(100, "sluice-away")},
		{Protocol: model.UDP, Ports: netfilter.PortRange{First: d.shut.Port(), Last: d.shut.Port()}, Do: netfilter.Do(netfilter.Reject)},
	})

	put := func(set string, e netfilter.Entry, exception bool) {
		s[netfilter.MemberKey(f, set, e)] = netfilter.Spec{NoMatch: exception}
	}
	put("SLUICE-HIDDEN", netfilter.AddrPort(d.hidden, model.UDP), false)
	for _, at := range []netip.AddrPort{d.short, d.ranged, d.halves} {
		put("SLUICE-RANGED", netfilter.AddrPort(at, model.UDP), false)
	}
	for _, base := range []int{fromNode, fromOutside} {
		net, _ := addr(f, base).Prefix(addr(f, base).BitLen() - 2)
		put("SLUICE-ALLOWED", netfilter.AddrPortNet(d.short, model.UDP, net), false)
		put("SLUICE-ALLOWED", netfilter.AddrPortNet(d.short, model.UDP, single(addr(f, base+exception))), true)
		put("SLUICE-ALLOWED", netfilter.AddrPortNet(netip.AddrPortFrom(d.ranged.Addr(), 81), model.UDP, net), false)
	}
	high := netip.MustParsePrefix("128.0.0.0/1")
	low := netip.MustParsePrefix("0.0.0.0/1")
	if f == model.IPv6 {
		high, low = netip.MustParsePrefix("8000::/1"), netip.MustParsePrefix("::/1")
	}
	put("SLUICE-ALLOWED", netfilter.AddrPortNet(d.halves, model.UDP, high), false)
	put("SLUICE-ALLOWED", netfilter.AddrPortNet(d.halves, model.UDP, low), false)
	return s
}

// fakeWith is a fake kernel in which the state was written.
func fakeWith(t *testing.T, s state) *netfiltertest.Kernel {
	t.Helper()
	k := netfiltertest.New()
	newRig(subject{Runner: k, Sets: k, count: k.Count}).reconcile(t, s)
	return k
}

func (d destinations) host() netfiltertest.Host {
	h := netfiltertest.Host{Servers: map[model.FrontendKey]netip.AddrPort{}}
	for _, at := range d.all() {
		h.Local = append(h.Local, at.Addr())
	}
	return h
}

func TestJourneysOnFake(t *testing.T) {
	for _, f := range families() {
		d := destinationsOf(f)
		k := fakeWith(t, d.state())
		for from, base := range map[string]int{"node": fromNode, "outside": fromOutside} {
			for _, j := range d.journeys() {
				if j.from != "" && j.from != from {
					continue
				}
				t.Run(fmt.Sprintf("%s %s from %s", f, j.what, from), func(t *testing.T) {
					got := k.Trace(d.host(), netfiltertest.Packet{
						Src: netip.AddrPortFrom(addr(f, base+j.client), 40000), Dst: j.to, Protocol: model.UDP, FromNode: from == "node"})
					if got.Fate != j.fate || j.at.IsValid() && got.Dst != j.at {
						t.Errorf("want %s %s\n%s", j.fate, j.at, got)
					}
					if !strings.HasPrefix(got.Rule, j.rule) || (got.Rule == "") != (j.rule == "") || (got.Verdict.Action == 0) != (j.rule == "") {
						t.Errorf("stopped by %+v %q, want %q", got.Verdict, got.Rule, j.rule)
					}
				})
			}
		}
	}
}

// TestTrace: what a datagram between sockets of one node cannot show.
func TestTrace(t *testing.T) {
	for _, f := range families() {
		d := destinationsOf(f)
		k := fakeWith(t, d.state())
		client := netip.AddrPortFrom(addr(f, fromOutside+member), 40000)
		endpoint := netip.AddrPortFrom(addr(f, 0x300), 8080)
		served := d.host()
		served.Servers[model.FrontendKey{Addr: d.hidden, Protocol: model.UDP}] = endpoint
		served.Servers[model.FrontendKey{Addr: d.short, Protocol: model.UDP}] = netip.AddrPortFrom(addr(f, 0x301), 8080)
		for _, c := range []struct {
			what   string
			p      netfiltertest.Packet
			fate   netfiltertest.Fate
			dst    netip.AddrPort
			server netip.AddrPort
		}{
			{"the virtual server of the new destination takes it", netfiltertest.Packet{Dst: d.short}, netfiltertest.Sent, endpoint, d.hidden},
			{"from the node too", netfiltertest.Packet{Dst: d.short, FromNode: true}, netfiltertest.Sent, endpoint, d.hidden},
			{"later packets go the same way", netfiltertest.Packet{Dst: d.short, State: netfilter.StateEstablished, Translated: d.hidden}, netfiltertest.Sent, endpoint, d.hidden},
			{"also from the node", netfiltertest.Packet{Dst: d.short, State: netfilter.StateEstablished, Translated: d.hidden, FromNode: true}, netfiltertest.Sent, endpoint, d.hidden},
			{"without connection tracking no rule rewrites", netfiltertest.Packet{Dst: d.short, State: netfilter.StateUntracked}, netfiltertest.Sent, served.Servers[model.FrontendKey{Addr: d.short, Protocol: model.UDP}], d.short},
			{"another protocol", netfiltertest.Packet{Dst: d.short, Protocol: model.TCP}, netfiltertest.ToProcess, d.halves, netip.AddrPort{}},
		} {
			c.p.Src = client
			if c.p.Protocol == 0 {
				c.p.Protocol = model.UDP
			}
			if got := k.Trace(served, c.p); got.Fate != c.fate || got.Dst != c.dst || got.Server != c.server {
				t.Errorf("%s, %s: %s at %s by %s wanted; by %s\n%s", f, c.what, c.fate, c.dst, c.server, got.Server, got)
			}
		}
	}
}

// TestTracePolicy: a builtin chain's policy decides where no rule does.
func TestTracePolicy(t *testing.T) {
	d := destinationsOf(model.IPv4)
	k := fakeWith(t, state{})
	for table, hook := range map[string]string{"mangle": "PREROUTING", "filter": "INPUT"} {
		s := subject{Runner: k, Sets: k}
		s.restore(t, model.IPv4, "*"+table+"\n:"+hook+" DROP [0:0]\nCOMMIT\n")
		got := k.Trace(d.host(), netfiltertest.Packet{Src: d.short, Dst: d.short, Protocol: model.UDP})
		if got.Fate != netfiltertest.Dropped || got.Rule != table+" "+hook+": policy" {
			t.Errorf("%s, by %q", got, got.Rule)
		}
		s.restore(t, model.IPv4, "*"+table+"\n:"+hook+" ACCEPT [0:0]\nCOMMIT\n")
	}
}
