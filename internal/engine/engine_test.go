package engine_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/ipvs"
)

// TestEverythingOfOneService is all that one Service puts into the kernel, and
// the sets and chains around it, in the tables' own texts. What the rules say
// is package nodeport's.
func TestEverythingOfOneService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.start(t, conditions{sources: 1, families: []model.Family{model.IPv4}})
		r.tell(node1(), service("web", "10.96.0.1"), endpoints("web", "10.1.2.1", "10.1.1.1@node1"), synced)
		synctest.Wait()
		var got strings.Builder
		for line := range strings.Lines(w.dumps()) {
			if rule := strings.TrimSpace(line); !strings.HasPrefix(rule, "-") || strings.HasPrefix(rule, "->") {
				got.WriteString(strings.TrimRight(line, " \n") + "\n")
			}
		}
		if want := everything; got.String() != want {
			t.Errorf("got\n%s\nwant\n%s", got.String(), want)
		}
		w.orderly(t, "first Service")
	})
}

const everything = `set SLUICE-ALLOWED hash:ip,port,net
set SLUICE-CLUSTER-IP hash:ip,port
  10.96.0.1,tcp:80
set SLUICE-DROP hash:ip,port
set SLUICE-EXTERNAL hash:ip,port
set SLUICE-HAIRPIN hash:ip,port,ip
  10.1.1.1,tcp:8080,10.1.1.1
set SLUICE-HEALTH hash:ip,port
set SLUICE-LOCAL hash:ip,port
set SLUICE-PODS hash:net
  10.1.0.0/16
set SLUICE-RANGED hash:ip,port
set SLUICE-REJECT hash:ip,port
set SLUICE-SHORTCUT hash:ip,port
set SLUICE-VIPS hash:ip
  10.96.0.1
IPv4 nat OUTPUT
IPv4 nat POSTROUTING
IPv4 nat PREROUTING
IPv4 nat SLUICE-OUTPUT
IPv4 nat SLUICE-POSTROUTING
IPv4 nat SLUICE-SERVICES
IPv4 nat SLUICE-SHORTCUTS
IPv4 filter FORWARD
IPv4 filter INPUT
IPv4 filter SLUICE-FORWARD
IPv4 filter SLUICE-INPUT
IPv4 mangle OUTPUT
IPv4 mangle PREROUTING
IPv4 mangle SLUICE-FIREWALL
TCP  10.96.0.1:80 rr
  -> 10.1.1.1:8080                Masq    1      0          0
  -> 10.1.2.1:8080                Masq    1      0          0
address 10.96.0.1
local 10.96.0.1 src 192.0.2.10
`

