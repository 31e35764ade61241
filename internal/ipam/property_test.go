package ipam

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice.dev/sluice/internal/model"
)

// drawn are facts at random, from so few values that they meet.
type drawn struct{ *rapid.T }

// nameOf puts half of the Services into another namespace.
func nameOf(name string) model.Name {
	return model.Name{Namespace: map[bool]string{true: "shop", false: "bank"}[name[0]%2 == 0], Name: name}
}

func (t drawn) service(name string) model.Service {
	families := [][]model.Family{{model.IPv4}, {model.IPv6}, {model.IPv4, model.IPv6}, {model.IPv6, model.IPv4}}
	s := model.Service{
		Name:    nameOf(name),
		UID:     "uid-" + name,
		Created: epoch().Add(time.Duration(name[0]%3) * time.Second),
		Labels:  map[string]string{"tier": rapid.SampledFrom([]string{"front", "back"}).Draw(t.T, "label")},
		Ports:   []model.ServicePort{{Protocol: model.TCP, Port: rapid.SampledFrom([]uint16{80, 443}).Draw(t.T, "port")}},
		Balancer: model.Balancer{
			Wanted:     rapid.IntRange(0, 9).Draw(t.T, "wanted") > 0,
			Class:      rapid.SampledFrom([]string{"", "", "", "other"}).Draw(t.T, "class"),
			Pool:       rapid.SampledFrom([]string{"", "", "", "", "p0", "p1", "none"}).Draw(t.T, "pool"),
			SharingKey: rapid.SampledFrom([]string{"", "", "k", "l"}).Draw(t.T, "key"),
			Families:   rapid.SampledFrom(families).Draw(t.T, "families"),
			DualStack:  model.DualStack(rapid.IntRange(0, 2).Draw(t.T, "dual stack")),
			Reallocate: rapid.SampledFrom([]string{"", "", "1", "2"}).Draw(t.T, "reallocate"),
		},
	}
	if rapid.IntRange(0, 5).Draw(t.T, "asks") == 0 {
		s.Balancer.Requested = []netip.Addr{t.addr()}
	}
	return s
}

func (t drawn) addr() netip.Addr {
	return rapid.SampledFrom(addrs("192.0.2.1 192.0.2.3 192.0.2.5 2001:db8::1 2001:db8::3 198.51.100.1")).Draw(t.T, "address")
}

func (t drawn) pool(name string) model.AddressPool {
	p := model.AddressPool{
		Name: name, UID: name, Created: epoch().Add(time.Duration(name[1]) * time.Second),
		AutoAssign: rapid.IntRange(0, 4).Draw(t.T, "auto") > 0, Disabled: rapid.IntRange(0, 6).Draw(t.T, "disabled") == 0,
		AvoidBuggyIPs: rapid.Bool().Draw(t.T, "buggy"), EnforceNamespaces: rapid.Bool().Draw(t.T, "enforce"),
		Priority: rapid.IntRange(0, 2).Draw(t.T, "priority"),
	}
	for _, base := range []string{"192.0.2.0", "2001:db8::"} {
		first := netip.MustParseAddr(base)
		for range rapid.IntRange(0, 4).Draw(t.T, "first") {
			first = first.Next()
		}
		last := first
		for range rapid.IntRange(0, 3).Draw(t.T, "length") {
			last = last.Next()
		}
		p.Ranges = append(p.Ranges, model.AddrRange{First: first, Last: last})
	}
	if rapid.IntRange(0, 2).Draw(t.T, "namespaces") == 0 {
		p.NamespaceSelectors = selector("team", "a")
	}
	if rapid.IntRange(0, 3).Draw(t.T, "services") == 0 {
		p.ServiceSelectors = selector("tier", "front")
	}
	return p
}

// fact is a fact to tell: an object as it is now, or that it is gone.
func (t drawn) fact() any {
	service := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"}).Draw(t.T, "service")
	pool := rapid.SampledFrom([]string{"p0", "p1", "p2"}).Draw(t.T, "name of pool")
	switch n := rapid.IntRange(0, 19).Draw(t.T, "fact"); {
	case n < 10:
		return t.service(service)
	case n < 13:
		return model.ServiceKey{Name: nameOf(service)}
	case n < 16:
		return t.pool(pool)
	case n < 17:
		return model.AddressPoolKey{Name: pool}
	case n < 18:
		return model.Namespace{Name: "shop", Labels: map[string]string{"team": rapid.SampledFrom([]string{"a", "b"}).Draw(t.T, "team")}}
	default:
		var list []netip.Addr
		if rapid.Bool().Draw(t.T, "node") {
			list = []netip.Addr{t.addr()}
		}
		return model.Node{Name: "n", Addrs: list}
	}
}

