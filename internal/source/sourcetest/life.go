package sourcetest

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// Labels and annotations, as the API names them.
const (
	proxyName = "service.kubernetes.io/service-proxy-name"
	headless  = "service.kubernetes.io/headless"
	ofService = "kubernetes.io/service-name"
	trigger   = "endpoints.kubernetes.io/last-change-trigger-time"
	drain     = "sluice.dev/drain-timeout"
	scheduler = "sluice.dev/scheduler"
)

// Life is what happens to a cluster's objects.
type Life struct {
	Name  string
	Steps []Step
}

// Step is all that there is at one moment, and the lines of a Picture that must
// then be known.
type Step struct {
	Name    string
	Objects []runtime.Object
	Want    []string
}

// Lives are those that every source has to tell. The objects are not shared.
func Lives() []Life {
	lives := []Life{proxyNameOfService(), proxyNameOfSlice(), proxyNameOfBoth()}
	lives = append(lives, headlessLabels()...)
	lives = append(lives, headlessAddress(), leftovers(), nodePortsNotAllocated(), modes(), ranges(), wishes(), triggers(), nodes(), nodeLeaves())
	lives = append(lives, requests(), nodeDrains(), nodeNotReady(), pools(), peers(), advertisements(), secrets(), namespaces(), pods(), policies())
	return append(lives, typeChanges()...)
}

type change func(*corev1.Service)

// service is shop/web, changed.
func service(changes ...change) *corev1.Service {
	s := &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u1", Labels: map[string]string{}, Annotations: map[string]string{}},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.1", ClusterIPs: []string{"10.96.0.1"},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}},
		},
	}
	for _, c := range changes {
		c(s)
	}
	return s
}

const (
	web  = "service shop/web u1: [10.96.0.1], 80/TCP"
	webX = "slice shop/web-x of web: 10.0.0.1"
)

// slice is shop/web-x with labels and annotations: key, value, ...
func slice(labels ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web-x", UID: "u2",
			Labels: map[string]string{ofService: "web"}, Annotations: map[string]string{},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080)), Protocol: new(corev1.ProtocolTCP)}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}},
	}
	for i := 0; i < len(labels); i += 2 {
		s.Labels[labels[i]] = labels[i+1]
	}
	return s
}

func node(name, uid, addr string) *corev1.Node {
	return &corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(uid), Labels: map[string]string{corev1.LabelTopologyZone: "zone-" + uid}},
		Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: addr}}},
	}
}

func label(key, value string) change {
	return func(s *corev1.Service) { s.Labels[key] = value }
}

func annotation(key, value string) change {
	return func(s *corev1.Service) { s.Annotations[key] = value }
}

func balancer(list ...corev1.LoadBalancerIngress) change {
	return func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Status.LoadBalancer.Ingress = list
	}
}

func objects(list ...runtime.Object) []runtime.Object { return list }

func proxyNameOfService() Life {
	return Life{"another proxy's by the Service alone", []Step{
		{"ours", objects(service(), slice()), []string{webX, web}},
		{"another's", objects(service(label(proxyName, "other")), slice()), []string{webX}},
		{"still another's", objects(service(label(proxyName, "third")), slice()), []string{webX}},
		{"ours again, with its slices", objects(service(), slice()), []string{webX, web}},
		{"another's, by an empty name", objects(service(label(proxyName, "")), slice()), []string{webX}},
		{"gone as another's", objects(slice()), []string{webX}},
		{"made as another's", objects(service(label(proxyName, "other")), slice()), []string{webX}},
		{"ours at last", objects(service(), slice()), []string{webX, web}},
		{"gone", nil, nil},
	}}
}

func proxyNameOfSlice() Life {
	return Life{"another proxy's by the slice alone", []Step{
		{"made as another's", objects(service(), slice(proxyName, "")), []string{web}},
		{"ours", objects(service(), slice()), []string{webX, web}},
		{"another's", objects(service(), slice(proxyName, "other")), []string{web}},
		{"ours again", objects(service(), slice()), []string{webX, web}},
		{"another Service's", objects(service(), slice(ofService, "shop")), []string{"slice shop/web-x of shop: 10.0.0.1", web}},
		{"no Service's", objects(service(), slice(ofService, "")), []string{web}},
		{"ours once more", objects(service(), slice()), []string{webX, web}},
	}}
}

