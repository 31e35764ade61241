package netfilter_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
)

// programs are what each program prints; those not named are not installed.
type programs map[string]string

func (p programs) Run(_ context.Context, _ []byte, program string, _ ...string) ([]byte, error) {
	out, ok := p[program]
	if !ok {
		return nil, errors.New(program + ": not installed")
	}
	return []byte(out), nil
}

func TestDetect(t *testing.T) {
	const empty = "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n"
	const hint = "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n"
	const canary = "*mangle\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n"
	rules := func(n int) string { return empty + strings.Repeat("-A INPUT -j DROP\n", n) }
	for _, c := range []struct {
		name string
		p    programs
		want netfilter.Backend
	}{
		{"kubelet's hint in nft", programs{"iptables-nft-save": hint, "iptables-legacy-save": rules(9)}, netfilter.NFT},
		{"older kubelet's in legacy", programs{"iptables-nft-save": rules(9), "iptables-legacy-save": canary}, netfilter.Legacy},
		{"hint in IPv6 only", programs{"iptables-nft-save": empty, "ip6tables-nft-save": hint, "iptables-legacy-save": rules(9)}, netfilter.NFT},
		{"more rules in legacy", programs{"iptables-nft-save": rules(1), "iptables-legacy-save": rules(2)}, netfilter.Legacy},
		{"more rules in nft", programs{"iptables-nft-save": rules(3), "iptables-legacy-save": rules(2)}, netfilter.NFT},
		{"no rules anywhere", programs{"iptables-nft-save": empty, "iptables-legacy-save": empty, "iptables-save": empty}, netfilter.HostDefault},
		{"only the plain name", programs{"iptables-save": empty}, netfilter.HostDefault},
	} {
		if got, err := netfilter.Detect(t.Context(), c.p); err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
	}
	if _, err := netfilter.Detect(t.Context(), programs{}); err == nil || !strings.Contains(err.Error(), "not installed") {
		t.Errorf("without iptables: %v", err)
	}
}

func TestUsable(t *testing.T) {
	k := netfiltertest.New()
	if got, err := netfilter.Usable(t.Context(), k, "", families()); err != nil || !slices.Equal(got, families()) {
		t.Errorf("both: %v, %v", got, err)
	}
	if dump := k.Dump(); dump != "" {
		t.Errorf("left behind: %s", dump)
	}
	k.Off = map[model.Family]bool{model.IPv6: true}
	got, err := netfilter.Usable(t.Context(), k, "", families())
	if !slices.Equal(got, []model.Family{model.IPv4}) || err == nil || !strings.Contains(err.Error(), "IPv6 is not served") {
		t.Errorf("without IPv6: %v, %v", got, err)
	}
}

// TestLackingTable: the error names the table and what to load, and what is in
// the other tables is written and listed all the same.
func TestLackingTable(t *testing.T) {
	k := netfiltertest.New()
	k.Lacks = map[netfilter.Table]bool{netfilter.Mangle: true}
	for backend, module := range map[netfilter.Backend]string{
		netfilter.Legacy: "kernel module ip6table_mangle loaded?", netfilter.NFT: "kernel module nf_tables loaded?", netfilter.HostDefault: "kernel module ip6table_mangle (or nf_tables",
	} {
		usable, err := netfilter.Usable(t.Context(), k, backend, families())
		wantLacking(t, usable, err, module)
	}
	target := netfilter.New(netfilter.Options{Runner: k, Sets: k, Backend: netfilter.Legacy, Families: families()})
	want := sample()
	mangle := func(key netfilter.Key) bool {
		return key.Kind >= netfilter.KindChain && key.Table == netfilter.Mangle
	}
	errs := target.Apply(t.Context(), difference(want, state{}))
	var failed error
	have := state{}
	for section, err := range target.List(t.Context(), nil) {
		failed = err
		maps.Copy(have, section.Present)
	}
	for key := range want {
		if _, there := have[key]; there == mangle(key) || (errs[key] != nil) != mangle(key) {
			t.Errorf("%s: there %v, error %v", key, there, errs[key])
		}
	}
	for _, part := range []string{"list IPv4 table mangle", "iptable_mangle", "list IPv6 table mangle", "ip6table_mangle"} {
		if failed == nil || !strings.Contains(failed.Error(), part) {
			t.Errorf("%q is not in %v", part, failed)
		}
	}
}

// wantLacking checks that no family is usable for want of the table mangle
// alone, and that the error of IPv6 names the remedy.
func wantLacking(t *testing.T, usable []model.Family, err error, module string) {
	t.Helper()
	if len(usable) > 0 || err == nil {
		t.Fatalf("usable %v, %v", usable, err)
	}
	for _, part := range []string{"IPv4 is not served", "IPv6 is not served", "table mangle: ", module} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %v", part, err)
		}
	}
	for _, other := range []string{"table nat", "table filter"} {
		if strings.Contains(err.Error(), other) {
			t.Errorf("%q is in %v", other, err)
		}
	}
}

// torn ends what a program prints of all tables behind a word.
type torn struct {
	netfilter.Runner
	behind string
}

func (r torn) Run(ctx context.Context, stdin []byte, program string, args ...string) ([]byte, error) {
	out, err := r.Runner.Run(ctx, stdin, program, args...)
	if i := strings.Index(string(out), r.behind); i >= 0 && len(args) == 0 {
		out = out[:i+len(r.behind)]
	}
	return out, err
}

// TestTornListing: a table that was not printed to its end is read again by
// itself, and nothing of it is taken for gone.
func TestTornListing(t *testing.T) {
	k := netfiltertest.New()
	newRig(subject{Runner: k, Sets: k, count: k.Count}).reconcile(t, sample())
	for _, behind := range []string{"*mangle\n", ":SLUICE-X", "-A PREROUTING", "*nat", "COMMIT"} {
		r := newRig(subject{Runner: torn{k, behind}, Sets: k, count: k.Count})
		r.want(t, sample())
	}
}

// TestOneFamilyFails: a family that cannot be listed keeps the other from
// nothing.
func TestOneFamilyFails(t *testing.T) {
	k := netfiltertest.New()
	target := netfilter.New(netfilter.Options{Runner: k, Sets: k, Families: families()})
	want := sample()
	k.Off = map[model.Family]bool{model.IPv4: true}
	for key, err := range target.Apply(t.Context(), difference(want, state{})) {
		if key.Family != model.IPv4 || key.Kind == netfilter.KindSet || key.Kind == netfilter.KindMember {
			t.Errorf("%s: %v", key, err)
		}
	}
	var failed error
	covered := map[netfilter.Key]bool{}
	for section, err := range target.List(t.Context(), nil) {
		if failed != nil {
			t.Error("the listing went on after its error")
		}
		failed = err
		if err == nil {
			for key := range want {
				covered[key] = covered[key] || section.Covers(key)
			}
		}
	}
	for key := range want {
		rules := key.Kind >= netfilter.KindChain
		if covered[key] == (rules && key.Family == model.IPv4) {
			t.Errorf("%s covered: %v", key, covered[key])
		}
	}
	if _, ok := errors.AsType[*netfilter.ExitError](failed); !ok {
		t.Errorf("error %v", failed)
	}
}
