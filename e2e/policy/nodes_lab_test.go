//go:build lab

package policy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"sluice.dev/sluice/e2e/agent"
	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// once tries one connection.
func (w *world) once(t *testing.T, from actor, protocol string, to netip.AddrPort) topo.Outcome {
	t.Helper()
	got, err := w.probers[from].Try(t.Context(), patience, []topo.Probe{{Protocol: protocol, To: to}})
	suite.Must(t, err)
	return got[0]
}

// answered checks that a connection is answered by whom it should, or refused
// if that is nobody; one that comes right in a moment was only late.
func (w *world) answered(t *testing.T, from actor, protocol string, to netip.AddrPort, by string) {
	t.Helper()
	suite.Await(t, lateMost, func() error {
		got := w.once(t, from, protocol, to)
		if by == "" && !isRefusal(got.Err) {
			return fmt.Errorf("%s > %s %s: %v, want a refusal", from, protocol, to, got)
		}
		if by != "" && got.Pod != by {
			return fmt.Errorf("%s > %s %s: %v, want an answer of %s", from, protocol, to, got, by)
		}
		return nil
	})
}

// front makes a Service of type LoadBalancer for pods, with node ports, and
// takes it away when the test ends. See settle.
func (w *world) front(t *testing.T, number int, local bool, ends ...actor) *corev1.Service {
	t.Helper()
	svc := clusterIPService("x", fmt.Sprintf("front-%d", number), []netip.Addr{
		netip.AddrFrom4([4]byte{10, 96, 100, byte(number)}), netip.MustParseAddr(fmt.Sprintf("fd00:10:96::f%02x", number)),
	})
	svc.Spec.Type = corev1.ServiceTypeLoadBalancer
	if local {
		svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}
	svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{
		{IP: fmt.Sprintf("203.0.113.%d", number)}, {IP: fmt.Sprintf("2001:db8:2::%x", number)},
	}
	for i, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP} {
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{
			Name: strings.ToLower(string(protocol)), Protocol: protocol, Port: 8000, TargetPort: intstr.FromInt32(80), NodePort: int32(31000 + 10*number + i),
		})
	}
	var list []agent.Endpoint
	for _, pod := range ends {
		list = append(list, agent.Endpoint{Pod: w.hosts[pod], Node: string(placeOf(pod).host())})
	}
	objects := []agent.Object{svc, agent.Slice(svc, discoveryv1.AddressTypeIPv4, list), agent.Slice(svc, discoveryv1.AddressTypeIPv6, list)}
	suite.Must(t, w.manifests.Write(objects...))
	t.Cleanup(func() { suite.Must(t, w.manifests.Erase(objects...)) })
	return svc
}

// nodePortOf is a Service's frontend on a node.
func (w *world) nodePortOf(svc *corev1.Service, protocol string, node actor, six bool) netip.AddrPort {
	for _, p := range svc.Spec.Ports {
		if p.Name == protocol {
			return netip.AddrPortFrom(w.own(node, six), uint16(p.NodePort))
		}
	}
	return netip.AddrPort{}
}

var protocols = []string{topo.TCP, topo.UDP, topo.SCTP}

// TestNodeServices: a pod without egress reaches nothing of any node, be it by
// the node's address, by one of a Service, or by a node port.
func TestNodeServices(t *testing.T) {
	w := enter(t)
	const ssh = 22
	for _, n := range nodes() {
		for _, protocol := range protocols {
			stop, err := w.hosts[n].Serve(protocol, ssh)
			suite.Must(t, err)
			t.Cleanup(func() { suite.Must(t, stop()) })
		}
	}
	svc := w.front(t, 1, false, "z/a", "z/b")
	ways := func(visit func(name, protocol string, to netip.AddrPort, by string)) {
		for _, six := range []bool{false, true} {
			for _, protocol := range protocols {
				vip := vips("z/a")[0]
				if six {
					vip = vips("z/a")[1]
				}
				for _, n := range nodes() {
					visit("the node", protocol, netip.AddrPortFrom(w.own(n, six), ssh), string(n))
					visit("a node port", protocol, w.nodePortOf(svc, protocol, n, six), "any")
				}
				visit("the node in the pods' network", protocol, netip.AddrPortFrom(w.Gateway(w.Nodes[0], w.own("x/a", six)), ssh), "node1")
				visit("a Service's address", protocol, netip.AddrPortFrom(vip, ssh), "")
				visit("a port that the Service does not have", protocol, netip.AddrPortFrom(vip, 9), "")
				visit("a Service", protocol, netip.AddrPortFrom(vip, 80), "za")
			}
		}
	}
	w.apply(t, policyCase{})
	ways(func(name, protocol string, to netip.AddrPort, by string) {
		if by == "any" {
			if got := w.once(t, "x/a", protocol, to); got.Err != nil {
				t.Errorf("without policies: %s %s %s: %v", name, protocol, to, got.Err)
			}
			return
		}
		w.answered(t, "x/a", protocol, to, by)
	})
	w.apply(t, policyCase{policies: `x: {podSelector: {}, policyTypes: [Egress]}`, want: "- x/* > *"})
	ways(func(name, protocol string, to netip.AddrPort, _ string) {
		if got := w.once(t, "x/a", protocol, to); !isRefusal(got.Err) {
			t.Errorf("without egress: %s %s %s: %v, want a refusal", name, protocol, to, got)
		}
	})
	// What a rule names is reached, the rest of the node is not.
	w.apply(t, policyCase{policies: `x: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 192.168.10.11/32}}], ports: [{port: 22}]}]}`})
	w.answered(t, "x/a", topo.TCP, netip.AddrPortFrom(w.own("node1", false), ssh), "node1")
	w.answered(t, "x/a", topo.UDP, netip.AddrPortFrom(w.own("node1", false), ssh), "")
	w.answered(t, "x/a", topo.TCP, netip.AddrPortFrom(w.own("node1", false), 80), "")
	w.answered(t, "x/a", topo.TCP, netip.AddrPortFrom(w.own("node2", false), ssh), "")
}

