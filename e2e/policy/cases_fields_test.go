package policy

// fieldCases are the API's fields one by one: what their absence means, what
// they default to, and how they combine.
func fieldCases() []policyCase {
	return []policyCase{
		{
			name:     "no podSelector selects all",
			policies: `x: {policyTypes: [Ingress]}`,
			want:     `- * > x/*`,
		}, {
			name:     "policyTypes by default: Ingress always",
			policies: `x: {podSelector: {matchLabels: {pod: a}}}`,
			want:     `- * > x/a`,
		}, {
			name:     "policyTypes by default: an empty egress isolates nothing",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{}], egress: []}`,
			want:     ``,
		}, {
			name: "policyTypes by default: egress rules isolate both", quick: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, egress: [{to: [{podSelector: {matchLabels: {pod: b}}}]}]}`,
			want: `- * > x/a
				- x/a > *
				+ x/a > x/b`,
		}, {
			name: "policyTypes Egress alone leaves ingress open", outside: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {pod: b}}}]}]}`,
			want: `- x/a > *
				+ x/a > x/b`,
		}, {
			name:     "rules of a direction that policyTypes leaves out do nothing",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], egress: [{to: [{podSelector: {matchLabels: {pod: b}}}]}]}`,
			want:     `- * > x/a`,
		}, {
			name:     "an explicit Egress with no rules",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: []}`,
			want:     `- x/a > *`,
		}, {
			name:     "an empty rule allows all, egress",
			policies: `x: {podSelector: {}, policyTypes: [Egress], egress: [{}]}`,
			want:     ``,
		}, {
			name: "an empty from is everybody, outside too", quick: true, outside: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [], ports: [{port: 80}]}]}`,
			want: `- * > x/a
				+ * > x/a tcp:80`,
		}, {
			name: "an empty namespaceSelector is all pods, nobody outside", quick: true, outside: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {}}]}]}