// TestKindsOfAddresses: NodePort, external and load-balancer IPs in both
// families, each where it belongs.
func TestKindsOfAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.working(t, node1(), service("web", "10.96.0.1", func(s *model.Service) {
			s.ClusterIPs = addrs("10.96.0.1", "fd00:96::1")
			s.ExternalIPs = addrs("198.51.100.1", "2001:db8::1")
			s.LoadBalancerIPs = addrs("198.51.100.2")
			s.Ports[0].NodePort = 30080
			s.Ports = append(s.Ports, model.ServicePort{Name: "dns", Protocol: model.UDP, Port: 53})
		}), endpoints("web", "10.1.2.1"), endpoints("web", "fd00:1::1@node1"))
		const whole = `
			6-CLUSTER-IP fd00:96::1,tcp:80
			6-CLUSTER-IP fd00:96::1,udp:53
			6-EXTERNAL 2001:db8::1,tcp:80
			6-EXTERNAL 2001:db8::1,udp:53
			6-EXTERNAL fd00:a::10,tcp:30080
			6-HAIRPIN fd00:1::1,tcp:8080,fd00:1::1
			6-REJECT 2001:db8::1,udp:53
			6-REJECT fd00:96::1,udp:53
			6-VIPS 2001:db8::1
			6-VIPS fd00:96::1
			CLUSTER-IP 10.96.0.1,tcp:80
			CLUSTER-IP 10.96.0.1,udp:53
			EXTERNAL 192.0.2.10,tcp:30080
			EXTERNAL 198.51.100.1,tcp:80
			EXTERNAL 198.51.100.1,udp:53
			EXTERNAL 198.51.100.2,tcp:80
			EXTERNAL 198.51.100.2,udp:53
			REJECT 10.96.0.1,udp:53
			REJECT 198.51.100.1,udp:53
			REJECT 198.51.100.2,udp:53
			VIPS 10.96.0.1
			VIPS 198.51.100.1
			VIPS 198.51.100.2
			TCP 10.96.0.1:80 rr
			-> 10.1.2.1:8080 Masq 1
			TCP 192.0.2.10:30080 rr
			-> 10.1.2.1:8080 Masq 1
			TCP 198.51.100.1:80 rr
			-> 10.1.2.1:8080 Masq 1
			TCP 198.51.100.2:80 rr
			-> 10.1.2.1:8080 Masq 1
			TCP [2001:db8::1]:80 rr
			-> [fd00:1::1]:8080 Masq 1
			TCP [fd00:96::1]:80 rr
			-> [fd00:1::1]:8080 Masq 1
			TCP [fd00:a::10]:30080 rr
			-> [fd00:1::1]:8080 Masq 1
			address 10.96.0.1
			address 198.51.100.1
			address 198.51.100.2
			local 10.96.0.1 src 192.0.2.10
			local 198.51.100.1 src 192.0.2.10
			local 198.51.100.2 src 192.0.2.10
			local 2001:db8::1 src fd00:a::10
			local fd00:96::1 src fd00:a::10`
		w.shows(t, "two families, four kinds", whole)

		// The node moves to another address: its NodePort and every source
		// follow, nothing else does.
		cost, _ := w.since(func() { r.tell(model.Node{Name: "node1", Addrs: addrs("192.0.2.11", "fd00:a::10")}) })
		w.shows(t, "another node address", strings.ReplaceAll(whole, "192.0.2.10", "192.0.2.11"))
		if want := 1 + 1 + 1 + 1; cost.servers != want || cost.execs != 0 {
			t.Errorf("%d IPVS commands and %d programs, want %d (server, its destination, weight 0 for the old one, the old server) and none", cost.servers, cost.execs, want)
		}
	})
}

// TestOneEndpoint is the budget of the most frequent change.
func TestOneEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var facts []any
		for i := range 50 {
			n := string(rune('a'+i/26)) + string(rune('a'+i%26))
			facts = append(facts, service(n, netip.AddrFrom4([4]byte{10, 96, 1, byte(i)}).String()), endpoints(n, "10.1.2.1", "10.1.2.2"))
		}
		r := w.working(t, append(facts, node1())...)
		for _, c := range []struct {
			what   string
			facts  []any
			writes []string
			cost   counts
		}{
			{"one added on another node", []any{endpoints("ab", "10.1.2.1", "10.1.2.2", "10.1.2.3")},
				[]string{"ipvs create TCP 10.96.1.1:80 -> 10.1.2.3:8080"}, counts{servers: 1}},
			{"one removed: weight 0, connections counted before and after, deleted", []any{endpoints("ab", "10.1.2.1", "10.1.2.3")},
				[]string{"ipvs change TCP 10.96.1.1:80 -> 10.1.2.2:8080", "ipvs delete TCP 10.96.1.1:80 -> 10.1.2.2:8080"},
				counts{servers: 2, serving: 2}},
			{"one added on this node", []any{endpoints("ab", "10.1.2.1", "10.1.2.3", "10.1.2.4@node1")},
				[]string{"filter add SLUICE-HAIRPIN 10.1.2.4,tcp:8080,10.1.2.4", "ipvs create TCP 10.96.1.1:80 -> 10.1.2.4:8080"},
				counts{servers: 1, sets: 1, setWrites: 1}},
			{"the same again", []any{endpoints("ab", "10.1.2.1", "10.1.2.3", "10.1.2.4@node1"), service("ac", "10.96.1.2")}, nil, counts{}},
			{"endpoints of nobody", []any{endpoints("zz", "10.1.2.9")}, nil, counts{}},
			{"another node", []any{model.Node{Name: "node2", Addrs: addrs("192.0.2.20")}}, nil, counts{}},
		} {
			cost, writes := w.since(func() { r.tell(c.facts...) })
			slices.Sort(writes)
			slices.Sort(c.writes)
			if cost != c.cost || !slices.Equal(writes, c.writes) {
				t.Errorf("%s: %+v\n%s\nwant %+v\n%s", c.what, cost, strings.Join(writes, "\n"), c.cost, strings.Join(c.writes, "\n"))
			}
		}
		w.orderly(t, "endpoints")
	})
}

