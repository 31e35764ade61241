package sourcetest

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/model"
)

// networkLine is the line of what is known of pools, peers and the like.
func networkLine(fact any) string {
	var w words
	switch f := fact.(type) {
	case model.AddressPool:
		w = words{fmt.Sprintf("pool %s %s:", f.Name, f.UID)}
		for _, r := range f.Ranges {
			w.say(true, "%s-%s", r.First, r.Last)
		}
		w.say(!f.AutoAssign, "by name")
		w.say(f.Disabled, "disabled")
		w.say(len(f.Labels) > 0, "labels %v", f.Labels)
	case model.Peer:
		w = words{fmt.Sprintf("peer %s %s: %s AS%d from AS%d, %v/%v", f.Name, f.UID, f.Addr, f.ASN, f.MyASN, f.Hold, f.Keepalive)}
		w.say(f.Restart > 0, "restarts in %v", f.Restart)
		w.say(f.Secret != "", "secret %s", f.Secret)
		w.say(f.Password != "", "password %s", string(f.Password))
		w.say(len(f.Families) > 0, "tells %v", f.Families)
	case model.Advertisement:
		w = words{fmt.Sprintf("advertisement %s %s:", f.Name, f.UID)}
		w.say(len(f.Pools) > 0, "of %v", f.Pools)
		w.say(len(f.Peers) > 0, "to %v", f.Peers)
		w.say(len(f.Communities) > 0, "communities %x", f.Communities)
		w.say(f.Length4 > 0, "as /%d", f.Length4)
	case model.Secret:
		w = words{fmt.Sprintf("secret %s: %s", f.Name, string(f.Password))}
	case model.Namespace:
		w = words{fmt.Sprintf("namespace %s: %v", f.Name, f.Labels)}
	}
	return strings.Join(w, " ")
}

// meta is the metadata of a cluster-wide object with a label; "": none.
func meta(name, tier string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Name: name, UID: "u1"}
	if tier != "" {
		m.Labels = map[string]string{"tier": tier}
	}
	return m
}

func typeMeta(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: kind}
}

// requests are what a Service may ask of the allocator.
func requests() Life {
	lb := balancer(corev1.LoadBalancerIngress{IP: "192.0.2.1"})
	const line = web + ", balancer [192.0.2.1]"
	by := func(ip string) change { return func(s *corev1.Service) { s.Spec.LoadBalancerIP = ip } }
	class := func(s *corev1.Service) { s.Spec.LoadBalancerClass = new("sluice.dev/bgp") }
	dual := func(s *corev1.Service) {
		s.Spec.IPFamilies, s.Spec.IPFamilyPolicy = []corev1.IPFamily{"IPv6", "IPv4"}, new(corev1.IPFamilyPolicyPreferDualStack)
	}
	const ours, theirs = "sluice.dev/load-balancer-ips", "metallb.io/loadBalancerIPs"
	return Life{"what a Service asks of the allocator", []Step{
		{"nothing", objects(service(lb)), []string{line}},
		{"an address by the field", objects(service(lb, by("192.0.2.5"))), []string{line + ", asks for [192.0.2.5]"}},
		{"by annotation", objects(service(lb, annotation(ours, "192.0.2.6, 2001:db8::6"))), []string{line + ", asks for [192.0.2.6 2001:db8::6]"}},
		{"by both, alike", objects(service(lb, by("192.0.2.5"), annotation(theirs, "192.0.2.5"))), []string{line + ", asks for [192.0.2.5]"}},
		{"by both, unlike", objects(service(lb, by("192.0.2.5"), annotation(theirs, "192.0.2.6"))), []string{line + ", asks for what is unclear"}},
		{"badly", objects(service(lb, annotation(ours, "192.0.2.x"))), []string{line + ", asks for what is unclear"}},
		{"by name of a pool", objects(service(lb, annotation("metallb.io/address-pool", "blue"))), []string{line + ", from pool blue"}},
		{"sharing", objects(service(lb, annotation("sluice.dev/allow-shared-ip", "web"))), []string{line + ", shares by web"}},
		{"again", objects(service(lb, annotation("sluice.dev/reallocate", "1"))), []string{line + ", reallocated 1"}},
		{"of a class", objects(service(lb, class)), []string{line + ", class sluice.dev/bgp"}},
		{"of both families", objects(service(lb, dual)), []string{line + ", dual stack 1 of [IPv6 IPv4]"}},
		{"by its labels", objects(service(lb, label("app", "web"))), []string{line + ", app web"}},
		{"nothing any more: another type", objects(service(class, annotation(ours, "192.0.2.x"))), []string{web}},
	}}
}

