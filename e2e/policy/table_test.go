package policy

import (
	"net/netip"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// TestTable: there are as many cases as were asked for, each is told from all
// others by its name, is in the words of the API, and leaves a reach.
func TestTable(t *testing.T) {
	const least = 150
	list := cases()
	if len(list) < least {
		t.Errorf("%d cases, want at least %d", len(list), least)
	}
	names := map[string]bool{}
	for _, c := range list {
		if names[c.name] {
			t.Errorf("%s: there are two", c.name)
		}
		names[c.name] = true
		for _, step := range c.steps() {
			if _, err := parseReach(step.want); err != nil {
				t.Errorf("%s: %s: %v", c.name, step.name, err)
			}
			text, err := step.manifest()
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if strings.ContainsAny(text, "$%") {
				t.Errorf("%s: %s: something is not filled in:\n%s", c.name, step.name, text)
			}
			decodes(t, c.name, text)
			for who := range step.pods {
				if placeOf(actor(who)) == (place{}) && len(who) > 1 {
					t.Errorf("%s: %s is no pod", c.name, who)
				}
			}
		}
	}
}

func decodes(t *testing.T, name, text string) {
	t.Helper()
	for doc := range strings.SplitSeq(text, "---\n") {
		if !strings.Contains(doc, "kind: NetworkPolicy\n") {
			continue
		}
		var o networkingv1.NetworkPolicy
		if err := yaml.UnmarshalStrict([]byte(doc), &o); err != nil {
			t.Errorf("%s: %v:\n%s", name, err, doc)
		}
	}
}

// TestReach: the language of expectations means what it says.
func TestReach(t *testing.T) {
	r, err := parseReach(`- * > x/*
		+ y/* > x/a tcp:80,udp v4
		+ x/b > x/a :81
		- x/a > node2,client`)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		flow
		want bool
	}{
		{flow{"y/a", "x/a", "tcp", 80, false, false}, true},
		{flow{"y/a", "x/a", "tcp", 80, true, false}, false},
		{flow{"y/a", "x/a", "tcp", 81, false, true}, false},
		{flow{"y/c", "x/a", "udp", 81, false, true}, true},
		{flow{"y/c", "x/b", "udp", 81, false, true}, false},
		{flow{"x/b", "x/a", "sctp", 81, true, true}, true},
		{flow{"x/b", "x/a", "sctp", 80, true, true}, false},
		{flow{"x/a", "x/a", "sctp", 80, true, true}, true},
		{flow{"x/a", "y/a", "tcp", 80, false, false}, true},
		{flow{"x/a", "node2", "tcp", 80, false, false}, false},
		{flow{"x/a", "node1", "tcp", 80, false, false}, true},
		{flow{"node1", "x/a", "tcp", 80, false, false}, true},
		{flow{"node2", "x/a", "tcp", 80, false, false}, false},
		{flow{"client", "x/a", "tcp", 80, false, false}, false},
		{flow{"x/a", "client", "tcp", 80, false, false}, false},
	} {
		if got := r.allows(c.flow); got != c.want {
			t.Errorf("%v: %v, want %v", c.flow, got, c.want)
		}
	}
	for _, bad := range []string{"* > x/a", "- * x/a", "- q/a > x/a", "- * > x/a icmp", "- * > x/a tcp:82", "- @3 > x/a"} {
		if _, err := parseReach(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// TestLayout: pods of one namespace are on both nodes, all addresses differ.
func TestLayout(t *testing.T) {
	seen := map[netip.Addr]bool{}
	for _, p := range places() {
		own, service := p.addrs(), vips(p.pod)
		for _, a := range append(own[:], service[:]...) {
			if seen[a] {
				t.Errorf("%s: %s is another's too", p.pod, a)
			}
			seen[a] = true
		}
	}
	for _, namespace := range []string{"x", "y", "z"} {
		on := map[int]int{}
		for _, name := range []string{"a", "b", "c"} {
			on[placeOf(actor(namespace+"/"+name)).node]++
		}
		if len(on) != 2 {
			t.Errorf("namespace %s is on %d nodes", namespace, len(on))
		}
	}
	if got, want := len(matrix(false)), 9*9*3*2*2*2; got != want {
		t.Errorf("the matrix has %d connections, want %d", got, want)
	}
}
