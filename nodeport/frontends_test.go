package nodeport_test

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/nodeport"
)

// TestFrontendsReadsWhatDesiredWrote, both families, every kind of frontend.
func TestFrontendsReadsWhatDesiredWrote(t *testing.T) {
	kernel := netfiltertest.New()
	target := netfilter.New(netfilter.Options{Runner: kernel, Sets: kernel, Families: []model.Family{model.IPv4, model.IPv6}})
	var want []model.FrontendKey
	view := model.View{}
	for i, a := range []string{"10.96.0.1:80", "192.168.10.11:30080", "[fd00::1]:53"} {
		key := model.FrontendKey{Addr: netip.MustParseAddrPort(a), Protocol: []model.Protocol{model.TCP, model.SCTP, model.UDP}[i]}
		view.Frontends = append(view.Frontends, model.Frontend{FrontendKey: key, Kind: model.FrontendKind(i)})
		want = append(want, key)
	}
	named, err := nodeport.Frontends(t.Context(), kernel)
	if err != nil || len(named) != 0 {
		t.Fatalf("without sets: %v, %v; want nothing", named, err)
	}
	wish := nodeport.Static(nodeport.Config{Families: []model.Family{model.IPv4, model.IPv6}})
	maps.Copy(wish, nodeport.Desired(view))
	var c reconcile.Change[netfilter.Key, netfilter.Spec]
	for k, v := range wish {
		c.Puts = append(c.Puts, reconcile.Put[netfilter.Key, netfilter.Spec]{Key: k, Spec: v})
	}
	if errs := target.Apply(t.Context(), c); len(errs) > 0 {
		t.Fatal(errs)
	}
	named, err = nodeport.Frontends(t.Context(), kernel)
	if err != nil {
		t.Fatal(err)
	}
	got := slices.SortedFunc(maps.Keys(named), model.FrontendKey.Compare)
	slices.SortFunc(want, model.FrontendKey.Compare)
	if !slices.Equal(got, want) {
		t.Errorf("named %v, want %v", got, want)
	}
}
