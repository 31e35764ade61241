package policy_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/policy"
)

// podD is a fourth pod of a namespace of the fixture.
func podD(ns string, fns ...func(*model.Pod)) model.Pod {
	return podOf(ns+"/c", append([]func(*model.Pod){func(p *model.Pod) {
		p.Name.Name, p.UID, p.Labels["pod"] = "d", "uid of d", "d"
		p.Addrs = addrList("10.0.9.9 fd00::9:9")
	}}, fns...)...)
}

// TestOneEventMovesOneOwner: what happens to a pod changes which sets it is in
// and nothing else.
func TestOneEventMovesOneOwner(t *testing.T) {
	allow := policyOf("x/in", "all", in(rule("ns:ns=y pod=a; ns:ns=z", "TCP 80; TCP serve-80-tcp")))
	labelled := func(p *model.Pod) { p.Labels["pod"] = "a" }
	moved := func(p *model.Pod) { p.Addrs = addrList("10.0.2.9 fd00::2:9") }
	done := func(p *model.Pod) { p.Done = true }
	another := func(p *model.Pod) { p.UID = "2" }
	key := func(name, uid string) model.PodKey { return model.PodKey{Name: nameOf(name), UID: uid} }
	for _, c := range []struct {
		name   string
		events []any
		want   []string
	}{
		{"a peer's pod comes", []any{podD("z", moved)}, []string{"Pod z/d"}},
		{"a pod comes that no peer means, but for its ports", []any{podD("y", moved)}, []string{"Pod y/d"}},
		{"a pod comes without ports", []any{podD("y", moved, func(p *model.Pod) { p.Ports = nil })}, nil},
		{"a pod comes without addresses", []any{podD("z", func(p *model.Pod) { p.Addrs = nil })}, nil},
		{"a peer's pod goes", []any{key("y/a", "uid of y/a")}, []string{"Pod y/a"}},
		{"an old pod of the name goes", []any{key("y/a", "uid of old")}, nil},
		{"labels", []any{podOf("y/b", labelled)}, []string{"Pod y/b"}},
		{"the same again", []any{podOf("y/a")}, nil},
		{"an address", []any{podOf("y/a", moved)}, []string{"Pod y/a"}},
		{"done", []any{podOf("y/a", done)}, []string{"Pod y/a"}},
		{"another pod of the name, told first", []any{podOf("y/a", another, moved), key("y/a", "uid of y/a")}, []string{"Pod y/a"}},
		{"another pod of the name, told last", []any{key("y/a", "uid of y/a"), podOf("y/a", another, moved)}, []string{"Pod y/a"}},
		{"another pod of name and address", []any{key("y/a", "uid of y/a"), podOf("y/a", another)}, nil},
		{"an address is given on", []any{podOf("y/a", done), podOf("y/c", func(p *model.Pod) { p.Addrs = podOf("y/a").Addrs })}, []string{"Pod y/a", "Pod y/c"}},
		{"a pod of this node comes", []any{podD("x", moved)}, []string{"Pod x/d"}},
		{"a pod of this node goes", []any{key("x/a", "uid of x/a")}, []string{"Pod x/a"}},
		{"a namespace's labels", []any{model.Namespace{Name: "z"}}, []string{"Pod z/a", "Pod z/b", "Pod z/c"}},
		{"a namespace's labels that nobody asks for", []any{model.Namespace{Name: "y", Labels: map[string]string{"ns": "y", "more": ""}}}, nil},
		{"a policy of pods elsewhere", []any{policyOf("y/p", "all", in(rule("ns:all", "")))}, nil},
		{"a policy that says nothing new", []any{policyOf("x/again", "pod=b", in(allow.IngressRules[0]))}, nil},
		{"another node", []any{model.Node{Name: "n2", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.2.0/24")}}}, nil},
		{"this node's addresses", []any{model.LocalAddrs{Addrs: addrList("192.168.0.1 192.168.0.7")}}, []string{"Policy "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := onNode(t, allow)
			before := w.kernel.Count().Execs
			w.Takes = nil
			w.tell(c.events...)
			w.settle(t)
			if got := ownersOf(w.Takes); !slices.Equal(got, c.want) {
				t.Errorf("wishes of %v, want %v", got, c.want)
			}
			if n := w.kernel.Count().Execs - before; n != 0 {
				t.Errorf("%d programs were started", n)
			}
			if wishes := w.take(); len(wishes) > 0 {
				t.Errorf("nothing has happened, and %v wish something", ownersOf(wishes))
			}
		})
	}
}

// TestOnlyWhatLocalPodsNeed is programmed.
func TestOnlyWhatLocalPodsNeed(t *testing.T) {
	w := onNode(t, policyOf("y/p", "all", types("Ingress", "Egress"), in(rule("ns:all", ""))))
	if got := ownersOf(w.Takes); !slices.Equal(got, []string{"Policy ", "PolicyRefusal "}) {
		t.Errorf("wishes of %v for policies that select nobody here", got)
	}
	w.tell(policyOf("x/p", "pod=a", in(rule("ns:ns=y pod=b", ""))))
	w.settle(t)
	if got := w.planner.Status(); got != (policy.Status{Policies: 1, LocalPods: 3, IsolatedIngress: 1, Classes: 1, Sets: 1}) {
		t.Errorf("status %+v", got)
	}
	w.tell(model.NetworkPolicyKey{Name: nameOf("x/p")})
	w.settle(t)
	if got := w.planner.Status(); got != (policy.Status{LocalPods: 3}) {
		t.Errorf("status %+v", got)
	}
	if len(w.mine()) != 2 {
		t.Errorf("wishes are left: %v", slices.Collect(maps.Keys(w.mine())))
	}
}

// TestWishesInOrder: each can be written when those before it have been, and
// whoever writes them may begin after any of them.
func TestWishesInOrder(t *testing.T) {
	w := newPlanned()
	w.tell(fixtureFacts()...)
	w.tell(policyOf("x/p", "all", in(rule("ns:ns=y", ""))), policyOf("y/p", "all", out(rule("ns:ns=x", "80"))))
	kernel := map[netfilter.Key]netfilter.Spec{}
	for _, wish := range w.take() {
		maps.Copy(kernel, wish.Keys)
		for k, spec := range wish.Keys {
			words := strings.Fields(spec.Rules)
			for i, word := range words[:max(0, len(words)-1)] {
				to := netfilter.ChainKey(k.Family, k.Table, words[i+1])
				if _, there := kernel[to]; (word == "-j" || word == "-g") && strings.HasPrefix(to.Name, netfilter.Prefix) && !there {
					t.Errorf("%s of %v leads to %s, which comes later", k, wish.Owner, to.Name)
				}
			}
		}
	}
}

// TestSameMeaningSameClass: what policies are called, and how their rules are
// divided, makes no class of its own.
func TestSameMeaningSameClass(t *testing.T) {
	for _, c := range []struct {
		name       string
		one, other []model.NetworkPolicy
		same       bool
	}{
		{"names", []model.NetworkPolicy{policyOf("x/p", "all", in(rule("pod=a", "TCP 80")))}, []model.NetworkPolicy{policyOf("x/q", "pod=a", in(rule("pod=a", "TCP 80")))}, true},
		{"two policies", []model.NetworkPolicy{policyOf("x/p", "all", in(rule("pod=a", "TCP 80")), in(rule("pod=b", "")))},
			[]model.NetworkPolicy{policyOf("x/q", "all", in(rule("pod=b", ""))), policyOf("x/r", "all", in(rule("pod=a", "TCP 80")))}, true},
		{"order and repetition", []model.NetworkPolicy{policyOf("x/p", "all", in(rule("pod=a; pod=b; 10.0.0.0/8; 11.0.0.0/8", "TCP 80; UDP 53")))},
			[]model.NetworkPolicy{policyOf("x/p", "all", in(rule("11.0.0.0/8; pod=b; pod=a; 10.0.0.0/8; pod=a", "UDP 53; TCP 80")), in(rule("unknown", "")))}, true},
		{"ports that adjoin", []model.NetworkPolicy{policyOf("x/p", "all", in(rule("", "TCP 80-90")))},
			[]model.NetworkPolicy{policyOf("x/p", "all", in(rule("", "TCP 85-90; TCP 80-84")), in(rule("", "TCP 82")))}, true},
		{"ports that all allow", []model.NetworkPolicy{policyOf("x/p", "all", in(rule("", "UDP")))},
			[]model.NetworkPolicy{policyOf("x/p", "all", in(rule("", "UDP 80; UDP; UDP web")))}, true},
		{"everything", []model.NetworkPolicy{policyOf("x/p", "all", in(rule("", "")))},
			[]model.NetworkPolicy{policyOf("x/p", "all", in(rule("pod=a", "TCP 80")), in(rule("", "")))}, true},
		{"values", []model.NetworkPolicy{policyOf("x/p", "all", in(rule("podin(a|b),ns", "")))}, []model.NetworkPolicy{policyOf("x/p", "all", in(rule("ns,podin(b|a)", "")))}, true},
		{"namespaces", []model.NetworkPolicy{policyOf("x/p", "all", in(rule("pod=a", "")))}, []model.NetworkPolicy{policyOf("x/p", "all", in(rule("ns:all pod=a", "")))}, false},
		{"protocols", []model.NetworkPolicy{policyOf("x/p", "all", in(rule("", "TCP 80")))}, []model.NetworkPolicy{policyOf("x/p", "all", in(rule("", "UDP 80")))}, false},
		{"an exception", []model.NetworkPolicy{policyOf("x/p", "all", in(rule("10.0.0.0/8", "")))}, []model.NetworkPolicy{policyOf("x/p", "all", in(rule("10.0.0.0/8 except 10.1.0.0/16", "")))}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			classes := func(nps []model.NetworkPolicy) string {
				w := onNode(t)
				for _, np := range nps {
					w.tell(np)
				}
				w.settle(t)
				return chainsOf(w)
			}
			if one, other := classes(c.one), classes(c.other); (one == other) != c.same {
				t.Errorf("classes %s and %s: same is not %v", one, other, c.same)
			}
		})
	}
}

// TestOrderOfFacts: the same facts, told in any order, are wished alike.
func TestOrderOfFacts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		facts := slices.DeleteFunc(worldFacts(t), func(fact any) bool {
			p, is := fact.(model.Pod)
			return is && p.Name.Namespace == "z" // an address is one pod's
		})
		facts = slices.Concat(facts[:3], lastOf(facts[3:])) // an object is told once
		w := newPlanned()
		w.tell(rapid.Permutation(facts).Draw(t, "order")...)
		w.settle(t)
		same(t, w, facts)
	})
}

