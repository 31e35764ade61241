package convert

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/internal/model"
)

func plainSlice() *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web-x", Namespace: "shop", UID: "u2",
			Labels: map[string]string{discoveryv1.LabelServiceName: "web"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080)), Protocol: new(corev1.ProtocolTCP)}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}},
	}
}

func plainSliceFact() model.EndpointSlice {
	return model.EndpointSlice{
		Name:      model.Name{Namespace: "shop", Name: "web-x"},
		Service:   "web",
		Family:    model.IPv4,
		Ports:     []model.EndpointPort{{Name: "http", Protocol: model.TCP, Port: 8080}},
		Endpoints: []model.Endpoint{ready("10.0.0.1")},
	}
}

func ready(addr string) model.Endpoint {
	return model.Endpoint{Addr: netip.MustParseAddr(addr), Ready: true, Serving: true}
}

func TestEndpointSliceNotOurs(t *testing.T) {
	rows := []struct {
		name   string
		change func(*discoveryv1.EndpointSlice)
		says   []string
	}{
		{name: "host names", change: func(s *discoveryv1.EndpointSlice) { s.AddressType = discoveryv1.AddressTypeFQDN }},
		{name: "no Service", change: func(s *discoveryv1.EndpointSlice) { s.Labels = nil }},
		{name: "headless", change: func(s *discoveryv1.EndpointSlice) { s.Labels[HeadlessLabel] = "" }},
		{name: "another proxy's", change: func(s *discoveryv1.EndpointSlice) { s.Labels[ProxyNameLabel] = "x" }},
		{
			name:   "unknown address type",
			change: func(s *discoveryv1.EndpointSlice) { s.AddressType = "ipv4" },
			says:   []string{`InvalidAddressType: addressType: "ipv4" is not an address type; use "IPv4" or "IPv6"`},
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s := plainSlice()
			row.change(s)
			_, ok, problems := EndpointSlice(s)
			if ok {
				t.Error("ours")
			}
			checkProblems(t, problems, row.says, model.Problem{Kind: "EndpointSlice", Object: model.Name{Namespace: "shop", Name: "web-x"}, UID: "u2"})
		})
	}
}

