package engine_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/nodeport"
)

// anyFact is a fact about few objects, so that they meet: Services that
// contend for addresses, NodePorts and cluster IPs, slices that change hands,
// endpoints in two slices, nodes whose addresses are Services' external ones,
// policies, source ranges and health checks that come and go, hints that hold
// here or elsewhere. key names the object.
func anyFact(rnd *rand.Rand) (key string, fact any) {
	gone := rnd.IntN(4) == 0
	switch rnd.IntN(10) {
	case 0, 1, 2, 3:
		svc := anyService(rnd)
		if gone {
			return "service " + svc.Name.Name, model.ServiceKey{Name: svc.Name}
		}
		return "service " + svc.Name.Name, svc
	case 4, 5, 6, 7:
		sl := anySlice(rnd)
		if gone {
			return "slice " + sl.Name.Name, model.EndpointSliceKey{Name: sl.Name}
		}
		return "slice " + sl.Name.Name, sl
	case 8:
		return "local", model.LocalAddrs{Addrs: some(rnd, nodeAddrs)}
	}
	n := model.Node{
		Name: fmt.Sprint("node", 1+rnd.IntN(2)), Addrs: some(rnd, nodeAddrs),
		Labels:   pick(rnd, nil, map[string]string{"topology.kubernetes.io/zone": "a"}, map[string]string{"topology.kubernetes.io/zone": "b"}),
		PodCIDRs: pick(rnd, prefixes("10.1.1.0/24"), prefixes("10.1.2.0/24"), prefixes("10.1.1.0/24", "fd00:1::/64")),
	}
	if gone && n.Name != "node1" { // whose ranges of pods are waited for
		return n.Name, model.NodeKey{Name: n.Name}
	}
	return n.Name, n
}

// some are some of a list, in its order.
func some[T any](rnd *rand.Rand, list []T) []T {
	var out []T
	for _, x := range list {
		if rnd.IntN(2) == 0 {
			out = append(out, x)
		}
	}
	return out
}

func pick[T any](rnd *rand.Rand, list ...T) T { return list[rnd.IntN(len(list))] }

func anyService(rnd *rand.Rand) model.Service {
	i := rnd.IntN(4)
	svc := service(fmt.Sprint("s", i), fmt.Sprint("10.96.0.", pick(rnd, i, i, i, 4)), created(int64(rnd.IntN(3))))
	switch rnd.IntN(4) {
	case 0:
		svc.ClusterIPs = addrs(fmt.Sprint("fd00:96::", i))
	case 1:
		svc.ClusterIPs = append(svc.ClusterIPs, addrs(fmt.Sprint("fd00:96::", i))...)
	}
	svc.ExternalIPs = some(rnd, addrs("198.51.100.1", "203.0.113.2", "2001:db8::1"))
	svc.LoadBalancerIPs = some(rnd, addrs("198.51.100.1", "198.51.100.2"))
	svc.Ports = nil
	for _, p := range some(rnd, []model.ServicePort{
		{Name: "http", Protocol: model.TCP, Port: 80}, {Name: "dns", Protocol: model.UDP, Port: 53}, {Name: "alt", Protocol: model.TCP, Port: 81},
	}) {
		p.NodePort = pick[uint16](rnd, 0, 30080, 30081)
		svc.Ports = append(svc.Ports, p)
	}
	svc.Affinity = pick(rnd, 0, 0, time.Hour)
	svc.Scheduler = pick(rnd, "", "", "lc")
	svc.ExternalLocal, svc.InternalLocal = rnd.IntN(2) == 0, rnd.IntN(3) == 0
	if rnd.IntN(2) == 0 {
		svc.SourceRanges = some(rnd, prefixes("192.0.2.0/24", "10.1.0.0/16", "0.0.0.0/0", "2001:db8::/32"))
	}
	svc.HealthPort = pick(rnd, 0, uint16(32000+i), 32000)
	svc.Urgent = rnd.IntN(4) == 0
	return svc
}

