package kubeproxy_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"sluice.dev/sluice/internal/kubeproxy"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
	"sluice.dev/sluice/ipvs"
)

// What kube-proxy leaves of a Service in mode ipvs, and what is the kubelet's.
const rules = `*nat
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
:KUBE-IPVS-FILTER - [0:0]
-A INPUT -j KUBE-FIREWALL
-A INPUT -j KUBE-IPVS-FILTER
COMMIT
`

type world struct {
	*netfiltertest.Kernel
	kubeproxy.Left
	device bool
}

func vs(addr string, p model.Protocol) ipvs.VirtualServer {
	return ipvs.VirtualServer{Addr: netip.MustParseAddrPort(addr), Protocol: p}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{Kernel: netfiltertest.New(), device: true}
	w.Left = kubeproxy.Left{
		Runner: w.Kernel, Sets: w.Kernel, Families: []model.Family{model.IPv4, model.IPv6},
		RemoveDevice: func(context.Context) (was bool, err error) { was, w.device = w.device, false; return was, nil },
	}
	for name, members := range map[string][]string{
		"KUBE-CLUSTER-IP": {"10.96.0.1:443"}, "KUBE-6-CLUSTER-IP": {"[fd00::1]:443"},
		"KUBE-NODE-PORT-SCTP-HASH": {"192.168.10.11:30080"}, "KUBE-6-LOAD-BALANCER-SOURCE-CID": nil, "MINE": {"10.99.0.1:80"},
	} {
		f := model.IPv4
		if strings.Contains(name, "-6-") {
			f = model.IPv6
		}
		none(t, w.Create(t.Context(), []netfilter.Set{{Name: name, Family: f, Type: netfilter.HashIPPort, MaxElem: 8}}))
		for _, m := range members {
			protocol := model.TCP
			if strings.Contains(name, "SCTP") {
				protocol = model.SCTP
			}
			none(t, w.Add(t.Context(), []netfilter.Member{{Set: name, Entry: netfilter.AddrPort(netip.MustParseAddrPort(m), protocol)}}))
		}
	}
	if _, err := w.Run(t.Context(), []byte(rules), "iptables-restore", "--noflush", "--wait=30"); err != nil {
		t.Fatal(err)
	}
	return w
}

func none(t *testing.T, errs []error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// TestServers: what kube-proxy's sets name was made by it, and nothing else.
func TestServers(t *testing.T) {
	theirs, err := newWorld(t).Servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[ipvs.VirtualServer]bool{
		vs("10.96.0.1:443", model.TCP):        true,
		vs("10.96.0.1:443", model.UDP):        false,
		vs("10.96.0.1:9999", model.TCP):       false, // somebody's, at an address of a Service
		vs("[fd00::1]:443", model.TCP):        true,
		vs("192.168.10.11:30080", model.SCTP): true,
		vs("10.0.0.7:30080", model.SCTP):      true, // at every address of the node
		vs("192.168.10.11:30080", model.TCP):  false,
		vs("10.99.0.1:80", model.TCP):         false,
	} {
		if theirs(at) != want {
			t.Errorf("%v: %v, want %v", at, !want, want)
		}
	}
}

// TestRemove: rules go at once; sets and device when no virtual server needs
// them to be known by.
func TestRemove(t *testing.T) {
	w := newWorld(t)
	did, err := w.Remove(t.Context(), []ipvs.VirtualServer{vs("10.99.0.1:80", model.TCP), vs("10.96.0.1:443", model.TCP)})
	if !errors.Is(err, kubeproxy.ErrServers) || !strings.Contains(err.Error(), "10.96.0.1:443") {
		t.Errorf("error %v, want one about the virtual server that drains", err)
	}
	if len(did.Chains.Removed) != 4 || did.Sets != 0 || did.Device || !w.device {
		t.Errorf("%+v", did)
	}
	if dump := w.Dump(); !strings.Contains(dump, "KUBE-FIREWALL") || strings.Contains(dump, "KUBE-SERVICES") {
		t.Errorf("rules are\n%s", dump)
	}
	did, err = w.Remove(t.Context(), []ipvs.VirtualServer{vs("10.99.0.1:80", model.TCP)})
	if err != nil || len(did.Chains.Removed) != 0 || did.Sets != 4 || !did.Device || w.device {
		t.Errorf("%+v, %v", did, err)
	}
	sets, err := w.Headers(t.Context())
	if err != nil || len(sets) != 1 || sets[0].Name != "MINE" {
		t.Errorf("sets %v, %v", sets, err)
	}
	if did, err = w.Remove(t.Context(), nil); err != nil || !did.Nothing() {
		t.Errorf("again: %+v, %v", did, err)
	}
}

// TestRemoveAgain: an error leaves what can be removed by the next attempt.
func TestRemoveAgain(t *testing.T) {
	w := newWorld(t)
	broken := errors.New("no device today")
	remove := w.RemoveDevice
	w.RemoveDevice = func(context.Context) (bool, error) { return false, broken }
	if _, err := w.Remove(t.Context(), nil); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	w.RemoveDevice = remove
	did, err := w.Remove(t.Context(), nil)
	if err != nil || !did.Device {
		t.Errorf("%+v, %v", did, err)
	}
}
