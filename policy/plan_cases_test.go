package policy_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
	"sluice.dev/sluice/policy"
)

// onNode is the fixture on this node, with what is told more, at rest.
func onNode(t *testing.T, more ...any) *planned {
	t.Helper()
	return configured(t, func(*policy.Config) {}, more...)
}

func configured(t *testing.T, change func(*policy.Config), more ...any) *planned {
	t.Helper()
	w := newPlanned(change)
	w.tell(fixtureFacts()...)
	w.tell(more...)
	for _, pod := range []string{"x/a", "x/b"} {
		for _, a := range podOf(pod).Addrs {
			w.hairpin(netip.AddrPortFrom(a, 80), model.TCP)
		}
	}
	w.settle(t)
	return w
}

var denyAll = policyOf("x/deny", "all", types("Ingress", "Egress"))

// The cases that other implementations got wrong, by their numbers in the
// requirement: those that are about rules.

func TestCase1DenyHoldsThroughVirtualAddresses(t *testing.T) {
	w := onNode(t, denyAll)
	w.see(t, "x/a > x/b TCP 80: no", "x/a > x/b TCP 80 vip: no", "x/a > x/b TCP 80 nodeport: no",
		"y/a > x/b TCP 80: no", "y/a > x/b TCP 80 vip: no", "x/a > y/b TCP 80: no", "x/a > y/b TCP 80 vip: no",
		"203.0.113.1 > x/a TCP 80: no", "203.0.113.1 > x/a TCP 80 nodeport: no", "y/a > z/b TCP 80: yes", "y/a > z/b TCP 80 vip: yes")
}

func TestCase2PolicyMeansTheTargetPort(t *testing.T) {
	w := onNode(t, policyOf("x/web", "pod=a", in(rule("", "TCP 8080"))))
	w.see(t, "y/a > x/a TCP 8080 vip: yes", "y/a > x/a TCP 8080: yes", fmt.Sprintf("y/a > x/a TCP %d: no", vipPort))
}

func TestCase3Hairpin(t *testing.T) {
	own := policyOf("x/own", "all", in(rule("pod=a", "")), out(rule("pod=a", "")))
	for _, c := range []struct {
		name    string
		enforce bool
		told    []any
		want    string
	}{
		{"no policy", false, nil, "yes"},
		{"deny", false, []any{denyAll}, "yes"},
		{"deny, enforced", true, []any{denyAll}, "no"},
		{"own label allowed, enforced", true, []any{own}, "yes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := configured(t, func(cfg *policy.Config) { cfg.EnforceHairpin = c.enforce }, c.told...)
			w.see(t, "x/a > x/a TCP 80 vip: "+c.want)
		})
	}
}

func TestCase5DenyEgressHoldsTowardsTheNode(t *testing.T) {
	w := onNode(t, policyOf("x/out", "pod=a", out(rule("ns:ns=y pod=a", "TCP 80"))))
	w.see(t, "x/a > y/a TCP 80 vip: yes", "x/a > y/a TCP 80 nodeport: yes", "x/a > y/b TCP 80 vip: no", "x/a > y/b TCP 80 nodeport: no",
		"x/a > 10.96.0.10 TCP 22 vip-port: no", "x/a > fd00:96::10 TCP 22 vip-port: no", "x/a > 10.96.0.10 UDP 8001 vip-port: no",
		"x/a > 192.168.0.1 TCP 22 node: no", "x/a > fd00:a::1 TCP 22 node: no",
		"x/b > 192.168.0.1 TCP 22 node: yes", "x/b > 10.96.0.10 TCP 22 vip-port: yes", "y/a > 192.168.0.1 TCP 22 node: yes")
}

