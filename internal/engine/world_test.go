package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice.dev/sluice/bgp"
	"sluice.dev/sluice/healthcheck"
	"sluice.dev/sluice/internal/engine"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
	"sluice.dev/sluice/internal/vip"
	"sluice.dev/sluice/internal/vip/viptest"
	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/ipvs/ipvstest"
	"sluice.dev/sluice/nodeport"
	"sluice.dev/sluice/policy"
)

// world is one node's kernel: the three fakes behind one lock, so that at
// every operation all of them can be looked at, and the ports of health checks.
// What it sees done in the wrong order it keeps as a breach.
//
//	engine ─► targets ─► rules ─┐
//	                     servers ├─ world.mu ─► fakes, then check
//	                     device ─┘
type world struct {
	mu     sync.Mutex
	filter *netfiltertest.Kernel
	table  *ipvstest.Kernel
	links  *viptest.Kernel
	ports  ports

	fault   func(op) error // before: no effect
	lost    func(op) error // after: it took effect and fails all the same
	foreign map[ipvs.VirtualServer]bool
	waiting func(netip.Addr) bool         // addresses that a Service waits for keep their place
	closed  func(ipvs.VirtualServer) bool // frontends that source ranges close to others; nil: not looked at
	unready bool                          // not every source is synced: nothing may be deleted
	looking bool                          // the world itself is reading
	blind   bool                          // nothing is looked at: for benchmarks
	log     []string                      // writes that took effect
	count   counts
	breach  []string
	last    sight // after the last write

	families int // of the engine that runs
}

// op is one operation of one item.
type op struct {
	table   string // "filter", "ipvs", "vip", "health"
	verb    string
	subject string // "": none
}

// write reports whether an operation changes the kernel.
func (o op) write() bool {
	switch o.verb {
	case "headers", "members", "VirtualServers", "VirtualServer", "Destinations", "ensure", "list":
		return false
	}
	return !strings.HasSuffix(o.verb, "-save")
}

// deletes reports whether an operation takes something out of the kernel. A
// program that writes rules may do either.
func (o op) deletes() bool {
	return slices.Contains([]string{"delete", "destroy", "unroute", "remove"}, o.verb)
}

// counts are what was asked of the kernel; reads count where nothing else is
// said.
type counts struct {
	execs, restores   int // programs; of them those that write
	sets, setWrites   int // ipset calls with reads; entries and sets written
	servers, addrs    int // IPVS commands; address and route messages
	listings, serving int // of IPVS: whole, and of one virtual server
}

// nodeAddrs are the addresses that the node has outside of our device.
var nodeAddrs = addrs("192.0.2.10", "192.0.2.11", "203.0.113.2", "fd00:a::10")

func newWorld() *world {
	w := &world{
		filter: netfiltertest.New(), table: ipvstest.New(), links: viptest.New(nodeAddrs...),
		foreign: map[ipvs.VirtualServer]bool{},
	}
	w.table.FailBefore(func(c ipvstest.Call) error { return w.asked(ipvsOp(c)) })
	w.table.FailAfter(func(c ipvstest.Call) error { return w.answered(ipvsOp(c)) })
	return w
}

func ipvsOp(c ipvstest.Call) op {
	o := op{table: "ipvs", verb: c.Verb}
	if c.Key != (ipvs.Key{}) {
		o.subject = c.Key.String()
	}
	return o
}

// asked is the fault of an operation that has not been done.
func (w *world) asked(o op) error {
	if w.looking {
		return nil
	}
	if w.fault == nil {
		return nil
	}
	return w.fault(o)
}

// answered is the fault of an operation that was done.
func (w *world) answered(o op) error {
	if w.looking || w.blind {
		return nil
	}
	if o.write() {
		w.log = append(w.log, o.table+" "+o.verb+" "+o.subject)
		if w.unready && o.deletes() {
			w.breach = append(w.breach, "before every source was synced: "+w.log[len(w.log)-1])
		}
	}
	if w.lost == nil {
		return nil
	}
	return w.lost(o)
}