// TestADeletedServiceLeavesNothing in every table, in whichever order its
// facts go.
func TestADeletedServiceLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.working(t, node1(), service("web", "10.96.0.1"), endpoints("web", "10.1.2.1"))
		before := w.dumps()
		db := service("db", "10.96.0.2", external("198.51.100.1"), func(s *model.Service) {
			s.ClusterIPs = addrs("10.96.0.2", "fd00:96::2")
			s.Ports[0].NodePort = 30081
		})
		svc, slice := model.ServiceKey{Name: name("db")}, model.EndpointSliceKey{Name: name("db-x")}
		for _, order := range [][]any{{svc, slice}, {slice, svc}} {
			r.tell(db, endpoints("db", "10.1.2.1", "10.1.2.2@node1"))
			synctest.Wait()
			if w.dumps() == before {
				t.Fatal("the Service does nothing")
			}
			_, log := w.since(func() { r.tell(order...) })
			if got := w.dumps(); got != before {
				t.Errorf("deleted as %v: the tables hold\n%s\nwant\n%s", order, got, before)
			}
			w.orderly(t, "deleted")
			// The whole way down, once: addresses, servers, sets. The other
			// family goes its own way.
			log = slices.DeleteFunc(log, func(line string) bool { return strings.Contains(line, "SLUICE-6-") || strings.Contains(line, "fd00:") })
			rank := func(line string) int {
				return slices.IndexFunc([]string{"ipvs change TCP 10.96.0.2:80 ->", "ipvs delete TCP 10.96.0.2:80 ->", "vip", "ipvs change", "ipvs", "filter"},
					func(p string) bool { return strings.HasPrefix(line, p) })
			}
			if slice == order[1] && !slices.IsSortedFunc(log, func(a, b string) int { return rank(a) - rank(b) }) {
				t.Errorf("not from the top down:\n%s", strings.Join(log, "\n"))
			}
		}
	})
}

// TestAContestedAddress goes to the older Service; the younger one takes over,
// and is told of once.
func TestAContestedAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		older := service("older", "10.96.0.1", external("198.51.100.1"), created(1))
		younger := service("younger", "10.96.0.2", external("198.51.100.1"), created(2))
		r := w.working(t, node1(), younger, endpoints("younger", "10.1.2.2"))
		const alone = `
			CLUSTER-IP 10.96.0.2,tcp:80
			EXTERNAL 198.51.100.1,tcp:80
			VIPS 10.96.0.2
			VIPS 198.51.100.1
			TCP 10.96.0.2:80 rr
			-> 10.1.2.2:8080 Masq 1
			TCP 198.51.100.1:80 rr
			-> 10.1.2.2:8080 Masq 1
			address 10.96.0.2
			address 198.51.100.1
			local 10.96.0.2 src 192.0.2.10
			local 198.51.100.1 src 192.0.2.10`
		w.shows(t, "the younger alone", alone)

		// Its endpoints first: a Service that has none yet refuses.
		_, log := w.since(func() { r.tell(endpoints("older", "10.1.2.1"), older) })
		w.shows(t, "the older came", `
			CLUSTER-IP 10.96.0.1,tcp:80
			CLUSTER-IP 10.96.0.2,tcp:80
			EXTERNAL 198.51.100.1,tcp:80
			VIPS 10.96.0.1
			VIPS 10.96.0.2
			VIPS 198.51.100.1
			TCP 10.96.0.1:80 rr
			-> 10.1.2.1:8080 Masq 1
			TCP 10.96.0.2:80 rr
			-> 10.1.2.2:8080 Masq 1
			TCP 198.51.100.1:80 rr
			-> 10.1.2.1:8080 Masq 1
			address 10.96.0.1
			address 10.96.0.2
			address 198.51.100.1
			local 10.96.0.1 src 192.0.2.10
			local 10.96.0.2 src 192.0.2.10
			local 198.51.100.1 src 192.0.2.10`)
		for _, line := range log {
			if strings.Contains(line, "delete TCP 198.51.100.1:80") && !strings.Contains(line, "->") ||
				strings.HasPrefix(line, "vip") && strings.Contains(line, "198.51.100.1") ||
				strings.Contains(line, "EXTERNAL") {
				t.Errorf("what changes hands was touched: %s", line)
			}
		}
		told := func(what string, want ...string) {
			t.Helper()
			synctest.Wait()
			if got := r.told.take(); !slices.Equal(got, want) {
				t.Errorf("%s: told %v, want %v", what, got, want)
			}
		}
		told("the older came", "default/younger FrontendInUse")
		r.tell(endpoints("younger", "10.1.2.2", "10.1.2.3"))
		r.tell(service("other", "10.96.0.9"))
		r.tell(older, younger)
		told("events that change nothing about it")
		r.tell(model.Node{Name: "node1", Addrs: addrs("192.0.2.11", "fd00:a::10")})
		told("the node changed, and with it every Service")
		r.tell(node1(), endpoints("younger", "10.1.2.2"), model.ServiceKey{Name: name("other")})
		synctest.Wait()

		r.tell(model.ServiceKey{Name: older.Name})
		synctest.Wait()
		w.shows(t, "the older went", alone)
		told("the older went")
		r.tell(older)
		told("and came back", "default/younger FrontendInUse")
	})
}