y: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}]}]}`,
			want: `- * > x/a
				+ */* > x/a
				- y/a > *
				+ y/a > */*`,
		}, {
			name:     "an empty podSelector is the policy's namespace",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {}}]}]}`,
			want: `- * > x/a
				+ x/* > x/a`,
		}, {
			name:     "both selectors empty",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {}, namespaceSelector: {}}]}]}`,
			want: `- * > x/a
				+ */* > x/a`,
		}, {
			name:     "an empty namespaceSelector and a label of pods",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: c}}, namespaceSelector: {}}]}]}`,
			want: `- * > x/a
				+ */c > x/a`,
		}, {
			name:     "an empty ports is all ports of all protocols",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {}}], ports: []}]}`,
			want: `- * > x/a
				+ x/* > x/a`,
		}, {
			name:     "a port's protocol defaults to TCP",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80}]}]}`,
			want: `- * > x/a
				+ * > x/a tcp:80`,
		}, {
			name:     "an empty port is all of TCP",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{}]}]}`,
			want: `- * > x/a
				+ * > x/a tcp`,
		}, {
			name:     "all ports of SCTP",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{ports: [{protocol: SCTP}]}]}`,
			want: `- x/a > *
				+ x/a > * sctp`,
		}, {
			name: "ports and peers of one rule go together, rules do not",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [
  {from: [{podSelector: {matchLabels: {pod: b}}}], ports: [{port: 80}]},
  {from: [{podSelector: {matchLabels: {pod: c}}}], ports: [{port: 81, protocol: UDP}]}]}`,
			want: `- * > x/a
				+ x/b > x/a tcp:80
				+ x/c > x/a udp:81`,
		}, {
			name: "several ports and several peers",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [
  {from: [{podSelector: {matchLabels: {pod: b}}}, {namespaceSelector: {matchLabels: {ns: z}}}], ports: [{port: 80}, {port: 80, protocol: SCTP}]}]}`,
			want: `- * > x/a
				+ x/b,z/* > x/a tcp:80,sctp:80`,
		}, {
			name: "the dash: one peer with two selectors against two peers", quick: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}, podSelector: {matchLabels: {pod: b}}}]}]}
x: {podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}, {podSelector: {matchLabels: {pod: c}}}]}]}`,
			want: `- * > x/a,x/b
				+ y/b > x/a
				+ y/*,x/c > x/b`,
		}, {
			name:     "NotIn also means who lacks the key",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchExpressions: [{key: role, operator: NotIn, values: [bad]}]}}]}]}`,
			labels:   map[string]string{"x/b": "pod=b,role=bad"},
			want: `- * > x/a
				+ x/* > x/a
				- x/b > x/a`,
		}, {
			name: "Exists and DoesNotExist", quick: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchExpressions: [{key: role, operator: Exists}]}}]}]}
x: {podSelector: {matchLabels: {pod: c}}, ingress: [{from: [{podSelector: {matchExpressions: [{key: role, operator: DoesNotExist}]}}]}]}`,
			labels: map[string]string{"x/b": "pod=b,role="},
			want: `- * > x/a,x/c
				+ x/b > x/a
				+ x/a > x/c`,
		}, {
			name:     "labels and expressions together",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {tier: web}, matchExpressions: [{key: pod, operator: NotIn, values: [c]}]}}]}]}`,
			labels:   map[string]string{"x/b": "pod=b,tier=web", "x/c": "pod=c,tier=web"},
			want: `- * > x/a
				+ x/b > x/a`,
		}, {
			name:     "several values and several labels",
			policies: `x: {podSelector: {matchExpressions: [{key: pod, operator: In, values: [a, b]}, {key: tier, operator: Exists}]}, ingress: []}`,
			labels:   map[string]string{"x/b": "pod=b,tier=web", "x/c": "pod=c,tier=web"},
			want:     `- * > x/b`,
		}, {
			name: "a namespace with no label but its default one", quick: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: z}}}]}]}
x: {podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: ns, operator: DoesNotExist}]}}]}]}`,
			labels: map[string]string{"z": ""},
			want: `- * > x/a,x/b
				+ z/* > x/a,x/b`,
		}, {
			name:     "pods without labels",
			policies: `x: {podSelector: {matchExpressions: [{key: pod, operator: DoesNotExist}]}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}, podSelector: {matchExpressions: [{key: pod, operator: DoesNotExist}]}}]}]}`,
			labels:   map[string]string{"x/a": "", "y/b": ""},
			want: `- * > x/a
				+ y/b > x/a`,
		}, {
			name:     "a policy that selects nobody",
			policies: `x: {podSelector: {matchLabels: {pod: nobody}}, policyTypes: [Ingress, Egress]}`,
			want:     ``,
		}, {
			name:     "a peer that selects nobody",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: nobody}}}]}]}`,
			want:     `- * > x/a`,
		}, {
			name:     "a peer in a namespace that there is not",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: nowhere}}}]}]}`,
			want:     `- * > x/a`,
		}, {
			name:     "a policy in a namespace that there is not",
			policies: `nowhere: {podSelector: {}, policyTypes: [Ingress, Egress]}`,
			want:     ``,
		}, {
			name:     "a policy selects pods of its own namespace only",
			policies: `y: {podSelector: {matchLabels: {pod: a}}, ingress: []}`,
			want:     `- * > y/a`,
		}, {
			name: "both ends have to allow", quick: true,
			policies: `x: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: 80}, {port: 81}]}]}
y: {podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}], ports: [{port: 81}, {port: 81, protocol: UDP}]}]}`,
			want: `- * > y/*
				- x/* > *
				+ x/* > y/* tcp:81`,
		}, {
			name: "both ends allow each other's half, so nothing",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}
y: {podSelector: {matchLabels: {pod: b}}, policyTypes: [Ingress], ingress: [{ports: [{port: 81}]}]}`,
			want: `- x/a > *
				+ x/a > * tcp:80
				- * > y/b
				+ * > y/b tcp:81
				- x/a > y/b`,
		}, {
			name: "policies add up over namespaces and directions",
			policies: `x: {podSelector: {}, policyTypes: [Ingress, Egress]}
y: {podSelector: {}, policyTypes: [Ingress, Egress]}
z: {podSelector: {}, policyTypes: [Ingress, Egress]}
x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: z}}}]}]}
z: {podSelector: {matchLabels: {pod: b}}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}], ports: [{port: 80}]}]}`,
			want: `- */* > */*
				+ x/a > z/b tcp:80`,
		}, {
			name: "policies of the same meaning, of other names",
			policies: `x/one: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}
x/two: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchExpressions: [{key: pod, operator: In, values: [b]}]}}]}]}
x/three: {podSelector: {matchLabels: {pod: c}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}`,
			want: `- * > x/a,x/c
				+ x/b > x/a,x/c`,
		}, {
			name: "one selector's meaning depends on the namespace",
			policies: `x/same: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}
y/same: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}`,
			want: `- * > x/a,y/a
				+ x/b > x/a
				+ y/b > y/a`,
		}, {
			name: "names as long as they may be",
			policies: `x/aaaaaaaaa-aaaaaaaaa-aaaaaaaaa-aaaaaaaaa-aaaaaaaaa-aaaaaaaaa-aaaaaaaaa-aaaaaaaaa-1: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}
x/aaaaaaaaa-aaaaaaaaa-aaaaaaaaa-aaaaaaaaa-aaaaaaaaa-aaaaaaaaa-aaaaaaaaa-aaaaaaaaa-2: {podSelector: {matchLabels: {pod: c}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}]}]}`,
			want: `- * > x/a,x/c
				+ x/b > x/a
				+ y/* > x/c`,
		}, {
			name: "names that run together",
			policies: `x/xy-z: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}
xx/y-z: {podSelector: {}, ingress: [{}]}
x/x-yz: {podSelector: {matchLabels: {pod: b}}, ingress: []}`,
			want: `- * > x/a,x/b
				+ x/b > x/a`,
		},
	}
}
