//go:build lab

package netfilter_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/netfilter/netfiltertest"
)

// kernel is the real packet filter in a network namespace of its own.
func kernel(backend netfilter.Backend) func(*testing.T) subject {
	return func(t *testing.T) subject {
		t.Helper()
		ns := netfiltertest.NewNamespace(t)
		var h *netfilter.Handle
		ns.Do(func() {
			var err error
			if h, err = netfilter.Dial(); err != nil {
				t.Error(err)
			}
		})
		if h == nil {
			t.FailNow()
		}
		t.Cleanup(func() { _ = h.Close() })
		return subject{Runner: ns.Runner(h), Sets: h, backend: backend, count: h.Count}
	}
}

// backends are those that the machine under the tests has: a User-Mode-Linux
// guest lacks nf_tables.
func backends(t *testing.T) []netfilter.Backend {
	t.Helper()
	var out []netfilter.Backend
	t.Run("backends", func(t *testing.T) {
		for _, b := range []netfilter.Backend{netfilter.Legacy, netfilter.NFT} {
			s := kernel(b)(t)
			usable, err := netfilter.Usable(t.Context(), s, b, families())
			t.Logf("%s: %v, %v", b, usable, err)
			if len(usable) == len(families()) {
				out = append(out, b)
			}
		}
	})
	if len(out) == 0 {
		t.Fatal("no usable backend")
	}
	return out
}

func TestKernelConformance(t *testing.T) {
	for _, b := range backends(t) {
		t.Run(string(b), func(t *testing.T) { testConformance(t, kernel(b)) })
	}
}

func TestTargetOnKernel(t *testing.T) {
	for _, b := range backends(t) {
		t.Run(string(b), func(t *testing.T) { testTarget(t, kernel(b)) })
	}
}

// BenchmarkMembers puts, lists and deletes many members of one set through the
// Target.
func BenchmarkMembers(b *testing.B) {
	for _, n := range []int{1, 10000, 100000} {
		members := state{}
		for i := range n {
			a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
			members[netfilter.MemberKey(model.IPv4, setThree, netfilter.AddrPortAddr(netip.AddrPortFrom(a, 80), model.TCP, a))] = netfilter.Spec{}
		}
		for _, step := range []string{"add", "delete", "list"} {
			b.Run(fmt.Sprintf("%s %d", step, n), func(b *testing.B) {
				h, err := netfilter.Dial()
				if err != nil {
					b.Fatal(err)
				}
				defer h.Close()
				target := netfilter.New(netfilter.Options{Sets: h, Families: families()})
				set := state{netfilter.SetKey(model.IPv4, setThree): netfilter.SetSpec(netfilter.HashIPPortIP)}
				apply := func(want, have state) {
					for _, err := range target.Apply(b.Context(), difference(want, have)) {
						b.Fatal(err)
					}
				}
				for b.Loop() {
					b.StopTimer()
					apply(set, nil)
					if step != "add" {
						apply(members, nil)
					}
					b.StartTimer()
					switch step {
					case "add":
						apply(members, nil)
					case "delete":
						apply(nil, members)
					case "list":
						for range target.List(b.Context(), []netfilter.Key{netfilter.SetKey(model.IPv4, setThree)}) {
						}
					}
					b.StopTimer()
					apply(nil, set)
					b.StartTimer()
				}
			})
		}
	}
}

