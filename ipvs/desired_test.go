package ipvs_test

import (
	"maps"
	"net/netip"
	"testing"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/ipvs"
)

func frontend(addr string, edit ...func(*model.Frontend)) model.Frontend {
	f := model.Frontend{FrontendKey: model.FrontendKey{Addr: netip.MustParseAddrPort(addr), Protocol: model.TCP}}
	for _, e := range edit {
		e(&f)
	}
	return f
}

func backendsAt(addrs ...string) func(*model.Frontend) {
	return func(f *model.Frontend) {
		for _, a := range addrs {
			f.Cluster = append(f.Cluster, model.Backend{Addr: netip.MustParseAddrPort(a)})
		}
	}
}

func local(addrs ...string) func(*model.Frontend) {
	return func(f *model.Frontend) {
		f.OnlyLocal = true
		for _, a := range addrs {
			f.Local = append(f.Local, model.Backend{Addr: netip.MustParseAddrPort(a), Local: true})
		}
	}
}

func serverKey(addr string, p model.Protocol) ipvs.Key {
	return ipvs.Key{VirtualServer: ipvs.VirtualServer{Addr: netip.MustParseAddrPort(addr), Protocol: p}}
}

func destKey(vs ipvs.Key, addr string) ipvs.Key {
	vs.RealServer = netip.MustParseAddrPort(addr)
	return vs
}

func serverSpec(scheduler string, edit ...func(*ipvs.VirtualServerSpec)) ipvs.Spec {
	s := ipvs.Spec{VirtualServer: ipvs.VirtualServerSpec{Scheduler: scheduler, Netmask: ipvs.HostMask4}}
	for _, e := range edit {
		e(&s.VirtualServer)
	}
	return s
}

