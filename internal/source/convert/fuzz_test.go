package convert

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"sluice.dev/sluice/internal/model"
)

// claims checks that each value of an object is either in the fact or named by a
// problem, and never both.
type claims struct {
	t        *testing.T
	problems []model.Problem
}

// settle says of one value whether it is in the fact.
func (c claims) settle(field string, value any, used bool) {
	c.t.Helper()
	said := slices.ContainsFunc(c.problems, func(p model.Problem) bool { return strings.HasPrefix(p.Message, field+": ") })
	if used == said {
		c.t.Errorf("%s: %q is used: %v, is complained of: %v\nproblems %v", field, fmt.Sprint(value), used, said, c.problems)
	}
}

// bounded reports whether every problem was told: more than ten are counted.
func bounded(t *testing.T, problems []model.Problem, of model.Problem) bool {
	t.Helper()
	for _, p := range problems {
		if p.Kind != of.Kind || p.Object != of.Object || p.UID != of.UID || p.Reason == "" {
			t.Errorf("problem of something else: %+v", p)
		}
		if p.Reason == MoreProblems {
			return false
		}
	}
	return true
}

func holds(list []netip.Addr, text string) bool {
	a, err := parseAddr(text)
	return err == nil && slices.Contains(list, a)
}

// FuzzService: whatever a Service says, each value of it is used or complained of.
func FuzzService(f *testing.F) {
	for _, s := range []string{
		`{}`, `null`,
		`{"spec":{"clusterIP":"10.96.0.1","ports":[{"port":80}]}}`,
		`{"spec":{"clusterIP":"None","type":"ExternalName"}}`,
		`{"metadata":{"namespace":"kube-system","name":"kube-dns","labels":{"k8s-app":"kube-dns"}},"spec":{"clusterIPs":["10.96.0.10","fd00::a","x",""],"ports":[{"name":"dns","protocol":"UDP","port":53},{"name":"dns-tcp","port":53}]}}`,
		`{"metadata":{"annotations":{"sluice.dev/drain-timeout":"1h30","sluice.dev/scheduler":"x"}},"spec":{"clusterIP":"10.96.0.1"}}`,
		`{"metadata":{"annotations":{"sluice.dev/drain-timeout":"0","kube-router.io/service.scheduler":"mh"}},"spec":{"clusterIP":"10.96.0.1","externalIPs":["127.0.0.1","192.0.2.1"," 192.0.2.2"]}}`,
		`{"spec":{"type":"LoadBalancer","clusterIP":"10.96.0.1","externalTrafficPolicy":"Local","healthCheckNodePort":70000,"ports":[{"port":0},{"port":80,"nodePort":-1,"protocol":"ICMP"}]},"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1","ipMode":"Proxy"},{"ip":"192.0.2.2","ipMode":"vip"},{"hostname":"x"},{"ip":"::"}]}}}`,
		`{"spec":{"clusterIP":"10.96.0.1","loadBalancerSourceRanges":[" 10.0.0.0/8 ","::ffff:1.2.3.4/90","1.2.3.4","fe80::%e/64"],"internalTrafficPolicy":"local","externalTrafficPolicy":"Local"},"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"}]}}}`,
		`{"spec":{"clusterIP":"10.96.0.1","sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":-5}}}}`,
		`{"spec":{"clusterIP":"10.96.0.1","sessionAffinity":"Cookie","sessionAffinityConfig":{}}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var s corev1.Service
		if json.Unmarshal(data, &s) != nil {
			return
		}
		before := s.DeepCopy()
		svc, ok, problems := Service(&s, known)
		if !ok {
			if problems != nil {
				t.Errorf("complains of what is not ours: %v", problems)
			}
			return
		}
		if !reflect.DeepEqual(&s, before) {
			t.Error("the object was changed")
		}
		if bounded(t, problems, model.Problem{Kind: ServiceKind, Object: nameOf(&s.ObjectMeta), UID: string(s.UID)}) {
			c := claims{t, problems}
			c.addresses(&s, &svc)
			c.ports(&s, &svc)
			c.choices(&s, &svc)
		}
	})
}

func (c claims) addresses(s *corev1.Service, svc *model.Service) {
	for i, ip := range clusterIPs(s) {
		c.settle(fmt.Sprintf("spec.clusterIPs[%d]", i), ip, holds(svc.ClusterIPs, ip))
	}
	for i, ip := range s.Spec.ExternalIPs {
		c.settle(fmt.Sprintf("spec.externalIPs[%d]", i), ip, holds(svc.ExternalIPs, ip))
	}
	for i, cidr := range s.Spec.LoadBalancerSourceRanges {
		p, err := parsePrefix(cidr)
		c.settle(fmt.Sprintf("spec.loadBalancerSourceRanges[%d]", i), cidr, err == nil && slices.Contains(svc.SourceRanges, p))
	}
	if len(s.Spec.LoadBalancerSourceRanges) > 0 && len(svc.SourceRanges) == 0 && len(svc.LoadBalancerIPs) > 0 {
		c.t.Errorf("ranges %q were asked for, and everyone may come in", s.Spec.LoadBalancerSourceRanges)
	}
	withheld := slices.ContainsFunc(c.problems, func(p model.Problem) bool { return p.Reason == NoValidSourceRange })
	for i, in := range s.Status.LoadBalancer.Ingress {
		field := fmt.Sprintf("status.loadBalancer.ingress[%d]", i)
		mode := corev1.LoadBalancerIPModeVIP
		if in.IPMode != nil {
			mode = *in.IPMode
		}
		switch {
		case in.IP == "" || withheld || mode == corev1.LoadBalancerIPModeProxy:
		case mode == corev1.LoadBalancerIPModeVIP:
			c.settle(field+".ip", in.IP, holds(svc.LoadBalancerIPs, in.IP))
		default:
			c.settle(field+".ipMode", mode, false)
		}
	}
}

func (c claims) ports(s *corev1.Service, svc *model.Service) {
	for i, p := range s.Spec.Ports {
		proto, known := protocol(p.Protocol)
		field := fmt.Sprintf("spec.ports[%d]", i)
		if !known {
			c.settle(field+".protocol", p.Protocol, false)
			continue
		}
		nodePort := uint16(p.NodePort)
		if p.NodePort != int32(nodePort) {
			nodePort = 0
		}
		used := p.Port == int32(uint16(p.Port)) && p.Port != 0 &&
			slices.Contains(svc.Ports, model.ServicePort{Name: p.Name, Protocol: proto, Port: uint16(p.Port), NodePort: nodePort})
		c.settle(field+".port", p.Port, used)
		if p.Port > 0 && p.Port <= 65535 {
			c.settle(field+".nodePort", p.NodePort, p.NodePort == int32(nodePort))
		}
	}
}

func (c claims) choices(s *corev1.Service, svc *model.Service) {
	types := []corev1.ServiceType{"", corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer}
	c.settle("spec.type", s.Spec.Type, slices.Contains(types, s.Spec.Type))
	external := s.Spec.ExternalTrafficPolicy
	c.settle("spec.externalTrafficPolicy", external, external == "" || external == "Cluster" || svc.ExternalLocal)
	if p := s.Spec.InternalTrafficPolicy; p != nil {
		c.settle("spec.internalTrafficPolicy", *p, *p == "" || *p == "Cluster" || svc.InternalLocal)
	}
	affinity := s.Spec.SessionAffinity
	c.settle("spec.sessionAffinity", affinity, affinity == "" || affinity == "None" || svc.Affinity > 0)
	if svc.Affinity < 0 || svc.Affinity > 24*time.Hour {
		c.t.Errorf("affinity of %v", svc.Affinity)
	}
	if want := s.Spec.HealthCheckNodePort; want != 0 && svc.ExternalLocal && s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		c.settle("spec.healthCheckNodePort", want, svc.HealthPort != 0 && int32(svc.HealthPort) == want)
	}
	if text := strings.TrimSpace(s.Annotations[DrainAnnotation]); text != "" && svc.Drain != drainMax { // more is said and used
		c.settle("metadata.annotations[sluice.dev/drain-timeout]", text, svc.Drain != 0)
	}
	if svc.Drain < 0 || svc.Drain > drainMax {
		c.t.Errorf("drains for %v", svc.Drain)
	}
	if name, given := s.Annotations[SchedulerAnnotation]; given && strings.TrimSpace(name) != "" {
		c.settle("metadata.annotations[sluice.dev/scheduler]", name, svc.Scheduler == strings.TrimSpace(name))
	}
}

// FuzzEndpointSlice: whatever an EndpointSlice says, each value of it is used or
// complained of.
func FuzzEndpointSlice(f *testing.F) {
	const ours = `"metadata":{"labels":{"kubernetes.io/service-name":"web"}}`
	for _, s := range []string{
		`{}`, `null`,
		`{` + ours + `}`,
		`{` + ours + `,"addressType":"FQDN","endpoints":[{"addresses":["a.example"]}]}`,
		`{` + ours + `,"addressType":"IPv4","ports":[{"port":80},{},{"port":0},{"port":1,"protocol":"tcp"},{"name":"x","port":65536}],"endpoints":[{"addresses":["10.0.0.1","x"]},{"addresses":[]},{},{"addresses":["fd00::1"]},{"addresses":["10.0.0.1"],"conditions":{"ready":false}}]}`,
		`{` + ours + `,"addressType":"IPv6","endpoints":[{"addresses":["fd00::1"],"hints":{"forZones":[{"name":"a"}],"forNodes":[{}]},"conditions":{"serving":true,"terminating":true},"nodeName":"n"},{"addresses":["::ffff:10.0.0.1"]}]}`,
		`{"metadata":{"labels":{"kubernetes.io/service-name":"web"},"annotations":{"endpoints.kubernetes.io/last-change-trigger-time":"2026-03-01T10:00:00.5Z"}},"addressType":"IPv4"}`,
		`{"metadata":{"labels":{"kubernetes.io/service-name":"web"},"annotations":{"endpoints.kubernetes.io/last-change-trigger-time":"x"}},"addressType":"IPv4"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var s discoveryv1.EndpointSlice
		if json.Unmarshal(data, &s) != nil {
			return
		}
		slice, ok, problems := EndpointSlice(&s)
		c := claims{t, problems}
		if !ok {
			if len(problems) > 0 {
				c.settle("addressType", s.AddressType, false)
			}
			return
		}
		if !bounded(t, problems, model.Problem{Kind: EndpointSliceKind, Object: nameOf(&s.ObjectMeta), UID: string(s.UID)}) {
			return
		}
		for i, e := range s.Endpoints {
			a, err := parseAddr(firstOf(e.Addresses))
			used := err == nil && model.FamilyOf(a) == slice.Family &&
				slices.ContainsFunc(slice.Endpoints, func(x model.Endpoint) bool {
					said := endpoint(a, &e)
					said.Pod = PodOf(&s, &e)
					return same(x, said) && x.Addr == a
				})
			c.settle(fmt.Sprintf("endpoints[%d].addresses[0]", i), firstOf(e.Addresses), used)
		}
		for i, p := range s.Ports {
			c.port(i, p, slice.Ports)
		}
		if text := s.Annotations[TriggerAnnotation]; text != "" {
			_, err := time.Parse(time.RFC3339Nano, text)
			c.settle("metadata.annotations["+TriggerAnnotation+"]", text, err == nil)
		}
	})
}