// TestARestartWritesNothing: the same facts on the same kernel.
func TestARestartWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		facts := []any{
			node1(), model.LocalAddrs{Addrs: addrs("192.0.2.10", "192.0.2.11")},
			service("web", "10.96.0.1", func(s *model.Service) {
				s.ClusterIPs = addrs("10.96.0.1", "fd00:96::1")
				s.Ports[0].NodePort = 30080
				s.Affinity = 3 * time.Hour
				s.Scheduler = "mh"
			}),
			endpoints("web", "10.1.2.1", "10.1.1.1@node1"), endpoints("web", "fd00:1::1"),
			service("db", "10.96.0.2", external("198.51.100.1")),
		}
		w.working(t, facts...).stop()
		before := w.dumps()
		for _, order := range [][]any{facts, slices.Concat(facts[3:], facts[:3])} {
			cost, log := w.since(func() { w.working(t, order...).stop() })
			if cost.restores+cost.setWrites+cost.servers+cost.addrs != 0 || w.dumps() != before {
				t.Errorf("%+v\n%s", cost, strings.Join(log, "\n"))
			}
		}
		// Two sources, one of them late: what is known is already there.
		cost, log := w.since(func() {
			r := w.start(t, conditions{sources: 2, patience: time.Second})
			r.tell(synced)
			r.tell(facts[2:]...)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			r.tell(facts[:2]...)
			r.tell(synced)
			synctest.Wait()
			r.stop()
		})
		if cost.servers != 0 || w.dumps() != before {
			t.Errorf("with a late source: %+v\n%s\n%s", cost, strings.Join(log, "\n"), w.dumps())
		}
		w.orderly(t, "restart")
	})
}