func TestCase6OnlyTheNodeItselfIsExempt(t *testing.T) {
	w := onNode(t, denyAll)
	w.see(t, "192.168.0.1 > x/a TCP 80 host: yes", "fd00:a::1 > x/a TCP 80 host: yes",
		"10.96.0.10 > x/a TCP 80 host-vip: yes", "fd00:96::10 > x/a TCP 80 host-vip: yes",
		"192.168.0.2 > x/a TCP 80: no", "fd00:a::2 > x/a TCP 80: no", "192.168.0.2 > x/a TCP 80 nodeport: no",
		// What says that it is the node's, and came from elsewhere.
		"192.168.0.1 > x/a TCP 80: no", "192.168.0.1 > x/a TCP 80 vip: no", "fd00:a::1 > x/a TCP 80 vip: no", "fd00:a::1 > x/a TCP 80 nodeport: no",
		"10.96.0.10 > x/a TCP 80 vip: no", "fd00:96::10 > x/a TCP 80 vip: no", "fd00:96::10 > x/a TCP 80: no", "fd00:96::10 > x/a TCP 80 nodeport: no")
}

func TestCase7Blocks(t *testing.T) {
	for peers, lines := range map[string][]string{
		// The same range is an exception of one and a block of the other.
		"10.0.0.0/8 except 10.0.2.0/24; 10.0.2.0/24": {"fd00::2:1 > x/a TCP 80: no", "10.0.2.1 > x/a TCP 80: yes", "10.0.3.1 > x/a TCP 80: yes"},
		// An exception is no denial.
		"10.0.0.0/1 except 10.0.0.0/16; 10.0.0.0/8": {"10.0.2.1 > x/a TCP 80: yes", "11.0.0.1 > x/a TCP 80: yes", "129.0.0.1 > x/a TCP 80: no"},
		"10.0.0.0/8 except 10.0.2.0/24":             {"10.0.2.1 > x/a TCP 80: no", "10.0.3.1 > x/a TCP 80: yes", "fd00::3:1 > x/a TCP 80: no"},
		// Nested: the exceptions of one block only.
		"10.0.0.0/8 except 10.0.2.0/24; 10.0.2.0/24 except 10.0.2.1/32": {"10.0.2.1 > x/a TCP 80: no", "10.0.2.2 > x/a TCP 80: yes"},
		"0.0.0.0/0":                        {"203.0.113.1 > x/a TCP 80: yes", "1.1.1.1 > x/a TCP 80: yes", "fd00::2:1 > x/a TCP 80: no"},
		"::/0":                             {"fd00::2:1 > x/a TCP 80: yes", "2001:db8::1 > x/a TCP 80: yes", "10.0.2.1 > x/a TCP 80: no"},
		"0.0.0.0/0 except 0.0.0.0/1":       {"10.0.2.1 > x/a TCP 80: no", "203.0.113.1 > x/a TCP 80: yes"},
		"::/0 except 8000::/1":             {"fd00::2:1 > x/a TCP 80: no", "2001:db8::1 > x/a TCP 80: yes"},
		"10.0.2.1/32; fd00::2:1/128":       {"y/a > x/a TCP 80: yes", "y/b > x/a TCP 80: no"},
		"0.0.0.0/0 except 10.0.2.1/32":     {"10.0.2.1 > x/a TCP 80: no", "10.0.2.2 > x/a TCP 80: yes"},
		"0.0.0.0/0 except 0.0.0.0/0; ::/0": {"10.0.2.1 > x/a TCP 80: no", "fd00::2:1 > x/a TCP 80: yes"},
		"10.0.2.1/32 except 10.0.2.1/32":   {"10.0.2.1 > x/a TCP 80: no"},
	} {
		t.Run(peers, func(t *testing.T) {
			w := onNode(t, policyOf("x/in", "pod=a", in(rule(peers, "TCP 80"))))
			w.see(t, lines...)
		})
	}
}

