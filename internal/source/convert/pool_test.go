package convert

import (
	"math"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/model"
)

func span(first, last string) model.AddrRange {
	return model.AddrRange{First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last)}
}

func ownMeta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, UID: "u1", CreationTimestamp: metav1.Unix(1000, 0)}
}

func match(key, value string) metav1.LabelSelector {
	return metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

func is(key, value string) model.Selector {
	return model.Selector{Requirements: []model.Requirement{{Key: key, Op: model.In, Values: []string{value}}}}
}

func TestPoolRanges(t *testing.T) {
	rows := []struct {
		name  string
		given []v1alpha1.AddressRange
		want  []model.AddrRange // none: the pool is not told
		says  []string
	}{
		{"a CIDR", []v1alpha1.AddressRange{"192.0.2.0/24"}, []model.AddrRange{span("192.0.2.0", "192.0.2.255")}, nil},
		{"host bits do not matter", []v1alpha1.AddressRange{"192.0.2.77/28"}, []model.AddrRange{span("192.0.2.64", "192.0.2.79")}, nil},
		{"one address", []v1alpha1.AddressRange{"192.0.2.7/32", "2001:db8::7/128"},
			[]model.AddrRange{span("192.0.2.7", "192.0.2.7"), span("2001:db8::7", "2001:db8::7")}, nil},
		{"a range", []v1alpha1.AddressRange{"192.0.2.10-192.0.2.20", "2001:db8::1 - 2001:db8::f"},
			[]model.AddrRange{span("192.0.2.10", "192.0.2.20"), span("2001:db8::1", "2001:db8::f")}, nil},
		{"a whole IPv6 network", []v1alpha1.AddressRange{"2001:db8:1::/48"},
			[]model.AddrRange{span("2001:db8:1::", "2001:db8:1:ffff:ffff:ffff:ffff:ffff")}, nil},
		{"in order", []v1alpha1.AddressRange{"2001:db8::/127", "192.0.2.8/31", "192.0.2.0/31"},
			[]model.AddrRange{span("192.0.2.0", "192.0.2.1"), span("192.0.2.8", "192.0.2.9"), span("2001:db8::", "2001:db8::1")}, nil},
		{"overlapping and adjacent ones are joined", []v1alpha1.AddressRange{"192.0.2.0/30", "192.0.2.4/30", "192.0.2.2-192.0.2.9", "192.0.2.5/32"},
			[]model.AddrRange{span("192.0.2.0", "192.0.2.9")}, nil},
		{"the rest stays", []v1alpha1.AddressRange{"192.0.2.20-192.0.2.10", "192.0.2.0/33", "192.0.2.1", "192.0.2.0/31"},
			[]model.AddrRange{span("192.0.2.0", "192.0.2.1")}, []string{
				`InvalidRange: spec.addresses[0]: "192.0.2.20-192.0.2.10" ends before it begins; write it as "192.0.2.0/24" or "192.0.2.10-192.0.2.20"; until then it is left out`,
				`InvalidRange: spec.addresses[1]: "192.0.2.0/33" is neither a CIDR nor a range`,
				`InvalidRange: spec.addresses[2]: "192.0.2.1" is neither a CIDR nor a range`,
			}},
		{"nothing stays", []v1alpha1.AddressRange{"192.0.2.1-2001:db8::1"}, nil,
			[]string{`InvalidRange: spec.addresses[0]: "192.0.2.1-2001:db8::1" begins and ends in different families`}},
		{"nothing at all", nil, nil, []string{`InvalidRange: spec.addresses: "" holds no address`}},
		{"nothing that can be read in two ways", []v1alpha1.AddressRange{"192.0.2.010-192.0.2.020", "::ffff:192.0.2.0/120", "192.0.2.1-x", "fe80::1%eth0-fe80::2%eth0", "1-2-3"}, nil, []string{
			`InvalidRange: spec.addresses[0]: "192.0.2.010-192.0.2.020" has a first address that is not an IP address`,
			`InvalidRange: spec.addresses[1]: "::ffff:192.0.2.0/120" is an IPv4 address in the form of an IPv6 one`,
			`InvalidRange: spec.addresses[2]: "192.0.2.1-x" has a last address that is not an IP address`,
			`InvalidRange: spec.addresses[3]: "fe80::1%eth0-fe80::2%eth0" has a first address that has a zone`,
			`InvalidRange: spec.addresses[4]: "1-2-3" has a first address that is not an IP address`,
		}},
		{"nothing that no Service can have", []v1alpha1.AddressRange{"0.0.0.0/0", "126.0.0.0-128.0.0.0", "169.254.0.0/24", "239.0.0.0/8", "::/0", "fe80::/64", "ff00::/16", "::1/128"}, nil, []string{
			`InvalidRange: spec.addresses[0]: "0.0.0.0/0" holds addresses of 0.0.0.0/8, which no Service can have`,
			`InvalidRange: spec.addresses[1]: "126.0.0.0-128.0.0.0" holds addresses of 127.0.0.0/8`,
			`InvalidRange: spec.addresses[2]: "169.254.0.0/24" holds addresses of 169.254.0.0/16`,
			`InvalidRange: spec.addresses[3]: "239.0.0.0/8" holds addresses of 224.0.0.0/4`,
			`InvalidRange: spec.addresses[4]: "::/0" holds addresses of ::/128`,
			`InvalidRange: spec.addresses[5]: "fe80::/64" holds addresses of fe80::/10`,
			`InvalidRange: spec.addresses[6]: "ff00::/16" holds addresses of ff00::/8`,
			`InvalidRange: spec.addresses[7]: "::1/128" holds addresses of ::1/128`,
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			p := &v1alpha1.AddressPool{ObjectMeta: ownMeta("blue"), Spec: v1alpha1.AddressPoolSpec{Addresses: row.given}}
			pool, ok, problems := AddressPool(p)
			if !slices.Equal(pool.Ranges, row.want) || ok != (row.want != nil) {
				t.Errorf("ok %v, ranges %v, want %v", ok, pool.Ranges, row.want)
			}
			checkProblems(t, problems, row.says, model.Problem{Kind: "AddressPool", Object: model.Name{Name: "blue"}, UID: "u1"})
		})
	}
}

func TestPoolFields(t *testing.T) {
	rows := []struct {
		name   string
		change func(*v1alpha1.AddressPool)
		want   func(*model.AddressPool)
		says   []string // then the pool is not told
	}{
		{name: "as it is"},
		{name: "given by name only", change: func(p *v1alpha1.AddressPool) { p.Spec.AutoAssign = new(false) }, want: func(w *model.AddressPool) { w.AutoAssign = false }},
		{name: "given to all, said", change: func(p *v1alpha1.AddressPool) { p.Spec.AutoAssign = new(true) }},
		{name: "switches", change: func(p *v1alpha1.AddressPool) { p.Spec.AvoidBuggyIPs, p.Spec.Disabled = true, true },
			want: func(w *model.AddressPool) { w.AvoidBuggyIPs, w.Disabled = true, true }},
		{name: "labels", change: func(p *v1alpha1.AddressPool) { p.Labels = map[string]string{"tier": "one"} },
			want: func(w *model.AddressPool) { w.Labels = map[string]string{"tier": "one"} }},
		{
			name: "who may have one",
			change: func(p *v1alpha1.AddressPool) {
				p.Spec.ServiceAllocation = &v1alpha1.ServiceAllocation{
					Priority: 7, Namespaces: []string{"shop", "shop"}, EnforceNamespaces: true,
					NamespaceSelectors: []metav1.LabelSelector{match("tier", "one")}, ServiceSelectors: []metav1.LabelSelector{match("app", "web")},
				}
			},
			want: func(w *model.AddressPool) {
				w.Priority, w.Namespaces, w.EnforceNamespaces = 7, []string{"shop"}, true
				w.NamespaceSelectors, w.ServiceSelectors = []model.Selector{is("tier", "one")}, []model.Selector{is("app", "web")}
			},
		},
		{
			name: "what cannot be read opens the pool to nobody",
			change: func(p *v1alpha1.AddressPool) {
				p.Spec.ServiceAllocation = &v1alpha1.ServiceAllocation{
					Priority: -1, Namespaces: []string{""},
					NamespaceSelectors: []metav1.LabelSelector{{}}, ServiceSelectors: []metav1.LabelSelector{match("a b", "web")},
				}
			},
			says: []string{
				`InvalidPriority: spec.serviceAllocation.priority: "-1" is negative`,
				`InvalidName: spec.serviceAllocation.namespaces[0]: "" is not a name`,
				`InvalidSelector: spec.serviceAllocation.namespaceSelectors[0]: "" is empty; add matchLabels or matchExpressions`,
				`InvalidSelector: spec.serviceAllocation.serviceSelectors[0]: "{\"matchLabels\":{\"a b\":\"web\"}}" cannot be used: key: Invalid value`,
			},
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			p := &v1alpha1.AddressPool{ObjectMeta: ownMeta("blue"), Spec: v1alpha1.AddressPoolSpec{Addresses: []v1alpha1.AddressRange{"192.0.2.0/31"}}}
			want := model.AddressPool{
				Name: "blue", UID: "u1", Created: metav1.Unix(1000, 0).Time, AutoAssign: true, Priority: math.MaxInt32,
				Ranges: []model.AddrRange{span("192.0.2.0", "192.0.2.1")},
			}
			if row.change != nil {
				row.change(p)
			}
			if row.want != nil {
				row.want(&want)
			}
			if row.says != nil {
				want = model.AddressPool{}
			}
			before := p.DeepCopy()
			pool, ok, problems := AddressPool(p)
			if ok != (row.says == nil) || !reflect.DeepEqual(pool, want) {
				t.Errorf("ok %v\ngot  %+v\nwant %+v", ok, pool, want)
			}
			if !reflect.DeepEqual(p, before) {
				t.Error("the object was changed")
			}
			checkProblems(t, problems, row.says, model.Problem{Kind: "AddressPool", Object: model.Name{Name: "blue"}, UID: "u1"})
		})
	}
}

