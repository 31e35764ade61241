package nodeport_test

import (
	"maps"
	"net/netip"
	"strings"
	"testing"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
	"sluice.dev/sluice/nodeport"
)

// world is a node with one Service, in one family.
type world struct {
	family                            model.Family
	node, pod, client                 netip.Addr // pod: an endpoint on this node
	clusterIP, nodePort, external, lb netip.AddrPort
	pods                              netip.Prefix
	localEndpoint, remoteEndpoint     netip.AddrPort
}

func worlds() []world {
	port := netip.MustParseAddrPort
	return []world{
		{
			family: model.IPv4,
			node:   netip.MustParseAddr("192.0.2.10"), pod: netip.MustParseAddr("10.1.0.5"), client: netip.MustParseAddr("203.0.113.9"),
			clusterIP: port("10.96.0.10:80"), nodePort: port("192.0.2.10:30080"), external: port("198.51.100.1:80"), lb: port("198.51.100.2:80"),
			pods:          netip.MustParsePrefix("10.1.0.0/16"),
			localEndpoint: port("10.1.0.6:8080"), remoteEndpoint: port("10.1.7.6:8080"),
		},
		{
			family: model.IPv6,
			node:   netip.MustParseAddr("2001:db8::10"), pod: netip.MustParseAddr("fd00:1::5"), client: netip.MustParseAddr("2001:db8:f::9"),
			clusterIP: port("[fd00:96::10]:80"), nodePort: port("[2001:db8::10]:30080"), external: port("[2001:db8:1::1]:80"), lb: port("[2001:db8:1::2]:80"),
			pods:          netip.MustParsePrefix("fd00:1::/32"),
			localEndpoint: port("[fd00:1::6]:8080"), remoteEndpoint: port("[fd00:1:7::6]:8080"),
		},
	}
}

// frontends are the Service's, all over TCP.
func (w world) frontends() []model.Frontend {
	var out []model.Frontend
	for kind, at := range []netip.AddrPort{w.clusterIP, w.nodePort, w.external, w.lb} {
		f := model.Frontend{
			FrontendKey: model.FrontendKey{Addr: at, Protocol: model.TCP},
			Kind:        model.FrontendKind(kind),
			SourceIP:    w.node,
			Cluster: []model.Backend{
				{Addr: w.localEndpoint, Local: true},
				{Addr: netip.AddrPortFrom(w.pod, 8080), Local: true},
				{Addr: w.remoteEndpoint},
			},
		}
		out = append(out, f)
	}
	return out
}

// host is the node with every frontend served by one endpoint.
func (w world) host(endpoint netip.AddrPort) netfiltertest.Host {
	h := netfiltertest.Host{Local: []netip.Addr{w.node}, Servers: map[model.FrontendKey]netip.AddrPort{}}
	for _, f := range w.frontends() {
		h.Servers[f.FrontendKey] = endpoint
		if f.Bound() {
			h.Local = append(h.Local, f.Addr.Addr())
		}
	}
	return h
}

// kernel holds the rules and sets of the world, written by the Target.
func (w world) kernel(t *testing.T, cfg nodeport.Config) *netfiltertest.Kernel {
	t.Helper()
	k := netfiltertest.New()
	want := nodeport.Static(cfg)
	maps.Copy(want, nodeport.Desired(model.View{Frontends: w.frontends()}))
	target := netfilter.New(netfilter.Options{Runner: k, Sets: k, Families: cfg.Families})
	for key, err := range target.Apply(t.Context(), difference(want, nil)) {
		t.Fatalf("%s: %v", key, err)
	}
	return k
}

func (w world) config(detector, all bool) nodeport.Config {
	cfg := nodeport.Config{Families: []model.Family{w.family}, MasqueradeAll: all}
	if detector {
		cfg.ClusterCIDRs = []netip.Prefix{w.pods}
	}
	return cfg
}

// TestHairpin: an endpoint that meets itself has to see another address.
func TestHairpin(t *testing.T) {
	for _, w := range worlds() {
		for _, detector := range []bool{true, false} {
			k := w.kernel(t, w.config(detector, false))
			self := netip.AddrPortFrom(w.pod, 8080)
			p := netfiltertest.Packet{Src: netip.AddrPortFrom(w.pod, 40000), Dst: w.clusterIP, Protocol: model.TCP}
			if got := k.Trace(w.host(self), p); !got.Masqueraded || got.Dst != self {
				t.Errorf("%s, through the Service: %s", w.family, got)
			}
			if got := k.Trace(w.host(w.localEndpoint), p); got.Masqueraded {
				t.Errorf("%s, to another endpoint: %s", w.family, got)
			}
		}
	}
}

