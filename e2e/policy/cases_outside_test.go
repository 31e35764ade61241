package policy

import "strings"

func withPhase(text, phase string) string { return strings.ReplaceAll(text, "%PHASE%", phase) }

// outsideCases are about nodes, pods of the host's network and who is beyond
// the cluster. A pod's own node always reaches it.
func outsideCases() []policyCase {
	const hostPod = `apiVersion: v1
kind: Pod
metadata: {namespace: x, name: host, uid: uid-host, labels: {pod: host}}
spec: {nodeName: node2, hostNetwork: true, containers: [{name: serve, image: serve}]}
status: {phase: Running, podIPs: [{ip: 192.168.10.12}, {ip: "fd00:192:168:10::c"}]}
`
	return []policyCase{
		{
			name: "the own node is exempt, another is not", quick: true, outside: true,
			policies: `x: {podSelector: {}, ingress: []}
y: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`,
			want: `- * > x/*,y/*
				+ y/* > y/*`,
		}, {
			name: "another node by its address", outside: true,
			policies: `x: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.168.10.12/32}}, {ipBlock: {cidr: "fd00:192:168:10::c/128"}}], ports: [{port: 80}]}]}`,
			want: `- * > x/*
				+ node2 > x/* tcp:80`,
		}, {
			name: "egress to a node by its address", outside: true,
			policies: `x: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 192.168.10.0/24}}], ports: [{port: 80}]}]}`,
			want: `- x/* > *
				+ x/* > node1,node2 tcp:80 v4`,
		}, {
			name: "a pod of the host's network is no target", quick: true, outside: true,
			policies: `x: {podSelector: {}, policyTypes: [Ingress, Egress]}`,
			objects:  hostPod,
			want: `- * > x/*
				- x/* > *`,
		}, {
			name: "a pod of the host's network is no peer", quick: true, outside: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {pod: host}}}]}, {from: [{podSelector: {matchLabels: {pod: c}}}]}], egress: [{to: [{podSelector: {matchLabels: {pod: host}}}]}]}`,
			objects:  hostPod,
			want: `- * > x/a
				+ x/c > x/a
				- x/a > *`,
		}, {
			name: "egress to all pods is not egress to nodes", outside: true,
			policies: `x: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}]}]}`,
			want: `- x/* > *
				+ x/* > */*`,
		}, {
			name: "egress on a port to everybody", outside: true,
			policies: `x: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 80, protocol: UDP}, {port: 81, protocol: SCTP}]}]}`,
			want: `- x/* > *
				+ x/* > * udp:80,sctp:81`,
		}, {
			name: "only from outside", outside: true,
			policies: `z: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.168.20.2/32}}], ports: [{port: 81}]}]}`,
			want: `- * > z/*
				+ client > z/* tcp:81 v4`,
		}, {
			name: "ingress on a named port from everybody", outside: true,
			policies: `x: {podSelector: {}, ingress: [{ports: [{port: serve-81-udp, protocol: UDP}]}]}`,
			want: `- * > x/*
				+ * > x/* udp:81`,
		},
	}
}