// proxyNameOfBoth is what happens in a cluster: the controller copies a Service's
// labels to its slices.
func proxyNameOfBoth() Life {
	return Life{"another proxy's by the Service, then by its slices", []Step{
		{"ours", objects(service(), slice()), []string{webX, web}},
		{"the Service is another's", objects(service(label(proxyName, "other")), slice()), []string{webX}},
		{"the slices follow", objects(service(label(proxyName, "other")), slice(proxyName, "other")), nil},
		{"the Service is ours", objects(service(), slice(proxyName, "other")), []string{web}},
		{"the slices follow again", objects(service(), slice()), []string{webX, web}},
		{"both at once", objects(service(label(proxyName, "other")), slice(proxyName, "other")), nil},
		{"and back", objects(service(), slice()), []string{webX, web}},
	}}
}

func headlessLabels() []Life {
	return []Life{
		{"headless by the Service's label", []Step{
			{"not so", objects(service(), slice()), []string{webX, web}},
			{"so", objects(service(label(headless, "")), slice()), []string{webX}},
			{"not so again", objects(service(), slice()), []string{webX, web}},
		}},
		{"headless by the slice's label", []Step{
			{"so", objects(service(), slice(headless, "")), []string{web}},
			{"not so", objects(service(), slice()), []string{webX, web}},
			{"so again", objects(service(), slice(headless, "true")), []string{web}},
			{"not so again", objects(service(), slice()), []string{webX, web}},
		}},
		{"headless and another proxy's", []Step{
			{"both", objects(service(label(headless, ""), label(proxyName, "x")), slice(headless, "", proxyName, "x")), nil},
			{"one of them", objects(service(label(headless, "")), slice(proxyName, "x")), nil},
			{"neither", objects(service(), slice()), []string{webX, web}},
		}},
	}
}

// headlessAddress: a cluster IP cannot be changed, so such a Service is made anew.
func headlessAddress() Life {
	none := func(s *corev1.Service) {
		s.UID, s.Spec.ClusterIP, s.Spec.ClusterIPs = "u3", corev1.ClusterIPNone, []string{corev1.ClusterIPNone}
	}
	return Life{"headless by its cluster IP", []Step{
		{"headless", objects(service(none), slice(headless, "")), nil},
		{"made anew with an address", objects(service(), slice()), []string{webX, web}},
		{"made anew without", objects(service(none), slice(headless, "")), nil},
	}}
}

// byType is a Service of a type as the API server keeps it, and what it means.
func byType(t corev1.ServiceType) (*corev1.Service, []string) {
	local := func(s *corev1.Service) {
		s.Spec.Type = t
		s.Spec.Ports[0].NodePort, s.Spec.ExternalTrafficPolicy = 30080, corev1.ServiceExternalTrafficPolicyLocal
	}
	switch t {
	case corev1.ServiceTypeExternalName:
		return service(func(s *corev1.Service) {
			s.Spec.Type, s.Spec.ExternalName, s.Spec.ClusterIP, s.Spec.ClusterIPs = t, "web.example.org", "", nil
		}), nil
	case corev1.ServiceTypeNodePort:
		return service(local), []string{web + " at 30080, external Local"}
	case corev1.ServiceTypeLoadBalancer:
		return service(balancer(corev1.LoadBalancerIngress{IP: "192.0.2.1"}), local, func(s *corev1.Service) { s.Spec.HealthCheckNodePort = 32000 }),
			[]string{web + " at 30080, balancer [192.0.2.1], external Local, health at 32000"}
	}
	return service(), []string{web}
}

// typeChanges are from every type to every other and back.
func typeChanges() []Life {
	all := []corev1.ServiceType{
		corev1.ServiceTypeExternalName, corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer,
	}
	var lives []Life
	for i, from := range all {
		for _, to := range all[i+1:] {
			life := Life{Name: fmt.Sprintf("%s and %s", from, to)}
			for _, t := range []corev1.ServiceType{from, to, from, to} {
				s, want := byType(t)
				life.Steps = append(life.Steps, Step{string(t), objects(s, slice()), append([]string{webX}, want...)})
			}
			lives = append(lives, life)
		}
	}
	return lives
}