// locked runs f while no operation is under way.
func (w *world) locked(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// fail sets the faults, nil for none.
func (w *world) fail(f func(op) error) { w.locked(func() { w.fault = f }) }

// during runs one operation under the lock, and looks at the order afterwards
// when it wrote something.
func (w *world) during(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := len(w.log)
	do()
	if len(w.log) == was {
		return
	}
	now := w.look()
	w.judge(w.last, now)
	w.last = now
}

// each does a batch of the same operation: those that no fault strikes at
// once, as the fake would have got them.
func each[T any](w *world, table, verb string, items []T, subject func(T) string, do func([]T) []error) (errs []error) {
	w.during(func() {
		errs = make([]error, len(items))
		var good []T
		var at []int
		for i, item := range items {
			if errs[i] = w.asked(op{table, verb, subject(item)}); errs[i] == nil {
				good, at = append(good, item), append(at, i)
			}
		}
		done := do(good)
		for j, i := range at {
			if len(done) > 0 {
				errs[i] = done[j]
			}
			if errs[i] == nil {
				errs[i] = w.answered(op{table, verb, subject(items[i])})
			}
		}
	})
	if !slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
		return nil
	}
	return errs
}

// one is each for an operation without items.
func one(w *world, o op, do func() error) (err error) {
	w.during(func() {
		if err = w.asked(o); err != nil {
			return
		}
		if err = do(); err == nil {
			err = w.answered(o)
		}
	})
	return err
}

// rules is the packet filter of a world.
type rules struct{ *world }

var (
	_ netfilter.Runner = rules{}
	_ netfilter.Sets   = rules{}
)

func (r rules) Run(ctx context.Context, stdin []byte, program string, args ...string) (out []byte, err error) {
	err = one(r.world, op{"filter", "run " + program, ""}, func() (err error) {
		r.count.execs++
		if strings.Contains(program, "restore") {
			r.count.restores++
		}
		out, err = r.filter.Run(ctx, stdin, program, args...)
		return err
	})
	return out, err
}

func (r rules) Headers(ctx context.Context) (sets []netfilter.Set, err error) {
	err = one(r.world, op{"filter", "headers", ""}, func() (err error) {
		r.count.sets++
		sets, err = r.filter.Headers(ctx)
		return err
	})
	return sets, err
}

func (r rules) Members(ctx context.Context, set string) (members []netfilter.Member, err error) {
	err = one(r.world, op{"filter", "members", set}, func() (err error) {
		r.count.sets++
		members, err = r.filter.Members(ctx, set)
		return err
	})
	return members, err
}

func setName(s netfilter.Set) string  { return s.Name }
func itself(name string) string       { return name }
func entry(m netfilter.Member) string { return m.Set + " " + m.Entry.String() }
func written[T any](w *world, items []T) []T {
	w.count.sets++
	w.count.setWrites += len(items)
	return items
}

func (r rules) Create(ctx context.Context, sets []netfilter.Set) []error {
	return each(r.world, "filter", "create", sets, setName, func(good []netfilter.Set) []error {
		return r.filter.Create(ctx, written(r.world, good))
	})
}

func (r rules) Destroy(ctx context.Context, names []string) []error {
	return each(r.world, "filter", "destroy", names, itself, func(good []string) []error {
		return r.filter.Destroy(ctx, written(r.world, good))
	})
}

func (r rules) Add(ctx context.Context, members []netfilter.Member) []error {
	return each(r.world, "filter", "add", members, entry, func(good []netfilter.Member) []error {
		return r.filter.Add(ctx, written(r.world, good))
	})
}

func (r rules) Delete(ctx context.Context, members []netfilter.Member) []error {
	return each(r.world, "filter", "delete", members, entry, func(good []netfilter.Member) []error {
		return r.filter.Delete(ctx, written(r.world, good))
	})
}

// servers is the IPVS table of a world. The fake asks for faults itself.
type servers struct {
	ipvs.Handle
	*world
}

func (s servers) VirtualServers(ctx context.Context) (l []ipvs.VirtualServerEntry, err error) {
	s.locked(func() { s.count.listings++; l, err = s.table.VirtualServers(ctx) })
	return l, err
}

