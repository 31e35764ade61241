//go:build lab

package topo

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// vips are addresses that several nodes serve.
var vips = []netip.Prefix{netip.MustParsePrefix("203.0.113.1/32"), netip.MustParsePrefix("2001:db8::1/128")}

// spread has a router send the vips by way of nodes, each of which serves them.
func spread(t *testing.T, router *Host, nodes ...*Host) {
	t.Helper()
	for _, p := range vips {
		args := []string{"route", "replace", p.String()}
		for _, n := range nodes {
			args = append(args, "nexthop", "via", n.Addr(p.Addr()).String())
		}
		if _, err := router.Tool("ip", args...); err != nil {
			t.Fatal(err)
		}
	}
}

func serveVIPs(t *testing.T, nodes ...*Host) {
	t.Helper()
	for _, n := range nodes {
		for _, p := range vips {
			if _, err := n.Tool("ip", "addr", "add", p.String(), "dev", "lo"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := n.Serve(TCP, 80); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAddRouter(t *testing.T) {
	topology, _ := cluster(t)
	router, client, err := topology.AddRouter("tor2")
	if err != nil {
		t.Fatal(err)
	}
	if err := router.Spread(); err != nil {
		t.Fatal(err)
	}
	serveVIPs(t, topology.Nodes...)
	spread(t, router, topology.Nodes...)
	seen := map[string]int{}
	for range 20 {
		for _, p := range vips {
			got, err := client.Ask(t.Context(), TCP, netip.AddrPortFrom(p.Addr(), 80))
			if err != nil || got.Client.Addr() != client.Addr(p.Addr()) {
				t.Fatalf("got %v, %v", got, err)
			}
			seen[got.Pod]++
		}
	}
	if seen["node1"] == 0 || seen["node2"] == 0 {
		t.Errorf("answers %v, want both nodes'", seen)
	}
	if got, err := topology.Client.Ask(t.Context(), TCP, netip.AddrPortFrom(client.V4, 80)); err == nil {
		t.Errorf("nobody serves there: %v", got)
	}
	if err := topology.Client.Ping(client.V6); err != nil {
		t.Error(err)
	}
}

// TestWatchRoutes: every change is told once, with what was before.
func TestWatchRoutes(t *testing.T) {
	topology, _ := cluster(t)
	router, node1, node2 := topology.Router, topology.Nodes[0], topology.Nodes[1]
	spread(t, router, node1)
	w, err := router.WatchRoutes()
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range vips {
		one, two := node1.Addr(p.Addr()), node2.Addr(p.Addr())
		if got, err := w.NextHops(p); err != nil || !slices.Equal(got, []netip.Addr{one}) {
			t.Errorf("%v goes by %v, %v, want %v", p, got, err, one)
		}
		mark, begin := w.Mark(), time.Now()
		steps := []struct {
			command string
			want    []netip.Addr
		}{
			{fmt.Sprintf("ip route replace %s nexthop via %s nexthop via %s", p, one, two), []netip.Addr{one, two}},
			{fmt.Sprintf("ip route replace %s nexthop via %s nexthop via %s", p, two, one), []netip.Addr{one, two}},
			{fmt.Sprintf("ip route replace %s via %s", p, two), []netip.Addr{two}},
			{fmt.Sprintf("ip route del %s", p), nil},
			{fmt.Sprintf("ip route add %s via %s", p, one), []netip.Addr{one}},
		}
		for _, s := range steps {
			if _, err := router.Tool("sh", "-ec", s.command); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			c, err := w.Await(ctx, mark, p, func(hops []netip.Addr) bool { return slices.Equal(hops, s.want) })
			cancel()
			if err != nil || c.At.Before(begin) || time.Since(c.At) > time.Second {
				t.Errorf("%s: %v, %v", s.command, c, err)
			}
		}
		changes, err := w.Since(mark)
		if err != nil || len(changes) != 4 {
			t.Errorf("family %d: %d changes, want 4: %v, %v", i, len(changes), changes, err)
		}
		lost := 0
		for _, c := range changes {
			lost += len(c.Lost())
		}
		if lost != 2 {
			t.Errorf("%d next hops lost, want 2: %v", lost, changes)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if c, err := w.Await(ctx, w.Mark(), vips[0], func([]netip.Addr) bool { return true }); err == nil {
		t.Errorf("heard of %v, which did not happen", c)
	}
}

// TestFate: what becomes of packets that nobody need answer.
func TestFate(t *testing.T) {
	topology, _ := cluster(t)
	node1, node2 := topology.Nodes[0], topology.Nodes[1]
	spread(t, topology.Router, node1) // which sends it back: it goes in a circle
	_, err := topology.Router.Tool("sh", "-ec", fmt.Sprintf(`
		ip route add 203.0.113.2 via %s; ip route add 2001:db8::2 via %s
		ip route add 203.0.113.3 via %[1]s; ip route add 2001:db8::3 via %[2]s`, node2.V4, node2.V6))
	if err != nil {
		t.Fatal(err)
	}
	_, err = node2.Tool("sh", "-ec", `ip route add blackhole 203.0.113.2; ip route add blackhole 2001:db8::2
		ip route add unreachable 203.0.113.3; ip route add unreachable 2001:db8::3`)
	if err != nil {
		t.Fatal(err)
	}
	for to, want := range map[string]string{
		node1.V4.String(): Answered, node1.V6.String(): Answered,
		"203.0.113.1": Looped, "2001:db8::1": Looped,
		"203.0.113.2": Silence, "2001:db8::2": Silence,
		"203.0.113.3": Unreachable, "2001:db8::3": Unreachable,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		got, err := topology.Client.Fate(ctx, netip.MustParseAddr(to))
		cancel()
		if err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", to, got, err, want)
		}
	}
}

// TestLoad: requests that fail are seen, and when.
func TestLoad(t *testing.T) {
	topology, pods := cluster(t)
	stop, err := pods[0].Serve(TCP, 80)
	if err != nil {
		t.Fatal(err)
	}
	l := pods[2].StartLoad(TCP, 5*time.Millisecond, netip.AddrPortFrom(pods[0].V4, 80), netip.AddrPortFrom(pods[0].V6, 80))
	time.Sleep(300 * time.Millisecond)
	closing := time.Now()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	good, bad := 0, 0
	for _, r := range l.End() {
		switch {
		case r.Err == nil && r.Pod == "web-1":
			good++
		case r.End.Before(closing):
			t.Errorf("failed before the server closed: %v", r)
		default:
			bad++
		}
	}
	if good < 20 || bad < 10 {
		t.Errorf("%d requests answered and %d failed, want at least 20 and 10", good, bad)
	}
	_ = topology
}

// TestStick: a router that sticks keeps connections where they are when routes
// change; one that does not moves them.
func TestStick(t *testing.T) {
	topology, _ := cluster(t)
	router, node1, node2 := topology.Router, topology.Nodes[0], topology.Nodes[1]
	if err := router.Spread(); err != nil {
		t.Fatal(err)
	}
	serveVIPs(t, topology.Nodes...)
	survivors := func() (alive int) {
		spread(t, router, node1, node2)
		var conns []io.ReadWriteCloser
		var readers []*bufio.Reader
		for i := range 20 {
			conn, err := topology.Client.Dial(t.Context(), TCP, netip.AddrPortFrom(vips[i%2].Addr(), 80))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
			lines := bufio.NewReader(conn)
			if _, err := lines.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			conns, readers = append(conns, conn), append(readers, lines)
		}
		spread(t, router, node2)
		for i, conn := range conns {
			_, _ = io.WriteString(conn, "?\n")
			if line, err := readers[i].ReadString('\n'); err == nil && strings.HasPrefix(line, "pod=") {
				alive++
			}
		}
		return alive
	}
	if n := survivors(); n == 20 {
		t.Error("all connections survive a change of routes: nothing to stick")
	}
	undo, err := topology.Stick(router)
	if err != nil {
		t.Fatal(err)
	}
	if n := survivors(); n != 20 {
		t.Errorf("%d of 20 connections survive", n)
	}
	if err := undo(); err != nil {
		t.Fatal(err)
	}
	if n := survivors(); n == 20 {
		t.Error("it still sticks")
	}
}