func anySlice(rnd *rand.Rand) model.EndpointSlice {
	sl := model.EndpointSlice{
		Name: name(fmt.Sprint("x", rnd.IntN(5))), Service: fmt.Sprint("s", rnd.IntN(4)), Family: pick(rnd, model.IPv4, model.IPv4, model.IPv6),
		Ports: some(rnd, []model.EndpointPort{
			{Name: "http", Protocol: model.TCP, Port: 8080}, {Name: "dns", Protocol: model.UDP, Port: 5353}, {Name: "alt", Protocol: model.TCP, Port: 8080},
		}),
	}
	for i := range 4 {
		if rnd.IntN(2) == 0 {
			continue
		}
		a := netip.AddrFrom4([4]byte{10, 1, 2, byte(i)})
		if sl.Family == model.IPv6 {
			a = netip.MustParseAddr(fmt.Sprint("fd00:1::", i+1))
		}
		ready, serving := rnd.IntN(3) > 0, rnd.IntN(3) > 0
		sl.Endpoints = append(sl.Endpoints, model.Endpoint{
			Addr: a, Node: pick(rnd, "node1", "node2", "node2"),
			Ready: ready, Serving: serving, Terminating: !ready && serving,
			ForZones: pick(rnd, nil, []string{"a"}, []string{"a", "b"}), ForNodes: pick(rnd, nil, nil, []string{"node1"}, []string{"node2"}),
		})
	}
	return sl
}

// history is what was told: the last word on every object.
type history map[string]any

// newHistory begins with the node.
func newHistory() history {
	n := node1()
	n.PodCIDRs = prefixes("10.1.1.0/24", "fd00:1::/64")
	return history{n.Name: n}
}

// facts are the last words, in an order of their own.
func (h history) facts() []any {
	var out []any
	for _, k := range slices.Sorted(maps.Keys(h)) {
		out = append(out, h[k])
	}
	return out
}

func (h history) store() *model.Store {
	s := model.NewStore(model.StoreOptions{
		NodeName:  "node1",
		NodePorts: func(a []netip.Addr) []netip.Addr { return nodeport.Select(a, nil) },
	})
	for _, f := range h.facts() {
		s.Apply(event(f))
	}
	return s
}

// views are what the Services mean in the end.
func (h history) views() []model.View {
	s := h.store()
	var out []model.View
	for _, n := range s.TakeDirty(nil) {
		out = append(out, model.Resolve(s, n))
	}
	return out
}

// state is what the tables should hold, flat, written from the views alone.
func (h history) state() string {
	var l lines
	for _, v := range h.views() {
		for _, f := range v.Frontends {
			l.sets(f)
			l.servers(f)
			l.address(f)
		}
		for _, c := range v.Health {
			l.member("HEALTH", c.Addr, "tcp")
		}
	}
	slices.Sort(l)
	return strings.Join(slices.Compact(l), "\n") + "\n"
}

// lines are those of world.state.
type lines []string

func (l *lines) add(format string, args ...any) { *l = append(*l, fmt.Sprintf(format, args...)) }

// member is an entry of a set of the address's family.
func (l *lines) member(set string, at netip.AddrPort, proto string, more ...any) {
	if at.Addr().Is6() {
		set = "6-" + set
	}
	l.add("%s %s,%s:%d%s", set, at.Addr(), proto, at.Port(), fmt.Sprint(more...))
}

// takers are the endpoints that a frontend's policy allows.
func takers(f model.Frontend) []model.Backend {
	if f.OnlyLocal {
		return f.Local
	}
	return f.Cluster
}

func (l *lines) sets(f model.Frontend) {
	proto := strings.ToLower(f.Protocol.String())
	switch f.Kind {
	case model.ClusterIP:
		l.member("CLUSTER-IP", f.Addr, proto)
	case model.Shortcut:
		l.member("SHORTCUT", f.Addr, proto)
	default:
		l.member("EXTERNAL", f.Addr, proto)
		if f.OnlyLocal {
			l.member("LOCAL", f.Addr, proto)
		}
	}
	if len(takers(f)) == 0 {
		l.member(map[bool]string{true: "REJECT", false: "DROP"}[len(f.Cluster) == 0], f.Addr, proto)
	}
	if f.Restricted {
		l.member("RANGED", f.Addr, proto)
	}
	for _, p := range f.SourceRanges {
		if p.Bits() == 0 { // a set takes no /0
			l.member("ALLOWED", f.Addr, proto, ",0.0.0.0/1")
			l.member("ALLOWED", f.Addr, proto, ",128.0.0.0/1")
			continue
		}
		l.member("ALLOWED", f.Addr, proto, ",", p)
	}
	if f.Shortcut.IsValid() {
		l.add("SHORTCUTS %s,%s:%d %s", f.Addr.Addr(), proto, f.Addr.Port(), f.Shortcut)
	}
	for _, b := range slices.Concat(f.Cluster, f.Local) {
		if b.Local {
			l.member("HAIRPIN", b.Addr, proto, ",", b.Addr.Addr())
		}
	}
}