func (s servers) VirtualServer(ctx context.Context, vs ipvs.VirtualServer) (e ipvs.VirtualServerEntry, err error) {
	s.locked(func() { s.count.serving++; e, err = s.table.VirtualServer(ctx, vs) })
	return e, err
}

func (s servers) Destinations(ctx context.Context, vs ipvs.VirtualServer) (l []ipvs.DestinationEntry, err error) {
	s.locked(func() { s.count.serving++; l, err = s.table.Destinations(ctx, vs) })
	return l, err
}

func (s servers) Write(ctx context.Context, commands []ipvs.Command) (errs []error) {
	s.during(func() {
		s.count.servers += len(commands)
		errs = s.table.Write(ctx, commands)
	})
	return errs
}

// device is the addresses of a world.
type device struct{ *world }

var _ vip.Handle = device{}

func (d device) Ensure(ctx context.Context) error {
	return one(d.world, op{"vip", "ensure", ""}, func() error { return d.links.Ensure(ctx) })
}

func (d device) Remove(ctx context.Context) error {
	return one(d.world, op{"vip", "remove", ""}, func() error { return d.links.Remove(ctx) })
}

func (d device) List(ctx context.Context) (l vip.Listing, err error) {
	err = one(d.world, op{"vip", "list", ""}, func() (err error) { l, err = d.links.List(ctx); return err })
	return l, err
}

func (d device) AddAddrs(ctx context.Context, addrs []netip.Addr) []error {
	return d.each("add", addrs, func(good []netip.Addr) []error { return d.links.AddAddrs(ctx, good) })
}

func (d device) DelAddrs(ctx context.Context, addrs []netip.Addr) []error {
	return d.each("delete", addrs, func(good []netip.Addr) []error { return d.links.DelAddrs(ctx, good) })
}

func (d device) DelRoutes(ctx context.Context, addrs []netip.Addr) []error {
	return d.each("unroute", addrs, func(good []netip.Addr) []error { return d.links.DelRoutes(ctx, good) })
}

func (d device) each(verb string, addrs []netip.Addr, do func([]netip.Addr) []error) []error {
	return each(d.world, "vip", verb, addrs, netip.Addr.String, func(good []netip.Addr) []error {
		d.count.addrs += len(good)
		return do(good)
	})
}

func (d device) PutRoutes(ctx context.Context, routes []vip.Route) []error {
	to := func(r vip.Route) string { return r.Addr.String() }
	return each(d.world, "vip", "route", routes, to, func(good []vip.Route) []error {
		d.count.addrs += len(good)
		return d.links.PutRoutes(ctx, good)
	})
}

// sight is what of a kernel's state the order between tables is about.
type sight struct {
	members   map[string]bool // "10.96.0.1:80 TCP": named by a set of frontends
	vacant    map[string]bool // the same: those refused or dropped for want of endpoints
	ranged    map[string]bool // and those that source ranges close
	guarded   map[netip.Addr]bool
	servers   map[ipvs.VirtualServer]bool
	delivered map[netip.Addr]bool
}

// look reads the state of all tables.
func (w *world) look() sight {
	w.looking = true
	defer func() { w.looking = false }()
	ctx := context.Background()
	s := sight{
		members: map[string]bool{}, guarded: map[netip.Addr]bool{},
		servers: map[ipvs.VirtualServer]bool{}, delivered: map[netip.Addr]bool{},
	}
	named, err := nodeport.Frontends(ctx, w.filter)
	if err != nil {
		panic(err)
	}
	for f := range named {
		s.members[frontend(f.Addr, f.Protocol)] = true
	}
	s.vacant, s.ranged = w.frontendsIn("REJECT", "DROP"), w.frontendsIn("RANGED")
	for _, set := range []string{"SLUICE-VIPS", "SLUICE-6-VIPS"} {
		members, _ := w.filter.Members(ctx, set)
		for _, m := range members {
			s.guarded[m.Entry.First.Addr()] = true
		}
	}
	entries, err := w.table.VirtualServers(ctx)
	if err != nil {
		panic(err)
	}
	for _, e := range entries {
		if !w.foreign[e.VirtualServer] {
			s.servers[e.VirtualServer] = true
		}
	}
	l, _ := w.links.List(ctx) // no device: nothing on it
	for _, a := range l.Addrs {
		s.delivered[a] = true
	}
	for _, r := range l.Routes {
		s.delivered[r.Addr] = true
	}
	return s
}