func TestCase8NamedPorts(t *testing.T) {
	port := func(name string, p model.Protocol, n uint16) func(*model.Pod) {
		return func(pod *model.Pod) {
			pod.Ports = append(pod.Ports, model.ContainerPort{Name: name, Protocol: p, Port: n})
		}
	}
	pods := []any{
		podOf("x/a", port("web", model.TCP, 8080), port("web", model.TCP, 8081), port("odd", model.UDP, 7000)), // in two containers
		podOf("x/b", port("web", model.TCP, 9090)), podOf("y/a", port("web", model.TCP, 7070)),
	}
	w := onNode(t, append(pods, policyOf("x/in", "all", in(rule("pod=c; ns:ns=y", "TCP web")), in(rule("ns:ns=z", "TCP nope; TCP odd"))))...)
	w.see(t, "y/a > x/a TCP 8080: yes", "y/a > x/a TCP 8081: yes", "y/a > x/b TCP 9090: yes",
		"y/a > x/a TCP 9090: no", "y/a > x/b TCP 8080: no", "y/a > x/a UDP 8080: no", "y/a > x/c TCP 8080: no",
		"z/a > x/a TCP 80: no", "z/a > x/a UDP 7000: no", "z/a > x/a TCP 7000: no", "z/a > x/a TCP 8080: no")
	w = onNode(t, append(pods, policyOf("x/out", "pod=a", out(rule("", "TCP web"))))...)
	w.see(t, "x/a > y/a TCP 7070: yes", "x/a > x/b TCP 9090: yes", "x/a > x/b TCP 7070: no", "x/a > 203.0.113.1 TCP 7070: no")
	w = onNode(t, append(pods, policyOf("x/out", "pod=a", out(rule("10.0.2.0/24", "TCP web"))))...)
	w.see(t, "x/a > 10.0.2.1 TCP 7070: yes", "x/a > 10.0.1.2 TCP 9090: no", "x/a > fd00::2:1 TCP 7070: no")
}

func TestCase9AddressesAreGivenOn(t *testing.T) {
	old := podOf("y/a", func(p *model.Pod) { p.Labels["old"] = "" })
	heir := podOf("y/b", func(p *model.Pod) { p.Addrs = old.Addrs })
	allow := policyOf("x/in", "all", in(rule("ns:all old", "")))
	done := old
	done.Done = true
	w := onNode(t, allow, old)
	w.see(t, "y/a > x/a TCP 80: yes")
	w.tell(done, heir)
	w.settle(t)
	w.see(t, "y/a > x/a TCP 80: no")
	w.tell(model.PodKey{Name: old.Name, UID: old.UID})
	w.settle(t)
	w.see(t, "y/a > x/a TCP 80: no")

	// Two that say they have it: the one that said so last, also as another pod.
	w = onNode(t, allow, old, heir)
	w.see(t, "y/a > x/a TCP 80: no")
	w.tell(old)
	w.settle(t)
	w.see(t, "y/a > x/a TCP 80: no")
	w.tell(podOf("y/a", func(p *model.Pod) { p.UID, p.Labels["old"] = "2", "" }))
	w.settle(t)
	w.see(t, "y/a > x/a TCP 80: yes")

	// Fast recreate, told in either order.
	again := podOf("y/a", func(p *model.Pod) { p.UID, p.Labels["old"] = "2", "" })
	w = onNode(t, allow, old)
	w.tell(again, model.PodKey{Name: old.Name, UID: old.UID})
	w.settle(t)
	w.see(t, "y/a > x/a TCP 80: yes")
	w.tell(model.PodKey{Name: old.Name, UID: "2"})
	w.settle(t)
	w.see(t, "y/a > x/a TCP 80: no")

	// A pod of this node that took over the address of one that was isolated.
	w = onNode(t, policyOf("x/in", "pod=a", types("Ingress")))
	w.see(t, "y/a > x/a TCP 80: no")
	w.tell(podOf("x/a", func(p *model.Pod) { p.Done = true }), podOf("x/b", func(p *model.Pod) { p.Addrs = podOf("x/a").Addrs }))
	w.settle(t)
	w.see(t, "y/a > x/a TCP 80: yes")
}

func TestCase10HostNetworkPodsAreNotMeant(t *testing.T) {
	onHost := func(p *model.Pod) { p.HostNetwork, p.Addrs = true, addrList("192.168.0.1 fd00:a::1") }
	elsewhere := func(p *model.Pod) { p.HostNetwork, p.Addrs = true, addrList("192.168.0.2 fd00:a::2") }
	w := onNode(t, podOf("x/a", onHost), podOf("y/a", elsewhere), denyAll, policyOf("x/in", "pod=b", in(rule("ns:all", ""))))
	w.see(t, "y/b > 192.168.0.1 TCP 22 node: yes", "192.168.0.1 > y/b TCP 22 host: yes", "203.0.113.1 > 192.168.0.1 TCP 6443 node: yes",
		"192.168.0.2 > x/b TCP 80: no", "y/b > x/b TCP 80: yes")
}

