package netfilter_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
)

// TestRender pins the text, which stands in every kernel we upgrade.
func TestRender(t *testing.T) {
	in := netfilter.In("SLUICE-A", netfilter.Dst, netfilter.Dst)
	notIn := netfilter.NotIn("SLUICE-B", netfilter.Src)
	for _, c := range []struct {
		rule      netfilter.Rule
		four, six string
	}{
		{netfilter.Rule{Do: netfilter.Do(netfilter.Return)}, "-j RETURN", "-j RETURN"},
		{netfilter.Rule{ICMP: netfilter.AnyICMP, Do: netfilter.Do(netfilter.Accept)}, "-p icmp -j ACCEPT", "-p ipv6-icmp -j ACCEPT"},
		{netfilter.Rule{ICMP: netfilter.EchoRequest, Do: netfilter.Do(netfilter.Drop)},
			"-p icmp -m icmp --icmp-type 8 -j DROP", "-p ipv6-icmp -m icmp6 --icmpv6-type 128 -j DROP"},
		{netfilter.Rule{Sets: [2]netfilter.InSet{in, notIn}, Do: netfilter.MarkBits(0x4000)},
			"-m set --match-set SLUICE-A dst,dst -m set ! --match-set SLUICE-B src -j MARK --set-xmark 0x4000/0x4000",
			"-m set --match-set SLUICE-6-A dst,dst -m set ! --match-set SLUICE-6-B src -j MARK --set-xmark 0x4000/0x4000"},
		{netfilter.Rule{Protocol: model.TCP, State: netfilter.StateNew, Do: netfilter.Do(netfilter.Reset)},
			"-p tcp -m conntrack --ctstate NEW -j REJECT --reject-with tcp-reset", "-p tcp -m conntrack --ctstate NEW -j REJECT --reject-with tcp-reset"},
		{netfilter.Rule{Mark: netfilter.HasMark{Value: 1, Mask: 1, Not: true}, Do: netfilter.Masquerade()},
			"-m mark ! --mark 0x1/0x1 -j MASQUERADE --random-fully", "-m mark ! --mark 0x1/0x1 -j MASQUERADE --random-fully"},
		{netfilter.Rule{ConnMark: netfilter.HasMark{Value: 0x8000, Mask: 0x8000}, Do: netfilter.GoTo("SLUICE-X")},
			"-m connmark --mark 0x8000/0x8000 -g SLUICE-X", "-m connmark --mark 0x8000/0x8000 -g SLUICE-X"},
		{netfilter.Rule{Mark: netfilter.HasMark{Value: 1, Mask: 1}, ConnMark: netfilter.HasMark{Value: 2, Mask: 2, Not: true}, Do: netfilter.Do(netfilter.Drop)},
			"-m mark --mark 0x1/0x1 -m connmark ! --mark 0x2/0x2 -j DROP", "-m mark --mark 0x1/0x1 -m connmark ! --mark 0x2/0x2 -j DROP"},
		{netfilter.Rule{Protocol: model.UDP, Ports: netfilter.PortRange{First: 53, Last: 53}, NotFrom: "lo", Do: netfilter.Do(netfilter.Drop)},
			"! -i lo -p udp -m udp --dport 53 -j DROP", "! -i lo -p udp -m udp --dport 53 -j DROP"},
		{netfilter.Rule{From: "cni0", Sets: [2]netfilter.InSet{in}, Do: netfilter.Do(netfilter.Drop)},
			"-i cni0 -m set --match-set SLUICE-A dst,dst -j DROP", "-i cni0 -m set --match-set SLUICE-6-A dst,dst -j DROP"},
		{netfilter.Rule{NotFrom: "cali+", Do: netfilter.Do(netfilter.Drop)}, "! -i cali+ -j DROP", "! -i cali+ -j DROP"},
		{netfilter.Rule{Protocol: model.SCTP, Ports: netfilter.PortRange{First: 0, Last: 1023}, Do: netfilter.Do(netfilter.Return)},
			"-p sctp -m sctp --dport 0:1023 -j RETURN", "-p sctp -m sctp --dport 0:1023 -j RETURN"},
		{netfilter.Rule{Protocol: model.TCP, Ports: netfilter.PortRange{First: 0, Last: 65535}, Do: netfilter.Do(netfilter.Return)}, "-p tcp -j RETURN", "-p tcp -j RETURN"},
		{netfilter.Rule{State: netfilter.StateNew, Limit: 5, Do: netfilter.LogTo(100, "sluice-egress")},
			"-m conntrack --ctstate NEW -m hashlimit --hashlimit-upto 5/sec --hashlimit-burst 5 --hashlimit-mode srcip,dstip,dstport --hashlimit-name sluice-fc1e9f48 -j NFLOG --nflog-prefix sluice-egress --nflog-group 100",
			"-m conntrack --ctstate NEW -m hashlimit --hashlimit-upto 5/sec --hashlimit-burst 5 --hashlimit-mode srcip,dstip,dstport --hashlimit-name sluice-fc1e9f48 -j NFLOG --nflog-prefix sluice-egress --nflog-group 100"},
		{netfilter.Rule{Do: netfilter.LogTo(0, "x")}, "-j NFLOG --nflog-prefix x", "-j NFLOG --nflog-prefix x"},
		{netfilter.Rule{Do: netfilter.ClearBits(0x4000)}, "-j MARK --set-xmark 0x0/0x4000", "-j MARK --set-xmark 0x0/0x4000"},
		{netfilter.Rule{Do: netfilter.To("SLUICE-X")}, "-j SLUICE-X", "-j SLUICE-X"},
		{netfilter.Rule{Sets: [2]netfilter.InSet{in}, State: netfilter.StateNew | netfilter.StateDNAT, Do: netfilter.Do(netfilter.Drop)},
			"-m set --match-set SLUICE-A dst,dst -m conntrack --ctstate NEW,DNAT -j DROP",
			"-m set --match-set SLUICE-6-A dst,dst -m conntrack --ctstate NEW,DNAT -j DROP"},
		{rule: netfilter.Rule{Protocol: model.TCP, To: netip.MustParseAddrPort("192.0.2.1:80"), Sets: [2]netfilter.InSet{in}, State: netfilter.StateDNAT,
			Do: netfilter.DNATTo(netip.MustParseAddrPort("10.0.0.1:80"))},
			four: "-d 192.0.2.1/32 -p tcp -m tcp --dport 80 -m set --match-set SLUICE-A dst,dst -m conntrack --ctstate DNAT -j DNAT --to-destination 10.0.0.1:80"},
		{rule: netfilter.Rule{Protocol: model.SCTP, To: netip.MustParseAddrPort("[2001:db8::1]:80"), Do: netfilter.DNATTo(netip.MustParseAddrPort("[fd00::1]:80"))},
			six: "-d 2001:db8::1/128 -p sctp -m sctp --dport 80 -j DNAT --to-destination [fd00::1]:80"},
	} {
		if got := c.rule.Render(model.IPv4); c.four != "" && got != c.four {
			t.Errorf("got  %s\nwant %s", got, c.four)
		}
		if got := c.rule.Render(model.IPv6); c.six != "" && got != c.six {
			t.Errorf("got  %s\nwant %s", got, c.six)
		}
	}
}

