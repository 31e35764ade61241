package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/internal/model"
)

// TestSetOverItsSize: the policies that name it are told, and only they.
func TestSetOverItsSize(t *testing.T) {
	p := NewPlanner(Config{Families: []model.Family{model.IPv4, model.IPv6}, Node: "n1"})
	p.limit = 3
	name := func(n string) model.Name { return model.Name{Namespace: "x", Name: n} }
	put := func(fact any) { p.Apply(model.Event{Put: fact}) }
	pod := func(n int, labels map[string]string) model.Pod {
		return model.Pod{Name: name(fmt.Sprint(n)), UID: "1", Node: "n1", Labels: labels, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})}}
	}
	app := map[string]string{"app": "a"}
	peer := &model.Selector{Requirements: []model.Requirement{{Key: "app", Op: model.Exists}}}
	rules := func(peer *model.Selector) []model.PolicyRule {
		return []model.PolicyRule{{AnyPort: true, Peers: []model.PolicyPeer{{Pods: peer}}}}
	}
	put(model.NetworkPolicy{Name: name("many"), Pods: *peer, Ingress: true, IngressRules: rules(peer)})
	put(model.NetworkPolicy{Name: name("none"), Pods: model.Selector{Requirements: []model.Requirement{{Key: "app", Op: model.DoesNotExist}}}, Ingress: true})
	put(pod(9, nil))
	for n := range 3 {
		put(pod(n, app))
	}
	stands := func(Owner) bool { return true }
	take := func() {
		for range 3 {
			p.Take(time.Unix(1000, 0), stands)
		}
	}
	take()
	if got := p.Problems(); len(got) != 0 {
		t.Errorf("a set that is just full: %+v", got)
	}
	put(pod(3, app))
	take()
	got := p.Problems()
	// There are more pods under the class, and in its part of the dispatch, too.
	if len(got) != 1 || got[0].Object != name("many") || got[0].Reason != reasonSetFull || !strings.Contains(got[0].Message, "means 4 IPv4 addresses, and a set holds 3") {
		t.Errorf("a set over its size: %+v", got)
	}
	p.Apply(model.Event{Delete: model.PodKey{Name: name("1"), UID: "1"}})
	take()
	if got := p.Problems(); len(got) != 0 {
		t.Errorf("a set that is just full again: %+v", got)
	}
	for n := range 4 {
		p.Apply(model.Event{Delete: model.PodKey{Name: name(fmt.Sprint(n)), UID: "1"}})
	}
	p.Apply(model.Event{Delete: model.PodKey{Name: name("9"), UID: "1"}})
	take()
	if len(p.counts)+len(p.over)+len(p.pods)+len(p.holders)+len(p.sets)+len(p.classes)+len(p.unsettled) > 0 {
		t.Errorf("of pods that are gone something is kept: %v, %v, %d, %d, %d, %d, %d", p.counts, p.over, len(p.pods), len(p.holders), len(p.sets), len(p.classes), len(p.unsettled))
	}
}

// TestEncodingsNeverRunTogether: no sequence of fields looks like another.
func TestEncodingsNeverRunTogether(t *testing.T) {
	seen := map[string]string{}
	for name, e := range map[string]*encoding{
		"a, bc": new(encoding).text("a").text("bc"), "ab, c": new(encoding).text("ab").text("c"), "abc": new(encoding).text("abc"),
		"{a, bc}": new(encoding).set([]string{"a", "bc"}), "{ab, c}": new(encoding).set([]string{"ab", "c"}),
		"{}, {a}": new(encoding).set(nil).set([]string{"a"}), "{a}, {}": new(encoding).set([]string{"a"}).set(nil), "1, a": new(encoding).number(1).text("a"),
	} {
		if other, is := seen[e.hash()]; is {
			t.Errorf("%s and %s are called %s", name, other, e.hash())
		}
		seen[e.hash()] = name
	}
	if one, other := new(encoding).set([]string{"a", "b", "a"}).hash(), new(encoding).set([]string{"b", "a"}).hash(); one != other {
		t.Errorf("a set is called %s and %s", one, other)
	}
}
