package policy_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
	"sluice.dev/sluice/policy"
)

// slow is a world whose kernel comes to hold what owners wish one owner at a
// time, in any order: first what it added, some time later without what it
// wishes no more.
type slow struct {
	*planned
	held    map[policy.Owner]map[netfilter.Key]netfilter.Spec
	refuses func(netfilter.Key) bool // what the kernel does not take
	again   time.Time                // when the planner has something to do by itself
	locked  bool                     // the kernel is written to by nobody
}

func newSlow(w *planned) *slow {
	return &slow{planned: w, held: maps.Clone(w.wished), refuses: func(netfilter.Key) bool { return false }}
}

// put writes what owners added.
func (s *slow) put(owners ...policy.Owner) {
	for _, o := range owners {
		s.hold(o)
	}
	s.sync()
}

func (s *slow) hold(o policy.Owner) {
	both := maps.Clone(s.held[o])
	if both == nil {
		both = map[netfilter.Key]netfilter.Spec{}
	}
	maps.Copy(both, s.wished[o])
	maps.DeleteFunc(both, func(k netfilter.Key, _ netfilter.Spec) bool { return s.refuses(k) })
	s.held[o] = both
}

// drop takes out what owners do not wish any more, if what they added stands.
func (s *slow) drop(owners ...policy.Owner) {
	for _, o := range owners {
		if s.stands(o) {
			s.held[o] = s.wished[o]
		}
	}
	s.sync()
}

// sync writes what the kernel takes; the rest stays as it was.
func (s *slow) sync() {
	want := map[netfilter.Key]netfilter.Spec{}
	for _, keys := range s.held {
		maps.Copy(want, keys)
	}
	errs := s.target.Apply(context.Background(), difference(want, s.have))
	have := map[netfilter.Key]netfilter.Spec{}
	for k, v := range s.have {
		if _, wanted := want[k]; wanted || errs[k] != nil {
			have[k] = v
		}
	}
	for k, v := range want {
		if errs[k] == nil {
			have[k] = v
		}
	}
	s.have = have
}

func (s *slow) stands(o policy.Owner) bool {
	for k, v := range s.wished[o] {
		if is, there := s.have[k]; !there || is != v {
			return false
		}
	}
	return true
}

func (s *slow) take() []policy.Wish {
	if !s.locked {
		s.planner.Written(s.now)
	}
	wishes, again := s.planner.Take(s.now, s.stands)
	for _, wish := range wishes {
		s.wish(wish)
	}
	s.again = again
	if !again.IsZero() && !again.After(s.now) {
		panic("the planner wants to be called again before now")
	}
	return wishes
}

// owners are all that wish or hold something, in order.
func (s *slow) owners() []policy.Owner {
	all := map[policy.Owner]bool{}
	for o := range s.wished {
		all[o] = true
	}
	for o := range s.held {
		all[o] = true
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b policy.Owner) int {
		return slices.Compare([]string{a.Kind, a.Name.String()}, []string{b.Kind, b.Name.String()})
	})
}

// behind are those whose wishes have not come true.
func (s *slow) behind() []policy.Owner {
	return slices.DeleteFunc(s.owners(), func(o policy.Owner) bool { return maps.Equal(s.held[o], s.wished[o]) && s.stands(o) })
}

// settle has everything come true.
func (s *slow) settle(t rapid.TB) {
	t.Helper()
	for range 50 {
		quiet := len(s.take()) == 0
		behind := s.behind()
		if quiet && len(behind) == 0 {
			return
		}
		s.put(behind...)
		s.drop(behind...)
	}
	t.Fatalf("never at rest: %v", s.behind())
}

// history is what was told, and the facts after each event since everything
// had come true.
type history struct {
	told     []any
	versions []*policy.Facts
}

func (h *history) add(fact any) {
	h.told = append(h.told, fact)
	h.versions = append(h.versions, h.now())
}

func (h *history) now() *policy.Facts {
	f := policy.NewFacts("n1")
	tell(f, h.told...)
	return f
}