func TestSelectors(t *testing.T) {
	expr := func(key string, op metav1.LabelSelectorOperator, values ...string) metav1.LabelSelectorRequirement {
		return metav1.LabelSelectorRequirement{Key: key, Operator: op, Values: values}
	}
	given := metav1.LabelSelector{
		MatchLabels: map[string]string{"b": "2", "a": "1"},
		MatchExpressions: []metav1.LabelSelectorRequirement{
			expr("c", metav1.LabelSelectorOpIn, "x", "y"), expr("d", metav1.LabelSelectorOpNotIn, "z"),
			expr("e", metav1.LabelSelectorOpExists), expr("f", metav1.LabelSelectorOpDoesNotExist),
		},
	}
	want := model.Selector{Requirements: []model.Requirement{
		{Key: "a", Op: model.In, Values: []string{"1"}}, {Key: "b", Op: model.In, Values: []string{"2"}},
		{Key: "c", Op: model.In, Values: []string{"x", "y"}}, {Key: "d", Op: model.NotIn, Values: []string{"z"}},
		{Key: "e", Op: model.Exists}, {Key: "f", Op: model.DoesNotExist},
	}}
	r := newReport("x", &metav1.ObjectMeta{})
	got := selectors([]metav1.LabelSelector{given}, "spec.x", r)
	if len(got) != 1 || !reflect.DeepEqual(got[0], want) || r.count() > 0 {
		t.Errorf("got %+v, want %+v; problems %v", got, want, r.list())
	}
	for _, bad := range []metav1.LabelSelectorRequirement{
		expr("c", metav1.LabelSelectorOpIn), expr("c", metav1.LabelSelectorOpExists, "x"), expr("c", "Like", "x"), expr("", metav1.LabelSelectorOpExists),
	} {
		r := newReport("x", &metav1.ObjectMeta{})
		if got := selectors([]metav1.LabelSelector{{MatchExpressions: []metav1.LabelSelectorRequirement{bad}}}, "spec.x", r); got != nil || r.count() != 1 {
			t.Errorf("%v: got %v, problems %v", bad, got, r.list())
		}
	}
}

