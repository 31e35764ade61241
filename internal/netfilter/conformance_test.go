package netfilter_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
)

// subject is a packet filter under test: the fake, or the kernel in a fresh
// network namespace.
type subject struct {
	netfilter.Runner
	netfilter.Sets
	backend netfilter.Backend
	count   func() netfilter.Count
}

func fake(*testing.T) subject {
	k := netfiltertest.New()
	return subject{Runner: k, Sets: k, count: k.Count}
}

func TestFakeConformance(t *testing.T) { testConformance(t, fake) }

func families() []model.Family { return []model.Family{model.IPv4, model.IPv6} }

// testConformance is what a packet filter has to do, fake or not.
func testConformance(t *testing.T, fresh func(*testing.T) subject) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, subject, model.Family){
		"create":         testCreate,
		"destroy":        testDestroy,
		"members":        testMembers,
		"full":           testFull,
		"bad entries":    testBadEntries,
		"many entries":   testManyEntries,
		"exceptions":     testExceptions,
		"atomic":         testAtomic,
		"missing set":    testMissingSet,
		"chains go":      testChainsGo,
		"rules spelled":  testSpelling,
		"jumps deleted":  testDeleteAsPrinted,
		"insert too far": testInsertTooFar,
		"dnat":           testDNAT,
		"mangle":         testMangle,
		"where allowed":  testWhereAllowed,
		"loops":          testLoops,
		"unused tables":  testUnusedTables,
		"well formed":    testWellFormed,
		"gotos":          testGotos,
		"strip":          testStrip,
	} {
		for _, f := range families() {
			t.Run(fmt.Sprintf("%s %s", name, f), func(t *testing.T) { test(t, fresh(t), f) })
		}
	}
}

// kset is a set of the family under its kernel name.
func kset(f model.Family, name string, typ netfilter.SetType) netfilter.Set {
	return netfilter.Set{Name: netfilter.KernelSet(f, name), Family: f, Type: typ, MaxElem: netfilter.MaxElem}
}

// addr is a documentation address.
func addr(f model.Family, n int) netip.Addr {
	if f == model.IPv4 {
		return netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)})
	}
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 14: byte(n >> 8), 15: byte(n)})
}

func all(t *testing.T, errs []error, want error) {
	t.Helper()
	if want == nil && errs != nil {
		t.Errorf("errors %v, want none", errs)
	}
	for i, err := range errs {
		if !errors.Is(err, want) {
			t.Errorf("item %d: error %v, want %v", i, err, want)
		}
	}
	if want != nil && len(errs) == 0 {
		t.Errorf("no errors, want %v", want)
	}
}

func testCreate(t *testing.T, s subject, f model.Family) {
	t.Helper()
	ctx := t.Context()
	var want []netfilter.Set
	for i, typ := range []netfilter.SetType{netfilter.HashIP, netfilter.HashNet, netfilter.HashIPPort, netfilter.HashIPPortIP, netfilter.HashIPPortNet} {
		want = append(want, kset(f, fmt.Sprintf("SLUICE-T%d", i), typ))
	}
	all(t, s.Create(ctx, want), nil)
	all(t, s.Create(ctx, want), syscall.EEXIST)
	other := want[0]
	other.Type = netfilter.HashNet
	all(t, s.Create(ctx, []netfilter.Set{other}), syscall.EEXIST)
	got, err := s.Headers(ctx)
	slices.SortFunc(got, func(a, b netfilter.Set) int { return strings.Compare(a.Name, b.Name) })
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("headers %v, %v; want %v", got, err, want)
	}
}

func testDestroy(t *testing.T, s subject, f model.Family) {
	t.Helper()
	ctx := t.Context()
	a, b := kset(f, "SLUICE-A", netfilter.HashIP), kset(f, "SLUICE-B", netfilter.HashIP)
	all(t, s.Destroy(ctx, []string{a.Name}), syscall.ENOENT)
	all(t, s.Create(ctx, []netfilter.Set{a, b}), nil)
	all(t, s.Add(ctx, []netfilter.Member{{Set: b.Name, Entry: netfilter.Addr(addr(f, 1))}}), nil)
	s.restore(t, f, "*filter\n:SLUICE-X - [0:0]\n-A SLUICE-X -m set --match-set "+a.Name+" src -j RETURN\nCOMMIT\n")
	errs := s.Destroy(ctx, []string{a.Name, b.Name})
	if len(errs) != 2 || !errors.Is(errs[0], syscall.EBUSY) || errs[1] != nil {
		t.Errorf("destroy a referenced and a free set: %v", errs)
	}
	if got, err := s.Headers(ctx); err != nil || len(got) != 1 || got[0].Name != a.Name {
		t.Errorf("left: %v, %v", got, err)
	}
}

