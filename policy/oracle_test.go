package policy_test

import (
	"testing"

	"sluice.dev/sluice/internal/model"
)

// row is a row of a table of the specification, with what it means for packets.
type row struct {
	name   string
	facts  []any // policies, and what differs from the fixture
	probes []string
}

func run(t *testing.T, rows []row) {
	t.Helper()
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) { check(t, fixture(r.facts...), r.probes...) })
	}
}

// TestFields is table 1.1 of the specification: what each field means.
func TestFields(t *testing.T) {
	run(t, []row{
		{"no policy: everything is allowed", nil,
			[]string{"x/a > y/b TCP 80: yes", "203.0.113.1 > x/a UDP 9: yes", "x/a > 203.0.113.1 ICMP: yes"}},
		{"podSelector empty: every pod of the policy's namespace, and of no other",
			[]any{policyOf("x/p", "all")},
			[]string{"y/a > x/a TCP 80: no in", "y/a > x/b TCP 80: no in", "x/a > x/b TCP 80: no in", "x/a > y/b TCP 80: yes", "x/a > 203.0.113.1 TCP 80: yes"}},
		{"podSelector: the pods that have the labels",
			[]any{policyOf("x/p", "pod=a")},
			[]string{"y/a > x/a TCP 80: no in", "y/a > x/b TCP 80: yes"}},
		{"policyTypes not given, no egress: Ingress alone",
			[]any{policyOf("x/p", "pod=a", in(rule("pod=b", "")))},
			[]string{"x/b > x/a TCP 80: yes", "x/c > x/a TCP 80: no in", "x/a > x/c TCP 80: yes"}},
		{"policyTypes not given, egress rules: Ingress too",
			[]any{policyOf("x/p", "pod=a", out(rule("pod=b", "")))},
			[]string{"x/a > x/b TCP 80: yes", "x/a > x/c TCP 80: no out", "x/b > x/a TCP 80: no in"}},
		{"policyTypes Egress: Ingress is open",
			[]any{policyOf("x/p", "pod=a", types("Egress"), out(rule("pod=b", "")))},
			[]string{"x/a > x/b TCP 80: yes", "x/a > x/c TCP 80: no out", "x/c > x/a TCP 80: yes"}},
		{"policyTypes Egress with ingress rules: they do not count",
			[]any{policyOf("x/p", "pod=a", types("Egress"), in(rule("pod=b", "")))},
			[]string{"x/b > x/a TCP 80: yes", "x/c > x/a TCP 80: yes", "x/a > x/b TCP 80: no out"}},
		{"egress nil or []: isolates, allows nothing",
			[]any{policyOf("x/p", "pod=a", types("Egress"))},
			[]string{"x/a > x/b TCP 80: no out", "x/a > 203.0.113.1 UDP 53: no out", "x/a > 192.168.0.1 TCP 22: no out"}},
		{"ingress nil or []: isolates, allows nothing",
			[]any{policyOf("x/p", "pod=a", types("Ingress"))},
			[]string{"x/b > x/a TCP 80: no in", "203.0.113.1 > x/a UDP 53: no in", "192.168.0.2 > x/a TCP 22: no in"}},
		{"one rule {}: everything in that direction",
			[]any{policyOf("x/p", "pod=a", types("Ingress", "Egress"), in(rule("", "")))},
			[]string{"203.0.113.1 > x/a UDP 9: yes", "192.168.0.2 > x/a ICMP: yes", "y/b > x/a SCTP 7: yes", "x/a > y/b TCP 80: no out"}},
		{"from nil or []: any peer, from outside and nodes too",
			[]any{policyOf("x/p", "pod=a", in(rule("", "TCP 80")))},
			[]string{"203.0.113.1 > x/a TCP 80: yes", "192.168.0.2 > x/a TCP 80: yes", "z/c > x/a TCP 80: yes", "z/c > x/a TCP 81: no in"}},
		{"namespaceSelector {}: every pod, but nobody outside and no node",
			[]any{policyOf("x/p", "pod=a", in(rule("ns:all", "")))},
			[]string{"z/c > x/a TCP 80: yes", "x/b > x/a TCP 80: yes", "203.0.113.1 > x/a TCP 80: no in", "192.168.0.2 > x/a TCP 80: no in"}},
		{"ports nil or []: all ports of all protocols",
			[]any{policyOf("x/p", "pod=a", in(rule("pod=b", "")))},
			[]string{"x/b > x/a TCP 1: yes", "x/b > x/a UDP 65535: yes", "x/b > x/a SCTP 9: yes", "x/b > x/a ICMP: yes"}},
		{"in a rule any of ports and any of peers",
			[]any{policyOf("x/p", "pod=a", in(rule("pod=b; ns:ns=y", "TCP 80; UDP 81")))},
			[]string{"x/b > x/a TCP 80: yes", "y/c > x/a TCP 80: yes", "x/b > x/a UDP 81: yes", "y/c > x/a UDP 81: yes",
				"x/b > x/a TCP 81: no in", "x/c > x/a TCP 80: no in", "z/b > x/a UDP 81: no in"}},
		{"rules are ORed, and not mixed",
			[]any{policyOf("x/p", "pod=a", in(rule("pod=b", "TCP 80")), in(rule("pod=c", "TCP 81")))},
			[]string{"x/b > x/a TCP 80: yes", "x/c > x/a TCP 81: yes", "x/b > x/a TCP 81: no in", "x/c > x/a TCP 80: no in"}},
		{"policies are additive",
			[]any{policyOf("x/deny", "all"), policyOf("x/p", "pod=a", in(rule("pod=b", ""))), policyOf("x/q", "ns=x", in(rule("ns:ns=y", "TCP 81")))},
			[]string{"x/b > x/a TCP 80: yes", "y/a > x/a TCP 81: yes", "y/a > x/b TCP 81: yes", "y/a > x/a TCP 80: no in", "x/a > x/b TCP 80: no in"}},
		{"both ends have to allow",
			[]any{policyOf("x/p", "pod=a", types("Egress"), out(rule("ns:ns=y", "TCP 80"))), policyOf("y/p", "pod=a", in(rule("ns:ns=x", "TCP 81")))},
			[]string{"x/a > y/b TCP 80: yes", "x/a > y/a TCP 80: no in", "x/a > y/a TCP 81: no out", "x/a > y/a TCP 82: no both", "x/b > y/a TCP 81: yes"}},
		{"protocol: the rule's",
			[]any{policyOf("x/p", "pod=a", in(rule("", "TCP 80")), in(rule("", "SCTP 81")))},
			[]string{"y/a > x/a TCP 80: yes", "y/a > x/a UDP 80: no in", "y/a > x/a SCTP 80: no in", "y/a > x/a SCTP 81: yes"}},
		{"port nil: all ports of that protocol only",
			[]any{policyOf("x/p", "pod=a", in(rule("", "UDP")))},
			[]string{"y/a > x/a UDP 1: yes", "y/a > x/a UDP 65535: yes", "y/a > x/a TCP 1: no in", "y/a > x/a SCTP 1: no in", "y/a > x/a ICMP: no in"}},
		{"endPort: both ends included, for all three protocols",
			[]any{policyOf("x/p", "pod=a", in(rule("", "TCP 80-82; UDP 90-90; SCTP 1-65535")))},
			[]string{"y/a > x/a TCP 79: no in", "y/a > x/a TCP 80: yes", "y/a > x/a TCP 81: yes", "y/a > x/a TCP 82: yes", "y/a > x/a TCP 83: no in",
				"y/a > x/a UDP 81: no in", "y/a > x/a UDP 90: yes", "y/a > x/a SCTP 1: yes", "y/a > x/a SCTP 65535: yes"}},
		{"peer podSelector: pods of the policy's namespace",
			[]any{policyOf("x/p", "pod=a", in(rule("pod=b", "")))},
			[]string{"x/b > x/a TCP 80: yes", "y/b > x/a TCP 80: no in"}},
		{"peer podSelector {}: all of them",
			[]any{policyOf("x/p", "all", in(rule("all", "")))},
			[]string{"x/b > x/a TCP 80: yes", "x/a > x/c TCP 80: yes", "y/b > x/a TCP 80: no in", "203.0.113.1 > x/a TCP 80: no in"}},
		{"peer namespaceSelector: all pods of namespaces that match",
			[]any{policyOf("x/p", "pod=a", in(rule("ns:ns=y", "")))},
			[]string{"y/a > x/a TCP 80: yes", "y/c > x/a TCP 80: yes", "z/a > x/a TCP 80: no in", "x/b > x/a TCP 80: no in"}},
		{"peer both: pods that match in namespaces that match",
			[]any{policyOf("x/p", "pod=a", in(rule("ns:nsin(y|z) pod=b", "")))},
			[]string{"y/b > x/a TCP 80: yes", "z/b > x/a TCP 80: yes", "y/a > x/a TCP 80: no in", "x/b > x/a TCP 80: no in"}},
		{"the same with a dash between: pods that match here, or everything there",
			[]any{policyOf("x/p", "pod=a", in(rule("ns:ns=y; pod=b", "")))},
			[]string{"y/b > x/a TCP 80: yes", "y/a > x/a TCP 80: yes", "x/b > x/a TCP 80: yes", "z/b > x/a TCP 80: no in"}},
		{"peer ipBlock",
			[]any{policyOf("x/p", "pod=a", in(rule("203.0.113.0/24", "")))},
			[]string{"203.0.113.1 > x/a TCP 80: yes", "203.0.114.1 > x/a TCP 80: no in", "2001:db8::1 > x/a TCP 80: no in"}},
		{"peer with no field that we know: nobody",
			[]any{policyOf("x/p", "pod=a", types("Ingress", "Egress"), in(rule("unknown", "")), out(rule("unknown", "")))},
			[]string{"x/b > x/a TCP 80: no in", "y/a > x/a TCP 80: no in", "203.0.113.1 > x/a TCP 80: no in", "x/a > x/b TCP 80: no out", "x/a > y/a TCP 80: no out"}},
		{"except: this peer does not mean it",
			[]any{policyOf("x/p", "pod=a", in(rule("10.0.0.0/8 except 10.0.2.0/24 10.0.3.1/32", "")))},
			[]string{"10.9.9.9 > x/a TCP 80: yes", "10.0.2.1 > x/a TCP 80: no in", "10.0.3.1 > x/a TCP 80: no in", "10.0.3.2 > x/a TCP 80: yes"}},
		{"except: never a deny: another peer allows",
			[]any{policyOf("x/p", "pod=a", in(rule("10.0.0.0/8 except 10.0.2.0/24; 10.0.2.1/32", "")))},
			[]string{"10.0.2.1 > x/a TCP 80: yes", "10.0.2.2 > x/a TCP 80: no in"}},
		{"except: never a deny: another rule allows",
			[]any{policyOf("x/p", "pod=a", in(rule("10.0.0.0/8 except 10.0.2.0/24", "")), in(rule("ns:ns=y pod=a", "TCP 80")))},
			[]string{"10.0.2.1 > x/a TCP 80: yes", "10.0.2.1 > x/a TCP 81: no in", "10.0.2.2 > x/a TCP 80: no in"}},
		{"except: never a deny: another policy allows",
			[]any{policyOf("x/p", "pod=a", in(rule("10.0.0.0/8 except 10.0.2.0/24", ""))), policyOf("x/q", "all", in(rule("10.0.2.0/24", "")))},
			[]string{"10.0.2.1 > x/a TCP 80: yes"}},
		{"matchExpressions NotIn: also pods that lack the key",
			[]any{policyOf("x/p", "pod=a", in(rule("rolenotin(db)", "")))},
			[]string{"x/b > x/a TCP 80: yes"}},
		{"matchExpressions In, Exists, DoesNotExist",
			[]any{policyOf("x/p", "pod=a", in(rule("podin(b|d)", "TCP 1")), in(rule("pod", "TCP 2")), in(rule("!pod", "TCP 3")), in(rule("!role", "TCP 4")))},
			[]string{"x/b > x/a TCP 1: yes", "x/c > x/a TCP 1: no in", "x/c > x/a TCP 2: yes", "x/b > x/a TCP 3: no in", "x/b > x/a TCP 4: yes"}},
		{"kubernetes.io/metadata.name: on a namespace without any other label",
			[]any{model.Namespace{Name: "y"}, policyOf("x/p", "pod=a", in(rule("ns:kubernetes.io/metadata.name=y", "")))},
			[]string{"y/a > x/a TCP 80: yes", "z/a > x/a TCP 80: no in"}},
		{"kubernetes.io/metadata.name: on a namespace that nobody told of",
			[]any{model.NamespaceKey{Name: "y"}, policyOf("x/p", "pod=a", in(rule("ns:kubernetes.io/metadata.name=y", "TCP 80")), in(rule("ns:ns=y", "TCP 81")))},
			[]string{"y/a > x/a TCP 80: yes", "y/a > x/a TCP 81: no in"}},
	})
}