// TestRandomLives: whatever happens, the allocator keeps its promises after
// every step.
func TestRandomLives(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := newDesk(Options{Reserved: []netip.Prefix{netip.MustParsePrefix("192.0.2.4/32")}})
		draw := drawn{rt}
		for range rapid.IntRange(0, 8).Draw(rt, "before") {
			d.tell(draw.adoptable())
		}
		d.Start()
		for range rapid.IntRange(1, 25).Draw(rt, "after") {
			d.carry()
			before := d.snapshot()
			fact := draw.fact()
			d.tell(fact)
			d.carry()
			checkExclusive(rt, d)
			checkKept(rt, d, before, fact)
			checkCounts(rt, d)
			checkNobodyWaitsInVain(rt, d)
			checkScratch(rt, d)
		}
	})
}

// adoptable is a fact with an address in its status, if it is a Service.
func (t drawn) adoptable() any {
	f := t.fact()
	if s, ok := f.(model.Service); ok && rapid.Bool().Draw(t.T, "has") {
		has := []netip.Addr{t.addr()}
		s.Balancer.Status, s.LoadBalancerIPs = has, has
		return s
	}
	return f
}

func (d *desk) snapshot() map[model.Name]Decision {
	now := map[model.Name]Decision{}
	for name, r := range d.services {
		now[name] = Decision{Holder: r.holder(), Wanted: r.ours, Addresses: slices.Clone(r.held), Handled: r.handled}
	}
	return now
}

// checkExclusive: of Services with one address the younger says so, unless
// sharing allows it.
func checkExclusive(t *rapid.T, d *desk) {
	users := map[netip.Addr][]*record{}
	for _, r := range d.services {
		for _, a := range r.held {
			users[a] = append(users[a], r)
		}
		for _, a := range r.foreign {
			users[a] = append(users[a], r)
		}
	}
	for a, rs := range users {
		slices.SortFunc(rs, func(x, y *record) int {
			return cmp.Compare(b2i(y.turn().before(x.turn())), b2i(x.turn().before(y.turn())))
		})
		for i, x := range rs {
			for _, y := range rs[:i] {
				ok := x.ours && y.ours && x.part.key != "" && x.part.key == y.part.key && x.fact.Ports[0] != y.fact.Ports[0]
				if !ok && x.ours && d.decided[x.fact.Name].Condition.Reason == Allocated {
					t.Fatalf("%v belongs to %v and %v, and the latter says %+v", a, y.fact.Name, x.fact.Name, d.decided[x.fact.Name])
				}
			}
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// checkKept: nothing changes but what was asked for.
func checkKept(t *rapid.T, d *desk, before map[model.Name]Decision, fact any) {
	for name, was := range before {
		r := d.services[name]
		if r == nil || !r.ours || !was.Wanted || r.fact.UID != was.UID {
			continue
		}
		want := wantedFamilies(r.fact)
		for _, a := range was.Addresses {
			asked := len(r.fact.Balancer.Requested) > 0 || r.handled != was.Handled && r.handled != "" || !slices.Contains(want, model.FamilyOf(a))
			if !asked && !slices.Contains(r.held, a) {
				t.Fatalf("%v lost %v after %+v: %+v", name, a, fact, d.decided[name])
			}
		}
	}
}

func checkCounts(t *rapid.T, d *desk) {
	for _, c := range d.Pools() {
		var assigned, available [2]int64
		p := d.layout.byName[c.Name]
		for i, s := range p.spaces {
			for _, r := range s.ranges {
				for a := r.First; a.Compare(r.Last) <= 0; a = a.Next() {
					if d.leases[a] != nil {
						assigned[i]++
					} else if !p.fact.AvoidBuggyIPs || !buggy(a) {
						available[i]++
					}
				}
			}
		}
		if assigned != c.Assigned || available != c.Available {
			t.Fatalf("pool %s: %v assigned and %v available, want %v and %v", c.Name, c.Assigned, c.Available, assigned, available)
		}
	}
	for a, l := range d.leases {
		if len(l.holders) == 0 {
			t.Fatalf("%v is nobody's", a)
		}
	}
}

// gist is the table with the reasons of those left out that lack something: of
// several that there may be for that, the one that was there first is told.
func (d *desk) gist() string {
	var b strings.Builder
	for line := range strings.SplitSeq(d.table(), "\n") {
		words := strings.Fields(line)
		if n := len(words); n > 0 && slices.Contains([]string{PoolExhausted, NoPool, AddressInUse, AddressOutOfPool, RequestRefused, NotAllowed, FamilyMissing}, words[n-1]) {
			words[n-1] = "lacking"
		}
		b.WriteString(strings.Join(words, " ") + "\n")
	}
	return b.String()
}

// checkNobodyWaitsInVain: deciding upon everything again changes nothing.
func checkNobodyWaitsInVain(t *rapid.T, d *desk) {
	was := d.gist()
	for name := range d.services {
		d.soil(name)
	}
	d.carry()
	if now := d.gist(); now != was {
		t.Fatalf("had\n%sand when asked again\n%s", was, now)
	}
}

// checkScratch: an allocator that is told how things are decides the same.
func checkScratch(t *rapid.T, d *desk) {
	fresh := newDesk(d.opts)
	for _, p := range d.pools {
		fresh.tell(p)
	}
	for _, n := range d.namespaces {
		fresh.tell(n)
	}
	for name, a := range d.nodes {
		fresh.tell(model.Node{Name: name, Addrs: a})
	}
	for _, r := range d.services {
		fresh.tell(r.fact)
		fresh.Adopt(r.holder(), r.held, r.foreign, r.handled)
	}
	fresh.Start()
	fresh.carry()
	if fresh.gist() != d.gist() {
		t.Fatalf("in steps\n%sfrom scratch\n%s", d.gist(), fresh.gist())
	}
	if !slices.EqualFunc(fresh.Pools(), d.Pools(), func(a, b PoolCounts) bool { return a.Assigned == b.Assigned && a.Available == b.Available }) {
		t.Fatalf("counts in steps %v, from scratch %v", d.Pools(), fresh.Pools())
	}
}

// TestOrderOfEventsDoesNotMatter, as long as nothing is given in between.
func TestOrderOfEventsDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		draw := drawn{rt}
		facts := map[string]any{}
		for range rapid.IntRange(1, 25).Draw(rt, "facts") {
			f := draw.adoptable()
			switch f.(type) {
			case model.ServiceKey, model.AddressPoolKey:
				continue
			}
			facts[fmt.Sprintf("%T", f)+nameIn(f)] = f
		}
		tables := map[string]struct{}{}
		for seed := range uint64(3) {
			keys := slices.Sorted(maps.Keys(facts))
			rand.New(rand.NewPCG(seed, 0)).Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
			d := newDesk(Options{})
			for _, k := range keys {
				d.tell(facts[k])
			}
			d.Start()
			d.carry()
			tables[d.table()] = struct{}{}
		}
		if len(tables) != 1 {
			rt.Fatalf("%d outcomes: %v", len(tables), slices.Collect(maps.Keys(tables)))
		}
	})
}

