package engine_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
)

// The pods of these tests: a and b on this node, c elsewhere.
func policyPods() []any {
	return []any{
		policyPod("a", "node1", "10.1.1.1", "fd00:1::1"),
		policyPod("b", "node1", "10.1.1.2", "fd00:1::2"),
		policyPod("c", "node2", "10.1.2.3", "fd00:2::3"),
	}
}

func policyPod(n, node string, at ...string) model.Pod {
	return model.Pod{
		Name: name(n), UID: n, Node: node, Addrs: addrs(at...), Labels: map[string]string{"pod": n},
	}
}

// allowing is a policy that isolates a pod and lets others in.
func allowing(n, target string, peers ...string) model.NetworkPolicy {
	p := model.NetworkPolicy{Name: name(n), Pods: *selecting(target), Ingress: true}
	for i, peer := range peers {
		p.IngressRules = append(p.IngressRules, model.PolicyRule{Index: i, AnyPort: true, Peers: []model.PolicyPeer{{Pods: selecting(peer)}}})
	}
	return p
}

func selecting(pod string) *model.Selector {
	return &model.Selector{Requirements: []model.Requirement{{Key: "pod", Op: model.In, Values: []string{pod}}}}
}

// passes reports whether a first packet of TCP from one address to another gets
// through this node, which forwards it.
func (w *world) passes(from, to string) bool {
	out := w.filter.Trace(netfiltertest.Host{Local: nodeAddrs}, netfiltertest.Packet{
		Src: netip.AddrPortFrom(netip.MustParseAddr(from), 40000), Dst: netip.AddrPortFrom(netip.MustParseAddr(to), 80),
		Protocol: model.TCP, In: "veth0",
	})
	return out.Fate == netfiltertest.Sent
}

// sees fails unless exactly the named ways are open, of "a>b c>b a6>b6".
func (w *world) sees(t *testing.T, when, want string) {
	t.Helper()
	at := map[string][2]string{"a": {"10.1.1.1", "fd00:1::1"}, "b": {"10.1.1.2", "fd00:1::2"}, "c": {"10.1.2.3", "fd00:2::3"}}
	var got []string
	w.quietly(func() {
		for _, way := range []string{"a>b", "b>a", "c>a", "c>b"} {
			open := 0
			for family := range 2 {
				if w.passes(at[way[:1]][family], at[way[2:]][family]) {
					open++
				}
			}
			switch open {
			case 1:
				t.Errorf("%s: %s is open in one family only", when, way)
			case 2:
				got = append(got, way)
			}
		}
	})
	if strings.Join(got, " ") != want {
		t.Errorf("%s: open are %q, want %q", when, got, want)
	}
}

func (w *world) ofPolicy() int {
	n := 0
	w.quietly(func() {
		n = strings.Count(w.filter.Dump(), "SLUICE-NP") + strings.Count(w.filter.Dump(), "SLUICE-6-NP")
	})
	return n
}

// TestPolicyIsEnforced when every source has told all it knows, follows policies
// and pods, survives a restart without a write, and leaves nothing when it is
// switched off.
func TestPolicyIsEnforced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.start(t, conditions{sources: 1, policy: true, patience: time.Second})
		facts := append(policyPods(), allowing("only-c", "b", "c"))
		r.tell(facts...)
		time.Sleep(time.Minute)
		w.sees(t, "not synced: others may know of what allows more", "a>b b>a c>a c>b")
		r.tell(synced)
		synctest.Wait()
		w.sees(t, "synced", "b>a c>a c>b")

		r.tell(allowing("only-c", "b", "c", "a"))
		synctest.Wait()
		w.sees(t, "a policy allows more", "a>b b>a c>a c>b")
		r.tell(allowing("nobody", "a"), allowing("only-c", "b", "a"))
		synctest.Wait()
		w.sees(t, "policies allow less", "a>b")
		r.tell(model.NetworkPolicyKey{Name: name("nobody")})
		synctest.Wait()
		w.sees(t, "a policy is gone", "a>b b>a c>a")

		changed := policyPod("c", "node2", "10.1.2.3", "fd00:2::3")
		changed.Labels = map[string]string{"pod": "a"}
		r.tell(changed)
		synctest.Wait()
		w.sees(t, "c has a's label", "a>b b>a c>a c>b")
		r.stop()

		now := []any{policyPods()[0], policyPods()[1], changed, allowing("only-c", "b", "a")}
		r = w.start(t, conditions{sources: 1, policy: true})
		_, log := w.since(func() {
			r.tell(now...)
			r.tell(synced)
			synctest.Wait()
		})
		if len(log) > 0 {
			t.Errorf("a restart writes %q", log)
		}
		w.sees(t, "restarted", "a>b b>a c>a c>b")
		r.stop()

		r = w.start(t, conditions{sources: 1})
		r.tell(now...)
		r.tell(synced)
		synctest.Wait()
		w.sees(t, "switched off", "a>b b>a c>a c>b")
		if n := w.ofPolicy(); n > 0 {
			t.Errorf("switched off: %d traces are left\n%s", n, w.filter.Dump())
		}
		w.orderly(t, "policy")
	})
}

