//go:build lab

package engine_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"sluice.dev/sluice/internal/engine"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/vip"
	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/nodeport"
)

// node is an agent's inside on the kernel of the lab, in the namespace of the
// test process, which the lab made for it.
type node struct {
	servers      *ipvs.KernelHandle
	rules, owned *netfilter.Handle
	device       *vip.Device
	engine       *engine.Engine
	stop         func()
}

// startNode starts an engine over the real tables, seen through a wrapper if
// one is given. It is told that it is synced when its two sources say so.
func startNode(tb testing.TB, through ...func(engine.Targets) engine.Targets) *node {
	tb.Helper()
	n := &node{}
	var err error
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	n.servers, err = ipvs.Open(tb.Context())
	must(err)
	n.rules, err = netfilter.Dial()
	must(err)
	n.owned, err = netfilter.Dial()
	must(err)
	n.device, err = vip.Dial("sluice0")
	must(err)
	families := []model.Family{model.IPv4, model.IPv6}
	targets := n.targets(families)
	for _, wrap := range through {
		targets = wrap(targets)
	}
	n.engine = engine.New(engine.Options{
		Store: model.StoreOptions{NodeName: "node1", NodePorts: func(a []netip.Addr) []netip.Addr {
			return nodeport.Select(a, nil)
		}},
		Sources:  2,
		Families: families,
		Rules: func(_ []netip.Prefix) map[netfilter.Key]netfilter.Spec {
			pods := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
			return nodeport.Static(nodeport.Config{Families: families, ClusterCIDRs: pods})
		},
		Targets:  targets,
		Patience: time.Hour,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { n.engine.Run(ctx); close(done) }()
	stopped := false
	n.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		<-done
		for _, c := range []func() error{n.servers.Close, n.rules.Close, n.owned.Close, n.device.Close} {
			must(c())
		}
	}
	tb.Cleanup(n.stop)
	return n
}

// targets are the tables, wired as cmd/sluice does it.
func (n *node) targets(families []model.Family) engine.Targets {
	return engine.Targets{
		Rules: netfilter.New(netfilter.Options{Runner: n.rules, Sets: n.rules, Families: families}),
		Servers: ipvs.NewTarget(n.servers, ipvs.TargetOptions{Ours: func(ctx context.Context) (func(ipvs.VirtualServer) bool, error) {
			named, err := nodeport.Frontends(ctx, n.owned)
			return func(vs ipvs.VirtualServer) bool {
				_, ours := named[model.FrontendKey{Addr: vs.Addr, Protocol: vs.Protocol}]
				return ours
			}, err
		}}),
		Addresses: vip.New(n.device),
	}
}

// nodeAddr is this node's address, on the loopback device of the lab.
var nodeAddr = netip.MustParseAddr("192.168.10.11")

func addNodeAddr(tb testing.TB) {
	tb.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		tb.Fatal(err)
	}
	addr, err := netlink.ParseAddr(nodeAddr.String() + "/32")
	if err != nil {
		tb.Fatal(err)
	}
	if err := netlink.AddrReplace(lo, addr); err != nil {
		tb.Fatal(err)
	}
}

// tellNode tells what the node source would.
func (n *node) tellNode() {
	n.engine.Event(model.Event{Put: model.LocalAddrs{Addrs: []netip.Addr{nodeAddr}}})
	n.engine.Event(model.Event{Source: "node", Synced: true})
}

// numbered is Service i of a cluster, and its endpoints, all on other nodes.
func numbered(i, endpoints int) (model.Service, model.EndpointSlice) {
	name := model.Name{Namespace: "default", Name: fmt.Sprintf("s%05d", i)}
	svc := model.Service{
		Name:       name,
		ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})},
		Ports:      []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80}},
	}
	slice := model.EndpointSlice{
		Name: name, Service: name.Name, Family: model.IPv4,
		Ports: []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 8080}},
	}
	for e := range endpoints {
		slice.Endpoints = append(slice.Endpoints, model.Endpoint{
			Addr: netip.AddrFrom4([4]byte{10, 244 - byte(e), byte(i >> 8), byte(i)}), Node: "node2", Ready: true, Serving: true,
		})
	}
	return svc, slice
}

func (n *node) tellServices(count, endpoints int) {
	for i := range count {
		svc, slice := numbered(i, endpoints)
		n.engine.Event(model.Event{Put: svc})
		n.engine.Event(model.Event{Put: slice})
	}
	n.engine.Event(model.Event{Source: "file", Synced: true})
}

// await waits until the tables hold what is wanted, and that is so many IPVS
// entries and addresses.
func (n *node) await(tb testing.TB, servers, addresses int) {
	tb.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		s := n.engine.Status()
		ready := s[1].Present == servers && s[2].Present == addresses
		for _, l := range s {
			ready = ready && l.Synced && l.Puts == 0 && l.Dels == 0 && l.FailingCount == 0
		}
		if ready {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("never got there: %+v", s)
		}
		time.Sleep(5 * time.Millisecond) // a poll of a condition, not a wait for time
	}
}

// calls are the writes of every handle so far.
type calls struct{ servers, sets, execs, addresses uint64 }

func (n *node) calls() calls {
	rules := n.rules.Count()
	return calls{n.servers.Sent().Messages, rules.Commands, rules.Execs, n.device.Count().Commands}
}

func (c calls) since(o calls) calls {
	return calls{c.servers - o.servers, c.sets - o.sets, c.execs - o.execs, c.addresses - o.addresses}
}

// TestLabBudget: with 1,000 Services of three endpoints in the kernel, one
// endpoint added is exactly one IPVS command, one removed is two (weight 0,
// delete), and a restart with unchanged objects writes nothing at all.
func TestLabBudget(t *testing.T) {
	const services = 1000
	addNodeAddr(t)
	n := startNode(t)
	n.tellNode()
	n.tellServices(services, 3)
	n.await(t, services*4, services)
	programmed := n.calls()
	t.Logf("1,000 Services x 3 endpoints: %+v", programmed)
	if want := uint64(services * 4); programmed.servers != want {
		t.Errorf("programming took %d IPVS commands, want %d", programmed.servers, want)
	}

	_, four := numbered(500, 4)
	n.engine.Event(model.Event{Put: four})
	n.await(t, services*4+1, services)
	if got, want := n.calls().since(programmed), (calls{servers: 1}); got != want {
		t.Errorf("one endpoint added: %+v, want exactly %+v", got, want)
	}

	before := n.calls()
	_, three := numbered(500, 3)
	n.engine.Event(model.Event{Put: three})
	n.await(t, services*4, services)
	if got, want := n.calls().since(before), (calls{servers: 2}); got != want {
		t.Errorf("one endpoint removed: %+v, want exactly %+v", got, want)
	}

	n.stop()
	again := startNode(t)
	again.tellNode()
	again.tellServices(services, 3)
	again.await(t, services*4, services)
	got := again.calls()
	got.execs = 0 // the listing's iptables-save
	if got != (calls{}) {
		t.Errorf("a restart with unchanged objects wrote %+v, want nothing", got)
	}
	for _, s := range again.engine.Status() {
		if s.Written+s.Deleted != 0 {
			t.Errorf("a restart wrote %d and deleted %d keys of %s", s.Written, s.Deleted, s.Name)
		}
	}
	again.stop()
	clean(t)
}

// clean removes what the test made, with an engine that wants nothing.
func clean(tb testing.TB) {
	tb.Helper()
	n := startNode(tb)
	n.tellNode()
	n.engine.Event(model.Event{Source: "file", Synced: true})
	n.await(tb, 0, 0)
	n.stop()
}
