//go:build lab

package ipvs_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	moby "github.com/moby/ipvs"
	"pgregory.net/rapid"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/ipvs/ipvstest"
)

// Whatever commands come, in whatever order: the fake and the kernel answer
// with the same errno and hold the same table.
func TestLabFakeAgreesWithKernel(t *testing.T) {
	h := open(t)
	withoutModprobe(t)
	rapid.Check(t, func(t *rapid.T) {
		fake := ipvstest.New()
		empty(t, h)
		commands := rapid.SliceOfN(rapid.Custom(anyCommand), 1, 40).Draw(t, "commands")
		got, want := fake.Write(context.Background(), commands), h.Write(context.Background(), commands)
		for i := range commands {
			if errno(got[i]) != errno(want[i]) {
				t.Errorf("%+v: the fake says %v, the kernel %v", commands[i], got[i], want[i])
			}
		}
		onFake, onKernel := specs(t, fake), specs(t, h)
		if fmt.Sprint(onFake) != fmt.Sprint(onKernel) { // maps print in order
			t.Errorf("the fake has\n%v\nthe kernel\n%v", onFake, onKernel)
		}
	})
}

// withoutModprobe has a guest's kernel load what schedulers and engines it has,
// and start no program in search of others: that is hundreds of programs here,
// and once in some hundred runs User-Mode-Linux never ran one, while whoever had
// asked for it waited in the kernel. Another kernel is not ours to set.
func withoutModprobe(t *testing.T) {
	t.Helper()
	const path = "/proc/sys/kernel/modprobe"
	if os.Getenv("SLUICE_LAB") != "guest" {
		return
	}
	args := []string{"-a", "ip_vs_pe_sip"}
	for _, name := range ipvs.Schedulers() {
		if name != "twos" { // which the guest's kernel has not
			args = append(args, "ip_vs_"+name)
		}
	}
	if out, err := exec.Command("modprobe", args...).CombinedOutput(); err != nil {
		t.Fatalf("modprobe: %v: %s", err, out)
	}
	was, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	set := func(text []byte) {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Error(err)
		}
	}
	set([]byte("\n"))
	t.Cleanup(func() { set(was) })
}

func empty(t *rapid.T, h ipvs.Handle) {
	entries, err := h.VirtualServers(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		h.Write(context.Background(), []ipvs.Command{{Op: ipvs.Delete, Key: ipvs.Key{VirtualServer: e.VirtualServer}}})
	}
}

func errno(err error) syscall.Errno {
	var n syscall.Errno
	if err != nil && !errors.As(err, &n) {
		return 9999
	}
	return n
}

