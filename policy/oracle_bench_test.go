package policy_test

import (
	"fmt"
	"net/netip"
	"testing"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/policy"
)

// crowd is a cluster of 10,000 pods in 50 namespaces, 200 of them here, with 20
// policies for each namespace, all of which isolate all of its pods.
func crowd() (*policy.Facts, []policy.Packet) {
	f := policy.NewFacts("n0")
	var addrs []netip.Addr
	for i := range 10000 {
		a := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		addrs = append(addrs, a)
		tell(f, model.Pod{
			Name: nameOf(fmt.Sprintf("ns%d/p%d", i%50, i)), UID: fmt.Sprint(i), Node: fmt.Sprintf("n%d", i%50),
			Labels: map[string]string{"app": fmt.Sprintf("app%d", i%100), "tier": "web"}, Addrs: []netip.Addr{a},
			Ports: []model.ContainerPort{{Name: "http", Protocol: model.TCP, Port: 8080}},
		})
	}
	for i := range 1000 {
		tell(f, policyOf(fmt.Sprintf("ns%d/np%d", i%50, i), "tier=web", types("Ingress", "Egress"),
			in(rule(fmt.Sprintf("ns:all app=app%d; 192.0.2.0/24 except 192.0.2.7/32", i%100), "TCP http; UDP 53")), out(rule("ns:all", "TCP http; UDP 53"))))
	}
	var packets []policy.Packet
	for i := range 1000 {
		packets = append(packets, policy.Packet{Src: addrs[i*7%10000], Dst: addrs[i*50%10000], Protocol: model.TCP, Port: 8080})
	}
	return f, packets
}

// TestAllowsHereAllocates: it judges every connection of the node again and
// again.
func TestAllowsHereAllocates(t *testing.T) {
	f, packets := crowd()
	allowed := 0
	allocs := testing.AllocsPerRun(10, func() {
		for _, p := range packets {
			if f.AllowsHere(p, false) {
				allowed++
			}
		}
	})
	if allocs != 0 || allowed == 0 || allowed == 11*len(packets) {
		t.Errorf("%v allocations for %d packets, %d allowed", allocs, len(packets), allowed)
	}
}

func BenchmarkAllowsHere(b *testing.B) {
	f, packets := crowd()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		f.AllowsHere(packets[i%len(packets)], false)
	}
}

func BenchmarkApplyPod(b *testing.B) {
	f, _ := crowd()
	p := podOf("x/a", func(p *model.Pod) { p.Name.Namespace, p.Labels = "ns1", map[string]string{"tier": "web"} })
	for b.Loop() {
		tell(f, p)
	}
}