// all is the verdict that holds in all versions, if one does: an end that denies
// in all, or two that allow in all. (One end may let go before the other takes
// hold, as on two nodes.) The addresses have to be the same pods' in all.
func (h *history) all(p policy.Packet) (allowed, unanimous bool) {
	always, never := [2]bool{true, true}, [2]bool{true, true}
	first := h.versions[0]
	for _, v := range h.versions {
		d := v.Allows(p)
		for side, end := range [2]struct {
			at      netip.Addr
			allowed bool
		}{{p.Src, d.Egress.Allowed}, {p.Dst, d.Ingress.Allowed}} {
			was, _ := first.PodAt(end.at)
			is, _ := v.PodAt(end.at)
			here := v.LocalPod(end.at)
			if was.Name != is.Name || was.UID != is.UID || was.Node != is.Node {
				return false, false
			}
			always[side] = always[side] && (end.allowed || !here)
			never[side] = never[side] && !end.allowed && here
		}
	}
	return always[0] && always[1], always[0] && always[1] || never[0] || never[1]
}

func worldEvent(t *rapid.T) any {
	switch draw(t, "event", "pod", "pod", "pod", "pod gone", "policy", "policy", "policy", "policy gone", "namespace") {
	case "pod":
		return worldPod(t, rapid.IntRange(1, worldPods).Draw(t, "n"))
	case "pod gone":
		p := worldPod(t, rapid.IntRange(1, worldPods).Draw(t, "n"))
		return model.PodKey{Name: p.Name, UID: p.UID}
	case "policy":
		return worldPolicy(t, "p", "q", "r", "s")
	case "policy gone":
		return model.NetworkPolicyKey{Name: worldPolicy(t, "p", "q", "r", "s").Name}
	}
	return worldNamespace(t)
}

// outsider is in no block but those that hold everything.
func outsider(a netip.Addr) netip.Addr {
	if a.Is6() {
		return netip.MustParseAddr("2001:db8:77::1")
	}
	return netip.MustParseAddr("198.51.100.77")
}

// steady checks that the kernel does not waver. One event after the world was at
// rest: what is allowed before and after it is allowed at all times, and what is
// denied before and after it is denied. Several events: the rules of one and the
// labels of another may meet, but no pod that is isolated after each of them is
// ever open.
func (s *slow) steady(t *rapid.T, h *history, did string) {
	check := func(p policy.Packet, on way) {
		want, unanimous := h.all(p)
		if !unanimous {
			return
		}
		if got := s.trace(p, on); passes(got) != want {
			t.Fatalf("%s: %v %s: allowed is %v, before and after is %v\n%s\n%s", did, p, on, passes(got), want, got, s.kernel.Dump())
		}
	}
	ends := endsOf(h.told)
	if len(h.versions) <= 2 {
		for range 8 {
			if p, on := anyProbe(t, ends); on == forwarded || on == toNode || p.Src != p.Dst {
				check(p, on)
			}
		}
	}
	for _, a := range localEnds(h.versions[0], ends) {
		icmp := netfiltertest.ICMP
		if a.Is6() {
			icmp = netfiltertest.ICMPv6
		}
		for _, p := range []policy.Packet{{Src: a, Dst: outsider(a), Protocol: icmp}, {Src: outsider(a), Dst: a, Protocol: icmp}} {
			if allowed, unanimous := h.all(p); unanimous && !allowed {
				check(p, forwarded)
			}
		}
	}
}

// localEnds are the addresses of pods of this node, each once.
func localEnds(f *policy.Facts, ends []netip.Addr) []netip.Addr {
	local := slices.DeleteFunc(slices.Clone(ends), func(a netip.Addr) bool { return !f.LocalPod(a) })
	slices.SortFunc(local, netip.Addr.Compare)
	return slices.Compact(local)
}

func TestMovesNeverWaver(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { movesNeverWaver(t, worldFacts(t), worldEvent) })
}

// TestPolicyChangesNeverWaver: two pods of this node, whose policies change all
// the time.
func TestPolicyChangesNeverWaver(t *testing.T) {
	rapid.Check(t, policyChangesNeverWaver)
}

