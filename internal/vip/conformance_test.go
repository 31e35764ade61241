package vip_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/internal/vip"
	"sluice.dev/sluice/internal/vip/viptest"
)

// subject is the kernel's side of the device: the fake, or a real one in a
// network namespace that has nodeAddrs on another device.
type subject struct {
	vip.Handle
	count func() vip.Count
	drop  func() // removes the device as others would
}

func nodeAddrs() []netip.Addr {
	return []netip.Addr{
		netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.11"),
		netip.MustParseAddr("2001:db8::10"), netip.MustParseAddr("2001:db8::11"),
	}
}

// nodeAddr is the first or second address of the node in the family of a.
func nodeAddr(a netip.Addr, n int) netip.Addr {
	if a.Is6() {
		n += 2
	}
	return nodeAddrs()[n]
}

func service(f model.Family, n int) netip.Addr {
	if f == model.IPv4 {
		return netip.AddrFrom4([4]byte{10, 96, byte(n >> 8), byte(n)})
	}
	return netip.AddrFrom16([16]byte{0xfd, 0, 0, 0x96, 14: byte(n >> 8), 15: byte(n)})
}

func families() []model.Family { return []model.Family{model.IPv4, model.IPv6} }

func fake(*testing.T) subject {
	k := viptest.New(nodeAddrs()...)
	return subject{Handle: k, count: k.Count, drop: k.Drop}
}

func TestFakeConformance(t *testing.T) { testConformance(t, fake) }
func TestTargetOnFake(t *testing.T)    { testTarget(t, fake) }

// testConformance is what a device has to do, fake or not.
func testConformance(t *testing.T, fresh func(*testing.T) subject) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, subject, model.Family){
		"no device":          testNoDevice,
		"device":             testDevice,
		"addresses":          testAddrs,
		"routes":             testRoutes,
		"address and route":  testBoth,
		"route behind":       testBehind,
		"source not on node": testBadSource,
	} {
		for _, f := range families() {
			t.Run(fmt.Sprintf("%s %s", name, f), func(t *testing.T) { test(t, fresh(t), f) })
		}
	}
}

// all checks that every item of a call had this error, or that there was none.
func all(t *testing.T, errs []error, want error) {
	t.Helper()
	if want == nil && errs != nil || want != nil && len(errs) == 0 {
		t.Errorf("errors %v, want %v", errs, want)
	}
	for _, err := range errs {
		if !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
	}
}

