//go:build lab

package conntrack_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice.dev/sluice/internal/conntrack"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/ipvs"
)

// client is the client's address with a port.
func (w *world) from(port uint16) netip.AddrPort { return netip.AddrPortFrom(w.clientAddr(), port) }

// flowsTo reads the entries to a frontend.
func (w *world) flowsTo(frontend netip.AddrPort) (all []conntrack.Flow) {
	w.t.Helper()
	w.check(w.flows.Flows(w.t.Context(), func(f conntrack.Flow) {
		if f.Frontend == frontend {
			all = append(all, f)
		}
	}))
	return all
}

// TestLabFlowsShowTheEndpoint: what Stale rests on. However a client comes to a
// frontend, its entry is answered by the endpoint that IPVS chose.
func TestLabFlowsShowTheEndpoint(t *testing.T) {
	eachFamily(t, func(w *world) {
		t := w.t
		n := w.run(false)
		external := netip.AddrPortFrom(w.addr(97, 1), 53)
		nodePort := netip.AddrPortFrom(w.addr(1, 1), 30053)
		w.sh(w.node, fmt.Sprintf("ip addr add %s dev lo", external.Addr()))
		// How clients in the cluster get to a frontend of the policy Local.
		w.sh(w.node, fmt.Sprintf("%s -t nat -A PREROUTING -d %s -p udp --dport 53 -j DNAT --to-destination %s", w.iptables(), external.Addr(), w.vip(53)))
		n.want("vip", w.vip(53), w.oneAddr())
		n.want("nodePort", nodePort, w.oneAddr())
		n.ready(w.vip(53), nodePort)
		for name, c := range map[string]struct {
			from *sender
			to   netip.AddrPort
		}{
			"ClusterIP, masqueraded":       {w.send(w.client, w.from(4001), w.vip(53), 20*time.Millisecond), w.vip(53)},
			"NodePort":                     {w.send(w.client, w.from(4002), nodePort, 20*time.Millisecond), nodePort},
			"sent on to another, as Local": {w.send(w.client, w.from(4003), external, 20*time.Millisecond), external},
			"the node itself":              {w.send(w.node, netip.AddrPortFrom(w.addr(2, 1), 4004), w.vip(53), 20*time.Millisecond), w.vip(53)},
		} {
			c.from.answeredBy(w, w.oneAddr(), 5*time.Second)
			flows := w.flowsTo(c.to)
			if len(flows) == 0 {
				t.Errorf("%s: no entry", name)
			}
			for _, f := range flows {
				if f.Backend != w.oneAddr() || f.Protocol != model.UDP {
					t.Errorf("%s: %+v, want it answered by %s", name, f, w.oneAddr())
				}
			}
		}
	})
}

// TestLabSenderMoves: senders that never change their port. The one whose
// endpoint leaves is at the other one within a second, with one datagram lost
// at most; nothing happens to the others.
func TestLabSenderMoves(t *testing.T) {
	eachFamily(t, func(w *world) {
		t := w.t
		n := w.run(true)
		const every = 20 * time.Millisecond
		n.want("dns", w.vip(53), w.oneAddr(), w.twoAddr())
		n.ready(w.vip(53))
		senders := map[string]*sender{} // by the endpoint that answers
		for port := uint16(4000); len(senders) < 2; port++ {
			s := w.send(w.client, w.from(port), w.vip(53), every)
			w.until("answered", 5*time.Second, func() bool { who, _ := s.last(); return who != "" })
			who, _ := s.last()
			senders[who] = s
		}
		moving, staying := senders[w.oneAddr().String()], senders[w.twoAddr().String()]
		foreign := w.foreign(every)
		n.sweeper.Synced()
		before := w.table()

		claimed := time.Now()
		n.want("dns", w.vip(53), w.twoAddr())
		gone := <-n.removed
		moving.answeredBy(w, w.twoAddr(), 5*time.Second)
		took, since := time.Since(claimed), time.Since(gone)
		if took > time.Second {
			t.Errorf("moved %v after its endpoint had left", took)
		}
		w.until("rid of the stale entry", time.Second, func() bool {
			return leadsTo(w.entry(moving.port(), w.vip(53)), w.twoAddr())
		})
		staying.answeredBy(w, w.twoAddr(), time.Second)
		if is := w.entry(staying.port(), w.vip(53)); is == "" || is != before[key(staying.port(), w.vip(53))] {
			t.Errorf("the entry of a live flow was %q and is %q", before[key(staying.port(), w.vip(53))], is)
		}
		foreign(before)
		lost := moving.lost(claimed)
		t.Logf("moved %v after the claim, %v after the removal; lost %v; %+v", took, since, lost, n.sweeper.Stats())
		if len(lost) > 1 {
			t.Errorf("lost %d datagrams, %v after the claim", len(lost), lost)
		}
		if lost := staying.lost(claimed); len(lost) > 0 {
			t.Errorf("the other lost %v", lost)
		}
	})
}