// TestNamedPorts is section 1.2 of the specification.
func TestNamedPorts(t *testing.T) {
	ports := func(list ...model.ContainerPort) func(*model.Pod) { return func(p *model.Pod) { p.Ports = list } }
	http := func(protocol model.Protocol, number uint16) model.ContainerPort {
		return model.ContainerPort{Name: "http", Protocol: protocol, Port: number}
	}
	run(t, []row{
		{"ingress: resolved on each selected pod, to its own number",
			[]any{podOf("x/a", ports(http(model.TCP, 8080))), podOf("x/b", ports(http(model.TCP, 9090))), policyOf("x/p", "all", in(rule("", "TCP http")))},
			[]string{"y/a > x/a TCP 8080: yes", "y/a > x/b TCP 9090: yes", "y/a > x/a TCP 9090: no in", "y/a > x/b TCP 8080: no in", "y/a > x/c TCP 8080: no in"}},
		{"egress: resolved on each destination, to its own number",
			[]any{podOf("y/a", ports(http(model.TCP, 8080))), podOf("y/b", ports(http(model.TCP, 9090))), policyOf("x/p", "pod=a", types("Egress"), out(rule("ns:ns=y", "TCP http")))},
			[]string{"x/a > y/a TCP 8080: yes", "x/a > y/b TCP 9090: yes", "x/a > y/a TCP 9090: no out", "x/a > y/c TCP 8080: no out"}},
		{"the source's ports do not count",
			[]any{podOf("x/a", ports(http(model.TCP, 8080))), policyOf("x/p", "pod=a", types("Egress"), out(rule("", "TCP http")))},
			[]string{"x/a > y/a TCP 8080: no out"}},
		{"not served: allows nothing, least of all every port",
			[]any{policyOf("x/p", "pod=a", in(rule("ns:ns=y", "TCP nope")))},
			[]string{"y/a > x/a TCP 80: no in", "y/a > x/a TCP 81: no in", "y/a > x/a UDP 80: no in"}},
		{"served for another protocol: allows nothing",
			[]any{policyOf("x/p", "pod=a", in(rule("", "UDP serve-80-tcp; TCP serve-80-udp")))},
			[]string{"y/a > x/a TCP 80: no in", "y/a > x/a UDP 80: no in", "y/a > x/a SCTP 80: no in"}},
		{"served: for its protocol only",
			[]any{policyOf("x/p", "pod=a", in(rule("", "TCP serve-80-tcp")))},
			[]string{"y/a > x/a TCP 80: yes", "y/a > x/a UDP 80: no in", "y/a > x/a TCP 81: no in"}},
		{"one name for several protocols",
			[]any{podOf("x/a", ports(http(model.TCP, 53), http(model.UDP, 5353))), policyOf("x/p", "pod=a", in(rule("", "UDP http")))},
			[]string{"y/a > x/a UDP 5353: yes", "y/a > x/a TCP 53: no in", "y/a > x/a UDP 53: no in"}},
		{"one name for several numbers, of several containers",
			[]any{podOf("x/a", ports(http(model.TCP, 8080), http(model.TCP, 8081))), policyOf("x/p", "pod=a", in(rule("", "TCP http")))},
			[]string{"y/a > x/a TCP 8080: yes", "y/a > x/a TCP 8081: yes", "y/a > x/a TCP 8082: no in"}},
		{"egress without to: pods of every namespace",
			[]any{policyOf("x/p", "pod=a", types("Egress"), out(rule("", "TCP serve-80-tcp")))},
			[]string{"x/a > x/b TCP 80: yes", "x/a > z/c TCP 80: yes", "x/a > z/c TCP 81: no out"}},
		{"a destination outside of the cluster has no names",
			[]any{policyOf("x/p", "pod=a", types("Egress"), out(rule("", "TCP serve-80-tcp")))},
			[]string{"x/a > 203.0.113.1 TCP 80: no out", "x/a > 192.168.0.2 TCP 80: no out"}},
		{"with ipBlock: pods inside that serve the name",
			[]any{policyOf("x/p", "pod=a", types("Egress"), out(rule("10.0.2.1/32; 203.0.113.0/24", "TCP serve-80-tcp")))},
			[]string{"x/a > 10.0.2.1 TCP 80: yes", "x/a > 10.0.2.2 TCP 80: no out", "x/a > 203.0.113.1 TCP 80: no out", "x/a > 10.0.2.1 TCP 81: no out"}},
		{"a pod on the host's network serves no names",
			[]any{podOf("y/a", func(p *model.Pod) { p.HostNetwork, p.Addrs = true, addrList("192.168.0.2") }), policyOf("x/p", "pod=a", types("Egress"), out(rule("", "TCP serve-80-tcp")))},
			[]string{"x/a > 192.168.0.2 TCP 80: no out"}},
		{"beside numbers: either",
			[]any{policyOf("x/p", "pod=a", in(rule("", "TCP nope; TCP 81")))},
			[]string{"y/a > x/a TCP 81: yes", "y/a > x/a TCP 80: no in"}},
	})
}

