package ipvstest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/ipvs"
)

// Conformance checks that a Handle behaves as the kernel does. open gives a
// handle on an empty table, and closes it by t.Cleanup.
func Conformance(t *testing.T, open func(t *testing.T) ipvs.Handle) {
	t.Helper()
	for _, row := range commandRows() {
		t.Run(row.name, func(t *testing.T) { row.run(t, open(t)) })
	}
	for name, check := range map[string]func(*testing.T, ipvs.Handle){
		"one failure keeps no other command from taking effect": checkIndependence,
		"invalid keys never get to the kernel":                  checkInvalid,
		"reads":                                                 checkReads,
		"a large table":                                         checkLarge,
		"timeouts":                                              checkTimeouts,
		"a cancelled context":                                   checkCancelled,
		"schedulers of kernels":                                 checkSchedulers,
		"what is read is a copy":                                checkCopies,
	} {
		t.Run(name, func(t *testing.T) { check(t, open(t)) })
	}
}

// row is one command on a table made by others.
type row struct {
	name  string
	given []ipvs.Command
	do    ipvs.Command
	errno syscall.Errno // 0: success
	want  string        // the table afterwards, as Dump writes it; "=": unchanged
}

func (r row) run(t *testing.T, h ipvs.Handle) {
	t.Helper()
	for i, err := range h.Write(t.Context(), r.given) {
		if err != nil {
			t.Fatalf("given %s %s: %v", r.given[i].Op, r.given[i].Key, err)
		}
	}
	before := text(t, h)
	err := h.Write(t.Context(), []ipvs.Command{r.do})[0]
	if !is(err, r.errno) {
		t.Errorf("%s %s: got %v, want %v", r.do.Op, r.do.Key, err, r.errno)
	}
	want := r.want
	if want == "=" {
		want = before
	}
	if got := text(t, h); got != want {
		t.Errorf("table afterwards:\n%swant:\n%s", got, want)
	}
}

func is(err error, errno syscall.Errno) bool {
	if errno == 0 {
		return err == nil
	}
	return errors.Is(err, errno)
}

