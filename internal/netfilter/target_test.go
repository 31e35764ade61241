package netfilter_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/reconcile"
)

type state = map[netfilter.Key]netfilter.Spec

func TestTargetOnFake(t *testing.T) { testTarget(t, fake) }

// testTarget is what the Target has to do on any packet filter.
func testTarget(t *testing.T, fresh func(*testing.T) subject) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, rig){
		"round trip":         testRoundTrip,
		"drift":              testDrift,
		"foreign things":     testForeign,
		"bad parts":          testBadParts,
		"bad jump":           testBadJump,
		"budget":             testBudget,
		"wrong set":          testWrongSet,
		"wrong family":       testWrongFamily,
		"refused keys":       testRefused,
		"listing of a part":  testListPart,
		"busy set":           testBusySet,
		"set goes with rest": testEverythingGoes,
		"mappings":           testMappings,
		"first writes":       testFirstWrites,
		"chains lead on":     testGraph,
		"many chains go":     testManyGo,
		"rule drift":         testRuleDrift,
	} {
		t.Run(name, func(t *testing.T) { test(t, newRig(fresh(t))) })
	}
}

// rig is a Target over a subject.
type rig struct {
	subject
	target *netfilter.Target
}

func newRig(s subject) rig {
	return rig{s, netfilter.New(netfilter.Options{Runner: s, Sets: s, Backend: s.backend, Families: families()})}
}

// list is the whole table.
func (r rig) list(t *testing.T, only ...netfilter.Key) state {
	t.Helper()
	got := state{}
	for section, err := range r.target.List(t.Context(), only) {
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range section.Present {
			if !section.Covers(k) {
				t.Errorf("%s is present in a section that does not cover it", k)
			}
			if _, twice := got[k]; twice {
				t.Errorf("%s is in two sections", k)
			}
			got[k] = v
		}
	}
	return got
}

// difference is the change that makes have into want.
func difference(want, have state) reconcile.Change[netfilter.Key, netfilter.Spec] {
	var c reconcile.Change[netfilter.Key, netfilter.Spec]
	for k, v := range want {
		if is, present := have[k]; !present || is != v {
			c.Puts = append(c.Puts, reconcile.Put[netfilter.Key, netfilter.Spec]{Key: k, Spec: v, Present: present})
		}
	}
	for k := range have {
		if _, wanted := want[k]; !wanted {
			c.Dels = append(c.Dels, k)
		}
	}
	return c
}

// reconcile lists and writes the difference. The kernel lets go of the sets
// of nft rules a moment after the rules have gone, so a busy set is tried
// again, as the loop would.
func (r rig) reconcile(t *testing.T, want state) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; {
		errs := r.target.Apply(t.Context(), difference(want, r.list(t)))
		maps.DeleteFunc(errs, func(k netfilter.Key, err error) bool {
			return errors.Is(err, syscall.EBUSY) && r.backend == netfilter.NFT && time.Now().Before(deadline)
		})
		for _, err := range errs {
			t.Errorf("apply: %v", err)
		}
		if len(errs) > 0 || len(difference(want, r.list(t)).Dels) == 0 || time.Now().After(deadline) {
			break
		}
	}
	r.want(t, want)
}

func (r rig) want(t *testing.T, want state) {
	t.Helper()
	have := r.list(t)
	for k, v := range want {
		if is, present := have[k]; !present {
			t.Errorf("%s is absent", k)
		} else if is != v {
			t.Errorf("%s is\n%+v\nwant\n%+v", k, is, v)
		}
	}
	for k := range have {
		if _, wanted := want[k]; !wanted {
			t.Errorf("%s is not wanted", k)
		}
	}
}

const (
	setIP, setPort, setThree, setNet, setNets = "SLUICE-IP", "SLUICE-PORT", "SLUICE-THREE", "SLUICE-NET", "SLUICE-NETS"
	chainX, chainY, chainMap                  = "SLUICE-X", "SLUICE-Y", "SLUICE-MAP"
)