func nameIn(f any) string {
	switch f := f.(type) {
	case model.Service:
		return f.Name.String()
	case model.AddressPool:
		return f.Name
	}
	return ""
}

// full makes an allocator with n Services and as many addresses, and one pool.
func full(n int, key string) *desk {
	d := newDesk(Options{})
	d.tell(aPool("a", "10.0.0.0/9"))
	d.Start()
	for i := range n {
		d.tell(aService(fmt.Sprintf("s%06d", i), younger(i), shares(key)))
	}
	d.carry()
	return d
}

// TestWorkDoesNotGrow: what it takes to give an address does not depend on how
// many are given.
func TestWorkDoesNotGrow(t *testing.T) {
	const n = 20_000
	for _, key := range []string{"", "k"} {
		d := full(n, key)
		if most := 4 * n; d.work > most {
			t.Errorf("key %q: %d addresses looked at to give %d", key, d.work, n)
		}
		d.work = 0
		random := rand.New(rand.NewPCG(1, 2))
		const rounds = 2000
		for i := range rounds {
			gone := fmt.Sprintf("s%06d", random.IntN(n))
			d.tell(model.ServiceKey{Name: aService(gone).Name})
			d.carry()
			d.tell(aService(gone, younger(n+i), shares(key)))
			d.carry()
		}
		if most := 8 * rounds; d.work > most {
			t.Errorf("key %q: %d addresses looked at in %d changes", key, d.work, rounds)
		}
	}
	// Of many who wait, the first is woken.
	d := newDesk(Options{})
	d.tell(aPool("a", "10.0.0.1/32"))
	d.Start()
	for i := range n {
		d.tell(aService(fmt.Sprintf("s%06d", i), younger(i)))
	}
	d.carry()
	d.work = 0
	for i := range 100 {
		d.tell(model.ServiceKey{Name: aService(fmt.Sprintf("s%06d", i)).Name})
		d.carry()
	}
	if d.work > 1000 || d.Waiting() != n-101 {
		t.Errorf("%d looks for 100 addresses that became free, %d wait", d.work, d.Waiting())
	}
}

func BenchmarkFill(b *testing.B) {
	for b.Loop() {
		full(100_000, "")
	}
}

func BenchmarkChurn(b *testing.B) {
	const n = 100_000
	d := full(n, "")
	random := rand.New(rand.NewPCG(1, 2))
	i := 0
	for b.Loop() {
		i++
		name := fmt.Sprintf("s%06d", random.IntN(n))
		d.tell(model.ServiceKey{Name: aService(name).Name})
		d.carry()
		d.tell(aService(name, younger(n+i)))
		d.carry()
	}
}
