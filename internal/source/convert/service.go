package convert

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/internal/model"
)

// Labels by which an object says that it is not ours, whatever their value.
const (
	ProxyNameLabel = "service.kubernetes.io/service-proxy-name"
	HeadlessLabel  = corev1.IsHeadlessService
)

// Annotations that choose a Service's scheduler. Ours wins.
const (
	SchedulerAnnotation      = "sluice.dev/scheduler"
	SchedulerAnnotationAlias = "kube-router.io/service.scheduler"
)

// DrainAnnotation bounds how long a leaving endpoint of the Service keeps its
// established connections: a Go duration ("90s", "10m") or a plain number of
// seconds, from 0 to 24 hours. "0" is DrainNone; more than 24 hours counts as
// 24 hours; what cannot be read counts as the node's default.
const DrainAnnotation = "sluice.dev/drain-timeout"

// DrainNone is a Service's Drain when established connections are not waited
// for. It is the shortest time there is, since 0 stands for the node's default.
const DrainNone = time.Nanosecond

const drainMax = 24 * time.Hour

// Labels by which the cluster's DNS is known in kube-system: what kubeadm and
// most distributions give it, and what some give it instead.
const (
	AppLabel   = "k8s-app"            // kube-dns
	AddonLabel = "kubernetes.io/name" // CoreDNS
)

// schedulers are those of Linux, the names that are worth suggesting.
const schedulers = "rr wrr lc wlc lblc lblcr sh dh sed nq mh fo ovf twos"

const (
	affinityDefault = 10800 // seconds, corev1.DefaultClientIPServiceAffinitySeconds
	affinityMax     = 86400
)

// Service is a Service as the proxy reads it. ok is false when it is not ours
// to proxy: it has no cluster IP, is headless or an ExternalName, or is marked
// as another proxy's. known says which schedulers this node has; nil: all.
func Service(s *corev1.Service, known func(string) bool) (svc model.Service, ok bool, problems []model.Problem) {
	if !served(s) {
		return model.Service{}, false, nil
	}
	r := newReport(ServiceKind, &s.ObjectMeta)
	svc = model.Service{
		Name:            nameOf(&s.ObjectMeta),
		UID:             string(s.UID),
		Created:         s.CreationTimestamp.Time,
		Labels:          maps.Clone(s.Labels),
		ClusterIPs:      addresses(clusterIPs(s), "spec.clusterIPs", parseVIP, r),
		ExternalIPs:     addresses(s.Spec.ExternalIPs, "spec.externalIPs", parseUnicast, r),
		LoadBalancerIPs: ingress(s, r),
		Ports:           servicePorts(s, r),
		ExternalLocal:   externalLocal(s, r),
		InternalLocal:   internalLocal(s, r),
		Affinity:        affinity(s, r),
		Scheduler:       scheduler(s, known, r),
		SourceRanges:    sourceRanges(s, r),
		HealthPort:      healthPort(s, r),
		Drain:           drain(s, r),
		Urgent:          urgent(s),
		Balancer:        balancer(s, r),
	}
	checkType(s, r)
	guard(&svc, s, r)
	return svc, true, r.list()
}

func served(s *corev1.Service) bool {
	if s.Spec.Type == corev1.ServiceTypeExternalName || foreign(s.Labels) {
		return false
	}
	first := clusterIPs(s)[0]
	return first != "" && first != corev1.ClusterIPNone && s.Spec.ClusterIP != corev1.ClusterIPNone
}

// foreign reports whether a Service or EndpointSlice is not for us by its labels.
func foreign(labels map[string]string) bool {
	_, other := labels[ProxyNameLabel]
	_, headless := labels[HeadlessLabel]
	return other || headless
}

// checkType says that a type is none. Nothing else asks for the type alone: what
// there is of node ports and load balancer addresses is served, as in
// kube-proxy, even if a former type left it behind.
func checkType(s *corev1.Service, r *report) {
	switch s.Spec.Type {
	case "", corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
		return
	}
	r.add(InvalidType, "spec.type", s.Spec.Type, "is not a type of Services",
		`use "ClusterIP", "NodePort", "LoadBalancer" or "ExternalName"; until then it counts as ClusterIP`)
}

// clusterIPs is never empty. An API server keeps the first of clusterIPs equal
// to clusterIP; in a file either may stand alone.
func clusterIPs(s *corev1.Service) []string {
	if len(s.Spec.ClusterIPs) == 0 {
		return []string{s.Spec.ClusterIP}
	}
	return s.Spec.ClusterIPs
}