// leftovers is a world that a former run left with a Service that is gone and
// one that is still there, and a virtual server of others.
func leftovers(t *testing.T) (w *world, facts []any) {
	t.Helper()
	w = newWorld()
	facts = []any{node1(), service("web", "10.96.0.1"), endpoints("web", "10.1.2.1")}
	gone := []any{
		service("gone", "10.96.0.2", external("198.51.100.1"), func(s *model.Service) { s.Ports[0].NodePort = 30082 }),
		endpoints("gone", "10.1.2.2@node1"),
	}
	w.working(t, slices.Concat(facts, gone)...).stop()
	theirs := ipvs.VirtualServer{Addr: netip.MustParseAddrPort("203.0.113.200:443"), Protocol: model.TCP}
	w.foreign[theirs] = true
	for _, c := range []ipvs.Command{
		{Key: ipvs.Key{VirtualServer: theirs}, Spec: ipvs.Spec{VirtualServer: ipvs.VirtualServerSpec{Scheduler: "lc", Netmask: ipvs.HostMask4}}},
		{Key: ipvs.Key{VirtualServer: theirs, RealServer: netip.MustParseAddrPort("10.9.9.9:443")}, Spec: ipvs.Spec{Destination: ipvs.DestinationSpec{Weight: 7}}},
	} {
		if err := w.table.Write(t.Context(), []ipvs.Command{c})[0]; err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range w.filter.Create(t.Context(), []netfilter.Set{{Name: "OTHERS", Family: model.IPv4, Type: netfilter.HashIP, MaxElem: 10}}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	const theirRules = "*filter\n:OTHERS - [0:0]\n-A INPUT -j OTHERS\n-A OTHERS -s 10.0.0.0/8 -j ACCEPT\nCOMMIT\n"
	if _, err := w.filter.Run(t.Context(), []byte(theirRules), "iptables-legacy-restore", "--noflush"); err != nil {
		t.Fatal(err)
	}
	return w, facts
}

const foreignServer = "TCP 203.0.113.200:443 lc\n-> 10.9.9.9:443 Masq 7\n"

// TestNothingIsDeletedBeforeEverySourceIsSynced, whatever else is known, and
// however long it takes.
func TestNothingIsDeletedBeforeEverySourceIsSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, facts := leftovers(t)
		before := w.dumps()
		r := w.start(t, conditions{sources: 2, patience: 5 * time.Second})
		r.tell(service("new", "10.96.0.3"), endpoints("new", "10.1.2.9"), service("bare", "10.96.0.5"), synced)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if got := w.dumps(); got != before {
			t.Errorf("before patience is over the tables hold\n%s\nwant\n%s", got, before)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		got := w.state()
		if !strings.Contains(got, "TCP 10.96.0.3:80") || !strings.Contains(got, "address 10.96.0.3") {
			t.Errorf("after patience what is known is not added:\n%s", got)
		}
		if strings.Contains(got, "REJECT") || strings.Contains(got, "10.96.0.5") {
			t.Errorf("a Service whose endpoints may not have been told of yet is refused:\n%s", got)
		}
		r.tell(model.ServiceKey{Name: name("new")}, service("newer", "10.96.0.4"), endpoints("newer", "10.1.2.9"))
		time.Sleep(time.Hour)
		synctest.Wait()
		lines := w.dumps()
		for line := range strings.Lines(before) {
			if !strings.Contains(lines, line) {
				t.Errorf("deleted before every source was synced: %s", line)
			}
		}
		for _, l := range r.Status() {
			if l.Deleted != 0 || l.Synced {
				t.Errorf("%s: %+v", l.Name, l)
			}
		}
		r.tell(facts...)
		_, log := w.since(func() { r.tell(synced) })
		w.shows(t, "all synced", `
			CLUSTER-IP 10.96.0.1,tcp:80
			CLUSTER-IP 10.96.0.4,tcp:80
			CLUSTER-IP 10.96.0.5,tcp:80
			REJECT 10.96.0.5,tcp:80
			VIPS 10.96.0.1
			VIPS 10.96.0.4
			VIPS 10.96.0.5
			TCP 10.96.0.1:80 rr
			-> 10.1.2.1:8080 Masq 1
			TCP 10.96.0.4:80 rr
			-> 10.1.2.9:8080 Masq 1
			`+foreignServer+`
			address 10.96.0.1
			address 10.96.0.4
			address 10.96.0.5
			local 10.96.0.1 src 192.0.2.10
			local 10.96.0.4 src 192.0.2.10
			local 10.96.0.5 src 192.0.2.10`)
		order(t, log, "vip delete 198.51.100.1", "ipvs delete TCP 198.51.100.1:80", "filter delete SLUICE-EXTERNAL 198.51.100.1,tcp:80")
		order(t, log, "vip delete 10.96.0.2", "ipvs delete TCP 10.96.0.2:80", "filter delete SLUICE-CLUSTER-IP 10.96.0.2,tcp:80")
		order(t, log, "ipvs delete TCP 192.0.2.10:30082", "filter delete SLUICE-EXTERNAL 192.0.2.10,tcp:30082")
	})
}

