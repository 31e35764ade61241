package bgp

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/internal/model"
)

// routes are an announcement's routes, a line for each, and its aggregates.
func routes(a Announcement) (out []string) {
	for k, spec := range a.Routes {
		r := spec.Route
		line := k.String()
		for _, word := range []string{r.Communities, r.LargeCommunities} {
			if word != "" {
				line += " " + strings.ReplaceAll(word, " ", ",")
			}
		}
		if r.LocalPref > 0 {
			line += fmt.Sprintf(" pref=%d", r.LocalPref)
		}
		if r.HasMED {
			line += fmt.Sprintf(" med=%d", r.MED)
		}
		out = append(out, line)
	}
	for _, p := range a.Discard {
		out = append(out, "discard "+p.String())
	}
	slices.Sort(out)
	return out
}

// TestRoutes is what several advertisements make of one address. Each is older
// than the one after it.
func TestRoutes(t *testing.T) {
	type ads = []model.Advertisement
	two := []string{"tor1", "tor2"}
	contradiction := func(field string, said, counts int) string {
		return fmt.Sprintf("BGPAdvertisement new Contradiction: %s %d contradicts %d of the BGPAdvertisement old, which is older", field, said, counts)
	}
	for _, c := range []struct {
		name     string
		addr     string
		services string
		ads      ads
		want     []string
		problems []string
		reason   string
	}{
		{"plain", "", "", ads{{Peers: two}}, []string{"tor1 203.0.113.7/32", "tor2 203.0.113.7/32"}, nil, ""},
		{"attributes", "", "", ads{{Communities: []model.Community{64512<<16 | 2, 64512<<16 | 1, 9}, LargeCommunities: []model.LargeCommunity{{64512, 2, 3}, {9, 9, 9}}, MED: new(uint32(0))}},
			[]string{"tor1 203.0.113.7/32 0:9,64512:1,64512:2 9:9:9,64512:2:3 med=0"}, nil, ""},
		{"communities are united", "", "", ads{{Communities: []model.Community{1, 2}}, {Communities: []model.Community{3, 2}}},
			[]string{"tor1 203.0.113.7/32 0:1,0:2,0:3"}, nil, ""},
		{"what one says alone counts", "", "", ads{{}, {MED: new(uint32(5))}, {LocalPref: 7, Peers: []string{"ibgp3"}}},
			[]string{"ibgp3 203.0.113.7/32 pref=7", "tor1 203.0.113.7/32 med=5"}, nil, ""},
		{"local preference is for our own AS", "", "", ads{{LocalPref: 7, Peers: []string{"tor1", "ibgp3"}}},
			[]string{"ibgp3 203.0.113.7/32 pref=7", "tor1 203.0.113.7/32"}, nil, ""},
		{"contradiction: MED", "", "", ads{{MED: new(uint32(5))}, {MED: new(uint32(6))}}, []string{"tor1 203.0.113.7/32 med=5"}, []string{contradiction("med", 6, 5)}, ""},
		{"contradiction: MED 0", "", "", ads{{MED: new(uint32(0))}, {MED: new(uint32(6))}}, []string{"tor1 203.0.113.7/32 med=0"}, []string{contradiction("med", 6, 0)}, ""},
		{"contradiction: localPref", "", "", ads{{LocalPref: 5, Peers: []string{"ibgp3"}}, {LocalPref: 6, Peers: []string{"ibgp3"}}},
			[]string{"ibgp3 203.0.113.7/32 pref=5"}, []string{contradiction("localPref", 6, 5)}, ""},
		{"contradiction, for several peers: once", "", "", ads{{MED: new(uint32(5)), Peers: two}, {MED: new(uint32(6)), Peers: two}},
			[]string{"tor1 203.0.113.7/32 med=5", "tor2 203.0.113.7/32 med=5"}, []string{contradiction("med", 6, 5)}, ""},
		{"to different peers they may differ", "", "", ads{{MED: new(uint32(5))}, {MED: new(uint32(6)), Peers: []string{"tor2"}}},
			[]string{"tor1 203.0.113.7/32 med=5", "tor2 203.0.113.7/32 med=6"}, nil, ""},
		{"for different Services they may differ", "", "", ads{{MED: new(uint32(5))}, {MED: new(uint32(6)), Services: on("app", "dns")}},
			[]string{"tor1 203.0.113.7/32 med=5"}, nil, ""},

		{"aggregate", "", "", ads{{Length4: 24, Length6: 112}}, []string{"discard 203.0.113.0/24", "tor1 203.0.113.0/24"}, nil, ""},
		{"aggregate, IPv6", "2001:db8:f::7", "", ads{{Length4: 24, Length6: 112}}, []string{"discard 2001:db8:f::/112", "tor1 2001:db8:f::/112"}, nil, ""},
		{"aggregate, the other family", "2001:db8:f::7", "", ads{{Length4: 24}}, []string{"tor1 2001:db8:f::7/128"}, nil, ""},
		{"length of one address", "", "", ads{{Length4: 32}}, []string{"tor1 203.0.113.7/32"}, nil, ""},
		{"both lengths, each with its attributes", "", "", ads{{MED: new(uint32(5))}, {MED: new(uint32(6)), Length4: 24}},
			[]string{"discard 203.0.113.0/24", "tor1 203.0.113.0/24 med=6", "tor1 203.0.113.7/32 med=5"}, nil, ""},
		{"one aggregate to two peers", "", "", ads{{Length4: 24, Peers: two}},
			[]string{"discard 203.0.113.0/24", "tor1 203.0.113.0/24", "tor2 203.0.113.0/24"}, nil, ""},
		{"policy Local: singly", "", "web Local n1:ready", ads{{Length4: 24}}, []string{"tor1 203.0.113.7/32"}, nil,
			"told: ready endpoint here (default/web); told singly, as aggregates are for policy Cluster"},
		{"mixed policies: singly", "", "web Cluster n1:ready,dns Local n1:ready", ads{{Length4: 24}}, []string{"tor1 203.0.113.7/32"}, nil, ""},
		{"policy Local: together with what is told singly anyway", "", "web Local n1:ready", ads{{Length4: 24, Communities: []model.Community{1}}, {Communities: []model.Community{2}}},
			[]string{"tor1 203.0.113.7/32 0:1,0:2"}, nil, ""},
		{"beyond the pool: singly", "", "", ads{{Length4: 23}}, []string{"tor1 203.0.113.7/32"},
			[]string{"BGPAdvertisement old AggregateBeyondPool: aggregationLength is 23, and some prefixes of that length reach beyond the pool"},
			"told: default/web has endpoints; told singly, as the aggregate reaches beyond the pool"},
		{"of no pool: singly", "198.51.100.7", "", ads{{Length4: 24}}, []string{"tor1 198.51.100.7/32"}, []string{"BGPAdvertisement old AggregateBeyondPool"}, ""},
		{"of a pool that is not selected: singly", "", "", ads{{Length4: 24, Pools: []string{"small"}}}, []string{"tor1 203.0.113.7/32"}, []string{"BGPAdvertisement old AggregateBeyondPool"}, ""},
		{"adjacent ranges are one", "10.0.0.7", "", ads{{Length4: 24}}, []string{"discard 10.0.0.0/24", "tor1 10.0.0.0/24"}, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := cluster("n1")
			ibgp := peer("ibgp3")
			ibgp.ASN = ibgp.MyASN
			n.Advertisements = nil
			add(&n, peer("tor2"), ibgp, pools("small", "203.0.113.0-203.0.113.15"), pools("two", "10.0.0.0-10.0.0.127", "10.0.0.128-10.0.0.255"))
			for i, ad := range c.ads {
				ad.Name, ad.Created = []string{"old", "new", "last"}[i], start().Add(time.Duration(i))
				if ad.Peers == nil {
					ad.Peers = []string{"tor1"}
				}
				add(&n, ad)
			}
			if c.addr == "" {
				c.addr = "203.0.113.7"
			}
			if c.services == "" {
				c.services = "web Cluster n1:ready"
			}
			a := announcer(n)
			got := a.Decide(start(), vip(c.addr, c.services), true)
			if !slices.Equal(routes(got), c.want) {
				t.Errorf("routes\n     %s\nwant %s", strings.Join(routes(got), "\n     "), strings.Join(c.want, "\n     "))
			}
			same(t, "problems", described(got.Problems), c.problems)
			if c.reason != "" && text(a) != c.reason {
				t.Errorf("got  %s\nwant %s", text(a), c.reason)
			}
		})
	}
}