// frontendsIn are the members of some sets of both families.
func (w *world) frontendsIn(names ...string) map[string]bool {
	in := map[string]bool{}
	for _, name := range names {
		for _, set := range []string{"SLUICE-" + name, "SLUICE-6-" + name} {
			members, _ := w.filter.Members(context.Background(), set)
			for _, m := range members {
				in[frontend(netip.AddrPortFrom(m.Entry.First.Addr(), m.Entry.Port), m.Entry.Protocol)] = true
			}
		}
	}
	return in
}

// ruled reports whether every jump to our chains stands.
func (w *world) ruled() bool {
	n, builtin := 0, false
	for line := range strings.Lines(w.filter.Dump()) {
		if line[0] != ' ' {
			words := strings.Fields(line)
			builtin = words[0] != "set" && !strings.HasPrefix(words[len(words)-1], "SLUICE-")
		} else if builtin && strings.Contains(line, "-j SLUICE-") {
			n++
		}
	}
	return n >= w.families*jumps
}

func frontend(a netip.AddrPort, p model.Protocol) string { return a.String() + " " + p.String() }

// answers reports whether something becomes of connections to an address: it
// has a virtual server, or they are refused or dropped.
func (s sight) answers(a netip.Addr) bool {
	for vs := range s.servers {
		if vs.Addr.Addr() == a {
			return true
		}
	}
	for f := range s.vacant {
		if at, _, _ := strings.Cut(f, " "); netip.MustParseAddrPort(at).Addr() == a {
			return true
		}
	}
	return false
}

// jumps are those of one family's rules.
const jumps = 7

// judge is the order between tables, as package ladder states it, at one step:
//
//	a virtual server is there      only while our sets name it and every jump stands
//	one of a restricted frontend   only while a set closes it
//	an address is delivered        only while the guard knows it
//	an address comes               only to a virtual server, or one that is vacant
//	the last of these goes         only from under no address, or one that another
//	                               Service, still on its way, wants or holds
func (w *world) judge(was, is sight) {
	bad := func(format string, args ...any) {
		last := w.log[max(0, len(w.log)-20):]
		w.breach = append(w.breach, fmt.Sprintf(format, args...)+", after\n"+strings.Join(last, "\n"))
	}
	for vs := range is.servers {
		f := frontend(vs.Addr, vs.Protocol)
		if !is.members[f] && (was.members[f] || !was.servers[vs]) {
			bad("virtual server %s is there and no set names it", vs)
		}
		if !was.servers[vs] && !w.ruled() {
			bad("virtual server %s came before the rules", vs)
		}
		if w.closed != nil && w.closed(vs) && !is.ranged[f] && (was.ranged[f] || !was.servers[vs]) {
			bad("virtual server %s is there and its source ranges are not in force", vs)
		}
	}
	for a := range is.delivered {
		if !is.guarded[a] && (was.guarded[a] || !was.delivered[a]) {
			bad("address %s is delivered and not guarded", a)
		}
		if !was.delivered[a] && !is.answers(a) {
			bad("address %s came before any virtual server", a)
		}
		if was.delivered[a] && was.answers(a) && !is.answers(a) && (w.waiting == nil || !w.waiting(a)) {
			bad("the last virtual server of %s went before the address", a)
		}
	}
}

// run is an engine at work.
type run struct {
	*engine.Engine
	stop func()
	told *problems
}

// problems are what an engine reported.
type problems struct {
	mu  sync.Mutex
	all []model.Problem
}

// take returns what was reported since the last call, as "object reason".
func (p *problems) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, one := range p.all {
		out = append(out, one.Object.String()+" "+one.Reason)
	}
	p.all = nil
	slices.Sort(out)
	return out
}

