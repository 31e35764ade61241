package bgptest

import (
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/bgp"
)

// Subject is a server with the routers that it can have sessions with.
type Subject struct {
	bgp.Server
	// Session is one with a router by this name, "a" or "b", over IPv4, that
	// speaks both families.
	Session func(router string) bgp.Session
	// Heard is what the router holds by now.
	Heard func(router string) map[netip.Prefix]bgp.Route
}

// Conformance checks that a server does what bgp.Server says. open makes one, and
// ends it by t.Cleanup.
func Conformance(t *testing.T, open func(t *testing.T) Subject) {
	t.Helper()
	for name, check := range map[string]func(*testing.T, Subject){
		"a session tells what it has, then what follows": checkTelling,
		"attributes":                      checkAttributes,
		"peers are apart":                 checkApart,
		"a changed session keeps routes":  checkReopen,
		"a closed session":                checkClose,
		"what is refused":                 checkRefused,
		"rows of a refused session":       checkRefusedRows,
		"routes are withdrawn, then ends": checkStop,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check(t, open(t))
		})
	}
}

// Prefix4 and Prefix6 are the nth prefix of each family that checks use.
func Prefix4(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 32)
}

// Prefix6 is Prefix4 of the other family.
func Prefix6(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 14: byte(n >> 8), 15: byte(n)}), 128)
}

// Hop4 and Hop6 are routes with nothing but a next hop.
func Hop4() bgp.Route { return bgp.Route{NextHop: netip.MustParseAddr("192.0.2.1")} }

// Hop6 is Hop4 of the other family.
func Hop6() bgp.Route { return bgp.Route{NextHop: netip.MustParseAddr("2001:db8::1")} }

// Await waits until a condition holds, and fails the test if it never does.
func Await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// State is a peer's state.
func State(s bgp.Server, name string) bgp.PeerState {
	for _, p := range s.Peers() {
		if p.Peer == name {
			return p
		}
	}
	return bgp.PeerState{}
}

func (s Subject) open(t *testing.T, name, router string) {
	t.Helper()
	ok(t, s.Open(name, s.Session(router)))
}

func (s Subject) awaitUp(t *testing.T, name string) {
	t.Helper()
	Await(t, name+" established", func() bool { return State(s, name).Established() })
}