func (l *lines) servers(f model.Frontend) {
	if len(takers(f)) == 0 {
		return
	}
	scheduler, persistent := "rr", ""
	if f.Scheduler != "" {
		scheduler = f.Scheduler
	}
	if f.Affinity > 0 {
		persistent = fmt.Sprintf(" persistent %d", int(f.Affinity.Seconds()))
	}
	l.add("%s %s %s%s", f.Protocol, f.Addr, scheduler, persistent)
	for _, b := range takers(f) {
		l.add("%s %s -> %s Masq 1", f.Protocol, f.Addr, b.Addr)
	}
}

func (l *lines) address(f model.Frontend) {
	a, source := f.Addr.Addr(), ""
	switch {
	case f.Kind == model.NodePort:
		return
	case a.Is4():
		l.add("VIPS %s", a)
		l.add("address %s", a)
		source = " src " + a.String()
	default:
		l.add("6-VIPS %s", a)
	}
	if f.SourceIP.IsValid() {
		source = " src " + f.SourceIP.String()
	}
	l.add("local %s%s", a, source)
}

// health is what health checks should answer. Of two Services that ask for one
// port the first by name has it.
func (h history) health() string {
	views := h.views()
	slices.SortFunc(views, func(a, b model.View) int { return a.Service.Compare(b.Service) })
	taken := map[netip.AddrPort]string{}
	for _, v := range views {
		for _, c := range v.Health {
			code := 200
			if c.Endpoints == 0 {
				code = 503
			}
			if taken[c.Addr] == "" {
				taken[c.Addr] = fmt.Sprintf("%s %d %s %d\n", c.Addr, code, v.Service, c.Endpoints)
			}
		}
	}
	var b strings.Builder
	for _, at := range slices.SortedFunc(maps.Keys(taken), netip.AddrPort.Compare) {
		b.WriteString(taken[at])
	}
	return b.String()
}

