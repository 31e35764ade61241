package convert

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/model"
)

// files are password files.
func files(path string) (model.Password, error) {
	switch path {
	case "good":
		return "pass", nil
	case "empty":
		return "", nil
	case "long":
		return model.Password(strings.Repeat("x", 81)), nil
	case "lines":
		return "one\ntwo", nil
	}
	return "", errors.New("no such file")
}

func TestPeer(t *testing.T) {
	type spec = v1alpha1.BGPPeerSpec
	rows := []struct {
		name   string
		change func(*spec)
		want   func(*model.Peer)
		says   []string // then the peer is not told
	}{
		{name: "as it is"},
		{name: "another port", change: func(s *spec) { s.PeerPort = 1179 }, want: func(w *model.Peer) { w.Addr = netip.MustParseAddrPort("192.0.2.1:1179") }},
		{name: "IPv6", change: func(s *spec) { s.PeerAddress, s.SourceAddress = "2001:db8::1", "2001:db8::2" },
			want: func(w *model.Peer) {
				w.Addr, w.Source = netip.MustParseAddrPort("[2001:db8::1]:179"), netip.MustParseAddr("2001:db8::2")
			}},
		{name: "on this host", change: func(s *spec) { s.PeerAddress = "127.0.0.1" }, want: func(w *model.Peer) { w.Addr = netip.MustParseAddrPort("127.0.0.1:179") }},
		{name: "four bytes of ASN", change: func(s *spec) { s.PeerASN, s.MyASN = 4200000000, 4294967294 }, want: func(w *model.Peer) { w.ASN, w.MyASN = 4200000000, 4294967294 }},
		{name: "hold time", change: func(s *spec) { s.HoldTime = "90s" }, want: func(w *model.Peer) { w.Hold, w.Keepalive = 90*time.Second, 30*time.Second }},
		{name: "shortest hold time", change: func(s *spec) { s.HoldTime = "3s" }, want: func(w *model.Peer) { w.Hold, w.Keepalive = 3*time.Second, time.Second }},
		{name: "a third is rounded down", change: func(s *spec) { s.HoldTime = "11s" }, want: func(w *model.Peer) { w.Hold, w.Keepalive = 11*time.Second, 3*time.Second }},
		{name: "all times", change: func(s *spec) { s.HoldTime, s.KeepaliveTime, s.ConnectRetryTime = "1m", "1s", "30s" },
			want: func(w *model.Peer) { w.Hold, w.Keepalive, w.ConnectRetry = time.Minute, time.Second, 30*time.Second }},
		{name: "graceful restart", change: func(s *spec) { s.GracefulRestart = &v1alpha1.GracefulRestart{} }, want: func(w *model.Peer) { w.Restart = 15 * time.Second }},
		{name: "graceful restart, time", change: func(s *spec) {
			s.GracefulRestart = &v1alpha1.GracefulRestart{Enabled: new(true), RestartTime: "4095s"}
		}, want: func(w *model.Peer) { w.Restart = 4095 * time.Second }},
		{name: "no graceful restart", change: func(s *spec) {
			s.GracefulRestart = &v1alpha1.GracefulRestart{Enabled: new(false), RestartTime: "1h"}
		}},
		{name: "some hops away", change: func(s *spec) { s.EBGPMultiHop = 255 }, want: func(w *model.Peer) { w.Hops = 255 }},
		{name: "TTL security", change: func(s *spec) { s.TTLSecurity = true }, want: func(w *model.Peer) { w.TTLSecurity = true }},
		{name: "password in a Secret", change: func(s *spec) { s.PasswordSecret = "tor" }, want: func(w *model.Peer) { w.Secret = "tor" }},
		{name: "password in a file", change: func(s *spec) { s.PasswordFile = "good" }, want: func(w *model.Peer) { w.Password = "pass" }},
		{name: "on some nodes", change: func(s *spec) { s.NodeSelectors = []metav1.LabelSelector{match("rack", "1")} },
			want: func(w *model.Peer) { w.Nodes = []model.Selector{is("rack", "1")} }},
		{name: "families", change: func(s *spec) { s.Families = []v1alpha1.Family{"ipv6", "ipv4", "ipv6"} }, want: func(w *model.Peer) { w.Families = []model.Family{model.IPv6, model.IPv4} }},

		{name: "no address", change: func(s *spec) { s.PeerAddress = "" }, says: []string{`InvalidAddress: spec.peerAddress: "" is not an IP address; correct it`}},
		{name: "not a host's address", change: func(s *spec) { s.PeerAddress = "224.0.0.5" }, says: []string{`InvalidAddress: spec.peerAddress: "224.0.0.5" is not a unicast address`}},
		{name: "link-local address", change: func(s *spec) { s.PeerAddress = "fe80::1" }, says: []string{`InvalidAddress: spec.peerAddress: "fe80::1" is a link-local address`}},
		{name: "source of another family", change: func(s *spec) { s.SourceAddress = "2001:db8::2" }, says: []string{`InvalidAddress: spec.sourceAddress: "2001:db8::2" is not of the family of peerAddress`}},
		{name: "port", change: func(s *spec) { s.PeerPort = 65536 }, says: []string{`InvalidPort: spec.peerPort: "65536" is not a port number`}},
		{name: "no ASN", change: func(s *spec) { s.PeerASN, s.MyASN = 0, 4294967296 }, says: []string{
			`InvalidASN: spec.peerASN: "0" is not an autonomous system number; use a number from 1`, `InvalidASN: spec.myASN: "4294967296" is not an autonomous system number`,
		}},
		{name: "reserved ASN", change: func(s *spec) { s.PeerASN, s.MyASN = 23456, 65535 }, says: []string{
			`InvalidASN: spec.peerASN: "23456" is reserved`, `InvalidASN: spec.myASN: "65535" is reserved`,
		}},
		{name: "hold time below three seconds", change: func(s *spec) { s.HoldTime = "2s" }, says: []string{`InvalidTime: spec.holdTime: "2s" is not from 3s to 18h12m15s; write it as "9s"`}},
		{name: "hold time of one second", change: func(s *spec) { s.HoldTime = "1s" }, says: []string{`InvalidTime: spec.holdTime: "1s" is not from 3s`}},
		{name: "negative hold time", change: func(s *spec) { s.HoldTime = "-9s" }, says: []string{`InvalidTime: spec.holdTime: "-9s" is not from 3s`}},
		{name: "parts of seconds", change: func(s *spec) { s.HoldTime = "4500ms" }, says: []string{`InvalidTime: spec.holdTime: "4500ms" is not in whole seconds`}},
		{name: "a number", change: func(s *spec) { s.HoldTime = "9" }, says: []string{`InvalidTime: spec.holdTime: "9" is not a duration`}},
		{name: "keepalive too long", change: func(s *spec) { s.KeepaliveTime = "9s" }, says: []string{`InvalidTime: spec.keepaliveTime: "9s" is not less than the hold time, 9s`}},
		{name: "no hold time", change: func(s *spec) { s.HoldTime = "0s" }, says: []string{`InvalidTime: spec.holdTime: "0s" is not from 3s`}},
		{name: "no keepalive", change: func(s *spec) { s.KeepaliveTime = "0s" }, says: []string{`InvalidTime: spec.keepaliveTime: "0s" is not from 1s`}},
		{name: "no retry", change: func(s *spec) { s.ConnectRetryTime = "0s" }, says: []string{`InvalidTime: spec.connectRetryTime: "0s" is not from 1s`}},
		{name: "restart time too long", change: func(s *spec) { s.GracefulRestart = &v1alpha1.GracefulRestart{RestartTime: "4096s"} }, says: []string{`InvalidTime: spec.gracefulRestart.restartTime: "4096s" is not from 1s to 1h8m15s`}},
		{name: "hops with TTL security", change: func(s *spec) { s.EBGPMultiHop, s.TTLSecurity = 2, true }, says: []string{`InvalidHops: spec.ebgpMultiHop: "2" and ttlSecurity exclude each other`}},
		{name: "hops within an AS", change: func(s *spec) { s.EBGPMultiHop, s.MyASN = 2, s.PeerASN }, says: []string{`InvalidHops: spec.ebgpMultiHop: "2" is for peers of another ASN`}},
		{name: "too many hops", change: func(s *spec) { s.EBGPMultiHop = 256 }, says: []string{`InvalidHops: spec.ebgpMultiHop: "256" is not a TTL`}},
		{name: "two passwords", change: func(s *spec) { s.PasswordSecret, s.PasswordFile = "tor", "good" }, says: []string{`InvalidPassword: spec.passwordFile: "good" and passwordSecret exclude each other`}},
		{name: "a Secret elsewhere", change: func(s *spec) { s.PasswordSecret = "shop/tor" }, says: []string{`InvalidPassword: spec.passwordSecret: "shop/tor" is not the name of a Secret`}},
		{name: "a missing file", change: func(s *spec) { s.PasswordFile = "missing" }, says: []string{`InvalidPassword: spec.passwordFile: "missing" cannot be used: no such file`}},
		{name: "an empty file", change: func(s *spec) { s.PasswordFile = "empty" }, says: []string{`InvalidPassword: spec.passwordFile: "empty" cannot be used: the password is empty`}},
		{name: "a long password", change: func(s *spec) { s.PasswordFile = "long" }, says: []string{`InvalidPassword: spec.passwordFile: "long" cannot be used: the password has 81 bytes`}},
		{name: "a password of two lines", change: func(s *spec) { s.PasswordFile = "lines" }, says: []string{`InvalidPassword: spec.passwordFile: "lines" cannot be used: the password holds a line break`}},
		{name: "an empty selector", change: func(s *spec) { s.NodeSelectors = []metav1.LabelSelector{match("rack", "1"), {}} }, says: []string{`InvalidSelector: spec.nodeSelectors[1]: "" is empty`}},
		{name: "no family", change: func(s *spec) { s.Families = []v1alpha1.Family{"IPv4"} }, says: []string{`InvalidFamily: spec.families[0]: "IPv4" is not a family; use "ipv4" or "ipv6"`}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			p := &v1alpha1.BGPPeer{ObjectMeta: ownMeta("tor"), Spec: spec{PeerAddress: "192.0.2.1", PeerASN: 64513, MyASN: 64512}}
			want := model.Peer{
				Name: "tor", UID: "u1", Created: time.Unix(1000, 0), Addr: netip.MustParseAddrPort("192.0.2.1:179"), ASN: 64513, MyASN: 64512,
				Hold: 9 * time.Second, Keepalive: 3 * time.Second, ConnectRetry: 2 * time.Second,
			}
			if row.change != nil {
				row.change(&p.Spec)
			}
			if row.want != nil {
				row.want(&want)
			}
			if row.says != nil {
				want = model.Peer{}
			}
			peer, ok, problems := Peer(p, files)
			if ok != (row.says == nil) || !reflect.DeepEqual(peer, want) {
				t.Errorf("ok %v\ngot  %+v\nwant %+v", ok, peer, want)
			}
			checkProblems(t, problems, row.says, model.Problem{Kind: "BGPPeer", Object: model.Name{Name: "tor"}, UID: "u1"})
		})
	}
}

// TestPeerWithoutFiles: where there are none, a peer that names one is not told
// without its password.
func TestPeerWithoutFiles(t *testing.T) {
	p := &v1alpha1.BGPPeer{ObjectMeta: ownMeta("tor"), Spec: v1alpha1.BGPPeerSpec{PeerAddress: "192.0.2.1", PeerASN: 64513, MyASN: 64512, PasswordFile: "good"}}
	_, ok, problems := Peer(p, nil)
	if ok {
		t.Error("told")
	}
	checkProblems(t, problems, []string{`InvalidPassword: spec.passwordFile: "good" is for objects in files; put the password into a Secret`},
		model.Problem{Kind: "BGPPeer", Object: model.Name{Name: "tor"}, UID: "u1"})
}