func (s Subject) awaitHeard(t *testing.T, router string, want map[netip.Prefix]bgp.Route) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !maps.Equal(s.Heard(router), want) {
		if time.Now().After(deadline) {
			t.Fatalf("router %s holds %v, want %v; state %+v", router, s.Heard(router), want, s.Peers())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func key(peer string, p netip.Prefix) bgp.Key { return bgp.Key{Peer: peer, Prefix: p} }

func checkTelling(t *testing.T, s Subject) {
	t.Helper()
	ok(t, s.Tell(key("tor", Prefix4(1)), Hop4()))
	ok(t, s.Tell(key("tor", Prefix6(1)), Hop6()))
	if len(s.Peers()) != 0 || len(s.Heard("a")) != 0 {
		t.Errorf("without a session: peers %v, heard %v", s.Peers(), s.Heard("a"))
	}
	s.open(t, "tor", "a")
	s.awaitHeard(t, "a", map[netip.Prefix]bgp.Route{Prefix4(1): Hop4(), Prefix6(1): Hop6()})
	ok(t, s.Tell(key("tor", Prefix4(2)), Hop4()))
	ok(t, s.Withdraw(key("tor", Prefix4(1))))
	ok(t, s.Withdraw(key("tor", Prefix4(9)))) // absent
	s.awaitHeard(t, "a", map[netip.Prefix]bgp.Route{Prefix4(2): Hop4(), Prefix6(1): Hop6()})
	s.awaitUp(t, "tor")
	got := State(s, "tor")
	if want := s.Session("a"); got.Told != 2 || got.Error != "" || got.Addr != want.Peer || got.ASN != want.ASN || got.MyASN != want.MyASN {
		t.Errorf("state %+v, want 2 told, and of %+v", got, want)
	}
}

func checkAttributes(t *testing.T, s Subject) {
	t.Helper()
	s.open(t, "tor", "a")
	r := Hop4()
	r.Communities, r.LargeCommunities, r.MED, r.HasMED = "64512:1 64512:65535", "4200000000:1:2 64512:0:3", 0, true
	ok(t, s.Tell(key("tor", Prefix4(1)), r))
	r6 := r
	r6.NextHop, r6.MED = Hop6().NextHop, 77
	ok(t, s.Tell(key("tor", Prefix6(1)), r6))
	s.awaitHeard(t, "a", map[netip.Prefix]bgp.Route{Prefix4(1): r, Prefix6(1): r6})
	ok(t, s.Tell(key("tor", Prefix4(1)), Hop4()))
	s.awaitHeard(t, "a", map[netip.Prefix]bgp.Route{Prefix4(1): Hop4(), Prefix6(1): r6})
}

func checkApart(t *testing.T, s Subject) {
	t.Helper()
	s.open(t, "one", "a")
	s.open(t, "two", "b")
	ok(t, s.Tell(key("one", Prefix4(1)), Hop4()))
	med := Hop4()
	med.MED, med.HasMED = 5, true
	ok(t, s.Tell(key("two", Prefix4(1)), med))
	s.awaitHeard(t, "a", map[netip.Prefix]bgp.Route{Prefix4(1): Hop4()})
	s.awaitHeard(t, "b", map[netip.Prefix]bgp.Route{Prefix4(1): med})
	s.awaitUp(t, "one")
	s.awaitUp(t, "two")
	before := State(s, "one")
	ok(t, s.Close("two"))
	changed := s.Session("b")
	changed.Hold += time.Second
	ok(t, s.Open("two", changed))
	s.awaitHeard(t, "b", map[netip.Prefix]bgp.Route{Prefix4(1): med})
	s.awaitUp(t, "two")
	if after := State(s, "one"); after != before {
		t.Errorf("the other session was %+v, is %+v", before, after)
	}
}

func checkReopen(t *testing.T, s Subject) {
	t.Helper()
	s.open(t, "tor", "a")
	ok(t, s.Tell(key("tor", Prefix4(1)), Hop4()))
	s.awaitHeard(t, "a", map[netip.Prefix]bgp.Route{Prefix4(1): Hop4()})
	s.awaitUp(t, "tor")
	since := State(s, "tor").Since
	s.open(t, "tor", "a") // the same
	if got := State(s, "tor"); !got.Established() || !got.Since.Equal(since) {
		t.Errorf("opening what is open has touched it: %+v", got)
	}
	changed := s.Session("a")
	changed.Hold += time.Second
	ok(t, s.Open("tor", changed))
	Await(t, "another session", func() bool {
		got := State(s, "tor")
		return got.Established() && got.Since.After(since)
	})
	s.awaitHeard(t, "a", map[netip.Prefix]bgp.Route{Prefix4(1): Hop4()})
	if got := State(s, "tor"); got.Lost != 0 {
		t.Errorf("lost %d times, though it was us who closed it", got.Lost)
	}
	want := map[bgp.Key]bgp.Spec{{Peer: "tor"}: {Session: changed}, key("tor", Prefix4(1)): {Route: Hop4()}}
	if got := s.Rows(); !maps.Equal(got, want) {
		t.Errorf("rows %v, want %v", got, want)
	}
}

func checkClose(t *testing.T, s Subject) {
	t.Helper()
	s.open(t, "tor", "a")
	ok(t, s.Tell(key("tor", Prefix4(1)), Hop4()))
	s.awaitHeard(t, "a", map[netip.Prefix]bgp.Route{Prefix4(1): Hop4()})
	ok(t, s.Close("tor"))
	s.awaitHeard(t, "a", map[netip.Prefix]bgp.Route{})
	if got := s.Peers(); len(got) != 0 {
		t.Errorf("peers %v, want none", got)
	}
	want := map[bgp.Key]bgp.Spec{key("tor", Prefix4(1)): {Route: Hop4()}}
	if got := s.Rows(); !maps.Equal(got, want) {
		t.Errorf("rows %v, want the route", got)
	}
	ok(t, s.Withdraw(key("tor", Prefix4(1))))
	ok(t, s.Close("tor"))
	if got := s.Rows(); len(got) != 0 {
		t.Errorf("rows %v, want none", got)
	}
}

func checkRefused(t *testing.T, s Subject) {
	t.Helper()
	for what, change := range map[string]func(*bgp.Session){
		"is no address":     func(x *bgp.Session) { x.Peer = netip.AddrPort{} },
		"0 is no ASN":       func(x *bgp.Session) { x.ASN = 0 },
		"router ID":         func(x *bgp.Session) { x.RouterID = netip.IPv6Unspecified() },
		"families: none":    func(x *bgp.Session) { x.IPv4, x.IPv6 = false, false },
		"holdTime 2s":       func(x *bgp.Session) { x.Hold = 2 * time.Second },
		"restartTime":       func(x *bgp.Session) { x.Restart = 2 * time.Hour },
		"exclude each":      func(x *bgp.Session) { x.TTLSecurity, x.Hops = true, 2 },
		"sourceAddress ::1": func(x *bgp.Session) { x.Source = netip.IPv6Loopback() },
	} {
		x := s.Session("a")
		change(&x)
		if err := s.Open("tor", x); err == nil || !strings.Contains(err.Error(), "BGP peer tor: ") || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: error %v", what, err)
		}
	}
	s.open(t, "tor", "a")
	for what, bad := range map[string]bgp.Spec{
		`"1:2:3" has not 2`:         {Route: bgp.Route{Communities: "64512:1 1:2:3"}},
		`"65536" is no number`:      {Route: bgp.Route{Communities: "65536:1"}},
		`"4294967296" is no number`: {Route: bgp.Route{LargeCommunities: "4294967296:1:1"}},
	} {
		err := s.Tell(key("tor", Prefix4(1)), bad.Route)
		if err == nil || !strings.Contains(err.Error(), "BGP peer tor: tell route 10.0.0.1/32: ") || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: error %v", what, err)
		}
	}
	for what, bad := range map[string]bgp.Spec{"no IPv6 next hop": {}, "is IPv4": {Route: Hop4()}} {
		if err := s.Tell(key("tor", Prefix6(1)), bad.Route); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: error %v", what, err)
		}
	}
	if got := len(s.Rows()); got != 1 {
		t.Errorf("%d rows, want the session only", got)
	}
}