// sample has something of every kind, in both families.
func sample() state {
	s := state{}
	for _, f := range families() {
		at := netip.AddrPortFrom(addr(f, 1), 80)
		wide, _ := addr(f, 0).Prefix(24)
		for name, typ := range map[string]netfilter.SetType{
			setIP: netfilter.HashIP, setPort: netfilter.HashIPPort, setThree: netfilter.HashIPPortIP, setNet: netfilter.HashNet,
			setNets: netfilter.HashIPPortNet,
		} {
			s[netfilter.SetKey(f, name)] = netfilter.SetSpec(typ)
		}
		s[netfilter.MemberKey(f, setIP, netfilter.Addr(addr(f, 1)))] = netfilter.Spec{}
		s[netfilter.MemberKey(f, setPort, netfilter.AddrPort(at, model.TCP))] = netfilter.Spec{}
		s[netfilter.MemberKey(f, setThree, netfilter.AddrPortAddr(at, model.UDP, addr(f, 1)))] = netfilter.Spec{}
		s[netfilter.MemberKey(f, setNet, netfilter.Net(wide))] = netfilter.Spec{}
		s[netfilter.MemberKey(f, setNets, netfilter.AddrPortNet(at, model.TCP, wide))] = netfilter.Spec{}
		s[netfilter.MemberKey(f, setNet, netfilter.Addr(addr(f, 1)))] = netfilter.Spec{NoMatch: true}

		in := [2]netfilter.InSet{netfilter.In(setPort, netfilter.Dst, netfilter.Dst), netfilter.NotIn(setNet, netfilter.Src)}
		s[netfilter.ChainKey(f, netfilter.Filter, chainX)] = netfilter.Chain{
			{Sets: [2]netfilter.InSet{netfilter.NotIn(setIP, netfilter.Dst)}, Do: netfilter.Do(netfilter.Return)},
			{ICMP: netfilter.EchoRequest, Do: netfilter.Do(netfilter.Return)},
			{State: netfilter.StateNew, Do: netfilter.Do(netfilter.Reject)},
			{Do: netfilter.To(chainY)},
		}.Spec(f)
		s[netfilter.ChainKey(f, netfilter.Filter, chainY)] = netfilter.Spec{}
		s[netfilter.ChainKey(f, netfilter.NAT, chainX)] = netfilter.Chain{
			{Sets: in, Do: netfilter.MarkBits(0x4000)},
			{Sets: [2]netfilter.InSet{netfilter.In(setThree, netfilter.Dst, netfilter.Dst, netfilter.Src)}, Do: netfilter.Do(netfilter.Return)},
			{Protocol: model.TCP, To: at, Do: netfilter.DNATTo(netip.AddrPortFrom(addr(f, 2), 8080))},
		}.Spec(f)
		outside := [2]netfilter.InSet{netfilter.In(setPort, netfilter.Dst, netfilter.Dst), netfilter.NotIn(setNets, netfilter.Dst, netfilter.Dst, netfilter.Src)}
		s[netfilter.ChainKey(f, netfilter.Mangle, chainX)] = netfilter.Chain{{Sets: outside, Do: netfilter.Do(netfilter.Drop)}}.Spec(f)
		s[netfilter.ChainKey(f, netfilter.NAT, chainMap)] = netfilter.Spec{}
		s[netfilter.MappingKey(f, chainMap, netfilter.AddrPort(at, model.UDP))] = netfilter.MappingSpec(netip.AddrPortFrom(addr(f, 2), 8080))
		s[netfilter.JumpKey(f, netfilter.NAT, netfilter.Output, chainMap)] = netfilter.JumpSpec(20)
		s[netfilter.JumpKey(f, netfilter.Filter, netfilter.Input, chainX)] = netfilter.JumpSpec(10)
		s[netfilter.JumpKey(f, netfilter.Filter, netfilter.Input, chainY)] = netfilter.JumpSpec(20)
		s[netfilter.JumpKey(f, netfilter.NAT, netfilter.Prerouting, chainX)] = netfilter.JumpSpec(10)
		s[netfilter.JumpKey(f, netfilter.NAT, netfilter.Output, chainX)] = netfilter.JumpSpec(10)
		s[netfilter.JumpKey(f, netfilter.Mangle, netfilter.Prerouting, chainX)] = netfilter.JumpSpec(10)
		s[netfilter.JumpKey(f, netfilter.Mangle, netfilter.Output, chainX)] = netfilter.JumpSpec(10)
	}
	return s
}

func testRoundTrip(t *testing.T, r rig) {
	t.Helper()
	want := sample()
	r.want(t, state{})
	r.reconcile(t, want)
	// Everything is there: putting it once more changes nothing.
	if errs := r.target.Apply(t.Context(), difference(want, state{})); len(errs) != 0 {
		t.Errorf("put what is there: %v", errs)
	}
	r.want(t, want)
	r.reconcile(t, state{})
	// Nothing is there: deleting it once more changes nothing.
	if errs := r.target.Apply(t.Context(), difference(state{}, want)); len(errs) != 0 {
		t.Errorf("delete what is absent: %v", errs)
	}
	r.want(t, state{})
}