func testMembers(t *testing.T, s subject, f model.Family) {
	t.Helper()
	ctx := t.Context()
	at := netip.AddrPortFrom(addr(f, 1), 80)
	half, _ := addr(f, 0).Prefix(1)
	for i, c := range []struct {
		typ     netfilter.SetType
		entries []netfilter.Entry
	}{
		{netfilter.HashIP, []netfilter.Entry{netfilter.Addr(addr(f, 1)), netfilter.Addr(addr(f, 2))}},
		{netfilter.HashNet, []netfilter.Entry{
			netfilter.Net(netip.PrefixFrom(addr(f, 1), at.Addr().BitLen())), netfilter.Net(netip.PrefixFrom(addr(f, 256), 24)),
			netfilter.Net(half)}},
		{netfilter.HashIPPort, []netfilter.Entry{
			netfilter.AddrPort(at, model.TCP), netfilter.AddrPort(at, model.UDP), netfilter.AddrPort(at, model.SCTP)}},
		{netfilter.HashIPPortIP, []netfilter.Entry{
			netfilter.AddrPortAddr(at, model.TCP, addr(f, 1)), netfilter.AddrPortAddr(at, model.TCP, addr(f, 2))}},
		{netfilter.HashIPPortNet, []netfilter.Entry{
			netfilter.AddrPortNet(at, model.TCP, single(addr(f, 1))), netfilter.AddrPortNet(at, model.TCP, netip.PrefixFrom(addr(f, 256), 24)),
			netfilter.AddrPortNet(at, model.UDP, netip.PrefixFrom(addr(f, 256), 24)), netfilter.AddrPortNet(at, model.SCTP, half)}},
	} {
		set := kset(f, fmt.Sprintf("SLUICE-M%d", i), c.typ)
		_, err := s.Members(ctx, set.Name)
		if !errors.Is(err, syscall.ENOENT) {
			t.Errorf("members of an absent set: %v", err)
		}
		members := make([]netfilter.Member, len(c.entries))
		for j, e := range c.entries {
			members[j] = netfilter.Member{Set: set.Name, Entry: e}
		}
		all(t, s.Add(ctx, members), syscall.ENOENT)
		all(t, s.Delete(ctx, members), syscall.ENOENT)
		all(t, s.Create(ctx, []netfilter.Set{set}), nil)
		s.wantMembers(t, set.Name)
		all(t, s.Add(ctx, members), nil)
		all(t, s.Add(ctx, members), nil)
		s.wantMembers(t, set.Name, members...)
		all(t, s.Delete(ctx, members[:1]), nil)
		all(t, s.Delete(ctx, members[:1]), nil)
		s.wantMembers(t, set.Name, members[1:]...)
	}
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func (s subject) wantMembers(t *testing.T, set string, want ...netfilter.Member) {
	t.Helper()
	got, err := s.Members(t.Context(), set)
	compare := func(a, b netfilter.Member) int { return strings.Compare(a.Entry.String(), b.Entry.String()) }
	slices.SortFunc(got, compare)
	want = slices.SortedFunc(slices.Values(want), compare)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("members of %s: %d %.300v, %v; want %d %.300v", set, len(got), got, err, len(want), want)
	}
}

func testFull(t *testing.T, s subject, f model.Family) {
	t.Helper()
	ctx := t.Context()
	set := kset(f, "SLUICE-FULL", netfilter.HashIP)
	set.MaxElem = 2
	other := kset(f, "SLUICE-OTHER", netfilter.HashIP)
	all(t, s.Create(ctx, []netfilter.Set{set, other}), nil)
	var members []netfilter.Member
	for i := 1; i <= 3; i++ {
		members = append(members, netfilter.Member{Set: set.Name, Entry: netfilter.Addr(addr(f, i))})
	}
	members = append(members, netfilter.Member{Set: other.Name, Entry: netfilter.Addr(addr(f, 9))})
	errs := s.Add(ctx, members)
	if len(errs) != 4 || errs[0] != nil || errs[1] != nil || !errors.Is(errs[2], syscall.ENOSPC) || errs[3] != nil {
		t.Fatalf("one more than fits: %v", errs)
	}
	s.wantMembers(t, set.Name, members[:2]...)
	s.wantMembers(t, other.Name, members[3:]...)
}