// ingress reads the load balancer's addresses that the node is to answer on.
// A host name or ipMode Proxy means that traffic has to go through the real
// load balancer. The Service's type is not asked, as in kube-proxy.
func ingress(s *corev1.Service, r *report) []netip.Addr {
	var found distinct[netip.Addr]
	for i, in := range s.Status.LoadBalancer.Ingress {
		if in.IP == "" || !boundHere(in.IPMode, i, r) {
			continue
		}
		a, err := parseVIP(in.IP)
		if err != nil {
			r.add(InvalidAddress, fmt.Sprintf("status.loadBalancer.ingress[%d].ip", i), in.IP, err.Error(), remedyAddress)
			continue
		}
		found.add(a)
	}
	return found.list
}

// boundHere reports whether an address with this ipMode is the node's to answer
// on.
func boundHere(mode *corev1.LoadBalancerIPMode, i int, r *report) bool {
	if mode == nil || *mode == corev1.LoadBalancerIPModeVIP {
		return true
	}
	if *mode != corev1.LoadBalancerIPModeProxy {
		r.add(InvalidIPMode, fmt.Sprintf("status.loadBalancer.ingress[%d].ipMode", i), *mode, "is not a mode",
			`use "VIP" or "Proxy"; until then it counts as Proxy`)
	}
	return false
}

// servicePorts reads the ports. One number may serve several protocols.
func servicePorts(s *corev1.Service, r *report) []model.ServicePort {
	type number struct {
		protocol model.Protocol
		port     uint16
	}
	seen := make(map[number]int, len(s.Spec.Ports))
	ports := make([]model.ServicePort, 0, len(s.Spec.Ports))
	for i := range s.Spec.Ports {
		p, ok := servicePort(&s.Spec.Ports[i], i, r)
		if !ok {
			continue
		}
		n := number{p.Protocol, p.Port}
		if first, twice := seen[n]; !twice {
			seen[n] = len(ports)
			ports = append(ports, p)
		} else if ports[first] != p {
			r.add(InvalidPort, fmt.Sprintf("spec.ports[%d].port", i), p.Port, "stands twice with one protocol, the first counts", remedyAddress)
		}
	}
	return ports
}

func servicePort(p *corev1.ServicePort, i int, r *report) (model.ServicePort, bool) {
	proto, ok := protocol(p.Protocol)
	if !ok {
		r.add(InvalidProtocol, fmt.Sprintf("spec.ports[%d].protocol", i), p.Protocol, "is not a protocol of Services", remedyProtocol)
		return model.ServicePort{}, false
	}
	n, ok := port(p.Port)
	if !ok {
		r.add(InvalidPort, fmt.Sprintf("spec.ports[%d].port", i), p.Port, "is not a port number", remedyPort)
		return model.ServicePort{}, false
	}
	nodePort, ok := port(p.NodePort)
	if !ok && p.NodePort != 0 {
		r.add(InvalidPort, fmt.Sprintf("spec.ports[%d].nodePort", i), p.NodePort, "is not a port number", remedyPort)
		nodePort = 0
	}
	return model.ServicePort{Name: p.Name, Protocol: proto, Port: n, NodePort: nodePort}, true
}

// externalLocal asks, as kube-proxy does, for the type too: what a former type
// left behind of the policy does not count.
func externalLocal(s *corev1.Service, r *report) bool {
	switch s.Spec.ExternalTrafficPolicy {
	case "", corev1.ServiceExternalTrafficPolicyCluster:
		return false
	case corev1.ServiceExternalTrafficPolicyLocal:
		if !external(s) {
			r.add(InvalidPolicy, "spec.externalTrafficPolicy", s.Spec.ExternalTrafficPolicy,
				"needs type NodePort or LoadBalancer, or external IPs", "set one of these or remove it; until then it counts as Cluster")
		}
		return external(s)
	}
	r.add(InvalidPolicy, "spec.externalTrafficPolicy", s.Spec.ExternalTrafficPolicy, "is not a policy", remedyPolicy)
	return false
}

// external reports whether a Service is meant to be reached from outside.
func external(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeNodePort || s.Spec.Type == corev1.ServiceTypeLoadBalancer || len(s.Spec.ExternalIPs) > 0
}

func internalLocal(s *corev1.Service, r *report) bool {
	policy := s.Spec.InternalTrafficPolicy
	if policy == nil {
		return false
	}
	switch *policy {
	case "", corev1.ServiceInternalTrafficPolicyCluster:
		return false
	case corev1.ServiceInternalTrafficPolicyLocal:
		return true
	}
	r.add(InvalidPolicy, "spec.internalTrafficPolicy", *policy, "is not a policy", remedyPolicy)
	return false
}

