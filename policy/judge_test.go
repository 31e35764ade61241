package policy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/policy"
)

// The fixture is the one of the API's conformance tests: namespaces x, y and z
// with pods a, b and c each, labelled ns=x and pod=a. All of x is on node n1, of
// y on n2, of z on n3; this is n1. Each pod has named ports for its protocols.
//
//	x/a 10.0.1.1 fd00::1:1    x/b 10.0.1.2 fd00::1:2    y/a 10.0.2.1 fd00::2:1    …
//	n1 192.168.0.1 fd00:a::1    n2 192.168.0.2 fd00:a::2    …

func fixture(more ...any) *policy.Facts {
	f := policy.NewFacts("n1")
	tell(f, fixtureFacts()...)
	tell(f, more...)
	return f
}

func fixtureFacts() []any {
	var facts []any
	for i, ns := range []string{"x", "y", "z"} {
		node := fmt.Sprintf("n%d", i+1)
		facts = append(facts, model.Namespace{Name: ns, Labels: map[string]string{"ns": ns}},
			model.Node{Name: node, Addrs: addrList(fmt.Sprintf("192.168.0.%d fd00:a::%d", i+1, i+1))})
		for _, name := range []string{"a", "b", "c"} {
			facts = append(facts, podOf(ns+"/"+name))
		}
	}
	return append(facts, model.LocalAddrs{Addrs: addrList("192.168.0.1 fd00:a::1")})
}

// podOf is a pod of the fixture, which fns may change.
func podOf(name string, fns ...func(*model.Pod)) model.Pod {
	ns, pod, _ := strings.Cut(name, "/")
	n, p := strings.Index("_xyz", ns), strings.Index("_abc", pod)
	made := model.Pod{
		Name: nameOf(name), UID: "uid of " + name, Node: fmt.Sprintf("n%d", n),
		Labels: map[string]string{"ns": ns, "pod": pod},
		Addrs:  addrList(fmt.Sprintf("10.0.%d.%d fd00::%d:%d", n, p, n, p)),
		Ports: []model.ContainerPort{
			{Name: "serve-80-tcp", Protocol: model.TCP, Port: 80}, {Name: "serve-81-tcp", Protocol: model.TCP, Port: 81},
			{Name: "serve-80-udp", Protocol: model.UDP, Port: 80}, {Name: "serve-80-sctp", Protocol: model.SCTP, Port: 80},
		},
	}
	for _, fn := range fns {
		fn(&made)
	}
	return made
}

// tell tells facts; a key is told as a deletion.
func tell(f *policy.Facts, facts ...any) {
	for _, fact := range facts {
		f.Apply(event(fact))
	}
}

func event(fact any) model.Event {
	switch fact.(type) {
	case model.PodKey, model.NetworkPolicyKey, model.NamespaceKey, model.NodeKey, model.ServiceKey, model.EndpointSliceKey:
		return model.Event{Source: "test", Delete: fact}
	}
	return model.Event{Source: "test", Put: fact}
}

func nameOf(text string) model.Name {
	ns, name, _ := strings.Cut(text, "/")
	return model.Name{Namespace: ns, Name: name}
}

func addrList(text string) []netip.Addr {
	var list []netip.Addr
	for a := range strings.FieldsSeq(text) {
		list = append(list, netip.MustParseAddr(a))
	}
	return list
}

// policyOf makes a policy. Its parts are types("Ingress", …), in(rule) and
// out(rule); without types the API's default holds: Ingress, and Egress if there
// is a rule of it.
func policyOf(name, pods string, parts ...func(*model.NetworkPolicy)) model.NetworkPolicy {
	np := model.NetworkPolicy{Name: nameOf(name), Pods: *selector(pods)}
	for _, part := range parts {
		part(&np)
	}
	if !np.Ingress && !np.Egress {
		np.Ingress, np.Egress = true, len(np.EgressRules) > 0
	}
	return np
}

func types(names ...string) func(*model.NetworkPolicy) {
	return func(np *model.NetworkPolicy) {
		np.Ingress, np.Egress = slices.Contains(names, "Ingress"), slices.Contains(names, "Egress")
	}
}

func in(r model.PolicyRule) func(*model.NetworkPolicy) {
	return func(np *model.NetworkPolicy) {
		r.Index = len(np.IngressRules)
		np.IngressRules = append(np.IngressRules, r)
	}
}

func out(r model.PolicyRule) func(*model.NetworkPolicy) {
	return func(np *model.NetworkPolicy) {
		r.Index = len(np.EgressRules)
		np.EgressRules = append(np.EgressRules, r)
	}
}

// rule makes a rule of a text of peers and ports, each divided by ";":
//
//	rule("pod=a; ns:ns=x; ns:ns=x pod=a; 10.0.0.0/8 except 10.0.1.0/24", "TCP 80; UDP 80-90; TCP http; SCTP")
//
// "" is no list at all: anybody, or every port. "all" is podSelector: {}, "ns:all"
// namespaceSelector: {}.
func rule(peers, ports string) model.PolicyRule {
	r := model.PolicyRule{AnyPeer: peers == "", AnyPort: ports == ""}
	for i, text := range parts(peers) {
		p := peerOf(text)
		p.Index = i
		r.Peers = append(r.Peers, p)
	}
	for i, text := range parts(ports) {
		p := portOf(text)
		p.Index = i
		r.Ports = append(r.Ports, p)
	}
	return r
}

