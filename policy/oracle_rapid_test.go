package policy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/policy"
)

func draw[T any](t *rapid.T, what string, from ...T) T { return rapid.SampledFrom(from).Draw(t, what) }

// anyPeer is a peer as people write them, or one of a field that nobody knows.
func anyPeer(t *rapid.T) string {
	return draw(t, "peer", "pod=a", "podnotin(a)", "!pod", "all", "ns:ns=y", "ns:ns!=x", "ns:all", "ns:ns=z pod=b", "ns:nsin(x|y) tier", "unknown",
		"10.0.2.0/24", "10.0.0.0/8 except 10.0.2.0/31 10.0.3.0/24", "0.0.0.0/0 except 203.0.113.0/24", "fd00::/16", "::/0 except fd00::2:0/112", "192.168.0.2/32", "203.0.113.1/32")
}

func anyPort(t *rapid.T) string {
	return draw(t, "port", "TCP 80", "TCP 79-81", "UDP", "SCTP 1-65535", "TCP serve-80-tcp", "TCP serve-80-udp", "UDP serve-80-udp", "TCP nope", "TCP")
}

func anyList(t *rapid.T, what string, one func(*rapid.T) string) string {
	list := ""
	for range rapid.IntRange(0, 2).Draw(t, what) {
		list += one(t) + ";"
	}
	return list
}

func anyRule(t *rapid.T) model.PolicyRule {
	return rule(anyList(t, "peers", anyPeer), anyList(t, "ports", anyPort))
}

// anyPolicy is a policy of x or y, of a name out of three.
func anyPolicy(t *rapid.T) model.NetworkPolicy {
	parts := []func(*model.NetworkPolicy){
		draw(t, "types", types(), types("Ingress"), types("Egress"), types("Ingress", "Egress")),
	}
	for range rapid.IntRange(0, 2).Draw(t, "ingress rules") {
		parts = append(parts, in(anyRule(t)))
	}
	for range rapid.IntRange(0, 2).Draw(t, "egress rules") {
		parts = append(parts, out(anyRule(t)))
	}
	return policyOf(draw(t, "namespace", "x", "y")+"/"+draw(t, "name", "p", "q", "r"), draw(t, "selects", "all", "pod=a", "podin(a|b)", "tier"), parts...)
}

// anyPod is a pod of the fixture, which may be one of several lives.
func anyPod(t *rapid.T) model.Pod {
	return podOf(draw(t, "in", "x", "y", "z")+"/"+draw(t, "pod", "a", "b"), func(p *model.Pod) {
		p.UID = draw(t, "uid", p.UID, "another uid of "+p.Name.String())
		p.HostNetwork = rapid.IntRange(0, 7).Draw(t, "host") == 0
		p.Done = rapid.IntRange(0, 7).Draw(t, "done") == 0
		if rapid.Bool().Draw(t, "tier") {
			p.Labels["tier"] = "web"
		}
		if rapid.IntRange(0, 4).Draw(t, "one family") == 0 {
			p.Addrs = p.Addrs[:1]
		}
		if rapid.IntRange(0, 4).Draw(t, "no ports") == 0 {
			p.Ports = p.Ports[1:]
		}
	})
}

func anyNamespace(t *rapid.T) model.Namespace {
	name := draw(t, "namespace", "x", "y", "z")
	return model.Namespace{Name: name, Labels: draw(t, "labels", map[string]string{"ns": name}, map[string]string{}, map[string]string{"ns": "y"})}
}

// everyPacket is one of every pod, node and outsider to every other, for a few
// ports.
func everyPacket() []policy.Packet {
	var ends []netip.Addr
	for _, ns := range []string{"x", "y", "z"} {
		for _, name := range []string{"a", "b"} {
			ends = append(ends, podOf(ns+"/"+name).Addrs...)
		}
	}
	ends = append(ends, addrList("192.168.0.1 192.168.0.2 fd00:a::2 203.0.113.1 2001:db8::1")...)
	var list []policy.Packet
	for _, src := range ends {
		for _, dst := range ends {
			if src.Is4() != dst.Is4() || src == dst {
				continue
			}
			for _, to := range []policy.Packet{{Protocol: model.TCP, Port: 80}, {Protocol: model.UDP, Port: 80}, {Protocol: 1}} {
				list = append(list, policy.Packet{Src: src, Dst: dst, Protocol: to.Protocol, Port: to.Port})
			}
		}
	}
	return list
}