// TestRestartWritesNothing: who starts with the same facts wishes just what is
// there, and at once.
func TestRestartWritesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		facts := worldFacts(t)
		w := newPlanned()
		for _, fact := range facts {
			w.tell(fact)
			w.take()
		}
		w.settle(t)
		again := newPlanned()
		again.tell(facts...)
		wishes, _ := again.planner.Take(again.now, func(policy.Owner) bool { return false })
		for _, wish := range wishes {
			again.wish(wish)
		}
		if c := difference(again.union(), w.have); len(c.Puts)+len(c.Dels) > 0 {
			t.Fatalf("the first wishes differ from what is there: %+v", c)
		}
	})
}

// steps is a slow world at rest, whose kernel does what a test says.
func steps(t *testing.T, facts ...any) *slow {
	t.Helper()
	w := newPlanned()
	w.tell(fixtureFacts()...)
	w.tell(facts...)
	s := newSlow(w)
	s.settle(t)
	return s
}

// of are those behind whose kind it is.
func (s *slow) of(kind string) []policy.Owner {
	return slices.DeleteFunc(s.behind(), func(o policy.Owner) bool { return o.Kind != kind })
}

func (s *slow) until(t *testing.T, stage string, probes ...string) {
	t.Helper()
	s.take()
	s.see(t, probes...)
	if t.Failed() {
		t.Fatalf("at: %s\nbehind: %v", stage, s.behind())
	}
}