// text is the table in the form of Kernel.Dump.
func text(t *testing.T, h ipvs.Handle) string {
	t.Helper()
	l, err := ipvs.ReadListing(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	l.Table = nil
	var b strings.Builder
	if err := ipvs.WriteListing(&b, l, ipvs.Style{}); err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfterN(b.String(), "\n", 3)
	return lines[2]
}

// The objects of the tests.

func vs4() ipvs.VirtualServer { return at("10.96.0.1:80", model.TCP) }
func vs6() ipvs.VirtualServer { return at("[fd00:10:96::1]:80", model.TCP) }

func at(addr string, p model.Protocol) ipvs.VirtualServer {
	return ipvs.VirtualServer{Addr: netip.MustParseAddrPort(addr), Protocol: p}
}

func mark(n uint32, f model.Family) ipvs.VirtualServer {
	return ipvs.VirtualServer{Mark: n, Family: f}
}

// plain is the least that a virtual server needs.
func plain(vs ipvs.VirtualServer) ipvs.VirtualServerSpec {
	spec := ipvs.VirtualServerSpec{Scheduler: "rr", Netmask: ipvs.HostMask4}
	if vs.IPFamily() == model.IPv6 {
		spec.Netmask = ipvs.HostMask6
	}
	return spec
}

func serverCommand(op ipvs.Op, vs ipvs.VirtualServer, edit ...func(*ipvs.VirtualServerSpec)) ipvs.Command {
	c := ipvs.Command{Op: op, Key: ipvs.Key{VirtualServer: vs}}
	if op != ipvs.Delete {
		c.Spec.VirtualServer = plain(vs)
	}
	for _, f := range edit {
		f(&c.Spec.VirtualServer)
	}
	return c
}

func destCommand(op ipvs.Op, vs ipvs.VirtualServer, addr string, edit ...func(*ipvs.DestinationSpec)) ipvs.Command {
	c := ipvs.Command{Op: op, Key: ipvs.Key{VirtualServer: vs, RealServer: netip.MustParseAddrPort(addr)}}
	if op != ipvs.Delete {
		c.Spec.Destination = ipvs.DestinationSpec{Weight: 1}
	}
	for _, f := range edit {
		f(&c.Spec.Destination)
	}
	return c
}

func checkIndependence(t *testing.T, h ipvs.Handle) {
	t.Helper()
	errs := h.Write(t.Context(), []ipvs.Command{
		serverCommand(ipvs.Create, vs4()),
		serverCommand(ipvs.Create, vs4()),
		destCommand(ipvs.Create, vs6(), "[fd00::1]:80"),
		destCommand(ipvs.Create, vs4(), "10.1.1.1:80"),
		destCommand(ipvs.Delete, vs4(), "10.1.1.2:80"),
		destCommand(ipvs.Create, vs4(), "10.1.1.3:80"),
	})
	want := []syscall.Errno{0, syscall.EEXIST, syscall.ESRCH, 0, syscall.ENOENT, 0}
	for i, err := range errs {
		if !is(err, want[i]) {
			t.Errorf("command %d: got %v, want %v", i, err, want[i])
		}
	}
	if got := text(t, h); strings.Count(got, "\n") != 3 {
		t.Errorf("table:\n%s", got)
	}
}

func checkInvalid(t *testing.T, h ipvs.Handle) {
	t.Helper()
	keys := []ipvs.Key{
		{},
		{VirtualServer: ipvs.VirtualServer{Protocol: model.TCP}},
		{VirtualServer: ipvs.VirtualServer{Addr: vs4().Addr}},
		{VirtualServer: ipvs.VirtualServer{Addr: vs4().Addr, Protocol: model.TCP, Family: model.IPv4}},
		{VirtualServer: ipvs.VirtualServer{Addr: vs4().Addr, Protocol: model.TCP, Mark: 1}},
		{VirtualServer: ipvs.VirtualServer{Mark: 1}},
		{VirtualServer: ipvs.VirtualServer{Mark: 1, Family: 5}},
		{VirtualServer: at("[::ffff:10.96.0.1]:80", model.TCP)},
		{VirtualServer: at("[fe80::1%eth0]:80", model.TCP)},
		{VirtualServer: vs4(), RealServer: netip.AddrPortFrom(netip.Addr{}, 80)},
		{VirtualServer: vs6(), RealServer: netip.MustParseAddrPort("[::ffff:10.96.0.1]:80")},
	}
	for _, k := range keys {
		c := ipvs.Command{Key: k, Spec: ipvs.Spec{VirtualServer: plain(k.VirtualServer)}}
		for i, err := range h.Write(t.Context(), []ipvs.Command{c, {Op: 3, Key: ipvs.Key{VirtualServer: vs4()}}}) {
			if !errors.Is(err, syscall.EINVAL) {
				t.Errorf("command %d with %+v: %v", i, k, err)
			}
		}
		if k.IsDestination() || k.Addr.Addr().Is4In6() { // which may be read: a foreigner's may be of that form
			continue
		}
		if _, err := h.VirtualServer(t.Context(), k.VirtualServer); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("read %+v: %v", k, err)
		}
		if _, err := h.Destinations(t.Context(), k.VirtualServer); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("read destinations of %+v: %v", k, err)
		}
	}
}

func checkReads(t *testing.T, h ipvs.Handle) {
	t.Helper()
	table, err := h.Table(t.Context())
	if err != nil || table.Version == [3]uint8{} || table.ConnectionSlots == 0 {
		t.Errorf("table %+v, %v", table, err)
	}
	if entries, err := h.VirtualServers(t.Context()); err != nil || len(entries) != 0 {
		t.Errorf("empty table: %v, %v", entries, err)
	}
	if _, err := h.VirtualServer(t.Context(), vs4()); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("absent virtual server: %v", err)
	}
	if entries, err := h.Destinations(t.Context(), vs4()); err != nil || len(entries) != 0 {
		t.Errorf("destinations of an absent virtual server: %v, %v", entries, err)
	}
	create := serverCommand(ipvs.Create, vs4())
	h.Write(t.Context(), []ipvs.Command{create, serverCommand(ipvs.Create, vs6())})
	e, err := h.VirtualServer(t.Context(), vs4())
	if err != nil || e.VirtualServer != vs4() || e.Spec != create.Spec.VirtualServer {
		t.Errorf("got %+v, %v", e, err)
	}
	if entries, err := h.Destinations(t.Context(), vs4()); err != nil || len(entries) != 0 {
		t.Errorf("no destinations: %v, %v", entries, err)
	}
}