func (c claims) port(i int, p discoveryv1.EndpointPort, ports []model.EndpointPort) {
	if p.Port == nil { // all ports: nothing that a virtual server can do
		return
	}
	proto, known := protocol(deref(p.Protocol))
	if !known {
		c.settle(fmt.Sprintf("ports[%d].protocol", i), *p.Protocol, false)
		return
	}
	used := *p.Port == int32(uint16(*p.Port)) && *p.Port != 0 &&
		slices.Contains(ports, model.EndpointPort{Name: deref(p.Name), Protocol: proto, Port: uint16(*p.Port)})
	c.settle(fmt.Sprintf("ports[%d].port", i), *p.Port, used)
}

// FuzzNode: whatever a Node says, each address of it is used or complained of.
func FuzzNode(f *testing.F) {
	for _, s := range []string{
		`{}`, `null`,
		`{"metadata":{"name":"n","deletionTimestamp":"2026-03-01T10:00:00Z"},"spec":{"podCIDR":"10.1.0.0/24","taints":[{"key":"ToBeDeletedByClusterAutoscaler"},{}]}}`,
		`{"spec":{"podCIDRs":["10.1.0.0/24","x"]},"status":{"addresses":[{"type":"InternalIP","address":"192.0.2.1"},{"type":"ExternalIP","address":"x"},{"type":"Hostname","address":"y"},{}]}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var n corev1.Node
		if json.Unmarshal(data, &n) != nil {
			return
		}
		node, ok, problems := Node(&n)
		if !ok {
			t.Error("a Node is always told")
		}
		if !bounded(t, problems, model.Problem{Kind: NodeKind, Object: nameOf(&n.ObjectMeta), UID: string(n.UID)}) {
			return
		}
		c := claims{t, problems}
		for i, a := range n.Status.Addresses {
			if a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP {
				c.settle(fmt.Sprintf("status.addresses[%d].address", i), a.Address, holds(node.Addrs, a.Address))
			}
		}
		for i, cidr := range n.Spec.PodCIDRs {
			p, err := parsePrefix(cidr)
			c.settle(fmt.Sprintf("spec.podCIDRs[%d]", i), cidr, err == nil && slices.Contains(node.PodCIDRs, p))
		}
	})
}