// TestPlansAreShared: addresses that differ in nothing else share their routes,
// and those of other families, policies or pools do not.
func TestPlansAreShared(t *testing.T) {
	n := cluster("n1")
	add(&n, model.Advertisement{Name: "all", Length4: 24, Length6: 24}, pools("wide", "2001:d00::-2001:dff:ffff:ffff:ffff:ffff:ffff:ffff"))
	a := announcer(n)
	want := map[string]string{
		"203.0.113.1": "tor1 203.0.113.0/24", "203.0.113.2": "tor1 203.0.113.0/24", "2001:d01::1": "tor1 2001:d00::/24", "198.51.100.1": "tor1 198.51.100.1/32",
	}
	for range 2 {
		for addr, route := range want {
			got := routes(a.Decide(start(), vip(addr, "web Cluster n1:ready"), true))
			if !slices.Contains(got, route) {
				t.Errorf("%s: %v, want %s", addr, got, route)
			}
		}
		if got := routes(a.Decide(start(), vip("203.0.113.3", "web Local n1:ready"), true)); !slices.Equal(got, []string{"tor1 203.0.113.3/32"}) {
			t.Errorf("policy Local: %v", got)
		}
	}
	if got := len(a.network.plans); got != 4 {
		t.Errorf("%d plans, want 4", got)
	}
}