func nodeDrains() Life {
	const line = "node n2: [192.0.2.2], in zone-b"
	n := func(annotation string, labels ...string) *corev1.Node {
		n := node("n2", "b", "192.0.2.2")
		n.Annotations = map[string]string{"sluice.dev/drain": annotation}
		for _, l := range labels {
			n.Labels[l] = ""
		}
		return n
	}
	const exclude = "node.kubernetes.io/exclude-from-external-load-balancers"
	return Life{"a Node that is drained", []Step{
		{"not so", objects(n("")), []string{line}},
		{"by annotation", objects(n("for repair")), []string{line + ", drained: it has the annotation sluice.dev/drain"}},
		{"not any more", objects(n("false")), []string{line}},
		{"by label", objects(n("", exclude)), []string{line + ", drained: it has the label " + exclude}},
		{"at last not", objects(node("n2", "b", "192.0.2.2")), []string{line}},
	}}
}

func nodeNotReady() Life {
	const line = "node n2: [192.0.2.2], in zone-b"
	n := func(status corev1.ConditionStatus, since, created int64) *corev1.Node {
		n := node("n2", "b", "192.0.2.2")
		c := corev1.NodeCondition{Type: corev1.NodeReady, Status: status}
		if since > 0 {
			c.LastTransitionTime = metav1.NewTime(time.Unix(since, 0))
		}
		if created > 0 {
			n.CreationTimestamp = metav1.NewTime(time.Unix(created, 0))
		}
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeDiskPressure, Status: corev1.ConditionUnknown}, c}
		return n
	}
	return Life{"a Node that is not ready", []Step{
		{"ready", objects(n(corev1.ConditionTrue, 1e9, 0)), []string{line}},
		{"not ready", objects(n(corev1.ConditionFalse, 1e9, 0)), []string{line + ", not ready since 2001-09-09T01:46:40Z"}},
		{"unknown", objects(n(corev1.ConditionUnknown, 1e9+1, 0)), []string{line + ", not ready since 2001-09-09T01:46:41Z"}},
		{"ready again", objects(n(corev1.ConditionTrue, 1e9+2, 0)), []string{line}},
		{"since it was made", objects(n(corev1.ConditionFalse, 0, 1e9)), []string{line + ", not ready since 2001-09-09T01:46:40Z"}},
		{"nothing is said", objects(node("n2", "b", "192.0.2.2")), []string{line}},
		{"nobody knows since when", objects(n(corev1.ConditionFalse, 0, 0)), []string{line + ", not ready since 1970-01-01T00:00:01Z"}},
	}}
}

func pools() Life {
	p := func(changes ...func(*v1alpha1.AddressPool)) *v1alpha1.AddressPool {
		p := &v1alpha1.AddressPool{
			TypeMeta: typeMeta(v1alpha1.AddressPoolKind), ObjectMeta: meta("blue", "one"),
			Spec: v1alpha1.AddressPoolSpec{Addresses: []v1alpha1.AddressRange{"192.0.2.0/30"}},
		}
		for _, c := range changes {
			c(p)
		}
		return p
	}
	ranges := func(list ...v1alpha1.AddressRange) func(*v1alpha1.AddressPool) {
		return func(p *v1alpha1.AddressPool) { p.Spec.Addresses = list }
	}
	closed := func(p *v1alpha1.AddressPool) { p.Spec.AutoAssign, p.Spec.Disabled = new(false), true }
	const line = "pool blue u1: 192.0.2.0-192.0.2.3 labels map[tier:one]"
	return Life{"AddressPools", []Step{
		{"unusable", objects(p(ranges("192.0.2.0"))), nil},
		{"usable", objects(p()), []string{line}},
		{"one bad range of two", objects(p(ranges("192.0.2.9-192.0.2.8", "192.0.2.0/30"))), []string{line}},
		{
			"ranges that overlap", objects(p(ranges("192.0.2.2 - 192.0.2.5", "192.0.2.0/30", "2001:db8::/127"))),
			[]string{"pool blue u1: 192.0.2.0-192.0.2.5 2001:db8::-2001:db8::1 labels map[tier:one]"},
		},
		{"closed", objects(p(closed)), []string{"pool blue u1: 192.0.2.0-192.0.2.3 by name disabled labels map[tier:one]"}},
		{"made anew", objects(p(func(p *v1alpha1.AddressPool) { p.UID, p.Labels = "u2", nil })), []string{"pool blue u2: 192.0.2.0-192.0.2.3"}},
		{"gone", nil, nil},
	}}
}

