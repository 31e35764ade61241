package convert

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/internal/model"
)

func addrs(texts ...string) (list []netip.Addr) {
	for _, t := range texts {
		list = append(list, netip.MustParseAddr(t))
	}
	return list
}

func cidrs(texts ...string) (list []netip.Prefix) {
	for _, t := range texts {
		list = append(list, netip.MustParsePrefix(t))
	}
	return list
}

// known is a node that has three schedulers.
func known(name string) bool { return slices.Contains([]string{"rr", "wlc", "mh"}, name) }

// plain is the Service that rows change, and plainFact what it means.
func plain() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web", Namespace: "shop", UID: "u1",
			CreationTimestamp: metav1.Unix(1000, 0),
			Labels:            map[string]string{"app": "web"},
		},
		Spec: corev1.ServiceSpec{
			Type:       corev1.ServiceTypeClusterIP,
			ClusterIP:  "10.96.0.1",
			ClusterIPs: []string{"10.96.0.1"},
			Ports:      []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}},
		},
	}
}

func plainFact() model.Service {
	return model.Service{
		Name:       model.Name{Namespace: "shop", Name: "web"},
		UID:        "u1",
		Created:    time.Unix(1000, 0),
		Labels:     map[string]string{"app": "web"},
		ClusterIPs: addrs("10.96.0.1"),
		Ports:      []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80}},
	}
}

func TestServiceNotOurs(t *testing.T) {
	rows := []struct {
		name   string
		change func(*corev1.Service)
	}{
		{"no cluster IP", func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "", nil }},
		{"empty first cluster IP", func(s *corev1.Service) { s.Spec.ClusterIPs = []string{""} }},
		{"headless", func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "None", []string{"None"} }},
		{"headless by clusterIP alone", func(s *corev1.Service) { s.Spec.ClusterIP = "None" }},
		{"headless label", func(s *corev1.Service) { s.Labels[HeadlessLabel] = "" }},
		{"ExternalName with a cluster IP", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }},
		{"another proxy's", func(s *corev1.Service) { s.Labels[ProxyNameLabel] = "cilium" }},
		{"another proxy's, empty value", func(s *corev1.Service) { s.Labels[ProxyNameLabel] = "" }},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s := plain()
			row.change(s)
			svc, ok, problems := Service(s, known)
			if ok || problems != nil || !reflect.DeepEqual(svc, model.Service{}) {
				t.Fatalf("got %v, ok %v, problems %v; want nothing", svc, ok, problems)
			}
		})
	}
}

