package convert

import (
	"maps"
	"reflect"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/internal/model"
)

func TestServiceBalancer(t *testing.T) {
	annotated := func(list ...string) func(*corev1.Service) {
		return func(s *corev1.Service) {
			s.Annotations = map[string]string{}
			for i := 0; i < len(list); i += 2 {
				s.Annotations[list[i]] = list[i+1]
			}
		}
	}
	both := func(changes ...func(*corev1.Service)) func(*corev1.Service) {
		return func(s *corev1.Service) {
			for _, c := range changes {
				c(s)
			}
		}
	}
	by := func(ip string) func(*corev1.Service) { return func(s *corev1.Service) { s.Spec.LoadBalancerIP = ip } }
	policy := func(p corev1.IPFamilyPolicy, families ...corev1.IPFamily) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Spec.IPFamilyPolicy, s.Spec.IPFamilies = &p, families }
	}
	asks := func(list ...string) func(*model.Balancer) {
		return func(w *model.Balancer) { w.Requested = addrs(list...) }
	}
	unclear := func(w *model.Balancer) { w.Unclear = true }
	const field = "metadata.annotations[sluice.dev/load-balancer-ips]: "
	rows := []struct {
		name   string
		change func(*corev1.Service)
		want   func(*model.Balancer)
		says   []string
	}{
		{name: "as it is"},
		{name: "another type asks for nothing and keeps its status", change: func(s *corev1.Service) {
			s.Spec.Type, s.Spec.LoadBalancerClass, s.Spec.LoadBalancerIP = corev1.ServiceTypeNodePort, new("x"), "x"
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}}
		}, want: func(w *model.Balancer) { *w = model.Balancer{Status: addrs("192.0.2.1")} }},
		{name: "status, whoever answers on it", change: func(s *corev1.Service) {
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{
				{IP: "192.0.2.1"}, {IP: "192.0.2.2", IPMode: new(corev1.LoadBalancerIPModeProxy)}, {Hostname: "lb.example.org"}, {IP: "192.0.2.1"},
			}
		}, want: func(w *model.Balancer) { w.Status = addrs("192.0.2.1", "192.0.2.2") }},
		{name: "class", change: func(s *corev1.Service) { s.Spec.LoadBalancerClass = new("sluice.dev/bgp") }, want: func(w *model.Balancer) { w.Class = "sluice.dev/bgp" }},
		{name: "an address by the field", change: by("192.0.2.1"), want: asks("192.0.2.1")},
		{name: "by our annotation", change: annotated(AddressesAnnotation, " 192.0.2.1 ,2001:db8::1,"), want: asks("192.0.2.1", "2001:db8::1")},
		{name: "by the alias", change: annotated(AddressesAnnotationAlias, "192.0.2.1"), want: asks("192.0.2.1")},
		{name: "ours counts more", change: annotated(AddressesAnnotation, "192.0.2.2", AddressesAnnotationAlias, "192.0.2.1"), want: asks("192.0.2.2")},
		{name: "by both, alike", change: both(by("192.0.2.1"), annotated(AddressesAnnotation, "192.0.2.1")), want: asks("192.0.2.1")},
		{name: "an empty annotation asks for nothing", change: both(by("192.0.2.1"), annotated(AddressesAnnotation, "")), want: asks("192.0.2.1")},
		{name: "by both, unlike", change: both(by("192.0.2.1"), annotated(AddressesAnnotation, "192.0.2.2")), want: unclear, says: []string{
			"ContradictoryAddressRequest: " + field + `"192.0.2.2" and spec.loadBalancerIP, "192.0.2.1", are different; remove one of them; until then nothing is allocated, and what the Service has stays`,
		}},
		{name: "one more than the field", change: both(by("192.0.2.1"), annotated(AddressesAnnotation, "192.0.2.1,2001:db8::1")), want: unclear, says: []string{"ContradictoryAddressRequest: " + field}},
		{name: "two of one family", change: annotated(AddressesAnnotation, "192.0.2.1,192.0.2.2"), want: unclear, says: []string{"InvalidAddressRequest: " + field + `"192.0.2.1,192.0.2.2" holds two addresses of one family`}},
		{name: "not an address never becomes any address", change: annotated(AddressesAnnotation, "192.0.2.1,x"), want: unclear, says: []string{"InvalidAddressRequest: " + field + `"x" is not an IP address`}},
		{name: "not an address in the field", change: by("127.0.0.1"), want: unclear, says: []string{`InvalidAddressRequest: spec.loadBalancerIP: "127.0.0.1" is a loopback address`}},
		{name: "pool, key and wish", change: annotated(PoolAnnotation, "blue", SharingAnnotation, "web ", ReallocateAnnotation, "2026-03-01"),
			want: func(w *model.Balancer) { w.Pool, w.SharingKey, w.Reallocate = "blue", "web", "2026-03-01" }},
		{name: "pool and key, by aliases", change: annotated(PoolAnnotationAlias, "blue", SharingAnnotationAlias, "web"), want: func(w *model.Balancer) { w.Pool, w.SharingKey = "blue", "web" }},
		{name: "dual stack", change: policy(corev1.IPFamilyPolicyRequireDualStack, "IPv6", "IPv4"),
			want: func(w *model.Balancer) {
				w.Families, w.DualStack = []model.Family{model.IPv6, model.IPv4}, model.RequireDualStack
			}},
		{name: "dual stack if possible", change: policy(corev1.IPFamilyPolicyPreferDualStack), want: func(w *model.Balancer) { w.DualStack = model.PreferDualStack }},
		{name: "single stack", change: policy(corev1.IPFamilyPolicySingleStack, "IPv6"), want: func(w *model.Balancer) { w.Families = []model.Family{model.IPv6} }},
		{name: "dual stack by its cluster IPs", change: func(s *corev1.Service) { s.Spec.ClusterIPs = []string{"10.96.0.1", "fd00::1"} },
			want: func(w *model.Balancer) {
				w.Families, w.DualStack = []model.Family{model.IPv4, model.IPv6}, model.RequireDualStack
			}},
		{name: "no policy, no family", change: policy("Dual", "IPv5"), says: []string{
			`InvalidFamily: spec.ipFamilies[0]: "IPv5" is not a family`, `InvalidFamily: spec.ipFamilyPolicy: "Dual" is not a policy`,
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s := plain()
			s.Spec.Type = corev1.ServiceTypeLoadBalancer
			want := model.Balancer{Wanted: true, Families: []model.Family{model.IPv4}}
			if row.change != nil {
				row.change(s)
			}
			if row.want != nil {
				row.want(&want)
			}
			svc, _, problems := Service(s, nil)
			if !reflect.DeepEqual(svc.Balancer, want) {
				t.Errorf("got  %+v\nwant %+v", svc.Balancer, want)
			}
			checkProblems(t, problems, row.says, model.Problem{Kind: "Service", Object: svc.Name, UID: "u1"})
		})
	}
}