func TestCase13OnePolicyThatTheKernelRefusesHurtsNobodyElse(t *testing.T) {
	w := newPlanned()
	w.tell(fixtureFacts()...)
	s := newSlow(w)
	s.settle(t)
	var ports []string
	for n := range 2000 {
		ports = append(ports, fmt.Sprintf("TCP %d", 1000+2*n))
	}
	s.tell(policyOf("x/bad", "pod=a", in(rule("10.0.2.0/24; fd00::/16", "TCP 80"))), policyOf("x/good", "pod=b", in(rule("ns:ns=y", "TCP 80"))),
		policyOf("x/large", "pod=c", in(rule("", strings.Join(ports, ";")))))
	s.refuses = blockSets
	for range 5 {
		s.take()
		s.put(s.behind()...)
		s.drop(s.behind()...)
		s.now = s.now.Add(1e9)
	}
	s.see(t, "y/a > x/a TCP 80: no", "y/a > x/b TCP 80: yes", "z/a > x/b TCP 80: no", "y/a > x/c TCP 4998: yes", "y/a > x/c TCP 4997: no", "y/a > z/a TCP 80: yes")
	problems := s.planner.Problems()
	if len(problems) != 1 || problems[0].Object != nameOf("x/bad") || problems[0].Reason != "NotEnforced" {
		t.Errorf("problems %+v", problems)
	}
	s.refuses = func(netfilter.Key) bool { return false }
	s.settle(t)
	s.see(t, "y/a > x/a TCP 80: yes", "z/a > x/a TCP 81: no", "10.0.3.1 > x/a TCP 80: no")
	if problems := s.planner.Problems(); len(problems) != 0 {
		t.Errorf("problems %+v", problems)
	}
}

func TestCase14NamesThatRunTogether(t *testing.T) {
	long := strings.Repeat("n", 63)
	pod := func(ns, name string, n int) model.Pod {
		return model.Pod{Name: model.Name{Namespace: ns, Name: name}, UID: ns + name, Node: "n1", Addrs: worldAddrs(1, n), Labels: map[string]string{"pod": name}}
	}
	allow := func(ns, name, from string) model.NetworkPolicy {
		return policyOf(ns+"/"+name, "pod=c", in(rule("pod="+from, "")))
	}
	w := onNode(t, pod("a", "c", 1), pod("ab", "c", 2), pod("a", "bd", 3), pod("ab", "d", 4), pod(long, "c", 5), pod(long, long, 6),
		allow("a", "bc", "bd"), allow("ab", "c", "d"), allow(long, long, long))
	w.see(t, "10.1.0.3 > 10.1.0.1 TCP 80: yes", "10.1.0.4 > 10.1.0.2 TCP 80: yes", "10.1.0.3 > 10.1.0.2 TCP 80: no", "10.1.0.4 > 10.1.0.1 TCP 80: no",
		"10.1.0.6 > 10.1.0.5 TCP 80: yes", "10.1.0.1 > 10.1.0.5 TCP 80: no")
	// Selectors whose parts run together mean other pods.
	for _, peers := range [][2]string{{"ab=c", "a=bc"}, {"ain(b|c)", "ain(bc)"}, {"ns:a=b pod=a", "ns:a=b,pod=a"}, {"a;b", "a,b"}, {"ns:a", "a"}, {"a=b", "a!=b"}} {
		one := chainsOf(onNode(t, policyOf("x/p", "all", in(rule(peers[0], "")))))
		other := chainsOf(onNode(t, policyOf("x/p", "all", in(rule(peers[1], "")))))
		if one == other {
			t.Errorf("%q and %q have the same chain %s", peers[0], peers[1], one)
		}
	}
}

// chainsOf are the classes that a world wishes.
func chainsOf(w *planned) string {
	var out []string
	for o := range w.wished {
		if o.Kind == "PolicyClass" {
			out = append(out, o.Name.Name)
		}
	}
	return strings.Join(out, " ")
}