func TestServiceFields(t *testing.T) {
	clientIP := func(seconds *int32) func(*corev1.Service) {
		return func(s *corev1.Service) {
			s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
			s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: seconds}}
		}
	}
	ingress := func(list ...corev1.LoadBalancerIngress) func(*corev1.Service) {
		return func(s *corev1.Service) {
			s.Spec.Type = corev1.ServiceTypeLoadBalancer
			s.Status.LoadBalancer.Ingress = list
		}
	}
	rows := []struct {
		name   string
		change func(*corev1.Service)
		want   func(*model.Service)
		says   []string // "reason: part of message", in order
	}{
		{name: "as it is"},
		{
			name:   "clusterIP alone",
			change: func(s *corev1.Service) { s.Spec.ClusterIPs = nil },
		},
		{
			name:   "clusterIPs alone",
			change: func(s *corev1.Service) { s.Spec.ClusterIP = "" },
		},
		{
			name:   "dual stack",
			change: func(s *corev1.Service) { s.Spec.ClusterIPs = []string{"10.96.0.1", "fd00::1"} },
			want:   func(w *model.Service) { w.ClusterIPs = addrs("10.96.0.1", "fd00::1") },
		},
		{
			name:   "4-in-6 is unmapped, and then a duplicate",
			change: func(s *corev1.Service) { s.Spec.ClusterIPs = []string{"10.96.0.1", "::ffff:10.96.0.1"} },
		},
		{
			name:   "leading zeros are decimal, as for the API server",
			change: func(s *corev1.Service) { s.Spec.ClusterIPs = []string{"010.096.000.001"} },
		},
		{
			name:   "a cluster IP that does not parse",
			change: func(s *corev1.Service) { s.Spec.ClusterIPs = []string{"10.96.0.1", "fd00::g"} },
			says:   []string{`InvalidAddress: spec.clusterIPs[1]: "fd00::g" is not an IP address; correct or remove it`},
		},
		{
			name:   "a cluster IP with a zone",
			change: func(s *corev1.Service) { s.Spec.ClusterIPs = []string{"10.96.0.1", "fe80::1%eth0"} },
			says:   []string{`InvalidAddress: spec.clusterIPs[1]: "fe80::1%eth0" has a zone`},
		},
		{
			name: "external IPs: what may not be one is left out, the rest stays, once",
			change: func(s *corev1.Service) {
				s.Spec.ExternalIPs = []string{"192.0.2.1", "127.0.0.1", "169.254.1.1", "224.0.0.1", "0.0.0.0", "255.255.255.255", "::1", "fe80::1", "192.0.2.1", "2001:db8::1"}
			},
			want: func(w *model.Service) { w.ExternalIPs = addrs("192.0.2.1", "2001:db8::1") },
			says: []string{
				`InvalidAddress: spec.externalIPs[1]: "127.0.0.1" is a loopback address`,
				`InvalidAddress: spec.externalIPs[2]: "169.254.1.1" is a link-local address`,
				`InvalidAddress: spec.externalIPs[3]: "224.0.0.1" is not a unicast address`,
				`InvalidAddress: spec.externalIPs[4]: "0.0.0.0" is not a unicast address`,
				`InvalidAddress: spec.externalIPs[5]: "255.255.255.255" is not a unicast address`,
				`InvalidAddress: spec.externalIPs[6]: "::1" is a loopback address`,
				`InvalidAddress: spec.externalIPs[7]: "fe80::1" is a link-local address`,
			},
		},
		{
			name: "load balancer: IP with ipMode nil or VIP only",
			change: ingress(
				corev1.LoadBalancerIngress{IP: "192.0.2.1"},
				corev1.LoadBalancerIngress{IP: "192.0.2.2", IPMode: new(corev1.LoadBalancerIPModeVIP)},
				corev1.LoadBalancerIngress{IP: "192.0.2.3", IPMode: new(corev1.LoadBalancerIPModeProxy)},
				corev1.LoadBalancerIngress{Hostname: "lb.example.org"},
				corev1.LoadBalancerIngress{IP: "192.0.2.1"},
				corev1.LoadBalancerIngress{IP: "fd00::1", Hostname: "lb.example.org"},
			),
			want: func(w *model.Service) { w.LoadBalancerIPs = addrs("192.0.2.1", "192.0.2.2", "fd00::1") },
		},
		{
			name:   "load balancer: a link-local address is some clouds' way",
			change: ingress(corev1.LoadBalancerIngress{IP: "169.254.171.1"}),
			want:   func(w *model.Service) { w.LoadBalancerIPs = addrs("169.254.171.1") },
		},
		{
			name:   "load balancer: nonsense",
			change: ingress(corev1.LoadBalancerIngress{IP: "lb"}, corev1.LoadBalancerIngress{IP: "::"}),
			says: []string{
				`InvalidAddress: status.loadBalancer.ingress[0].ip: "lb" is not an IP address`,
				`InvalidAddress: status.loadBalancer.ingress[1].ip: "::" is not a unicast address`,
			},
		},
		{
			name: "load balancer: a mode that is none",
			change: ingress(
				corev1.LoadBalancerIngress{IP: "192.0.2.1", IPMode: new(corev1.LoadBalancerIPMode("vip"))},
				corev1.LoadBalancerIngress{IP: "192.0.2.2", IPMode: new(corev1.LoadBalancerIPMode(""))},
				corev1.LoadBalancerIngress{Hostname: "lb.example.org", IPMode: new(corev1.LoadBalancerIPMode("none"))},
			),
			says: []string{
				`InvalidIPMode: status.loadBalancer.ingress[0].ipMode: "vip" is not a mode; use "VIP" or "Proxy"`,
				`InvalidIPMode: status.loadBalancer.ingress[1].ipMode: ""`,
			},
		},
		{
			name:   "a type that is none",
			change: func(s *corev1.Service) { s.Spec.Type = "Loadbalancer" },
			says:   []string{`InvalidType: spec.type: "Loadbalancer" is not a type of Services; use "ClusterIP", "NodePort", "LoadBalancer" or "ExternalName"; until then it counts as ClusterIP`},
		},
		{
			name: "load balancer: the status counts whatever the type, as in kube-proxy",
			change: func(s *corev1.Service) {
				s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}}
			},
			want: func(w *model.Service) { w.LoadBalancerIPs = addrs("192.0.2.1") },
		},
		{
			name: "ports: protocols, no protocol is TCP, one number with several protocols, node ports",
			change: func(s *corev1.Service) {
				s.Spec.Ports = []corev1.ServicePort{
					{Name: "a", Port: 53, NodePort: 30053},
					{Name: "b", Port: 53, Protocol: "UDP", NodePort: 30053},
					{Name: "c", Port: 53, Protocol: "SCTP"},
				}
			},
			want: func(w *model.Service) {
				w.Ports = []model.ServicePort{
					{Name: "a", Protocol: model.TCP, Port: 53, NodePort: 30053},
					{Name: "b", Protocol: model.UDP, Port: 53, NodePort: 30053},
					{Name: "c", Protocol: model.SCTP, Port: 53},
				}
			},
		},
		{
			name: "ports: wrong ones are left out one by one",
			change: func(s *corev1.Service) {
				s.Spec.Ports = []corev1.ServicePort{
					{Name: "zero", Port: 0}, {Name: "big", Port: 65536}, {Name: "icmp", Port: 1, Protocol: "ICMP"},
					{Name: "http", Port: 80, NodePort: 70000}, {Name: "http", Port: 80},
					{Name: "other", Port: 80}, {Name: "negative", Port: -1},
				}
			},
			says: []string{
				`InvalidPort: spec.ports[0].port: "0" is not a port number; use a number from 1 to 65535`,
				`InvalidPort: spec.ports[1].port: "65536"`,
				`InvalidProtocol: spec.ports[2].protocol: "ICMP" is not a protocol of Services; use TCP, UDP or SCTP`,
				`InvalidPort: spec.ports[3].nodePort: "70000"`,
				`InvalidPort: spec.ports[5].port: "80" stands twice`,
				`InvalidPort: spec.ports[6].port: "-1"`,
			},
		},
		{
			name: "policies Local",
			change: func(s *corev1.Service) {
				s.Spec.Type = corev1.ServiceTypeNodePort
				s.Spec.ExternalTrafficPolicy, s.Spec.InternalTrafficPolicy = "Local", new(corev1.ServiceInternalTrafficPolicyLocal)
			},
			want: func(w *model.Service) { w.ExternalLocal, w.InternalLocal = true, true },
		},
		{
			name: "external policy Local of a Service with external IPs",
			change: func(s *corev1.Service) {
				s.Spec.ExternalTrafficPolicy, s.Spec.ExternalIPs = "Local", []string{"192.0.2.1"}
			},
			want: func(w *model.Service) { w.ExternalLocal, w.ExternalIPs = true, addrs("192.0.2.1") },
		},
		{
			name: "external policy Local that a former type left behind, as in kube-proxy",
			change: func(s *corev1.Service) {
				ingress(corev1.LoadBalancerIngress{IP: "192.0.2.1"})(s)
				s.Spec.Type, s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = corev1.ServiceTypeClusterIP, "Local", 32000
			},
			want: func(w *model.Service) { w.LoadBalancerIPs = addrs("192.0.2.1") },
			says: []string{`InvalidTrafficPolicy: spec.externalTrafficPolicy: "Local" needs type NodePort or LoadBalancer, or external IPs; set one of these or remove it`},
		},
		{
			name: "policies Cluster",
			change: func(s *corev1.Service) {
				s.Spec.ExternalTrafficPolicy, s.Spec.InternalTrafficPolicy = "Cluster", new(corev1.ServiceInternalTrafficPolicyCluster)
			},
		},
		{
			name: "policies unknown",
			change: func(s *corev1.Service) {
				s.Spec.ExternalTrafficPolicy, s.Spec.InternalTrafficPolicy = "local", new(corev1.ServiceInternalTrafficPolicy("Node"))
			},
			says: []string{
				`InvalidTrafficPolicy: spec.externalTrafficPolicy: "local" is not a policy; use "Cluster" or "Local"`,
				`InvalidTrafficPolicy: spec.internalTrafficPolicy: "Node"`,
			},
		},
		{name: "affinity None", change: func(s *corev1.Service) { s.Spec.SessionAffinity = "None" }},
		{
			name:   "affinity without config",
			change: func(s *corev1.Service) { s.Spec.SessionAffinity = "ClientIP" },
			want:   func(w *model.Service) { w.Affinity = 3 * time.Hour },
		},
		{name: "affinity without timeout", change: clientIP(nil), want: func(w *model.Service) { w.Affinity = 3 * time.Hour }},
		{name: "affinity of a minute", change: clientIP(new(int32(60))), want: func(w *model.Service) { w.Affinity = time.Minute }},
		{name: "affinity of a day", change: clientIP(new(int32(86400))), want: func(w *model.Service) { w.Affinity = 24 * time.Hour }},
		{
			name: "affinity too long", change: clientIP(new(int32(86401))),
			want: func(w *model.Service) { w.Affinity = 24 * time.Hour },
			says: []string{`InvalidSessionAffinity: spec.sessionAffinityConfig.clientIP.timeoutSeconds: "86401" is out of range; use 1 to 86400 seconds; until then it counts as 86400`},
		},
		{
			name: "affinity too short", change: clientIP(new(int32(0))),
			want: func(w *model.Service) { w.Affinity = time.Second },
			says: []string{`InvalidSessionAffinity: spec.sessionAffinityConfig.clientIP.timeoutSeconds: "0"`},
		},
		{
			name:   "affinity unknown",
			change: func(s *corev1.Service) { s.Spec.SessionAffinity = "Cookie" },
			says:   []string{`InvalidSessionAffinity: spec.sessionAffinity: "Cookie"`},
		},
		{
			name:   "scheduler",
			change: func(s *corev1.Service) { s.Annotations = map[string]string{SchedulerAnnotation: "mh"} },
			want:   func(w *model.Service) { w.Scheduler = "mh" },
		},
		{
			name:   "scheduler by alias",
			change: func(s *corev1.Service) { s.Annotations = map[string]string{SchedulerAnnotationAlias: " wlc "} },
			want:   func(w *model.Service) { w.Scheduler = "wlc" },
		},
		{
			name: "scheduler: ours wins",
			change: func(s *corev1.Service) {
				s.Annotations = map[string]string{SchedulerAnnotation: "rr", SchedulerAnnotationAlias: "nonsense"}
			},
			want: func(w *model.Service) { w.Scheduler = "rr" },
		},
		{
			name: "scheduler: ours wins even when refused",
			change: func(s *corev1.Service) {
				s.Annotations = map[string]string{SchedulerAnnotation: "maglev", SchedulerAnnotationAlias: "rr"}
			},
			says: []string{`UnknownScheduler: metadata.annotations[sluice.dev/scheduler]: "maglev" is not a scheduler of this node; the node's default is used; known are rr, wlc, mh`},
		},
		{
			name:   "scheduler refused by alias",
			change: func(s *corev1.Service) { s.Annotations = map[string]string{SchedulerAnnotationAlias: "sh"} },
			says:   []string{`UnknownScheduler: metadata.annotations[kube-router.io/service.scheduler]: "sh"`},
		},
		{
			name:   "scheduler empty",
			change: func(s *corev1.Service) { s.Annotations = map[string]string{SchedulerAnnotation: ""} },
		},
		{
			name: "source ranges: trimmed, masked, unmapped, once",
			change: func(s *corev1.Service) {
				s.Spec.LoadBalancerSourceRanges = []string{" 10.0.0.0/8 ", "10.1.2.3/8", "::ffff:192.0.2.0/120", "fd00::/8", "010.0.0.0/8"}
			},
			want: func(w *model.Service) { w.SourceRanges = cidrs("10.0.0.0/8", "192.0.2.0/24", "fd00::/8") },
		},
		{
			name: "source ranges: a wrong one narrows",
			change: func(s *corev1.Service) {
				ingress(corev1.LoadBalancerIngress{IP: "192.0.2.1"})(s)
				s.Spec.LoadBalancerSourceRanges = []string{"10.0.0.0/8", "192.0.2.1"}
			},
			want: func(w *model.Service) {
				w.LoadBalancerIPs, w.SourceRanges = addrs("192.0.2.1"), cidrs("10.0.0.0/8")
			},
			says: []string{`InvalidSourceRange: spec.loadBalancerSourceRanges[1]: "192.0.2.1" is not a CIDR; write it as a CIDR`},
		},
		{
			name: "source ranges: only wrong ones never open the door",
			change: func(s *corev1.Service) {
				ingress(corev1.LoadBalancerIngress{IP: "192.0.2.1"})(s)
				s.Spec.LoadBalancerSourceRanges = []string{"ten"}
			},
			says: []string{
				`InvalidSourceRange: spec.loadBalancerSourceRanges[0]: "ten" is not a CIDR`,
				`NoValidSourceRange: spec.loadBalancerSourceRanges: "ten" holds no valid range, so the load balancer addresses are not served`,
			},
		},
		{
			name: "source ranges: the annotation is for the cloud's load balancer alone, as in kube-proxy",
			change: func(s *corev1.Service) {
				ingress(corev1.LoadBalancerIngress{IP: "192.0.2.1"})(s)
				s.Annotations = map[string]string{"service.beta.kubernetes.io/load-balancer-source-ranges": "10.0.0.0/8"}
			},
			want: func(w *model.Service) { w.LoadBalancerIPs = addrs("192.0.2.1") },
		},
		{
			name: "source ranges: blanks are no range",
			change: func(s *corev1.Service) {
				ingress(corev1.LoadBalancerIngress{IP: "192.0.2.1"})(s)
				s.Spec.LoadBalancerSourceRanges = []string{" "}
			},
			says: []string{`InvalidSourceRange: spec.loadBalancerSourceRanges[0]: " " is not a CIDR`, `NoValidSourceRange`},
		},
		{
			name: "health port",
			change: func(s *corev1.Service) {
				s.Spec.Type, s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = "LoadBalancer", "Local", 32000
			},
			want: func(w *model.Service) { w.ExternalLocal, w.HealthPort = true, 32000 },
		},
		{
			name:   "health port without the policy",
			change: func(s *corev1.Service) { s.Spec.Type, s.Spec.HealthCheckNodePort = "LoadBalancer", 32000 },
		},
		{
			name: "health port of a NodePort Service",
			change: func(s *corev1.Service) {
				s.Spec.Type, s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = "NodePort", "Local", 32000
			},
			want: func(w *model.Service) { w.ExternalLocal = true },
		},
		{
			name: "health port out of range",
			change: func(s *corev1.Service) {
				s.Spec.Type, s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = "LoadBalancer", "Local", 99999
			},
			want: func(w *model.Service) { w.ExternalLocal = true },
			says: []string{`InvalidPort: spec.healthCheckNodePort: "99999"`},
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			given, want := plain(), plainFact()
			if row.change != nil {
				row.change(given)
			}
			if row.want != nil {
				row.want(&want)
			}
			before := given.DeepCopy()
			got, ok, problems := Service(given, known)
			if !ok {
				t.Fatal("not ours")
			}
			got.Balancer = model.Balancer{} // has a table of its own
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			if !reflect.DeepEqual(given, before) {
				t.Error("the object was changed")
			}
			checkProblems(t, problems, row.says, model.Problem{Kind: "Service", Object: want.Name, UID: "u1"})
		})
	}
}

