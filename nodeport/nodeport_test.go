package nodeport

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
)

func addrs(s ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func TestSelect(t *testing.T) {
	node := addrs("127.0.0.1", "fe80::1", "192.0.2.10", "198.51.100.10", "2001:db8::10", "192.0.2.10", "2001:db8:1::10", "::1")
	for _, c := range []struct {
		name  string
		addrs []netip.Addr
		cidrs []netip.Prefix
		want  []netip.Addr
	}{
		{"primary", node, nil, addrs("192.0.2.10", "2001:db8::10")},
		{"primary, one family", addrs("2001:db8::10", "2001:db8::11"), nil, addrs("2001:db8::10")},
		{"primary, none", nil, nil, nil},
		{"all", node, prefixes("0.0.0.0/0", "::/0"), addrs("192.0.2.10", "198.51.100.10", "2001:db8::10", "2001:db8:1::10")},
		{"one net", node, prefixes("198.51.100.0/24"), addrs("198.51.100.10")},
		{"overlapping nets", node, prefixes("198.51.100.0/24", "198.51.100.10/32"), addrs("198.51.100.10")},
		{"loopback never serves", node, prefixes("127.0.0.0/8", "::1/128", "fe80::/10"), nil},
		{"no such net", node, prefixes("203.0.113.0/24"), nil},
		{"order as given", slices.Concat(addrs("198.51.100.10"), node), nil, addrs("198.51.100.10", "2001:db8::10")},
	} {
		if got := Select(c.addrs, c.cidrs); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestSetNames pins names and types together: a kernel that still holds a name
// with another type has to drop the rules for a moment to change it.
func TestSetNames(t *testing.T) {
	want := map[string]netfilter.SetType{
		"SLUICE-CLUSTER-IP": "hash:ip,port",
		"SLUICE-EXTERNAL":   "hash:ip,port",
		"SLUICE-LOCAL":      "hash:ip,port",
		"SLUICE-SHORTCUT":   "hash:ip,port",
		"SLUICE-REJECT":     "hash:ip,port",
		"SLUICE-DROP":       "hash:ip,port",
		"SLUICE-RANGED":     "hash:ip,port",
		"SLUICE-ALLOWED":    "hash:ip,port,net",
		"SLUICE-HEALTH":     "hash:ip,port",
		"SLUICE-HAIRPIN":    "hash:ip,port,ip",
		"SLUICE-VIPS":       "hash:ip",
		"SLUICE-PODS":       "hash:net",
	}
	for k, s := range Static(Config{Families: []model.Family{model.IPv4, model.IPv6}, ClusterCIDRs: prefixes("10.0.0.0/8", "fd00::/8")}) {
		if k.Kind == netfilter.KindSet && want[k.Name] != s.Type {
			t.Errorf("%s is %s; give a set of another type another name", k, s.Type)
		}
	}
}

func TestStaticFamilies(t *testing.T) {
	for k := range Static(Config{Families: []model.Family{model.IPv6}, ClusterCIDRs: prefixes("10.0.0.0/8")}) {
		if k.Family != model.IPv6 {
			t.Errorf("%s without being asked for", k)
		}
		if k.Name == setPods {
			t.Errorf("%s without a cluster CIDR of the family", k)
		}
	}
}

func TestStaticWholeInternet(t *testing.T) {
	s := Static(Config{Families: []model.Family{model.IPv4, model.IPv6}, ClusterCIDRs: prefixes("0.0.0.0/0", "::/0")})
	for _, p := range prefixes("0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1") {
		k := netfilter.MemberKey(model.FamilyOf(p.Addr()), setPods, netfilter.Net(p))
		if _, ok := s[k]; !ok {
			t.Errorf("%s is missing", k)
		}
	}
}

// TestDesiredEndpoint: an endpoint of another node wants nothing, one of this
// node one member; but the first lifts the refusal of connections.
func TestDesiredEndpoint(t *testing.T) {
	f := model.Frontend{FrontendKey: model.FrontendKey{Addr: netip.MustParseAddrPort("10.96.0.10:80"), Protocol: model.TCP}}
	desired := func() map[netfilter.Key]netfilter.Spec { return Desired(model.View{Frontends: []model.Frontend{f}}) }
	refused := netfilter.MemberKey(model.IPv4, setReject, netfilter.AddrPort(f.Addr, model.TCP))
	if _, ok := desired()[refused]; !ok {
		t.Errorf("without endpoints it wants %v", desired())
	}
	f.Cluster = []model.Backend{{Addr: netip.MustParseAddrPort("10.1.2.3:8080")}}
	bare := desired()
	if _, ok := bare[refused]; ok {
		t.Errorf("with an endpoint it wants %v", bare)
	}
	f.Cluster = append(f.Cluster, model.Backend{Addr: netip.MustParseAddrPort("10.1.2.4:8080")})
	if got := desired(); !maps.Equal(got, bare) {
		t.Errorf("another remote endpoint wants %v, and %v before", got, bare)
	}
	f.Cluster[1].Local = true
	f.Local = f.Cluster[1:]
	got := desired()
	k := netfilter.MemberKey(model.IPv4, setHairpin, netfilter.AddrPortAddr(f.Local[0].Addr, model.TCP, f.Local[0].Addr.Addr()))
	if _, ok := got[k]; !ok || len(got) != len(bare)+1 {
		t.Errorf("a local endpoint wants %v", got)
	}
}