// TestPodLeavesOldRulesForRulesThatStand, filled: what old and new allow is
// allowed all the time, what both deny never is.
func TestPodLeavesOldRulesForRulesThatStand(t *testing.T) {
	s := steps(t, policyOf("x/p", "pod=a", in(rule("ns:ns=y", "TCP 80"))))
	both := []string{"y/a > x/a TCP 80: yes", "z/a > x/a TCP 80: no"}
	s.until(t, "before", append(both, "y/b > x/a TCP 80: yes")...)
	s.tell(policyOf("x/p", "pod=a", in(rule("ns:ns=y pod=a", "TCP 80"))))
	s.until(t, "wished", both...)
	s.put(s.of("PolicyClass")...)
	s.until(t, "the class stands", both...)
	s.put(s.of("Policy")...)
	s.until(t, "it is reached", append(both, "y/b > x/a TCP 80: yes")...)
	if got := s.of("Pod"); len(got) != 1 || got[0].Name != nameOf("y/a") {
		t.Fatalf("before the peers are in their set, %v wish something new", got)
	}
	s.put(s.of("Pod")...)
	s.until(t, "the peers are in their set", append(both, "y/b > x/a TCP 80: yes")...)
	s.put(s.of("Pod")...)
	s.until(t, "the pod is under both", both...)
	s.drop(s.of("Pod")...)
	s.until(t, "the pod has left the old rules", append(both, "y/b > x/a TCP 80: no")...)
	s.put(s.behind()...)
	s.until(t, "nothing leads to the old rules", both...)
	s.settle(t)
	s.until(t, "after", append(both, "y/b > x/a TCP 80: no")...)
	if got := s.planner.Status().Classes; got != 1 {
		t.Errorf("%d classes are left", got)
	}
}