// TestGuard: an address of a Service answers on its ports only, the node's own
// addresses on whatever listens.
func TestGuard(t *testing.T) {
	for _, w := range worlds() {
		k := w.kernel(t, w.config(true, false))
		icmp := netfiltertest.ICMP
		if w.family == model.IPv6 {
			icmp = netfiltertest.ICMPv6
		}
		at := func(a netip.AddrPort, port uint16) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), port) }
		for _, row := range []struct {
			what string
			p    netfiltertest.Packet
			want netfiltertest.Fate
		}{
			{"ClusterIP, other port", netfiltertest.Packet{Dst: at(w.clusterIP, 22), Protocol: model.TCP}, netfiltertest.Rejected},
			{"ClusterIP, other protocol", netfiltertest.Packet{Dst: w.clusterIP, Protocol: model.UDP}, netfiltertest.Rejected},
			{"externalIP, other port", netfiltertest.Packet{Dst: at(w.external, 22), Protocol: model.TCP}, netfiltertest.Rejected},
			{"LB IP, other port", netfiltertest.Packet{Dst: at(w.lb, 22), Protocol: model.UDP}, netfiltertest.Rejected},
			{"ClusterIP, NodePort's number", netfiltertest.Packet{Dst: at(w.clusterIP, w.nodePort.Port()), Protocol: model.TCP}, netfiltertest.Rejected},
			{"ClusterIP, untracked", netfiltertest.Packet{Dst: at(w.clusterIP, 22), Protocol: model.TCP, State: netfilter.StateUntracked}, netfiltertest.Rejected},
			{"ClusterIP, served port", netfiltertest.Packet{Dst: w.clusterIP, Protocol: model.TCP}, netfiltertest.Sent},
			{"NodePort", netfiltertest.Packet{Dst: w.nodePort, Protocol: model.TCP}, netfiltertest.Sent},
			{"ping", netfiltertest.Packet{Dst: at(w.clusterIP, 0), Protocol: icmp, Echo: true}, netfiltertest.ToProcess},
			{"answer to the node", netfiltertest.Packet{Dst: at(w.clusterIP, 40001), Protocol: model.TCP, State: netfilter.StateEstablished}, netfiltertest.ToProcess},
			{"ICMP error", netfiltertest.Packet{Dst: at(w.clusterIP, 0), Protocol: icmp, State: netfilter.StateRelated}, netfiltertest.ToProcess},
			{"node's own listener", netfiltertest.Packet{Dst: netip.AddrPortFrom(w.node, 22), Protocol: model.TCP}, netfiltertest.ToProcess},
			{"node, NodePort over UDP", netfiltertest.Packet{Dst: w.nodePort, Protocol: model.UDP}, netfiltertest.ToProcess},
		} {
			for from, src := range map[string]netip.Addr{"pod": w.pod, "external": w.client, "node": w.node} {
				p := row.p
				p.Src, p.FromNode = netip.AddrPortFrom(src, 40000), from == "node"
				if got := k.Trace(w.host(w.remoteEndpoint), p); got.Fate != row.want {
					t.Errorf("%s, %s from %s: want %q\n%s", w.family, row.what, from, row.want, got)
				}
			}
		}
	}
}

// TestForward: a node that drops what it forwards lets answers and what we
// marked through, and nothing else.
func TestForward(t *testing.T) {
	for _, w := range worlds() {
		k := w.kernel(t, w.config(true, false))
		program := "iptables-restore"
		if w.family == model.IPv6 {
			program = "ip6tables-restore"
		}
		if _, err := k.Run(t.Context(), []byte("*filter\n-A FORWARD -j DROP\nCOMMIT\n"), program, "--noflush"); err != nil {
			t.Fatal(err)
		}
		p := netfiltertest.Packet{Src: w.remoteEndpoint, Dst: netip.AddrPortFrom(w.pod, 40000), Protocol: model.TCP}
		for _, c := range []struct {
			mark  uint32
			state netfilter.State
			want  netfiltertest.Fate
		}{
			{0, netfilter.StateNew, netfiltertest.Dropped},
			{0, netfilter.StateEstablished, netfiltertest.Sent},
			{0, netfilter.StateRelated, netfiltertest.Sent},
			{nodeport.DefaultMark, netfilter.StateNew, netfiltertest.Sent},
			{1, netfilter.StateNew, netfiltertest.Dropped},
		} {
			p.Mark, p.State = c.mark, c.state
			if got := k.Trace(w.host(w.remoteEndpoint), p); got.Fate != c.want {
				t.Errorf("mark %#x state %d: want %q\n%s", c.mark, c.state, c.want, got)
			}
		}
	}
}

// TestMark: another bit is used where it is configured, and no other bit of a
// packet's mark ever changes.
func TestMark(t *testing.T) {
	w := worlds()[0]
	cfg := w.config(true, false)
	cfg.Mark = 1 << 5
	k := w.kernel(t, cfg)
	got := k.Trace(w.host(w.remoteEndpoint), netfiltertest.Packet{
		Src: netip.AddrPortFrom(w.client, 4000), Dst: w.nodePort, Protocol: model.TCP, Mark: nodeport.DefaultMark | 1,
	})
	if !got.Masqueraded || got.Mark != nodeport.DefaultMark|1 || !strings.Contains(got.String(), "0x20/0x20") {
		t.Errorf("mark %#x\n%s", got.Mark, got)
	}
}

