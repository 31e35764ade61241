//go:build lab

package services

import (
	"errors"
	"strings"
	"testing"

	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// TestDrift: what somebody else changes in our tables is put right by the next
// audit, whatever it was.
func TestDrift(t *testing.T) {
	w := enter(t)
	n := w.nodes[0]
	a := w.create(t, "drift", ready(w.web[:2]...), everything)
	a.balance(t, balancerIPs...)
	w.follows(t, a)
	w.settled(t)
	was := suite.Tables(t, n.Host)
	at4, at6 := a.at(t, n, clusterIP, "tcp", n.V4), a.at(t, n, clusterIP, "tcp", n.V6)
	words := strings.NewReplacer(
		"AT4", at4.String(), "AT6", at6.String(), "VIP4", at4.Addr().String(), "VIP6", at6.Addr().String(),
		"WEB4", w.web[0].V4.String()+":8080", "WEB6", "["+w.web[0].V6.String()+"]:8080",
	)
	drift := func(t *testing.T) float64 {
		t.Helper()
		keys, err := n.Agent.Metric(t.Context(), "sluice_table_drift_total", nil)
		suite.Must(t, err)
		return keys
	}
	for _, row := range []struct{ name, script string }{
		{"destination removed", "ipvsadm -d -t AT4 -r WEB4; ipvsadm -d -t AT6 -r WEB6"},
		{"destination quiesced and another added", "ipvsadm -e -t AT4 -r WEB4 -m -w 0; ipvsadm -a -t AT4 -r 10.99.0.9:1 -m"},
		{"virtual server removed", "ipvsadm -D -t AT4; ipvsadm -D -t AT6"},
		{"scheduler changed", "ipvsadm -E -t AT4 -s wlc -p 60"},
		{"set members removed", "ipset del SLUICE-CLUSTER-IP VIP4,tcp:80; ipset flush SLUICE-VIPS"},
		{"set member added", "ipset add SLUICE-VIPS 10.99.0.8"},
		{"address removed", "ip addr del VIP4/32 dev sluice0; ip -6 route del local VIP6 table local"},
		{"address added", "ip addr add 10.99.0.5/32 dev sluice0"},
		{"device taken down and up", "ip link set sluice0 down; ip link set sluice0 up"},
		{"device removed", "ip link del sluice0"},
		{"rule removed", "iptables -w -t nat -D SLUICE-SERVICES 1; ip6tables -w -D SLUICE-INPUT 2"},
		{"jump removed", "iptables -w -t nat -D PREROUTING 1; ip6tables -w -D INPUT 1"},
		{"rule added", "iptables -w -I SLUICE-INPUT -p tcp --dport 80 -j DROP"},
		{"everything at once", "ipvsadm -C; iptables -w -F SLUICE-INPUT; ip addr flush dev sluice0; " +
			"for set in $(ipset list -n | grep SLUICE); do ipset flush $set; done;" + topo.ForeignServers},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := drift(t)
			byHand(t, n.Host, words.Replace(row.script))
			suite.Await(t, 5*auditPeriod, func() error {
				if drift(t) == before {
					return errors.New("sluice counts no drift")
				}
				return nil
			})
			suite.Await(t, 5*auditPeriod, func() error { return was.Same(n.Host) })
			answers(t, w.near, topo.TCP, at4, w.web[:2], nil)
			answers(t, w.near, topo.TCP, at6, w.web[:2], nil)
		})
	}
}