// conditions are what of the engine's options the tests vary.
type conditions struct {
	sources  int
	patience time.Duration
	audit    time.Duration
	families []model.Family
	cleanup  bool // as `sluice cleanup`: no rules are wanted
	nodeCIDR bool // pods are where the Node says, not in 10.1.0.0/16
	hooks    engine.Hooks
	speaker  bgp.Server // nil: none
	policy   bool       // NetworkPolicies are enforced
}

// start runs an engine over the world, wired as cmd/sluice does it.
func (w *world) start(tb testing.TB, c conditions) *run {
	tb.Helper()
	if c.families == nil {
		c.families = []model.Family{model.IPv4, model.IPv6}
	}
	if c.patience == 0 {
		c.patience = time.Hour
	}
	w.locked(func() { w.families = len(c.families) })
	told := &problems{}
	opts := engine.Options{
		Store: model.StoreOptions{
			NodeName:  "node1",
			NodePorts: func(a []netip.Addr) []netip.Addr { return nodeport.Select(a, nil) },
		},
		Sources:  c.sources,
		Families: c.families,
		NodeCIDR: c.nodeCIDR,
		Rules: func(pods []netip.Prefix) map[netfilter.Key]netfilter.Spec {
			if !c.nodeCIDR {
				pods = prefixes("10.1.0.0/16")
			}
			return nodeport.Static(nodeport.Config{Families: c.families, ClusterCIDRs: pods})
		},
		Targets:  w.targets(c.families),
		Audit:    c.audit,
		Patience: c.patience,
		Hooks:    c.hooks,
	}
	opts.Hooks.Problem = func(p model.Problem) {
		told.mu.Lock()
		defer told.mu.Unlock()
		told.all = append(told.all, p)
	}
	health := healthcheck.New(healthcheck.Options{Listen: w.listen, Problem: opts.Hooks.Problem})
	opts.Targets.Health = health
	if c.speaker != nil {
		opts.Announcer = bgp.NewAnnouncer(bgp.AnnouncerOptions{NotReadyAfter: 30 * time.Second})
		opts.Targets.Routes = bgp.NewTarget(c.speaker)
	}
	if c.policy {
		frontends, vips, hairpin := nodeport.Sets()
		opts.Planner = policy.NewPlanner(policy.Config{
			Families: c.families, Node: "node1", Frontends: frontends, VIPs: vips, Hairpin: hairpin, Revoked: 1 << 15, LogGroup: 100,
		})
	}
	if c.cleanup {
		opts.Rules, opts.Store, opts.Patience, opts.Targets.Health = nil, model.StoreOptions{}, 0, nil
	}
	e := engine.New(opts)
	ctx, cancel := context.WithCancel(tb.Context())
	done := make(chan struct{})
	go func() { e.Run(ctx); close(done) }()
	stop := sync.OnceFunc(func() { cancel(); <-done; health.Close() })
	tb.Cleanup(stop)
	return &run{Engine: e, stop: stop, told: told}
}

func (w *world) targets(families []model.Family) engine.Targets {
	return engine.Targets{
		Rules: netfilter.New(netfilter.Options{Runner: rules{w}, Sets: rules{w}, Backend: netfilter.Legacy, Families: families}),
		Servers: ipvs.NewTarget(servers{w.table, w}, ipvs.TargetOptions{Ours: func(ctx context.Context) (func(ipvs.VirtualServer) bool, error) {
			named, err := nodeport.Frontends(ctx, rules{w})
			if err != nil {
				return nil, err
			}
			return func(vs ipvs.VirtualServer) bool {
				_, ours := named[model.FrontendKey{Addr: vs.Addr, Protocol: vs.Protocol}]
				return ours
			}, nil
		}, Local: w.local}),
		Addresses: vip.New(device{w}),
	}
}

