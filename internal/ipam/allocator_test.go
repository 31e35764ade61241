package ipam

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/internal/model"
)

// epoch is when the first Service of a test was created; their names say how
// many seconds later the others were.
func epoch() time.Time { return time.Unix(1_700_000_000, 0) }

func addrs(texts string) []netip.Addr {
	var list []netip.Addr
	for t := range strings.FieldsSeq(texts) {
		list = append(list, netip.MustParseAddr(t))
	}
	return list
}

func ranges(texts string) []model.AddrRange {
	var list []model.AddrRange
	for t := range strings.FieldsSeq(texts) {
		if p, err := netip.ParsePrefix(t); err == nil {
			list = append(list, rangeOf(p))
			continue
		}
		first, last, _ := strings.Cut(t, "-")
		list = append(list, model.AddrRange{First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last)})
	}
	return list
}

func aPool(name, addresses string, edits ...func(*model.AddressPool)) model.AddressPool {
	p := model.AddressPool{Name: name, UID: "pool-" + name, Created: epoch(), AutoAssign: true, Ranges: ranges(addresses)}
	for _, edit := range edits {
		edit(&p)
	}
	return p
}

func aService(name string, edits ...func(*model.Service)) model.Service {
	s := model.Service{
		Name: model.Name{Namespace: "shop", Name: name}, UID: "uid-" + name, Created: epoch(),
		Ports:    []model.ServicePort{{Protocol: model.TCP, Port: 80}},
		Balancer: model.Balancer{Wanted: true, Families: []model.Family{model.IPv4}},
	}
	for _, edit := range edits {
		edit(&s)
	}
	return s
}

// The ways in which Services differ.
type edit = func(*model.Service)

func status(a string) edit {
	return func(s *model.Service) { s.Balancer.Status, s.LoadBalancerIPs = addrs(a), addrs(a) }
}
func asks(a string) edit        { return func(s *model.Service) { s.Balancer.Requested = addrs(a) } }
func fromPool(p string) edit    { return func(s *model.Service) { s.Balancer.Pool = p } }
func shares(key string) edit    { return func(s *model.Service) { s.Balancer.SharingKey = key } }
func again(value string) edit   { return func(s *model.Service) { s.Balancer.Reallocate = value } }
func class(c string) edit       { return func(s *model.Service) { s.Balancer.Class = c } }
func unwanted() edit            { return func(s *model.Service) { s.Balancer.Wanted = false } }
func labelled(k, v string) edit { return func(s *model.Service) { s.Labels = map[string]string{k: v} } }
func younger(seconds int) edit {
	return func(s *model.Service) { s.Created = epoch().Add(time.Duration(seconds) * time.Second) }
}
func remade() edit { return func(s *model.Service) { s.UID += "'" } }
func in(namespace string) edit {
	return func(s *model.Service) { s.Name.Namespace = namespace }
}
func port80(protocol model.Protocol) edit {
	return func(s *model.Service) { s.Ports = []model.ServicePort{{Protocol: protocol, Port: 80}} }
}
func onPort(n uint16) edit {
	return func(s *model.Service) { s.Ports = []model.ServicePort{{Protocol: model.TCP, Port: n}} }
}
func stack(policy model.DualStack, families ...model.Family) edit {
	return func(s *model.Service) { s.Balancer.DualStack, s.Balancer.Families = policy, families }
}
func selector(k, v string) []model.Selector {
	return []model.Selector{{Requirements: []model.Requirement{{Key: k, Op: model.In, Values: []string{v}}}}}
}

// desk is an allocator whose decisions are carried out at once.
type desk struct {
	*Allocator
	decided map[model.Name]Decision
}

func newDesk(opts Options) *desk {
	return &desk{Allocator: New(opts), decided: map[model.Name]Decision{}}
}

