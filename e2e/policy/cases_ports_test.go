package policy

// portCases are ports by number, range and name. The names beside serve-80-tcp
// and so on: "web" is TCP 80 of pods a, TCP 81 of pods b and UDP 80 of pods c;
// "both" is TCP 80 and TCP 81 of pods a, in two containers, and nobody else's;
// "mixed" is TCP 80 and UDP 81 of every pod.
func portCases() []policyCase {
	return []policyCase{
		{
			name:     "a range",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80, endPort: 81}]}]}`,
			want: `- * > x/a
				+ * > x/a tcp`,
		}, {
			name: "ranges that end below and begin above",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 1, endPort: 80}]}]}
x: {podSelector: {matchLabels: {pod: b}}, ingress: [{ports: [{port: 81, endPort: 65535}]}]}`,
			want: `- * > x/a,x/b
				+ * > x/a tcp:80
				+ * > x/b tcp:81`,
		}, {
			name: "a range of UDP and of SCTP", quick: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{protocol: UDP, port: 79, endPort: 80}, {protocol: SCTP, port: 81, endPort: 90}]}]}`,
			want: `- * > x/a
				+ * > x/a udp:80,sctp:81`,
		}, {
			name:     "a range of one",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{ports: [{port: 81, endPort: 81}]}]}`,
			want: `- x/a > *
				+ x/a > * tcp:81`,
		}, {
			name:     "a range that is everything, of one protocol",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{protocol: SCTP, port: 1, endPort: 65535}]}]}`,
			want: `- * > x/a
				+ * > x/a sctp`,
		}, {
			name:     "ranges that overlap and touch",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 70, endPort: 79}, {port: 80, endPort: 80}, {port: 75, endPort: 80}, {port: 82, endPort: 90}]}]}`,
			want: `- * > x/a
				+ * > x/a tcp:80`,
		}, {
			name: "more ports than one rule of the kernel takes", quick: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 1}, {port: 3}, {port: 5}, {port: 7}, {port: 9}, {port: 11}, {port: 13}, {port: 15},
  {port: 17}, {port: 19}, {port: 21}, {port: 23}, {port: 25}, {port: 27}, {port: 29}, {port: 31}, {port: 33, endPort: 40}, {port: 42, endPort: 50}, {port: 81}]}]}`,
			want: `- * > x/a
				+ * > x/a tcp:81`,
		}, {
			name:     "a port beside a protocol",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80}, {protocol: UDP}]}]}`,
			want: `- * > x/a
				+ * > x/a tcp:80,udp`,
		}, {
			name:     "the same port twice",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 80}, {port: 80}, {port: 80, protocol: TCP}]}]}`,
			want: `- * > x/a
				+ * > x/a tcp:80`,
		}, {
			name: "the port is the pod's, not the Service's", quick: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 81}]}]}
x: {podSelector: {matchLabels: {pod: b}}, ingress: [{ports: [{port: 8181}]}]}
y: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{ports: [{port: 8181}]}]}`,
			want: `- * > x/a,x/b
				+ * > x/a tcp:81
				- y/a > *`,
		}, {
			name:     "a name of UDP and one of SCTP",
			policies: `x: {podSelector: {}, ingress: [{ports: [{protocol: UDP, port: serve-80-udp}, {protocol: SCTP, port: serve-81-sctp}]}]}`,
			want: `- * > x/*
				+ * > x/* udp:80,sctp:81`,
		}, {
			name: "a name that means another number at each pod, ingress", quick: true,
			policies: `x: {podSelector: {}, ingress: [{ports: [{port: web}]}]}`,
			want: `- * > x/*
				+ * > x/a tcp:80
				+ * > x/b tcp:81`,
		}, {
			name:     "a name that means another number at each pod, egress",
			policies: `x: {podSelector: {matchLabels: {pod: c}}, policyTypes: [Egress], egress: [{ports: [{port: web}]}]}`,
			want: `- x/c > *
				+ x/c > */a tcp:80
				+ x/c > */b tcp:81`,
		}, {
			name:     "a name that means another number at each pod, with a peer",
			policies: `x: {podSelector: {matchLabels: {pod: c}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: web}]}]}`,
			want: `- x/c > *
				+ x/c > y/a tcp:80
				+ x/c > y/b tcp:81`,
		}, {
			name:     "a name of the other protocol",
			policies: `x: {podSelector: {}, ingress: [{ports: [{port: web, protocol: UDP}]}]}`,
			want: `- * > x/*
				+ * > x/c udp:80`,
		}, {
			name: "a name that nobody has, with peers",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {}}], ports: [{port: nothing}]}]}
y: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: nothing}]}]}`,
			want: `- * > x/a
				- y/a > *`,
		}, {
			name: "a name that nobody has, without peers",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: nothing}]}]}
y: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{ports: [{port: nothing}]}]}`,
			want: `- * > x/a
				- y/a > *`,
		}, {
			name:     "a name of no such protocol, beside a number",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: serve-80-tcp, protocol: SCTP}, {port: 81, protocol: UDP}]}]}`,
			want: `- * > x/a
				+ * > x/a udp:81`,
		}, {
			name:     "a name on two containers",
			policies: `x: {podSelector: {}, ingress: [{ports: [{port: both}]}]}`,
			want: `- * > x/*
				+ * > x/a tcp`,
		}, {
			name: "a name of two protocols",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: mixed}]}]}
x: {podSelector: {matchLabels: {pod: b}}, ingress: [{ports: [{port: mixed, protocol: UDP}]}]}
x: {podSelector: {matchLabels: {pod: c}}, ingress: [{ports: [{port: mixed}, {port: mixed, protocol: UDP}]}]}`,
			want: `- * > x/*
				+ * > x/a tcp:80
				+ * > x/b udp:81
				+ * > x/c tcp:80,udp:81`,
		}, {
			name: "names do not leak from pod to pod",
			policies: `x: {podSelector: {matchLabels: {pod: c}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {pod: a}}}], ports: [{port: web}]}, {to: [{podSelector: {matchLabels: {pod: b}}}], ports: [{port: both}]}]}
y: {podSelector: {matchLabels: {pod: c}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {pod: b}}}], ports: [{port: web}]}]}`,
			want: `- x/c,y/c > *
				+ x/c > x/a tcp:80
				+ y/c > y/b tcp:81`,
		}, {
			name: "a name and a CIDR: pods inside that have it", outside: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.244.1.0/24}}, {ipBlock: {cidr: "fd00:10:244:1::/64"}}, {ipBlock: {cidr: 192.168.0.0/16}}], ports: [{port: web}]}]}`,
			want: `- x/a > *
				+ x/a > @1 tcp
				- x/a > */a tcp:81
				- x/a > */b tcp:80
				- x/a > */c`,
		}, {
			name:     "a name and a CIDR with except",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.244.0.0/16, except: [$yb4/32]}}], ports: [{port: web}]}]}`,
			want: `- x/a > *
				+ x/a > */a tcp:80 v4
				+ x/a > */b tcp:81 v4
				- x/a > y/b`,
		}, {
			name: "a name and a number of one rule",
			policies: `x: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: c}}}], ports: [{port: web}, {port: 81, protocol: SCTP}]}]}
`,
			want: `- * > x/*
				+ x/c > x/a tcp:80,sctp:81
				+ x/c > x/b tcp:81,sctp:81`,
		}, {
			name:     "two rules with the same name and other peers",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}], ports: [{port: web}]}, {from: [{namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: both}]}]}`,
			want: `- * > x/a
				+ x/b > x/a tcp:80
				+ y/* > x/a tcp`,
		},
	}
}