func testDrift(t *testing.T, r rig) {
	t.Helper()
	want := sample()
	r.reconcile(t, want)
	const f = model.IPv4
	filterX := netfilter.ChainKey(f, netfilter.Filter, chainX)
	natX := netfilter.ChainKey(f, netfilter.NAT, chainX)
	inputX := netfilter.JumpKey(f, netfilter.Filter, netfilter.Input, chainX)
	inputY := netfilter.JumpKey(f, netfilter.Filter, netfilter.Input, chainY)
	rules := r.rules(t, f, "filter", chainX)
	jumpX, jumpY := r.rules(t, f, "filter", "INPUT")[0], r.rules(t, f, "filter", "INPUT")[1]
	for _, c := range []struct {
		what, meddle string
		differs      []netfilter.Key
	}{
		{"first rule deleted", "-D SLUICE-X " + rules[0], []netfilter.Key{filterX}},
		{"last rule deleted", "-D SLUICE-X " + rules[3], []netfilter.Key{filterX}},
		{"rule added at the end", "-A SLUICE-X -j ACCEPT", []netfilter.Key{filterX}},
		{"rule added in front", "-I SLUICE-X 1 -j RETURN", []netfilter.Key{filterX}},
		{"rule of other words added", "-I SLUICE-X 2 -s 203.0.113.7/32 -p tcp -m tcp --dport 22 -j ACCEPT", []netfilter.Key{filterX}},
		{"rule doubled", "-A SLUICE-X " + rules[3], []netfilter.Key{filterX}},
		{"rules swapped", "-D SLUICE-X " + rules[1] + "\n-A SLUICE-X " + rules[1], []netfilter.Key{filterX}},
		{"rule edited, hash left", "-D SLUICE-X " + rules[0] + "\n-I SLUICE-X 1 " + strings.Replace(rules[0], "RETURN", "ACCEPT", 1), []netfilter.Key{filterX}},
		{"rule edited in its set's name", "-D SLUICE-X " + rules[0] + "\n-I SLUICE-X 1 " + strings.Replace(rules[0], "SLUICE-IP", "SLUICE-NET", 1), []netfilter.Key{filterX}},
		{"hash lost", "-D SLUICE-X " + rules[0] + "\n-I SLUICE-X 1 -m set ! --match-set SLUICE-IP dst -j RETURN", []netfilter.Key{filterX}},
		{"chain emptied", ":SLUICE-X - [0:0]", []netfilter.Key{filterX}},
		{"empty chain filled", "-A SLUICE-Y -j DROP", []netfilter.Key{netfilter.ChainKey(f, netfilter.Filter, chainY)}},
		{"jump deleted", "-D INPUT " + jumpX, []netfilter.Key{inputX}},
		{"jump doubled", "-A INPUT " + jumpX, []netfilter.Key{inputX}},
		{"jump doubled right behind", "-I INPUT 2 " + jumpX, []netfilter.Key{inputX}},
		{"jump narrowed", "-D INPUT " + jumpX + "\n-I INPUT 1 -i eth7 -j SLUICE-X", []netfilter.Key{inputX}},
		{"jump without its comment", "-D INPUT " + jumpX + "\n-I INPUT 1 -j SLUICE-X", []netfilter.Key{inputX}},
		{"jumps swapped", "-D INPUT " + jumpX + "\n-I INPUT 2 " + jumpX, []netfilter.Key{inputX}},
		{"a foreign rule in front", "-I INPUT 1 -s 203.0.113.7/32 -j DROP", []netfilter.Key{inputX, inputY}},
		{"a foreign rule between", "-I INPUT 2 -s 203.0.113.8/32 -j DROP", []netfilter.Key{inputY}},
		{"a foreign rule behind", "-A INPUT -s 203.0.113.9/32 -j DROP", nil},
		{"both jumps deleted", "-D INPUT " + jumpX + "\n-D INPUT " + jumpY, []netfilter.Key{inputX, inputY}},
		{"everything of the chain gone", "-D INPUT " + jumpX + "\n:SLUICE-X - [0:0]\n-X SLUICE-X", []netfilter.Key{inputX, filterX}},
		{"a chain of ours that nobody wants", ":SLUICE-OLD - [0:0]\n-A SLUICE-OLD -j RETURN\n-A FORWARD -j SLUICE-OLD",
			[]netfilter.Key{netfilter.ChainKey(f, netfilter.Filter, "SLUICE-OLD"), netfilter.JumpKey(f, netfilter.Filter, netfilter.Forward, "SLUICE-OLD")}},
	} {
		t.Run(c.what, func(t *testing.T) {
			r.restore(t, f, "*filter\n"+c.meddle+"\nCOMMIT\n")
			r.wantDifference(t, want, c.differs)
			r.reconcile(t, want)
		})
	}
	if got := r.rules(t, f, "filter", "INPUT"); len(got) != 5 {
		t.Errorf("foreign rules went: %q", got)
	}
	t.Run("whole nat table flushed", func(t *testing.T) {
		jump := r.rules(t, f, "nat", "PREROUTING")[0]
		r.restore(t, f, "*nat\n-D PREROUTING "+jump+"\n-D OUTPUT "+jump+"\n:SLUICE-X - [0:0]\n-X SLUICE-X\nCOMMIT\n")
		r.wantDifference(t, want, []netfilter.Key{natX, netfilter.JumpKey(f, netfilter.NAT, netfilter.Prerouting, chainX), netfilter.JumpKey(f, netfilter.NAT, netfilter.Output, chainX)})
		r.reconcile(t, want)
	})
	t.Run("destination rewritten", func(t *testing.T) {
		rule := r.rules(t, f, "nat", chainX)[2]
		r.restore(t, f, "*nat\n-D SLUICE-X "+rule+"\n-A SLUICE-X "+strings.Replace(rule, ":8080", ":8081", 1)+"\nCOMMIT\n")
		r.wantDifference(t, want, []netfilter.Key{natX})
		r.reconcile(t, want)
	})
	t.Run("match on the destination widened", func(t *testing.T) {
		rule := r.rules(t, f, "nat", chainX)[2]
		r.restore(t, f, "*nat\n-D SLUICE-X "+rule+"\n-A SLUICE-X "+strings.Replace(rule, "/32", "/31", 1)+"\nCOMMIT\n")
		r.wantDifference(t, want, []netfilter.Key{natX})
		r.reconcile(t, want)
	})
	t.Run("mangle flushed", func(t *testing.T) {
		jump := r.rules(t, f, "mangle", "PREROUTING")[0]
		r.restore(t, f, "*mangle\n-D PREROUTING "+jump+"\n-I PREROUTING 1 -j ACCEPT\n:SLUICE-X - [0:0]\nCOMMIT\n")
		r.wantDifference(t, want, []netfilter.Key{
			netfilter.ChainKey(f, netfilter.Mangle, chainX), netfilter.JumpKey(f, netfilter.Mangle, netfilter.Prerouting, chainX)})
		r.reconcile(t, want)
		if got := r.rules(t, f, "mangle", "PREROUTING"); len(got) != 2 || got[1] != "-j ACCEPT" {
			t.Errorf("PREROUTING: %q", got)
		}
	})
	t.Run("members", func(t *testing.T) { testMemberDrift(t, r, want) })
}