// local reports whether an address is the node's or on our device.
func (w *world) local(ctx context.Context, a netip.Addr) (is bool, err error) {
	w.locked(func() {
		w.looking = true
		defer func() { w.looking = false }()
		l, _ := w.links.List(ctx) // no device: nothing on it
		at := func(r vip.Route) bool { return r.Addr == a }
		is = slices.Contains(nodeAddrs, a) || slices.Contains(l.Addrs, a) || slices.ContainsFunc(l.Routes, at)
	})
	return is, nil
}

// tell has the engine take facts in: objects to put and keys to delete.
func (r *run) tell(facts ...any) {
	for _, f := range facts {
		r.Event(event(f))
	}
}

func event(fact any) model.Event {
	switch f := fact.(type) {
	case model.ServiceKey, model.EndpointSliceKey, model.NodeKey, model.AdvertisementKey, model.PodKey, model.NetworkPolicyKey:
		return model.Event{Source: "test", Delete: f}
	case model.Event:
		return f
	}
	return model.Event{Source: "test", Put: fact}
}

// synced is one source's word that it has told all.
var synced = model.Event{Source: "test", Synced: true}

// working starts an engine with one source that has told these facts and no
// more, and waits until all is done.
func (w *world) working(tb testing.TB, facts ...any) *run {
	tb.Helper()
	r := w.start(tb, conditions{sources: 1})
	r.tell(facts...)
	r.tell(synced)
	synctest.Wait()
	return r
}

// since runs f, waits until all is done, and returns what it cost.
func (w *world) since(f func()) (cost counts, log []string) {
	w.locked(func() { w.count, w.log = counts{}, nil })
	f()
	synctest.Wait()
	w.locked(func() { cost, log = w.count, w.log })
	return cost, log
}

// shows compares the state of all tables, without the static rules, with a
// text of one line an entry:
//
//	CLUSTER-IP 10.96.0.1,tcp:80
//	TCP 10.96.0.1:80 rr
//	-> 10.1.1.1:8080 Masq 1
//	local 10.96.0.1 src 192.0.2.10
func (w *world) shows(tb testing.TB, what, want string) {
	tb.Helper()
	if got := w.state(); got != unindent(want) {
		tb.Errorf("%s: the tables hold\n%s\nwant\n%s", what, got, unindent(want))
	}
	w.orderly(tb, what)
}

// orderly fails the test for every breach of the order.
func (w *world) orderly(tb testing.TB, what string) {
	tb.Helper()
	w.locked(func() {
		for _, b := range w.breach {
			tb.Errorf("%s: %s", what, b)
		}
		w.breach = nil
	})
}