func testBadEntries(t *testing.T, s subject, f model.Family) {
	t.Helper()
	ctx := t.Context()
	set := kset(f, "SLUICE-BAD", netfilter.HashNet)
	all(t, s.Create(ctx, []netfilter.Set{set}), nil)
	foreign := addr(model.IPv4, 1)
	if f == model.IPv4 {
		foreign = addr(model.IPv6, 1)
	}
	zero, _ := addr(f, 0).Prefix(0)
	good := func(n int) netfilter.Member {
		return netfilter.Member{Set: set.Name, Entry: netfilter.Addr(addr(f, n))}
	}
	members := []netfilter.Member{good(1),
		{Set: set.Name, Entry: netfilter.Net(zero)}, good(2),
		{Set: set.Name, Entry: netfilter.Addr(foreign)}, good(3)}
	errs := s.Add(ctx, members)
	if len(errs) != 5 || errs[0] != nil || errs[1] == nil || errs[2] != nil || errs[3] == nil || errs[4] != nil {
		t.Errorf("two bad of five: %v", errs)
	}
	s.wantMembers(t, set.Name, good(1), good(2), good(3))

	three := kset(f, "SLUICE-BAD3", netfilter.HashIPPortNet)
	all(t, s.Create(ctx, []netfilter.Set{three}), nil)
	at := netip.AddrPortFrom(addr(f, 1), 80)
	fine := netfilter.Member{Set: three.Name, Entry: netfilter.AddrPortNet(at, model.TCP, single(addr(f, 1)))}
	all(t, s.Add(ctx, []netfilter.Member{fine}), nil)
	for what, e := range map[string]netfilter.Entry{
		"everyone":           netfilter.AddrPortNet(at, model.TCP, zero),
		"a foreign net":      netfilter.AddrPortNet(at, model.TCP, single(foreign)),
		"a foreign address":  netfilter.AddrPortNet(netip.AddrPortFrom(foreign, 80), model.TCP, single(addr(f, 1))),
		"no net":             netfilter.AddrPort(at, model.TCP),
		"no port":            {First: single(addr(f, 1)), Second: single(addr(f, 1))},
		"nothing but a port": {Protocol: model.TCP, Port: 80},
	} {
		bad := []netfilter.Member{{Set: three.Name, Entry: e}}
		if s.Add(ctx, bad) == nil {
			t.Errorf("%s was taken", what)
		}
		if s.Delete(ctx, bad) == nil {
			t.Errorf("%s was deleted", what)
		}
	}
	s.wantMembers(t, three.Name, fine)
}

func testManyEntries(t *testing.T, s subject, f model.Family) {
	t.Helper()
	ctx := t.Context()
	sets := []netfilter.Set{kset(f, "SLUICE-M1", netfilter.HashIPPortIP), kset(f, "SLUICE-M2", netfilter.HashIPPortIP)}
	all(t, s.Create(ctx, sets), nil)
	var members [2][]netfilter.Member
	for i := range 3000 {
		e := netfilter.AddrPortAddr(netip.AddrPortFrom(addr(f, i), uint16(i)), model.TCP, addr(f, i))
		members[i%2] = append(members[i%2], netfilter.Member{Set: sets[i%2].Name, Entry: e})
	}
	before := s.count()
	all(t, s.Add(ctx, slices.Concat(members[0], members[1])), nil)
	if d := s.count().Commands - before.Commands; d > 20 {
		t.Errorf("3000 entries took %d commands", d)
	}
	s.wantMembers(t, sets[0].Name, members[0]...)
	s.wantMembers(t, sets[1].Name, members[1]...)
	all(t, s.Delete(ctx, slices.Concat(members[0], members[1][1:])), nil)
	s.wantMembers(t, sets[0].Name)
	s.wantMembers(t, sets[1].Name, members[1][0])
}

func testExceptions(t *testing.T, s subject, f model.Family) {
	t.Helper()
	ctx := t.Context()
	at := netip.AddrPortFrom(addr(f, 1), 80)
	wide := netip.PrefixFrom(addr(f, 0), 24)
	for typ, e := range map[netfilter.SetType]netfilter.Entry{
		netfilter.HashNet:       netfilter.Net(wide),
		netfilter.HashIPPortNet: netfilter.AddrPortNet(at, model.TCP, wide),
	} {
		set := kset(f, "SLUICE-N"+string(typ), typ)
		all(t, s.Create(ctx, []netfilter.Set{set}), nil)
		m := netfilter.Member{Set: set.Name, Entry: e, NoMatch: true}
		all(t, s.Add(ctx, []netfilter.Member{m}), nil)
		s.wantMembers(t, set.Name, m)
		m.NoMatch = false
		all(t, s.Add(ctx, []netfilter.Member{m}), nil)
		s.wantMembers(t, set.Name, m)
		m.NoMatch = true
		all(t, s.Add(ctx, []netfilter.Member{m}), nil)
		m.NoMatch = false
		all(t, s.Delete(ctx, []netfilter.Member{m}), nil)
		s.wantMembers(t, set.Name)
	}
}

func (s subject) program(f model.Family, verb string) string {
	name := "iptables"
	if f == model.IPv6 {
		name = "ip6tables"
	}
	if s.backend != "" {
		name += "-" + string(s.backend)
	}
	return name + "-" + verb
}