// TestFromOutside: an ipBlock means the client where the node that was reached
// has the endpoint, or under externalTrafficPolicy Local; else the endpoint's
// node sees the node that was reached.
func TestFromOutside(t *testing.T) {
	w := enter(t)
	cluster, local := w.front(t, 1, false, "x/a"), w.front(t, 2, true, "x/a")
	var script strings.Builder
	for i, to := range []string{"203.0.113.1", "203.0.113.2", "2001:db8:2::1", "2001:db8:2::2"} {
		via := w.own([]actor{"node2", "node1"}[i%2], i > 1)
		fmt.Fprintf(&script, "ip route add %s via %s\n", to, via)
	}
	_, err := w.Router.Tool("sh", "-ec", script.String())
	suite.Must(t, err)
	t.Cleanup(func() {
		_, err := w.Router.Tool("sh", "-ec", strings.ReplaceAll(script.String(), " add ", " del "))
		suite.Must(t, err)
	})
	type by struct{ here, there, local bool } // whether it is let in at the endpoint's node, at the other, and under Local
	for _, c := range []struct {
		name, policies string
		want           by
	}{
		{"no policy", "", by{true, true, true}},
		{"the client only", `x: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.168.20.2/32}}, {ipBlock: {cidr: "fd00:192:168:20::2/128"}}]}]}`, by{true, false, true}},
		{"the other node only", `x: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.168.10.12/32}}, {ipBlock: {cidr: "fd00:192:168:10::c/128"}}]}]}`, by{false, true, false}},
		{"all but the client", `x: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [192.168.20.0/24]}}, {ipBlock: {cidr: "::/0", except: ["fd00:192:168:20::/64"]}}]}]}`, by{false, true, false}},
		{"the Service's port, which is not the pod's", `x: {podSelector: {}, ingress: [{ports: [{port: 8000}]}]}`, by{}},
		{"nobody", `x: {podSelector: {}, ingress: []}`, by{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.apply(t, policyCase{policies: c.policies})
			whom := func(allowed bool) string {
				if allowed {
					return "xa"
				}
				return ""
			}
			for family, six := range []bool{false, true} {
				for _, protocol := range protocols {
					if strings.HasPrefix(c.name, "the Service's") && protocol != topo.TCP {
						continue
					}
					balancer := func(svc *corev1.Service) netip.AddrPort {
						return netip.AddrPortFrom(netip.MustParseAddr(svc.Status.LoadBalancer.Ingress[family].IP), 8000)
					}
					w.answered(t, client, protocol, w.nodePortOf(cluster, protocol, "node1", six), whom(c.want.here))
					w.answered(t, client, protocol, w.nodePortOf(cluster, protocol, "node2", six), whom(c.want.there))
					w.answered(t, client, protocol, w.nodePortOf(local, protocol, "node1", six), whom(c.want.local))
					w.answered(t, client, protocol, balancer(cluster), whom(c.want.there)) // by way of node2
					w.answered(t, client, protocol, balancer(local), whom(c.want.local))   // by way of node1
				}
			}
		})
	}
}

// ear hears what comes to a pod by UDP, whoever it says it is from.
type ear struct {
	mu   sync.Mutex
	said map[string]netip.Addr // who it came from, by word
}

const earPort = 91

func (w *world) listen(t *testing.T, pod actor) *ear {
	t.Helper()
	e := &ear{said: map[string]netip.Addr{}}
	var conn net.PacketConn
	suite.Must(t, w.hosts[pod].Do(func() (err error) {
		var lc net.ListenConfig
		conn, err = lc.ListenPacket(context.Background(), topo.UDP, fmt.Sprintf(":%d", earPort))
		return err
	}))
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 256)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			e.mu.Lock()
			e.said[string(buf[:n])] = netip.MustParseAddrPort(from.String()).Addr().Unmap()
			e.mu.Unlock()
		}
	}()
	return e
}