func (s subject) ensure(t *testing.T) {
	t.Helper()
	if err := s.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (s subject) listing(t *testing.T) vip.Listing {
	t.Helper()
	l, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (s subject) wantRoutes(t *testing.T, want ...vip.Route) {
	t.Helper()
	if got := s.listing(t).Routes; !slices.Equal(got, want) {
		t.Errorf("routes %v, want %v", got, want)
	}
}

func testNoDevice(t *testing.T, s subject, f model.Family) {
	t.Helper()
	ctx := t.Context()
	a := []netip.Addr{service(f, 1)}
	all(t, s.AddAddrs(ctx, a), syscall.ENODEV)
	all(t, s.DelAddrs(ctx, a), syscall.ENODEV)
	all(t, s.PutRoutes(ctx, []vip.Route{{Addr: a[0]}}), syscall.ENODEV)
	all(t, s.DelRoutes(ctx, a), syscall.ENODEV)
	all(t, s.AddAddrs(ctx, nil), nil)
	if _, err := s.List(ctx); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("list: %v", err)
	}
	if err := s.Remove(ctx); err != nil {
		t.Errorf("remove: %v", err)
	}
	// Others removed it while we thought it there.
	s.ensure(t)
	s.drop()
	all(t, s.AddAddrs(ctx, a), syscall.ENODEV)
	all(t, s.DelAddrs(ctx, a), syscall.ENODEV)
	all(t, s.PutRoutes(ctx, []vip.Route{{Addr: a[0]}}), syscall.ENODEV)
}

func testDevice(t *testing.T, s subject, f model.Family) {
	t.Helper()
	ctx := t.Context()
	for range 2 {
		s.ensure(t)
		if l := s.listing(t); len(l.Addrs)+len(l.Routes) != 0 {
			t.Errorf("a fresh device has %v", l)
		}
	}
	all(t, s.PutRoutes(ctx, []vip.Route{{Addr: service(f, 1), Source: nodeAddr(service(f, 1), 0)}}), nil)
	for range 2 {
		if err := s.Remove(ctx); err != nil {
			t.Fatal(err)
		}
	}
	s.ensure(t)
	s.wantRoutes(t)
}

func testAddrs(t *testing.T, s subject, f model.Family) {
	t.Helper()
	ctx := t.Context()
	s.ensure(t)
	a := []netip.Addr{service(f, 1), service(f, 2)}
	all(t, s.DelAddrs(ctx, a), syscall.EADDRNOTAVAIL)
	all(t, s.AddAddrs(ctx, a), nil)
	all(t, s.AddAddrs(ctx, a), syscall.EEXIST)
	got := s.listing(t).Addrs
	slices.SortFunc(got, netip.Addr.Compare)
	if !slices.Equal(got, a) {
		t.Errorf("addresses %v, want %v", got, a)
	}
	errs := s.AddAddrs(ctx, []netip.Addr{a[0], service(f, 3)})
	if len(errs) != 2 || !errors.Is(errs[0], syscall.EEXIST) || errs[1] != nil {
		t.Errorf("one there, one not: %v", errs)
	}
	all(t, s.DelAddrs(ctx, append(a, service(f, 3))), nil)
	all(t, s.DelAddrs(ctx, a), syscall.EADDRNOTAVAIL)
	if l := s.listing(t); len(l.Addrs)+len(l.Routes) != 0 {
		t.Errorf("left: %v", l)
	}
}

func testRoutes(t *testing.T, s subject, f model.Family) {
	t.Helper()
	ctx := t.Context()
	s.ensure(t)
	a := service(f, 1)
	one, two := vip.Route{Addr: a, Source: nodeAddr(a, 0)}, vip.Route{Addr: a, Source: nodeAddr(a, 1)}
	all(t, s.DelRoutes(ctx, []netip.Addr{a}), syscall.ESRCH)
	all(t, s.PutRoutes(ctx, []vip.Route{one}), nil)
	all(t, s.PutRoutes(ctx, []vip.Route{one}), nil)
	s.wantRoutes(t, one)
	all(t, s.PutRoutes(ctx, []vip.Route{two}), nil)
	s.wantRoutes(t, two)
	all(t, s.DelRoutes(ctx, []netip.Addr{a}), nil)
	all(t, s.DelRoutes(ctx, []netip.Addr{a}), syscall.ESRCH)
	s.wantRoutes(t)
}

// testBoth is where the families differ: see the package comment.
func testBoth(t *testing.T, s subject, f model.Family) {
	t.Helper()
	if f == model.IPv6 {
		return // the kernel puts its route in when it likes
	}
	ctx := t.Context()
	s.ensure(t)
	a := service(f, 1)
	own, ours := vip.Route{Addr: a, Source: a}, vip.Route{Addr: a, Source: nodeAddr(a, 0)}
	other := vip.Route{Addr: service(f, 2), Source: service(f, 2)}
	all(t, s.AddAddrs(ctx, []netip.Addr{a, other.Addr}), nil)
	s.wantRoutes(t, own, other)
	all(t, s.PutRoutes(ctx, []vip.Route{ours}), nil)
	s.wantRoutes(t, ours, other)
	// The replaced route does not go with its address.
	all(t, s.DelAddrs(ctx, []netip.Addr{a}), nil)
	s.wantRoutes(t, ours, other)
	all(t, s.DelRoutes(ctx, []netip.Addr{a}), nil)
	s.wantRoutes(t, other)
	// One without a source of its own does.
	all(t, s.AddAddrs(ctx, []netip.Addr{a}), nil)
	all(t, s.PutRoutes(ctx, []vip.Route{{Addr: a}}), nil)
	s.wantRoutes(t, own, other)
	all(t, s.PutRoutes(ctx, []vip.Route{ours}), nil)
	all(t, s.PutRoutes(ctx, []vip.Route{{Addr: a}}), nil)
	s.wantRoutes(t, own, other)
	all(t, s.DelAddrs(ctx, []netip.Addr{a}), nil)
	s.wantRoutes(t, other)
	// The last address takes everything of its family with it.
	all(t, s.PutRoutes(ctx, []vip.Route{ours}), nil)
	all(t, s.DelAddrs(ctx, []netip.Addr{other.Addr}), nil)
	s.wantRoutes(t)
}

// testBehind: an address that comes back puts the kernel's route behind ours.
func testBehind(t *testing.T, s subject, f model.Family) {
	t.Helper()
	if f == model.IPv6 {
		return
	}
	ctx := t.Context()
	s.ensure(t)
	a := service(f, 1)
	own, ours := vip.Route{Addr: a, Source: a}, vip.Route{Addr: a, Source: nodeAddr(a, 0)}
	all(t, s.PutRoutes(ctx, []vip.Route{ours}), nil)
	all(t, s.AddAddrs(ctx, []netip.Addr{a}), nil)
	s.wantRoutes(t, ours, own)
	all(t, s.PutRoutes(ctx, []vip.Route{{Addr: a}}), syscall.EEXIST)
	all(t, s.DelRoutes(ctx, []netip.Addr{a}), nil)
	s.wantRoutes(t, own)
}

func testBadSource(t *testing.T, s subject, f model.Family) {
	t.Helper()
	ctx := t.Context()
	s.ensure(t)
	good := vip.Route{Addr: service(f, 2), Source: nodeAddr(service(f, 2), 0)}
	errs := s.PutRoutes(ctx, []vip.Route{{Addr: service(f, 1), Source: service(f, 99)}, good})
	if len(errs) != 2 || !errors.Is(errs[0], syscall.EINVAL) || errs[1] != nil {
		t.Errorf("errors %v", errs)
	}
	s.wantRoutes(t, good)
}

type state = map[vip.Key]vip.Spec

// testTarget is what the Target has to do on any device.
func testTarget(t *testing.T, fresh func(*testing.T) subject) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, rig){
		"round trip":    testRoundTrip,
		"source":        testSource,
		"drift":         testDrift,
		"device gone":   testDeviceGone,
		"bad source":    testTargetBadSource,
		"budget":        testBudget,
		"remove":        testRemove,
		"before a list": testNeverListed,
	} {
		t.Run(name, func(t *testing.T) { s := fresh(t); test(t, rig{s, vip.New(s)}) })
	}
}