func TestLabelsAreNotShared(t *testing.T) {
	s, n, ns, p := plain(), &corev1.Node{}, &corev1.Namespace{}, &corev1.Pod{}
	n.Labels, ns.Labels, p.Labels = maps.Clone(s.Labels), maps.Clone(s.Labels), maps.Clone(s.Labels)
	svc, _, _ := Service(s, nil)
	node, _, _ := Node(n)
	namespace, _, _ := Namespace(ns)
	pod, _, _ := Pod(p)
	for _, l := range []map[string]string{s.Labels, n.Labels, ns.Labels, p.Labels} {
		l["app"] = "changed"
	}
	for _, l := range []map[string]string{svc.Labels, node.Labels, namespace.Labels, pod.Labels} {
		if l["app"] != "web" {
			t.Errorf("labels %v changed with the object", l)
		}
	}
}

func TestSecret(t *testing.T) {
	type bytes = map[string][]byte
	rows := []struct {
		name string
		kind corev1.SecretType
		data bytes
		text map[string]string
		want model.Password
		says []string
	}{
		{name: "basic-auth", kind: corev1.SecretTypeBasicAuth, data: bytes{"username": []byte("x"), "password": []byte("pass")}, want: "pass"},
		{name: "of any type", kind: corev1.SecretTypeOpaque, data: bytes{"password": []byte("pass")}, want: "pass"},
		{name: "in the clear, which counts more", data: bytes{"password": []byte("old")}, text: map[string]string{"password": "pass"}, want: "pass"},
		{name: "nobody's password", kind: corev1.SecretTypeOpaque, data: bytes{"token": []byte("x")}},
		{name: "no password", kind: corev1.SecretTypeBasicAuth, data: bytes{"Password": []byte("pass")}, says: []string{`InvalidPassword: data: "" has no key password; add the password under this key`}},
		{name: "empty", data: bytes{"password": nil}, says: []string{`InvalidPassword: data[password]: "" cannot be used: the password is empty`}},
		{name: "line break", data: bytes{"password": []byte("geheim\n")}, says: []string{`InvalidPassword: data[password]: "(hidden)" cannot be used: the password holds a line break or a zero byte; correct it; echo adds a line break, printf does not`}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "tor", Namespace: "kube-system", UID: "u1"}, Type: row.kind, Data: row.data, StringData: row.text}
			secret, ok, problems := Secret(s)
			if ok != (row.want != "") || secret.Password != row.want || ok != (secret.Name == "tor") {
				t.Errorf("ok %v, secret %s with %q, want %q", ok, secret.Name, string(secret.Password), string(row.want))
			}
			checkProblems(t, problems, row.says, model.Problem{Kind: "Secret", Object: model.Name{Namespace: "kube-system", Name: "tor"}, UID: "u1"})
		})
	}
}