// TestLocked: a lock that others hold is not a refusal, so that nobody looks
// for the bad part of good rules.
func TestLocked(t *testing.T) {
	s := kernel(netfilter.Legacy)(t)
	lock, err := os.OpenFile("/run/xtables.lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	input := []byte("*filter\n:SLUICE-X - [0:0]\nCOMMIT\n")
	if _, err := s.Run(t.Context(), input, "iptables-legacy-restore", "--noflush", "--wait=1"); !errors.Is(err, netfilter.ErrLocked) {
		t.Errorf("while it is held: %v", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Run(t.Context(), input, "iptables-legacy-restore", "--noflush", "--wait=1"); err != nil {
		t.Errorf("when it is free: %v", err)
	}
}

// TestEntriesAsPrinted: an entry's text is the one that an operator sees.
func TestEntriesAsPrinted(t *testing.T) {
	s := kernel(netfilter.Legacy)(t)
	for _, f := range families() {
		at := netip.AddrPortFrom(addr(f, 1), 80)
		wide, _ := addr(f, 0).Prefix(24)
		half, _ := addr(f, 0).Prefix(1)
		for typ, entries := range map[netfilter.SetType][]netfilter.Entry{
			netfilter.HashIP:       {netfilter.Addr(addr(f, 1))},
			netfilter.HashNet:      {netfilter.Net(wide), netfilter.Net(half), netfilter.Addr(addr(f, 1))},
			netfilter.HashIPPort:   {netfilter.AddrPort(at, model.TCP), netfilter.AddrPort(at, model.SCTP)},
			netfilter.HashIPPortIP: {netfilter.AddrPortAddr(at, model.UDP, addr(f, 2))},
			netfilter.HashIPPortNet: {
				netfilter.AddrPortNet(at, model.TCP, wide), netfilter.AddrPortNet(at, model.UDP, half), netfilter.AddrPortNet(at, model.SCTP, single(addr(f, 2)))},
		} {
			set := kset(f, "SLUICE-"+string(typ), typ)
			all(t, s.Create(t.Context(), []netfilter.Set{set}), nil)
			for _, e := range entries {
				all(t, s.Add(t.Context(), []netfilter.Member{{Set: set.Name, Entry: e}}), nil)
			}
			out, err := s.Run(t.Context(), nil, "ipset", "list", set.Name)
			if err != nil {
				t.Fatal(err)
			}
			_, members, _ := strings.Cut(string(out), "Members:\n")
			for _, e := range entries {
				if !slices.Contains(strings.Split(members, "\n"), e.String()) {
					t.Errorf("%s: %s is not printed in\n%s", typ, e, members)
				}
			}
		}
	}
}

// TestLackingTableOnKernel takes the table's modules away, and the program that
// would load them again. That is for a guest only.
func TestLackingTableOnKernel(t *testing.T) {
	if cpu, err := os.ReadFile("/proc/cpuinfo"); err != nil || !strings.Contains(string(cpu), "User Mode Linux") {
		t.Skip("not a guest")
	}
	s := kernel(netfilter.Legacy)(t)
	if usable, err := netfilter.Usable(t.Context(), s, netfilter.Legacy, families()); len(usable) != 2 {
		t.Fatal(err)
	}
	s.restore(t, model.IPv4, "*filter\n:SLUICE-X - [0:0]\nCOMMIT\n")
	createRuleSets(t, s, model.IPv4)
	if out, err := exec.Command("modprobe", "-r", "iptable_mangle", "ip6table_mangle").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const helper = "/proc/sys/kernel/modprobe"
	path, err := os.ReadFile(helper)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(helper, path, 0o600); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(helper, []byte("/bin/false"), 0o600); err != nil {
		t.Fatal(err)
	}
	usable, err := netfilter.Usable(t.Context(), s, netfilter.Legacy, families())
	wantLacking(t, usable, err, "kernel module ip6table_mangle loaded?")
	target := netfilter.New(netfilter.Options{Runner: s, Sets: s, Backend: s.backend, Families: families()})
	for _, err = range target.List(t.Context(), nil) {
	}
	if err == nil || !strings.Contains(err.Error(), "list IPv6 table mangle") || !strings.Contains(err.Error(), "ip6table_mangle") {
		t.Errorf("listed with %v", err)
	} else {
		t.Log(err)
	}
}

func TestVersion(t *testing.T) {
	h, err := netfilter.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for _, f := range families() {
		if err := h.Version(netfilter.Legacy, f); err != nil {
			t.Error(err)
		}
		if err := h.Version("nonesuch", f); err == nil {
			t.Error("a program that is not there has a version")
		}
	}
	if _, err := h.Run(t.Context(), nil, "iptables-nonesuch-save"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("%v", err)
	}
}