func checkRefusedRows(t *testing.T, s Subject) {
	t.Helper()
	s.open(t, "tor", "a")
	s.awaitUp(t, "tor")
	bad := s.Session("a")
	bad.Hold = time.Second
	if s.Open("tor", bad) == nil {
		t.Fatal("a hold time of 1 s is taken")
	}
	if got, want := s.Rows(), (map[bgp.Key]bgp.Spec{{Peer: "tor"}: {}}); !maps.Equal(got, want) {
		t.Errorf("rows %v, want %v", got, want)
	}
	if got := State(s, "tor"); got.Established() || !strings.Contains(got.Error, "holdTime") {
		t.Errorf("state %+v, want the error", got)
	}
	ok(t, s.Close("tor"))
	if len(s.Rows())+len(s.Peers()) != 0 {
		t.Errorf("rows %v, peers %v, want none", s.Rows(), s.Peers())
	}
}

func checkStop(t *testing.T, s Subject) {
	t.Helper()
	s.open(t, "tor", "a")
	ok(t, s.Tell(key("tor", Prefix4(1)), Hop4()))
	ok(t, s.Tell(key("tor", Prefix6(1)), Hop6()))
	s.awaitHeard(t, "a", map[netip.Prefix]bgp.Route{Prefix4(1): Hop4(), Prefix6(1): Hop6()})
	s.awaitUp(t, "tor")
	ok(t, s.WithdrawAll(t.Context(), true))
	s.awaitHeard(t, "a", map[netip.Prefix]bgp.Route{})
	if got := State(s, "tor"); !got.Established() || got.Told != 0 {
		t.Errorf("state %+v, want established with nothing told", got)
	}
	ok(t, s.Stop(t.Context(), true))
}
