package netfilter_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
)

// The chains of graph: each leads on to the one behind it, and the first to all.
const (
	chainFirst, chainMiddle, chainLast = "SLUICE-A-FIRST", "SLUICE-Z-MIDDLE", "SLUICE-M-LAST"
)

// graph is chains that lead to each other, by jumps and for good, with every
// match that only policies use.
func graph(f model.Family) state {
	revoked := netfilter.HasMark{Value: 0x8000, Mask: 0x8000}
	return state{
		netfilter.ChainKey(f, netfilter.Filter, chainFirst): netfilter.Chain{
			{ConnMark: revoked, Do: netfilter.GoTo(chainLast)},
			{Protocol: model.TCP, Ports: netfilter.PortRange{First: 80, Last: 90}, NotFrom: "lo", Do: netfilter.To(chainMiddle)},
			{Do: netfilter.Do(netfilter.Return)},
		}.Spec(f),
		netfilter.ChainKey(f, netfilter.Filter, chainMiddle): netfilter.Chain{
			{State: netfilter.StateNew, Do: netfilter.Do(netfilter.Return)},
			{Do: netfilter.GoTo(chainLast)},
		}.Spec(f),
		netfilter.ChainKey(f, netfilter.Filter, chainLast): netfilter.Chain{
			{Limit: 5, Do: netfilter.LogTo(100, "sluice-egress")},
			{Do: netfilter.Do(netfilter.Drop)},
		}.Spec(f),
		netfilter.JumpKey(f, netfilter.Filter, netfilter.Forward, chainFirst): netfilter.JumpSpec(50),
	}
}

// testGraph: chains are written in one go, whichever of them leads to which,
// and go in one go.
func testGraph(t *testing.T, r rig) {
	t.Helper()
	want := state{}
	for _, f := range families() {
		maps.Copy(want, graph(f))
	}
	apply := func(is, has state) func() {
		return func() {
			for _, err := range r.target.Apply(t.Context(), difference(is, has)) {
				t.Error(err)
			}
		}
	}
	if got := r.spent(apply(want, state{})); got.Execs != 4 { // each family: what is there, one restore
		t.Errorf("written with %+v", got)
	}
	r.want(t, want)

	// The one in the middle goes while the first is led past it.
	const f = model.IPv4
	without := maps.Clone(want)
	delete(without, netfilter.ChainKey(f, netfilter.Filter, chainMiddle))
	without[netfilter.ChainKey(f, netfilter.Filter, chainFirst)] = netfilter.Chain{{Do: netfilter.GoTo(chainLast)}}.Spec(f)
	if got := r.spent(apply(without, want)); got.Execs != 2 {
		t.Errorf("one chain fewer with %+v", got)
	}
	r.want(t, without)

	// Where others go to a chain of ours it stays, and the rest goes.
	r.restore(t, f, "*filter\n-A OUTPUT -p udp -g "+chainLast+"\nCOMMIT\n")
	jump := netfilter.JumpKey(f, netfilter.Filter, netfilter.Output, chainLast)
	if got := r.list(t)[jump]; got != netfilter.JumpSpec(-1) {
		t.Errorf("%s: %+v", jump, got)
	}
	errs := r.target.Apply(t.Context(), difference(state{}, without))
	last := netfilter.ChainKey(f, netfilter.Filter, chainLast)
	if len(errs) != 1 || errs[last] == nil {
		t.Errorf("errors %v, want that of %s", errs, last)
	}
	r.reconcile(t, state{})
}