func (s subject) tryRestore(ctx context.Context, f model.Family, text string) error {
	_, err := s.Run(ctx, []byte(text), s.program(f, "restore"), "--noflush", "--wait=30")
	return err
}

func (s subject) restore(t *testing.T, f model.Family, text string) {
	t.Helper()
	if err := s.tryRestore(t.Context(), f, text); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}

func (s subject) refuse(t *testing.T, f model.Family, text string) {
	t.Helper()
	var exit *netfilter.ExitError
	err := s.tryRestore(t.Context(), f, text)
	if !errors.As(err, &exit) || errors.Is(err, netfilter.ErrLocked) {
		t.Fatalf("error %v, want a refusal of\n%s", err, text)
	}
}

// rules are a table's rules of chains whose names hold a text, as printed.
func (s subject) rules(t *testing.T, f model.Family, table, chain string) []string {
	t.Helper()
	out, err := s.Run(t.Context(), nil, s.program(f, "save"), "-t", table)
	if err != nil {
		t.Fatal(err)
	}
	var rules []string
	for line := range strings.SplitSeq(string(out), "\n") {
		if rest, ok := strings.CutPrefix(line, "-A "+chain+" "); ok {
			rules = append(rules, rest)
		}
	}
	return rules
}

func testAtomic(t *testing.T, s subject, f model.Family) {
	t.Helper()
	s.restore(t, f, "*filter\n:SLUICE-X - [0:0]\n:SLUICE-Y - [0:0]\n-A SLUICE-X -j RETURN\n-A SLUICE-Y -j DROP\nCOMMIT\n")
	// The nat table is fine and is kept; the filter table is not and stays.
	s.refuse(t, f, "*nat\n:SLUICE-N - [0:0]\n-A SLUICE-N -j RETURN\nCOMMIT\n"+
		"*filter\n:SLUICE-X - [0:0]\n-A SLUICE-X -j ACCEPT\n-A SLUICE-Y -j SLUICE-NOSUCH\nCOMMIT\n")
	for chain, want := range map[string]string{"SLUICE-X": "-j RETURN", "SLUICE-Y": "-j DROP"} {
		if got := s.rules(t, f, "filter", chain); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q, want %q", chain, got, want)
		}
	}
	if got := s.rules(t, f, "nat", "SLUICE-N"); len(got) != 1 {
		t.Errorf("nat: %q", got)
	}
	// A declared chain is emptied, the others are left alone.
	s.restore(t, f, "*filter\n:SLUICE-X - [0:0]\n-A SLUICE-X -j ACCEPT\nCOMMIT\n")
	if x, y := s.rules(t, f, "filter", "SLUICE-X"), s.rules(t, f, "filter", "SLUICE-Y"); len(x) != 1 || len(y) != 1 || x[0] != "-j ACCEPT" {
		t.Errorf("%q, %q", x, y)
	}
}

func testMissingSet(t *testing.T, s subject, f model.Family) {
	t.Helper()
	s.refuse(t, f, "*filter\n:SLUICE-X - [0:0]\n-A SLUICE-X -m set --match-set SLUICE-NOSUCH src -j RETURN\nCOMMIT\n")
	if got := s.rules(t, f, "filter", "SLUICE-X"); got != nil {
		t.Errorf("%q", got)
	}
}

func testChainsGo(t *testing.T, s subject, f model.Family) {
	t.Helper()
	s.restore(t, f, "*nat\n:SLUICE-X - [0:0]\n:SLUICE-Y - [0:0]\n-A SLUICE-X -j SLUICE-Y\n-A SLUICE-Y -j RETURN\n-A PREROUTING -j SLUICE-X\nCOMMIT\n")
	s.refuse(t, f, "*nat\n:SLUICE-Y - [0:0]\n-X SLUICE-Y\nCOMMIT\n")
	s.refuse(t, f, "*nat\n:SLUICE-X - [0:0]\n-X SLUICE-X\nCOMMIT\n")
	if x, y := s.rules(t, f, "nat", "SLUICE-X"), s.rules(t, f, "nat", "SLUICE-Y"); len(x) != 1 || len(y) != 1 {
		t.Errorf("after refusals: %q, %q", x, y)
	}
	s.restore(t, f, "*nat\n-D PREROUTING -j SLUICE-X\nCOMMIT\n")
	for range 2 { // also when they are gone
		s.restore(t, f, "*nat\n:SLUICE-X - [0:0]\n:SLUICE-Y - [0:0]\n:SLUICE-Z - [0:0]\n-X SLUICE-X\n-X SLUICE-Y\n-X SLUICE-Z\nCOMMIT\n")
	}
	out, err := s.Run(t.Context(), nil, s.program(f, "save"), "-t", "nat")
	if err != nil || strings.Contains(string(out), "SLUICE") {
		t.Errorf("%v\n%s", err, out)
	}
}