func unindent(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// state is what Services have in all tables.
func (w *world) state() string {
	var b strings.Builder
	w.locked(func() {
		set := ""
		for line := range strings.Lines(w.filter.Dump()) {
			words := strings.Fields(line)
			switch {
			case words[0] == "set":
				set = strings.TrimPrefix(words[1], "SLUICE-")
			case line[0] != ' ':
				set = ""
				if words[2] == "SLUICE-SHORTCUTS" {
					set = "SHORTCUTS"
				}
			case set == "SHORTCUTS":
				fmt.Fprintln(&b, shortcutText(words))
			case set != "" && !strings.HasSuffix(set, "PODS"):
				fmt.Fprintf(&b, "%s %s\n", set, words[0])
			}
		}
		for line := range strings.Lines(w.serversText()) {
			words := strings.Fields(line)
			if words[0] == "->" {
				words = words[:4]
			}
			fmt.Fprintln(&b, strings.Join(words, " "))
		}
		b.WriteString(w.linksText())
	})
	return b.String()
}

// shortcutText is a rule that translates an address: "SHORTCUTS
// 198.51.100.1,tcp:80 10.96.0.1:80".
func shortcutText(words []string) string {
	after := func(option string) string {
		if i := slices.Index(words, option); i >= 0 {
			return words[i+1]
		}
		return "?"
	}
	to, _, _ := strings.Cut(after("-d"), "/")
	return fmt.Sprintf("SHORTCUTS %s,%s:%s %s", to, after("-p"), after("--dport"), after("--to-destination"))
}

// dumps is everything in all tables, in the fakes' own texts.
func (w *world) dumps() string {
	t := w.tables()
	return t["filter"] + t["ipvs"] + t["vip"]
}

// tables is the same apart.
func (w *world) tables() (t map[string]string) {
	w.locked(func() {
		t = map[string]string{"filter": w.filterText(), "ipvs": w.serversText(), "vip": w.linksText()}
	})
	return t
}

// filterText is the packet filter, the chain SHORTCUTS in alphabetical order: it
// is a map.
func (w *world) filterText() string {
	var blocks [][]string
	for line := range strings.Lines(w.filter.Dump()) {
		if line[0] != ' ' {
			blocks = append(blocks, nil)
		}
		last := len(blocks) - 1
		blocks[last] = append(blocks[last], line)
	}
	var b strings.Builder
	for _, block := range blocks {
		if strings.HasSuffix(block[0], " SLUICE-SHORTCUTS\n") {
			slices.Sort(block[1:])
		}
		b.WriteString(strings.Join(block, ""))
	}
	return b.String()
}

// linksText is the addresses without routes that stand behind another one to
// the same address: the kernel's own, which comes back after some failures.
func (w *world) linksText() string {
	var b strings.Builder
	before := ""
	for line := range strings.Lines(w.links.Dump()) {
		kind, rest, _ := strings.Cut(line, " ")
		addr, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		if at := kind + addr; at != before {
			b.WriteString(line)
			before = at
		}
	}
	return b.String()
}

// serversText is the IPVS table in alphabetical order: ipvsadm's own order is
// circular, and so depends on that of the kernel.
func (w *world) serversText() string {
	var blocks [][]string
	for line := range strings.Lines(w.table.Dump()) {
		if line[0] != ' ' {
			blocks = append(blocks, nil)
		}
		last := len(blocks) - 1
		blocks[last] = append(blocks[last], line)
	}
	slices.SortFunc(blocks, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	var b strings.Builder
	for _, block := range blocks {
		slices.Sort(block[1:])
		b.WriteString(strings.Join(block, ""))
	}
	return b.String()
}

// Facts.

func addrs(ss ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range ss {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func prefixes(ss ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range ss {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func name(s string) model.Name { return model.Name{Namespace: "default", Name: s} }

// node1 is the node that the engine serves.
func node1() model.Node { return model.Node{Name: "node1", Addrs: addrs("192.0.2.10", "fd00:a::10")} }

// service has one TCP port 80, called http, changed as the case wants.
func service(n, ip string, change ...func(*model.Service)) model.Service {
	svc := model.Service{
		Name: name(n), UID: "uid-" + n, Created: time.Unix(1000, 0), ClusterIPs: addrs(ip),
		Ports: []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80}},
	}
	for _, c := range change {
		c(&svc)
	}
	return svc
}

func external(ips ...string) func(*model.Service) {
	return func(s *model.Service) { s.ExternalIPs = addrs(ips...) }
}

func created(at int64) func(*model.Service) {
	return func(s *model.Service) { s.Created = time.Unix(at, 0) }
}

// endpoints is a slice of ready endpoints, each "addr" on another node or
// "addr@node1".
func endpoints(service string, at ...string) model.EndpointSlice {
	sl := model.EndpointSlice{
		Name: name(service + "-x"), Service: service, Family: model.IPv4,
		Ports: []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 8080}},
	}
	for _, a := range at {
		a, node, here := strings.Cut(a, "@")
		if !here {
			node = "node2"
		}
		e := model.Endpoint{Addr: netip.MustParseAddr(a), Node: node, Ready: true, Serving: true}
		sl.Family = model.FamilyOf(e.Addr)
		sl.Endpoints = append(sl.Endpoints, e)
	}
	if sl.Family == model.IPv6 {
		sl.Name.Name += "6"
	}
	return sl
}

var errFault = errors.New("fault")

// refuse is a fault of the writes whose text contains one of the given.
func refuse(texts ...string) func(op) error {
	return func(o op) error {
		for _, text := range texts {
			if strings.Contains(o.table+" "+o.verb+" "+o.subject, text) {
				return errFault
			}
		}
		return nil
	}
}