// leftovers: an ExternalName Service may keep its cluster IP, and a load
// balancer's status stays until its controller has cleaned up. kube-proxy serves
// every address and node port that is there, whatever the type, but asks for the
// type before it reads externalTrafficPolicy and healthCheckNodePort.
func leftovers() Life {
	full, was := byType(corev1.ServiceTypeLoadBalancer)
	as := func(t corev1.ServiceType, changes ...change) *corev1.Service {
		s := full.DeepCopy()
		s.Spec.Type = t
		for _, c := range changes {
			c(s)
		}
		return s
	}
	noNodePort := func(s *corev1.Service) { s.Spec.Ports[0].NodePort = 0 }
	external := func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"192.0.2.9"} }
	return Life{"what former types leave behind", []Step{
		{"LoadBalancer", objects(full), was},
		{"NodePort with a status", objects(as("NodePort")), []string{web + " at 30080, balancer [192.0.2.1], external Local"}},
		{"ClusterIP with a node port and a status", objects(as("ClusterIP")), []string{web + " at 30080, balancer [192.0.2.1]"}},
		{"ClusterIP with a status", objects(as("ClusterIP", noNodePort)), []string{web + ", balancer [192.0.2.1]"}},
		{"ClusterIP with external IPs", objects(as("ClusterIP", external)), []string{web + " at 30080, external [192.0.2.9], balancer [192.0.2.1], external Local"}},
		{"ExternalName with everything", objects(as("ExternalName", external)), nil},
		{"NodePort 0", objects(as("NodePort", noNodePort)), []string{web + ", balancer [192.0.2.1], external Local"}},
		{"LoadBalancer again", objects(as("LoadBalancer")), was},
	}}
}

func nodePortsNotAllocated() Life {
	allocate := func(yes bool, port int32) change {
		return func(s *corev1.Service) {
			s.Spec.AllocateLoadBalancerNodePorts, s.Spec.Ports[0].NodePort = new(yes), port
		}
	}
	lb := balancer(corev1.LoadBalancerIngress{IP: "192.0.2.1"})
	return Life{"allocateLoadBalancerNodePorts", []Step{
		{"false", objects(service(lb, allocate(false, 0))), []string{web + ", balancer [192.0.2.1]"}},
		{"true", objects(service(lb, allocate(true, 30080))), []string{web + " at 30080, balancer [192.0.2.1]"}},
		{"false, and the port is kept", objects(service(lb, allocate(false, 30080))), []string{web + " at 30080, balancer [192.0.2.1]"}},
		{"false, and the port is given back", objects(service(lb, allocate(false, 0))), []string{web + ", balancer [192.0.2.1]"}},
	}}
}

func modes() Life {
	in := func(mode corev1.LoadBalancerIPMode) corev1.LoadBalancerIngress {
		return corev1.LoadBalancerIngress{IP: "192.0.2.1", IPMode: new(mode)}
	}
	other := corev1.LoadBalancerIngress{IP: "192.0.2.2"}
	return Life{"ipMode", []Step{
		{"pending", objects(service(balancer())), []string{web}},
		{"VIP", objects(service(balancer(in("VIP"), other))), []string{web + ", balancer [192.0.2.1 192.0.2.2]"}},
		{"Proxy is not touched", objects(service(balancer(in("Proxy"), other))), []string{web + ", balancer [192.0.2.2], has [192.0.2.1 192.0.2.2]"}},
		{"nothing but Proxy", objects(service(balancer(in("Proxy")))), []string{web + ", has [192.0.2.1]"}},
		{"a host name", objects(service(balancer(corev1.LoadBalancerIngress{Hostname: "lb.example.org"}))), []string{web}},
		{"VIP again", objects(service(balancer(in("VIP")))), []string{web + ", balancer [192.0.2.1]"}},
	}}
}

func ranges() Life {
	lb := balancer(corev1.LoadBalancerIngress{IP: "192.0.2.1"})
	from := func(list ...string) change {
		return func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = list }
	}
	return Life{"loadBalancerSourceRanges", []Step{
		{"everyone", objects(service(lb)), []string{web + ", balancer [192.0.2.1]"}},
		{"with blanks", objects(service(lb, from(" 10.0.0.0/8", "2001:db8::/32\t"))), []string{web + ", balancer [192.0.2.1], from [10.0.0.0/8 2001:db8::/32]"}},
		{"nothing valid: nobody", objects(service(lb, from("10.0.0.0"))), []string{web + ", has [192.0.2.1]"}},
		{"everyone in one family", objects(service(lb, from("0.0.0.0/0"))), []string{web + ", balancer [192.0.2.1], from [0.0.0.0/0]"}},
		{"the annotation is not read", objects(service(lb, annotation("service.beta.kubernetes.io/load-balancer-source-ranges", "10.0.0.0/8"))), []string{web + ", balancer [192.0.2.1]"}},
	}}
}