// everyRule has each thing that a Rule can say in any table.
func everyRule(f model.Family) []netfilter.Rule {
	at, low := netip.AddrPortFrom(addr(f, 1), 80), netip.AddrPortFrom(addr(f, 0x0aff), 1)
	allowed := netfilter.NotIn("SLUICE-NETS", netfilter.Dst, netfilter.Dst, netfilter.Src)
	ip, port := netfilter.In("SLUICE-IP", netfilter.Dst), netfilter.In("SLUICE-PORT", netfilter.Dst, netfilter.Dst)
	three := netfilter.NotIn("SLUICE-THREE", netfilter.Dst, netfilter.Dst, netfilter.Src)
	from := netfilter.NotIn("SLUICE-IP", netfilter.Src)
	mark := netfilter.HasMark{Value: 0x4000, Mask: 0x4000}
	unmarked := netfilter.HasMark{Value: 0x4000, Mask: 0x4000, Not: true}
	return []netfilter.Rule{
		{Do: netfilter.Do(netfilter.Return)},
		{ICMP: netfilter.AnyICMP, Do: netfilter.Do(netfilter.Accept)},
		{ICMP: netfilter.EchoRequest, Do: netfilter.Do(netfilter.Drop)},
		{Sets: [2]netfilter.InSet{ip}, Do: netfilter.Do(netfilter.Reject)},
		{Sets: [2]netfilter.InSet{port, from}, Do: netfilter.MarkBits(0x4000)},
		{Sets: [2]netfilter.InSet{three}, Do: netfilter.ClearBits(0x4000)},
		{Mark: mark, Do: netfilter.To("SLUICE-OTHER")},
		{Mark: unmarked, Do: netfilter.Do(netfilter.Return)},
		{Mark: netfilter.HasMark{Value: 7, Mask: 0xffffffff}, Do: netfilter.Do(netfilter.Return)},
		{Do: netfilter.MarkBits(0xffffffff)},
		{Protocol: model.TCP, Do: netfilter.Do(netfilter.Reset)},
		{Protocol: model.UDP, Sets: [2]netfilter.InSet{ip}, Do: netfilter.Do(netfilter.Reject)},
		{Protocol: model.SCTP, State: netfilter.StateNew, Do: netfilter.Do(netfilter.Drop)},
		{State: netfilter.StateNew | netfilter.StateUntracked, Do: netfilter.Do(netfilter.Reject)},
		{State: netfilter.StateRelated | netfilter.StateEstablished | netfilter.StateInvalid, Do: netfilter.Do(netfilter.Accept)},
		{ICMP: netfilter.EchoRequest, Sets: [2]netfilter.InSet{port, from}, Mark: mark, State: netfilter.StateNew, Do: netfilter.Do(netfilter.Accept)},
		{Protocol: model.TCP, To: at, Do: netfilter.Do(netfilter.Drop)},
		{Protocol: model.UDP, To: low, Do: netfilter.Do(netfilter.Return)},
		{Protocol: model.SCTP, To: netip.AddrPortFrom(addr(f, 1), 0), Do: netfilter.Do(netfilter.Return)},
		{Protocol: model.TCP, Sets: [2]netfilter.InSet{port, allowed}, State: netfilter.StateNew, Do: netfilter.Do(netfilter.Drop)},
		{Sets: [2]netfilter.InSet{port}, State: netfilter.StateDNAT, Do: netfilter.Do(netfilter.Return)},
		{Protocol: model.TCP, To: at, Sets: [2]netfilter.InSet{port, from}, Mark: mark,
			State: netfilter.StateNew | netfilter.StateUntracked | netfilter.StateDNAT, Do: netfilter.MarkBits(1)},
		{Protocol: model.TCP, Ports: netfilter.PortRange{First: 22, Last: 22}, Do: netfilter.Do(netfilter.Return)},
		{Protocol: model.UDP, Ports: netfilter.PortRange{First: 0, Last: 1023}, Do: netfilter.Do(netfilter.Return)},
		{Protocol: model.SCTP, Ports: netfilter.PortRange{First: 1, Last: 65535}, Sets: [2]netfilter.InSet{port, from}, Do: netfilter.Do(netfilter.Return)},
		{Do: netfilter.GoTo("SLUICE-OTHER")},
		{ConnMark: mark, Do: netfilter.GoTo("SLUICE-OTHER")},
		{Mark: mark, ConnMark: unmarked, Do: netfilter.Do(netfilter.Drop)},
		{ConnMark: netfilter.HasMark{Value: 7, Mask: 0xffffffff}, Do: netfilter.Do(netfilter.Return)},
		{NotFrom: "lo", Do: netfilter.Do(netfilter.Drop)},
		{Protocol: model.TCP, To: at, NotFrom: "lo", Do: netfilter.Do(netfilter.Drop)},
		{ICMP: netfilter.EchoRequest, NotFrom: "eth0.100", Do: netfilter.Do(netfilter.Drop)},
		{From: "cni0", Sets: [2]netfilter.InSet{ip}, Do: netfilter.Do(netfilter.Drop)},
		{From: "cali+", Protocol: model.TCP, To: at, Do: netfilter.Do(netfilter.Drop)},
		{NotFrom: "fourteen-let-+", Do: netfilter.Do(netfilter.Drop)},
		{Do: netfilter.LogTo(0, "sluice-all")},
		{Limit: netfilter.MaxLimit, Do: netfilter.LogTo(0xffff, "sluice_0123456789/0123456789/0123456789/0123456789/0123456789-x")},
		{Limit: 1, Do: netfilter.LogTo(100, "sluice-1")},
		{Limit: 7, Do: netfilter.Do(netfilter.Drop)},
		{Protocol: model.UDP, Ports: netfilter.PortRange{First: 5, Last: 6}, NotFrom: "lo", Sets: [2]netfilter.InSet{ip, from}, Mark: mark, ConnMark: mark,
			State: netfilter.StateInvalid, Limit: 10, Do: netfilter.GoTo("SLUICE-OTHER")},
	}
}