func affinity(s *corev1.Service, r *report) time.Duration {
	switch s.Spec.SessionAffinity {
	case "", corev1.ServiceAffinityNone:
		return 0
	case corev1.ServiceAffinityClientIP:
	default:
		r.add(InvalidAffinity, "spec.sessionAffinity", s.Spec.SessionAffinity, "is not an affinity", `use "None" or "ClientIP"; until then it counts as None`)
		return 0
	}
	config := s.Spec.SessionAffinityConfig
	if config == nil || config.ClientIP == nil || config.ClientIP.TimeoutSeconds == nil {
		return affinityDefault * time.Second
	}
	given := *config.ClientIP.TimeoutSeconds
	used := min(max(given, 1), affinityMax)
	if used != given {
		r.add(InvalidAffinity, "spec.sessionAffinityConfig.clientIP.timeoutSeconds", given, "is out of range",
			fmt.Sprintf("use 1 to %d seconds; until then it counts as %d", affinityMax, used))
	}
	return time.Duration(used) * time.Second
}

func scheduler(s *corev1.Service, known func(string) bool, r *report) string {
	annotation := SchedulerAnnotation
	name, given := s.Annotations[annotation]
	if !given {
		annotation = SchedulerAnnotationAlias
		name = s.Annotations[annotation]
	}
	name = strings.TrimSpace(name)
	if name == "" || known == nil || known(name) {
		return name
	}
	choice := slices.DeleteFunc(strings.Fields(schedulers), func(n string) bool { return !known(n) })
	r.add(UnknownScheduler, fmt.Sprintf("metadata.annotations[%s]", annotation), name, "is not a scheduler of this node",
		"the node's default is used; known are "+strings.Join(choice, ", "))
	return ""
}

func drain(s *corev1.Service, r *report) time.Duration {
	text := strings.TrimSpace(s.Annotations[DrainAnnotation])
	if text == "" {
		return 0
	}
	field := fmt.Sprintf("metadata.annotations[%s]", DrainAnnotation)
	given, err := parseDrain(text)
	switch {
	case err != nil:
		r.add(InvalidDrain, field, text, "is not a duration", remedyDrain+"; until then the node's default is used")
		return 0
	case given < 0:
		r.add(InvalidDrain, field, text, "is negative", remedyDrain+"; until then the node's default is used")
		return 0
	case given > drainMax:
		r.add(InvalidDrain, field, text, "is too long", remedyDrain+"; until then it counts as 24h")
		return drainMax
	}
	return max(given, DrainNone)
}

func parseDrain(text string) (time.Duration, error) {
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second, nil
	}
	return time.ParseDuration(text)
}

// urgent reports whether the rest of the cluster depends on a Service. Both
// namespaces are an administrator's: nobody else can put himself first.
func urgent(s *corev1.Service) bool {
	switch s.Namespace {
	case metav1.NamespaceDefault:
		return s.Name == "kubernetes"
	case metav1.NamespaceSystem:
		return s.Labels[AppLabel] == "kube-dns" || s.Labels[AddonLabel] == "CoreDNS" || s.Name == "kube-dns" || s.Name == "coredns"
	}
	return false
}

// sourceRanges reads the field alone, as kube-proxy does. The annotation
// service.beta.kubernetes.io/load-balancer-source-ranges is for the cloud's load
// balancer, which filters by itself.
func sourceRanges(s *corev1.Service, r *report) []netip.Prefix {
	return prefixes(s.Spec.LoadBalancerSourceRanges, "spec.loadBalancerSourceRanges", InvalidSourceRange, r)
}

// guard withholds the load balancer's addresses when source ranges were asked
// for and none can be used: no ranges would mean that everyone may come in.
func guard(svc *model.Service, s *corev1.Service, r *report) {
	if len(s.Spec.LoadBalancerSourceRanges) == 0 || len(svc.SourceRanges) > 0 || len(svc.LoadBalancerIPs) == 0 && !svc.Balancer.Wanted {
		return
	}
	svc.LoadBalancerIPs, svc.Balancer.Withheld = nil, true
	r.add(NoValidSourceRange, "spec.loadBalancerSourceRanges", strings.Join(s.Spec.LoadBalancerSourceRanges, ","),
		"holds no valid range, so the load balancer addresses are not served", remedyPrefix)
}

// healthPort is only meant where a load balancer has to find the nodes with
// local endpoints.
func healthPort(s *corev1.Service, r *report) uint16 {
	given := s.Spec.HealthCheckNodePort
	if given == 0 || s.Spec.Type != corev1.ServiceTypeLoadBalancer ||
		s.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		return 0
	}
	n, ok := port(given)
	if !ok {
		r.add(InvalidPort, "spec.healthCheckNodePort", given, "is not a port number", remedyPort)
		return 0
	}
	return n
}
