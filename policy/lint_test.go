package policy_test

import (
	"encoding/json"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/policy"
)

// dns are the cluster's DNS servers, and who leads to them.
func dns() []any {
	return []any{
		model.Namespace{Name: "kube-system"},
		model.Pod{Name: nameOf("kube-system/coredns"), UID: "dns", Node: "n1", Labels: map[string]string{"k8s-app": "kube-dns"}, Addrs: addrList("10.0.9.53")},
		model.EndpointSlice{Name: nameOf("kube-system/dns-1"), Service: "kube-dns", Family: model.IPv4, Endpoints: []model.Endpoint{{Addr: addrList("10.0.9.53")[0], Ready: true}},
			Ports: []model.EndpointPort{{Name: "dns", Protocol: model.UDP, Port: 53}, {Name: "dns-tcp", Protocol: model.TCP, Port: 53}}},
	}
}

// TestLint: what is found, and what is not. A warning is "object place code:
// part of the message".
func TestLint(t *testing.T) {
	host := func(p *model.Pod) { p.HostNetwork, p.Addrs = true, addrList("192.168.0.1") }
	egress := types("Egress")
	for name, c := range map[string]struct {
		facts []any
		want  []string
	}{
		"nothing wrong": {[]any{policyOf("x/p", "pod=a", in(rule("ns:ns=y pod=a", "TCP 80; TCP serve-81-tcp")))}, nil},
		"a dash too many": {[]any{policyOf("x/p", "pod=a", in(rule("ns:ns=y; pod=b", "")))},
			[]string{"x/p spec.ingress[0] TwoPeers: from[0] and from[1] are two peers, of which either is enough: all pods of namespaces ns=y, or pods pod=b of namespace x; to mean only pods pod=b of namespaces ns=y, remove the dash of from[1]"}},
		"a dash too many, the other way round, and in egress": {[]any{policyOf("x/p", "pod=a", egress, out(rule("10.9.0.0/16; pod=b; ns:ns=y", "UDP 53; TCP 53")))},
			[]string{"x/p spec.egress[0] TwoPeers: to[1] and to[2] are two peers"}},
		"two selectors of the same kind":            {[]any{policyOf("x/p", "pod=a", in(rule("pod=a; pod=b", "")), in(rule("ns:ns=x; ns:ns=y", "")))}, nil},
		"a namespaceSelector beside a peer of both": {[]any{policyOf("x/p", "pod=a", in(rule("ns:ns=y; ns:ns=z pod=b", "")))}, nil},
		"egress without DNS": {[]any{policyOf("x/p", "pod=a", egress, out(rule("pod=b", "TCP 80")))},
			[]string{"x/p spec.egress NoDNS: egress is isolated and DNS is not allowed"}},
		"DNS over UDP alone": {[]any{policyOf("x/p", "pod=a", egress, out(rule("", "UDP 53")))},
			[]string{"x/p spec.egress NoDNS: egress is isolated and DNS is allowed by UDP alone"}},
		"DNS by another policy": {[]any{policyOf("x/p", "pod=a", egress, out(rule("pod=b", "TCP 80"))), policyOf("x/q", "all", egress, out(rule("", "UDP 53; TCP 53")))}, nil},
		"DNS by another policy, for some": {[]any{policyOf("x/p", "all", egress), policyOf("x/q", "pod=a", egress, out(rule("", "UDP 53; TCP 53")))},
			[]string{"x/p spec.egress NoDNS: "}},
		"everything to everybody":         {[]any{policyOf("x/p", "pod=a", egress, out(rule("", "")))}, nil},
		"everything to the cluster's DNS": {append(dns(), policyOf("x/p", "pod=a", egress, out(rule("ns:all k8s-app=kube-dns", "")))), nil},
		"everything to others, not to the cluster's DNS": {append(dns(), policyOf("x/p", "pod=a", egress, out(rule("ns:ns=y", "")))),
			[]string{"x/p spec.egress NoDNS: egress is isolated and DNS is not allowed"}},
		"a named port that no pod has": {[]any{policyOf("x/p", "all", in(rule("", "TCP http")))},
			[]string{`x/p spec.ingress[0].ports[0] NamedPort: TCP "http" allows nothing: no pod that it is looked up on has such a container port (x/a, x/b, x/c)`}},
		"a named port of another protocol": {[]any{policyOf("x/p", "pod=a", in(rule("", "TCP serve-80-udp")))},
			[]string{`x/p spec.ingress[0].ports[0] NamedPort: TCP "serve-80-udp" allows nothing: no pod that it is looked up on has such a container port (x/a); x/a has it as UDP 80`}},
		"a named port that one pod lacks": {[]any{podOf("x/b", func(p *model.Pod) { p.Ports = nil }), policyOf("x/p", "all", in(rule("", "TCP serve-80-tcp")))},
			[]string{`x/p spec.ingress[0].ports[0] NamedPort: TCP "serve-80-tcp" allows nothing on x/b, which has no such container port`}},
		"a named port of a peer": {[]any{policyOf("x/p", "all", egress, out(rule("ns:ns=y", "TCP http; UDP 53; TCP 53")))},
			[]string{`x/p spec.egress[0].ports[0] NamedPort: TCP "http" allows nothing: no pod that it is looked up on has such a container port (y/a, y/b, y/c)`}},
		"a named port that some peers have": {[]any{podOf("y/b", func(p *model.Pod) { p.Ports = nil }), policyOf("x/p", "all", egress, out(rule("ns:ns=y", "TCP serve-80-tcp; UDP 53; TCP 53")))}, nil},
		"the Service's port": {append(slicesOf("x/a"), web(), policyOf("x/p", "pod=a", in(rule("", "TCP 8000")))),
			[]string{"x/p spec.ingress[0].ports[0] ServicePort: TCP 8000 is the port of Service x/web, and never matches: policies see what the pod listens at, TCP 80; write 80"}},
		"the Service's port on the way out": {append(slicesOf("x/a"), web(), policyOf("y/p", "pod=a", egress, out(rule("ns:ns=x", "TCP 8000; UDP 53; TCP 53")))),
			[]string{"y/p spec.egress[0].ports[0] ServicePort: TCP 8000 is the port"}},
		"the target port": {append(slicesOf("x/a"), web(), policyOf("x/p", "pod=a", in(rule("", "TCP 80")))), nil},
		"the Service's port that another leads to": {append(slicesOf("x/a"), web(), web(func(s *model.Service) { s.Name = nameOf("x/other") }), policyOf("x/p", "pod=a", in(rule("", "TCP 8000"))),
			model.EndpointSlice{Name: nameOf("x/other-1"), Service: "other", Family: model.IPv4, Ports: []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 8000}}, Endpoints: []model.Endpoint{{Addr: endOf("x/a", model.IPv4), Ready: true}}}), nil},
		"a number that may be somebody else's": {append(slicesOf("x/a"), web(), policyOf("y/p", "pod=a", egress, out(rule("", "TCP 8000; UDP 53; TCP 53")))), nil},
		"selects nothing": {[]any{policyOf("x/p", "pod=a,tier=web")},
			[]string{"x/p spec.podSelector SelectsNothing: it selects no pod: there are no pods pod=a,tier=web in namespace x, and pod x/a lacks label tier=web"}},
		"selects pods of the host": {[]any{podOf("x/a", host), policyOf("x/p", "all")},
			[]string{"x/p spec.podSelector SelectsHostNetwork: x/a is on the network of a node"}},
		"a peer of no namespace": {[]any{policyOf("x/p", "all", in(rule("ns:team=one pod=a", "")))},
			[]string{"x/p spec.ingress[0].from[0] PeerMeansNobody: it means nobody: no namespace has team=one"}},
		"a peer of no pod": {[]any{policyOf("x/p", "all", in(rule("tier=web", "")))},
			[]string{"x/p spec.ingress[0].from[0] PeerMeansNobody: it means nobody: there are no pods tier=web of namespace x"}},
		"a peer of the host": {[]any{podOf("x/a", host), policyOf("x/p", "pod=b", in(rule("pod=a", "")))},
			[]string{"x/p spec.ingress[0].from[0] PeerMeansHostNetwork: it means only x/a"}},
		"an ipBlock of virtual addresses": {[]any{web(), policyOf("x/p", "all", egress, out(rule("10.96.0.0/16", "TCP 80; UDP 53; TCP 53")))},
			[]string{"x/p spec.egress[0].to[0] BlockOfVIPs: 10.96.0.0/16 covers virtual addresses (10.96.0.10), which never match"}},
		"an ipBlock of pods": {[]any{policyOf("x/p", "all", in(rule("10.0.2.0/24 except 10.0.2.2/31", "")))},
			[]string{"x/p spec.ingress[0].from[0] BlockOfPods: 10.0.2.0/24 means pods too (y/a)"}},
		"everybody is everybody": {[]any{web(), policyOf("x/p", "all", egress, out(rule("0.0.0.0/0", "TCP 80; UDP 53; TCP 53")))}, nil},
		"clients that nodes hide": {append(slicesOf("x/a"), web(), policyOf("x/p", "pod=a", in(rule("203.0.113.0/24", "")))),
			[]string{"x/p spec.ingress[0].from[0] BlockBehindNodes: clients of 203.0.113.0/24 that come by Service x/web and another node than the pod's have that node's address; set externalTrafficPolicy: Local"}},
		"clients that nodes do not hide": {append(slicesOf("x/a"), web(func(s *model.Service) { s.ExternalLocal = true }), policyOf("x/p", "pod=a", in(rule("203.0.113.0/24", "")))), nil},
		"egress rules without Egress": {[]any{policyOf("x/p", "all", types("Ingress"), out(rule("", "")))},
			[]string{"x/p spec.policyTypes RulesWithoutType: there are egress rules, which do not count"}},
		"ingress rules without Ingress": {[]any{policyOf("x/p", "all", egress, in(rule("", "")), out(rule("", "")))},
			[]string{"x/p spec.policyTypes RulesWithoutType: there are ingress rules"}},
		"egress only, and ingress is denied": {[]any{policyOf("x/p", "all", out(rule("", "")))},
			[]string{"x/p spec.policyTypes IngressDeniedToo: all rules are of egress, but ingress is isolated too"}},
		"an except that another peer allows": {[]any{policyOf("x/p", "all", in(rule("172.16.0.0/12 except 172.16.1.0/24; 172.16.0.0/16", "")))},
			[]string{"x/p spec.ingress[0].from[0].ipBlock ExceptWithoutUse: except 172.16.1.0/24 has no effect, as ingress[0], ipBlock 172.16.0.0/16, allows it all the same"}},
		"an except that another rule allows": {[]any{policyOf("x/p", "all", in(rule("172.16.0.0/12 except 172.16.1.0/24", "TCP 80")), in(rule("", "")))},
			[]string{"x/p spec.ingress[0].from[0].ipBlock ExceptWithoutUse: except 172.16.1.0/24 has no effect, as ingress[1] allows"}},
		"an except that another rule allows for another port": {[]any{policyOf("x/p", "all", in(rule("172.16.0.0/12 except 172.16.1.0/24", "TCP 80")), in(rule("", "TCP 81")))}, nil},
		"an except inside of another": {[]any{policyOf("x/p", "all", in(rule("172.16.0.0/12 except 172.16.0.0/16 172.16.1.0/24", "")))},
			[]string{"x/p spec.ingress[0].from[0].ipBlock ExceptWithoutUse: except 172.16.1.0/24 is inside except 172.16.0.0/16"}},
	} {
		t.Run(name, func(t *testing.T) { compareWarnings(t, policy.Lint(fixture(c.facts...), nil), c.want) })
	}
}