func TestEndpointSliceFields(t *testing.T) {
	endpoints := func(list ...discoveryv1.Endpoint) func(*discoveryv1.EndpointSlice) {
		return func(s *discoveryv1.EndpointSlice) { s.Endpoints = list }
	}
	conditions := func(ready, serving, terminating *bool) func(*discoveryv1.EndpointSlice) {
		return endpoints(discoveryv1.Endpoint{
			Addresses:  []string{"10.0.0.1"},
			Conditions: discoveryv1.EndpointConditions{Ready: ready, Serving: serving, Terminating: terminating},
		})
	}
	as := func(ready, serving, terminating bool) func(*model.EndpointSlice) {
		return func(w *model.EndpointSlice) {
			w.Endpoints[0].Ready, w.Endpoints[0].Serving, w.Endpoints[0].Terminating = ready, serving, terminating
		}
	}
	yes, no := new(true), new(false)
	rows := []struct {
		name   string
		change func(*discoveryv1.EndpointSlice)
		want   func(*model.EndpointSlice)
		says   []string
	}{
		{name: "as it is"},
		{name: "conditions: all nil is ready", change: conditions(nil, nil, nil)},
		{name: "conditions: serving nil is as ready", change: conditions(no, nil, nil), want: as(false, false, false)},
		{name: "conditions: terminating but serving", change: conditions(no, yes, yes), want: as(false, true, true)},
		{name: "conditions: ready nil, not serving", change: conditions(nil, no, no), want: as(true, false, false)},
		{
			name:   "only the first address",
			change: endpoints(discoveryv1.Endpoint{Addresses: []string{"10.0.0.1", "10.0.0.2"}}),
		},
		{
			name: "node, zone and hints",
			change: endpoints(discoveryv1.Endpoint{
				Addresses: []string{"10.0.0.1"}, NodeName: new("n1"), Zone: new("z1"),
				Hints: &discoveryv1.EndpointHints{
					ForZones: []discoveryv1.ForZone{{Name: "z1"}, {Name: "z2"}},
					ForNodes: []discoveryv1.ForNode{{Name: "n1"}},
				},
			}),
			want: func(w *model.EndpointSlice) {
				w.Endpoints[0] = model.Endpoint{
					Addr: netip.MustParseAddr("10.0.0.1"), Node: "n1", Zone: "z1", Ready: true, Serving: true,
					ForZones: []string{"z1", "z2"}, ForNodes: []string{"n1"},
				}
			},
		},
		{
			name: "pods, and what is none of the slice's",
			change: endpoints(
				discoveryv1.Endpoint{Addresses: []string{"10.0.0.1"}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: "web-0", UID: "u"}},
				discoveryv1.Endpoint{Addresses: []string{"10.0.0.2"}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "web-1"}},
				discoveryv1.Endpoint{Addresses: []string{"10.0.0.3"}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "other", Name: "web-2"}},
				discoveryv1.Endpoint{Addresses: []string{"10.0.0.4"}, TargetRef: &corev1.ObjectReference{Kind: "Machine", Name: "web-3"}},
			),
			want: func(w *model.EndpointSlice) {
				w.Endpoints = []model.Endpoint{ready("10.0.0.1"), ready("10.0.0.2"), ready("10.0.0.3"), ready("10.0.0.4")}
				w.Endpoints[0].Pod, w.Endpoints[1].Pod = "web-0", "web-1"
			},
		},
		{
			name: "IPv6",
			change: func(s *discoveryv1.EndpointSlice) {
				s.AddressType = discoveryv1.AddressTypeIPv6
				s.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{"fd00::1"}}}
			},
			want: func(w *model.EndpointSlice) {
				w.Family, w.Endpoints = model.IPv6, []model.Endpoint{ready("fd00::1")}
			},
		},
		{
			name: "4-in-6 belongs to IPv4",
			change: func(s *discoveryv1.EndpointSlice) {
				s.AddressType = discoveryv1.AddressTypeIPv6
				s.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{"::ffff:10.0.0.1"}}, {Addresses: []string{"fd00::1"}}}
			},
			want: func(w *model.EndpointSlice) {
				w.Family, w.Endpoints = model.IPv6, []model.Endpoint{ready("fd00::1")}
			},
			says: []string{`InvalidAddress: endpoints[0].addresses[0]: "::ffff:10.0.0.1" is not an IPv6 address, as addressType says`},
		},
		{name: "4-in-6 in an IPv4 slice", change: endpoints(discoveryv1.Endpoint{Addresses: []string{"::ffff:10.0.0.1"}})},
		{
			name: "addresses that no endpoint has",
			change: endpoints(
				discoveryv1.Endpoint{Addresses: []string{"127.0.0.1"}}, discoveryv1.Endpoint{Addresses: []string{"0.0.0.0"}},
				discoveryv1.Endpoint{Addresses: []string{"224.0.0.1"}}, discoveryv1.Endpoint{Addresses: []string{"169.254.0.1"}},
				discoveryv1.Endpoint{Addresses: []string{"db.example"}}, discoveryv1.Endpoint{Addresses: []string{"fd00::1"}},
				discoveryv1.Endpoint{}, discoveryv1.Endpoint{Addresses: []string{"10.0.0.1"}},
			),
			says: []string{
				`InvalidAddress: endpoints[0].addresses[0]: "127.0.0.1" is a loopback address`,
				`InvalidAddress: endpoints[1].addresses[0]: "0.0.0.0" is not a unicast address`,
				`InvalidAddress: endpoints[2].addresses[0]: "224.0.0.1" is not a unicast address`,
				`InvalidAddress: endpoints[3].addresses[0]: "169.254.0.1" is a link-local address`,
				`InvalidAddress: endpoints[4].addresses[0]: "db.example" is not an IP address`,
				`InvalidAddress: endpoints[5].addresses[0]: "fd00::1" is not an IPv4 address, as addressType says`,
				`InvalidAddress: endpoints[6].addresses[0]: "" is not an IP address`,
			},
		},
		{
			name: "duplicates: equal ones once, differing ones are the model's to choose from",
			change: endpoints(
				discoveryv1.Endpoint{Addresses: []string{"10.0.0.1"}}, discoveryv1.Endpoint{Addresses: []string{"10.0.0.1"}},
				discoveryv1.Endpoint{Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: no}},
			),
			want: func(w *model.EndpointSlice) {
				w.Endpoints = append(w.Endpoints, model.Endpoint{Addr: netip.MustParseAddr("10.0.0.1")})
			},
		},
		{
			name: "ports: nil number skipped, nil name is empty, nil protocol is TCP, once",
			change: func(s *discoveryv1.EndpointSlice) {
				s.Ports = []discoveryv1.EndpointPort{
					{Name: new("all")}, {Port: new(int32(80))},
					{Name: new(""), Port: new(int32(80)), Protocol: new(corev1.ProtocolTCP)},
					{Name: new("dns"), Port: new(int32(53)), Protocol: new(corev1.ProtocolUDP)},
				}
			},
			want: func(w *model.EndpointSlice) {
				w.Ports = []model.EndpointPort{{Protocol: model.TCP, Port: 80}, {Name: "dns", Protocol: model.UDP, Port: 53}}
			},
		},
		{
			name: "ports: wrong ones are left out",
			change: func(s *discoveryv1.EndpointSlice) {
				s.Ports = append(s.Ports,
					discoveryv1.EndpointPort{Port: new(int32(0))}, discoveryv1.EndpointPort{Port: new(int32(70000))},
					discoveryv1.EndpointPort{Port: new(int32(1)), Protocol: new(corev1.Protocol("tcp"))})
			},
			says: []string{
				`InvalidPort: ports[1].port: "0"`, `InvalidPort: ports[2].port: "70000"`, `InvalidProtocol: ports[3].protocol: "tcp"`,
			},
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			given, want := plainSlice(), plainSliceFact()
			if row.change != nil {
				row.change(given)
			}
			if row.want != nil {
				row.want(&want)
			}
			got, ok, problems := EndpointSlice(given)
			if !ok || !reflect.DeepEqual(got, want) {
				t.Errorf("ok %v, got  %+v\nwant %+v", ok, got, want)
			}
			checkProblems(t, problems, row.says, model.Problem{Kind: "EndpointSlice", Object: want.Name, UID: "u2"})
		})
	}
}