func testMemberDrift(t *testing.T, r rig, want state) {
	t.Helper()
	ctx := t.Context()
	gone := netfilter.Member{Set: setIP, Entry: netfilter.Addr(addr(model.IPv4, 1))}
	extra := netfilter.Member{Set: "SLUICE-6-IP", Entry: netfilter.Addr(addr(model.IPv6, 7))}
	flipped := netfilter.Member{Set: setNet, Entry: netfilter.Addr(addr(model.IPv4, 1))}
	wider := netfilter.Member{Set: "SLUICE-6-NETS", Entry: netfilter.AddrPortNet(
		netip.AddrPortFrom(addr(model.IPv6, 1), 80), model.TCP, netip.PrefixFrom(addr(model.IPv6, 1), 7))}
	all(t, r.Delete(ctx, []netfilter.Member{gone}), nil)
	all(t, r.Add(ctx, []netfilter.Member{extra, flipped, wider}), nil)
	all(t, r.Create(ctx, []netfilter.Set{kset(model.IPv6, "SLUICE-OLD", netfilter.HashNet)}), nil)
	r.wantDifference(t, want, []netfilter.Key{
		netfilter.MemberKey(model.IPv4, setIP, gone.Entry),
		netfilter.MemberKey(model.IPv6, setIP, extra.Entry),
		netfilter.MemberKey(model.IPv4, setNet, flipped.Entry),
		netfilter.MemberKey(model.IPv6, setNets, wider.Entry),
		netfilter.SetKey(model.IPv6, "SLUICE-OLD"),
	})
	r.reconcile(t, want)
}

