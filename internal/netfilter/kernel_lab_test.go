//go:build lab

package netfilter_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
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