func peers() Life {
	p := func(changes ...func(*v1alpha1.BGPPeerSpec)) *v1alpha1.BGPPeer {
		p := &v1alpha1.BGPPeer{
			TypeMeta: typeMeta(v1alpha1.BGPPeerKind), ObjectMeta: meta("tor", ""),
			Spec: v1alpha1.BGPPeerSpec{PeerAddress: "192.0.2.1", PeerASN: 64513, MyASN: 64512},
		}
		for _, c := range changes {
			c(&p.Spec)
		}
		return p
	}
	secret := func(s *v1alpha1.BGPPeerSpec) { s.PasswordSecret = "tor" }
	restarts := func(s *v1alpha1.BGPPeerSpec) { s.GracefulRestart = &v1alpha1.GracefulRestart{} }
	other := func(s *v1alpha1.BGPPeerSpec) {
		s.PeerAddress, s.PeerPort, s.HoldTime, s.KeepaliveTime = "2001:db8::1", 1179, "1m", "5s"
		s.Families = []v1alpha1.Family{"ipv6"}
	}
	const line = "peer tor u1: 192.0.2.1:179 AS64513 from AS64512, 9s/3s"
	return Life{"BGPPeers", []Step{
		{"unusable", objects(p(func(s *v1alpha1.BGPPeerSpec) { s.PeerASN = 0 })), nil},
		{"usable", objects(p()), []string{line}},
		{"with a password", objects(p(secret)), []string{line + " secret tor"}},
		{"with graceful restart", objects(p(restarts)), []string{line + " restarts in 15s"}},
		{"elsewhere", objects(p(other)), []string{"peer tor u1: [2001:db8::1]:1179 AS64513 from AS64512, 1m0s/5s tells [IPv6]"}},
		{"gone", nil, nil},
	}}
}

func advertisements() Life {
	a := func(changes ...func(*v1alpha1.BGPAdvertisementSpec)) *v1alpha1.BGPAdvertisement {
		a := &v1alpha1.BGPAdvertisement{TypeMeta: typeMeta(v1alpha1.BGPAdvertisementKind), ObjectMeta: meta("all", "")}
		for _, c := range changes {
			c(&a.Spec)
		}
		return a
	}
	communities := func(list ...v1alpha1.Community) func(*v1alpha1.BGPAdvertisementSpec) {
		return func(s *v1alpha1.BGPAdvertisementSpec) { s.Communities = list }
	}
	some := func(s *v1alpha1.BGPAdvertisementSpec) {
		s.AddressPools, s.Peers, s.AggregationLength = []string{"blue"}, []string{"tor"}, new(int32(24))
	}
	return Life{"BGPAdvertisements", []Step{
		{"without its community rather not", objects(a(communities("64512:1", "64512:65536"))), nil},
		{"of everything", objects(a()), []string{"advertisement all u1:"}},
		{"with communities", objects(a(communities("64512:1", "65535:65281"))), []string{"advertisement all u1: communities [fc000001 ffffff01]"}},
		{"of some", objects(a(some)), []string{"advertisement all u1: of [blue] to [tor] as /24"}},
		{"gone", nil, nil},
	}}
}

func secrets() Life {
	s := func(password string) *corev1.Secret {
		s := &corev1.Secret{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: meta("tor", ""),
			Type: corev1.SecretTypeBasicAuth, Data: map[string][]byte{"username": []byte("bgp")},
		}
		s.Namespace = "kube-system"
		if password != "" {
			s.Data["password"] = []byte(password)
		}
		return s
	}
	return Life{"Secrets", []Step{
		{"one", objects(s("first")), []string{"secret tor: first"}},
		{"another password", objects(s("second")), []string{"secret tor: second"}},
		{"no password", objects(s("")), nil},
		{"with a line break", objects(s("third\n")), nil},
		{"back", objects(s("third")), []string{"secret tor: third"}},
		{"gone", nil, nil},
	}}
}

func namespaces() Life {
	n := func(tier string) *corev1.Namespace {
		return &corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: meta("shop", tier)}
	}
	return Life{"Namespaces", []Step{
		{"without labels", objects(n("")), []string{"namespace shop: map[kubernetes.io/metadata.name:shop]"}},
		{"with a label", objects(n("one")), []string{"namespace shop: map[kubernetes.io/metadata.name:shop tier:one]"}},
		{"gone", nil, nil},
	}}
}