// wantDifference checks that exactly these keys differ from what is wanted.
func (r rig) wantDifference(t *testing.T, want state, keys []netfilter.Key) {
	t.Helper()
	have := r.list(t)
	c := difference(want, have)
	left := map[netfilter.Key]bool{}
	for _, k := range keys {
		left[k] = true
	}
	for _, p := range c.Puts {
		if !left[p.Key] {
			t.Errorf("%s differs: %+v", p.Key, have[p.Key])
		}
		delete(left, p.Key)
	}
	for _, k := range c.Dels {
		if !left[k] {
			t.Errorf("%s is not wanted", k)
		}
		delete(left, k)
	}
	for k := range left {
		t.Errorf("%s: no difference seen", k)
	}
}

// testForeign: nothing of others changes, whatever comes and goes.
func testForeign(t *testing.T, r rig) {
	t.Helper()
	ctx := t.Context()
	all(t, r.Create(ctx, []netfilter.Set{{Name: "KUBE-X", Family: model.IPv4, Type: netfilter.HashIP, MaxElem: 10}}), nil)
	theirs := netfilter.Member{Set: "KUBE-X", Entry: netfilter.Addr(addr(model.IPv4, 1))}
	all(t, r.Add(ctx, []netfilter.Member{theirs}), nil)
	r.restore(t, model.IPv4, "*filter\n:KUBE-X - [0:0]\n:NOT-SLUICE-X - [0:0]\n-A KUBE-X -m set --match-set KUBE-X src -j DROP\n-A INPUT -j KUBE-X\nCOMMIT\n"+
		"*mangle\n:FORWARD DROP [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\n-A PREROUTING -i eth7 -j ACCEPT\nCOMMIT\n")
	before := r.rules(t, model.IPv4, "filter", "INPUT")
	mangle := r.chainsAndRules(t, model.IPv4, "mangle")
	r.want(t, state{})
	r.reconcile(t, sample())
	r.reconcile(t, state{})
	r.wantMembers(t, "KUBE-X", theirs)
	if after := r.rules(t, model.IPv4, "filter", "INPUT"); len(after) != 1 || after[0] != before[0] {
		t.Errorf("INPUT was %q, is %q", before, after)
	}
	if rules := r.rules(t, model.IPv4, "filter", "KUBE-X"); len(rules) != 1 {
		t.Errorf("KUBE-X: %q", rules)
	}
	if after := r.chainsAndRules(t, model.IPv4, "mangle"); !slices.Equal(after, mangle) || len(after) != 7 {
		t.Errorf("mangle was\n%q, is\n%q", mangle, after)
	}
}

// chainsAndRules are a table's chains with their policies and its rules,
// without comments and counters.
func (r rig) chainsAndRules(t *testing.T, f model.Family, table string) []string {
	t.Helper()
	out, err := r.Run(t.Context(), nil, r.program(f, "save"), "-t", table)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), " [")
		if strings.HasPrefix(line, ":") || strings.HasPrefix(line, "-") {
			lines = append(lines, line)
		}
	}
	return slices.Sorted(slices.Values(lines))
}

// testBadParts: one key's error keeps no other from being written.
func testBadParts(t *testing.T, r rig) {
	t.Helper()
	want := sample()
	const f = model.IPv4
	bad := state{
		netfilter.ChainKey(f, netfilter.Filter, "SLUICE-BAD"): netfilter.Chain{
			{Sets: [2]netfilter.InSet{netfilter.In("SLUICE-NOSUCH", netfilter.Dst)}, Do: netfilter.Do(netfilter.Return)}}.Spec(f),
		netfilter.ChainKey(f, netfilter.NAT, "SLUICE-BAD"):                                       netfilter.Chain{{Do: netfilter.To("SLUICE-NOSUCH")}}.Spec(f),
		netfilter.JumpKey(f, netfilter.Filter, netfilter.Forward, "SLUICE-NOSUCH"):               netfilter.JumpSpec(10),
		netfilter.MemberKey(f, "SLUICE-NOSUCH", netfilter.Addr(addr(f, 1))):                      {},
		netfilter.MemberKey(f, setPort, netfilter.Addr(addr(f, 1))):                              {},
		netfilter.SetKey(f, "SLUICE-ODD"):                                                        {Type: "hash:nothing", MaxElem: 1},
		netfilter.JumpKey(f, netfilter.Filter, netfilter.Input, "SLUICE-BAD"):                    netfilter.JumpSpec(30),
		netfilter.JumpKey(model.IPv6, netfilter.NAT, netfilter.Postrouting, "SLUICE-NOSUCH-SIX"): netfilter.JumpSpec(30),
	}
	both := maps.Clone(want)
	maps.Copy(both, bad)
	errs := r.target.Apply(t.Context(), difference(both, state{}))
	for k, err := range errs {
		if _, expected := bad[k]; !expected {
			t.Errorf("%s: %v", k, err)
		}
	}
	for k := range bad {
		if err := errs[k]; err == nil {
			t.Errorf("%s: no error", k)
		} else if !strings.Contains(err.Error(), k.String()) {
			t.Errorf("%s is not named in its error: %v", k, err)
		}
	}
	r.want(t, want)
}