// TestLabWhatGoesLost counts it for a sender that never waits, with the sweep
// and without it (that is, by the kernel's own clean-up alone).
func TestLabWhatGoesLost(t *testing.T) {
	for _, sweeps := range []bool{true, false} {
		t.Run(fmt.Sprintf("sweeps %v", sweeps), func(t *testing.T) {
			w := newWorld(t, model.IPv4)
			n := w.run(sweeps)
			n.sweeper.Synced()
			n.want("dns", w.vip(53), w.oneAddr())
			n.ready(w.vip(53))
			s := w.send(w.client, w.from(4000), w.vip(53), time.Millisecond)
			s.answeredBy(w, w.oneAddr(), 5*time.Second)
			began := time.Now()
			from, to := w.oneAddr(), w.twoAddr()
			const rounds = 10
			for range rounds {
				n.want("dns", w.vip(53), from, to)
				n.want("dns", w.vip(53), to)
				<-n.removed
				s.answeredBy(w, to, 5*time.Second)
				from, to = to, from
			}
			lost := s.lost(began)
			t.Logf("one datagram a millisecond, %d moves: %d lost", rounds, len(lost))
			if len(lost) > 20*rounds {
				t.Errorf("lost %d", len(lost))
			}
		})
	}
}

// TestLabFirstDatagram: what becomes of the first datagram after a removal. IPVS
// drops it when it comes with its old entry, and schedules it anew when the
// entry has gone before it.
func TestLabFirstDatagram(t *testing.T) {
	eachFamily(t, func(w *world) {
		t := w.t
		write := func(op ipvs.Op, k ipvs.Key, s ipvs.Spec) {
			w.t.Helper()
			w.check(w.servers.Write(t.Context(), []ipvs.Command{{Op: op, Key: k, Spec: s}})[0])
		}
		both := w.serving(w.vip(53), w.oneAddr(), w.twoAddr()).Put
		vs := ipvs.Key{VirtualServer: ipvs.VirtualServer{Addr: w.vip(53), Protocol: model.UDP}}
		write(ipvs.Create, vs, both[vs])
		conn := w.listen(w.client, w.from(4000))
		asks := func() string {
			_, err := conn.WriteToUDPAddrPort([]byte(" "), w.vip(53))
			w.check(err)
			w.check(conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)))
			buf := make([]byte, 64)
			n, _, _ := conn.ReadFromUDPAddrPort(buf)
			return strings.TrimSpace(string(buf[:n]))
		}
		from, to := w.oneAddr(), w.twoAddr()
		key := func(a netip.AddrPort) ipvs.Key { return ipvs.Key{VirtualServer: vs.VirtualServer, RealServer: a} }
		write(ipvs.Create, key(from), both[key(from)])
		const rounds = 10
		lost := map[bool]int{}
		for i := range 2 * rounds {
			sweeps := i%2 == 0
			w.until("at "+from.String(), 5*time.Second, func() bool { return asks() == from.String() })
			write(ipvs.Create, key(to), both[key(to)])
			stale := w.flowsTo(w.vip(53))
			write(ipvs.Delete, key(from), ipvs.Spec{})
			if sweeps {
				w.check(errors.Join(w.flows.Delete(t.Context(), stale)...))
			}
			if who := asks(); who == "" {
				lost[sweeps]++
			} else if who != to.String() {
				t.Errorf("answered by %s, which is no more", who)
			}
			from, to = to, from
		}
		t.Logf("lost %d of %d with the entry gone, %d of %d with it there", lost[true], rounds, lost[false], rounds)
		if lost[true] > 0 {
			t.Errorf("lost %d of %d although the entry had gone", lost[true], rounds)
		}
	})
}

// TestLabDeletedFrontends: entries of a deleted virtual server, and of one
// without endpoints, are gone within a second, and nothing else is. The kernel
// is kept from cleaning up by itself, so that it is the Sweeper who does.
func TestLabDeletedFrontends(t *testing.T) {
	eachFamily(t, func(w *world) {
		t := w.t
		w.sh(w.node, "sysctl -qw net.ipv4.vs.expire_nodest_conn=0")
		n := w.run(true)
		const every = 20 * time.Millisecond
		n.want("deleted", w.vip(53), w.oneAddr())
		n.want("deserted", w.vip(54), w.oneAddr())
		n.want("kept", w.vip(55), w.oneAddr())
		n.ready(w.vip(53), w.vip(54), w.vip(55))
		var senders []*sender
		for i, port := range []uint16{53, 54, 55} {
			s := w.send(w.client, w.from(4000+uint16(i)), w.vip(port), every)
			s.answeredBy(w, w.oneAddr(), 5*time.Second)
			senders = append(senders, s)
		}
		foreign := w.foreign(every)
		n.sweeper.Synced()
		before := w.table()
		if !leadsTo(w.entry(4000, w.vip(53)), w.oneAddr()) || !leadsTo(w.entry(4001, w.vip(54)), w.oneAddr()) {
			t.Fatalf("table %v", before)
		}
		senders[0].end() // as when the address is unbound: nothing comes any more
		senders[1].end()
		n.drop("deleted")
		n.want("deserted", w.vip(54))
		took := w.until("rid of them", time.Second, func() bool {
			return w.entry(4000, w.vip(53)) == "" && w.entry(4001, w.vip(54)) == ""
		})
		t.Logf("gone after %v; %+v", took, n.sweeper.Stats())
		if is := w.entry(4002, w.vip(55)); is == "" || is != before[key(4002, w.vip(55))] {
			t.Errorf("the entry of another virtual server was %q and is %q", before[key(4002, w.vip(55))], is)
		}
		foreign(before)
		if lost := senders[2].lost(time.Time{}); len(lost) > 0 {
			t.Errorf("the other virtual server's lost %v", lost)
		}
	})
}