// order fails the test unless these lines are in the log in this order.
func order(t *testing.T, log []string, lines ...string) {
	t.Helper()
	rest := log
	for _, l := range lines {
		i := slices.Index(rest, l)
		if i < 0 {
			t.Errorf("%q is not in its place in\n%s", l, strings.Join(log, "\n"))
			return
		}
		rest = rest[i+1:]
	}
}

// TestCleanup: an engine without sources, rules and Services empties all that
// is ours, in order, and nothing else.
func TestCleanup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := leftovers(t)
		r := w.start(t, conditions{cleanup: true})
		synctest.Wait()
		const left = "set OTHERS hash:ip\n" +
			"IPv4 filter INPUT\n  -j OTHERS\nIPv4 filter OTHERS\n  -s 10.0.0.0/8 -j ACCEPT\n" +
			"TCP  203.0.113.200:443 lc\n  -> 10.9.9.9:443                 Masq    7      0          0         \n"
		if got := w.dumps(); got != left {
			t.Errorf("left\n%s\nwant\n%s", got, left)
		}
		for _, l := range r.Status() {
			if l.Present != 0 || l.FailingCount != 0 || !l.Listed || !l.Synced {
				t.Errorf("%s does not say that it is done: %+v", l.Name, l)
			}
		}
		w.orderly(t, "cleanup")
	})
}

// TestOneServiceThatCannotBeWritten is held back alone, and comes when it can.
func TestOneServiceThatCannotBeWritten(t *testing.T) {
	for what, fault := range map[string]string{
		"set member":     "filter add SLUICE-CLUSTER-IP 10.96.0.1,tcp:80",
		"guard":          "filter add SLUICE-VIPS 10.96.0.1",
		"virtual server": "ipvs create TCP 10.96.0.1:80",
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.fail(refuse(fault))
				r := w.working(t, node1(),
					service("bad", "10.96.0.1"), endpoints("bad", "10.1.2.1"),
					service("good", "10.96.0.2"), endpoints("good", "10.1.2.2"))
				time.Sleep(10 * time.Minute)
				r.tell(service("late", "10.96.0.3"), endpoints("late", "10.1.2.3"), endpoints("good", "10.1.2.4"))
				synctest.Wait()
				got := w.state()
				for _, want := range []string{"TCP 10.96.0.2:80", "-> 10.1.2.4:8080", "address 10.96.0.2", "TCP 10.96.0.3:80", "address 10.96.0.3"} {
					if !strings.Contains(got, want) {
						t.Errorf("the others do not have %q:\n%s", want, got)
					}
				}
				for _, not := range []string{"10.96.0.1:80", "10.1.2.1:", "address 10.96.0.1", "10.1.2.2"} {
					if strings.Contains(got, not) {
						t.Errorf("%q is there all the same:\n%s", not, got)
					}
				}
				failing := 0
				for _, l := range r.Status() {
					failing += l.FailingCount
				}
				if want := 1; what != "virtual server" && failing != want {
					t.Errorf("%d keys failing, want %d", failing, want)
				}
				w.fail(nil)
				time.Sleep(31 * time.Second)
				synctest.Wait()
				w.shows(t, "mended", `
					CLUSTER-IP 10.96.0.1,tcp:80
					CLUSTER-IP 10.96.0.2,tcp:80
					CLUSTER-IP 10.96.0.3,tcp:80
					VIPS 10.96.0.1
					VIPS 10.96.0.2
					VIPS 10.96.0.3
					TCP 10.96.0.1:80 rr
					-> 10.1.2.1:8080 Masq 1
					TCP 10.96.0.2:80 rr
					-> 10.1.2.4:8080 Masq 1
					TCP 10.96.0.3:80 rr
					-> 10.1.2.3:8080 Masq 1
					address 10.96.0.1
					address 10.96.0.2
					address 10.96.0.3
					local 10.96.0.1 src 192.0.2.10
					local 10.96.0.2 src 192.0.2.10
					local 10.96.0.3 src 192.0.2.10`)
			})
		})
	}
}