// TestNewPodWaitsCutOff for rules that do not stand yet. One that was there
// before anything isolated it waits as it was.
func TestNewPodWaitsCutOff(t *testing.T) {
	s := steps(t)
	s.tell(policyOf("x/p", "all", in(rule("ns:ns=y", ""))), podD("x", func(p *model.Pod) { p.Addrs = addrList("10.0.1.9") }))
	s.take()
	s.put(s.of("Pod")...)
	s.until(t, "wished", "y/a > 10.0.1.9 TCP 80: no", "y/a > x/a TCP 80: yes", "z/a > x/a TCP 80: yes", "10.0.1.9 > y/a TCP 80: yes")
	s.settle(t)
	s.until(t, "stands", "y/a > 10.0.1.9 TCP 80: yes", "z/a > 10.0.1.9 TCP 80: no", "y/a > x/a TCP 80: yes", "z/a > x/a TCP 80: no")
	// The same name, another pod: the rules of the one before are not its own.
	s.tell(policyOf("x/q", "tier", in(rule("ns:ns=z", ""))), podOf("x/a", func(p *model.Pod) { p.UID, p.Labels["tier"] = "2", "" }))
	s.take()
	s.put(s.of("Pod")...)
	s.drop(s.of("Pod")...)
	s.until(t, "another pod", "y/a > x/a TCP 80: no", "z/a > x/a TCP 80: no", "y/a > x/b TCP 80: yes")
	s.settle(t)
	s.until(t, "it stands", "y/a > x/a TCP 80: yes", "z/a > x/a TCP 80: yes", "z/a > x/b TCP 80: no")
}

// blockSets are what some kernel does not take: rules that name one fail, and what
// leads to these.
func blockSets(k netfilter.Key) bool { return strings.HasPrefix(k.Name, "SLUICE-NPB-") }

// TestRulesThatDoNotCome: after two seconds their pods are cut off, and others'
// rules are written without them. When they come they count.
func TestRulesThatDoNotCome(t *testing.T) {
	s := steps(t)
	s.refuses = blockSets
	s.tell(policyOf("x/bad", "pod=a", in(rule("10.0.0.0/8", ""))))
	s.take()
	if want := s.now.Add(2 * time.Second); !s.again.Equal(want) {
		t.Fatalf("again at %s, want %s", s.again, want)
	}
	s.now = s.now.Add(2*time.Second - 1)
	s.until(t, "waiting", "203.0.113.1 > x/a TCP 80: yes")
	if p := s.planner.Problems(); len(p) != 0 {
		t.Fatalf("problems %v", p)
	}
	s.now = s.now.Add(1)
	s.take()
	s.put(s.behind()...)
	s.until(t, "too late", "203.0.113.1 > x/a TCP 80: no", "10.0.2.1 > x/a TCP 80: no", "x/a > 203.0.113.1 TCP 80: yes", "203.0.113.1 > x/b TCP 80: yes")
	p := s.planner.Problems()
	if len(p) != 1 || p[0].Kind != "NetworkPolicy" || p[0].Object != nameOf("x/bad") {
		t.Fatalf("problems %v", p)
	}
	s.tell(policyOf("x/good", "pod=b", in(rule("ns:ns=y", ""))))
	for range 4 {
		s.take()
		s.put(s.behind()...)
	}
	s.until(t, "others", "203.0.113.1 > x/b TCP 80: no", "y/a > x/b TCP 80: yes", "203.0.113.1 > x/a TCP 80: no")
	s.refuses = func(netfilter.Key) bool { return false }
	s.settle(t)
	s.until(t, "come at last", "203.0.113.1 > x/a TCP 80: no", "10.0.2.1 > x/a TCP 80: yes")
	if p := s.planner.Problems(); len(p) != 0 {
		t.Errorf("problems %v", p)
	}
}