// natRules are those that only the nat table takes.
func natRules(f model.Family) []netfilter.Rule {
	at, to := netip.AddrPortFrom(addr(f, 1), 80), netip.AddrPortFrom(addr(f, 2), 8080)
	return []netfilter.Rule{
		{Do: netfilter.Masquerade()},
		{Do: netfilter.Do(netfilter.MasqueradeAs)},
		{Protocol: model.TCP, To: at, Do: netfilter.DNATTo(to)},
		{Protocol: model.UDP, To: at, Do: netfilter.DNATTo(at)},
		{Protocol: model.SCTP, Sets: [2]netfilter.InSet{netfilter.In("SLUICE-PORT", netfilter.Dst, netfilter.Dst)}, Do: netfilter.DNATTo(to)},
	}
}

func createRuleSets(t *testing.T, s subject, f model.Family) {
	t.Helper()
	all(t, s.Create(t.Context(), []netfilter.Set{
		kset(f, "SLUICE-IP", netfilter.HashIP),
		kset(f, "SLUICE-PORT", netfilter.HashIPPort),
		kset(f, "SLUICE-THREE", netfilter.HashIPPortIP),
		kset(f, "SLUICE-NETS", netfilter.HashIPPortNet),
	}), nil)
}

func testSpelling(t *testing.T, s subject, f model.Family) {
	t.Helper()
	createRuleSets(t, s, f)
	rules := everyRule(f)
	var b strings.Builder
	b.WriteString("*filter\n:SLUICE-X - [0:0]\n:SLUICE-OTHER - [0:0]\n")
	for i, r := range rules {
		fmt.Fprintf(&b, "-A SLUICE-X -m comment --comment rule-%d %s\n", i, r.Render(f))
	}
	b.WriteString("COMMIT\n*nat\n:SLUICE-X - [0:0]\n")
	for _, r := range natRules(f) {
		rules = append(rules, r)
		fmt.Fprintf(&b, "-A SLUICE-X -m comment --comment rule-%d %s\n", len(rules)-1, r.Render(f))
	}
	b.WriteString("COMMIT\n")
	s.restore(t, f, b.String())
	got := slices.Concat(s.rules(t, f, "filter", "SLUICE-X"), s.rules(t, f, "nat", "SLUICE-X"))
	if len(got) != len(rules) {
		t.Fatalf("%d rules, want %d", len(got), len(rules))
	}
	for i, line := range got {
		r, comment, err := netfilter.ParseRule(f, line)
		if err != nil || r != rules[i] || comment != fmt.Sprintf("rule-%d", i) {
			t.Errorf("%s\nread as %+v, comment %q, %v\nwant %+v", line, r, comment, err, rules[i])
		}
	}
}

func testDeleteAsPrinted(t *testing.T, s subject, f model.Family) {
	t.Helper()
	createRuleSets(t, s, f)
	set := netfilter.KernelSet(f, "SLUICE-IP")
	s.restore(t, f, "*filter\n:SLUICE-X - [0:0]\n-A INPUT -i eth7 -m comment --comment \"a b\" -j SLUICE-X\n"+
		"-A INPUT -m set --match-set "+set+" src -j SLUICE-X\n-I INPUT 1 -m comment --comment sluice-order-1 -j SLUICE-X\nCOMMIT\n")
	printed := s.rules(t, f, "filter", "INPUT")
	if len(printed) != 3 {
		t.Fatalf("%q", printed)
	}
	for i, line := range printed {
		s.restore(t, f, "*filter\n-D INPUT "+line+"\nCOMMIT\n")
		if left := s.rules(t, f, "filter", "INPUT"); len(left) != 2-i {
			t.Errorf("after deleting %q: %q", line, left)
		}
	}
	s.refuse(t, f, "*filter\n-D INPUT "+printed[0]+"\nCOMMIT\n")
}