// testBadJump: a jump that the kernel refuses leaves its chain's others alone,
// and one that goes still goes.
func testBadJump(t *testing.T, r rig) {
	t.Helper()
	want := sample()
	r.reconcile(t, want)
	const f = model.IPv6
	gone := netfilter.JumpKey(f, netfilter.Filter, netfilter.Input, chainX)
	bad := netfilter.JumpKey(f, netfilter.Filter, netfilter.Input, "SLUICE-NOSUCH")
	moved := netfilter.JumpKey(f, netfilter.Filter, netfilter.Input, chainY)
	errs := r.target.Apply(t.Context(), reconcile.Change[netfilter.Key, netfilter.Spec]{
		Puts: []reconcile.Put[netfilter.Key, netfilter.Spec]{{Key: bad, Spec: netfilter.JumpSpec(1)}, {Key: moved, Spec: netfilter.JumpSpec(5)}},
		Dels: []netfilter.Key{gone},
	})
	if len(errs) != 1 || errs[bad] == nil {
		t.Errorf("errors: %v", errs)
	}
	delete(want, gone)
	want[moved] = netfilter.JumpSpec(5)
	r.want(t, want)
}

// testBudget: members never start a program, rules start few.
func testBudget(t *testing.T, r rig) {
	t.Helper()
	want := sample()
	r.reconcile(t, want)
	r.reconcile(t, state{})
	apply := func(c reconcile.Change[netfilter.Key, netfilter.Spec]) func() {
		return func() {
			if errs := r.target.Apply(t.Context(), c); len(errs) != 0 {
				t.Errorf("%v", errs)
			}
		}
	}
	member := netfilter.MemberKey(model.IPv4, setThree, netfilter.AddrPortAddr(netip.AddrPortFrom(addr(model.IPv4, 9), 80), model.TCP, addr(model.IPv4, 9)))
	chain := netfilter.ChainKey(model.IPv4, netfilter.Filter, chainX)
	jump := netfilter.JumpKey(model.IPv4, netfilter.Mangle, netfilter.Input, chainX)
	for _, c := range []struct {
		what string
		do   func()
		want netfilter.Count
	}{
		{"everything", apply(difference(want, state{})), netfilter.Count{Execs: 4, Commands: 20}}, // each family: read once, written once
		{"a member comes", apply(difference(state{member: {}}, state{})), netfilter.Count{Commands: 1}},
		{"a member goes", apply(difference(state{}, state{member: {}})), netfilter.Count{Commands: 1}},
		{"members are looked at", func() { r.list(t, member) }, netfilter.Count{}},
		{"a chain changes", apply(difference(state{chain: {}}, state{})), netfilter.Count{Execs: 1}},
		{"a jump comes", apply(difference(state{jump: netfilter.JumpSpec(10)}, state{})), netfilter.Count{Execs: 2}},
		{"a jump goes", apply(difference(state{}, state{jump: {}})), netfilter.Count{Execs: 2}},
		{"a chain is looked at", func() { r.list(t, chain) }, netfilter.Count{Execs: 1}},
		{"nothing", apply(difference(want, want)), netfilter.Count{}},
		{"everything is looked at", func() { r.list(t) }, netfilter.Count{Execs: 2}},
	} {
		if got := r.spent(c.do); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, got, c.want)
		}
	}
}

func (r rig) spent(do func()) netfilter.Count {
	before := r.count()
	do()
	after := r.count()
	return netfilter.Count{Execs: after.Execs - before.Execs, Commands: after.Commands - before.Commands}
}

// testFirstWrites: as long as a table was never used, it takes a program of
// its own to know that nothing is there.
func testFirstWrites(t *testing.T, r rig) {
	t.Helper()
	if got := r.spent(func() { r.want(t, state{}) }); got.Execs != 8 {
		t.Errorf("looking at nothing: %+v", got)
	}
	r.reconcile(t, sample())
	if got := r.spent(func() { r.want(t, sample()) }); got.Execs != 2 {
		t.Errorf("looking at what was written: %+v", got)
	}
}