// web is a Service of x/a, with an address of every kind.
func web(fns ...func(*model.Service)) model.Service {
	s := model.Service{
		Name: nameOf("x/web"), ClusterIPs: addrList("10.96.0.10 fd00:96::10"), ExternalIPs: addrList("198.51.100.7"), LoadBalancerIPs: addrList("198.51.100.8"),
		Ports: []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 8000, NodePort: 30080}},
	}
	for _, fn := range fns {
		fn(&s)
	}
	return s
}

// TestOpenQuestions is table 1.3 of the specification: what the API leaves open.
func TestOpenQuestions(t *testing.T) {
	deny := func(ns string) model.NetworkPolicy { return policyOf(ns+"/deny", "all", types("Ingress", "Egress")) }
	host := func(p *model.Pod) { p.HostNetwork, p.Addrs = true, addrList("192.168.0.1 fd00:a::1") }
	run(t, []row{
		{"a node to its own pods: always, probes too", []any{deny("x"), deny("y")},
			[]string{"192.168.0.1 > x/a TCP 80: yes", "fd00:a::1 > x/a TCP 80: yes", "192.168.0.2 > y/a TCP 80: yes", "fd00:a::2 > y/a UDP 1: yes"}},
		{"a node's process that dials a virtual address has that as its source", []any{web(), deny("x")},
			[]string{"10.96.0.10 > x/a TCP 80: yes", "fd00:96::10 > x/a TCP 80: yes", "198.51.100.7 > x/a TCP 80: yes", "198.51.100.8 > x/a TCP 80: yes"}},
		{"which a Service that claims another node's address does not make of that",
			[]any{web(func(s *model.Service) { s.ExternalIPs = addrList("192.168.0.2") }), deny("x")}, []string{"192.168.0.2 > x/a TCP 80: no in"}},
		{"another node, and pods on its network: an address like any", []any{deny("x"), policyOf("x/p", "pod=b", in(rule("192.168.0.2/32", "")))},
			[]string{"192.168.0.2 > x/a TCP 80: no in", "192.168.0.1 > y/a TCP 80: yes", "192.168.0.2 > x/b TCP 80: yes", "192.168.0.3 > x/b TCP 80: no in"}},
		{"an address that the Node has and no interface of this host", []any{model.Node{Name: "n1", Addrs: addrList("192.168.0.1 203.0.113.50")}, deny("x")},
			[]string{"203.0.113.50 > x/a TCP 80: no in"}},
		{"an address of this host that its Node does not name", []any{model.LocalAddrs{Addrs: addrList("192.168.0.1 172.17.0.1")}, deny("x")},
			[]string{"172.17.0.1 > x/a TCP 80: yes"}},
		{"to the node: from no exemption", []any{deny("x")}, []string{"x/a > 192.168.0.1 TCP 22: no out", "x/a > 10.96.0.10 TCP 22: no out"}},
		{"hostNetwork pods are not selected", []any{podOf("x/b", host), deny("x")},
			[]string{"y/a > 192.168.0.1 TCP 80: yes", "192.168.0.1 > y/a TCP 80: yes"}},
		{"hostNetwork pods are no peers", []any{podOf("x/b", host), policyOf("y/p", "all", types("Ingress", "Egress"), in(rule("ns:all", "")), out(rule("ns:all", "")))},
			[]string{"192.168.0.1 > y/a TCP 80: no in", "y/a > 192.168.0.1 TCP 80: no out", "x/a > y/a TCP 80: yes"}},
		{"ipBlock means pods too", []any{policyOf("x/p", "pod=a", types("Ingress", "Egress"), in(rule("10.0.2.1/32", "")), out(rule("fd00::2:1/128", "")))},
			[]string{"10.0.2.1 > 10.0.1.1 TCP 80: yes", "10.0.2.2 > 10.0.1.1 TCP 80: no in", "fd00::1:1 > fd00::2:1 TCP 80: yes", "fd00::1:1 > fd00::2:2 TCP 80: no out"}},
		{"a pod to its own address", []any{deny("x")}, []string{"x/a > x/a TCP 80: yes", "10.0.1.1 > 10.0.1.1 ICMP: yes"}},
		{"echo follows rules without ports", []any{deny("x"), policyOf("x/p", "pod=b", in(rule("pod=a", ""))), policyOf("x/q", "pod=c", in(rule("pod=a", "TCP; UDP; SCTP")))},
			[]string{"y/a > x/a ICMP: no in", "y/a > x/b ICMP: no in"}},
		{"echo is no port of TCP, UDP or SCTP", []any{policyOf("x/q", "pod=c", in(rule("pod=a", "TCP; UDP; SCTP"))), policyOf("x/p", "pod=b", in(rule("pod=a", "")))},
			[]string{"x/a > x/c ICMP: no in", "x/a > x/b ICMP: yes"}},
		{"a Service's address in a policy: never meant, its endpoints are",
			[]any{web(), policyOf("y/p", "all", types("Egress"), out(rule("10.96.0.10/32", "")))}, []string{"y/a > x/a TCP 80: no out"}},
		{"a Service's port in a policy: never meant, its target port is",
			[]any{web(), policyOf("x/p", "all", in(rule("", "TCP 8000")))}, []string{"y/a > x/a TCP 80: no in"}},
		{"from outside: by the address that the backend's node sees", []any{policyOf("x/p", "all", in(rule("203.0.113.0/24", "")))},
			[]string{"203.0.113.1 > x/a TCP 80: yes", "192.168.0.2 > x/a TCP 80: no in"}},
		{"the API server and its webhooks: not exempt", []any{deny("x")}, []string{"192.168.0.3 > x/a TCP 9443: no in"}},
		{"the default deny does not stop the kubelet's probes", []any{deny("x")}, []string{"192.168.0.1 > x/a TCP 80: yes", "fd00:a::1 > x/a TCP 80: yes"}},
	})
}