func (d *desk) tell(facts ...any) {
	for _, f := range facts {
		switch f := f.(type) {
		case model.ServiceKey, model.AddressPoolKey, model.NamespaceKey, model.NodeKey:
			d.Apply(model.Event{Delete: f})
		default:
			d.Apply(model.Event{Put: f})
		}
	}
}

// carry takes every decision and does what it says; gone Services leave no trace.
func (d *desk) carry() {
	for {
		next, ok := d.Next()
		if !ok {
			return
		}
		for _, addr := range next.Release {
			d.Released(next.Holder, addr)
		}
		if next.Gone {
			continue
		}
		d.decided[next.Name] = next
		if r := d.services[next.Name]; r != nil {
			now := slices.Concat(next.Addresses, r.foreign)
			r.fact.Balancer.Status, r.fact.LoadBalancerIPs = now, next.Addresses
		}
	}
}

// table is what Services have, a line for each.
func (d *desk) table() string {
	var b strings.Builder
	for _, name := range slices.SortedFunc(maps.Keys(d.services), model.Name.Compare) {
		x := d.decided[name]
		fmt.Fprintf(&b, "%s", name.Name)
		for _, addr := range x.Addresses {
			fmt.Fprintf(&b, " %v", addr)
		}
		if x.Wanted {
			fmt.Fprintf(&b, " %s", x.Condition.Reason)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func priority(n int) func(*model.AddressPool) { return func(p *model.AddressPool) { p.Priority = n } }
func notAuto(p *model.AddressPool)            { p.AutoAssign = false }
func off(p *model.AddressPool)                { p.Disabled = true }
func old(p *model.AddressPool)                { p.Created = epoch().Add(-time.Hour) }
func noBuggy(p *model.AddressPool)            { p.AvoidBuggyIPs = true }
func enforced(p *model.AddressPool)           { p.EnforceNamespaces = true }
func forNamespace(n string) func(*model.AddressPool) {
	return func(p *model.AddressPool) { p.Namespaces = []string{n} }
}

// TestAllocation is the rules, one for each row: what is told before anything is
// allocated, what is told then, and what Services have in the end.
func TestAllocation(t *testing.T) {
	v4, v6 := model.IPv4, model.IPv6
	small := aPool("a", "192.0.2.1-192.0.2.2")
	both := []any{aPool("four", "192.0.2.1-192.0.2.1"), aPool("six", "2001:db8::1-2001:db8::1")}
	type row struct {
		name   string
		before []any
		then   []any
		want   string
	}
	for _, r := range []row{
		{"the lowest free address, the oldest Service first",
			[]any{aService("x", younger(1)), aService("y"), small}, nil,
			"x 192.0.2.2 Allocated\ny 192.0.2.1 Allocated\n"},
		{"what Services have is taken before anything is given",
			[]any{small, aService("x"), aService("y", younger(1), status("192.0.2.1"))}, nil,
			"x 192.0.2.2 Allocated\ny 192.0.2.1 Allocated\n"},
		{"another implementation's Service keeps its address to itself",
			[]any{small, aService("x"), aService("y", class("other"), status("192.0.2.1"))}, nil,
			"x 192.0.2.2 Allocated\ny\n"},
		{"a pool of lower priority number goes first, then the name counts",
			[]any{aPool("a", "192.0.2.1-192.0.2.1", priority(2)), aPool("b", "192.0.2.2-192.0.2.2", priority(1)), aPool("c", "192.0.2.3-192.0.2.3", priority(1)),
				aService("x"), aService("y"), aService("z")}, nil,
			"x 192.0.2.2 Allocated\ny 192.0.2.3 Allocated\nz 192.0.2.1 Allocated\n"},
		{"exhausted, and served when something becomes free",
			[]any{small, aService("x"), aService("y"), aService("z")}, []any{model.ServiceKey{Name: model.Name{Namespace: "shop", Name: "x"}}},
			"y 192.0.2.2 Allocated\nz 192.0.2.1 Allocated\n"},
		{"no pool", []any{aService("x")}, nil, "x NoPool\n"},
		{"a pool that comes later", []any{aService("x")}, []any{small}, "x 192.0.2.1 Allocated\n"},
		{"a pool that gives by name only", []any{aPool("a", "192.0.2.1/32", notAuto), aService("x"), aService("y", fromPool("a"))}, nil,
			"x NoPool\ny 192.0.2.1 Allocated\n"},
		{"its address by name", []any{aPool("a", "192.0.2.1/32", notAuto), aService("x", asks("192.0.2.1"))}, nil, "x 192.0.2.1 Allocated\n"},
		{"a disabled pool gives nothing, not even by name",
			[]any{aPool("a", "192.0.2.1/32", off), aService("x"), aService("y", asks("192.0.2.1")), aService("z", fromPool("a"))}, nil,
			"x NoPool\ny RequestRefused\nz RequestRefused\n"},
		{"a pool that is disabled keeps what it gave", []any{small, aService("x")}, []any{aPool("a", "192.0.2.1-192.0.2.2", off)}, "x 192.0.2.1 Allocated\n"},
		{"a pool that does not exist", []any{small, aService("x", fromPool("b"))}, nil, "x NoPool\n"},
		{"an address outside of every pool", []any{small, aService("x", asks("198.51.100.1"))}, nil, "x AddressOutOfPool\n"},
		{"an address of another pool than the one named", []any{small, aPool("b", "192.0.2.9/32"), aService("x", fromPool("b"), asks("192.0.2.1"))}, nil, "x RequestRefused\n"},
		{"an address that is in use, until it is not", []any{small, aService("x"), aService("y", asks("192.0.2.1"), younger(1))}, nil,
			"x 192.0.2.1 Allocated\ny AddressInUse\n"},
		{"an address that becomes free is given to who asked for it", []any{small, aService("x"), aService("y", asks("192.0.2.1"), younger(1))},
			[]any{aService("x", unwanted())}, "x\ny 192.0.2.1 Allocated\n"},
		{"two addresses of one family", []any{small, aService("x", asks("192.0.2.1 192.0.2.2"))}, nil, "x RequestRefused\n"},
		{"what cannot be read is not guessed", []any{small, aService("x", func(s *model.Service) { s.Balancer.Unclear = true })}, nil, "x RequestRefused\n"},
		{"an address of a family that it has not", []any{small, aService("x", asks("2001:db8::1"))}, nil, "x RequestRefused\n"},
		{"another address by name", []any{small, aService("x")}, []any{aService("x", asks("192.0.2.2"))}, "x 192.0.2.2 Allocated\n"},
		{"the address is kept while the other one is in use", []any{small, aService("x"), aService("y")}, []any{aService("x", asks("192.0.2.2"))},
			"x 192.0.2.1 AddressInUse\ny 192.0.2.2 Allocated\n"},
		{"a request that is taken back changes nothing", []any{small, aService("x", asks("192.0.2.2"))}, []any{aService("x")}, "x 192.0.2.2 Allocated\n"},
		{"a pool that shrinks", []any{small, aService("x")}, []any{aPool("a", "192.0.2.2/32")}, "x 192.0.2.1 OutOfPool\n"},
		{"a pool that goes", []any{small, aService("x")}, []any{model.AddressPoolKey{Name: "a"}}, "x 192.0.2.1 OutOfPool\n"},
		{"a pool that moves, and the annotation", []any{small, aService("x")}, []any{aPool("a", "192.0.2.2/32"), aService("x", again("1"))}, "x 192.0.2.2 Allocated\n"},
		{"the annotation when there is nothing else", []any{aPool("a", "192.0.2.1/32"), aService("x")}, []any{model.AddressPoolKey{Name: "a"}, aService("x", again("1"))}, "x 192.0.2.1 NoPool\n"},
		{"the annotation when the address is still the lowest", []any{small, aService("x")}, []any{aService("x", again("1"))}, "x 192.0.2.1 Allocated\n"},
		{"the annotation when a lower one is free", []any{small, aService("y"), aService("x", younger(1))},
			[]any{aService("y", unwanted()), aService("x", younger(1), again("1"))}, "x 192.0.2.1 Allocated\ny\n"},
		{"labels that no pool selects any more",
			[]any{aPool("a", "192.0.2.1/32", func(p *model.AddressPool) { p.ServiceSelectors = selector("tier", "front") }), aService("x", labelled("tier", "front"))},
			[]any{aService("x")}, "x 192.0.2.1 OutOfPool\n"},
		{"a pool for other labels", []any{aPool("a", "192.0.2.1/32", func(p *model.AddressPool) { p.ServiceSelectors = selector("tier", "front") }), aService("x")}, nil, "x NoPool\n"},
		{"a pool for a namespace", []any{aPool("a", "192.0.2.1-192.0.2.9", forNamespace("shop")), aService("x"), aService("y", in("bank"))}, nil,
			"y NoPool\nx 192.0.2.1 Allocated\n"},
		{"a pool for namespaces by label", []any{
			aPool("a", "192.0.2.1/32", func(p *model.AddressPool) { p.NamespaceSelectors = selector("team", "b") }), aService("x")},
			[]any{model.Namespace{Name: "shop", Labels: map[string]string{"team": "b"}}}, "x 192.0.2.1 Allocated\n"},
		{"a namespace's pool by name", []any{aPool("a", "192.0.2.1/32", forNamespace("bank")), aService("x", fromPool("a"))}, nil, "x 192.0.2.1 Allocated\n"},
		{"a namespace's own pool by name", []any{aPool("a", "192.0.2.1/32", forNamespace("bank"), enforced), aService("x", fromPool("a")), aService("y", asks("192.0.2.1"))}, nil,
			"x NotAllowed\ny NotAllowed\n"},
		{"addresses that old devices misread", []any{aPool("a", "192.0.2.255-192.0.3.1", noBuggy), aService("x"), aService("y", younger(1)), aService("z", asks("192.0.3.0"))}, nil,
			"x 192.0.3.1 Allocated\ny PoolExhausted\nz RequestRefused\n"},
		{"sharing", []any{small, aService("x", shares("k")), aService("y", shares("k"), onPort(443), younger(1)), aService("z", shares("k"), younger(2))}, nil,
			"x 192.0.2.1 Allocated\ny 192.0.2.1 Allocated\nz 192.0.2.2 Allocated\n"},
		{"sharing of one port by two protocols, across namespaces", []any{small, aService("x", shares("k")), aService("y", shares("k"), port80(model.UDP), in("zoo"))}, nil,
			"x 192.0.2.1 Allocated\ny 192.0.2.1 Allocated\n"},
		{"different keys", []any{small, aService("x", shares("k")), aService("y", shares("l"), onPort(443))}, nil,
			"x 192.0.2.1 Allocated\ny 192.0.2.2 Allocated\n"},
		{"sharing by name", []any{small, aService("x", shares("k"), asks("192.0.2.2")), aService("y", shares("k"), onPort(443), asks("192.0.2.2"))}, nil,
			"x 192.0.2.2 Allocated\ny 192.0.2.2 Allocated\n"},
		{"ports that come to clash", []any{small, aService("x", shares("k")), aService("y", shares("k"), onPort(443), younger(1))},
			[]any{aService("y", shares("k"), younger(1))}, "x 192.0.2.1 Allocated\ny 192.0.2.1 AddressInUse\n"},
		{"a place in a shared address that becomes free", []any{aPool("a", "192.0.2.1/32"), aService("w", shares("k"), onPort(443)), aService("x", shares("k")), aService("y", shares("k"), younger(1))},
			[]any{aService("x", unwanted())}, "w 192.0.2.1 Allocated\nx\ny 192.0.2.1 Allocated\n"},
		{"one address in two statuses stays", []any{small, aService("x", status("192.0.2.1")), aService("y", status("192.0.2.1"))}, nil,
			"x 192.0.2.1 Allocated\ny 192.0.2.1 AddressInUse\n"},
		{"the older one goes", []any{small, aService("x", status("192.0.2.1")), aService("y", status("192.0.2.1"))},
			[]any{model.ServiceKey{Name: model.Name{Namespace: "shop", Name: "x"}}}, "y 192.0.2.1 Allocated\n"},
		{"single stack takes the first family", append(both, aService("x", stack(model.SingleStack, v6, v4))), nil, "x 2001:db8::1 Allocated\n"},
		{"both families in their order", append(both, aService("x", stack(model.RequireDualStack, v6, v4))), nil, "x 2001:db8::1 192.0.2.1 Allocated\n"},
		{"both or none", append(both, aService("x", stack(model.RequireDualStack, v4, v6)), aService("y", stack(model.RequireDualStack, v4, v6), younger(1)), aService("z", younger(2))),
			[]any{aPool("four", "192.0.2.1-192.0.2.2")}, "x 192.0.2.1 2001:db8::1 Allocated\ny FamilyMissing\nz 192.0.2.2 Allocated\n"},
		{"one family will do", []any{small, aService("x", stack(model.PreferDualStack, v4, v6))}, nil, "x 192.0.2.1 FamilyMissing\n"},
		{"the other one comes later", []any{small, aService("x", stack(model.PreferDualStack, v4, v6))}, []any{both[1]}, "x 192.0.2.1 2001:db8::1 Allocated\n"},
		{"one family only exists", []any{aService("x", stack(model.PreferDualStack, v4))}, nil, "x NoPool\n"},
		{"a family more", append(both, aService("x")), []any{aService("x", stack(model.RequireDualStack, v4, v6))}, "x 192.0.2.1 2001:db8::1 Allocated\n"},
		{"a family less", append(both, aService("x", stack(model.RequireDualStack, v4, v6))), []any{aService("x")}, "x 192.0.2.1 Allocated\n"},
		{"a Service made anew is another one", []any{small, aService("x"), aService("y", younger(1))}, []any{aService("x", remade(), younger(2))},
			"x 192.0.2.1 Allocated\ny 192.0.2.2 Allocated\n"},
		{"a type that changes", []any{small, aService("x")}, []any{aService("x", unwanted())}, "x\n"},
		{"a type that changes and back", []any{small, aService("x")}, []any{aService("x", unwanted()), aService("x")}, "x 192.0.2.1 Allocated\n"},
		{"a Service that comes with an address", []any{small}, []any{aService("x", status("192.0.2.2"))}, "x 192.0.2.2 Allocated\n"},
		{"a Service that comes with another one's address", []any{small, aService("x")}, []any{aService("y", status("192.0.2.1"))},
			"x 192.0.2.1 Allocated\ny 192.0.2.2 Allocated\n"},
		{"pools that overlap: the older keeps it", []any{aPool("a", "192.0.2.1-192.0.2.3"), aPool("b", "192.0.2.3-192.0.2.4", old), aService("x", fromPool("a")), aService("y", fromPool("b"))}, nil,
			"x 192.0.2.1 Allocated\ny 192.0.2.3 Allocated\n"},
		{"nodes keep their addresses", []any{small, model.Node{Name: "n", Addrs: addrs("192.0.2.1")}, model.LocalAddrs{Addrs: addrs("192.0.2.2")}, aService("x"), aService("y", asks("192.0.2.1"))}, nil,
			"x NoPool\ny RequestRefused\n"},
		{"a node that goes", []any{small, model.Node{Name: "n", Addrs: addrs("192.0.2.1")}, aService("x")}, []any{model.NodeKey{Name: "n"}, aService("y")},
			"x 192.0.2.2 Allocated\ny 192.0.2.1 Allocated\n"},
	} {
		t.Run(r.name, func(t *testing.T) {
			d := newDesk(Options{})
			d.tell(r.before...)
			d.Start()
			d.carry()
			d.tell(r.then...)
			d.carry()
			if got := d.table(); got != r.want {
				t.Errorf("got\n%swant\n%s", got, r.want)
				for _, x := range d.decided {
					t.Log(x.Name, x.Condition.Message)
				}
			}
		})
	}
}

func TestNoChangeOfMind(t *testing.T) {
	d := newDesk(Options{})
	d.tell(aPool("a", "192.0.2.1-192.0.2.9"), aService("x", again("7")), aService("y", younger(1)))
	d.Start()
	d.carry()
	d.tell(aService("w", younger(-1)), aPool("b", "10.0.0.1/32", priority(-1)), aService("x", again("7"), labelled("a", "b")))
	d.carry()
	if want := "w 10.0.0.1 Allocated\nx 192.0.2.1 Allocated\ny 192.0.2.2 Allocated\n"; d.table() != want {
		t.Errorf("got\n%swant\n%s", d.table(), want)
	}
	// Its status was written: a pool that is told again is no news.
	d.tell(aPool("b", "10.0.0.1/32", priority(-1)))
	if x, more := d.Next(); more {
		t.Errorf("decided again: %+v", x)
	}
	// A value that was done before a restart is not done again.
	next := newDesk(Options{})
	next.tell(aPool("b", "10.0.0.1/32"), aService("x", again("8"), status("192.0.2.1")))
	next.Adopt(Holder{model.Name{Namespace: "shop", Name: "x"}, "uid-x"}, addrs("192.0.2.1"), nil, "8")
	next.Start()
	next.carry()
	if want := "x 192.0.2.1 OutOfPool\n"; next.table() != want {
		t.Errorf("after a restart: got\n%swant\n%s", next.table(), want)
	}
	next = newDesk(Options{})
	next.tell(aPool("b", "10.0.0.1/32"), aService("x", again("8"), status("192.0.2.1")))
	next.Adopt(Holder{model.Name{Namespace: "shop", Name: "x"}, "uid-x"}, addrs("192.0.2.1"), nil, "7")
	next.Start()
	next.carry()
	if want := "x 10.0.0.1 Allocated\n"; next.table() != want {
		t.Errorf("a value set while nobody watched: got\n%swant\n%s", next.table(), want)
	}
}

// TestAddressIsTakenUntilReleased: between the decision and the world's being so
// nobody else gets the address.
func TestAddressIsTakenUntilReleased(t *testing.T) {
	a := New(Options{})
	tell := func(f any) { a.Apply(model.Event{Put: f}) }
	next := func() Decision { d, _ := a.Next(); return d }
	tell(aPool("a", "192.0.2.1/32"))
	tell(aService("x"))
	a.Start()
	if d := next(); len(d.Addresses) != 1 {
		t.Fatalf("%+v", d)
	}
	tell(aService("y"))
	a.Apply(model.Event{Delete: model.ServiceKey{Name: aService("x").Name}})
	gone := next()
	if !gone.Gone || !slices.Equal(gone.Release, addrs("192.0.2.1")) || gone.UID != "uid-x" {
		t.Fatalf("%+v", gone)
	}
	if d := next(); d.Condition.Reason != PoolExhausted {
		t.Fatalf("before Released: %+v", d)
	}
	a.Again(gone.Holder)
	if d := next(); !slices.Equal(d.Release, gone.Release) {
		t.Fatalf("again: %+v", d)
	}
	a.Released(gone.Holder, gone.Release[0])
	if d := next(); !slices.Equal(d.Addresses, gone.Release) {
		t.Fatalf("after Released: %+v", d)
	}
}

// TestTakenBySomebodyElse: of an address that others turn out to have, the
// next one is given, and it is given when they have gone.
func TestTakenBySomebodyElse(t *testing.T) {
	d := newDesk(Options{})
	d.tell(aPool("a", "192.0.2.1-192.0.2.2"), aService("x"))
	d.Start()
	d.carry()
	d.Refuse(Holder{aService("x").Name, "uid-x"}, addrs("192.0.2.1")[0], "Service far/away")
	d.carry()
	if want := "x 192.0.2.2 Allocated\n"; d.table() != want {
		t.Errorf("got %s", d.table())
	}
	d.tell(aService("y"), aService("z", asks("192.0.2.1")))
	d.carry()
	if want := "x 192.0.2.2 Allocated\ny PoolExhausted\nz AddressInUse\n"; d.table() != want {
		t.Errorf("got %s", d.table())
	}
	if m := d.decided[aService("z").Name].Condition.Message; !strings.Contains(m, "far/away") {
		t.Errorf("message %q", m)
	}
	d.Unblock(addrs("192.0.2.1")[0])
	d.carry()
	if want := "x 192.0.2.2 Allocated\ny 192.0.2.1 Allocated\nz AddressInUse\n"; d.table() != want {
		t.Errorf("got %s", d.table())
	}
	if p := d.Pools()[0]; p.Assigned[0] != 2 || p.Available[0] != 0 {
		t.Errorf("counts %+v", p)
	}
}

// TestAnotherAllocatorGave: after Start, what another one wrote is taken over;
// who was to have it here gets another one.
func TestAnotherAllocatorGave(t *testing.T) {
	d := newDesk(Options{})
	x := Holder{aService("x").Name, "uid-x"}
	d.tell(aPool("a", "192.0.2.1-192.0.2.9"), aService("x"), aService("y", younger(1)))
	d.Start()
	d.carry()
	d.Evict(addrs("192.0.2.2")[0], []Holder{x})
	d.Adopt(x, addrs("192.0.2.2"), nil, "")
	d.carry()
	if want := "x 192.0.2.2 Allocated\ny 192.0.2.1 Allocated\n"; d.table() != want && d.table() != strings.ReplaceAll(want, "y 192.0.2.1", "y 192.0.2.3") {
		t.Errorf("got %s", d.table())
	}
	if p := d.Pools()[0]; p.Assigned[0] != 2 || p.Available[0] != 7 {
		t.Errorf("counts %+v", p)
	}
}

func TestFollowForgets(t *testing.T) {
	d := newDesk(Options{Reserved: []netip.Prefix{netip.MustParsePrefix("192.0.2.9/32")}})
	d.tell(aPool("a", "192.0.2.1-192.0.2.9"), aService("x", status("192.0.2.4")), aService("y"))
	d.Start()
	for _, ok := d.Next(); ok; _, ok = d.Next() {
	}
	d.Allocator = d.Follow()
	if got := d.Pools()[0]; got.Assigned[0] != 1 || got.Available[0] != 7 {
		t.Errorf("%+v, want what statuses say", got)
	}
	d.tell(aService("y", status("192.0.2.3")))
	d.Start()
	d.carry()
	if want := "x 192.0.2.4 Allocated\ny 192.0.2.3 Allocated\n"; d.table() != want {
		t.Errorf("got %s", d.table())
	}
}

func TestPoolProblems(t *testing.T) {
	d := newDesk(Options{Reserved: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}})
	d.tell(aPool("a", "10.244.255.254-10.245.0.1 192.0.2.0/30"), aPool("b", "192.0.2.2/31", old), model.Node{Name: "n1", Addrs: addrs("192.0.2.1")})
	var got []string
	for _, p := range d.Pools() {
		got = append(got, fmt.Sprintf("%s %v %v", p.Name, p.Assigned, p.Available))
		for _, x := range p.Problems {
			got = append(got, x.Reason+" "+x.Message)
		}
	}
	want := []string{
		"a [0 0] [3 0]",
		"PoolReserved spec.addresses: 10.244.255.254-10.244.255.255 belongs to 10.244.0.0/16, a network of pods, Services or nodes, and is not given to Services; remove it from the pool",
		"PoolOverlap spec.addresses: 192.0.2.2-192.0.2.3 is also in pool b, which is older and keeps it; remove it from one of the two pools",
		"PoolReserved spec.addresses: 192.0.2.1 belongs to node n1 and is not given to Services; remove it from the pool",
		"b [0 0] [2 0]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestMessagesNameFieldAndRemedy(t *testing.T) {
	d := newDesk(Options{})
	d.tell(aPool("a", "192.0.2.1/32"), aPool("b", "192.0.2.2/32", notAuto), aService("x"), aService("y", younger(1)),
		aService("z", asks("192.0.2.1"), younger(2)), aService("s", stack(model.SingleStack, model.IPv6)))
	d.Start()
	d.carry()
	for name, want := range map[string][]string{
		"y": {"spec.type", "pool a", "spec.addresses of an AddressPool"},
		"z": {"sluice.dev/load-balancer-ips", "192.0.2.1", "shop/x", "sluice.dev/allow-shared-ip"},
		"s": {"IPv6", "pool b gives addresses by name only", "create one"},
	} {
		p := d.decided[aService(name).Name].Problem()
		if p == nil || p.Kind != "Service" || p.UID != "uid-"+name {
			t.Fatalf("problem of %s: %+v", name, p)
		}
		for _, w := range want {
			if !strings.Contains(p.Message, w) {
				t.Errorf("%s: %q does not name %q", name, p.Message, w)
			}
		}
	}
}

func TestHugeRanges(t *testing.T) {
	d := newDesk(Options{})
	d.tell(aPool("a", "2001:db8::/64 10.0.0.0/8", noBuggy), aService("x", stack(model.RequireDualStack, model.IPv4, model.IPv6)))
	d.Start()
	d.carry()
	if want := "x 10.0.0.1 2001:db8:: Allocated\n"; d.table() != want {
		t.Errorf("got %s", d.table())
	}
	p := d.Pools()[0]
	if p.Available[1] != math.MaxInt64 || p.Available[0] != 1<<24-1<<17-1 {
		t.Errorf("counts %+v", p)
	}
}

func TestRanges(t *testing.T) {
	for _, r := range []struct {
		of          string
		size, buggy int64
	}{
		{"192.0.2.1-192.0.2.1", 1, 0}, {"192.0.2.0/24", 256, 2}, {"192.0.2.255-192.0.3.0", 2, 2}, {"192.0.2.0-192.0.2.0", 1, 1},
		{"192.0.2.1-192.0.2.254", 254, 0}, {"0.0.0.0/0", 1 << 32, 1 << 25}, {"10.0.0.0-10.0.1.0", 257, 3},
		{"2001:db8::/126", 4, 0}, {"2001:db8::ffff:ffff:ffff:ffff-2001:db8:0:1::", 2, 0}, {"2001:db8::/65", math.MaxInt64, 0}, {"::/0", math.MaxInt64, 0},
	} {
		x := ranges(r.of)[0]
		if size(x) != r.size || buggyIn(x) != r.buggy {
			t.Errorf("%s: %d addresses, %d of them buggy; want %d and %d", r.of, size(x), buggyIn(x), r.size, r.buggy)
		}
	}
	rest := without(ranges("10.0.0.0/24")[0], ranges("10.0.0.255/32 10.0.0.0/30 10.0.0.2-10.0.0.9 192.0.2.0/24"))
	if want := ranges("10.0.0.10-10.0.0.254"); !slices.Equal(rest, want) {
		t.Errorf("got %v, want %v", rest, want)
	}
	if rest := without(ranges("10.0.0.0/24")[0], ranges("10.0.0.0/24")); rest != nil {
		t.Errorf("got %v", rest)
	}
}
