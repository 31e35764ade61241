//go:build lab

package policy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"sluice.dev/sluice/e2e/agent"
	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// sinkPort is where sink serves.
const sinkPort = 92

// sink has a pod take all that clients send over TCP, and tell them how much it
// was when they are done.
func (w *world) sink(t *testing.T, pod actor) {
	t.Helper()
	var l net.Listener
	suite.Must(t, w.hosts[pod].Do(func() (err error) {
		var lc net.ListenConfig
		l, err = lc.Listen(context.Background(), topo.TCP, fmt.Sprintf(":%d", sinkPort))
		return err
	}))
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				n, _ := io.Copy(io.Discard, conn)
				fmt.Fprint(conn, n)
			}()
		}
	}()
}

// TestPathMTU: an isolated pod hears that its packets are too big for the way,
// directly and through a virtual address.
func TestPathMTU(t *testing.T) {
	w := enter(t)
	w.sink(t, "x/b")
	svc := clusterIPService("x", "sink", []netip.Addr{netip.MustParseAddr("10.96.100.8"), netip.MustParseAddr("fd00:10:96::f08")})
	svc.Spec.Ports = []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: 8080, TargetPort: intstr.FromInt32(sinkPort)}}
	end := []agent.Endpoint{{Pod: w.hosts["x/b"], Node: "node2"}}
	objects := []agent.Object{svc, agent.Slice(svc, discoveryv1.AddressTypeIPv4, end), agent.Slice(svc, discoveryv1.AddressTypeIPv6, end)}
	suite.Must(t, w.manifests.Write(objects...))
	t.Cleanup(func() { suite.Must(t, w.manifests.Erase(objects...)) })
	w.apply(t, policyCase{policies: `x: {podSelector: {}, policyTypes: [Ingress, Egress]}
x: {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {pod: b}}}], ports: [{port: 92}]}]}
x: {podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{podSelector: {matchLabels: {pod: a}}}], ports: [{port: 92}]}]}`})
	mtu := func(size int) {
		_, err := w.Nodes[1].Tool("ip", "link", "set", hostName("x/b"), "mtu", fmt.Sprint(size))
		suite.Must(t, err)
	}
	mtu(1300)
	t.Cleanup(func() { mtu(1500) })
	text := bytes.Repeat([]byte("0123456789"), 30_000)
	for family, like := range []netip.Addr{w.hosts["x/b"].V4, w.hosts["x/b"].V6} {
		for name, to := range map[string]netip.AddrPort{
			"directly": netip.AddrPortFrom(like, sinkPort), "by VIP": netip.AddrPortFrom(netip.MustParseAddr(svc.Spec.ClusterIPs[family]), 8080),
		} {
			begin := time.Now()
			took, err := w.send("x/a", to, text)
			if err != nil || took != fmt.Sprint(len(text)) {
				t.Errorf("%s to %s: the other side got %q of %d bytes, %v", name, to, took, len(text), err)
			}
			route, err := w.hosts["x/a"].Tool("ip", "route", "get", to.Addr().String())
			suite.Must(t, err)
			if !strings.Contains(route, "mtu 1300") {
				t.Errorf("%s to %s: x/a has not learned the MTU: %s", name, to, route)
			}
			t.Logf("%s to %s: %d bytes in %v", name, to, len(text), time.Since(begin).Round(time.Millisecond))
			for _, f := range []string{"-4", "-6"} {
				_, err := w.hosts["x/a"].Tool("ip", f, "route", "flush", "cache")
				suite.Must(t, err)
			}
		}
	}
}

// send sends a text to a sink and returns what that says.
func (w *world) send(from actor, to netip.AddrPort, text []byte) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	conn, err := w.hosts[from].Dial(ctx, topo.TCP, to)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(soon)); err != nil {
		return "", err
	}
	if _, err := conn.Write(text); err != nil {
		return "", err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	got, err := io.ReadAll(conn)
	return string(got), err
}

// TestFragments: of a datagram in pieces only the first has ports, and all are
// judged by them.
func TestFragments(t *testing.T) {
	w := enter(t)
	w.apply(t, policyCase{policies: `x: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{namespaceSelector: {matchLabels: {ns: "y"}}}], ports: [{port: 80, protocol: UDP}]}]}`, want: "- * > x/*\n- x/* > *\n+ y/* > x/* udp:80"})
	for _, six := range []bool{false, true} {
		for _, vip := range []bool{false, true} {
			for _, c := range []struct {
				from    actor
				port    uint16
				allowed bool
			}{{"y/b", 80, true}, {"y/a", 80, true}, {"y/b", 81, false}, {"z/a", 80, false}, {"z/b", 80, false}, {"x/b", 80, false}} {
				f := flow{c.from, "x/a", topo.UDP, c.port, six, vip}
				got, err := w.datagram(c.from, w.address(f), 4000)
				if c.allowed != (err == nil) || err != nil && !isRefusal(err) {
					t.Errorf("%v: %q %v, want it allowed: %t", f, got, err, c.allowed)
				}
			}
		}
	}
}

func (w *world) datagram(from actor, to netip.AddrPort, size int) (string, error) {
	conn, err := w.hosts[from].Dial(context.Background(), topo.UDP, to)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return "", err
	}
	if _, err := conn.Write(bytes.Repeat([]byte("?"), size)); err != nil {
		return "", err
	}
	buf := make([]byte, 256)
	n, err := conn.Read(buf)
	return string(buf[:n]), err
}
