//go:build lab

package topo

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// TestProbes: every outcome, in every protocol and family, of many probes at
// once.
func TestProbes(t *testing.T) {
	topology, pods := cluster(t)
	if err := topology.Unlimited(); err != nil {
		t.Fatal(err)
	}
	const answers, refused, silent, nobody = 80, 81, 82, 83
	for _, tool := range []string{"iptables", "ip6tables"} {
		for _, protocol := range []string{TCP, UDP, SCTP} {
			reject := ""
			if protocol == TCP {
				reject = "--reject-with tcp-reset"
			}
			script := fmt.Sprintf("%s -w -A FORWARD -p %s --dport %d -j REJECT %s; %[1]s -w -A FORWARD -p %[2]s --dport %[5]d -j DROP",
				tool, protocol, refused, reject, silent)
			if _, err := topology.Nodes[0].Tool("sh", "-ec", script); err != nil {
				t.Fatal(err)
			}
		}
	}
	var probes []Probe
	for _, protocol := range []string{TCP, UDP, SCTP} {
		for _, server := range pods[1:] {
			if _, err := server.Serve(protocol, answers); err != nil {
				t.Fatal(err)
			}
			for _, to := range []netip.Addr{server.V4, server.V6} {
				for _, port := range []uint16{answers, refused, nobody, answers, refused} {
					for range 20 {
						probes = append(probes, Probe{protocol, netip.AddrPortFrom(to, port)})
					}
				}
			}
		}
	}
	begin := time.Now()
	check := func(probes []Probe, patience time.Duration) {
		t.Helper()
		outcomes, err := pods[0].NewProber().Try(t.Context(), patience, probes)
		if err != nil {
			t.Fatal(err)
		}
		for i, o := range outcomes {
			want := map[uint16]error{answers: nil, refused: syscall.ECONNREFUSED, nobody: syscall.ECONNREFUSED, silent: ErrSilence}[probes[i].To.Port()]
			if !errors.Is(o.Err, want) || want == nil && o.Client.Addr() != pods[0].Addr(probes[i].To.Addr()) {
				t.Errorf("%v: %v %v, want %v", probes[i], o.Answer, o.Err, want)
			}
		}
	}
	check(probes, 5*time.Second)
	t.Logf("%d probes in %v", len(probes), time.Since(begin).Round(time.Millisecond))
	check([]Probe{
		{TCP, netip.AddrPortFrom(pods[1].V4, silent)}, {UDP, netip.AddrPortFrom(pods[1].V6, silent)}, {SCTP, netip.AddrPortFrom(pods[2].V4, silent)},
		{SCTP, netip.AddrPortFrom(pods[2].V4, answers)},
	}, time.Second)
}