func TestCase16NothingSelected(t *testing.T) {
	w := onNode(t, policyOf("x/nobody", "pod=none", types("Ingress", "Egress")))
	if got := chainsOf(w); got != "" {
		t.Errorf("a policy that selects no pod has chains: %s", got)
	}
	w = onNode(t, policyOf("x/in", "pod=a", in(rule("pod=none", ""))))
	w.see(t, "x/b > x/a TCP 80: no", "203.0.113.1 > x/a TCP 80: no")
	w.tell(model.NetworkPolicyKey{Name: nameOf("x/in")}, model.NamespaceKey{Name: "x"})
	w.settle(t)
	w.see(t, "x/b > x/a TCP 80: yes")
	w.tell(model.PodKey{Name: nameOf("x/a"), UID: podOf("x/a").UID})
	w.settle(t)
	if got := chainsOf(w); got != "" {
		t.Errorf("chains are left: %s", got)
	}
}

func TestCase17Ranges(t *testing.T) {
	w := onNode(t,
		policyOf("x/a", "pod=a", in(rule("", "UDP 5000-5010; SCTP 1-65535; TCP 80-80"))),
		policyOf("x/b", "pod=b", in(rule("", "TCP 1; TCP 3; TCP 5; TCP 7; TCP 9; TCP 11; TCP 13; TCP 15; TCP 17; TCP 19; TCP 21; TCP 23; TCP 25; TCP 27; TCP 29; TCP 31; TCP 33; TCP 35"))),
		policyOf("x/c", "pod=c", in(rule("", "UDP; TCP 65535; TCP 8000-8005; TCP 8006; TCP 8003-8010"))))
	w.see(t, "y/a > x/a UDP 5000: yes", "y/a > x/a UDP 5010: yes", "y/a > x/a UDP 4999: no", "y/a > x/a UDP 5011: no", "y/a > x/a TCP 5005: no",
		"y/a > x/a SCTP 1: yes", "y/a > x/a SCTP 65535: yes", "y/a > x/a TCP 80: yes", "y/a > x/a TCP 81: no",
		"y/a > x/b TCP 1: yes", "y/a > x/b TCP 35: yes", "y/a > x/b TCP 34: no",
		"y/a > x/c UDP 1: yes", "y/a > x/c SCTP 1: no", "y/a > x/c TCP 65535: yes", "y/a > x/c TCP 8010: yes", "y/a > x/c TCP 8011: no", "y/a > x/c TCP 7999: no")
}

// TestKnownConnections: what is known is not judged again, unless it was revoked;
// then neither direction passes.
func TestKnownConnections(t *testing.T) {
	for _, accept := range []bool{false, true} {
		w := configured(t, func(c *policy.Config) { c.Accept = accept }, denyAll)
		for _, p := range packets(t, "y/a > x/a TCP 80") {
			there := netfiltertest.Packet{Src: netip.AddrPortFrom(p.Src, clientPort), Dst: netip.AddrPortFrom(p.Dst, 80), Protocol: model.TCP, State: netfilter.StateEstablished}
			back := there
			back.Src, back.Dst = there.Dst, there.Src
			for _, packet := range []netfiltertest.Packet{there, back} {
				if got := w.kernel.Trace(host(there.Dst), packet); !passes(got) {
					t.Errorf("established: %s", got)
				}
				packet.ConnMark = 1<<15 | 7
				if got := w.kernel.Trace(host(there.Dst), packet); got.Fate != netfiltertest.Rejected || len(got.Logged) != 1 || got.Logged[0].Prefix != policy.LogRevoked {
					t.Errorf("revoked: %s", got)
				}
			}
		}
	}
}