// wishes are annotations and labels that say how a Service is to be served.
func wishes() Life {
	dns := func(s *corev1.Service) { s.Namespace, s.Name = "kube-system", "dns" }
	const line = "service kube-system/dns u1: [10.96.0.1], 80/TCP"
	return Life{"annotations and labels", []Step{
		{"none", objects(service(dns)), []string{line}},
		{"the cluster's DNS", objects(service(dns, label("k8s-app", "kube-dns"))), []string{line + ", urgent"}},
		{"by another label", objects(service(dns, label("kubernetes.io/name", "CoreDNS"))), []string{line + ", urgent"}},
		{"drain", objects(service(dns, annotation(drain, "90s"))), []string{line + ", drain 1m30s"}},
		{"no drain", objects(service(dns, annotation(drain, "0"))), []string{line + ", drain 1ns"}},
		{"bad drain", objects(service(dns, annotation(drain, "long"))), []string{line}},
		{"scheduler", objects(service(dns, annotation(scheduler, "mh"))), []string{line + ", by mh"}},
		{"none again", objects(service(dns)), []string{line}},
	}}
}

func triggers() Life {
	at := func(text string) *discoveryv1.EndpointSlice {
		s := slice()
		s.Annotations[trigger] = text
		return s
	}
	return Life{"last-change-trigger-time", []Step{
		{"none", objects(slice()), []string{webX}},
		{"given", objects(at("2026-03-01T10:00:00.5Z")), []string{webX + " triggered 2026-03-01T10:00:00.5Z"}},
		{"later", objects(at("2026-03-01T10:00:01Z")), []string{webX + " triggered 2026-03-01T10:00:01Z"}},
		{"malformed", objects(at("now")), []string{webX}},
	}}
}

// nodes: a Node that is made anew under its name is a new one, whether or not
// anybody saw it go.
func nodes() Life {
	return Life{"Nodes that are made anew", []Step{
		{"two", objects(node("n1", "a", "192.0.2.1"), node("n2", "b", "192.0.2.2")), []string{"node n1: [192.0.2.1], in zone-a", "node n2: [192.0.2.2], in zone-b"}},
		{"both anew", objects(node("n1", "c", "192.0.2.3"), node("n2", "d", "192.0.2.2")), []string{"node n1: [192.0.2.3], in zone-c", "node n2: [192.0.2.2], in zone-d"}},
		{"ours is gone", objects(node("n2", "d", "192.0.2.2")), []string{"node n2: [192.0.2.2], in zone-d"}},
		{"and back", objects(node("n1", "e", "192.0.2.1"), node("n2", "d", "192.0.2.2")), []string{"node n1: [192.0.2.1], in zone-e", "node n2: [192.0.2.2], in zone-d"}},
		{"none", nil, nil},
	}}
}

func nodeLeaves() Life {
	const line = "node n1: [192.0.2.1], in zone-a"
	n := func(taints ...string) *corev1.Node {
		n := node("n1", "a", "192.0.2.1")
		for _, key := range taints {
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule})
		}
		return n
	}
	deleted := n()
	deleted.DeletionTimestamp, deleted.Finalizers = new(metav1.NewTime(time.Unix(1e9, 0))), []string{"example.org/keep"}
	return Life{"a Node that leaves", []Step{
		{"stays", objects(n()), []string{line}},
		{"cordoned", objects(n("node.kubernetes.io/unschedulable")), []string{line}},
		{"marked", objects(n("node.kubernetes.io/unschedulable", "ToBeDeletedByClusterAutoscaler")), []string{line + ", leaving: it has the taint ToBeDeletedByClusterAutoscaler"}},
		{"not marked any more", objects(n()), []string{line}},
		{"deleted, but held", objects(deleted), []string{line + ", leaving: it is being deleted"}},
		{"gone", nil, nil},
		{"anew", objects(n()), []string{line}},
	}}
}