func TestDesired(t *testing.T) {
	vs := serverKey("10.96.0.1:80", model.TCP)
	six := serverKey("[fd00::1]:80", model.TCP)
	udp, sctp := serverKey("10.96.0.1:80", model.UDP), serverKey("10.96.0.1:80", model.SCTP)
	one, oneSix := backendsAt("10.1.1.1:80"), backendsAt("[fd00::2]:80")
	dest := ipvs.Spec{Destination: ipvs.DestinationSpec{Weight: 1, Forward: ipvs.Masquerade}}
	sticky := func(mask, seconds uint32) func(*ipvs.VirtualServerSpec) {
		return func(s *ipvs.VirtualServerSpec) { s.Flags, s.Netmask, s.Timeout = ipvs.Persistent, mask, seconds }
	}
	affinity := func(d time.Duration) func(*model.Frontend) { return func(f *model.Frontend) { f.Affinity = d } }
	for _, tt := range []struct {
		name      string
		frontends []model.Frontend
		opt       ipvs.Options
		want      map[ipvs.Key]ipvs.Spec
	}{
		{"nothing", nil, ipvs.Options{}, map[ipvs.Key]ipvs.Spec{}},
		{"no endpoints: no virtual server", []model.Frontend{frontend("10.96.0.1:80")}, ipvs.Options{}, map[ipvs.Key]ipvs.Spec{}},
		{"endpoints", []model.Frontend{frontend("10.96.0.1:80", backendsAt("10.1.1.1:8080", "10.1.1.2:8080"))}, ipvs.Options{},
			map[ipvs.Key]ipvs.Spec{vs: serverSpec("rr"), destKey(vs, "10.1.1.1:8080"): dest, destKey(vs, "10.1.1.2:8080"): dest}},
		{"every kind of frontend", []model.Frontend{
			frontend("10.96.0.1:80", backendsAt("10.1.1.1:80")),
			frontend("192.0.2.1:30080", backendsAt("10.1.1.1:80"), func(f *model.Frontend) { f.Kind = model.NodePort }),
		}, ipvs.Options{}, map[ipvs.Key]ipvs.Spec{
			vs: serverSpec("rr"), destKey(vs, "10.1.1.1:80"): dest,
			serverKey("192.0.2.1:30080", model.TCP):                         serverSpec("rr"),
			destKey(serverKey("192.0.2.1:30080", model.TCP), "10.1.1.1:80"): dest,
		}},
		{"the policy Local: only this node's", []model.Frontend{
			frontend("10.96.0.1:80", backendsAt("10.1.1.1:80", "10.1.1.2:80"), local("10.1.1.1:80")),
			frontend("[fd00::1]:80", backendsAt("[fd00::2]:80"), local()),
		}, ipvs.Options{}, map[ipvs.Key]ipvs.Spec{vs: serverSpec("rr"), destKey(vs, "10.1.1.1:80"): dest}},
		{"the node's scheduler", []model.Frontend{frontend("10.96.0.1:80", one)}, ipvs.Options{Scheduler: "wlc"},
			map[ipvs.Key]ipvs.Spec{vs: serverSpec("wlc"), destKey(vs, "10.1.1.1:80"): dest}},
		{"the Service's scheduler", []model.Frontend{frontend("10.96.0.1:80", one, func(f *model.Frontend) { f.Scheduler = "sh" })},
			ipvs.Options{Scheduler: "wlc"}, map[ipvs.Key]ipvs.Spec{vs: serverSpec("sh"), destKey(vs, "10.1.1.1:80"): dest}},
		{"mh hashes ports", []model.Frontend{frontend("10.96.0.1:80", one)}, ipvs.Options{Scheduler: "mh"},
			map[ipvs.Key]ipvs.Spec{vs: serverSpec("mh", func(s *ipvs.VirtualServerSpec) { s.Flags = ipvs.MHPort }), destKey(vs, "10.1.1.1:80"): dest}},
		{"affinity", []model.Frontend{frontend("10.96.0.1:80", one, affinity(3*time.Hour))}, ipvs.Options{},
			map[ipvs.Key]ipvs.Spec{vs: serverSpec("rr", sticky(0xFFFFFFFF, 10800)), destKey(vs, "10.1.1.1:80"): dest}},
		{"affinity, IPv6", []model.Frontend{frontend("[fd00::1]:80", oneSix, affinity(1500*time.Millisecond))}, ipvs.Options{},
			map[ipvs.Key]ipvs.Spec{six: serverSpec("rr", sticky(128, 2)), destKey(six, "[fd00::2]:80"): dest}},
		{"UDP and SCTP", []model.Frontend{
			frontend("10.96.0.1:80", one, func(f *model.Frontend) { f.Protocol = model.UDP }),
			frontend("10.96.0.1:80", one, func(f *model.Frontend) { f.Protocol = model.SCTP }),
		}, ipvs.Options{}, map[ipvs.Key]ipvs.Spec{
			udp: serverSpec("rr"), destKey(udp, "10.1.1.1:80"): dest,
			sctp: serverSpec("rr"), destKey(sctp, "10.1.1.1:80"): dest,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := ipvs.Desired(model.View{Frontends: tt.frontends}, tt.opt); !maps.Equal(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestSchedulers(t *testing.T) {
	for _, name := range ipvs.Schedulers() {
		if !ipvs.KnownScheduler(name) {
			t.Errorf("%s is not known", name)
		}
	}
	for _, name := range []string{"", "none", "RR", "nope"} {
		if ipvs.KnownScheduler(name) {
			t.Errorf("%q is known", name)
		}
	}
}

func TestKeyText(t *testing.T) {
	vs := serverKey("10.96.0.1:80", model.TCP)
	for want, k := range map[string]ipvs.Key{
		"TCP 10.96.0.1:80":                vs,
		"TCP 10.96.0.1:80 -> 10.1.1.1:80": destKey(vs, "10.1.1.1:80"),
		"SCTP [fd00::1]:80":               serverKey("[fd00::1]:80", model.SCTP),
		"FWM 7":                           {VirtualServer: ipvs.VirtualServer{Mark: 7, Family: model.IPv4}},
		"FWM 7 IPv6 -> [fd00::1]:0":       destKey(ipvs.Key{VirtualServer: ipvs.VirtualServer{Mark: 7, Family: model.IPv6}}, "[fd00::1]:0"),
	} {
		if got := k.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