func TestServiceDrain(t *testing.T) {
	rows := []struct {
		given string
		want  time.Duration
		says  string // beginning of the problem, after the field
	}{
		{given: "", want: 0},
		{given: " ", want: 0},
		{given: "90s", want: 90 * time.Second},
		{given: " 10m ", want: 10 * time.Minute},
		{given: "1h30m", want: 90 * time.Minute},
		{given: "500ms", want: 500 * time.Millisecond},
		{given: "90", want: 90 * time.Second},
		{given: "090", want: 90 * time.Second},
		{given: "0", want: DrainNone},
		{given: "0s", want: DrainNone},
		{given: "-0s", want: DrainNone},
		{given: "86400", want: 24 * time.Hour},
		{given: "24h", want: 24 * time.Hour},
		{given: "24h0m1s", want: 24 * time.Hour, says: `"24h0m1s" is too long; write it as "90s", "10m" or a number of seconds, from 0 to 24h; until then it counts as 24h`},
		{given: "86401", want: 24 * time.Hour, says: `"86401" is too long`},
		{given: "4294967295", want: 24 * time.Hour, says: `"4294967295" is too long`},
		{given: "-1s", says: `"-1s" is negative; write it as "90s", "10m" or a number of seconds, from 0 to 24h; until then the node's default is used`},
		{given: "-90", says: `"-90" is not a duration`},
		{given: "1h30", says: `"1h30" is not a duration`},
		{given: "10 m", says: `"10 m" is not a duration`},
		{given: "forever", says: `"forever" is not a duration`},
		{given: "99999999999999999999", says: `"99999999999999999999" is not a duration`},
		{given: "9999999999h", says: `"9999999999h" is not a duration`},
	}
	for _, row := range rows {
		t.Run(row.given, func(t *testing.T) {
			s := plain()
			s.Annotations = map[string]string{DrainAnnotation: row.given}
			svc, ok, problems := Service(s, nil)
			if !ok || svc.Drain != row.want {
				t.Errorf("drains for %v, want %v", svc.Drain, row.want)
			}
			var says []string
			if row.says != "" {
				says = []string{"InvalidDrainTimeout: metadata.annotations[sluice.dev/drain-timeout]: " + row.says}
			}
			checkProblems(t, problems, says, model.Problem{Kind: "Service", Object: svc.Name, UID: "u1"})
		})
	}
}

