//go:build lab

package engine_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.dev/sluice/healthcheck"
	"sluice.dev/sluice/internal/engine"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
	"sluice.dev/sluice/internal/vip"
	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/nodeport"
)

// TestLabScripts plays testdata on the real kernel, each script in a network
// namespace of its own. What needs connections is left to package ipvs and to
// the end-to-end tests.
func TestLabScripts(t *testing.T) {
	for _, s := range scripts(t) {
		t.Run(s.name, func(t *testing.T) {
			if slices.ContainsFunc(s.sections, func(c section) bool { return c.verb == "connect" }) {
				t.Skip("needs connections")
			}
			k := newReal(t, s)
			k.tell(decode(t, "preamble", preamble))
			s.play(t, k)
		})
	}
}

// real is a stage in a namespace of the kernel.
type real struct {
	ns      netfiltertest.Namespace
	hands   hands
	options []string
	told    *problems
	engine  *engine.Engine
	stop    func()

	synced bool
	last   map[string]any // facts by object
	order  []string       // of the objects
	wrong  []string       // problems since the last step
	asked  map[netip.AddrPort]bool
}

func newReal(t *testing.T, s script) *real {
	t.Helper()
	k := &real{
		ns: netfiltertest.NewNamespace(t), options: s.options, told: &problems{},
		last: map[string]any{}, asked: map[netip.AddrPort]bool{},
	}
	setup := "ip link set lo up"
	for _, a := range nodeAddrs {
		setup += fmt.Sprintf("; ip address add %s/%d dev lo", a, a.BitLen())
	}
	k.ns.Do(func() {
		if out, err := exec.Command("sh", "-ec", setup).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	h := k.open(t)
	t.Cleanup(h.close)
	k.hands = hands{table: h.servers, sets: h.rules, runner: k.ns.Runner(h.rules), links: h.device}
	k.start(t, false)
	t.Cleanup(func() { k.stop() })
	return k
}

// handles are one user's way into the kernel.
type handles struct {
	servers      *ipvs.KernelHandle
	rules, owned *netfilter.Handle
	device       *vip.Device
	close        func()
}

func (k *real) open(t *testing.T) (h handles) {
	t.Helper()
	var errs [4]error
	k.ns.Do(func() {
		h.servers, errs[0] = ipvs.Open(context.Background())
		h.rules, errs[1] = netfilter.Dial()
		h.owned, errs[2] = netfilter.Dial()
		h.device, errs[3] = vip.Dial("sluice0")
	})
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	h.close = func() {
		for _, c := range []func() error{h.servers.Close, h.rules.Close, h.owned.Close, h.device.Close} {
			if err := c(); err != nil {
				t.Error(err)
			}
		}
	}
	return h
}

// start runs an engine, or what `sluice cleanup` runs.
func (k *real) start(t *testing.T, cleanup bool) {
	t.Helper()
	h := k.open(t)
	families := []model.Family{model.IPv4, model.IPv6}
	if slices.Contains(k.options, "IPv4") {
		families = families[:1]
	}
	ours := func(ctx context.Context) (func(ipvs.VirtualServer) bool, error) {
		named, err := nodeport.Frontends(ctx, h.owned)
		return func(vs ipvs.VirtualServer) bool {
			_, ours := named[model.FrontendKey{Addr: vs.Addr, Protocol: vs.Protocol}]
			return ours
		}, err
	}
	targets := engine.Targets{
		Rules:     netfilter.New(netfilter.Options{Runner: k.ns.Runner(h.rules), Sets: h.rules, Families: families}),
		Servers:   ipvs.NewTarget(h.servers, ipvs.TargetOptions{Ours: ours, Local: k.local}),
		Addresses: vip.New(h.device),
	}
	opts := engine.Options{Families: families, Targets: targets}
	health := healthcheck.New(healthcheck.Options{Listen: k.listen})
	if !cleanup {
		opts = k.wired(targets, families)
		opts.Targets.Health = health
	}
	k.engine = engine.New(opts)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { k.engine.Run(ctx); close(done) }()
	k.stop = sync.OnceFunc(func() { cancel(); <-done; health.Close(); h.close() })
	k.synced = false
}

func (k *real) wired(targets engine.Targets, families []model.Family) engine.Options {
	nodeCIDR := slices.Contains(k.options, "nodeCIDR")
	return engine.Options{
		Store: model.StoreOptions{
			NodeName:  "node1",
			NodePorts: func(a []netip.Addr) []netip.Addr { return nodeport.Select(a, nil) },
		},
		Sources: 1, Families: families, Targets: targets, NodeCIDR: nodeCIDR,
		Rules: func(pods []netip.Prefix) map[netfilter.Key]netfilter.Spec {
			if !nodeCIDR {
				pods = prefixes("10.1.0.0/16")
			}
			return nodeport.Static(nodeport.Config{Families: families, ClusterCIDRs: pods})
		},
		Audit:    300 * time.Millisecond,
		Patience: time.Hour,
		Hooks: engine.Hooks{Problem: func(p model.Problem) {
			k.told.mu.Lock()
			defer k.told.mu.Unlock()
			k.told.all = append(k.told.all, p)
		}},
	}
}

func (k *real) local(ctx context.Context, a netip.Addr) (is bool, err error) {
	k.ns.Do(func() { is, err = vip.Local(ctx, a) })
	return is, err
}

func (k *real) listen(ctx context.Context, at netip.AddrPort) (l net.Listener, err error) {
	k.ns.Do(func() {
		var config net.ListenConfig
		l, err = config.Listen(ctx, "tcp", at.String())
	})
	return l, err
}

func (k *real) tell(facts []any) {
	k.begin()
	for _, fact := range facts {
		o := objectOf(fact)
		if _, known := k.last[o]; !known {
			k.order = append(k.order, o)
		}
		k.last[o] = fact
		k.engine.Event(event(fact))
	}
	if !k.synced && len(k.last) > 1 {
		k.synced = true
		k.engine.Event(synced)
	}
}

// begin forgets what belongs to the step before.
func (k *real) begin() {
	k.told.take()
	k.wrong = nil
}

func (k *real) step(t *testing.T, c section) {
	t.Helper()
	k.settle(t, anything)
	k.begin()
	switch c.verb {
	case "sleep": // whatever it is for is waited for
	case "meddle":
		k.look(t)
		for _, line := range fields(c.text) {
			if err := k.hands.meddle(t.Context(), line); err != nil {
				t.Error(err)
			}
		}
	case "restart":
		k.stop()
		k.start(t, false)
		var facts []any
		for _, o := range k.order {
			facts = append(facts, k.last[o])
		}
		k.tell(facts)
	case "cleanup":
		k.stop()
		k.start(t, true)
	default:
		t.Fatalf("line %d: no step %q", c.line, c.verb)
	}
}

// settle waits until the engine has nothing to do and what is waited for has
// come; at most for a while.
func (k *real) settle(t *testing.T, done func() bool) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) { // a poll of a condition
		if k.idle() && done() {
			return
		}
		if time.Now().After(limit) {
			done()
			for _, l := range k.engine.Status() {
				for _, f := range l.Failing {
					t.Errorf("%s: %s", f.Key, f.Error)
				}
			}
			return
		}
	}
}

