//go:build lab

package policy

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

func isRefusal(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// wrong tries connections and says which are not as they have to be.
func (w *world) wrong(t *testing.T, r reach, flows []flow) error {
	t.Helper()
	var errs []error
	for i, o := range w.try(t, flows) {
		if err := want(r, flows[i], o); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 3 {
		errs = append(errs[:3], fmt.Errorf("and %d more", len(errs)-3))
	}
	return errors.Join(errs...)
}

// TestMeddling: what others do to our chains and sets, or before them, is put
// right at the next audit.
func TestMeddling(t *testing.T) {
	w := enter(t)
	c := policyCase{policies: `x: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: 80}, {port: web}]}]}`,
		want: `- * > x/*
			- x/* > *
			+ y/* > x/* tcp:80
			+ y/* > x/b tcp:81`}
	w.apply(t, c)
	r, err := parseReach(c.want)
	suite.Must(t, err)
	node1 := w.nodes[0]
	flows := some(matrix(false))
	for _, m := range []struct {
		name, script string
		opens        bool // so that something is allowed until it is put right
		quick        bool
	}{
		{"chains are flushed", "iptables -w -F SLUICE-NP-FORWARD; ip6tables -w -F SLUICE-NP-OUTPUT", true, false},
		{"all rules are flushed", "iptables -w -F; ip6tables -w -F", true, true},
		{"jumps are removed", `for t in iptables ip6tables; do $t-save -t filter | sed -n "s/^-A \\(.*-j SLUICE-NP-.*PUT\\)$/$t -w -D \\1/p; s/^-A \\(.*-j SLUICE-NP-FORWARD\\)$/$t -w -D \\1/p"; done | sh -e`, true, false},
		{"others insert rules above", "iptables -w -I FORWARD -j ACCEPT; ip6tables -w -I FORWARD -j ACCEPT; iptables -w -I OUTPUT -j ACCEPT; ip6tables -w -I OUTPUT -j ACCEPT", true, true},
		{"sets are emptied", "for s in $(ipset list -n | grep ^SLUICE-.*NP); do ipset flush $s; done", true, true},
		{"a chain gets a rule of others", "iptables -w -I SLUICE-NP-FORWARD -j ACCEPT; iptables -w -A SLUICE-NP-INGRESS -j DROP", true, false},
	} {
		t.Run(m.name, func(t *testing.T) {
			if !m.quick {
				long(t)
			}
			if err := w.wrong(t, r, flows); err != nil {
				t.Fatal(err)
			}
			foreign, err := node1.Tables()
			suite.Must(t, err)
			_, err = node1.Tool("sh", "-ec", m.script)
			suite.Must(t, err)
			begin := time.Now()
			if m.opens && w.wrong(t, r, flows) == nil {
				t.Log("it was put right at once, or did nothing")
			}
			suite.Await(t, soon, func() error { return w.wrong(t, r, flows) })
			t.Logf("right again after %v", time.Since(begin).Round(100*time.Millisecond))
			// What was put in or taken out of others' rules stays theirs.
			suite.Must(t, w.refurnish(node1, foreign))
		})
	}
}

// refurnish puts back what a test took away that is not sluice's, and takes away
// what it put in.
func (w *world) refurnish(n *node, tables topo.Tables) error {
	var script strings.Builder
	for _, tool := range []string{"iptables", "ip6tables"} {
		fmt.Fprintf(&script, "for c in FORWARD OUTPUT; do while %s -w -D $c -j ACCEPT 2>/dev/null; do :; done; done\n", tool)
		for _, line := range tables[tool] {
			rule, ok := strings.CutPrefix(line, "filter -A ")
			if ok && !strings.Contains(rule, "SLUICE-") {
				fmt.Fprintf(&script, "%s -w -C %s 2>/dev/null || %[1]s -w -A %[2]s\n", tool, rule)
			}
		}
	}
	_, err := n.Tool("sh", "-c", script.String())
	return err
}

// TestLockHeld: while somebody else holds the lock of iptables nothing that
// stands is given up, and what is new comes into force when the lock is free.
func TestLockHeld(t *testing.T) {
	w := enter(t)
	before := policyCase{policies: `x: {podSelector: {}, policyTypes: [Ingress]}`, want: `- * > x/*`}
	w.apply(t, before)
	hold := 3 * time.Second
	if os.Getenv("SLUICE_LONG") != "" {
		hold = 10 * time.Second
	}
	var flows []flow
	for _, f := range matrix(false) {
		if f.to == "x/a" || f.from == "z/a" {
			flows = append(flows, f)
		}
	}
	v := w.watch(t, `- * > x/*
		+ * > x/a :81`, without(flows, func(f flow) bool { return f.to == "x/a" && f.from != "x/a" && f.port == 81 }))
	var locked []*topo.Process
	for _, n := range w.nodes {
		p, err := n.Start(os.Stderr, "flock", "/run/xtables."+n.Name+".lock", "sleep", fmt.Sprint(hold.Seconds()))
		suite.Must(t, err)
		locked = append(locked, p)
	}
	begin := time.Now()
	suite.Must(t, w.write(policyCase{policies: `x: {podSelector: {}, policyTypes: [Ingress]}
x: {podSelector: {matchLabels: {pod: a}}, ingress: [{ports: [{port: 81}, {port: 81, protocol: UDP}, {port: 81, protocol: SCTP}]}]}`}))
	for _, p := range locked {
		suite.Must(t, p.Err())
	}
	if took := time.Since(begin); took < hold {
		t.Errorf("the lock was held for %v only", took)
	}
	r, err := parseReach("- * > x/*\n+ * > x/a :81")
	suite.Must(t, err)
	suite.Await(t, soon, func() error { return w.wrong(t, r, flows) })
	t.Logf("in force %v after the lock was free", (time.Since(begin) - hold).Round(100*time.Millisecond))
	v.end(t)
}

func without(flows []flow, is func(flow) bool) []flow {
	var list []flow
	for _, f := range flows {
		if !is(f) {
			list = append(list, f)
		}
	}
	return list
}

// TestConntrackOff: IPVS without connection tracking makes every packet look
// new. Somebody switches it off, sluice switches it on.
func TestConntrackOff(t *testing.T) {
	w := enter(t)
	c := policyCase{policies: `x: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}]}]}`, want: `- * > x/*
		- x/* > *
		+ y/* > x/*`}
	w.apply(t, c)
	r, err := parseReach(c.want)
	suite.Must(t, err)
	const name = "net/ipv4/vs/conntrack"
	node1 := w.nodes[0]
	suite.Must(t, node1.Sysctl(name, "0"))
	// What is denied stays so even now.
	var denied []flow
	for _, f := range matrix(false) {
		if !r.allows(f) {
			denied = append(denied, f)
		}
	}
	for i, o := range w.try(t, denied) {
		if o.Err == nil {
			t.Errorf("without connection tracking: %v: %v", denied[i], o.Answer)
		}
	}
	suite.Await(t, soon, func() error {
		return node1.Do(func() error {
			if now, err := os.ReadFile("/proc/sys/" + name); err != nil || strings.TrimSpace(string(now)) != "1" {
				return errors.Join(err, fmt.Errorf("%s is %s", name, now))
			}
			return nil
		})
	})
	suite.Await(t, soon, func() error { return w.wrong(t, r, matrix(false)) })
}
