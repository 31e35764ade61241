package convert

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/model"
)

// What a BGPPeer means that does not say it.
const (
	peerPort     = 179
	holdTime     = 9 * time.Second
	connectRetry = 2 * time.Second
	restartTime  = 15 * time.Second
)

// Bounds of a session's times: hold and restart are what the protocol has bits
// for (RFC 4271, RFC 4724), and a hold time is not below three seconds. The RFC's 0,
// never, is refused: nothing else notices that a router is gone.
const (
	holdMin    = 3 * time.Second
	secondsMax = math.MaxUint16 * time.Second
	restartMax = (1<<12 - 1) * time.Second
)

// PasswordOf reads the file with a peer's password, as BGPPeers in files name
// it.
type PasswordOf func(path string) (model.Password, error)

// Peer is a BGPPeer. Each of its values concerns the session, and a session
// that is not as it was meant (without its password above all) is worse than
// none: with one value that cannot be used the peer is told not at all. read is
// nil where there are no files.
func Peer(p *v1alpha1.BGPPeer, read PasswordOf) (peer model.Peer, ok bool, problems []model.Problem) {
	r := newReport(BGPPeerKind, &p.ObjectMeta)
	s := &p.Spec
	peer = model.Peer{
		Name:        p.Name,
		UID:         string(p.UID),
		Created:     p.CreationTimestamp.Time,
		Addr:        netip.AddrPortFrom(peerAddr(s.PeerAddress, "spec.peerAddress", r), peerPortOf(s.PeerPort, r)),
		ASN:         asn(s.PeerASN, "spec.peerASN", r),
		MyASN:       asn(s.MyASN, "spec.myASN", r),
		Hold:        seconds(s.HoldTime, "spec.holdTime", holdTime, between{holdMin, secondsMax}, r),
		Restart:     restart(s.GracefulRestart, r),
		Hops:        hops(s, r),
		TTLSecurity: s.TTLSecurity,
		Nodes:       selectors(s.NodeSelectors, "spec.nodeSelectors", r),
		Families:    families(s.Families, r),
	}
	peer.Keepalive = keepalive(s.KeepaliveTime, peer.Hold, r)
	peer.ConnectRetry = seconds(s.ConnectRetryTime, "spec.connectRetryTime", connectRetry, between{time.Second, secondsMax}, r)
	peer.Source = sourceAddr(s, peer.Addr.Addr(), r)
	peer.Secret, peer.Password = password(s, read, r)
	if r.count() > 0 {
		return model.Peer{}, false, r.list()
	}
	return peer, true, nil
}

// peerAddr reads the address of one end of a session.
func peerAddr(text, field string, r *report) netip.Addr {
	a, err := parseStrict(text)
	switch {
	case err != nil:
	case a.IsUnspecified(), a.IsMulticast(), broadcast(a):
		err = errNotUnicast
	case a.IsLinkLocalUnicast():
		err = errLinkLocal
	}
	if err != nil {
		r.add(InvalidAddress, field, text, err.Error(), "correct it")
		return netip.Addr{}
	}
	return a
}

func peerPortOf(given int32, r *report) uint16 {
	if given == 0 {
		return peerPort
	}
	n, ok := port(given)
	if !ok {
		r.add(InvalidPort, "spec.peerPort", given, "is not a port number", remedyPort)
	}
	return n
}

// asn reads an autonomous system number. Those that stand for something else
// (RFC 7607, 6793, 7300) would be answered with a refusal that explains little.
func asn(given int64, field string, r *report) uint32 {
	switch {
	case given < 1 || given > math.MaxUint32:
		r.add(InvalidASN, field, given, "is not an autonomous system number", "use a number from 1 to 4294967294, of your own such as 64512")
	case given == 23456, given == math.MaxUint16, given == math.MaxUint32:
		r.add(InvalidASN, field, given, "is reserved", "use another number, of your own such as 64512")
	}
	return uint32(given)
}

// between are the bounds of a time, both included.
type between struct{ least, most time.Duration }

// seconds reads a time of whole seconds, as BGP has them.
func seconds(given v1alpha1.Duration, field string, unset time.Duration, b between, r *report) time.Duration {
	if given == "" {
		return unset
	}
	t, err := time.ParseDuration(string(given))
	why := ""
	switch {
	case err != nil:
		why = "is not a duration"
	case t%time.Second != 0:
		why = "is not in whole seconds"
	case t < b.least || t > b.most:
		why = fmt.Sprintf("is not from %v to %v", b.least, b.most)
	}
	if why != "" {
		r.add(InvalidTime, field, given, why, remedyTime)
		return unset
	}
	return t
}

