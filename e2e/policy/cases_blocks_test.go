package policy

// blockCases are peers by address. What a CIDR of one family allows, it allows
// in that family; the pod is isolated in both.
func blockCases() []policyCase {
	return []policyCase{
		{
			name:     "ingress from one address",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: $yb4/32}}]}]}`,
			want: `- * > x/a
				+ y/b > x/a v4`,
		}, {
			name:     "ingress from one address of IPv6",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: "$yb6/128"}}]}]}`,
			want: `- * > x/a
				+ y/b > x/a v6`,
		}, {
			name: "all of IPv4", outside: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}`,
			want: `- * > x/a
				+ * > x/a v4`,
		}, {
			name: "all of both families", outside: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: "::/0"}}], ports: [{port: 80}]}]}`,
			want: `- * > x/a
				+ * > x/a tcp:80`,
		}, {
			name: "all but the cluster", quick: true, outside: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.244.0.0/16]}}, {ipBlock: {cidr: "::/0", except: ["fd00:10:244::/56"]}}]}], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.244.0.0/16]}}, {ipBlock: {cidr: "::/0", except: ["fd00:10:244::/56"]}}]}]}`,
			want: `- * > x/a
				- x/a > *
				+ client,node1,node2 > x/a
				+ x/a > client,node1,node2`,
		}, {
			name: "all but halves", outside: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [128.0.0.0/1]}}, {ipBlock: {cidr: "::/0", except: ["8000::/1"]}}]}]}`,
			want: `- x/a > *
				+ x/a > */* v4`,
		}, {
			name: "all but the other halves", outside: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [0.0.0.0/1]}}, {ipBlock: {cidr: "::/0", except: ["::/1"]}}]}]}`,
			want: `- x/a > *
				+ x/a > client,node1,node2 v4
				+ x/a > * v6`,
		}, {
			name:     "several excepts",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 10.244.0.0/16, except: [$xb4/32, $yb4/32, $zb4/32]}}]}]}`,
			want: `- * > x/a
				+ */* > x/a v4
				- */b > x/a`,
		}, {
			name:     "an except of IPv6",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: "fd00:10:244::/56", except: ["fd00:10:244:2::/64"]}}]}]}`,
			want: `- * > x/a
				+ @1 > x/a v6`,
		}, {
			name: "an except is no deny: a pod peer allows it", quick: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 10.244.0.0/16, except: [$yb4/32]}}, {namespaceSelector: {matchLabels: {ns: "y"}}, podSelector: {matchLabels: {pod: b}}}]}]}`,
			want: `- * > x/a
				+ */* > x/a v4
				+ y/b > x/a`,
		}, {
			name: "an except is no deny: another rule allows it",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [
  {from: [{ipBlock: {cidr: 10.244.0.0/16, except: [$yb4/32]}}]}, {from: [{ipBlock: {cidr: $yb4/32}}], ports: [{port: 80}]}]}`,
			want: `- * > x/a
				+ */* > x/a v4
				- y/b > x/a
				+ y/b > x/a tcp:80 v4`,
		}, {
			name: "an except is no deny: another policy allows it",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 10.244.0.0/16, except: [$yb4/32]}}]}]}
x: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: $yb4/32}}]}]}`,
			want: `- * > x/*
				+ */* > x/a v4
				+ y/b > x/* v4`,
		}, {
			name:     "an except of one block inside a broader other",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.244.1.0/24]}}, {ipBlock: {cidr: 10.244.0.0/16}}]}]}`,
			want: `- * > x/a
				+ */* > x/a v4`,
		}, {
			name:     "an except that is the other's CIDR",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 10.244.0.0/16, except: [10.244.1.0/24]}}, {ipBlock: {cidr: 10.244.1.0/24}}]}]}`,
			want: `- * > x/a
				+ */* > x/a v4`,
		}, {
			name:     "two blocks with excepts that overlap",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 10.244.0.0/16, except: [10.244.1.0/24]}}, {ipBlock: {cidr: 10.244.0.0/20, except: [10.244.2.0/24, $yb4/32]}}]}]}`,
			want: `- * > x/a
				+ */* > x/a v4
				- y/b > x/a`,
		}, {
			name: "two rules with the same CIDR and other excepts and ports",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [
  {from: [{ipBlock: {cidr: 10.244.0.0/16, except: [10.244.1.0/24]}}], ports: [{port: 80}]},
  {from: [{ipBlock: {cidr: 10.244.0.0/16, except: [10.244.2.0/24]}}], ports: [{port: 81}]}]}`,
			want: `- * > x/a
				+ @2 > x/a tcp:80 v4
				+ @1 > x/a tcp:81 v4`,
		}, {
			name:     "excepts inside each other",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.244.0.0/16, 10.244.1.0/24]}}]}]}`,
			want:     `- * > x/a`,
		}, {
			name: "host bits are no matter", quick: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 10.244.2.77/24}}, {ipBlock: {cidr: "fd00:10:244:2::77/64"}}]}]}`,
			want: `- * > x/a
				+ @2 > x/a`,
		}, {
			name:     "blocks of both families and pods in one rule",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: $yb4/32}}, {ipBlock: {cidr: "$zb6/128"}}, {podSelector: {matchLabels: {pod: c}}}], ports: [{port: 80}, {port: 81, protocol: UDP}]}]}`,
			want: `- x/a > *
				+ x/a > y/b tcp:80,udp:81 v4
				+ x/a > z/b tcp:80,udp:81 v6
				+ x/a > x/c tcp:80,udp:81`,
		}, {
			name: "the address of a Service is nobody's", quick: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.96.0.0/12}}, {ipBlock: {cidr: "fd00:10:96::/112"}}, {ipBlock: {cidr: $vip-ya4/32}}]}]}`,
			want:     `- x/a > *`,
		}, {
			name:     "a range of ports to a block",
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.244.2.0/24}}], ports: [{port: 79, endPort: 80}, {protocol: SCTP, port: 80, endPort: 82}]}]}`,
			want: `- x/a > *
				+ x/a > @2 tcp:80,sctp v4`,
		}, {
			name: "addresses outside", outside: true,
			policies: `x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: 192.168.20.0/24}}]}], egress: [{to: [{ipBlock: {cidr: "fd00:192:168:20::2/128"}}], ports: [{port: 80}]}]}`,
			want: `- * > x/a
				- x/a > *
				+ client > x/a v4
				+ x/a > client tcp:80 v6`,
		},
	}
}
