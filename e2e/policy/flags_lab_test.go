//go:build lab

package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/e2e/agent"
	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// some are TCP and UDP connections to port 80, which tell enough where waiting
// is long.
func some(flows []flow) []flow {
	return without(flows, func(f flow) bool { return f.protocol == topo.SCTP || f.port != 80 })
}

// TestFlags: what the flags of policy change, each against what is so without
// it: TestMatrix shows refusals and that a pod reaches itself.
func TestFlags(t *testing.T) {
	w := enter(t)
	for i, n := range w.nodes {
		o := agent.Node(n.Host)
		o.Spec.PodCIDRs = []string{fmt.Sprintf("10.244.%d.0/24", i+1), fmt.Sprintf("fd00:10:244:%x::/64", i+1)}
		o.Spec.PodCIDR = o.Spec.PodCIDRs[0]
		suite.Must(t, w.manifests.Write(o))
		t.Cleanup(func() { suite.Must(t, w.manifests.Write(agent.Node(n.Host))) })
	}
	others := func(verb string) {
		t.Helper()
		for _, n := range w.nodes {
			_, err := n.Tool("sh", "-ec", fmt.Sprintf("for t in iptables ip6tables; do $t -w %s FORWARD -m comment --comment others -j REJECT; done", verb))
			suite.Must(t, err)
		}
	}
	t.Run("without", func(t *testing.T) {
		w.apply(t, policyCase{pods: map[string]podState{"x/a": gone, "y/a": gone}})
		if err := w.wrong(t, nil, some(matrix(true))); err != nil {
			t.Errorf("pods that are not known: %v", err)
		}
		w.apply(t, policyCase{policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}]}]}`})
		others("-A")
		defer others("-D")
		// Answers to who stands are rejected too, so by VIP nothing gets through.
		direct := without(some(matrix(false)), func(f flow) bool { return f.vip || f.from == f.to })
		for i, o := range w.try(t, direct) {
			if o.Err == nil {
				t.Errorf("%v: %v, want it stopped by others' rule", direct[i], o)
			}
		}
	})
	w.restart(t, "--policy-deny-action", "drop", "--policy-accept", "--policy-hairpin", "enforce", "--policy-unknown-pods", "deny")
	t.Run("drop", w.testDrop)
	t.Run("unknown pods", w.testUnknown)
	others("-A")
	defer others("-D")
	t.Run("accept", func(t *testing.T) {
		w.await(t, policyCase{policies: `x: {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}]}]}`, want: `- * > x/a
			+ y/* > x/a`}, func(f flow) bool { return f.from == f.to })
	})
	t.Run("hairpin", w.testHairpin)
}

// await waits until what a case allows is allowed, and what it denies is met
// with silence. Silence takes long, so of that there is little. Flows that
// others judge are left out.
func (w *world) await(t *testing.T, c policyCase, leftOut func(flow) bool) {
	t.Helper()
	suite.Must(t, w.write(c))
	w.settle(t)
	r, err := parseReach(c.want)
	suite.Must(t, err)
	flows := without(some(matrix(false)), leftOut)
	suite.Await(t, soon, func() error { return w.wrong(t, r, without(flows, func(f flow) bool { return !r.allows(f) })) })
	var denied []flow
	for _, f := range flows {
		if !r.allows(f) && f.from != "x/c" && f.from != "z/c" {
			denied = append(denied, f)
		}
	}
	for i, o := range w.tryFor(t, silent, denied) {
		if !errors.Is(o.Err, topo.ErrSilence) {
			t.Errorf("%v: %v, want silence", denied[i], o)
		}
	}
}

// silent is how long nobody may say anything before that is the answer.
const silent = time.Second

// testDrop: with --policy-deny-action drop clients hear nothing.
func (w *world) testDrop(t *testing.T) {
	w.await(t, policyCase{policies: `x: {podSelector: {}, policyTypes: [Ingress]}
y: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress]}`, want: `- * > x/*
		- y/a > *`}, func(f flow) bool { return f.from == f.to })
}

// testUnknown: with --policy-unknown-pods deny an address in the node's range
// has no traffic until the pod is known.
func (w *world) testUnknown(t *testing.T) {
	w.await(t, policyCase{pods: map[string]podState{"x/a": gone, "y/a": gone}, want: `- * > x/a,y/a
		- x/a,y/a > *`}, func(f flow) bool { return f.from == f.to })
	w.await(t, policyCase{}, func(flow) bool { return false })
}

// testHairpin: with --policy-hairpin enforce a pod that reaches itself through
// a virtual address needs its policies' permission; directly it never leaves.
func (w *world) testHairpin(t *testing.T) {
	suite.Must(t, w.write(policyCase{policies: `x: {podSelector: {}, policyTypes: [Ingress, Egress]}
y: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}]}], egress: [{to: [{podSelector: {}}], ports: [{port: 80}]}]}`}))
	w.settle(t)
	allowed := func(f flow) bool {
		return !f.vip || strings.HasPrefix(string(f.to), "z/") || strings.HasPrefix(string(f.to), "y/") && f.protocol == topo.TCP && f.port == 80
	}
	self := without(matrix(false), func(f flow) bool { return f.from != f.to })
	suite.Await(t, soon, func() error {
		var errs []error
		for i, o := range w.tryFor(t, silent, self) {
			if allowed(self[i]) != (o.Err == nil) {
				errs = append(errs, fmt.Errorf("%v: %v, want it allowed: %t", self[i], o, allowed(self[i])))
			}
		}
		return errors.Join(errs...)
	})
}

// TestDisabled: --enable-policy=false leaves nothing of it in the kernel, nor
// does sluice cleanup.
func TestDisabled(t *testing.T) {
	w := enter(t)
	c := policyCase{policies: `x: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: web}]}]}`}
	w.apply(t, c)
	node1 := w.nodes[0]
	if err := node1.none("SLUICE-NP", "SLUICE-6-NP"); err == nil {
		t.Error("there is nothing of policies in the kernel while there are some")
	}
	w.restart(t, "--enable-policy=false")
	w.settle(t)
	for _, n := range w.nodes {
		suite.Await(t, soon, func() error { return n.none("SLUICE-NP", "SLUICE-6-NP") })
		if page, err := n.Agent.Page(t.Context(), "/policy/explain?from=x/a&to=y/a"); err == nil {
			t.Errorf("%s explains policies that it does not enforce: %s", n.Name, page)
		}
	}
	suite.Must(t, w.wrong(t, nil, matrix(false)))

	suite.Must(t, node1.Agent.Stop())
	suite.Must(t, w.startOn([]*node{node1}))
	w.settle(t)
	if err := node1.none("SLUICE-NP", "SLUICE-6-NP"); err == nil {
		t.Error("there is nothing of policies in the kernel after they were enabled again")
	}
	suite.Must(t, node1.Agent.Stop())
	_, err := node1.Run(t.Context(), w.bin, "cleanup")
	suite.Must(t, err)
	if err := node1.Before.Same(node1.Host); err != nil {
		t.Errorf("after sluice cleanup: %v", err)
	}
	suite.Must(t, w.startOn([]*node{node1}))
}

// none says what in iptables and ipset has one of these words.
func (n *node) none(words ...string) error {
	tables, err := n.Tables()
	if err != nil {
		return err
	}
	for _, tool := range []string{"iptables", "ip6tables", "ipset"} {
		for _, line := range tables[tool] {
			if slices.ContainsFunc(words, func(word string) bool { return strings.Contains(line, word) }) {
				return fmt.Errorf("%s: %s: %s", n.Name, tool, line)
			}
		}
	}
	return nil
}