func testInsertTooFar(t *testing.T, s subject, f model.Family) {
	t.Helper()
	s.refuse(t, f, "*filter\n:SLUICE-X - [0:0]\n-I INPUT 2 -j SLUICE-X\nCOMMIT\n")
	s.restore(t, f, "*filter\n:SLUICE-X - [0:0]\n-I INPUT 1 -j SLUICE-X\n-I INPUT 2 -j DROP\nCOMMIT\n")
	if got := s.rules(t, f, "filter", "INPUT"); !slices.Equal(got, []string{"-j SLUICE-X", "-j DROP"}) {
		t.Errorf("%q", got)
	}
}

// testDNAT: what a rule that rewrites destinations has to say, and where it may
// stand.
func testDNAT(t *testing.T, s subject, f model.Family) {
	t.Helper()
	a, b, foreign, foreignTo := "198.18.0.1", "198.18.0.2:81", "2001:db8::1", "[2001:db8::1]:81"
	if f == model.IPv6 {
		a, b, foreign, foreignTo = foreign, "[2001:db8::2]:81", a, "198.18.0.1:81"
	}
	to := " -d " + a + " -p tcp -m tcp --dport 80 "
	dnat := to + "-j DNAT --to-destination " + b
	const x = ":SLUICE-X - [0:0]\n-A SLUICE-X"
	for _, table := range []string{"filter", "mangle"} {
		s.refuse(t, f, "*"+table+"\n"+x+dnat+"\nCOMMIT\n")
	}
	for what, rule := range map[string]string{
		"a port, no protocol":          " -d " + a + " -j DNAT --to-destination " + b,
		"no destination":               to + "-j DNAT",
		"a foreign destination":        to + "-j DNAT --to-destination " + foreignTo,
		"a match on a foreign address": " -d " + foreign + " -p tcp -m tcp --dport 80 -j DNAT --to-destination " + b,
		"no protocol":                  " -d " + a + " --dport 80 -j RETURN",
		"another protocol":             " -d " + a + " -p udp -m tcp --dport 80 -j RETURN",
	} {
		t.Run(what, func(t *testing.T) { s.refuse(t, f, "*nat\n"+x+rule+"\nCOMMIT\n") })
	}
	s.restore(t, f, "*nat\n"+x+dnat+"\nCOMMIT\n")
	for _, hook := range []string{"POSTROUTING", "INPUT"} {
		s.refuse(t, f, "*nat\n-A "+hook+" -j SLUICE-X\nCOMMIT\n")
		s.refuse(t, f, "*nat\n:SLUICE-Y - [0:0]\n-A SLUICE-Y -j SLUICE-X\n-A "+hook+" -j SLUICE-Y\nCOMMIT\n")
		s.refuse(t, f, "*nat\n-A "+hook+dnat+"\nCOMMIT\n")
	}
	s.restore(t, f, "*nat\n-A PREROUTING -j SLUICE-X\n-A OUTPUT -j SLUICE-X\n-A OUTPUT"+dnat+"\nCOMMIT\n")
	s.restore(t, f, "*nat\n-A SLUICE-X -m comment --comment first"+dnat+"\nCOMMIT\n")
	want := strings.TrimPrefix(strings.Replace(dnat, a+" ", single(netip.MustParseAddr(a)).String()+" ", 1), " ")
	commented := strings.Replace(want, "-p tcp ", "-p tcp -m comment --comment first ", 1)
	if got := s.rules(t, f, "nat", "SLUICE-X"); !slices.Equal(got, []string{want, commented}) {
		t.Errorf("%q, want %q and %q", got, want, commented)
	}
	if got := s.rules(t, f, "nat", "POSTROUTING"); got != nil {
		t.Errorf("POSTROUTING: %q", got)
	}
}

