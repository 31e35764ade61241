package convert

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/model"
)

func TestAdvertisement(t *testing.T) {
	type spec = v1alpha1.BGPAdvertisementSpec
	const short = `; write it as "64512:1", each number up to 65535, or as "large:64512:1:2"`
	rows := []struct {
		name   string
		change func(*spec)
		want   func(*model.Advertisement)
		says   []string // then it is not told
	}{
		{name: "of everything to everyone"},
		{
			name: "of some to some",
			change: func(s *spec) {
				s.AddressPools, s.Peers = []string{"blue", "blue"}, []string{"tor1", "tor2"}
				s.AddressPoolSelectors, s.ServiceSelectors, s.NodeSelectors = []metav1.LabelSelector{match("a", "1")}, []metav1.LabelSelector{match("b", "2")}, []metav1.LabelSelector{match("c", "3")}
			},
			want: func(w *model.Advertisement) {
				w.Pools, w.Peers = []string{"blue"}, []string{"tor1", "tor2"}
				w.PoolSelectors, w.Services, w.Nodes = []model.Selector{is("a", "1")}, []model.Selector{is("b", "2")}, []model.Selector{is("c", "3")}
			},
		},
		{
			name: "communities, each once",
			change: func(s *spec) {
				s.Communities = []v1alpha1.Community{"64512:1", "0:0", "65535:65535", "64512:1", "large:1:2:3"}
				s.LargeCommunities = []v1alpha1.LargeCommunity{"1:2:3", "4294967295:0:7", "large:4:5:6"}
			},
			want: func(w *model.Advertisement) {
				w.Communities = []model.Community{64512<<16 | 1, 0, 0xffffffff}
				w.LargeCommunities = []model.LargeCommunity{{1, 2, 3}, {4294967295, 0, 7}, {4, 5, 6}}
			},
		},
		{name: "metrics", change: func(s *spec) { s.LocalPref, s.MED = new(int64(4294967295)), new(int64(0)) },
			want: func(w *model.Advertisement) { w.LocalPref, w.MED = 4294967295, new(uint32(0)) }},
		{name: "aggregates", change: func(s *spec) { s.AggregationLength, s.AggregationLengthV6 = new(int32(1)), new(int32(128)) },
			want: func(w *model.Advertisement) { w.Length4, w.Length6 = 1, 128 }},
		{name: "without endpoints too", change: func(s *spec) { s.KeepWithoutEndpoints = true }, want: func(w *model.Advertisement) { w.KeepEmpty = true }},

		{
			name: "bad communities",
			change: func(s *spec) {
				s.Communities = []v1alpha1.Community{"64512:1", "65536:1", "1:2:3", "no-export", "large:1:2", "-1:1"}
				s.LargeCommunities = []v1alpha1.LargeCommunity{"1:2", "1:2:4294967296"}
			},
			says: []string{
				`InvalidCommunity: spec.communities[1]: "65536:1" is not a community` + short,
				`InvalidCommunity: spec.communities[2]: "1:2:3" is not a community`,
				`InvalidCommunity: spec.communities[3]: "no-export" is not a community`,
				`InvalidCommunity: spec.communities[4]: "large:1:2" is not a community`,
				`InvalidCommunity: spec.communities[5]: "-1:1" is not a community`,
				`InvalidCommunity: spec.largeCommunities[0]: "1:2" is not a community; write it as "64512:1:2"`,
				`InvalidCommunity: spec.largeCommunities[1]: "1:2:4294967296" is not a community`,
			},
		},
		{name: "bad metrics", change: func(s *spec) { s.LocalPref, s.MED = new(int64(-1)), new(int64(4294967296)) }, says: []string{
			`InvalidMetric: spec.localPref: "-1" is out of range`, `InvalidMetric: spec.med: "4294967296" is out of range`,
		}},
		{name: "bad lengths", change: func(s *spec) { s.AggregationLength, s.AggregationLengthV6 = new(int32(33)), new(int32(0)) }, says: []string{
			`InvalidLength: spec.aggregationLength: "33" is not the length of a prefix; use a number from 1 to 32, or remove it`,
			`InvalidLength: spec.aggregationLengthV6: "0" is not the length of a prefix; use a number from 1 to 128`,
		}},
		{name: "no names", change: func(s *spec) { s.AddressPools, s.Peers = []string{""}, []string{"tor", ""} }, says: []string{
			`InvalidName: spec.addressPools[0]: "" is not a name`, `InvalidName: spec.peers[1]: "" is not a name`,
		}},
		{name: "empty selectors", change: func(s *spec) {
			s.AddressPoolSelectors, s.ServiceSelectors, s.NodeSelectors = []metav1.LabelSelector{{}}, []metav1.LabelSelector{{}}, []metav1.LabelSelector{{}}
		}, says: []string{
			`InvalidSelector: spec.addressPoolSelectors[0]: "" is empty`, `InvalidSelector: spec.serviceSelectors[0]: "" is empty`, `InvalidSelector: spec.nodeSelectors[0]: "" is empty`,
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			a := &v1alpha1.BGPAdvertisement{ObjectMeta: ownMeta("all")}
			want := model.Advertisement{Name: "all", UID: "u1", Created: time.Unix(1000, 0)}
			if row.change != nil {
				row.change(&a.Spec)
			}
			if row.want != nil {
				row.want(&want)
			}
			if row.says != nil {
				want = model.Advertisement{}
			}
			ad, ok, problems := Advertisement(a)
			if ok != (row.says == nil) || !reflect.DeepEqual(ad, want) {
				t.Errorf("ok %v\ngot  %+v\nwant %+v", ok, ad, want)
			}
			checkProblems(t, problems, row.says, model.Problem{Kind: "BGPAdvertisement", Object: model.Name{Name: "all"}, UID: "u1"})
		})
	}
}

// FuzzCommunity: what is read is what was written.
func FuzzCommunity(f *testing.F) {
	for _, s := range []string{"64512:1", "0:0", "65535:65535", "65536:0", "1:2:3", "4294967295:4294967295:4294967295", "::", "+1:1", "1_0:1", "01:1", " 1:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := parseCommunity(text); err == nil {
			again, err := parseCommunity(fmt.Sprintf("%d:%d", c>>16, c&0xffff))
			if err != nil || again != c {
				t.Errorf("%q: %d, and again %d (%v)", text, c, again, err)
			}
		}
		if c, err := parseLarge(text); err == nil {
			again, err := parseLarge(fmt.Sprintf("%d:%d:%d", c[0], c[1], c[2]))
			if err != nil || again != c {
				t.Errorf("%q: %d, and again %d (%v)", text, c, again, err)
			}
		}
	})
}
