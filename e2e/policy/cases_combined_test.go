package policy

import (
	"fmt"
	"slices"
	"strings"
)

// combinedCases are every kind of peer with every kind of ports, in both
// directions, for one pod: x/a.
func combinedCases() []policyCase {
	peers := []struct{ yaml, who string }{
		{``, "*"},
		{`{podSelector: {}}`, "x/*"},
		{`{podSelector: {matchLabels: {pod: b}}}`, "x/b"},
		{`{namespaceSelector: {}}`, "*/*"},
		{`{namespaceSelector: {matchLabels: {ns: "y"}}}`, "y/*"},
		{`{namespaceSelector: {matchExpressions: [{key: ns, operator: NotIn, values: [x]}]}}`, "y/*,z/*"},
		{`{namespaceSelector: {matchLabels: {ns: z}}, podSelector: {matchLabels: {pod: c}}}`, "z/c"},
		{`{namespaceSelector: {}, podSelector: {matchExpressions: [{key: pod, operator: In, values: [a, b]}]}}`, "*/a,*/b"},
		{`{ipBlock: {cidr: $yb4/32}}, {ipBlock: {cidr: "$yb6/128"}}`, "y/b"},
		{`{ipBlock: {cidr: 10.244.0.0/16, except: [10.244.2.0/24]}}, {podSelector: {matchLabels: {pod: b}}}, {ipBlock: {cidr: "fd00:10:244:1::/64"}}`, "@1,x/b"},
	}
	ports := []struct{ yaml, which string }{
		{``, ""},
		{`{port: 80}`, "tcp:80"},
		{`{protocol: UDP, port: 81}`, "udp:81"},
		{`{protocol: SCTP}`, "sctp"},
		{`{port: serve-81-tcp}`, "tcp:81"},
		{`{protocol: UDP, port: serve-80-udp}, {protocol: TCP, port: 81}`, "udp:80,tcp:81"},
		{`{port: 79, endPort: 80}, {protocol: SCTP, port: 81, endPort: 65535}`, "tcp:80,sctp:81"},
		{`{port: nothing}, {protocol: SCTP, port: 80}`, "sctp:80"},
	}
	var list []policyCase
	for i, peer := range peers {
		for j, port := range ports {
			for _, direction := range []string{"ingress", "egress"} {
				list = append(list, combine(direction, [2]string{peer.yaml, port.yaml}, [2]string{peer.who, port.which}))
				list[len(list)-1].quick = direction == "egress" && i == 4 && j == 4
			}
		}
	}
	return list
}

// combine is the case of one kind of peer (first) and one of ports (second), as
// in YAML and as in reach.
func combine(direction string, yaml, reach [2]string) policyCase {
	list, kind := "from", "Ingress"
	deny, allow := "- * > x/a", fmt.Sprintf("+ %s > x/a %s", reach[0], reach[1])
	if direction == "egress" {
		list, kind = "to", "Egress"
		deny, allow = "- x/a > *", fmt.Sprintf("+ x/a > %s %s", reach[0], reach[1])
	}
	var fields []string
	for key, value := range map[string]string{list: yaml[0], "ports": yaml[1]} {
		if value != "" {
			fields = append(fields, fmt.Sprintf("%s: [%s]", key, value))
		}
	}
	slices.Sort(fields)
	return policyCase{
		name:     fmt.Sprintf("%s of %s on %s", direction, orAll(reach[0]), orAll(reach[1])),
		policies: fmt.Sprintf("x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [%s], %s: [{%s}]}", kind, direction, strings.Join(fields, ", ")),
		want:     deny + "\n" + allow,
	}
}

func orAll(s string) string {
	if s == "" {
		return "all"
	}
	return s
}