func TestServiceUrgent(t *testing.T) {
	rows := []struct {
		namespace, name, label, value string
		want                          bool
	}{
		{namespace: "default", name: "kubernetes", want: true},
		{namespace: "default", name: "kubernetes2"},
		{namespace: "kube-system", name: "kubernetes"},
		{namespace: "kube-system", name: "kube-dns", want: true},
		{namespace: "kube-system", name: "coredns", want: true},
		{namespace: "kube-system", name: "dns", label: "k8s-app", value: "kube-dns", want: true},
		{namespace: "kube-system", name: "rke2-coredns-rke2-coredns", label: "kubernetes.io/name", value: "CoreDNS", want: true},
		{namespace: "kube-system", name: "metrics-server", label: "k8s-app", value: "metrics-server"},
		{namespace: "kube-system", name: "metrics-server", label: "kubernetes.io/name", value: "Metrics-server"},
		{namespace: "shop", name: "kube-dns", label: "k8s-app", value: "kube-dns"},
		{namespace: "default", name: "coredns", label: "kubernetes.io/name", value: "CoreDNS"},
	}
	for _, row := range rows {
		t.Run(row.namespace+"/"+row.name, func(t *testing.T) {
			s := plain()
			s.Namespace, s.Name = row.namespace, row.name
			if row.label != "" {
				s.Labels[row.label] = row.value
			}
			if svc, ok, _ := Service(s, nil); !ok || svc.Urgent != row.want {
				t.Errorf("ok %v, urgent %v, want %v", ok, svc.Urgent, row.want)
			}
		})
	}
}