type rig struct {
	subject
	target *vip.Target
}

func (r rig) list(t *testing.T) state {
	t.Helper()
	var got state
	for section, err := range r.target.List(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		if got != nil {
			t.Error("more than one section")
		}
		got = section.Present
	}
	return got
}

func difference(want, have state) reconcile.Change[vip.Key, vip.Spec] {
	var c reconcile.Change[vip.Key, vip.Spec]
	for k, v := range want {
		if is, present := have[k]; !present || is != v {
			c.Puts = append(c.Puts, reconcile.Put[vip.Key, vip.Spec]{Key: k, Spec: v, Present: present})
		}
	}
	for k := range have {
		if _, wanted := want[k]; !wanted {
			c.Dels = append(c.Dels, k)
		}
	}
	return c
}

func (r rig) reconcile(t *testing.T, want state) {
	t.Helper()
	for _, err := range r.target.Apply(t.Context(), difference(want, r.list(t))) {
		t.Error(err)
	}
	r.want(t, want)
}

func (r rig) want(t *testing.T, want state) {
	t.Helper()
	c := difference(want, r.list(t))
	for _, p := range c.Puts {
		t.Errorf("%s is not %+v", p.Key, p.Spec)
	}
	for _, k := range c.Dels {
		t.Errorf("%s is not wanted", k)
	}
}

// sample is n addresses of each family, with the node's first address as
// source, and one without.
func sample(n int) state {
	s := state{}
	for _, f := range families() {
		for i := range n {
			a := service(f, i+1)
			s[vip.Key{Addr: a}] = vip.Spec{Source: nodeAddr(a, 0)}
		}
		s[vip.Key{Addr: service(f, n+1)}] = vip.Spec{}
	}
	return s
}