func keepalive(given v1alpha1.Duration, hold time.Duration, r *report) time.Duration {
	t := seconds(given, "spec.keepaliveTime", (hold / 3).Truncate(time.Second), between{time.Second, secondsMax}, r)
	if given != "" && t >= hold {
		r.add(InvalidTime, "spec.keepaliveTime", given, fmt.Sprintf("is not less than the hold time, %v", hold), "use a third of the hold time, or remove it")
	}
	return t
}

func restart(given *v1alpha1.GracefulRestart, r *report) time.Duration {
	if given == nil || given.Enabled != nil && !*given.Enabled {
		return 0
	}
	return seconds(given.RestartTime, "spec.gracefulRestart.restartTime", restartTime, between{time.Second, restartMax}, r)
}

func hops(s *v1alpha1.BGPPeerSpec, r *report) uint8 {
	given := s.EBGPMultiHop
	switch {
	case given < 0 || given > math.MaxUint8:
		r.add(InvalidHops, "spec.ebgpMultiHop", given, "is not a TTL", "use a number from 1 to 255, or remove it if the peer is directly connected")
	case given > 0 && s.TTLSecurity:
		r.add(InvalidHops, "spec.ebgpMultiHop", given, "and ttlSecurity exclude each other", "remove ttlSecurity if the peer is not directly connected, else ebgpMultiHop")
	case given > 0 && s.PeerASN == s.MyASN:
		r.add(InvalidHops, "spec.ebgpMultiHop", given, "is for peers of another ASN", "remove it, or correct myASN or peerASN")
	}
	return uint8(given)
}

func sourceAddr(s *v1alpha1.BGPPeerSpec, peer netip.Addr, r *report) netip.Addr {
	if s.SourceAddress == "" {
		return netip.Addr{}
	}
	a := peerAddr(s.SourceAddress, "spec.sourceAddress", r)
	if a.IsValid() && peer.IsValid() && model.FamilyOf(a) != model.FamilyOf(peer) {
		r.add(InvalidAddress, "spec.sourceAddress", s.SourceAddress, "is not of the family of peerAddress", "use an address of the same family, or remove it")
	}
	return a
}

// families reads which routes are told, each family once.
func families(given []v1alpha1.Family, r *report) []model.Family {
	var found distinct[model.Family]
	for i, f := range given {
		switch f {
		case v1alpha1.IPv4:
			found.add(model.IPv4)
		case v1alpha1.IPv6:
			found.add(model.IPv6)
		default:
			r.add(InvalidFamily, fmt.Sprintf("spec.families[%d]", i), f, "is not a family", `use "ipv4" or "ipv6"`)
		}
	}
	return found.list
}

// password finds the password, or the Secret that has it.
func password(s *v1alpha1.BGPPeerSpec, read PasswordOf, r *report) (secret string, pw model.Password) {
	switch {
	case s.PasswordSecret != "" && s.PasswordFile != "":
		r.add(InvalidPassword, "spec.passwordFile", s.PasswordFile, "and passwordSecret exclude each other", "remove one of them")
	case s.PasswordSecret != "":
		if wrong := validation.IsDNS1123Subdomain(s.PasswordSecret); len(wrong) > 0 {
			r.add(InvalidPassword, "spec.passwordSecret", s.PasswordSecret, "is not the name of a Secret: "+wrong[0], "write its name without a namespace")
		}
	case s.PasswordFile != "" && read == nil:
		r.add(InvalidPassword, "spec.passwordFile", s.PasswordFile, "is for objects in files", "put the password into a Secret and name that in passwordSecret")
	case s.PasswordFile != "":
		var err error
		if pw, err = read(s.PasswordFile); err == nil {
			err = checkPassword(pw)
		}
		if err != nil {
			r.add(InvalidPassword, "spec.passwordFile", s.PasswordFile, "cannot be used: "+err.Error(), "correct it or the file")
		}
	}
	return s.PasswordSecret, pw
}

// passwordMax is the kernel's TCP_MD5SIG_MAXKEYLEN.
const passwordMax = 80

// checkPassword says what is wrong with a password without telling it.
func checkPassword(p model.Password) error {
	switch {
	case p == "":
		return fmt.Errorf("the password is empty")
	case len(p) > passwordMax:
		return fmt.Errorf("the password has %d bytes, and the kernel takes %d at most", len(p), passwordMax)
	case strings.ContainsAny(string(p), "\r\n\x00"):
		return fmt.Errorf("the password holds a line break or a zero byte")
	}
	return nil
}