// TestASlowKernel: while nothing is written, because others have it locked or a
// start reads for long what a former run has left, nobody is cut off for it.
func TestASlowKernel(t *testing.T) {
	s := steps(t)
	s.tell(policyOf("x/p", "all", in(rule("ns:ns=y", ""))))
	s.settle(t)
	s.locked = true
	s.tell(policyOf("x/p", "all", in(rule("ns:ns=y", "")), in(rule("ns:ns=z", ""))))
	for range 100 {
		s.take()
		s.until(t, "locked", "y/a > x/a TCP 80: yes", "z/a > x/a TCP 80: no")
		if !s.again.After(s.now) {
			t.Fatal("nobody will ask again")
		}
		s.now = s.again
	}
	if p := s.planner.Problems(); len(p) != 0 {
		t.Errorf("problems %v", p)
	}
	s.locked = false
	s.settle(t)
	s.until(t, "free", "y/a > x/a TCP 80: yes", "z/a > x/a TCP 80: yes")
}

// TestRulesThatDoNotComeAtTheStart: nor do they hurt others then.
func TestRulesThatDoNotComeAtTheStart(t *testing.T) {
	w := newPlanned()
	w.tell(fixtureFacts()...)
	w.tell(policyOf("x/bad", "pod=a", in(rule("10.0.0.0/8", ""))), policyOf("x/good", "pod=b", in(rule("ns:ns=y", ""))))
	s := newSlow(w)
	s.refuses = blockSets
	for range 6 {
		s.take()
		s.put(s.behind()...)
		s.drop(s.behind()...)
		s.now = s.now.Add(time.Second)
	}
	s.until(t, "too late", "203.0.113.1 > x/a TCP 80: no", "203.0.113.1 > x/b TCP 80: no", "y/a > x/b TCP 80: yes")
}

// TestRulesAreTakenUpAgain before they are gone.
func TestRulesAreTakenUpAgain(t *testing.T) {
	np := policyOf("x/p", "pod=a", in(rule("ns:ns=y", "TCP 80")))
	for stop := range 8 {
		s := steps(t, np)
		s.tell(model.NetworkPolicyKey{Name: np.Name})
		for range stop {
			s.take()
			s.put(s.behind()...)
			if stop%2 == 0 {
				s.drop(s.behind()...)
			}
		}
		s.tell(np)
		s.settle(t)
		s.until(t, fmt.Sprint("taken up after ", stop), "y/a > x/a TCP 80: yes", "z/a > x/a TCP 80: no")
		same(t, s.planned, append(fixtureFacts(), np))
	}
}

// TestSetsOutliveTheirMembers: a set that went while pods were on their way out
// of it, and came again, would be thought to hold them.
func TestSetsOutliveTheirMembers(t *testing.T) {
	np := policyOf("x/p", "pod=a", in(rule("ns:ns=y", "TCP 80")))
	s := steps(t, np)
	s.tell(model.NetworkPolicyKey{Name: np.Name})
	for range 5 {
		s.take()
		s.put(s.behind()...)
		s.drop(s.of("PolicyClass")...)
		s.drop(s.of("Policy")...)
	}
	s.tell(np)
	s.settle(t)
	s.see(t, "y/a > x/a TCP 80: yes", "z/a > x/a TCP 80: no")
	same(t, s.planned, append(fixtureFacts(), np))
}