// TestMoreAllowsMore: a rule, a peer or a port more, or an except less, never
// denies what was allowed.
func TestMoreAllowsMore(t *testing.T) {
	packets := everyPacket()
	rapid.Check(t, func(t *rapid.T) {
		facts := []any{}
		for range rapid.IntRange(0, 2).Draw(t, "policies") {
			facts = append(facts, anyPolicy(t))
		}
		less := anyPolicy(t)
		less.Name.Name = "changed"
		more := less
		more.IngressRules, more.EgressRules = cloneRules(less.IngressRules), cloneRules(less.EgressRules)
		enlarge(t, &more)
		before, after := fixture(append(facts, less)...), fixture(append(facts, more)...)
		for _, p := range packets {
			if d := before.Allows(p); d.Allowed() && !after.Allows(p).Allowed() {
				t.Fatalf("%v was allowed (%s; %s) and is not:\n%+v", p, d.Egress.Why, d.Ingress.Why, after.Allows(p))
			}
		}
	})
}

func cloneRules(rules []model.PolicyRule) []model.PolicyRule {
	rules = slices.Clone(rules)
	for i := range rules {
		rules[i].Peers, rules[i].Ports = slices.Clone(rules[i].Peers), slices.Clone(rules[i].Ports)
	}
	return rules
}

// enlarge has a policy allow more, or the same.
func enlarge(t *rapid.T, np *model.NetworkPolicy) {
	rules := &np.IngressRules
	if rapid.Bool().Draw(t, "egress") {
		rules = &np.EgressRules
	}
	if len(*rules) == 0 || rapid.Bool().Draw(t, "a rule") {
		*rules = append(*rules, anyRule(t))
		return
	}
	r := &(*rules)[0]
	switch what := draw(t, "what", "peer", "port", "except", "everybody", "every port"); what {
	case "peer":
		r.Peers = append(r.Peers, peerOf(anyPeer(t)))
	case "port":
		r.Ports = append(r.Ports, portOf(anyPort(t)))
	case "except":
		for i := range r.Peers {
			r.Peers[i].Except = nil
		}
	case "everybody":
		r.AnyPeer = true
	case "every port":
		r.AnyPort = true
	}
}

// TestAnotherPolicy: one that isolates no pod anew never denies.
func TestAnotherPolicy(t *testing.T) {
	packets := everyPacket()
	rapid.Check(t, func(t *rapid.T) {
		facts := []any{policyOf("x/base", "all", types("Ingress", "Egress"), in(anyRule(t)), out(anyRule(t)))}
		more := anyPolicy(t)
		more.Name.Namespace = "x"
		before, after := fixture(facts...), fixture(append(facts, more)...)
		for _, p := range packets {
			if before.Allows(p).Allowed() && !after.Allows(p).Allowed() {
				t.Fatalf("%v was allowed and is not:\n%+v", p, after.Allows(p))
			}
		}
	})
}

// TestNodesTogether: what every node enforces for its own pods is what the API
// says, and a finding is what it says to be.
func TestNodesTogether(t *testing.T) {
	packets := everyPacket()
	rapid.Check(t, func(t *rapid.T) {
		facts := fixtureFacts()
		for range rapid.IntRange(1, 4).Draw(t, "policies") {
			facts = append(facts, anyPolicy(t))
		}
		for range rapid.IntRange(0, 3).Draw(t, "pods") {
			facts = append(facts, anyPod(t))
		}
		nodes := map[string]*policy.Facts{}
		for i := range 3 {
			name := fmt.Sprintf("n%d", i+1)
			nodes[name] = policy.NewFacts(name)
			tell(nodes[name], facts...)
			tell(nodes[name], model.LocalAddrs{Addrs: addrList(fmt.Sprintf("192.168.0.%d fd00:a::%d", i+1, i+1))})
		}
		all := policy.NewFacts("")
		tell(all, facts...)
		tell(all, model.LocalAddrs{})
		for _, p := range packets {
			want := all.Allows(p)
			got := true
			for _, here := range nodes {
				got = got && here.AllowsHere(p, false)
			}
			if got != want.Allowed() {
				t.Fatalf("%v: nodes %v, want %v\n%+v", p, got, want.Allowed(), want)
			}
			sound(t, want.Egress)
			sound(t, want.Ingress)
		}
	})
}