// drawRule is any rule that can be said in a family.
func drawRule(t *rapid.T, f model.Family) netfilter.Rule {
	name := rapid.StringMatching(`SLUICE-[A-Z][A-Z-]{0,10}`)
	at := rapid.Custom(func(t *rapid.T) netip.AddrPort {
		return netip.AddrPortFrom(addr(f, rapid.IntRange(0, 0xffff).Draw(t, "address")), rapid.Uint16Min(1).Draw(t, "port"))
	})
	side := rapid.SampledFrom([]netfilter.Side{netfilter.Src, netfilter.Dst})
	var r netfilter.Rule
	switch rapid.IntRange(0, 2).Draw(t, "protocol") {
	case 0:
		r.Protocol = rapid.SampledFrom([]model.Protocol{model.TCP, model.UDP, model.SCTP}).Draw(t, "transport")
		switch rapid.IntRange(0, 2).Draw(t, "ports") {
		case 0:
			r.To = at.Draw(t, "to")
		case 1:
			r.Ports.First = rapid.Uint16Range(1, 0xffff).Draw(t, "first")
			r.Ports.Last = rapid.Uint16Min(r.Ports.First).Draw(t, "last")
		}
	case 1:
		r.ICMP = rapid.SampledFrom([]netfilter.ICMP{netfilter.AnyICMP, netfilter.EchoRequest}).Draw(t, "icmp")
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "sets") {
		m := netfilter.In(name.Draw(t, "set"), rapid.SliceOfN(side, 1, 3).Draw(t, "sides")...)
		m.Not = rapid.Bool().Draw(t, "not")
		r.Sets[i] = m
	}
	for _, m := range []*netfilter.HasMark{&r.Mark, &r.ConnMark} {
		if rapid.Bool().Draw(t, "marked") {
			mask := rapid.Uint32Min(1).Draw(t, "mask")
			*m = netfilter.HasMark{Value: rapid.Uint32().Draw(t, "mark") & mask, Mask: mask, Not: rapid.Bool().Draw(t, "not")}
		}
	}
	if name := rapid.SampledFrom([]string{"", "lo", "eth0.100", "cali+"}).Draw(t, "interface"); rapid.Bool().Draw(t, "from it") {
		r.From = name
	} else {
		r.NotFrom = name
	}
	r.Limit = rapid.Uint16Max(netfilter.MaxLimit).Draw(t, "limit")
	r.State = netfilter.State(rapid.IntRange(0, 63).Draw(t, "state"))
	r.Do = rapid.SampledFrom([]netfilter.Verdict{
		netfilter.Do(netfilter.Accept), netfilter.Do(netfilter.Drop), netfilter.Do(netfilter.Reject), netfilter.Do(netfilter.Return),
		netfilter.Do(netfilter.Reset), netfilter.Do(netfilter.MasqueradeAs), netfilter.Masquerade(),
		netfilter.MarkBits(1), netfilter.ClearBits(0xff), netfilter.To("SLUICE-NEXT"),
		netfilter.GoTo("SLUICE-NEXT"), netfilter.LogTo(0, "sluice"), netfilter.LogTo(0xffff, ""),
		netfilter.DNATTo(at.Draw(t, "rewritten to")),
	}).Draw(t, "verdict")
	return r
}

func TestRuleRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom(families()).Draw(t, "family")
		want := drawRule(t, f)
		text := want.Render(f)
		got, _, err := netfilter.ParseRule(f, text)
		if err != nil || got != want {
			t.Fatalf("%s\nread as %+v, %v\nwant %+v", text, got, err, want)
		}
	})
}

// TestParseOtherSpellings: what programs of other versions print means the same.
func TestParseOtherSpellings(t *testing.T) {
	for _, c := range []struct {
		f           model.Family
		text, means string
	}{
		{model.IPv6, "-p icmpv6 -j ACCEPT", "-p ipv6-icmp -j ACCEPT"},
		{model.IPv6, "-p 58 -j ACCEPT", "-p ipv6-icmp -j ACCEPT"},
		{model.IPv4, "-p 1 -j ACCEPT", "-p icmp -j ACCEPT"},
		{model.IPv4, "-p 6 -j DROP", "-p tcp -j DROP"},
		{model.IPv4, "-j REJECT --reject-with icmp-port-unreachable", "-j REJECT"},
		{model.IPv6, "-j REJECT --reject-with icmp6-port-unreachable", "-j REJECT"},
		{model.IPv4, "-m mark --mark 0x7 -j DROP", "-m mark --mark 0x7/0xffffffff -j DROP"},
		{model.IPv4, "-m conntrack --ctstate ESTABLISHED,NEW -j DROP", "-m conntrack --ctstate NEW,ESTABLISHED -j DROP"},
		{model.IPv4, "-m mark --mark 0x1/0x1 -p tcp -j DROP", "-p tcp -m mark --mark 0x1/0x1 -j DROP"},
		{model.IPv4, "-m conntrack --ctstate DNAT,NEW -j DROP", "-m conntrack --ctstate NEW,DNAT -j DROP"},
		{model.IPv4, "-p tcp -d 192.0.2.1 -m conntrack --ctstate DNAT -m tcp --dport 80 -j DROP", "-d 192.0.2.1/32 -p tcp -m tcp --dport 80 -m conntrack --ctstate DNAT -j DROP"},
		{model.IPv6, "-p 17 -m udp --dport 053 -d 2001:db8::1 -j DROP", "-d 2001:db8::1/128 -p udp -m udp --dport 53 -j DROP"},
		{model.IPv4, "-j NFLOG --nflog-group 7 --nflog-prefix a", "-j NFLOG --nflog-prefix a --nflog-group 7"},
		{model.IPv4, "-j NFLOG --nflog-prefix \"a\" --nflog-group 0", "-j NFLOG --nflog-prefix a"},
		{model.IPv4, "-p 6 ! -i lo -m tcp --dport 22:22 -j DROP", "! -i lo -p tcp -m tcp --dport 22 -j DROP"},
		{model.IPv4, "-m connmark --mark 0x7 -m mark --mark 0x8 -j DROP", "-m mark --mark 0x8/0xffffffff -m connmark --mark 0x7/0xffffffff -j DROP"},
		{model.IPv4, `-m comment --comment "two \"words\"" -j DROP`, "-j DROP"},
	} {
		r, _, err := netfilter.ParseRule(c.f, c.text)
		if err != nil || r.Render(c.f) != c.means {
			t.Errorf("%s means %q, %v; want %q", c.text, r.Render(c.f), err, c.means)
		}
	}
}

