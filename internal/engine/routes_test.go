package engine_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice.dev/sluice/bgp"
	"sluice.dev/sluice/bgp/bgptest"
	"sluice.dev/sluice/internal/model"
)

// tor is a router that every node talks to.
func tor() model.Peer {
	return model.Peer{Name: "tor", Addr: netip.MustParseAddrPort("192.0.2.1:179"), ASN: 65000, MyASN: 65001, Hold: 9 * time.Second}
}

// balancer is a Service with a load-balancer address.
func balancer(name, clusterIP, vip string) model.Service {
	return service(name, clusterIP, func(s *model.Service) { s.LoadBalancerIPs = addrs(vip) })
}

// speaking starts an engine that speaks BGP. calls waits until all is done and
// returns what the server was asked to do since the last time.
func (w *world) speaking(t *testing.T, facts ...any) (r *run, calls func() string) {
	t.Helper()
	server := bgptest.New()
	r = w.start(t, conditions{sources: 1, families: []model.Family{model.IPv4}, speaker: server})
	r.tell(facts...)
	r.tell(synced)
	return r, func() string {
		synctest.Wait()
		calls := server.TakeCalls()
		slices.Sort(calls)
		return strings.Join(calls, ", ")
	}
}

// TestRoutesWaitForTheTables: an address is told when it is programmed, and
// stays told while its tables are written.
func TestRoutesWaitForTheTables(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r, calls := w.speaking(t, node1(), tor(), model.Advertisement{Name: "all"})
		if got := calls(); got != "open tor" {
			t.Errorf("without Services: %s", got)
		}
		expect := func(when, want string) {
			t.Helper()
			if got := calls(); got != want {
				t.Errorf("%s: %q, want %q", when, got, want)
			}
		}
		w.fail(refuse("vip add 198.51.100.1"))
		r.tell(balancer("web", "10.96.0.1", "198.51.100.1"), endpoints("web", "10.1.2.1"))
		expect("the address cannot be bound", "")
		w.fail(nil)
		time.Sleep(time.Second)
		expect("it can", "tell tor 198.51.100.1/32")
		w.fail(refuse("ipvs create"))
		r.tell(endpoints("web", "10.1.2.1", "10.1.2.2"))
		expect("one more endpoint, which cannot be written", "")
		w.fail(nil)
		r.tell(endpoints("web"))
		expect("no endpoint is left", "withdraw tor 198.51.100.1/32")
		r.tell(endpoints("web", "10.1.2.1"))
		expect("one is back, a moment later", "")
		time.Sleep(time.Second)
		expect("a second later", "tell tor 198.51.100.1/32")
		r.tell(model.ServiceKey{Name: name("web")})
		expect("the Service is gone", "withdraw tor 198.51.100.1/32")
		w.orderly(t, "routes")
	})
}

// TestSessionsOpenWhenAllIsDecided: routes before sessions, so that a peer that
// kept those of a former run drops none. A Service that fails keeps nobody
// waiting for longer than ten seconds.
func TestSessionsOpenWhenAllIsDecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.fail(refuse("vip add 198.51.100.1"))
		began := time.Now()
		server := bgptest.New()
		var mu sync.Mutex
		var asked []string
		server.Fail = func(call string, k bgp.Key) error {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, fmt.Sprintf("%s %s after %v", call, k, time.Since(began).Truncate(time.Second)))
			return nil
		}
		r := w.start(t, conditions{sources: 1, families: []model.Family{model.IPv4}, speaker: server})
		r.tell(node1(), tor(), model.Advertisement{Name: "all"},
			balancer("web", "10.96.0.1", "198.51.100.1"), endpoints("web", "10.1.2.1"),
			balancer("api", "10.96.0.2", "198.51.100.2"), endpoints("api", "10.1.2.1"))
		expect := func(when string, wait time.Duration, want string) {
			t.Helper()
			time.Sleep(wait)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if got := strings.Join(asked, ", "); got != want {
				t.Errorf("%s: %q, want %q", when, got, want)
			}
			asked = nil
		}
		expect("before all is told", time.Minute, "")
		r.tell(synced)
		expect("while one fails", 5*time.Second, "tell tor 198.51.100.2/32 after 1m0s")
		expect("it is not waited for for ever", 6*time.Second, "open tor after 1m10s")
		w.fail(nil)
		expect("it can be written at last", time.Minute, "tell tor 198.51.100.1/32 after 1m15s")
	})
}

// TestRoutesFollowTheNode: what concerns all addresses, and a problem that all
// have, which is told once.
func TestRoutesFollowTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		one, two := uint32(1), uint32(2)
		r, calls := w.speaking(t, node1(), model.LocalAddrs{Addrs: addrs("192.0.2.10")}, tor(), model.Advertisement{Name: "all", MED: &one},
			balancer("web", "10.96.0.1", "198.51.100.1"), endpoints("web", "10.1.2.1"),
			balancer("api", "10.96.0.2", "198.51.100.2"), endpoints("api", "10.1.2.1"))
		expect := func(when, want string) {
			t.Helper()
			if got := calls(); got != want {
				t.Errorf("%s: %q, want %q", when, got, want)
			}
		}
		expect("at the start", "open tor, tell tor 198.51.100.1/32, tell tor 198.51.100.2/32")
		node := node1()
		node.Drained = "asked for"
		r.tell(node)
		expect("drained", "withdraw tor 198.51.100.1/32, withdraw tor 198.51.100.2/32")
		if got := r.Facts().Away; got != "asked for" {
			t.Errorf("drained: away because %q", got)
		}
		r.tell(node1())
		time.Sleep(2 * time.Second)
		expect("back", "tell tor 198.51.100.1/32, tell tor 198.51.100.2/32")
		node = node1()
		node.NotReady = time.Now()
		r.tell(node, model.Node{Name: "node2", Addrs: addrs("192.0.2.20")})
		expect("not ready for a moment", "")
		time.Sleep(time.Minute)
		expect("for a minute, and node2 could", "withdraw tor 198.51.100.1/32, withdraw tor 198.51.100.2/32")
		r.tell(model.NodeKey{Name: "node2"})
		time.Sleep(time.Minute)
		expect("nobody else can", "tell tor 198.51.100.1/32, tell tor 198.51.100.2/32")
		r.tell(model.NodeKey{Name: "node1"})
		expect("the Node is deleted", "withdraw tor 198.51.100.1/32, withdraw tor 198.51.100.2/32")
		r.told.take()
		r.tell(model.Advertisement{Name: "other", Created: time.Unix(1, 0), MED: &two})
		synctest.Wait()
		if got := r.told.take(); len(got) != 1 {
			t.Errorf("two addresses, one contradiction: told %v", got)
		}
	})
}