// testMangle: the table has every builtin chain, and keeps policies and rules
// of others.
func testMangle(t *testing.T, s subject, f model.Family) {
	t.Helper()
	s.restore(t, f, "*mangle\n:FORWARD DROP [0:0]\n:SLUICE-X - [0:0]\n-A SLUICE-X -j DROP\n"+
		"-A PREROUTING -j MARK --set-xmark 0x1/0x1\n-A INPUT -j ACCEPT\n-A FORWARD -j SLUICE-X\n-A OUTPUT -j SLUICE-X\n-A POSTROUTING -j ACCEPT\nCOMMIT\n")
	s.restore(t, f, "*mangle\n:SLUICE-X - [0:0]\n-I PREROUTING 1 -j SLUICE-X\nCOMMIT\n")
	if got := s.rules(t, f, "mangle", "PREROUTING"); !slices.Equal(got, []string{"-j SLUICE-X", "-j MARK --set-xmark 0x1/0x1"}) {
		t.Errorf("PREROUTING: %q", got)
	}
	if got := s.rules(t, f, "mangle", "SLUICE-X"); got != nil {
		t.Errorf("SLUICE-X: %q", got)
	}
	if got := s.rules(t, f, "filter", "FORWARD"); got != nil {
		t.Errorf("filter FORWARD: %q", got)
	}
	out, err := s.Run(t.Context(), nil, s.program(f, "save"), "-t", "mangle")
	if err != nil || !strings.Contains(string(out), "\n:FORWARD DROP ") || !strings.Contains(string(out), "\n:INPUT ACCEPT ") {
		t.Errorf("policies: %v\n%s", err, out)
	}
}

// testWhereAllowed: actions that are for some tables or hooks.
func testWhereAllowed(t *testing.T, s subject, f model.Family) {
	t.Helper()
	const x = ":SLUICE-X - [0:0]\n"
	for _, text := range []string{
		"*mangle\n" + x + "-A SLUICE-X -j REJECT\n",
		"*nat\n" + x + "-A SLUICE-X -j REJECT\n",
		"*filter\n" + x + "-A SLUICE-X -j MASQUERADE\n",
		"*mangle\n" + x + "-A SLUICE-X -j MASQUERADE\n",
		"*nat\n-A PREROUTING -j MASQUERADE\n",
		"*nat\n" + x + "-A SLUICE-X -j MASQUERADE\n-A OUTPUT -j SLUICE-X\n",
		"*filter\n" + x + "-A SLUICE-X -p udp -j REJECT --reject-with tcp-reset\n",
		"*filter\n" + x + "-A SLUICE-X -j REJECT --reject-with tcp-reset\n",
		"*filter\n-A PREROUTING -j ACCEPT\n",
		"*filter\n" + x + "-A POSTROUTING -j SLUICE-X\n",
		"*nat\n-A FORWARD -j ACCEPT\n",
	} {
		t.Run(text, func(t *testing.T) { s.refuse(t, f, text+"COMMIT\n") })
	}
	s.restore(t, f, "*nat\n"+x+"-A SLUICE-X -j MASQUERADE\n-A POSTROUTING -j SLUICE-X\nCOMMIT\n"+
		"*mangle\n"+x+"-A SLUICE-X -j MARK --set-xmark 0x1/0x1\nCOMMIT\n")
}

func testLoops(t *testing.T, s subject, f model.Family) {
	t.Helper()
	s.refuse(t, f, "*nat\n:SLUICE-X - [0:0]\n:SLUICE-Y - [0:0]\n-A SLUICE-X -j SLUICE-Y\n-A SLUICE-Y -j SLUICE-X\n-A OUTPUT -j SLUICE-X\nCOMMIT\n")
	s.restore(t, f, "*nat\n:SLUICE-X - [0:0]\n:SLUICE-Y - [0:0]\n-A SLUICE-X -j SLUICE-Y\n-A SLUICE-X -j SLUICE-Y\n-A OUTPUT -j SLUICE-X\n-A OUTPUT -j SLUICE-Y\nCOMMIT\n")
}

// testUnusedTables: a table is printed beside the others from its first use on.
func testUnusedTables(t *testing.T, s subject, f model.Family) {
	t.Helper()
	printed := func() (names []string) {
		out, err := s.Run(t.Context(), nil, s.program(f, "save"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			if line[0] == '*' {
				names = append(names, strings.TrimSpace(line[1:]))
			}
		}
		return slices.Sorted(slices.Values(names))
	}
	if got := printed(); got != nil {
		t.Errorf("at first: %q", got)
	}
	s.restore(t, f, "*mangle\n:SLUICE-X - [0:0]\nCOMMIT\n*nat\n:SLUICE-X - [0:0]\nCOMMIT\n")
	if got := printed(); !slices.Equal(got, []string{"mangle", "nat"}) {
		t.Errorf("two in use: %q", got)
	}
	s.restore(t, f, "*mangle\n:SLUICE-X - [0:0]\n-X SLUICE-X\nCOMMIT\n")
	if got := printed(); !slices.Equal(got, []string{"mangle", "nat"}) {
		t.Errorf("two empty again: %q", got)
	}
	var exit *netfilter.ExitError
	if _, err := s.Run(t.Context(), nil, s.program(f, "save"), "-t", "nonesuch"); !errors.As(err, &exit) {
		t.Errorf("a table that is not there: %v", err)
	}
	s.refuse(t, f, "*nonesuch\n:SLUICE-X - [0:0]\nCOMMIT\n")
}