func TestNodeDrainedAndReady(t *testing.T) {
	ready := func(status corev1.ConditionStatus, since time.Time) func(*corev1.Node) {
		return func(n *corev1.Node) {
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeMemoryPressure, Status: "Unknown"}, {Type: corev1.NodeReady, Status: status, LastTransitionTime: metav1.NewTime(since)}}
		}
	}
	rows := []struct {
		name    string
		change  func(*corev1.Node)
		drained string
		since   time.Time
	}{
		{name: "as it is", change: func(*corev1.Node) {}},
		{name: "drained", change: func(n *corev1.Node) { n.Annotations = map[string]string{DrainNodeAnnotation: "true"} }, drained: "it has the annotation sluice.dev/drain"},
		{name: "drained by any word", change: func(n *corev1.Node) { n.Annotations = map[string]string{DrainNodeAnnotation: "no disk"} }, drained: "it has the annotation sluice.dev/drain"},
		{name: "not drained", change: func(n *corev1.Node) { n.Annotations = map[string]string{DrainNodeAnnotation: "false"} }},
		{name: "excluded, whatever the value", change: func(n *corev1.Node) { n.Labels = map[string]string{ExcludeLabel: "false"} }, drained: "it has the label node.kubernetes.io/exclude-from-external-load-balancers"},
		{name: "cordoned is none of our business", change: func(n *corev1.Node) { n.Spec.Unschedulable = true }},
		{name: "ready", change: ready(corev1.ConditionTrue, time.Unix(5000, 0))},
		{name: "not ready", change: ready(corev1.ConditionFalse, time.Unix(5000, 0)), since: time.Unix(5000, 0)},
		{name: "unknown", change: ready(corev1.ConditionUnknown, time.Unix(5000, 0)), since: time.Unix(5000, 0)},
		{name: "since it was made", change: ready(corev1.ConditionFalse, time.Time{}), since: time.Unix(1000, 0)},
		{name: "since long ago", change: func(n *corev1.Node) {
			ready("", time.Time{})(n)
			n.CreationTimestamp = metav1.Time{}
		}, since: time.Unix(1, 0)},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			n := &corev1.Node{ObjectMeta: ownMeta("n1")}
			row.change(n)
			node, _, problems := Node(n)
			if node.Drained != row.drained || !node.NotReady.Equal(row.since) || problems != nil {
				t.Errorf("drained %q, not ready %v, problems %v; want %q, %v", node.Drained, node.NotReady, problems, row.drained, row.since)
			}
		})
	}
}