// checkProblems compares problems with "reason: beginning of message" lines.
func checkProblems(t *testing.T, got []model.Problem, want []string, of model.Problem) {
	t.Helper()
	for i, p := range got {
		if p.Kind != of.Kind || p.Object != of.Object || p.UID != of.UID {
			t.Errorf("problem of %s %s (%s), want %s %s (%s)", p.Kind, p.Object, p.UID, of.Kind, of.Object, of.UID)
		}
		if line := p.Reason + ": " + p.Message; i >= len(want) || !strings.HasPrefix(line, want[i]) {
			t.Errorf("unexpected problem %d: %s", i, line)
		}
	}
	if len(got) < len(want) {
		t.Errorf("missing problems: %q", want[len(got):])
	}
}

func TestServiceThousandsOfPorts(t *testing.T) {
	s := plain()
	s.Spec.Ports = nil
	for i := range 20000 {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint(i), Port: int32(i%10000) + 1, Protocol: "TCP"})
	}
	svc, _, problems := Service(s, nil)
	if len(svc.Ports) != 10000 {
		t.Errorf("%d ports, want 10000", len(svc.Ports))
	}
	if len(problems) != maxProblems+1 || problems[maxProblems].Reason != MoreProblems ||
		!strings.HasPrefix(problems[maxProblems].Message, "and 9990 problems more") {
		t.Errorf("problems %v", problems)
	}
}

func TestServiceEveryScheduler(t *testing.T) {
	s := plain()
	s.Annotations = map[string]string{SchedulerAnnotation: "anything"}
	if svc, _, problems := Service(s, nil); svc.Scheduler != "anything" || problems != nil {
		t.Errorf("scheduler %q, problems %v", svc.Scheduler, problems)
	}
}

func TestDistinct(t *testing.T) {
	var d distinct[int]
	for range 3 {
		for i := range 30 {
			d.add(i / 2)
		}
	}
	if len(d.list) != 15 || !slices.IsSorted(d.list) {
		t.Errorf("got %v", d.list)
	}
}

func BenchmarkService(b *testing.B) {
	s := plain()
	b.ReportAllocs()
	for b.Loop() {
		Service(s, nil)
	}
}