// testMappings: a map's mappings come and go one by one and in no order, by two
// programs however many there are and change; and a map that is mended keeps
// those that it has.
func testMappings(t *testing.T, r rig) {
	t.Helper()
	const mappings = 1000
	key := func(f model.Family, i int) netfilter.Key {
		p := []model.Protocol{model.TCP, model.UDP, model.SCTP}[i%3]
		return netfilter.MappingKey(f, chainMap, netfilter.AddrPort(netip.AddrPortFrom(addr(f, i), uint16(i)), p))
	}
	spec := func(f model.Family, i int) netfilter.Spec {
		return netfilter.MappingSpec(netip.AddrPortFrom(addr(f, 0x4000+i), uint16(i+1)))
	}
	want := state{}
	for _, f := range families() {
		want[netfilter.ChainKey(f, netfilter.NAT, chainMap)] = netfilter.Spec{}
		want[netfilter.JumpKey(f, netfilter.NAT, netfilter.Prerouting, chainMap)] = netfilter.JumpSpec(20)
		for i := range mappings {
			want[key(f, i)] = spec(f, i)
		}
	}
	apply := func(c reconcile.Change[netfilter.Key, netfilter.Spec]) func() {
		return func() {
			for _, err := range r.target.Apply(t.Context(), c) {
				t.Error(err)
			}
		}
	}
	if got := r.spent(apply(difference(want, state{}))); got.Execs != 4 { // each family: nat read, one restore
		t.Errorf("written with %+v", got)
	}
	if got := len(r.rules(t, model.IPv6, "nat", chainMap)); got != mappings {
		t.Errorf("%d rules, want %d", got, mappings)
	}
	r.wantDifference(t, want, nil)

	before := maps.Clone(want)
	delete(want, key(model.IPv4, 7))
	want[key(model.IPv4, 8)] = spec(model.IPv4, 0)
	want[key(model.IPv4, mappings)] = spec(model.IPv4, mappings)
	if got := r.spent(apply(difference(want, before))); got.Execs != 2 {
		t.Errorf("one goes, one changes, one comes, with %+v", got)
	}
	r.want(t, want)

	// By hand: one is taken out, one doubled, and a rule is added that is none.
	chain := netfilter.ChainKey(model.IPv4, netfilter.NAT, chainMap)
	rule := func(k netfilter.Key) string {
		for _, text := range r.rules(t, model.IPv4, "nat", chainMap) {
			if e := k.Entry; strings.Contains(text, " "+e.First.String()+" ") {
				return chainMap + " " + text
			}
		}
		t.Fatalf("no rule for %s", k)
		return ""
	}
	out, twice := key(model.IPv4, 10), key(model.IPv4, 11)
	r.restore(t, model.IPv4, "*nat\n-D "+rule(out)+"\n-A "+rule(twice)+"\n-A "+chainMap+" -p tcp -j RETURN\nCOMMIT\n")
	r.wantDifference(t, want, []netfilter.Key{chain, out, twice})
	r.reconcile(t, want)

	// A map that has to be written again keeps its mappings.
	r.restore(t, model.IPv4, "*nat\n-A "+chainMap+" -p tcp -j RETURN\nCOMMIT\n")
	apply(difference(want, r.list(t)))()
	r.want(t, want)
	r.reconcile(t, state{})
}

// testWrongSet: a set of our name with another type, size or family is made
// anew under the rules that look into it.
func testWrongSet(t *testing.T, r rig) {
	t.Helper()
	want := sample()
	for _, f := range families() {
		name := netfilter.KernelSet(f, setPort)
		for what, wrong := range map[string]netfilter.Set{
			"type": {Name: name, Family: f, Type: netfilter.HashIP, MaxElem: netfilter.MaxElem},
			"size": {Name: name, Family: f, Type: netfilter.HashIPPort, MaxElem: 77},
		} {
			t.Run(fmt.Sprintf("%s %s", what, f), func(t *testing.T) {
				r.reconcile(t, state{})
				all(t, r.Create(t.Context(), []netfilter.Set{wrong}), nil)
				rules := state{}
				for k, v := range want {
					if k.Kind != netfilter.KindSet && k.Kind != netfilter.KindMember || k.Name != setPort || k.Family != f {
						rules[k] = v
					}
				}
				if errs := r.target.Apply(t.Context(), difference(rules, r.list(t))); hasOther(errs, syscall.EBUSY) {
					t.Fatalf("%v", errs)
				}
				r.reconcile(t, want)
			})
		}
	}
}

