package policy

// lifeCases are pods, namespaces and policies that come, change and go.
func lifeCases() []policyCase {
	const (
		onlyB   = `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}`
		denyB   = `x: {podSelector: {matchLabels: {pod: b}}, policyTypes: [Ingress, Egress]}`
		onlyTmp = `y: {podSelector: {matchLabels: {pod: tmp}}, policyTypes: [Ingress]}
x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {pod: tmp}}}]}]}`
		tmp = `apiVersion: v1
kind: Pod
metadata: {namespace: "y", name: tmp, uid: uid-tmp, labels: {pod: tmp}}
spec: {nodeName: node1, containers: [{name: serve, image: serve}]}
status: {phase: %PHASE%, podIPs: [{ip: $yb4}, {ip: "$yb6"}]}
`
	)
	return []policyCase{
		{
			name: "a pod succeeds: no peer and no target any more", quick: true,
			policies: onlyB + "\n" + denyB,
			want: `- * > x/a,x/b
				- x/b > *`,
			then: []policyCase{{
				name: "done", policies: onlyB + "\n" + denyB, pods: map[string]podState{"x/b": done},
				want: `- * > x/a`,
			}, {
				name: "back", policies: onlyB + "\n" + denyB,
				want: `- * > x/a,x/b
					- x/b > *`,
			}},
		}, {
			name: "a pod fails", policies: onlyB, pods: map[string]podState{"x/b": failed},
			want: `- * > x/a`,
		}, {
			name:     "a pod is deleted and comes back",
			policies: onlyB,
			want: `- * > x/a
				+ x/b > x/a`,
			then: []policyCase{{
				name: "gone", policies: onlyB, pods: map[string]podState{"x/b": gone},
				want: `- * > x/a`,
			}, {
				name: "come", policies: onlyB,
				want: `- * > x/a
					+ x/b > x/a`,
			}},
		}, {
			name: "an isolated pod is deleted and comes back", policies: denyB,
			want: `- * > x/b
				- x/b > *`,
			then: []policyCase{{
				name: "gone", policies: denyB, pods: map[string]podState{"x/b": gone}, want: ``,
			}, {
				name: "come", policies: denyB,
				want: `- * > x/b
					- x/b > *`,
			}},
		}, {
			name:     "a pod is made anew under its name",
			policies: onlyB, want: `- * > x/a
				+ x/b > x/a`,
			then: []policyCase{{
				name: "another of its name", policies: onlyB, pods: map[string]podState{"x/b": recreated, "x/a": recreated},
				want: `- * > x/a
					+ x/b > x/a`,
			}},
		}, {
			name: "a terminating pod is as before", policies: onlyB + "\n" + denyB,
			pods: map[string]podState{"x/b": terminating, "x/a": terminating},
			want: `- * > x/a,x/b
				- x/b > *`,
		}, {
			name: "a pod that is not ready is as before", policies: onlyB,
			pods: map[string]podState{"x/b": unready, "x/a": unready},
			want: `- * > x/a
				+ x/b > x/a`,
		}, {
			name:     "an address goes to another pod, and back",
			policies: onlyTmp, want: `- * > x/a`,
			then: []policyCase{{
				name: "another pod's", policies: onlyTmp, pods: map[string]podState{"y/b": gone},
				objects: withPhase(tmp, "Running"),
				want: `- * > x/a
					+ y/b > x/a
					- * > y/b`,
			}, {
				name: "that is done, its object still there", policies: onlyTmp,
				objects: withPhase(tmp, "Succeeded"),
				want:    `- * > x/a`,
			}, {
				name: "and then not", policies: onlyTmp,
				want: `- * > x/a`,
			}},
		}, {
			name: "a done pod's object with a living pod's address", policies: onlyTmp,
			objects: withPhase(tmp, "Failed"),
			want:    `- * > x/a`,
		}, {
			name: "a namespace's object goes, its pods and policies stay", policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}]}]}`,
			pods: map[string]podState{"y": gone},
			want: `- * > x/a`,
			then: []policyCase{{
				name: "back", policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}]}]}`,
				want: `- * > x/a
					+ y/* > x/a`,
			}},
		}, {
			name: "a policy comes to pods that others isolate", policies: denyB,
			want: `- * > x/b
				- x/b > *`,
			then: []policyCase{{
				name: "one that allows", policies: denyB + "\n" + `x: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}]}]}`,
				want: `- * > x/*
					+ y/* > x/*
					- x/b > *`,
			}, {
				name: "the first goes", policies: `x/policy-2: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}]}]}`,
				want: `- * > x/*
					+ y/* > x/*`,
			}},
		}, {
			name:     "a pod's labels change so that it is isolated, and not",
			policies: `x: {podSelector: {matchLabels: {isolated: "yes"}}, policyTypes: [Ingress, Egress]}`,
			want:     ``,
			then: []policyCase{{
				name:     "isolated",
				policies: `x: {podSelector: {matchLabels: {isolated: "yes"}}, policyTypes: [Ingress, Egress]}`,
				labels:   map[string]string{"x/b": "pod=b,isolated=yes"},
				want: `- * > x/b
					- x/b > *`,
			}, {
				name:     "not",
				policies: `x: {podSelector: {matchLabels: {isolated: "yes"}}, policyTypes: [Ingress, Egress]}`,
				labels:   map[string]string{"x/b": "pod=b,isolated=no"},
				want:     ``,
			}},
		},
	}
}