func parts(text string) []string {
	var list []string
	for part := range strings.SplitSeq(text, ";") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

func peerOf(text string) model.PolicyPeer {
	var p model.PolicyPeer
	cidr, except, _ := strings.Cut(text, " except ")
	if block, err := netip.ParsePrefix(cidr); err == nil {
		p.Block = block.Masked()
		for e := range strings.FieldsSeq(except) {
			p.Except = append(p.Except, netip.MustParsePrefix(e))
		}
		return p
	}
	for word := range strings.FieldsSeq(text) {
		if ns, is := strings.CutPrefix(word, "ns:"); is {
			p.Namespaces = selector(ns)
		} else if word != "unknown" { // a field that is not known
			p.Pods = selector(word)
		}
	}
	return p
}

func portOf(text string) model.PolicyPort {
	protocol, port, _ := strings.Cut(text, " ")
	p := model.PolicyPort{Protocol: protocolOf(protocol)}
	first, last, isRange := strings.Cut(port, "-")
	n, err := strconv.ParseUint(first, 10, 16)
	switch {
	case err != nil:
		p.Name = port
	case isRange:
		m, _ := strconv.ParseUint(last, 10, 16)
		p.First, p.Last = uint16(n), uint16(m)
	default:
		p.First, p.Last = uint16(n), uint16(n)
	}
	return p
}

func protocolOf(text string) model.Protocol {
	return map[string]model.Protocol{"TCP": model.TCP, "UDP": model.UDP, "SCTP": model.SCTP, "ICMP": 1}[text]
}

// selector reads "all" or requirements as kubectl writes them, without spaces:
// "k=v,k2!=v,k3in(a|b),k4notin(a|b),k5,!k6".
func selector(text string) *model.Selector {
	s := &model.Selector{}
	if text == "all" {
		return s
	}
	for part := range strings.SplitSeq(text, ",") {
		var r model.Requirement
		if key, values, is := strings.Cut(part, "notin("); is {
			r = model.Requirement{Key: key, Op: model.NotIn, Values: strings.Split(strings.TrimSuffix(values, ")"), "|")}
		} else if key, values, is := strings.Cut(part, "in("); is {
			r = model.Requirement{Key: key, Op: model.In, Values: strings.Split(strings.TrimSuffix(values, ")"), "|")}
		} else if key, value, is := strings.Cut(part, "!="); is {
			r = model.Requirement{Key: key, Op: model.NotIn, Values: []string{value}}
		} else if key, value, is := strings.Cut(part, "="); is {
			r = model.Requirement{Key: key, Op: model.In, Values: []string{value}}
		} else if key, is := strings.CutPrefix(part, "!"); is {
			r = model.Requirement{Key: key, Op: model.DoesNotExist}
		} else {
			r = model.Requirement{Key: part, Op: model.Exists}
		}
		s.Requirements = append(s.Requirements, r)
	}
	return s
}

// packets are what a probe such as "x/a > y/b TCP 80" means: one of each family
// between pods of the fixture, or one of the family of the address that stands
// for an end.
func packets(t *testing.T, probe string) []policy.Packet {
	t.Helper()
	word := strings.Fields(probe)
	if len(word) < 4 || word[1] != ">" {
		t.Fatalf("probe %q", probe)
	}
	var list []policy.Packet
	for _, family := range []model.Family{model.IPv4, model.IPv6} {
		p := policy.Packet{Src: endOf(word[0], family), Dst: endOf(word[2], family), Protocol: protocolOf(word[3])}
		if len(word) > 4 {
			n, err := strconv.ParseUint(word[4], 10, 16)
			if err != nil {
				t.Fatal(err)
			}
			p.Port = uint16(n)
		}
		if p.Src.IsValid() && p.Dst.IsValid() {
			list = append(list, p)
		}
	}
	return list
}

func endOf(text string, family model.Family) netip.Addr {
	if a, err := netip.ParseAddr(text); err == nil {
		if model.FamilyOf(a) == family {
			return a
		}
		return netip.Addr{}
	}
	for _, a := range podOf(text).Addrs {
		if model.FamilyOf(a) == family {
			return a
		}
	}
	return netip.Addr{}
}

// verdict is "yes", or which end denies: "no out", "no in" or "no both".
func verdict(d policy.Decision) string {
	switch {
	case d.Allowed():
		return "yes"
	case !d.Egress.Allowed && !d.Ingress.Allowed:
		return "no both"
	case !d.Egress.Allowed:
		return "no out"
	}
	return "no in"
}

// check compares probes with their verdicts: "x/a > y/b TCP 80: yes". Both
// families have to agree, and AllowsHere with Allows' findings of this node.
func check(t *testing.T, f *policy.Facts, probes ...string) {
	t.Helper()
	for _, line := range probes {
		probe, want, _ := strings.Cut(line, ": ")
		for _, p := range packets(t, probe) {
			d := f.Allows(p)
			if got := verdict(d); got != want {
				t.Errorf("%s (%s > %s): %s, want %s\n  egress:  %s\n  ingress: %s", probe, p.Src, p.Dst, got, want, d.Egress.Why, d.Ingress.Why)
			}
			here := (d.Egress.Allowed || !f.LocalPod(p.Src)) && (d.Ingress.Allowed || !f.LocalPod(p.Dst))
			if got := f.AllowsHere(p, false); got != here {
				t.Errorf("%s: AllowsHere %v, want %v", probe, got, here)
			}
		}
	}
}