func TestEndpointSliceTriggered(t *testing.T) {
	rows := []struct {
		given string
		want  time.Time
		says  string
	}{
		{given: ""},
		{given: "2026-03-01T10:00:00Z", want: time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)},
		{given: "2026-03-01T10:00:00.123456789Z", want: time.Date(2026, 3, 1, 10, 0, 0, 123456789, time.UTC)},
		{given: "2026-03-01T12:00:00.5+02:00", want: time.Date(2026, 3, 1, 10, 0, 0, 5e8, time.UTC)},
		{given: "0001-01-01T00:00:00Z"},
		{given: "yesterday", says: `"yesterday" is not a time as in RFC 3339; correct or remove it; until then the change is not in the measured latency`},
		{given: "2026-03-01 10:00:00", says: `"2026-03-01 10:00:00" is not a time`},
		{given: "1772359200", says: `"1772359200" is not a time`},
	}
	for _, row := range rows {
		t.Run(row.given, func(t *testing.T) {
			s := plainSlice()
			s.Annotations = map[string]string{"endpoints.kubernetes.io/last-change-trigger-time": row.given}
			slice, ok, problems := EndpointSlice(s)
			if !ok || slice.Triggered != row.want {
				t.Errorf("triggered %v, want %v", slice.Triggered, row.want)
			}
			var says []string
			if row.says != "" {
				says = []string{"InvalidTriggerTime: metadata.annotations[endpoints.kubernetes.io/last-change-trigger-time]: " + row.says}
			}
			checkProblems(t, problems, says, model.Problem{Kind: "EndpointSlice", Object: slice.Name, UID: "u2"})
		})
	}
}

