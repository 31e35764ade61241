package policy_test

import (
	"net/netip"
	"sync"
	"testing"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/policy"
)

// TestLifeOfPods is section 1.4 of the specification. The policies of x allow
// what comes from pods called b.
func TestLifeOfPods(t *testing.T) {
	only := policyOf("x/only-b", "pod=a", types("Ingress"), in(rule("ns:all pod=b", "")))
	as := func(uid string, fns ...func(*model.Pod)) func(*model.Pod) {
		return func(p *model.Pod) {
			p.UID = uid
			for _, fn := range fns {
				fn(p)
			}
		}
	}
	done := func(p *model.Pod) { p.Done = true }
	at := func(addrs string) func(*model.Pod) { return func(p *model.Pod) { p.Addrs = addrList(addrs) } }
	labels := func(pod string) func(*model.Pod) {
		return func(p *model.Pod) { p.Labels = map[string]string{"pod": pod} }
	}
	for _, r := range []row{
		{"a pod without an address yet", []any{podOf("y/b", at(""))},
			[]string{"10.0.2.2 > x/a TCP 80: no in"}},
		{"a pod that has Succeeded or Failed is not there", []any{podOf("y/b", done)},
			[]string{"y/b > x/a TCP 80: no in"}},
		{"nor is it isolated", []any{podOf("x/a", done)},
			[]string{"y/c > x/a TCP 80: yes"}},
		{"its address is another's", []any{podOf("y/b", done), podOf("z/c", at("10.0.2.2"))},
			[]string{"10.0.2.2 > x/a TCP 80: no in"}},
		{"another's, who was told of first", []any{podOf("z/c", at("10.0.2.2")), podOf("y/b", done)},
			[]string{"10.0.2.2 > x/a TCP 80: no in"}},
		{"an address that a new pod has, before the old one has gone", []any{podOf("z/c", at("10.0.2.2"))},
			[]string{"10.0.2.2 > x/a TCP 80: no in"}},
		{"news of the old pod do not take it back", []any{podOf("z/c", at("10.0.2.2")), podOf("y/b")},
			[]string{"10.0.2.2 > x/a TCP 80: no in"}},
		{"and its end does not take it from the new one", []any{podOf("z/c", at("10.0.2.2")), model.PodKey{Name: nameOf("y/b"), UID: "uid of y/b"}},
			[]string{"10.0.2.2 > x/a TCP 80: no in"}},
		{"when the new one goes, the old one has it again", []any{podOf("z/c", at("10.0.2.2")), model.PodKey{Name: nameOf("z/c"), UID: "uid of z/c"}},
			[]string{"10.0.2.2 > x/a TCP 80: yes"}},
		{"a pod of the same name, whose predecessor's end is told late", []any{podOf("y/b", as("new", at("10.0.2.9"))), model.PodKey{Name: nameOf("y/b"), UID: "uid of y/b"}},
			[]string{"10.0.2.9 > x/a TCP 80: yes", "10.0.2.2 > x/a TCP 80: no in"}},
		{"one with the predecessor's address", []any{podOf("y/b", as("new", labels("c"))), model.PodKey{Name: nameOf("y/b"), UID: "uid of y/b"}},
			[]string{"y/b > x/a TCP 80: no in"}},
		{"a pod that is gone", []any{model.PodKey{Name: nameOf("y/b"), UID: "uid of y/b"}},
			[]string{"y/b > x/a TCP 80: no in"}},
		{"a pod gets a second address", []any{podOf("y/b", at("10.0.2.2")), podOf("y/b", at("10.0.2.2 fd00::2:2"))},
			[]string{"y/b > x/a TCP 80: yes"}},
		{"a pod's labels change", []any{podOf("y/c", labels("b")), podOf("y/b", labels("c"))},
			[]string{"y/c > x/a TCP 80: yes", "y/b > x/a TCP 80: no in"}},
		{"the selected pod's labels change", []any{podOf("x/a", labels("d")), podOf("x/c", labels("a"))},
			[]string{"y/c > x/a TCP 80: yes", "y/c > x/c TCP 80: no in"}},
		{"a namespace's labels change", []any{policyOf("x/only-b", "pod=a", in(rule("ns:team=one", ""))), model.Namespace{Name: "z", Labels: map[string]string{"team": "one"}}},
			[]string{"z/a > x/a TCP 80: yes", "y/a > x/a TCP 80: no in"}},
		{"a namespace goes, and comes back without its label", []any{policyOf("x/only-b", "pod=a", in(rule("ns:ns=z", ""))), model.NamespaceKey{Name: "z"}, model.Namespace{Name: "z"}},
			[]string{"z/a > x/a TCP 80: no in"}},
		{"a policy changes", []any{policyOf("x/only-b", "pod=b")},
			[]string{"y/c > x/a TCP 80: yes", "y/c > x/b TCP 80: no in"}},
		{"a policy goes", []any{model.NetworkPolicyKey{Name: nameOf("x/only-b")}},
			[]string{"y/c > x/a TCP 80: yes"}},
		{"a pod's container ports change", []any{policyOf("x/only-b", "pod=a", in(rule("", "TCP http"))), podOf("x/a", func(p *model.Pod) {
			p.Ports = []model.ContainerPort{{Name: "http", Protocol: model.TCP, Port: 8080}}
		})},
			[]string{"y/c > x/a TCP 8080: yes", "y/c > x/a TCP 80: no in"}},
		{"a pod is on the host's network: not there at the address that it had", []any{podOf("y/b", func(p *model.Pod) { p.HostNetwork = true })},
			[]string{"y/b > x/a TCP 80: no in"}},
		{"a pod of one family is isolated in that, and in the other nobody", []any{podOf("x/a", at("10.0.1.1")), policyOf("x/only-b", "pod=a", in(rule("10.0.2.0/24", "")))},
			[]string{"10.0.2.9 > 10.0.1.1 TCP 80: yes", "10.0.3.9 > 10.0.1.1 TCP 80: no in", "fd00::2:2 > fd00::1:1 TCP 80: yes"}},
		{"an ipBlock of one family: isolated in both", []any{policyOf("x/only-b", "pod=a", in(rule("0.0.0.0/0", "")))},
			[]string{"10.0.2.1 > x/a TCP 80: yes", "fd00::2:1 > x/a TCP 80: no in"}},
		{"policies without a namespace's being told", []any{policyOf("q/p", "all"), model.Pod{Name: nameOf("q/a"), UID: "q", Addrs: addrList("10.0.9.9")}},
			[]string{"y/c > 10.0.9.9 TCP 80: no in"}},
	} {
		t.Run(r.name, func(t *testing.T) { check(t, fixture(append([]any{only}, r.facts...)...), r.probes...) })
	}
}