// flat is a world's state in alphabetical order, destinations with their
// virtual server's name.
func flat(state string) string {
	var lines []string
	server := ""
	for line := range strings.Lines(state) {
		line = strings.TrimSuffix(line, "\n")
		words := strings.Fields(line)
		switch words[0] {
		case "TCP", "UDP":
			server = words[0] + " " + words[1]
		case "->":
			line = server + " " + line
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

// differ fails the test unless two texts are equal, naming the lines that
// differ.
func differ(t *testing.T, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	has, wants := strings.Split(got, "\n"), strings.Split(want, "\n")
	for _, l := range wants {
		if !slices.Contains(has, l) {
			t.Errorf("%s: missing: %s", what, l)
		}
	}
	for _, l := range has {
		if !slices.Contains(wants, l) {
			t.Errorf("%s: too much: %s", what, l)
		}
	}
	if !t.Failed() {
		t.Errorf("%s: order differs\n%s\nwant\n%s", what, got, want)
	}
}

// afresh is what an engine that is told these facts makes of an empty kernel.
func afresh(t *testing.T, facts []any) string {
	t.Helper()
	w := newWorld()
	r := w.start(t, conditions{sources: 1, nodeCIDR: true})
	r.tell(facts...)
	r.tell(synced)
	synctest.Wait()
	r.stop()
	w.orderly(t, "afresh")
	return w.dumps()
}

// chaos has operations fail at random.
type chaos struct {
	rnd          *rand.Rand
	before, lost float64
	struck       int
}

func (c *chaos) strike(w *world) {
	at := func(rate *float64) func(op) error {
		return func(o op) error {
			if c.rnd.Float64() >= *rate {
				return nil
			}
			c.struck++
			return fmt.Errorf("%s %s %s: %w", o.table, o.verb, o.subject, errFault)
		}
	}
	w.locked(func() { w.fault, w.lost = at(&c.before), at(&c.lost) })
}

// expect keeps up with what Services want, for the world's judgement: which
// addresses, and which frontends are closed to some. What they wanted before
// counts until every Service has arrived: one that is held up on its way keeps
// what it had.
type expect struct {
	w    *world
	h    history
	want map[netip.Addr]bool
	open map[model.FrontendKey]bool // frontends; false: only ever closed to some
}

func newExpect(w *world) *expect {
	e := &expect{w: w, h: newHistory()}
	e.forget()
	w.locked(func() {
		w.waiting = func(a netip.Addr) bool { return e.want[a] }
		w.closed = func(vs ipvs.VirtualServer) bool {
			open, known := e.open[model.FrontendKey{Addr: vs.Addr, Protocol: vs.Protocol}]
			return known && !open
		}
	})
	return e
}

// tell notes a fact before the engine is told of it.
func (e *expect) tell(key string, fact any) {
	e.w.locked(func() {
		e.h[key] = fact
		e.note()
	})
}

// quiet is for when nothing moves.
func (e *expect) quiet(r *run) {
	climbing := r.Climbing()
	e.w.locked(func() {
		if climbing == 0 {
			e.forget()
			e.note()
		}
	})
}

func (e *expect) forget() {
	e.want, e.open = map[netip.Addr]bool{}, map[model.FrontendKey]bool{}
}

func (e *expect) note() {
	for _, v := range e.h.views() {
		for _, f := range v.Frontends {
			if f.Bound() {
				e.want[f.Addr.Addr()] = true
			}
			e.open[f.FrontendKey] = e.open[f.FrontendKey] || !f.Restricted
		}
	}
}

// TestRandomHistories: with a tenth of the kernel's operations failing, some
// of them after they took effect, the tables are never in the wrong order, and
// in the end they hold what the last facts mean, to the letter what a fresh
// engine would have made of them. A restart then writes nothing.
func TestRandomHistories(t *testing.T) {
	seeds(t, func(t *testing.T, seed uint64) {
		t.Helper()
		rnd := rand.New(rand.NewPCG(seed, 0))
		w := newWorld()
		e := newExpect(w)
		c := &chaos{rnd: rand.New(rand.NewPCG(seed, 1)), before: 0.08, lost: 0.02}
		c.strike(w)
		w.unready = true
		r := w.start(t, conditions{
			sources: 1, nodeCIDR: true, audit: pick(rnd, 0, 20*time.Second), patience: pick(rnd, time.Second, time.Hour),
		})
		r.tell(e.h.facts()...)
		for i := range 60 {
			key, fact := anyFact(rnd)
			e.tell(key, fact)
			r.tell(fact)
			if i == 20 {
				w.locked(func() { w.unready = false })
				r.tell(synced)
			}
			if rnd.IntN(3) == 0 {
				w.connect(func() bool { return rnd.IntN(4) == 0 }, rnd.Uint32N(2))
			}
			switch rnd.IntN(3) {
			case 0:
				time.Sleep(time.Duration(rnd.IntN(1000)) * time.Millisecond)
				fallthrough
			case 1:
				synctest.Wait()
				e.quiet(r)
			}
		}
		w.locked(func() { c.before, c.lost = 0, 0 })
		time.Sleep(20 * time.Minute) // the longest that a connection holds up its endpoint, and a few retries
		synctest.Wait()
		w.connect(func() bool { return true }, 0) // the dumps show them
		what := fmt.Sprint("seed ", seed)
		w.orderly(t, what)
		differ(t, what, flat(w.state()), e.h.state())
		differ(t, what+", health checks", w.health(), e.h.health())
		if got, want := w.dumps(), afresh(t, e.h.facts()); got != want {
			differ(t, what+", not as afresh", got, want)
		}
		for _, l := range r.Status() {
			if l.FailingCount+l.Puts+l.Dels > 0 {
				t.Errorf("%s: %s is not done: %+v", what, l.Name, l)
			}
		}
		r.stop()
		if n := r.Climbing(); n != 0 {
			t.Errorf("%s: %d owners never arrived", what, n)
		}
		cost, log := w.since(func() {
			again := w.start(t, conditions{sources: 1, nodeCIDR: true})
			again.tell(e.h.facts()...)
			again.tell(synced)
			synctest.Wait()
			again.stop()
		})
		if len(log) != 0 {
			t.Errorf("%s: a restart writes: %+v\n%s", what, cost, strings.Join(log, "\n"))
		}
		if c.struck == 0 {
			t.Errorf("%s: nothing ever failed", what)
		}
	})
}

// connect says of some destinations how many connections they have.
func (w *world) connect(some func() bool, active uint32) {
	w.locked(func() {
		w.looking = true
		defer func() { w.looking = false }()
		servers, _ := w.table.VirtualServers(context.Background())
		for _, s := range servers {
			dests, _ := w.table.Destinations(context.Background(), s.VirtualServer)
			for _, d := range dests {
				if some() {
					w.table.Connect(ipvs.Key{VirtualServer: s.VirtualServer, RealServer: d.RealServer}, active)
				}
			}
		}
	})
}

// seeds runs a test with many seeds, each in virtual time; fewer where time
// counts.
func seeds(t *testing.T, f func(t *testing.T, seed uint64)) {
	t.Helper()
	n := uint64(40)
	if testing.Short() {
		n = 10
	}
	for seed := range n {
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, seed) })
		})
		if !ok {
			return
		}
	}
}