// testWrongFamily: a set with an IPv4 set's name that holds IPv6 entries.
func testWrongFamily(t *testing.T, r rig) {
	t.Helper()
	wrong := kset(model.IPv6, setIP, netfilter.HashIP)
	wrong.Name = setIP
	all(t, r.Create(t.Context(), []netfilter.Set{wrong}), nil)
	all(t, r.Add(t.Context(), []netfilter.Member{{Set: setIP, Entry: netfilter.Addr(addr(model.IPv6, 5))}}), nil)
	r.wantDifference(t, state{}, []netfilter.Key{netfilter.SetKey(model.IPv4, setIP)})
	r.reconcile(t, sample())
}

func hasOther(errs map[netfilter.Key]error, known error) bool {
	for _, err := range errs {
		if !errors.Is(err, known) {
			return true
		}
	}
	return false
}

func testRefused(t *testing.T, r rig) {
	t.Helper()
	var c reconcile.Change[netfilter.Key, netfilter.Spec]
	for _, k := range []netfilter.Key{
		netfilter.SetKey(model.IPv4, "KUBE-X"),
		netfilter.ChainKey(model.IPv4, netfilter.NAT, "KUBE-X"),
		netfilter.SetKey(model.IPv4, "SLUICE-0123456789012345678901234"),
		netfilter.SetKey(model.IPv6, "SLUICE-0123456789012345678901x"),
		netfilter.ChainKey(model.IPv4, netfilter.NAT, "SLUICE-012345678901234567890x"),
		netfilter.MemberKey(model.IPv4, setIP, netfilter.Addr(addr(model.IPv6, 1))),
		netfilter.SetKey(5, "SLUICE-X"),
	} {
		c.Puts = append(c.Puts, reconcile.Put[netfilter.Key, netfilter.Spec]{Key: k, Spec: netfilter.SetSpec(netfilter.HashIP)})
	}
	before := r.count()
	errs := r.target.Apply(t.Context(), c)
	if len(errs) != len(c.Puts) {
		t.Errorf("%d errors for %d keys: %v", len(errs), len(c.Puts), errs)
	}
	if r.count() != before {
		t.Error("the kernel was asked")
	}
}

func testListPart(t *testing.T, r rig) {
	t.Helper()
	want := sample()
	r.reconcile(t, want)
	for k, v := range want {
		if got := r.list(t, k); got[k] != v {
			t.Errorf("%s listed alone: %+v, want %+v", k, got[k], v)
		}
	}
	// A set that is absent has no members, and the listing says so.
	absent := netfilter.MemberKey(model.IPv4, "SLUICE-NOSUCH", netfilter.Addr(addr(model.IPv4, 1)))
	covered := false
	for section, err := range r.target.List(t.Context(), []netfilter.Key{absent}) {
		if err != nil {
			t.Fatal(err)
		}
		covered = covered || section.Covers(absent)
	}
	if !covered {
		t.Error("a member of an absent set is not covered")
	}
}

// testBusySet: a set that rules of others look into stays, and says so.
func testBusySet(t *testing.T, r rig) {
	t.Helper()
	want := sample()
	r.reconcile(t, want)
	r.restore(t, model.IPv4, "*filter\n-A FORWARD -m set --match-set SLUICE-IP src -j ACCEPT\nCOMMIT\n")
	errs := map[netfilter.Key]error{}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		errs = r.target.Apply(t.Context(), difference(state{}, r.list(t)))
		if len(errs) <= 2 {
			break
		}
	}
	busy := netfilter.SetKey(model.IPv4, setIP)
	if !errors.Is(errs[busy], syscall.EBUSY) || hasOther(errs, syscall.EBUSY) {
		t.Errorf("errors: %v", errs)
	}
}

func testEverythingGoes(t *testing.T, r rig) {
	t.Helper()
	r.reconcile(t, sample())
	r.reconcile(t, state{})
	for _, f := range families() {
		for _, table := range []string{"nat", "filter", "mangle"} {
			out, err := r.Run(t.Context(), nil, r.program(f, "save"), "-t", table)
			if err != nil || strings.Contains(string(out), "SLUICE") {
				t.Errorf("%s %s: %v\n%s", f, table, err, out)
			}
		}
	}
	if sets, err := r.Headers(t.Context()); err != nil || len(sets) != 0 {
		t.Errorf("sets left: %v, %v", sets, err)
	}
}
