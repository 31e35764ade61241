package policy

// upstreamCases are those of Kubernetes' own end-to-end tests, in their order.
func upstreamCases() []policyCase {
	return []policyCase{
		{
			name: "no policy", quick: true, outside: true,
			want: ``,
		}, {
			name: "default deny ingress", quick: true, outside: true,
			policies: `x: {podSelector: {}, ingress: []}`,
			want:     `- * > x/*`,
		}, {
			name: "default deny all", outside: true,
			policies: `x: {podSelector: {}, policyTypes: [Ingress, Egress]}`,
			want: `- * > x/*
				- x/* > *`,
		}, {
			name:     "ingress from pods of the policy's namespace by label",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}`,
			want: `- * > x/a
				+ x/b > x/a`,
		}, {
			name: "ingress from pods of all namespaces for a target",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {}}]}]}
x: {podSelector: {}, policyTypes: [Ingress]}`,
			want: `- * > x/*
				+ */* > x/a`,
		}, {
			name:     "ingress from a namespace by label",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}]}]}`,
			want: `- * > x/a
				+ y/* > x/a`,
		}, {
			name:     "ingress from a namespace by its default label",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: "y"}}}]}]}`,
			want: `- * > x/a
				+ y/* > x/a`,
		}, {
			name:     "ingress from namespaces by expressions on their default label",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [x]}]}}]}]}`,
			want: `- * > x/a
				+ y/*,z/* > x/a`,
		}, {
			name:     "ingress from pods by expressions",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchExpressions: [{key: pod, operator: In, values: [b, c]}]}}]}]}`,
			want: `- * > x/a
				+ x/b,x/c > x/a`,
		}, {
			name:     "ingress from namespaces by expressions",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: ns, operator: In, values: ["y", nowhere]}]}}]}]}`,
			want: `- * > x/a
				+ y/* > x/a`,
		}, {
			name:     "two peers: a pod or a namespace",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}, {namespaceSelector: {matchLabels: {ns: "y"}}}]}]}`,
			want: `- * > x/a
				+ x/b,y/* > x/a`,
		}, {
			name:     "one peer: a pod in a namespace",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}, namespaceSelector: {matchLabels: {ns: "y"}}}]}]}`,
			want: `- * > x/a
				+ y/b > x/a`,
		}, {
			name:     "pods of several labels in several namespaces",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchExpressions: [{key: pod, operator: In, values: [b, c]}]}, namespaceSelector: {matchExpressions: [{key: ns, operator: NotIn, values: [x]}]}}]}]}`,
			want: `- * > x/a
				+ y/b,y/c,z/b,z/c > x/a`,
		}, {
			name:     "any of several pods",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}, {podSelector: {matchLabels: {pod: c}}}]}]}`,
			want: `- * > x/a
				+ x/b,x/c > x/a`,
		}, {
			name:     "ingress on one port",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: 81, protocol: TCP}]}]}`,
			want: `- * > x/a
				+ y/* > x/a tcp:81`,
		}, {
			name: "stacked policies with overlapping selectors",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: 80}]}]}
x: {podSelector: {matchExpressions: [{key: pod, operator: In, values: [a, b]}]}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: 81}]}]}`,
			want: `- * > x/a,x/b
				+ y/* > x/a,x/b tcp:81
				+ y/* > x/a tcp:80`,
		}, {
			name: "allow all", outside: true,
			policies: `x: {podSelector: {}, ingress: [{}]}`,
			want:     ``,
		}, {
			name:     "ingress on one named port",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: serve-81-tcp}]}]}`,
			want: `- * > x/a
				+ * > x/a tcp:81`,
		}, {
			name:     "ingress from a namespace on one named port",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: serve-80-tcp}]}]}`,
			want: `- * > x/a
				+ y/* > x/a tcp:80`,
		}, {
			name: "egress on one named port", outside: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{ports: [{port: serve-80-tcp}]}]}`,
			want: `- x/a > *
				+ x/a > */* tcp:80`,
		}, {
			name:     "a policy is updated",
			policies: `x/one: {podSelector: {}, ingress: [{}]}`,
			want:     ``,
			then: []policyCase{{
				name: "to deny", policies: `x/one: {podSelector: {}, ingress: []}`, want: `- * > x/*`,
			}, {
				name: "to allow a port", policies: `x/one: {podSelector: {}, ingress: [{ports: [{port: 81}]}]}`,
				want: `- * > x/*
					+ * > x/* tcp:81`,
			}, {
				name: "to isolate others", policies: `x/one: {podSelector: {matchLabels: {pod: b}}, ingress: []}`, want: `- * > x/b`,
			}},
		}, {
			name:     "a namespace's labels change",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns2: updated}}}]}]}`,
			want:     `- * > x/a`,
			then: []policyCase{{
				name:     "it has the label",
				policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns2: updated}}}]}]}`,
				labels:   map[string]string{"y": "ns=y,ns2=updated"},
				want: `- * > x/a
					+ y/* > x/a`,
			}, {
				name:     "another has it",
				policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns2: updated}}}]}]}`,
				labels:   map[string]string{"z": "ns2=updated"},
				want: `- * > x/a
					+ z/* > x/a`,
			}},
		}, {
			name: "a pod's labels change", quick: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod2: updated}}}]}]}`,
			want:     `- * > x/a`,
			then: []policyCase{{
				name:     "a peer has the label",
				policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod2: updated}}}]}]}`,
				labels:   map[string]string{"x/b": "pod=b,pod2=updated"},
				want: `- * > x/a
					+ x/b > x/a`,
			}, {
				name:     "the target is another",
				policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod2: updated}}}]}]}`,
				labels:   map[string]string{"x/b": "pod=b,pod2=updated", "x/a": "pod=other", "x/c": "pod=a"},
				want: `- * > x/c
					+ x/b > x/c`,
			}, {
				name:     "as before",
				policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod2: updated}}}]}]}`,
				want:     `- * > x/a`,
			}},
		}, {
			name:     "deny egress of a pod",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress]}`,
			want:     `- x/a > *`,
		}, {
			name: "deny egress of a namespace", outside: true,
			policies: `x: {podSelector: {}, policyTypes: [Egress]}`,
			want:     `- x/* > *`,
		}, {
			name: "ingress and egress in one policy",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 81}]}], egress: [{ports: [{port: 80}]}]}
`,
			want: `- * > x/a
				+ * > x/a tcp:81
				- x/a > *
				+ x/a > * tcp:80`,
		}, {
			name: "egress denied to who would let it in",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], ingress: [{}]}
y: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}]}]}`,
			want: `- * > y/*
				+ x/* > y/*
				- x/a > *`,
		}, {
			name:     "egress to a pod of another namespace",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: "y"}}, podSelector: {matchLabels: {pod: a}}}]}]}`,
			want: `- x/a > *
				+ x/a > y/a`,
		}, {
			name:     "ingress on any port of a protocol",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{protocol: UDP}]}]}`,
			want: `- * > x/a
				+ * > x/a udp`,
		}, {
			name: "allow all beside one that allows little, ingress",
			policies: `x: {podSelector: {}, ingress: [{ports: [{port: 80}]}]}
x: {podSelector: {}, ingress: [{}]}`,
			want: ``,
		}, {
			name: "allow all beside one that allows little, egress",
			policies: `x: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}
x: {podSelector: {}, policyTypes: [Egress], egress: [{}]}`,
			want: ``,
		}, {
			name:     "policies are deleted",
			policies: `x: {podSelector: {}, policyTypes: [Ingress, Egress]}`,
			want: `- * > x/*
				- x/* > *`,
			then: []policyCase{{name: "all gone", want: ``}},
		}, {
			name: "egress to a CIDR", outside: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: $yb4/32}}]}]}`,
			want: `- x/a > *
				+ x/a > y/b v4`,
		}, {
			name:     "egress to a CIDR with except",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.244.1.0/24, except: [$yb4/32]}}]}]}`,
			want: `- x/a > *
				+ x/a > @1 v4
				- x/a > y/b v4`,
		}, {
			name:     "an address both in an except and in another CIDR",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.244.1.0/24, except: [$yb4/32]}}, {ipBlock: {cidr: $yb4/32}}]}]}`,
			want: `- x/a > *
				+ x/a > @1 v4`,
		}, {
			name: "ingress and egress of one pod by two policies",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}, podSelector: {matchLabels: {pod: b}}}]}]}
x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: "y"}}, podSelector: {matchLabels: {pod: a}}}]}]}`,
			want: `- * > x/a
				+ y/b > x/a
				- x/a > *
				+ x/a > y/a`,
		}, {
			name:     "SCTP is not TCP",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{protocol: SCTP, port: 80}]}]}`,
			want: `- * > x/a
				+ * > x/a sctp:80`,
		}, {
			name:     "UDP is not TCP",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{protocol: UDP, port: 81}]}]}`,
			want: `- * > x/a
				+ * > x/a udp:81`,
		}, {
			name:     "SCTP and TCP by two ports",
			policies: `x: {podSelector: {}, ingress: [{ports: [{protocol: SCTP, port: 81}, {port: 80}]}]}`,
			want: `- * > x/*
				+ * > x/* sctp:81,tcp:80`,
		},
	}
}