// testManyGo: chains that something still leads to keep those that they lead to,
// and hold up none of a thousand others; nobody tries them one by one.
func testManyGo(t *testing.T, r rig) {
	t.Helper()
	const f = model.IPv6
	key := func(name string) netfilter.Key { return netfilter.ChainKey(f, netfilter.Filter, name) }
	chain := func(to string) netfilter.Spec { return netfilter.Chain{{Do: netfilter.GoTo(to)}}.Spec(f) }
	stays := state{key("SLUICE-STAYS"): chain("SLUICE-HELD"), key("SLUICE-END"): netfilter.Chain{{Do: netfilter.Do(netfilter.Drop)}}.Spec(f)}
	want := maps.Clone(stays)
	want[key("SLUICE-HELD")] = chain("SLUICE-HELD-TOO")
	want[key("SLUICE-HELD-TOO")] = chain("SLUICE-END")
	for i := range 200 {
		want[key(fmt.Sprint("SLUICE-GOES-", i))] = chain("SLUICE-HELD-TOO")
	}
	r.reconcile(t, want)
	var errs map[netfilter.Key]error
	if got := r.spent(func() { errs = r.target.Apply(t.Context(), difference(stays, want)) }); got.Execs != 3 { // tried, read, written
		t.Errorf("gone with %+v", got)
	}
	if len(errs) != 2 || errs[key("SLUICE-HELD")] == nil || errs[key("SLUICE-HELD-TOO")] == nil {
		t.Errorf("errors %v, want those of the two that are led to", errs)
	}
	stays[key("SLUICE-HELD")], stays[key("SLUICE-HELD-TOO")] = want[key("SLUICE-HELD")], want[key("SLUICE-HELD-TOO")]
	r.want(t, stays)
	r.reconcile(t, state{})
}

// testRuleDrift: whatever is changed by hand in a rule is seen.
func testRuleDrift(t *testing.T, r rig) {
	t.Helper()
	const f = model.IPv6
	want := graph(f)
	r.reconcile(t, want)
	for _, c := range []struct{ chain, old, changed string }{
		{chainFirst, "-m connmark --mark 0x8000/0x8000 ", ""},
		{chainFirst, "-m connmark --mark 0x8000/0x8000 ", "-m mark --mark 0x8000/0x8000 "},
		{chainFirst, "-g " + chainLast, "-j " + chainLast},
		{chainFirst, "! -i lo ", ""},
		{chainFirst, "! -i lo ", "! -i lo+ "},
		{chainFirst, "! -i lo ", "-i lo "},
		{chainFirst, "80:90", "80:91"},
		{chainFirst, "80:90", "80"},
		{chainMiddle, "-g " + chainLast, "-j " + chainLast},
		{chainLast, "5/sec", "5/min"},
		{chainLast, "burst 5", "burst 500"},
		{chainLast, "--hashlimit-name sluice-", "--hashlimit-name others-"},
		{chainLast, "srcip,dstip,dstport", "srcip"},
		{chainLast, "sluice-egress", "sluice-ingress"},
		{chainLast, "--nflog-group 100", "--nflog-group 10"},
		{chainLast, "--nflog-group 100", ""},
	} {
		t.Run(c.chain+" "+c.old+" becomes "+c.changed, func(t *testing.T) {
			key := netfilter.ChainKey(f, netfilter.Filter, c.chain)
			text := "*filter\n:" + c.chain + " - [0:0]\n"
			changed := 0
			for _, rule := range r.rules(t, f, "filter", c.chain) {
				if strings.Contains(rule, c.old) {
					rule = strings.Replace(rule, c.old, c.changed, 1)
					changed++
				}
				text += "-A " + c.chain + " " + rule + "\n"
			}
			if changed != 1 {
				t.Fatalf("%d rules changed:\n%s", changed, text)
			}
			r.restore(t, f, text+"COMMIT\n")
			r.wantDifference(t, want, []netfilter.Key{key})
			r.reconcile(t, want)
		})
	}
	t.Run("a jump becomes a goto", func(t *testing.T) {
		jump := r.rules(t, f, "filter", "FORWARD")[0]
		r.restore(t, f, "*filter\n-D FORWARD "+jump+"\n-I FORWARD 1 "+strings.Replace(jump, "-j ", "-g ", 1)+"\nCOMMIT\n")
		r.wantDifference(t, want, []netfilter.Key{netfilter.JumpKey(f, netfilter.Filter, netfilter.Forward, chainFirst)})
		r.reconcile(t, want)
	})
}