// TestRefusals: how, and who hears of it.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		probe  string
		drop   bool
		state  netfilter.State
		action netfilter.Action
		prefix string
	}{
		{"y/a > x/a TCP 80", false, 0, netfilter.Reset, policy.LogIngress},
		{"y/a > x/a UDP 80", false, 0, netfilter.Reject, policy.LogIngress},
		{"x/a > y/a TCP 80", false, 0, netfilter.Reset, policy.LogEgress},
		{"x/a > y/a TCP 80", false, netfilter.StateInvalid, netfilter.Drop, policy.LogEgress},
		{"x/a > y/a TCP 80", true, 0, netfilter.Drop, policy.LogEgress},
		{"y/a > x/a UDP 80", true, 0, netfilter.Drop, policy.LogIngress},
	} {
		w := configured(t, func(cfg *policy.Config) { cfg.Drop = c.drop }, denyAll)
		for _, p := range packets(t, c.probe) {
			dst := netip.AddrPortFrom(p.Dst, p.Port)
			got := w.kernel.Trace(host(dst), netfiltertest.Packet{Src: netip.AddrPortFrom(p.Src, clientPort), Dst: dst, Protocol: p.Protocol, State: c.state})
			if got.Verdict.Action != c.action || len(got.Logged) != 1 || got.Logged[0].Prefix != c.prefix || got.Logged[0].Group != 100 {
				t.Errorf("%s, drop %v, state %v: logged %v\n%s", c.probe, c.drop, c.state, got.Logged, got)
			}
		}
	}
}

// TestNeighbourDiscovery is never judged, or no IPv6 pod would be found.
func TestNeighbourDiscovery(t *testing.T) {
	w := onNode(t, denyAll)
	for _, p := range packets(t, "y/a > x/a ICMP") {
		if p.Dst.Is4() {
			continue
		}
		dst := netip.AddrPortFrom(p.Dst, 0)
		packet := netfiltertest.Packet{Src: netip.AddrPortFrom(p.Src, 0), Dst: dst, Protocol: netfiltertest.ICMPv6, State: netfilter.StateUntracked}
		if got := w.kernel.Trace(host(dst), packet); !passes(got) {
			t.Errorf("untracked ICMPv6: %s", got)
		}
	}
}

// TestUnknownPods: an address in this node's pod range that is nobody's.
func TestUnknownPods(t *testing.T) {
	node := model.Node{Name: "n1", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24"), netip.MustParsePrefix("fd00::1:0/112")}}
	w := configured(t, func(c *policy.Config) { c.UnknownDeny = true }, node, model.LocalAddrs{Addrs: addrList("192.168.0.1 fd00:a::1 10.0.1.254 fd00::1:fe")})
	w.see(t, "10.0.1.77 > y/a TCP 80: no", "fd00::1:77 > y/a TCP 80: no", "y/a > 10.0.1.77 TCP 80: no", "y/a > fd00::1:77 TCP 80 vip: no",
		"10.0.1.77 > 192.168.0.1 TCP 22 node: no", "10.0.1.77 > 10.0.1.254 TCP 53 host: no",
		"x/a > y/a TCP 80: yes", "y/a > x/a TCP 80: yes", "x/a > x/b TCP 80 vip: yes", "x/a > 192.168.0.1 TCP 22 node: yes", "y/a > 203.0.113.1 TCP 80: yes",
		"10.0.1.254 > 192.168.0.1 TCP 22 node: yes", "10.0.1.254 > x/a TCP 80 host: yes")
	// Known, it may; also one of another node that has an address of this range.
	w.tell(podOf("x/c", func(p *model.Pod) { p.Addrs = addrList("10.0.1.77 fd00::1:77"); p.Node = "n2" }))
	w.settle(t)
	w.see(t, "10.0.1.77 > y/a TCP 80: yes", "y/a > fd00::1:77 TCP 80: yes", "x/c > y/a TCP 80: no")
	w.tell(model.Node{Name: "n1"})
	w.settle(t)
	w.see(t, "x/c > y/a TCP 80: yes")
}

// TestAcceptEndsTheWay of what is a pod's of this node, and of nothing else.
func TestAcceptEndsTheWay(t *testing.T) {
	w := configured(t, func(c *policy.Config) { c.Accept = true }, policyOf("x/in", "pod=a", in(rule("ns:ns=y", ""))))
	for probe, accepted := range map[string]bool{"y/a > x/a TCP 80": true, "x/b > y/a TCP 80": true, "y/a > z/a TCP 80": false} {
		for _, p := range packets(t, probe) {
			if got := w.trace(p, forwarded); strings.Contains(got.String(), "-j ACCEPT") != accepted || !passes(got) {
				t.Errorf("%s: accepted is not %v\n%s", probe, accepted, got)
			}
		}
	}
}