func (e *ear) heard(word string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, ok := e.said[word]
	return ok
}

// say sends a word, maybe with the source address of somebody else.
func (w *world) say(t *testing.T, from actor, source netip.Addr, to netip.AddrPort, word string) {
	t.Helper()
	conn, err := w.hosts[from].DialFrom(t.Context(), topo.UDP, netip.AddrPortFrom(source, 0), to)
	suite.Must(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte(word))
	suite.Must(t, err)
}

// TestSpoofed: a pod that says that it is the node, or a virtual address, does
// not ride the exemption of these.
func TestSpoofed(t *testing.T) {
	w := enter(t)
	e := w.listen(t, "x/a")
	svc := clusterIPService("x", "ear", []netip.Addr{netip.MustParseAddr("10.96.100.9"), netip.MustParseAddr("fd00:10:96::f09")})
	svc.Spec.Ports = []corev1.ServicePort{{Protocol: corev1.ProtocolUDP, Port: earPort, TargetPort: intstr.FromInt32(earPort)}}
	end := []agent.Endpoint{{Pod: w.hosts["x/a"], Node: "node1"}}
	objects := []agent.Object{svc, agent.Slice(svc, discoveryv1.AddressTypeIPv4, end), agent.Slice(svc, discoveryv1.AddressTypeIPv6, end)}
	suite.Must(t, w.manifests.Write(objects...))
	t.Cleanup(func() { suite.Must(t, w.manifests.Erase(objects...)) })

	words := 0
	var never []string // words that must not come
	// tell sends a word that must not come, then one by a way that is open to
	// it and not shorter.
	tell := func(name string, from actor, source netip.Addr, to netip.AddrPort) {
		words++
		word, after := fmt.Sprintf("word-%d, %s", words, name), fmt.Sprintf("after-%d", words)
		never = append(never, word)
		w.say(t, from, source, to, word)
		w.awaitWord(t, e, "node1", netip.AddrPortFrom(w.own("x/a", to.Addr().Is6()), earPort), after)
	}
	every := func(visit func(name string, from actor, source netip.Addr, to netip.AddrPort)) {
		for _, from := range []actor{"y/b", "z/b"} {
			for family, like := range []netip.Addr{w.hosts["x/a"].V4, w.hosts["x/a"].V6} {
				vip := netip.MustParseAddr(svc.Spec.ClusterIPs[family])
				sources := map[string]netip.Addr{
					"itself": {}, "the node": w.own("node1", like.Is6()), "the node in the pods' network": w.Gateway(w.Nodes[0], like),
					"that Service": vip, "another Service": vips("z/c")[family], "another node": w.own("node2", like.Is6()),
				}
				for who, source := range sources {
					for _, to := range []netip.Addr{like, vip} {
						if source != to { // that would not leave the pod
							visit(fmt.Sprintf("%s to %s as %s", from, to, who), from, source, netip.AddrPortFrom(to, earPort))
						}
					}
				}
			}
		}
	}
	w.apply(t, policyCase{})
	every(func(name string, from actor, source netip.Addr, to netip.AddrPort) {
		if !source.IsValid() {
			w.awaitWord(t, e, from, to, name)
		}
	})
	w.apply(t, policyCase{policies: `x: {podSelector: {}, policyTypes: [Ingress]}`, want: "- * > x/*"})
	every(func(name string, from actor, source netip.Addr, to netip.AddrPort) {
		undo := w.pretend(t, from, source)
		defer undo()
		tell(name, from, source, to)
	})
	for _, word := range never {
		if e.heard(word) {
			t.Errorf("x/a is isolated, and heard %q", word)
		}
	}
}

// awaitWord says a word until it is heard.
func (w *world) awaitWord(t *testing.T, e *ear, from actor, to netip.AddrPort, word string) {
	t.Helper()
	suite.Await(t, soon, func() error {
		w.say(t, from, netip.Addr{}, to, word)
		if !e.heard(word) {
			return fmt.Errorf("%q from %s to %s has not come", word, from, to)
		}
		return nil
	})
}

// pretend has a pod take an address for its own.
func (w *world) pretend(t *testing.T, pod actor, source netip.Addr) (undo func()) {
	t.Helper()
	if !source.IsValid() {
		return func() {}
	}
	script := func(verb, options string) {
		t.Helper()
		_, err := w.hosts[pod].Tool("sh", "-ec", fmt.Sprintf("ip addr %s %s/%d dev lo %s", verb, source, source.BitLen(), options))
		suite.Must(t, err)
	}
	options := ""
	if source.Is6() {
		options = "nodad"
	}
	script("add", options)
	return func() { script("del", "") }
}
