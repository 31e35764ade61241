package bgp_test

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	api "github.com/osrg/gobgp/v3/api"

	"sluice.dev/sluice/bgp"
	"sluice.dev/sluice/bgp/bgptest"
	"sluice.dev/sluice/internal/model"
)

// A password that cannot be kept makes no session, rather than one without.
func TestPasswordNeverFallsOpen(t *testing.T) {
	t.Parallel()
	r := startRouter(t) // it wants no password, so it would take a session without
	for _, row := range []struct {
		name   string
		change func(*bgp.Session)
		want   string
	}{
		{"too long", func(s *bgp.Session) { s.Password = model.Password(strings.Repeat("x", 81)) }, "the password has 81 bytes, and the kernel takes 80"},
		{"link-local", func(s *bgp.Session) {
			s.Password, s.Source = "secret", netip.Addr{}
			s.Peer = netip.MustParseAddrPort("[fe80::1%lo]:179")
		}, "a password needs a peerAddress that is not link-local"},
	} {
		n := newNode(t)
		must(t, n.Open("tor", r.session()))
		n.awaitUp(t)
		s := r.session()
		row.change(&s)
		err := n.Open("tor", s)
		if err == nil || !strings.Contains(err.Error(), "BGP peer tor: "+row.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: error %v, want %q", row.name, err, row.want)
		}
		if got := n.state(); got.Established() || !strings.Contains(got.Error, row.want) {
			t.Errorf("%s: state %+v", row.name, got)
		}
		n.Close("tor")
	}
}

// A kernel that cannot sign makes no session either, and ends one that is there.
func TestPasswordNeedsKernel(t *testing.T) {
	t.Parallel()
	r, n := startRouter(t), newNode(t)
	must(t, n.Open("tor", r.session()))
	n.awaitUp(t)
	n.CannotSign(os.NewSyscallError("setsockopt TCP_MD5SIG", syscall.ENOPROTOOPT))
	s := r.session()
	s.Password = "secret"
	err := n.Open("tor", s)
	if !errors.Is(err, syscall.ENOPROTOOPT) {
		t.Fatalf("error %v", err)
	}
	for _, want := range []string{"BGP peer tor: ", "cannot sign TCP segments", "CONFIG_TCP_MD5SIG", "remove the password here and at the router"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if got := n.state(); got.Established() || !strings.Contains(got.Error, "cannot sign") {
		t.Errorf("state %+v", got)
	}
	bgptest.Await(t, "the router has no session", func() bool { return r.state(t).State.SessionState != api.PeerState_ESTABLISHED })
}

// With the router's password there is a session, with another or none there is
// not, and the state says what may be the matter.
func TestPassword(t *testing.T) {
	t.Parallel()
	if err := bgp.TrySigning(netip.MustParseAddr("127.0.0.1"), "x"); err != nil {
		skipOrFail(t, err)
	}
	for _, row := range []struct {
		name         string
		router, ours model.Password
		ipv6         bool
		want         string // "": established
	}{
		{name: "the same", router: "secret", ours: "secret"},
		{name: "the same, IPv6", router: "secret", ours: "secret", ipv6: true},
		{name: "wrong", router: "secret", ours: "other", want: "the password may be wrong"},
		{name: "the router has none", ours: "secret", want: "the password may be wrong, or the router have none"},
		{name: "we have none", router: "secret", want: "it may be down, or want a password"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			changes := []func(*router){func(r *router) { r.password = row.router }}
			if row.ipv6 {
				changes = append(changes, overIPv6(t))
			}
			r, n := startRouter(t, changes...), newNode(t)
			s := r.session()
			s.Password = row.ours
			must(t, n.Tell(tor(bgptest.Prefix4(1)), bgptest.Hop4()))
			must(t, n.Open("tor", s))
			if row.want != "" {
				n.awaitError(t, row.want)
				if n.state().Established() {
					t.Error("established")
				}
				return
			}
			n.awaitUp(t)
			bgptest.Await(t, "route", func() bool { return len(r.heard(t)) == 1 })
		})
	}
}