// specs is the whole table, every setting of it.
func specs(t *rapid.T, h ipvs.Handle) map[string]ipvs.Spec {
	all := make(map[string]ipvs.Spec)
	target := ipvs.NewTarget(h, ipvs.TargetOptions{Ours: predicate(func(ipvs.VirtualServer) bool { return true })})
	for s, err := range target.List(context.Background(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range s.Present {
			all[k.String()] = v
		}
	}
	return all
}

// anyCommand is about few objects, so that commands meet.
func anyCommand(t *rapid.T) ipvs.Command {
	servers := []ipvs.VirtualServer{
		serverKey("10.96.0.1:80", model.TCP).VirtualServer, serverKey("10.96.0.1:80", model.SCTP).VirtualServer,
		serverKey("[fd00::1]:80", model.UDP).VirtualServer, {Mark: 7, Family: model.IPv4}, {Mark: 7, Family: model.IPv6},
	}
	addrs := []string{"10.1.1.1:80", "10.1.1.1:81", "[fd00::5]:80", "127.0.0.1:0", "224.0.0.1:80", "[fe80::1]:80"}
	c := ipvs.Command{
		Op:  rapid.SampledFrom([]ipvs.Op{ipvs.Create, ipvs.Create, ipvs.Change, ipvs.Delete}).Draw(t, "op"),
		Key: ipvs.Key{VirtualServer: rapid.SampledFrom(servers).Draw(t, "server")},
	}
	if rapid.Bool().Draw(t, "destination") {
		c.Key.RealServer = netip.MustParseAddrPort(rapid.SampledFrom(addrs).Draw(t, "addr"))
		c.Spec.Destination = ipvs.DestinationSpec{
			Weight:         rapid.SampledFrom([]uint32{0, 1, 1<<31 - 1, 1 << 31}).Draw(t, "weight"),
			Forward:        ipvs.Forward(rapid.Uint8Range(0, 4).Draw(t, "forward")),
			UpperThreshold: rapid.Uint32Range(0, 2).Draw(t, "upper"),
			LowerThreshold: rapid.Uint32Range(0, 2).Draw(t, "lower"),
			Tunnel: ipvs.Tunnel{
				Type: ipvs.TunnelType(rapid.Uint8Range(0, 3).Draw(t, "type")),
				Port: rapid.SampledFrom([]uint16{0, 6080}).Draw(t, "port"), Flags: ipvs.TunnelFlags(rapid.Uint16Range(0, 3).Draw(t, "flags")),
			},
		}
		return c
	}
	c.Spec.VirtualServer = ipvs.VirtualServerSpec{
		Scheduler: rapid.SampledFrom(append(ipvs.Schedulers(), "none", "nope", "")).Draw(t, "scheduler"),
		Flags:     ipvs.Flags(rapid.Uint32Range(0, 63).Draw(t, "flags")),
		Timeout:   rapid.Uint32Range(0, 86400).Draw(t, "timeout"),
		Netmask:   rapid.SampledFrom([]uint32{0, 1, 64, 128, 129, 0xFFFFFF00, 0xFFFFFFFF}).Draw(t, "mask"),
		PEName:    rapid.SampledFrom([]string{"", "", "sip", "nope"}).Draw(t, "engine"),
	}
	return c
}

// Apply on the kernel: the same change as in TestOneEndpointIsOneCommand.
func TestLabOneEndpointIsOneCommand(t *testing.T) {
	h := open(t)
	apply(t, h, change{Puts: []put{{Key: web(), Spec: serverSpec("rr")}}})
	for _, c := range []change{
		{Puts: []put{{Key: destKey(web(), "10.1.1.1:80"), Spec: dest(1)}}},
		{Puts: []put{{Key: destKey(web(), "10.1.1.1:80"), Spec: dest(0), Present: true}}},
		{Dels: []ipvs.Key{destKey(web(), "10.1.1.1:80")}},
	} {
		before := h.Sent()
		apply(t, h, c)
		if sent := h.Sent().Messages - before.Messages; sent != 1 {
			t.Errorf("%+v: %d messages", c, sent)
		}
	}
}

// The library that reads the timeouts waits for ever when no answer comes.
// Here it is kept from coming to an end at all: we do, and the next call works.
func TestLabTimeoutsDoNotHang(t *testing.T) {
	h := open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	err := h.RunOnLibrary(ctx, func(m *moby.Handle) error {
		for {
			if _, err := m.GetConfig(); err != nil {
				return err // only once its socket is closed
			}
		}
	})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 2*time.Second {
		t.Errorf("%v after %s", err, time.Since(begin))
	}
	if _, err := h.Timeouts(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestLabApplyEndsInWhatWasPut(t *testing.T) {
	h := open(t)
	rapid.Check(t, func(t *rapid.T) {
		empty(t, h)
		checkApply(t, h)
	})
}

const (
	benchServers = 10_000
	benchDests   = 3
)

// benchCommands makes 10,000 virtual servers with 3 destinations each.
func benchCommands() []ipvs.Command {
	commands := make([]ipvs.Command, 0, benchServers*(1+benchDests))
	for i := range benchServers {
		vs := ipvs.VirtualServer{
			Addr:     netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), 80),
			Protocol: model.TCP,
		}
		commands = append(commands, ipvs.Command{Key: ipvs.Key{VirtualServer: vs}, Spec: serverSpec("rr")})
		for d := range benchDests {
			real := netip.AddrFrom4([4]byte{10, byte(128 + d), byte(i >> 8), byte(i)})
			commands = append(commands, ipvs.Command{
				Key:  ipvs.Key{VirtualServer: vs, RealServer: netip.AddrPortFrom(real, 8080)},
				Spec: dest(1),
			})
		}
	}
	return commands
}

// BenchmarkLabWrite is the raw speed of writing. Take it with -benchtime 1x in
// a fresh guest: the tables of earlier rounds still live, and the kernel's
// estimator walks through all of them every two seconds (2 times slower at 10).
func BenchmarkLabWrite(b *testing.B) {
	commands := benchCommands()
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		h := open(b) // a namespace of its own: nothing deleted is in the way
		b.StartTimer()
		for i, err := range h.Write(b.Context(), commands) {
			if err != nil {
				b.Fatalf("%s: %v", commands[i].Key, err)
			}
		}
	}
	b.ReportMetric(float64(len(commands)*b.N)/b.Elapsed().Seconds(), "commands/s")
}

// BenchmarkLabApply is the cold start of a node: all of it through the Target.
func BenchmarkLabApply(b *testing.B) {
	var c change
	for _, command := range benchCommands() {
		c.Puts = append(c.Puts, put{Key: command.Key, Spec: command.Spec})
	}
	for b.Loop() {
		b.StopTimer()
		target := newTarget(open(b))
		b.StartTimer()
		if failed := target.Apply(b.Context(), c); len(failed) > 0 {
			b.Fatal(failed)
		}
	}
	b.ReportMetric(float64(len(c.Puts)*b.N)/b.Elapsed().Seconds(), "commands/s")
}

// BenchmarkLabOneEndpoint changes one destination of a full table.
func BenchmarkLabOneEndpoint(b *testing.B) {
	h := open(b)
	commands := benchCommands()
	for _, err := range h.Write(b.Context(), commands) {
		if err != nil {
			b.Fatal(err)
		}
	}
	target, key := newTarget(h), commands[len(commands)-1].Key
	before := h.Sent().Messages
	n := uint32(0)
	for b.Loop() {
		n++
		if failed := target.Apply(b.Context(), change{Puts: []put{{Key: key, Spec: dest(n % 7), Present: true}}}); len(failed) > 0 {
			b.Fatal(failed)
		}
	}
	b.ReportMetric(float64(h.Sent().Messages-before)/float64(n), "commands/op")
}

func BenchmarkLabList(b *testing.B) {
	h := open(b)
	for _, err := range h.Write(b.Context(), benchCommands()) {
		if err != nil {
			b.Fatal(err)
		}
	}
	b.Run("servers", func(b *testing.B) {
		for b.Loop() {
			if e, err := h.VirtualServers(b.Context()); err != nil || len(e) != benchServers {
				b.Fatal(len(e), err)
			}
		}
	})
	b.Run("all", func(b *testing.B) {
		target := ipvs.NewTarget(h, ipvs.TargetOptions{Ours: predicate(ours)})
		for b.Loop() {
			n := 0
			for s, err := range target.List(b.Context(), nil) {
				if err != nil {
					b.Fatal(err)
				}
				n += len(s.Present)
			}
			if n != benchServers*(1+benchDests) {
				b.Fatal(n)
			}
		}
	})
}