func TestPodAt(t *testing.T) {
	f := fixture(podOf("x/c", func(p *model.Pod) { p.HostNetwork, p.Addrs = true, addrList("192.168.0.1") }))
	for at, want := range map[string]struct {
		pod   string
		local bool
	}{
		"10.0.1.1": {"x/a", true}, "fd00::2:1": {"y/a", false}, "192.168.0.1": {}, "10.0.1.3": {}, "203.0.113.1": {},
	} {
		a := netip.MustParseAddr(at)
		p, ok := f.PodAt(a)
		if ok != (want.pod != "") || ok && p.Name != nameOf(want.pod) || f.LocalPod(a) != want.local {
			t.Errorf("%s: %v %v, local %v, want %+v", at, p.Name, ok, f.LocalPod(a), want)
		}
	}
	// Seen from no node there is no local pod, be it one without a node.
	none := policy.NewFacts("")
	tell(none, podOf("x/a", func(p *model.Pod) { p.Node = "" }))
	if none.LocalPod(netip.MustParseAddr("10.0.1.1")) {
		t.Error("a pod without a node is local")
	}
}

// TestManyAsk: one tells, others ask; for the race detector.
func TestManyAsk(t *testing.T) {
	f := fixture(append(slicesOf("x/a", "y/a"), web())...)
	packets := everyPacket()
	var asking sync.WaitGroup
	for i := range 3 {
		asking.Go(func() {
			for _, p := range packets[i*50 : i*50+50] {
				f.Allows(p)
				f.AllowsHere(p, true)
				f.PodAt(p.Src)
			}
			f.Explain(policy.Query{From: "x/a", To: "10.96.0.10:8000"})
			policy.Lint(f, nil)
			f.Counts()
		})
	}
	for i := range 50 {
		tell(f, policyOf("x/p", "all", in(rule("ns:ns=y", ""))), podOf("x/a"), model.Namespace{Name: "y"}, podOf("y/b", func(p *model.Pod) { p.Done = i%2 == 0 }))
		tell(f, model.NetworkPolicyKey{Name: nameOf("x/p")}, model.PodKey{Name: nameOf("x/a"), UID: "uid of x/a"}, model.NamespaceKey{Name: "y"})
	}
	asking.Wait()
}

// TestCounts: what was told counts, and nothing is left of what has gone.
func TestCounts(t *testing.T) {
	slice := model.EndpointSlice{Name: nameOf("x/web-1"), Service: "web"}
	f := fixture(policyOf("x/p", "all"), policyOf("x/p", "pod=a"), web(), slice)
	if got, want := f.Counts(), (policy.Counts{Pods: 9, Policies: 1, Namespaces: 3, Nodes: 3, Services: 1, EndpointSlices: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	tell(f, model.NetworkPolicyKey{Name: nameOf("x/p")}, model.ServiceKey{Name: nameOf("x/web")}, model.EndpointSliceKey{Name: slice.Name})
	for _, fact := range fixtureFacts() {
		switch fact := fact.(type) {
		case model.Pod:
			tell(f, model.PodKey{Name: fact.Name, UID: fact.UID})
		case model.Namespace:
			tell(f, model.NamespaceKey{Name: fact.Name})
		case model.Node:
			tell(f, model.NodeKey{Name: fact.Name})
		}
	}
	if got := f.Counts(); got != (policy.Counts{}) {
		t.Errorf("left: %+v", got)
	}
}