func compareWarnings(t *testing.T, got []policy.Warning, want []string) {
	t.Helper()
	for i, w := range got {
		text := w.Object.String() + " " + w.Rule + " " + w.Code + ": " + w.Message + "; " + w.Remedy
		if i >= len(want) || !strings.HasPrefix(text, want[i]) {
			t.Errorf("got  %s", text)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d warnings, want %d: %q", len(got), len(want), want)
	}
}

// TestLintPoliciesAlone: what nobody told of is not missed.
func TestLintPoliciesAlone(t *testing.T) {
	f := policy.NewFacts("")
	tell(f, policyOf("x/p", "pod=a", types("Ingress", "Egress"), in(rule("ns:team=one pod=b", "TCP http")), out(rule("ns:all", "UDP; TCP"))))
	compareWarnings(t, policy.Lint(f, nil), nil)
}

// TestLintProblems: fields that a server drops when it is not asked to be
// strict, and where they belong.
func TestLintProblems(t *testing.T) {
	unknown := func(path string) model.Problem {
		return model.Problem{Kind: "NetworkPolicy", Object: nameOf("x/p"), Reason: "UnknownField",
			Message: path + ": \"field\" is not a field that is known here; correct its name or its indentation, or upgrade; until then this rule allows nothing"}
	}
	for path, want := range map[string]string{
		"spec.egress[0].namespaceSelector":        "namespaceSelector belongs into the list \"to\": write `- to: [{namespaceSelector: …}]`. Where it is dropped in silence the rule has no \"to\", and then it means everybody",
		"spec.ingress[2].podSelector":             "podSelector belongs into the list \"from\"",
		"spec.ingress[0].to":                      `a rule of ingress has "from", not "to"`,
		"spec.egress[0].from":                     `a rule of egress has "to", not "from"`,
		"spec.ingress[0].port":                    "port belongs into the list \"ports\"",
		"spec.from":                               "it belongs into a rule: write ingress: [{from: …}]",
		"spec.policyType":                         "the field is policyTypes, a list",
		"spec.podselector":                        "the field is podSelector",
		"spec.ingress[0].from[0].ports":           `it belongs into the list "ports" beside "from"`,
		"spec.ingress[0].from[0].except":          "it belongs into an ipBlock",
		"spec.egress[0].to[1].matchLabels":        "it belongs into a podSelector or a namespaceSelector",
		"spec.egress[0].to[1].namespaceselector":  "the field is namespaceSelector",
		"spec.egress[0].ports[0].targetPort":      "the field is port, with a number or the name",
		"spec.egress[0].ports[0].endport":         "the field is endPort",
		"spec.egress[0].to[1].podSelector.labels": "correct its name or its indentation, or upgrade; until then",
	} {
		compareWarnings(t, policy.Lint(policy.NewFacts(""), []model.Problem{unknown(path)}),
			[]string{"x/p " + path + ` UnknownField: "field" is not a field that is known here; ` + want})
	}
	others := []model.Problem{
		{Kind: "Service", Object: nameOf("x/s"), Reason: "InvalidPort", Message: "spec.ports[0]: wrong; mend it"},
		{Kind: "NetworkPolicy", Object: nameOf("x/p"), Reason: "InvalidIPBlock", Message: "spec.ingress[0].from[0].ipBlock.cidr: \"10\" is not a CIDR; write it as a CIDR"},
		{Kind: "NetworkPolicy", Object: nameOf("x/o"), Reason: "Odd", Message: "cannot be read: at all"},
	}
	compareWarnings(t, policy.Lint(policy.NewFacts(""), others),
		[]string{"x/o  Odd: cannot be read: at all", `x/p spec.ingress[0].from[0].ipBlock.cidr InvalidIPBlock: "10" is not a CIDR; write it as a CIDR`})
}

// TestLintOrder: it does not depend on the order of events.
func TestLintOrder(t *testing.T) {
	facts := append(append(slicesOf("x/a", "y/a"), dns()...), web(),
		policyOf("x/p", "all", in(rule("ns:ns=y; pod=b; 203.0.113.0/24; 10.0.0.0/8 except 10.0.1.0/24 10.0.1.1/32", "TCP 8000; TCP http"))),
		policyOf("y/p", "pod=a,tier=web", types("Egress")), policyOf("x/q", "all", out(rule("10.96.0.0/16", "TCP 8000"))))
	var first string
	for i := range 20 {
		shuffled := slices.Clone(facts)
		rand.New(rand.NewSource(int64(i))).Shuffle(len(shuffled), func(a, b int) { shuffled[a], shuffled[b] = shuffled[b], shuffled[a] })
		text, err := json.Marshal(policy.Lint(fixture(shuffled...), nil))
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = string(text)
		}
		if string(text) != first || !strings.Contains(first, `{"object":"x/p","rule":"spec.ingress[0]","code":"TwoPeers"`) {
			t.Fatalf("got\n%s\nwant\n%s", text, first)
		}
	}
}