// TestRulesAreStatic: a thousand Services more change no rule.
func TestRulesAreStatic(t *testing.T) {
	w := worlds()[0]
	count := func(k netfilter.Key) bool { return k.Kind != netfilter.KindMember }
	for i := range 1000 {
		f := w.frontends()[0]
		f.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), 80)
		for k := range nodeport.Desired(model.View{Frontends: []model.Frontend{f}}) {
			if count(k) {
				t.Fatalf("a Service wants %s", k)
			}
		}
	}
}

// TestDump shows everything of one Service, as an operator would see it.
func TestDump(t *testing.T) {
	w := worlds()[0]
	want := `set SLUICE-ALLOWED hash:ip,port,net
set SLUICE-CLUSTER-IP hash:ip,port
  10.96.0.10,tcp:80
set SLUICE-DROP hash:ip,port
set SLUICE-EXTERNAL hash:ip,port
  192.0.2.10,tcp:30080
  198.51.100.1,tcp:80
  198.51.100.2,tcp:80
set SLUICE-HAIRPIN hash:ip,port,ip
  10.1.0.5,tcp:8080,10.1.0.5
  10.1.0.6,tcp:8080,10.1.0.6
set SLUICE-HEALTH hash:ip,port
set SLUICE-LOCAL hash:ip,port
set SLUICE-PODS hash:net
  10.1.0.0/16
set SLUICE-RANGED hash:ip,port
set SLUICE-REJECT hash:ip,port
set SLUICE-SHORTCUT hash:ip,port
set SLUICE-VIPS hash:ip
  10.96.0.10
  198.51.100.1
  198.51.100.2
IPv4 nat OUTPUT
  -j SLUICE-OUTPUT
IPv4 nat POSTROUTING
  -j SLUICE-POSTROUTING
IPv4 nat PREROUTING
  -j SLUICE-SERVICES
IPv4 nat SLUICE-OUTPUT
  -m set --match-set SLUICE-LOCAL dst,dst -j MARK --set-xmark 0x4000/0x4000
  -m set --match-set SLUICE-LOCAL dst,dst -j SLUICE-SHORTCUTS
  -j SLUICE-SERVICES
IPv4 nat SLUICE-POSTROUTING
  -m set --match-set SLUICE-HAIRPIN dst,dst,src -j MASQUERADE --random-fully
  -m mark ! --mark 0x4000/0x4000 -j RETURN
  -j MARK --set-xmark 0x0/0x4000
  -j MASQUERADE --random-fully
IPv4 nat SLUICE-SERVICES
  -m set --match-set SLUICE-CLUSTER-IP dst,dst -m set ! --match-set SLUICE-PODS src -j MARK --set-xmark 0x4000/0x4000
  -m set --match-set SLUICE-EXTERNAL dst,dst -m set ! --match-set SLUICE-LOCAL dst,dst -j MARK --set-xmark 0x4000/0x4000
  -m set --match-set SLUICE-LOCAL dst,dst -m set --match-set SLUICE-PODS src -j SLUICE-SHORTCUTS
IPv4 nat SLUICE-SHORTCUTS
IPv4 filter FORWARD
  -j SLUICE-FORWARD
IPv4 filter INPUT
  -j SLUICE-INPUT
IPv4 filter SLUICE-FORWARD
  -m mark --mark 0x4000/0x4000 -j ACCEPT
  -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
IPv4 filter SLUICE-INPUT
  -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
  -p tcp -m set --match-set SLUICE-HEALTH dst,dst -j ACCEPT
  -m set --match-set SLUICE-DROP dst,dst -m conntrack --ctstate NEW,UNTRACKED -j DROP
  -p tcp -m set --match-set SLUICE-REJECT dst,dst -m conntrack --ctstate NEW,UNTRACKED -j REJECT --reject-with tcp-reset
  -m set --match-set SLUICE-REJECT dst,dst -m conntrack --ctstate NEW,UNTRACKED -j REJECT --reject-with icmp-port-unreachable
  -m set ! --match-set SLUICE-VIPS dst -j RETURN
  -m set --match-set SLUICE-CLUSTER-IP dst,dst -j RETURN
  -m set --match-set SLUICE-EXTERNAL dst,dst -j RETURN
  -m set --match-set SLUICE-SHORTCUT dst,dst -m conntrack --ctstate DNAT -j RETURN
  -p icmp -m icmp --icmp-type 8 -j RETURN
  -p tcp -m conntrack --ctstate NEW,UNTRACKED -j REJECT --reject-with tcp-reset
  -m conntrack --ctstate NEW,UNTRACKED -j REJECT --reject-with icmp-port-unreachable
IPv4 mangle OUTPUT
  -j SLUICE-FIREWALL
IPv4 mangle PREROUTING
  -j SLUICE-FIREWALL
IPv4 mangle SLUICE-FIREWALL
  -m set --match-set SLUICE-RANGED dst,dst -m set ! --match-set SLUICE-ALLOWED dst,dst,src -j DROP
`
	var got strings.Builder
	for line := range strings.Lines(w.kernel(t, w.config(true, false)).Dump()) {
		// Comments are package netfilter's.
		if words := strings.Fields(line); len(words) > 4 && words[2] == "--comment" {
			line = "  " + strings.Join(words[4:], " ") + "\n"
		}
		got.WriteString(line)
	}
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}