// TestAPodCostsNoRules: with 500 policies, a pod that comes or goes writes its
// own members and starts no program.
func TestAPodCostsNoRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		facts := policyPods()
		for i := range 500 {
			facts = append(facts, allowing(fmt.Sprintf("p%d", i), "b", fmt.Sprintf("peer%d", i%50)))
		}
		r := w.start(t, conditions{sources: 1, policy: true})
		r.tell(facts...)
		r.tell(synced)
		synctest.Wait()
		for _, step := range []struct {
			name string
			fact any
			most int // entries of sets
		}{
			{"a pod elsewhere that two policies mean", model.Pod{
				Name: name("d"), UID: "d", Node: "node2", Addrs: addrs("10.1.2.4"), Labels: map[string]string{"pod": "peer7"},
			}, 1},
			{"another pod here under the same 500 policies", model.Pod{
				Name: name("e"), UID: "e", Node: "node1", Addrs: addrs("10.1.1.5", "fd00:1::5"), Labels: map[string]string{"pod": "b"},
			}, 6},
			{"it goes", model.PodKey{Name: name("e"), UID: "e"}, 6},
		} {
			cost, log := w.since(func() { r.tell(step.fact); synctest.Wait() })
			if cost.execs != 0 || cost.setWrites == 0 || cost.setWrites > step.most {
				t.Errorf("%s: %d programs, %d entries of sets; want 0 and at most %d\n%s", step.name, cost.execs, cost.setWrites, step.most, strings.Join(log, "\n"))
			}
		}
	})
}

// TestARefusedPolicy: rules that the kernel does not take close their own pods,
// say so, and hold up nobody else's; when it takes them they are in force.
func TestARefusedPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.start(t, conditions{sources: 1, policy: true})
		r.tell(policyPods()...)
		r.tell(synced)
		synctest.Wait()
		w.fail(func(o op) error {
			if strings.HasPrefix(o.verb, "create") && strings.Contains(o.subject, "NP") {
				return errors.New("no memory")
			}
			return nil
		})
		r.tell(allowing("peers", "b", "c"), allowing("nobody", "a"))
		time.Sleep(3 * time.Second)
		if r.Facts().Rising == 0 {
			t.Error("refused, and all is as wanted")
		}
		w.fail(nil)
		synctest.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		w.sees(t, "the kernel takes them again", "c>b")
		if n := r.Facts().Rising; n != 0 {
			t.Errorf("%d parts of policies are on their way still", n)
		}
		if got := r.told.take(); len(got) == 0 || !slices.ContainsFunc(got, func(p string) bool { return strings.Contains(p, "default/peers") }) {
			t.Errorf("told: %q", got)
		}
	})
}

// TestPoliciesThatWentMeanwhile: what a former run has left of many policies goes
// in one piece.
func TestPoliciesThatWentMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		facts := append(policyPods(), allowing("stays", "a", "c"))
		for i := range 200 {
			n := fmt.Sprintf("crowd%d", i)
			facts = append(facts, policyPod(n, "node1", fmt.Sprintf("10.1.3.%d", i+1)), allowing(n, n, fmt.Sprintf("friend%d", i)))
		}
		r := w.start(t, conditions{sources: 1, policy: true})
		r.tell(facts...)
		r.tell(synced)
		synctest.Wait()
		r.stop()
		r = w.start(t, conditions{sources: 1, policy: true})
		cost, _ := w.since(func() {
			r.tell(facts[:4]...)
			r.tell(synced)
			synctest.Wait()
			time.Sleep(time.Minute)
			synctest.Wait()
		})
		if cost.restores > 6 {
			t.Errorf("%d restores", cost.restores)
		}
		w.sees(t, "the crowd is gone", "a>b c>a c>b")
	})
}