func TestNodeLeaving(t *testing.T) {
	taint := func(key string, effect corev1.TaintEffect) func(*corev1.Node) {
		return func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "other"}, {Key: key, Value: "1", Effect: effect}}
		}
	}
	rows := []struct {
		name   string
		change func(*corev1.Node)
		want   string
	}{
		{"as it is", func(*corev1.Node) {}, ""},
		{"deleted", func(n *corev1.Node) { n.DeletionTimestamp = new(metav1.Unix(1, 0)) }, "it is being deleted"},
		{"a deletion timestamp that is none", func(n *corev1.Node) { n.DeletionTimestamp = &metav1.Time{} }, ""},
		{"marked", taint("ToBeDeletedByClusterAutoscaler", corev1.TaintEffectNoSchedule), "it has the taint ToBeDeletedByClusterAutoscaler"},
		{"marked with another effect", taint("ToBeDeletedByClusterAutoscaler", "PreferNoSchedule"), "it has the taint ToBeDeletedByClusterAutoscaler"},
		{"marked with no effect", taint("ToBeDeletedByClusterAutoscaler", ""), "it has the taint ToBeDeletedByClusterAutoscaler"},
		{"a candidate", taint("DeletionCandidateOfClusterAutoscaler", corev1.TaintEffectNoSchedule), ""},
		{"cordoned", func(n *corev1.Node) { n.Spec.Unschedulable = true }, ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
			row.change(n)
			if got, _, _ := Node(n); got.Leaving != row.want {
				t.Errorf("leaving: %q, want %q", got.Leaving, row.want)
			}
		})
	}
}

func TestNode(t *testing.T) {
	labels := map[string]string{corev1.LabelTopologyZone: "z1"}
	given := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "u3", Labels: labels},
		Spec:       corev1.NodeSpec{PodCIDR: "10.1.0.0/24", PodCIDRs: []string{"10.1.0.0/24", "fd01::/64", "nonsense"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeExternalIP, Address: "203.0.113.1"},
			{Type: corev1.NodeHostName, Address: "n1"},
			{Type: corev1.NodeInternalIP, Address: "192.0.2.1"},
			{Type: corev1.NodeInternalIP, Address: "fd00::1"},
			{Type: corev1.NodeExternalIP, Address: "192.0.2.1"},
			{Type: corev1.NodeInternalIP, Address: "node.internal"},
		}},
	}
	want := model.Node{
		Name: "n1", Labels: map[string]string{corev1.LabelTopologyZone: "z1"},
		Addrs:    addrs("192.0.2.1", "fd00::1", "203.0.113.1"),
		PodCIDRs: cidrs("10.1.0.0/24", "fd01::/64"),
	}
	got, ok, problems := Node(given)
	labels[corev1.LabelTopologyZone] = "changed later"
	if !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("ok %v, got  %+v\nwant %+v", ok, got, want)
	}
	checkProblems(t, problems, []string{
		`InvalidAddress: status.addresses[5].address: "node.internal" is not an IP address`,
		`InvalidPodCIDR: spec.podCIDRs[2]: "nonsense" is not a CIDR`,
	}, model.Problem{Kind: "Node", Object: model.Name{Name: "n1"}, UID: "u3"})

	given.Spec.PodCIDRs = nil
	if got, _, _ := Node(given); !slices.Equal(got.PodCIDRs, cidrs("10.1.0.0/24")) {
		t.Errorf("podCIDR alone: %v", got.PodCIDRs)
	}
}

func TestParsePrefixNeverPanics(t *testing.T) {
	for _, text := range []string{"", "/", "10.0.0.0/33", "::/129", "::ffff:0.0.0.0/0", "::ffff:10.0.0.0/90", "fe80::%eth0/64", strings.Repeat("1", 99)} {
		if p, err := parsePrefix(text); err == nil && p != p.Masked() {
			t.Errorf("%q: %v", text, p)
		}
	}
}

func BenchmarkEndpointSlice(b *testing.B) {
	s := plainSlice()
	for i := range 99 {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}).String()}})
	}
	b.ReportAllocs()
	for b.Loop() {
		EndpointSlice(s)
	}
}