// TestHairpin: a pod that reaches itself through a virtual address.
func TestHairpin(t *testing.T) {
	f := fixture(policyOf("x/deny", "pod=a", types("Ingress", "Egress")), policyOf("x/own", "pod=b", types("Ingress", "Egress"), in(rule("pod=b", "")), out(rule("pod=b", ""))))
	for probe, want := range map[string]bool{"x/a > x/a TCP 80": false, "x/b > x/b TCP 80": true, "x/c > x/c TCP 80": true} {
		for _, p := range packets(t, probe) {
			if !f.AllowsHere(p, false) {
				t.Errorf("%s: denied where hairpin is allowed", probe)
			}
			if got := f.AllowsHere(p, true); got != want {
				t.Errorf("%s, enforced: %v, want %v", probe, got, want)
			}
		}
	}
}

// TestDefaultPolicies are the recipes of Kubernetes' own documentation.
func TestDefaultPolicies(t *testing.T) {
	run(t, []row{
		{"default deny all ingress", []any{policyOf("x/default-deny-ingress", "all", types("Ingress"))},
			[]string{"y/a > x/a TCP 80: no in", "x/b > x/a TCP 80: no in", "203.0.113.1 > x/a TCP 80: no in", "x/a > y/a TCP 80: yes"}},
		{"allow all ingress", []any{policyOf("x/deny", "all", types("Ingress")), policyOf("x/allow-all-ingress", "all", types("Ingress"), in(rule("", "")))},
			[]string{"y/a > x/a TCP 80: yes", "203.0.113.1 > x/a UDP 80: yes"}},
		{"default deny all egress", []any{policyOf("x/default-deny-egress", "all", types("Egress"))},
			[]string{"x/a > y/a TCP 80: no out", "x/a > 203.0.113.1 UDP 53: no out", "y/a > x/a TCP 80: yes"}},
		{"allow all egress", []any{policyOf("x/deny", "all", types("Egress")), policyOf("x/allow-all-egress", "all", types("Egress"), out(rule("", "")))},
			[]string{"x/a > y/a TCP 80: yes", "x/a > 203.0.113.1 UDP 53: yes"}},
		{"default deny all ingress and all egress", []any{policyOf("x/default-deny-all", "all", types("Ingress", "Egress"))},
			[]string{"x/a > x/b TCP 80: no both", "x/a > y/b TCP 80: no out", "y/b > x/a TCP 80: no in", "y/a > z/a TCP 80: yes"}},
		{"the documentation's example", []any{policyOf("x/test-network-policy", "pod=a", types("Ingress", "Egress"),
			in(rule("172.17.0.0/16 except 172.17.1.0/24; ns:ns=y; pod=b", "TCP 6379")), out(rule("10.0.0.0/24", "TCP 5978")))},
			[]string{"172.17.0.1 > x/a TCP 6379: yes", "172.17.1.1 > x/a TCP 6379: no in", "y/c > x/a TCP 6379: yes", "x/b > x/a TCP 6379: yes", "x/c > x/a TCP 6379: no in",
				"x/a > 10.0.0.9 TCP 5978: yes", "x/a > 10.0.0.9 TCP 5979: no out", "x/a > x/b TCP 5978: no out"}},
	})
}