// TestOrderOfEventsDoesNotMatter: the same last words, told in any order,
// twice, with or without pauses between them, after words that they replace,
// end in the same tables.
func TestOrderOfEventsDoesNotMatter(t *testing.T) {
	seeds(t, func(t *testing.T, seed uint64) {
		t.Helper()
		rnd := rand.New(rand.NewPCG(seed, 2))
		h := newHistory()
		for range 40 {
			key, fact := anyFact(rnd)
			h[key] = fact
		}
		want := afresh(t, h.facts())
		for way := range 4 {
			w := newWorld()
			e := newExpect(w)
			w.unready = way%2 == 0
			r := w.start(t, conditions{sources: 1, nodeCIDR: true})
			var told []any
			if way%2 == 1 {
				r.tell(synced) // deletions on from the start
			}
			for key, fact := range h {
				for range 1 + rnd.IntN(2) {
					told = append(told, [2]any{key, fact})
				}
			}
			rnd.Shuffle(len(told), func(i, j int) { told[i], told[j] = told[j], told[i] })
			for _, f := range told {
				f := f.([2]any)
				key := f[0].(string)
				if before := sameObject(rnd, key); before != nil {
					e.tell(key, before)
					r.tell(before)
					if rnd.IntN(2) == 0 {
						synctest.Wait()
					}
				}
				e.tell(key, f[1])
				r.tell(f[1])
				if rnd.IntN(3) == 0 {
					synctest.Wait()
					e.quiet(r)
				}
			}
			if way%2 == 0 {
				w.locked(func() { w.unready = false })
				r.tell(synced)
			}
			time.Sleep(time.Second) // destinations of UDP leave in half a second
			synctest.Wait()
			what := fmt.Sprintf("seed %d way %d", seed, way)
			w.orderly(t, what)
			differ(t, what, w.dumps(), want)
			differ(t, what+", health checks", w.health(), h.health())
			r.stop()
		}
	})
}

// sameObject is another state of an object, or nil.
func sameObject(rnd *rand.Rand, key string) any {
	for range 30 {
		if k, fact := anyFact(rnd); k == key {
			return fact
		}
	}
	return nil
}

// TestRandomRestarts: an engine that is stopped at any moment, in the middle of
// faults, leaves a kernel of which the next one makes the right one. Only what
// a former run left may keep its address longer than its virtual server, when
// the address cannot be deleted.
func TestRandomRestarts(t *testing.T) {
	seeds(t, func(t *testing.T, seed uint64) {
		t.Helper()
		rnd := rand.New(rand.NewPCG(seed, 3))
		w := newWorld()
		w.waiting = func(netip.Addr) bool { return true }
		h := newHistory()
		c := &chaos{rnd: rand.New(rand.NewPCG(seed, 4)), before: 0.08, lost: 0.02}
		c.strike(w)
		what := fmt.Sprint("seed ", seed)
		for range 5 {
			w.locked(func() { w.unready = true })
			r := w.start(t, conditions{sources: 1, nodeCIDR: true, patience: time.Second})
			r.tell(h.facts()...)
			for i := range 20 {
				key, fact := anyFact(rnd)
				h[key] = fact
				r.tell(fact)
				if i == 5 {
					w.locked(func() { w.unready = false })
					r.tell(synced)
				}
				if rnd.IntN(3) == 0 {
					time.Sleep(time.Duration(rnd.IntN(1000)) * time.Millisecond)
				}
			}
			r.stop()
		}
		w.locked(func() { c.before, c.lost = 0, 0 })
		r := w.start(t, conditions{sources: 1, nodeCIDR: true})
		r.tell(h.facts()...)
		r.tell(synced)
		time.Sleep(time.Minute)
		synctest.Wait()
		w.orderly(t, what)
		differ(t, what, w.dumps(), afresh(t, h.facts()))
		r.stop()
	})
}
