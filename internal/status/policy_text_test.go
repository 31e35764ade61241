package status

import (
	"net/netip"
	"strings"
	"testing"

	"sluice.dev/sluice/policy"
)

func TestADenialAsALine(t *testing.T) {
	at := netip.MustParseAddrPort
	for want, d := range map[string]Denied{
		"1970-01-12T13:46:40Z n1 ingress: shop/web-0 10.244.1.5 -> shop/db-0 10.244.1.7:5433 TCP through shop/db 10.96.0.7:5432; isolated by shop/a, shop/b: no rule (and 3 like it before)\n": {Denial: policy.Denial{
			Time: t0.UTC(), Node: "n1", Side: policy.DeniedIngress, Protocol: "TCP", Src: at("10.244.1.5:40000"), Dst: at("10.244.1.7:5433"),
			SrcPod: "shop/web-0", DstPod: "shop/db-0", Dialled: at("10.96.0.7:5432"), Services: []string{"shop/db"},
			Policies: []string{"shop/a", "shop/b"}, Why: "no rule", Suppressed: 3,
		}},
		"1970-01-12T13:46:40Z ingress: 198.51.100.1 -> shop/db-0 [fd00::7]:80 UDP through shop/x or shop/y; two lines\n": {Denial: policy.Denial{
			Time: t0.UTC(), Side: policy.DeniedIngress, Protocol: "UDP", Src: at("198.51.100.1:40000"), Dst: at("[fd00::7]:80"),
			DstPod: "shop/db-0", Services: []string{"shop/x", "shop/y"}, Why: "two\nlines",
		}},
		"(5 more came too fast to be shown)\n1970-01-12T13:46:40Z egress: shop/web-0 10.244.1.5 -> 8.8.8.8 protocol 1; isolated by shop/a: no\n": {Missed: 5, Denial: policy.Denial{
			Time: t0.UTC(), Side: policy.DeniedEgress, Protocol: "protocol 1", Src: at("10.244.1.5:0"), Dst: at("8.8.8.8:0"),
			SrcPod: "shop/web-0", Policies: []string{"shop/a"}, Why: "no",
		}},
	} {
		var got strings.Builder
		if err := WriteDenied(&got, d); err != nil || got.String() != want {
			t.Errorf("%v\n%swant\n%s", err, &got, want)
		}
	}
}