func testRoundTrip(t *testing.T, r rig) {
	t.Helper()
	want := sample(3)
	r.want(t, state{})
	r.reconcile(t, want)
	for _, c := range []reconcile.Change[vip.Key, vip.Spec]{difference(want, state{}), difference(want, state{}), difference(state{}, want), difference(state{}, want)} {
		for _, err := range r.target.Apply(t.Context(), c) {
			t.Error(err)
		}
		if len(c.Puts) > 0 {
			r.want(t, want)
		}
	}
	r.want(t, state{})
	if l := r.listing(t); len(l.Addrs)+len(l.Routes) != 0 {
		t.Errorf("left: %v", l)
	}
}

func testSource(t *testing.T, r rig) {
	t.Helper()
	want := sample(2)
	for _, n := range []int{0, 1, -1, 1, 0, -1} {
		for k := range want {
			want[k] = vip.Spec{}
			if n >= 0 {
				want[k] = vip.Spec{Source: nodeAddr(k.Addr, n)}
			}
		}
		r.reconcile(t, want)
	}
	r.reconcile(t, state{})
}

func testDrift(t *testing.T, r rig) {
	t.Helper()
	want := sample(2)
	ctx := t.Context()
	for _, f := range families() {
		for what, meddle := range map[string]func() []error{
			"address added": func() []error { return r.AddAddrs(ctx, []netip.Addr{service(f, 77)}) },
			"route deleted": func() []error { return r.DelRoutes(ctx, []netip.Addr{service(f, 1)}) },
			"route added":   func() []error { return r.PutRoutes(ctx, []vip.Route{{Addr: service(f, 78)}}) },
			"source changed": func() []error {
				return r.PutRoutes(ctx, []vip.Route{{Addr: service(f, 1), Source: nodeAddr(service(f, 1), 1)}})
			},
			"source of the unbound": func() []error {
				return r.PutRoutes(ctx, []vip.Route{{Addr: service(f, 3), Source: nodeAddr(service(f, 1), 1)}})
			},
			"both parts gone": func() []error {
				if f == model.IPv4 {
					all(t, r.DelAddrs(ctx, []netip.Addr{service(f, 1)}), nil)
				}
				return r.DelRoutes(ctx, []netip.Addr{service(f, 1)})
			},
			"address deleted, or an IPv6 one added": func() []error {
				if f == model.IPv4 {
					return r.DelAddrs(ctx, []netip.Addr{service(f, 1)})
				}
				return r.AddAddrs(ctx, []netip.Addr{service(f, 1)})
			},
			"address deleted, or an IPv6 one added, without a source": func() []error {
				if f == model.IPv4 {
					return r.DelAddrs(ctx, []netip.Addr{service(f, 3)})
				}
				return r.AddAddrs(ctx, []netip.Addr{service(f, 3)})
			},
			"address back behind the route": func() []error {
				if f == model.IPv6 {
					return r.DelRoutes(ctx, []netip.Addr{service(f, 3)})
				}
				all(t, r.PutRoutes(ctx, []vip.Route{{Addr: service(f, 3), Source: nodeAddr(service(f, 3), 0)}}), nil)
				all(t, r.DelAddrs(ctx, []netip.Addr{service(f, 3)}), nil)
				return r.AddAddrs(ctx, []netip.Addr{service(f, 3)})
			},
		} {
			t.Run(fmt.Sprintf("%s %s", what, f), func(t *testing.T) {
				r.reconcile(t, want)
				if what == "route added" && f == model.IPv4 {
					all(t, r.AddAddrs(ctx, []netip.Addr{service(f, 78)}), nil)
				}
				all(t, meddle(), nil)
				c := difference(want, r.list(t))
				if n := len(c.Puts) + len(c.Dels); n != 1 {
					t.Errorf("%d differences seen, want 1: %v", n, c)
				}
				r.reconcile(t, want)
			})
		}
	}
}

func testDeviceGone(t *testing.T, r rig) {
	t.Helper()
	want := sample(2)
	r.reconcile(t, want)
	r.drop()
	k := vip.Key{Addr: service(model.IPv4, 9)}
	c := difference(state{k: {}}, state{})
	if errs := r.target.Apply(t.Context(), c); !errors.Is(errs[k], syscall.ENODEV) {
		t.Errorf("errors %v", errs)
	}
	r.reconcile(t, want)
}