// TestLabNeverTranslated: a flow from before its Service existed, which
// something on the node answered, gets to the Service once it is there.
func TestLabNeverTranslated(t *testing.T) {
	eachFamily(t, func(w *world) {
		t := w.t
		n := w.run(true)
		w.serve(w.node, w.vip(53))
		s := w.send(w.client, w.from(4000), w.vip(53), 20*time.Millisecond)
		s.answeredBy(w, w.vip(53), 5*time.Second)
		n.want("dns", w.vip(53), w.oneAddr())
		n.ready(w.vip(53))
		time.Sleep(500 * time.Millisecond) // IPVS alone does not mend the entry
		if is := w.entry(4000, w.vip(53)); !leadsTo(is, w.vip(53)) {
			t.Fatalf("the entry is %q, want the one from before: the test shows nothing", is)
		}
		n.sweeper.Synced()
		s.answeredBy(w, w.oneAddr(), time.Second)
		w.until("rid of the old entry", time.Second, func() bool { return leadsTo(w.entry(4000, w.vip(53)), w.oneAddr()) })
	})
}

// TestLabDelete deletes what it is given and nothing in its place.
func TestLabDelete(t *testing.T) {
	eachFamily(t, func(w *world) {
		t := w.t
		n := w.run(false)
		n.want("dns", w.vip(53), w.oneAddr())
		n.ready(w.vip(53))
		for port := range uint16(300) {
			s := w.send(w.client, w.from(4000+port), w.vip(53), time.Hour)
			_, _ = s.conn.WriteToUDPAddrPort([]byte("one"), w.vip(53))
			s.end()
		}
		var flows []conntrack.Flow
		w.until("300 flows", 5*time.Second, func() bool { flows = w.flowsTo(w.vip(53)); return len(flows) == 300 })
		moved := flows[0]
		moved.Backend = w.twoAddr() // as if the entry had been made anew since it was read
		later := flows[1]
		later.ID++
		for i, err := range w.flows.Delete(t.Context(), []conntrack.Flow{moved, later}) {
			if !errors.Is(err, syscall.ENOENT) {
				t.Errorf("%d: %v, want ENOENT", i, err)
			}
		}
		if got := len(w.flowsTo(w.vip(53))); got != 300 {
			t.Errorf("%d flows left of 300", got)
		}
		for _, err := range w.flows.Delete(t.Context(), flows[:299]) {
			if err != nil {
				t.Error(err)
			}
		}
		if got := w.flowsTo(w.vip(53)); len(got) != 1 || got[0] != flows[299] {
			t.Errorf("left: %+v", got)
		}
		if !strings.Contains(fmt.Sprint(w.flows.Delete(t.Context(), flows[:1])), "no such file") {
			t.Error("deleted twice")
		}
	})
}

// foreign makes flows that are none of ours: to the node, to an endpoint
// directly, through the node, and translated by a rule. The result checks that
// each has its entry of before, and lost nothing.
func (w *world) foreign(every time.Duration) func(before map[string]string) {
	w.t.Helper()
	node := netip.AddrPortFrom(w.addr(1, 1), 9999)
	translated := netip.AddrPortFrom(w.addr(99, 9), 53)
	w.serve(w.node, node)
	w.sh(w.node, fmt.Sprintf("%s -t nat -A PREROUTING -d %s -p udp --dport 53 -j DNAT --to-destination %s", w.iptables(), translated.Addr(), w.oneAddr()))
	flows := map[netip.AddrPort]*sender{}
	for to, by := range map[netip.AddrPort]netip.AddrPort{node: node, w.oneAddr(): w.oneAddr(), translated: w.oneAddr()} {
		s := w.send(w.client, w.from(5000+uint16(len(flows))), to, every)
		s.answeredBy(w, by, 5*time.Second)
		flows[to] = s
	}
	return func(before map[string]string) {
		w.t.Helper()
		for to, s := range flows {
			if was, is := before[key(s.port(), to)], w.entry(s.port(), to); was == "" || was != is {
				w.t.Errorf("foreign entry to %s was %q and is %q", to, was, is)
			}
			if lost := s.lost(time.Time{}); len(lost) > 0 {
				w.t.Errorf("foreign flow to %s lost %v", to, lost)
			}
		}
	}
}