// checkLarge makes dumps of several parts.
func checkLarge(t *testing.T, h ipvs.Handle) {
	t.Helper()
	const n = 700
	var commands []ipvs.Command
	for i := range n {
		vs := at(fmt.Sprintf("10.97.%d.%d:80", i/250, i%250), model.UDP)
		commands = append(commands, serverCommand(ipvs.Create, vs),
			destCommand(ipvs.Create, at("10.97.0.0:80", model.UDP), fmt.Sprintf("10.1.%d.%d:80", i/250, i%250)))
	}
	for i, err := range h.Write(t.Context(), commands) {
		if err != nil {
			t.Fatalf("%s: %v", commands[i].Key, err)
		}
	}
	entries, err := h.VirtualServers(t.Context())
	seen := make(map[ipvs.VirtualServer]bool)
	for _, e := range entries {
		seen[e.VirtualServer] = true
	}
	if err != nil || len(entries) != n || len(seen) != n {
		t.Errorf("%d virtual servers, %d different, %v", len(entries), len(seen), err)
	}
	dests, err := h.Destinations(t.Context(), at("10.97.0.0:80", model.UDP))
	if err != nil || len(dests) != n {
		t.Errorf("%d destinations, %v", len(dests), err)
	}
}

func checkTimeouts(t *testing.T, h ipvs.Handle) {
	t.Helper()
	get := func() ipvs.Timeouts {
		got, err := h.Timeouts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := get(); got != (ipvs.Timeouts{TCP: 900 * time.Second, TCPFin: 120 * time.Second, UDP: 300 * time.Second}) {
		t.Errorf("at first %+v", got)
	}
	for _, step := range []struct {
		set, want ipvs.Timeouts
		errno     syscall.Errno
	}{
		{ipvs.Timeouts{TCP: 2 * time.Hour}, ipvs.Timeouts{TCP: 2 * time.Hour, TCPFin: 120 * time.Second, UDP: 300 * time.Second}, 0},
		{ipvs.Timeouts{}, ipvs.Timeouts{TCP: 2 * time.Hour, TCPFin: 120 * time.Second, UDP: 300 * time.Second}, 0},
		{ipvs.Timeouts{TCPFin: time.Millisecond, UDP: 2500 * time.Millisecond}, ipvs.Timeouts{TCP: 2 * time.Hour, TCPFin: time.Second, UDP: 3 * time.Second}, 0},
		{ipvs.Timeouts{TCP: -time.Second}, ipvs.Timeouts{TCP: 2 * time.Hour, TCPFin: time.Second, UDP: 3 * time.Second}, syscall.EINVAL},
		{ipvs.Timeouts{UDP: 1 << 30 * time.Second}, ipvs.Timeouts{TCP: 2 * time.Hour, TCPFin: time.Second, UDP: 3 * time.Second}, syscall.EINVAL},
		{ipvs.Timeouts{UDP: 1 << 32 * time.Second}, ipvs.Timeouts{TCP: 2 * time.Hour, TCPFin: time.Second, UDP: 3 * time.Second}, syscall.EINVAL},
	} {
		if err := h.SetTimeouts(t.Context(), step.set); !is(err, step.errno) {
			t.Errorf("set %+v: %v", step.set, err)
		}
		if got := get(); got != step.want {
			t.Errorf("after %+v: got %+v, want %+v", step.set, got, step.want)
		}
	}
}

func checkCancelled(t *testing.T, h ipvs.Handle) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Write(ctx, []ipvs.Command{serverCommand(ipvs.Create, vs4())})[0]; !errors.Is(err, context.Canceled) {
		t.Errorf("write: %v", err)
	}
	if _, err := h.VirtualServers(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
	if got := text(t, h); got != "" {
		t.Errorf("table:\n%s", got)
	}
}

func checkSchedulers(t *testing.T, h ipvs.Handle) {
	t.Helper()
	for _, name := range ipvs.Schedulers() {
		c := serverCommand(ipvs.Create, vs4(), func(s *ipvs.VirtualServerSpec) { s.Scheduler = name })
		err := h.Write(t.Context(), []ipvs.Command{c, serverCommand(ipvs.Delete, vs4())})[0]
		// twos came with Linux 5.13 and is not in every build.
		if err != nil && (name != "twos" || !errors.Is(err, syscall.ENOENT)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func checkCopies(t *testing.T, h ipvs.Handle) {
	t.Helper()
	commands := []ipvs.Command{serverCommand(ipvs.Create, vs4()), destCommand(ipvs.Create, vs4(), "10.1.1.1:80")}
	h.Write(t.Context(), commands)
	want := text(t, h)
	clear(commands)
	servers, _ := h.VirtualServers(t.Context())
	clear(servers)
	dests, _ := h.Destinations(t.Context(), vs4())
	clear(slices.Insert(dests, 0, ipvs.DestinationEntry{}))
	if got := text(t, h); got != want {
		t.Errorf("table:\n%swant:\n%s", got, want)
	}
}