func testTargetBadSource(t *testing.T, r rig) {
	t.Helper()
	want := sample(2)
	bad := vip.Key{Addr: service(model.IPv4, 9)}
	want[bad] = vip.Spec{Source: service(model.IPv4, 99)}
	errs := r.target.Apply(t.Context(), difference(want, r.list(t)))
	if len(errs) != 1 || !errors.Is(errs[bad], syscall.EINVAL) {
		t.Errorf("errors %v", errs)
	}
	delete(want, bad)
	have := r.list(t)
	delete(have, bad)
	if c := difference(want, have); len(c.Puts)+len(c.Dels) != 0 {
		t.Errorf("the others were kept from being written: %v", c)
	}
}

func testBudget(t *testing.T, r rig) {
	t.Helper()
	r.reconcile(t, sample(2))
	a4, a6 := service(model.IPv4, 50), service(model.IPv6, 50)
	for _, c := range []struct {
		what string
		c    reconcile.Change[vip.Key, vip.Spec]
		want vip.Count
	}{
		{"an IPv4 address comes", difference(state{{Addr: a4}: {Source: nodeAddr(a4, 0)}}, state{}), vip.Count{Commands: 2, Sends: 2}},
		{"an IPv6 address comes", difference(state{{Addr: a6}: {Source: nodeAddr(a6, 0)}}, state{}), vip.Count{Commands: 1, Sends: 1}},
		{"an IPv4 address goes", difference(state{}, state{{Addr: a4}: {}}), vip.Count{Commands: 2, Sends: 2}},
		{"nothing", difference(state{}, state{}), vip.Count{}},
	} {
		before := r.count()
		for _, err := range r.target.Apply(t.Context(), c.c) {
			t.Error(err)
		}
		after := r.count()
		if got := (vip.Count{Commands: after.Commands - before.Commands, Sends: after.Sends - before.Sends}); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, got, c.want)
		}
	}
}

func testRemove(t *testing.T, r rig) {
	t.Helper()
	r.reconcile(t, sample(1))
	for range 2 {
		if err := r.target.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.List(t.Context()); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("after removal: %v", err)
	}
	r.reconcile(t, sample(1))
}

// testNeverListed: the device is made when it is first needed.
func testNeverListed(t *testing.T, r rig) {
	t.Helper()
	want := sample(1)
	for _, err := range r.target.Apply(t.Context(), difference(want, state{})) {
		t.Error(err)
	}
	r.want(t, want)
}

func TestForeignDevice(t *testing.T) {
	k := viptest.New(nodeAddrs()...)
	k.Foreign = true
	target := vip.New(k)
	for _, err := range target.List(t.Context(), nil) {
		if !errors.Is(err, syscall.EEXIST) {
			t.Errorf("list: %v", err)
		}
	}
	want := sample(1)
	if errs := target.Apply(t.Context(), difference(want, state{})); len(errs) != len(want) {
		t.Errorf("apply: %v", errs)
	}
	if err := target.Remove(t.Context()); err == nil {
		t.Error("a device of others was removed")
	}
}

func TestDesired(t *testing.T) {
	node := netip.MustParseAddr("192.0.2.10")
	at := func(s string, k model.FrontendKind) model.Frontend {
		return model.Frontend{FrontendKey: model.FrontendKey{Addr: netip.MustParseAddrPort(s), Protocol: model.TCP}, Kind: k, SourceIP: node}
	}
	got := vip.Desired(model.View{Frontends: []model.Frontend{
		at("10.96.0.1:80", model.ClusterIP), at("10.96.0.1:443", model.ClusterIP),
		at("192.0.2.10:30080", model.NodePort),
		at("198.51.100.1:80", model.ExternalIP), at("198.51.100.2:80", model.LoadBalancerIP),
	}})
	want := state{}
	for _, a := range []string{"10.96.0.1", "198.51.100.1", "198.51.100.2"} {
		want[vip.Key{Addr: netip.MustParseAddr(a)}] = vip.Spec{Source: node}
	}
	if c := difference(want, got); len(c.Puts)+len(c.Dels) != 0 {
		t.Errorf("got %v, want %v", got, want)
	}
}