// mend ends all faults, after which the tables have to hold what is given.
func (w *world) mend(tb testing.TB, want string) {
	tb.Helper()
	w.fail(nil)
	time.Sleep(time.Minute)
	synctest.Wait()
	if got := w.state(); !strings.Contains(got, want) {
		tb.Errorf("mended, the tables hold\n%s", got)
	}
	w.orderly(tb, "mended")
}

// TestOneFamilyDoesNotHoldUpTheOther of the same Service.
func TestOneFamilyDoesNotHoldUpTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.fail(refuse("filter add SLUICE-6-"))
		w.working(t, node1(), service("web", "10.96.0.1", func(s *model.Service) { s.ClusterIPs = addrs("10.96.0.1", "fd00:96::1") }))
		if got := w.state(); !strings.Contains(got, "address 10.96.0.1") || strings.Contains(got, "fd00:96::1") {
			t.Errorf("the tables hold\n%s", got)
		}
		w.mend(t, "local fd00:96::1 src fd00:a::10")
	})
}

// TestEndpointsFollowWhateverIsWrongBelow: after a restart on which the rules,
// or one Service's set members, cannot be written, the virtual servers of the
// former run go on following their endpoints.
func TestEndpointsFollowWhateverIsWrongBelow(t *testing.T) {
	for _, fault := range []string{"filter run iptables-", "filter add SLUICE-EXTERNAL"} {
		t.Run(fault, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.working(t, node1(), service("web", "10.96.0.1"), endpoints("web", "10.1.2.1", "10.1.2.2")).stop()
				w.fail(refuse(fault))
				more := service("web", "10.96.0.1", external("198.51.100.1"))
				r := w.working(t, node1(), more, endpoints("web", "10.1.2.1", "10.1.2.2"))
				time.Sleep(2 * time.Second) // so long urgent Services have the tables to themselves
				cost, log := w.since(func() { r.tell(endpoints("web", "10.1.2.2", "10.1.2.3")) })
				if want := "-> 10.1.2.2:8080 Masq 1\n-> 10.1.2.3:8080 Masq 1\naddress 10.96.0.1"; !strings.Contains(w.state(), want) || cost.servers != 3 {
					t.Errorf("%d commands\n%s\nThe tables hold\n%s", cost.servers, strings.Join(log, "\n"), w.state())
				}
				if got := w.state(); strings.Contains(got, "TCP 198.51.100.1") {
					t.Errorf("the new address did not wait:\n%s", got)
				}
				w.mend(t, "address 198.51.100.1")
			})
		})
	}
}

// TestAListingThatFails is no observation: nothing is deleted in a table that
// was never seen, nor in those below it, where leftovers wait for it.
func TestAListingThatFails(t *testing.T) {
	for fault, tables := range map[string]string{
		"vip list":                       "vip ipvs filter",
		"ipvs VirtualServers":            "ipvs filter",
		"ipvs Destinations":              "ipvs filter",
		"filter members SLUICE-EXTERNAL": "ipvs filter", // what is ours
		"filter members SLUICE-VIPS":     "filter",
		"filter headers":                 "filter",
		"filter run iptables-":           "filter",
	} {
		t.Run(fault, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, facts := leftovers(t)
				before := w.tables()
				w.fail(refuse(fault))
				r := w.start(t, conditions{sources: 1, audit: time.Minute})
				r.tell(facts...)
				r.tell(synced)
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				after := w.tables()
				for table, want := range before {
					if stays := strings.Contains(tables, table); stays && after[table] != want {
						t.Errorf("%s: changed while it cannot be listed\n%s\nwas\n%s", table, after[table], want)
					}
				}
				unhealthy := false
				for _, l := range r.Status() {
					unhealthy = unhealthy || !l.FailingSince.IsZero()
				}
				if !unhealthy {
					t.Error("no loop says that its listing fails")
				}
				w.fail(nil)
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				w.shows(t, "mended", `
					CLUSTER-IP 10.96.0.1,tcp:80
					VIPS 10.96.0.1
					TCP 10.96.0.1:80 rr
					-> 10.1.2.1:8080 Masq 1
					`+foreignServer+`
					address 10.96.0.1
					local 10.96.0.1 src 192.0.2.10`)
			})
		})
	}
}