// TestParseRefuses: what a Rule cannot say must never be passed over.
func TestParseRefuses(t *testing.T) {
	limited := netfilter.Rule{Limit: 5, Do: netfilter.Do(netfilter.Drop)}.Render(model.IPv4)
	for _, text := range []string{
		"", "-m set", "-j", "-s 192.0.2.1/32 -j DROP", "! -p tcp -j DROP",
		"-p tcp -m tcp --dport 0 -j DROP", "-p tcp -m tcp --dport 0:65535 -j DROP", "-p tcp -m tcp --dport 23:22 -j DROP", "-p tcp -m tcp --dport 22: -j DROP",
		"-p tcp -m tcp --dport :22 -j DROP", "-p tcp -m tcp --dport 22:23:24 -j DROP", "-p tcp -m tcp --dport 1:65536 -j DROP", "-p tcp -m udp --dport 22 -j DROP",
		"-i + -j DROP", "! -i + -j DROP", "! -i  -j DROP", "! -i lo ! -i eth0 -j DROP", "-i lo ! -i eth0 -j DROP", "! -o lo -j DROP",
		"--mark 0x1 -j DROP", "-m conntrack --mark 0x1 -j DROP", "-m connmark --mark 0x1/0x0 -j DROP", "-m connmark --mark 0x1 -m connmark --mark 0x2 -j DROP",
		"-g SLUICE-X -j DROP", "-g SLUICE-X --now", "-g", "! -g SLUICE-X", "-g SLUICE-X -g SLUICE-Y",
		"-j NFLOG --nflog-prefix a --nflog-size 128", "-j NFLOG --nflog-group 65536", "-j NFLOG --nflog-group", "-j NFLOG --nflog-group 1 --nflog-group 2",
		"-j NFLOG --nflog-prefix \"a b\"", "-j NFLOG --nflog-prefix 0123456789012345678901234567890123456789012345678901234567890123", "-j NFLOG ! --nflog-group 1",
		"-m limit --limit 5/sec -j DROP", strings.Replace(limited, "5/sec", "6/sec", 1), strings.Replace(limited, "burst 5", "burst 6", 1), strings.Replace(limited, "sec", "min", 1),
		strings.Replace(limited, "srcip,", "", 1), strings.Replace(limited, "sluice-", "others-", 1), strings.Replace(limited, "-j DROP", "-j ACCEPT", 1),
		strings.Replace(limited, " --hashlimit-name", " --hashlimit-htable-max 7 --hashlimit-name", 1), strings.Replace(limited, "--hashlimit-burst 5", "", 1),
		netfilter.Rule{Limit: netfilter.MaxLimit + 1, Do: netfilter.Do(netfilter.Drop)}.Render(model.IPv4), limited + " --hashlimit-upto 5/sec",
		"-p ipv6-icmp -j DROP", "-p icmp -m icmp --icmp-type 3 -j DROP", "-m icmp --icmp-type 8 -j DROP", "-p all -j DROP",
		"-m set --match-set SLUICE-A dst,both -j DROP", "-m set --match-set SLUICE-A dst,dst,dst,dst -j DROP",
		"-m set --match-set SLUICE-6-A dst -j DROP", "-m set --match-set SLUICE-A -j DROP",
		"-m set --match-set A src -m set --match-set B src -m set --match-set C src -j DROP",
		"-m set --match-set SLUICE-A dst --return-nomatch -j DROP",
		"-m mark --mark 0x1/0x0 -j DROP", "-m mark --mark one -j DROP", "-m mark --mark 0x1 -m mark --mark 0x2 -j DROP",
		"-m conntrack --ctstate NEW,SOON -j DROP", "-m conntrack ! --ctstate NEW -j DROP", "-m conntrack --ctstate NEW --ctdir ORIGINAL -j DROP",
		"-j MARK --set-mark 0x1", "-j MARK", "-j MASQUERADE --to-ports 1024", "-j MASQUERADE --random-fully --random",
		"-j REJECT --reject-with icmp-host-prohibited", "-j DROP --now", "-j LOG --log-prefix x", `-m comment --comment "open -j DROP`,
		"-d 192.0.2.1/32 -j DROP", "-d 192.0.2.1/32 -p tcp -j DROP", "-d 192.0.2.1/32 -p tcp -m tcp -j DROP", "-p tcp -m tcp -j DROP",
		"-d 192.0.2.0/24 -p tcp -m tcp --dport 22 -j DROP", "-d 192.0.2.1/32 -p tcp -m tcp --dport 22:23 -j DROP",
		"-d 192.0.2.1/32 -p tcp -m tcp --dport 65536 -j DROP", "-d 192.0.2.1/32 -p tcp -m tcp --dport ssh -j DROP",
		"-d 192.0.2.1/32 -p tcp --dport 22 -j DROP", "-d 192.0.2.1/32 -p tcp -m udp --dport 22 -j DROP", "-d 192.0.2.1/32 -m tcp --dport 22 -j DROP",
		"-d 192.0.2.1/32 -p tcp -m tcp -m tcp --dport 22 -j DROP", "-d 192.0.2.1/32 -p icmp -m tcp --dport 22 -j DROP",
		"! -d 192.0.2.1/32 -p tcp -m tcp --dport 22 -j DROP", "-d 192.0.2.1/32 -p tcp -m tcp ! --dport 22 -j DROP",
		"-d 192.0.2.1/32 -d 192.0.2.2/32 -p tcp -m tcp --dport 22 -j DROP", "-d 2001:db8::1/128 -p tcp -m tcp --dport 22 -j DROP",
		"-d 192.0.2.1/32 -p tcp -m tcp --sport 22 -j DROP", "-d  -p tcp -m tcp --dport 22 -j DROP",
		"-p tcp -j DNAT", "-p tcp -j DNAT --to-destination", "-p tcp -j DNAT --to-destination 10.0.0.1", "-p tcp -j DNAT --to-destination 10.0.0.1:0",
		"-p tcp -j DNAT --to-destination 10.0.0.1-10.0.0.2:80", "-p tcp -j DNAT --to-destination [fd00::1]:80",
		"-p tcp -j DNAT --to-destination 10.0.0.1:80 --random", "-p tcp -j DNAT --to-destination 10.0.0.1:80-81",
		"-m conntrack --ctstate SNAT -j DROP",
		"! ! -m mark --mark 0x1 -j DROP", "-m mark --mark 0x1 ! -j DROP",
	} {
		if r, _, err := netfilter.ParseRule(model.IPv4, text); err == nil {
			t.Errorf("%q was taken for %+v", text, r)
		}
	}
}

// FuzzParseRule: whatever is read can be written and read again.
func FuzzParseRule(f *testing.F) {
	for _, family := range families() {
		for _, r := range slices.Concat(everyRule(family), natRules(family)) {
			f.Add(r.Render(family), family == model.IPv4)
		}
	}
	f.Fuzz(func(t *testing.T, text string, four bool) {
		family := model.IPv6
		if four {
			family = model.IPv4
		}
		r, _, err := netfilter.ParseRule(family, text)
		if err != nil {
			return
		}
		again, _, err := netfilter.ParseRule(family, r.Render(family))
		if err != nil || again != r {
			t.Errorf("%q: %+v\nwritten and read again: %+v, %v", text, r, again, err)
		}
	})
}
