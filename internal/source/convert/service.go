package convert

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

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
	}
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
		if in.IP == "" || in.IPMode != nil && *in.IPMode != corev1.LoadBalancerIPModeVIP {
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

func externalLocal(s *corev1.Service, r *report) bool {
	switch s.Spec.ExternalTrafficPolicy {
	case "", corev1.ServiceExternalTrafficPolicyCluster:
		return false
	case corev1.ServiceExternalTrafficPolicyLocal:
		return true
	}
	r.add(InvalidPolicy, "spec.externalTrafficPolicy", s.Spec.ExternalTrafficPolicy, "is not a policy", remedyPolicy)
	return false
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

func sourceRanges(s *corev1.Service, r *report) []netip.Prefix {
	return prefixes(s.Spec.LoadBalancerSourceRanges, "spec.loadBalancerSourceRanges", InvalidSourceRange, r)
}

// guard withholds the load balancer's addresses when source ranges were asked
// for and none can be used: no ranges would mean that everyone may come in.
func guard(svc *model.Service, s *corev1.Service, r *report) {
	if len(s.Spec.LoadBalancerSourceRanges) == 0 || len(svc.SourceRanges) > 0 || len(svc.LoadBalancerIPs) == 0 {
		return
	}
	svc.LoadBalancerIPs = nil
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