func policyChangesNeverWaver(t *rapid.T) {
	facts := []any{model.LocalAddrs{Addrs: addrList("192.168.0.1 fd00:a::1")}}
	for n := 1; n <= 3; n++ {
		facts = append(facts, model.Pod{
			Name: nameOf(fmt.Sprintf("x/p%d", n)), UID: "1", Node: fmt.Sprintf("n%d", 1+n/3), Addrs: worldAddrs(1+n/3, n)[:1],
			Labels: map[string]string{"app": draw(t, "app", "a", "b")},
		})
	}
	change := func(t *rapid.T) any {
		np := policyOf("x/"+draw(t, "name", "p", "q"), "all", types("Ingress", "Egress"))
		for range rapid.IntRange(0, 2).Draw(t, "rules") {
			r := rule(draw(t, "peer", "app=a", "all", "app=b", "10.1.1.0/24"), draw(t, "port", "", "TCP 80"))
			np.IngressRules, np.EgressRules = append(np.IngressRules, r), append(np.EgressRules, r)
		}
		return np
	}
	facts = append(facts, change(t))
	movesNeverWaver(t, facts, change)
}

func FuzzMovesNeverWaver(f *testing.F) {
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) { movesNeverWaver(t, worldFacts(t), worldEvent) }))
}

func FuzzPolicyChangesNeverWaver(f *testing.F) { f.Fuzz(rapid.MakeFuzz(policyChangesNeverWaver)) }

// movesNeverWaver has the kernel follow a cluster in which events happen.
func movesNeverWaver(t *rapid.T, facts []any, event func(*rapid.T) any) {
	s := newSlow(newPlanned())
	h := &history{told: []any{model.Service{Name: nameOf("default/web"), ClusterIPs: []netip.Addr{vipOf(model.IPv4), vipOf(model.IPv6)}}}}
	for _, fact := range facts {
		h.told = append(h.told, fact)
		s.tell(fact)
	}
	s.settle(t)
	h.versions = []*policy.Facts{h.now()}
	for range rapid.IntRange(1, 5).Draw(t, "events") {
		fact := event(t)
		h.add(fact)
		s.tell(fact)
		s.moves(t, h)
		if len(s.take()) == 0 && len(s.behind()) == 0 || rapid.Bool().Draw(t, "rest") {
			s.settle(t)
			h.versions = h.versions[len(h.versions)-1:]
			s.steady(t, h, "at rest")
		}
	}
	s.settle(t)
	same(t, s.planned, h.told)
}

// moves has owners' wishes come true for a while.
func (s *slow) moves(t *rapid.T, h *history) {
	for range rapid.IntRange(4, 16).Draw(t, "steps") {
		s.now = s.now.Add(time.Millisecond)
		did := draw(t, "step", "take", "take", "put", "put", "put", "drop")
		if behind := s.behind(); did != "take" {
			if len(behind) == 0 {
				continue
			}
			o := draw(t, "owner", behind...)
			if did == "put" {
				s.put(o)
			} else {
				s.drop(o)
			}
			did += fmt.Sprintf(" %s %s", o.Kind, o.Name)
		} else {
			s.take()
		}
		s.steady(t, h, did)
	}
}

// same compares a world at rest with one that was told everything at once.
func same(t rapid.TB, w *planned, told []any) {
	t.Helper()
	scratch := newPlanned()
	scratch.tell(told...)
	scratch.settle(t)
	if got, want := w.kernel.Dump(), scratch.kernel.Dump(); got != want {
		t.Fatalf("after a history\n%s\ntold at once\n%s", got, want)
	}
	if w.planner.Status() != scratch.planner.Status() {
		t.Fatalf("after a history %+v, told at once %+v", w.planner.Status(), scratch.planner.Status())
	}
	if got, want := len(w.wished), len(scratch.wished); got != want {
		t.Fatalf("after a history %d owners wish something, told at once %d", got, want)
	}
}