func sound(t *rapid.T, f policy.Finding) {
	isolates := slices.Contains(f.Isolate, f.Policy)
	switch {
	case f.Why == "":
		t.Fatalf("no reason: %+v", f)
	case !f.Allowed && (len(f.Isolate) == 0 || f.Policy != model.Name{}):
		t.Fatalf("denied by nobody: %+v", f)
	case f.Policy != model.Name{} && !isolates:
		t.Fatalf("allowed by a policy that has no say: %+v", f)
	}
}

// TestOrderOfEvents: facts are what was told last of each object, in whatever
// order and with whatever came before.
func TestOrderOfEvents(t *testing.T) {
	packets := everyPacket()
	rapid.Check(t, func(t *rapid.T) {
		var history []any
		for range rapid.IntRange(1, 20).Draw(t, "events") {
			history = append(history, anyEvent(t))
		}
		live := policy.NewFacts("n1")
		tell(live, history...)
		final := lastOf(history)
		again := policy.NewFacts("n1")
		tell(again, rapid.Permutation(final).Draw(t, "order")...)
		if live.Counts() != again.Counts() {
			t.Fatalf("counts %+v, told at once %+v", live.Counts(), again.Counts())
		}
		for _, p := range packets {
			a, b := live.Allows(p), again.Allows(p)
			if fmt.Sprint(a) != fmt.Sprint(b) {
				t.Fatalf("%v: live\n%+v\ntold at once\n%+v", p, a, b)
			}
		}
	})
}

func anyEvent(t *rapid.T) any {
	switch draw(t, "event", "pod", "pod", "pod gone", "policy", "policy", "policy gone", "namespace", "namespace gone", "node", "node gone", "addrs") {
	case "pod":
		return anyPod(t)
	case "pod gone":
		p := anyPod(t)
		return model.PodKey{Name: p.Name, UID: p.UID}
	case "policy":
		return anyPolicy(t)
	case "policy gone":
		return model.NetworkPolicyKey{Name: anyPolicy(t).Name}
	case "namespace":
		return anyNamespace(t)
	case "namespace gone":
		return model.NamespaceKey{Name: anyNamespace(t).Name}
	case "node":
		return model.Node{Name: draw(t, "node", "n1", "n2"), Addrs: addrList(draw(t, "at", "192.168.0.1", "192.168.0.2 fd00:a::2"))}
	case "node gone":
		return model.NodeKey{Name: draw(t, "node", "n1", "n2")}
	}
	return model.LocalAddrs{Addrs: addrList(draw(t, "addresses", "192.168.0.1", "192.168.0.2", ""))}
}

// lastOf are the objects that are there after a history.
func lastOf(history []any) []any {
	last := map[any]any{}
	for _, fact := range history {
		switch fact := fact.(type) {
		case model.Pod:
			last[fact.Name] = fact
		case model.PodKey:
			if p, is := last[fact.Name].(model.Pod); is && p.UID == fact.UID {
				delete(last, fact.Name)
			}
		case model.NetworkPolicy:
			last[model.NetworkPolicyKey{Name: fact.Name}] = fact
		case model.NetworkPolicyKey:
			delete(last, fact)
		case model.Namespace:
			last[model.NamespaceKey{Name: fact.Name}] = fact
		case model.NamespaceKey:
			delete(last, fact)
		case model.Node:
			last[model.NodeKey{Name: fact.Name}] = fact
		case model.NodeKey:
			delete(last, fact)
		case model.LocalAddrs:
			last["local"] = fact
		}
	}
	var list []any
	for _, fact := range last {
		list = append(list, fact)
	}
	return list
}