// TestAnAuditThatFails deletes nothing either, and one that succeeds puts
// right what others did, without touching what is theirs.
func TestAnAuditThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, facts := leftovers(t)
		r := w.start(t, conditions{sources: 1, audit: 30 * time.Second})
		r.tell(facts...)
		r.tell(synced)
		synctest.Wait()
		before := w.dumps()
		w.fail(refuse("ipvs VirtualServers", "ipvs Destinations", "members", "save", "vip list"))
		cost, log := w.since(func() { time.Sleep(time.Hour) })
		if w.dumps() != before || len(log) != 0 {
			t.Errorf("an hour of failing audits: %+v\n%s", cost, strings.Join(log, "\n"))
		}
		w.fail(nil)
		stray := ipvs.Key{
			VirtualServer: ipvs.VirtualServer{Addr: netip.MustParseAddrPort("10.96.0.1:80"), Protocol: model.TCP},
			RealServer:    netip.MustParseAddrPort("10.6.6.6:666"),
		}
		w.locked(func() {
			w.looking = true
			defer func() { w.looking = false }()
			for _, c := range []ipvs.Command{
				{Key: stray, Spec: ipvs.Spec{Destination: ipvs.DestinationSpec{Weight: 1}}},
				{Op: ipvs.Delete, Key: ipvs.Key{VirtualServer: stray.VirtualServer, RealServer: netip.MustParseAddrPort("10.1.2.1:8080")}},
			} {
				if err := w.table.Write(t.Context(), []ipvs.Command{c})[0]; err != nil {
					t.Error(err)
				}
			}
			w.links.Drop()
			w.filter.Delete(t.Context(), []netfilter.Member{{Set: "SLUICE-VIPS", Entry: netfilter.Addr(addrs("10.96.0.1")[0])}})
		})
		w.since(func() { time.Sleep(2 * time.Minute) })
		w.locked(func() { w.breach = nil }) // the order was others' to break
		if got := w.dumps(); got != before {
			t.Errorf("after the audits\n%s\nwant\n%s", got, before)
		}
		drift := uint64(0)
		for _, l := range r.Status() {
			drift += l.Drift
		}
		if want := uint64(2 + 1 + 1); drift != want {
			t.Errorf("drift %d, want %d", drift, want)
		}
	})
}

// TestAConnectionKeepsItsEndpoint until it ends; the Service's address and
// virtual server wait for nothing of that kind.
func TestAConnectionKeepsItsEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r := w.working(t, node1(), service("web", "10.96.0.1"), endpoints("web", "10.1.2.1", "10.1.2.2"))
		vs := ipvs.VirtualServer{Addr: netip.MustParseAddrPort("10.96.0.1:80"), Protocol: model.TCP}
		leaving := ipvs.Key{VirtualServer: vs, RealServer: netip.MustParseAddrPort("10.1.2.1:8080")}
		w.table.Connect(leaving, 3)
		r.tell(endpoints("web", "10.1.2.2", "10.1.2.3"))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := w.state(); !strings.Contains(got, "-> 10.1.2.1:8080 Masq 0") || !strings.Contains(got, "-> 10.1.2.3:8080 Masq 1") {
			t.Errorf("while connections run:\n%s", got)
		}
		r.tell(endpoints("web", "10.1.2.1", "10.1.2.2", "10.1.2.3"))
		synctest.Wait()
		if got := w.state(); !strings.Contains(got, "-> 10.1.2.1:8080 Masq 1") {
			t.Errorf("wanted again:\n%s", got)
		}
		r.tell(endpoints("web", "10.1.2.2"))
		time.Sleep(time.Second)
		w.table.Connect(leaving, 0)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := w.state(); strings.Contains(got, "10.1.2.1") || strings.Contains(got, "10.1.2.3") {
			t.Errorf("connections ended:\n%s", got)
		}
		w.table.Connect(ipvs.Key{VirtualServer: vs, RealServer: netip.MustParseAddrPort("10.1.2.2:8080")}, 1)
		r.tell(model.ServiceKey{Name: name("web")})
		synctest.Wait()
		w.shows(t, "the Service is gone", "")
	})
}
