package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"sluice.dev/sluice/internal/model"
)

// TestHardCases are those of section 2 of the specification, as far as they ask
// what is allowed: how a packet gets to where it is judged, what becomes of
// connections, restarts and other people's rules (12, 15, 18, 19 and 20) are no
// question to the judge.
func TestHardCases(t *testing.T) {
	deny := policyOf("x/deny", "all", types("Ingress", "Egress"))
	own := func(p *model.Pod) { p.Labels = map[string]string{"app": "web"} }
	host := func(p *model.Pod) { p.HostNetwork, p.Addrs = true, addrList("192.168.0.1 fd00:a::1") }
	http := func(ports ...uint16) func(*model.Pod) {
		return func(p *model.Pod) {
			p.Ports = nil
			for _, n := range ports {
				p.Ports = append(p.Ports, model.ContainerPort{Name: "http", Protocol: model.TCP, Port: n})
			}
		}
	}
	run(t, []row{
		{"1 default deny and a virtual address: the endpoint is denied, on the same node and another", []any{deny, web()},
			[]string{"x/b > x/a TCP 80: no both", "y/a > x/a TCP 80: no in", "x/a > y/a TCP 80: no out"}},
		{"2 target port is not the port: the target port counts", []any{policyOf("x/p", "all", in(rule("", "TCP 8080")))},
			[]string{"y/a > x/a TCP 8080: yes", "y/a > x/a TCP 80: no in"}},
		{"3 hairpin: no policy, a deny, one's own label", []any{podOf("x/b", own), policyOf("x/p", "app=web", in(rule("app=web", ""))), policyOf("x/q", "pod=a")},
			[]string{"x/c > x/c TCP 80: yes", "x/a > x/a TCP 80: yes", "x/b > x/b TCP 80: yes"}},
		{"4 NodePort with the client's ipBlock: the client where it is seen, the node where it is not", []any{policyOf("x/p", "all", in(rule("203.0.113.0/24", ""))), policyOf("y/p", "all", in(rule("203.0.113.0/24", "")))},
			[]string{"203.0.113.7 > x/a TCP 80: yes", "203.0.113.7 > y/a TCP 80: yes", "192.168.0.1 > y/a TCP 80: no in", "198.51.100.1 > x/a TCP 80: no in"}},
		{"5 denied egress: a virtual address's other ports, the node's sshd, a NodePort", []any{web(), deny},
			[]string{"x/a > 10.96.0.10 TCP 22: no out", "x/a > 192.168.0.1 TCP 22: no out", "x/a > 192.168.0.1 TCP 30080: no out", "x/a > 10.96.0.10 TCP 9: no out"}},
		{"6 node to pod, node through a virtual address, another node", []any{web(), deny},
			[]string{"192.168.0.1 > x/a TCP 80: yes", "10.96.0.10 > x/a TCP 80: yes", "192.168.0.2 > x/a TCP 80: no in", "y/a > x/a TCP 80: no in"}},
		{"7 an except beside an allow of the same range, in one rule", []any{policyOf("x/p", "all", in(rule("0.0.0.0/0 except 203.0.113.0/24; 203.0.113.0/24 except 203.0.113.1/32", "")))},
			[]string{"203.0.113.2 > x/a TCP 80: yes", "203.0.113.1 > x/a TCP 80: no in", "198.51.100.1 > x/a TCP 80: yes", "2001:db8::1 > x/a TCP 80: no in"}},
		{"7 an except that would shadow a broader peer", []any{policyOf("x/p", "all", in(rule("10.0.0.0/9 except 10.1.0.0/16; 10.0.0.0/8", "")))},
			[]string{"10.1.2.3 > x/a TCP 80: yes", "11.1.2.3 > x/a TCP 80: no in"}},
		{"7 the shortest and the longest ranges, host bits set", []any{policyOf("x/p", "all", in(rule("::/0; 198.51.100.1/32; 203.0.113.99/24", ""))), policyOf("y/p", "all", in(rule("0.0.0.0/0; 2001:db8::1/128", "")))},
			[]string{"2001:db8::1 > x/a TCP 80: yes", "fe80::1 > x/a TCP 80: yes", "198.51.100.1 > x/a TCP 80: yes", "198.51.100.2 > x/a TCP 80: no in", "203.0.113.1 > x/a TCP 80: yes",
				"8.8.8.8 > y/a TCP 80: yes", "2001:db8::1 > y/a TCP 80: yes", "2001:db8::2 > y/a TCP 80: no in"}},
		{"8 an unresolved named port and peers", []any{policyOf("x/p", "all", in(rule("ns:all", "TCP nope")))}, []string{"y/a > x/a TCP 80: no in", "x/b > x/a UDP 80: no in"}},
		{"8 of the wrong protocol", []any{policyOf("x/p", "all", in(rule("ns:all", "SCTP serve-81-tcp")))}, []string{"y/a > x/a SCTP 81: no in", "y/a > x/a TCP 81: no in"}},
		{"8 two pods, two numbers, no leak across", []any{podOf("x/a", http(1000)), podOf("x/b", http(2000)), policyOf("x/p", "all", in(rule("", "TCP http")))},
			[]string{"y/a > x/a TCP 1000: yes", "y/a > x/b TCP 2000: yes", "y/a > x/a TCP 2000: no in", "y/a > x/b TCP 1000: no in"}},
		{"8 the name on two containers", []any{podOf("x/a", http(1000, 2000)), policyOf("x/p", "all", in(rule("", "TCP http")))},
			[]string{"y/a > x/a TCP 1000: yes", "y/a > x/a TCP 2000: yes", "y/a > x/a TCP 1500: no in"}},
		{"8 egress to a name without to, into another namespace", []any{podOf("z/c", http(1000)), policyOf("x/p", "all", types("Egress"), out(rule("", "TCP http")))},
			[]string{"x/a > z/c TCP 1000: yes", "x/a > z/b TCP 1000: no out"}},
		{"9 a completed pod's address is another pod's", []any{podOf("y/b", func(p *model.Pod) { p.Done = true }), podOf("z/b", func(p *model.Pod) { p.Addrs = addrList("10.0.2.2") }), policyOf("x/p", "all", in(rule("ns:ns=z", "")))},
			[]string{"10.0.2.2 > x/a TCP 80: yes"}},
		{"9 recreated under its name, ends told in the wrong order", []any{podOf("z/b", func(p *model.Pod) { p.UID, p.Addrs = "second", addrList("10.0.3.9") }), model.PodKey{Name: nameOf("z/b"), UID: "uid of z/b"}, policyOf("x/p", "all", in(rule("ns:ns=z", "")))},
			[]string{"10.0.3.9 > x/a TCP 80: yes", "10.0.3.2 > x/a TCP 80: no in"}},
		{"10 a hostNetwork pod as target: the node stays reachable", []any{podOf("x/a", host), deny}, []string{"y/a > 192.168.0.1 TCP 22: yes", "192.168.0.1 > y/a TCP 22: yes"}},
		{"10 a hostNetwork pod as peer: does not open its node", []any{podOf("x/a", host), policyOf("y/p", "all", in(rule("ns:ns=x", "")))},
			[]string{"192.168.0.1 > y/a TCP 80: no in", "x/b > y/a TCP 80: yes"}},
		{"11 the same connection, judged again under a deny", []any{policyOf("x/p", "all", in(rule("", ""))), policyOf("x/p", "all")}, []string{"y/a > x/a TCP 80: no in", "y/a > x/a UDP 80: no in"}},
		{"13 a policy of which nothing can be used isolates, others go on", []any{policyOf("x/bad", "pod=a", types("Ingress"), in(model.PolicyRule{}), in(rule("unknown", ""))), policyOf("x/good", "pod=b", in(rule("ns:ns=y", "")))},
			[]string{"y/a > x/a TCP 80: no in", "y/a > x/b TCP 80: yes", "z/a > x/b TCP 80: no in", "y/a > x/c TCP 80: yes"}},
		{"13 two thousand ports", []any{policyOf("x/p", "all", in(rule("", many(2000))))}, []string{"y/a > x/a TCP 1001: yes", "y/a > x/a TCP 4999: yes", "y/a > x/a TCP 5000: no in", "y/a > x/a TCP 1002: no in"}},
		{"14 policies a/bc and ab/c are two", []any{
			model.Pod{Name: nameOf("a/p"), UID: "1", Addrs: addrList("10.9.0.1")}, model.Pod{Name: nameOf("ab/p"), UID: "2", Addrs: addrList("10.9.0.2")},
			policyOf("a/bc", "all", in(rule("ns:ns=y", ""))), policyOf("ab/c", "all", in(rule("ns:ns=z", "")))},
			[]string{"y/a > 10.9.0.1 TCP 80: yes", "z/a > 10.9.0.1 TCP 80: no in", "z/a > 10.9.0.2 TCP 80: yes", "y/a > 10.9.0.2 TCP 80: no in"}},
		{"14 names of 63 characters that differ in the last", []any{
			policyOf("x/"+strings.Repeat("n", 62)+"a", "pod=a", in(rule("ns:ns=y", ""))), policyOf("x/"+strings.Repeat("n", 62)+"b", "pod=b", in(rule("ns:ns=z", "")))},
			[]string{"y/a > x/a TCP 80: yes", "y/a > x/b TCP 80: no in", "z/a > x/b TCP 80: yes"}},
		{"16 a policy that selects nothing", []any{policyOf("x/p", "pod=none")}, []string{"y/a > x/a TCP 80: yes"}},
		{"16 a peer that selects nothing", []any{policyOf("x/p", "all", in(rule("ns:ns=none; pod=none", "")))}, []string{"y/a > x/a TCP 80: no in", "x/b > x/a TCP 80: no in"}},
		{"16 a namespace goes with its policies", []any{deny, model.NetworkPolicyKey{Name: nameOf("x/deny")}, model.NamespaceKey{Name: "x"}}, []string{"y/a > x/a TCP 80: yes"}},
		{"17 endPort with UDP and SCTP", []any{policyOf("x/p", "all", in(rule("", "UDP 1000-2000; SCTP 1-65535")))},
			[]string{"y/a > x/a UDP 1000: yes", "y/a > x/a UDP 2000: yes", "y/a > x/a UDP 2001: no in", "y/a > x/a SCTP 1: yes", "y/a > x/a SCTP 65535: yes", "y/a > x/a TCP 1500: no in"}},
	})
}

// many are ports of TCP: every second number from 1001.
func many(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("TCP %d", 1001+2*i))
	}
	return strings.Join(list, ";")
}
