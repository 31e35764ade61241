package convert

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/internal/model"
)

// Annotations by which a Service says which load-balancer addresses it wants.
// Of each the first that is given counts; the second is MetalLB's.
const (
	AddressesAnnotation      = "sluice.dev/load-balancer-ips" // addresses with commas between them
	AddressesAnnotationAlias = "metallb.io/loadBalancerIPs"
	PoolAnnotation           = "sluice.dev/address-pool"
	PoolAnnotationAlias      = "metallb.io/address-pool"
	SharingAnnotation        = "sluice.dev/allow-shared-ip" // a key that those who share have in common
	SharingAnnotationAlias   = "metallb.io/allow-shared-ip"
	ReallocateAnnotation     = "sluice.dev/reallocate" // any value; a new one asks for new addresses
)

// balancer reads what a Service asks of the allocator. One that is not, or no
// longer, of type LoadBalancer asks for nothing, but may have something.
func balancer(s *corev1.Service, r *report) model.Balancer {
	b := model.Balancer{Status: assigned(s)}
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return b
	}
	b.Wanted = true
	b.Class = strings.TrimSpace(deref(s.Spec.LoadBalancerClass))
	_, b.Pool = annotated(s, PoolAnnotation, PoolAnnotationAlias)
	_, b.SharingKey = annotated(s, SharingAnnotation, SharingAnnotationAlias)
	_, b.Reallocate = annotated(s, ReallocateAnnotation)
	b.Families = ipFamilies(s, r)
	b.DualStack = dualStack(s, r)
	before := r.count()
	b.Requested = requested(s, r)
	if r.count() > before {
		b.Requested, b.Unclear = nil, true
	}
	return b
}

// annotated is the first annotation that is given, and its value.
func annotated(s *corev1.Service, names ...string) (name, value string) {
	for _, name := range names {
		if value, given := s.Annotations[name]; given {
			return name, strings.TrimSpace(value)
		}
	}
	return names[0], ""
}

// assigned are the addresses in the status, whoever is to answer on them. That
// one cannot be read is said where the proxy reads it.
func assigned(s *corev1.Service) []netip.Addr {
	var found distinct[netip.Addr]
	for _, in := range s.Status.LoadBalancer.Ingress {
		if a, err := parseVIP(in.IP); err == nil {
			found.add(a)
		}
	}
	return found.list
}

// requested are the addresses that the Service asks for by name. The field and
// the annotation may both be there if they say the same.
func requested(s *corev1.Service, r *report) []netip.Addr {
	name, text := annotated(s, AddressesAnnotation, AddressesAnnotationAlias)
	field := fmt.Sprintf("metadata.annotations[%s]", name)
	var byName, byField distinct[netip.Addr]
	for part := range strings.SplitSeq(text, ",") {
		wish(&byName, strings.TrimSpace(part), field, r)
	}
	wish(&byField, s.Spec.LoadBalancerIP, "spec.loadBalancerIP", r)
	switch {
	case len(byName.list) == 0:
		return byField.list
	case len(byField.list) > 0 && !slices.Equal(byName.list, byField.list):
		r.add(ContradictoryRequest, field, text, fmt.Sprintf("and spec.loadBalancerIP, %q, are different", s.Spec.LoadBalancerIP), "remove one of them; "+remedyRequest)
	case !onePerFamily(byName.list):
		r.add(InvalidRequest, field, text, "holds two addresses of one family", "ask for one address of each family at most; "+remedyRequest)
	}
	return byName.list
}

// wish adds an address that is asked for, if there is one.
func wish(list *distinct[netip.Addr], text, field string, r *report) {
	if text == "" {
		return
	}
	a, err := parseUnicast(text)
	if err != nil {
		r.add(InvalidRequest, field, text, err.Error(), "correct or remove it; "+remedyRequest)
		return
	}
	list.add(a)
}

func onePerFamily(list []netip.Addr) bool {
	var seen distinct[model.Family]
	for _, a := range list {
		seen.add(model.FamilyOf(a))
	}
	return len(seen.list) == len(list)
}

// ipFamilies are the Service's families; an object that met no API server has
// those of its cluster IPs.
func ipFamilies(s *corev1.Service, r *report) []model.Family {
	var found distinct[model.Family]
	for i, f := range s.Spec.IPFamilies {
		switch f {
		case corev1.IPv4Protocol:
			found.add(model.IPv4)
		case corev1.IPv6Protocol:
			found.add(model.IPv6)
		default:
			r.add(InvalidFamily, fmt.Sprintf("spec.ipFamilies[%d]", i), f, "is not a family", `use "IPv4" or "IPv6"`)
		}
	}
	if len(found.list) > 0 {
		return found.list
	}
	for _, ip := range clusterIPs(s) {
		if a, err := parseVIP(ip); err == nil {
			found.add(model.FamilyOf(a))
		}
	}
	return found.list
}

// dualStack reads the policy. An API server sets it where it is missing, by what
// the Service has.
func dualStack(s *corev1.Service, r *report) model.DualStack {
	if s.Spec.IPFamilyPolicy == nil {
		if len(s.Spec.IPFamilies) > 1 || len(s.Spec.ClusterIPs) > 1 {
			return model.RequireDualStack
		}
		return model.SingleStack
	}
	switch *s.Spec.IPFamilyPolicy {
	case corev1.IPFamilyPolicySingleStack:
	case corev1.IPFamilyPolicyPreferDualStack:
		return model.PreferDualStack
	case corev1.IPFamilyPolicyRequireDualStack:
		return model.RequireDualStack
	default:
		r.add(InvalidFamily, "spec.ipFamilyPolicy", *s.Spec.IPFamilyPolicy, "is not a policy",
			`use "SingleStack", "PreferDualStack" or "RequireDualStack"; until then it counts as SingleStack`)
	}
	return model.SingleStack
}