// crowded is a node with many policies in a cluster with many pods.
func crowded(policies, pods int) *planned {
	w := newPlanned()
	for n := range policies {
		ns := fmt.Sprintf("ns%d", n%50)
		w.tell(policyOf(fmt.Sprintf("%s/p%d", ns, n), fmt.Sprintf("app=%d", n/50%10), in(rule(fmt.Sprintf("app=%d; ns:ns=%d app", n%7, n), fmt.Sprintf("TCP %d", 1000+n)))))
	}
	for n := range pods {
		w.tell(crowdedPod(n))
	}
	w.take()
	w.take()
	w.Takes = nil
	return w
}

// crowdedPod is one of many, of which 500 in 25,000 are on this node.
func crowdedPod(n int) model.Pod {
	return model.Pod{
		Name: nameOf(fmt.Sprintf("ns%d/pod%d", n%50, n)), UID: "1", Node: fmt.Sprintf("n%d", 1+n/500%50), Labels: map[string]string{"app": fmt.Sprint(n / 50 % 10)},
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)})},
	}
}

// TestPodAmongMany: with 500 policies and 10,000 pods one that comes or goes is
// one wish, and no rule.
func TestPodAmongMany(t *testing.T) {
	w := crowded(500, 10_000)
	if s := w.planner.Status(); s.LocalPods != 500 || s.Classes != 500 || s.Policies != 500 {
		t.Fatalf("%+v: not a crowd", s)
	}
	w.write(t)
	for _, fact := range []any{crowdedPod(10_001), crowdedPod(25_001), model.PodKey{Name: crowdedPod(10_001).Name, UID: "1"}} {
		before := w.kernel.Count()
		w.tell(fact)
		wishes := w.take()
		if len(wishes) != 1 || wishes[0].Owner.Kind != "Pod" {
			t.Errorf("%v: wishes of %v", fact, ownersOf(wishes))
		}
		w.write(t)
		if after := w.kernel.Count(); after.Execs != before.Execs {
			t.Errorf("%v: %d programs were started", fact, after.Execs-before.Execs)
		}
		if wishes := w.take(); len(wishes) > 0 {
			t.Errorf("%v: and then wishes of %v", fact, ownersOf(wishes))
		}
	}
}

// BenchmarkPod is a pod that comes and goes, by the size of the cluster.
func BenchmarkPod(b *testing.B) {
	for _, size := range [][2]int{{500, 1000}, {500, 10_000}, {500, 40_000}} {
		for _, where := range []string{"here", "elsewhere"} {
			b.Run(fmt.Sprintf("%d policies, %d pods, %s", size[0], size[1], where), func(b *testing.B) {
				w := crowded(size[0], size[1])
				pod := crowdedPod(50_000)
				if where == "elsewhere" {
					pod.Node = "n7"
				}
				stands := func(policy.Owner) bool { return true }
				for b.Loop() {
					w.planner.Apply(model.Event{Put: pod})
					w.planner.Take(w.now, stands)
					w.planner.Apply(model.Event{Delete: model.PodKey{Name: pod.Name, UID: pod.UID}})
					w.planner.Take(w.now, stands)
				}
			})
		}
	}
}

// BenchmarkTakeNothing is what a call costs when nothing has changed.
func BenchmarkTakeNothing(b *testing.B) {
	w := crowded(500, 10_000)
	stands := func(policy.Owner) bool { return true }
	for b.Loop() {
		w.planner.Take(w.now, stands)
	}
}

// BenchmarkStart is the first Take of a node, with its facts.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		crowded(1000, 10_000)
	}
}

// BenchmarkPolicy is a policy that changes what it allows, with a set that comes
// and one that goes.
func BenchmarkPolicy(b *testing.B) {
	w := crowded(500, 10_000)
	stands := func(policy.Owner) bool { return true }
	n := 0
	for b.Loop() {
		n++
		w.planner.Apply(model.Event{Put: policyOf("ns1/p1", "app=1", in(rule(fmt.Sprintf("ns:all app=%d", n%10), "TCP 80")))})
		for range 4 {
			w.planner.Take(w.now, stands)
		}
	}
}
