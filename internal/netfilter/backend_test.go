package netfilter_test

import (
	"context"
	"errors"
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
		rules := key.Kind == netfilter.KindChain || key.Kind == netfilter.KindJump
		if covered[key] == (rules && key.Family == model.IPv4) {
			t.Errorf("%s covered: %v", key, covered[key])
		}
	}
	if _, ok := errors.AsType[*netfilter.ExitError](failed); !ok {
		t.Errorf("error %v", failed)
	}
}