func (k *real) idle() bool {
	for _, l := range k.engine.Status() {
		if !l.Listed || l.FailingCount > 0 || l.Puts > 0 || l.Dels > 0 {
			return false
		}
	}
	return true
}

func (k *real) text(t *testing.T, table string) string {
	t.Helper()
	switch table {
	case "health":
		return k.health(t)
	case "problems":
		k.wrong = append(k.wrong, k.told.take()...)
		return joined(k.wrong)
	case "writes":
		return k.writes()
	}
	k.look(t)
	text, err := k.hands.text(t.Context(), table)
	if err != nil {
		return err.Error() // what was listed may be gone when it is read; it is looked at again
	}
	return text
}

// look has the hands find our device, if there is one: it may be a new one.
func (k *real) look(t *testing.T) {
	t.Helper()
	there := false
	k.ns.Do(func() {
		_, err := net.InterfaceByName("sluice0")
		there = err == nil
	})
	if !there {
		return
	}
	if err := k.hands.links.Ensure(t.Context()); err != nil {
		t.Error(err)
	}
}

// writes are those since the engine started.
func (k *real) writes() string {
	var out []string
	for _, l := range k.engine.Status()[:3] {
		if !l.Synced {
			out = append(out, l.Name+" is not synced")
		}
		if l.Written+l.Deleted > 0 {
			out = append(out, fmt.Sprintf("%s: %d written, %d deleted", l.Name, l.Written, l.Deleted))
		}
	}
	return joined(out)
}

// health asks every port that ever was a health check's.
func (k *real) health(t *testing.T) string {
	t.Helper()
	for _, set := range []string{"SLUICE-HEALTH", "SLUICE-6-HEALTH"} {
		members, _ := k.hands.sets.Members(t.Context(), set) // after a clean-up there is none
		for _, m := range members {
			k.asked[netip.AddrPortFrom(m.Entry.First.Addr(), m.Entry.Port)] = true
		}
	}
	var out []string
	for at := range k.asked {
		k.ns.Do(func() {
			c, err := (&net.Dialer{Timeout: time.Second}).Dial("tcp", at.String())
			if err == nil {
				out = append(out, at.String()+" "+probe(c))
			}
		})
	}
	slices.SortFunc(out, func(a, b string) int {
		return netip.MustParseAddrPort(strings.Fields(a)[0]).Compare(netip.MustParseAddrPort(strings.Fields(b)[0]))
	})
	return joined(out)
}