// FuzzRange: a range that is read holds its ends, in order and of one family,
// means the same when it is written down again, and nothing that is not a host's.
func FuzzRange(f *testing.F) {
	for _, s := range []string{"192.0.2.0/24", "192.0.2.1-192.0.2.9", "2001:db8::/64", "2001:db8:: - 2001:db8::f", "::/0", "0.0.0.0/0", "1.2.3.4/0", "-", "/", "255.255.255.255-255.255.255.255", "126.0.0.0-128.0.0.0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := parseRange(text)
		if err != nil {
			if a != (model.AddrRange{}) {
				t.Errorf("%v with an error", a)
			}
			return
		}
		if !a.Contains(a.First) || !a.Contains(a.Last) || a.First.Is4In6() || a.First.Zone() != "" {
			t.Errorf("%q: %v", text, a)
		}
		if again, err := parseRange(a.First.String() + "-" + a.Last.String()); err != nil || again != a {
			t.Errorf("%q: %v, and again %v (%v)", text, a, again, err)
		}
		for _, bad := range addrs("0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "ff02::1") {
			if a.Contains(bad) {
				t.Errorf("%q holds %s", text, bad)
			}
		}
	})
}

// FuzzMerge: merged ranges hold the same addresses as before, in order and with
// gaps between them.
func FuzzMerge(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4})
	f.Add([]byte{250, 255, 0, 9, 9, 12, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		at := func(b byte) netip.Addr { return netip.AddrFrom4([4]byte{255, 255, 255, b}) }
		var list []model.AddrRange
		held := map[netip.Addr]bool{}
		for i := 0; i+1 < len(data); i += 2 {
			first, last := min(data[i], data[i+1]), max(data[i], data[i+1])
			list = append(list, model.AddrRange{First: at(first), Last: at(last)})
			for b := int(first); b <= int(last); b++ {
				held[at(byte(b))] = true
			}
		}
		merged := merge(list)
		pool := model.AddressPool{Ranges: merged}
		for b := range 256 {
			if a := at(byte(b)); pool.Contains(a) != held[a] {
				t.Errorf("%s: held %v, merged %v", a, held[a], merged)
			}
		}
		for i := 1; i < len(merged); i++ {
			if !merged[i-1].Last.Next().Less(merged[i].First) {
				t.Errorf("no gap in %v", merged)
			}
		}
	})
}
