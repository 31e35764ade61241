package kube

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/internal/source/convert"
)

// trim drops from an object what package convert does not read, before it
// enters a cache. The object is the informer's own and changed in place;
// trimming it twice is the same as once.
func trim(obj any) (any, error) {
	switch o := obj.(type) {
	case *corev1.Service:
		trimService(o)
	case *discoveryv1.EndpointSlice:
		trimSlice(o)
	case *corev1.Node:
		labels := o.Labels
		o.ObjectMeta = trimMeta(&o.ObjectMeta)
		o.Labels = labels
		o.Spec = corev1.NodeSpec{PodCIDR: o.Spec.PodCIDR, PodCIDRs: o.Spec.PodCIDRs}
		o.Status = corev1.NodeStatus{Addresses: o.Status.Addresses}
	}
	return obj, nil
}

func trimService(o *corev1.Service) {
	o.ObjectMeta = trimMeta(&o.ObjectMeta)
	o.Spec.Selector = nil
	o.Spec.IPFamilies = nil
	o.Spec.IPFamilyPolicy = nil
	o.Spec.LoadBalancerClass = nil
	o.Spec.AllocateLoadBalancerNodePorts = nil
	o.Spec.TrafficDistribution = nil
	for i := range o.Spec.Ports {
		o.Spec.Ports[i].AppProtocol = nil
	}
	o.Status.Conditions = nil
	for i := range o.Status.LoadBalancer.Ingress {
		o.Status.LoadBalancer.Ingress[i].Ports = nil
	}
}

func trimSlice(o *discoveryv1.EndpointSlice) {
	o.ObjectMeta = trimMeta(&o.ObjectMeta)
	for i := range o.Ports {
		o.Ports[i].AppProtocol = nil
	}
	for i := range o.Endpoints {
		e := &o.Endpoints[i]
		if len(e.Addresses) > 1 {
			e.Addresses = e.Addresses[:1:1]
		}
		e.Hostname, e.TargetRef, e.DeprecatedTopology = nil, nil, nil
	}
}

// trimMeta keeps an object's identity and the labels and annotations that mean
// something to a proxy.
func trimMeta(m *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name:              m.Name,
		Namespace:         m.Namespace,
		UID:               m.UID,
		ResourceVersion:   m.ResourceVersion,
		CreationTimestamp: m.CreationTimestamp,
		Labels:            pick(m.Labels, discoveryv1.LabelServiceName, convert.ProxyNameLabel, convert.HeadlessLabel),
		Annotations:       pick(m.Annotations, convert.SchedulerAnnotation, convert.SchedulerAnnotationAlias),
	}
}

func pick(m map[string]string, keys ...string) map[string]string {
	var picked map[string]string
	for _, k := range keys {
		v, ok := m[k]
		if !ok {
			continue
		}
		if picked == nil {
			picked = make(map[string]string, 1)
		}
		picked[k] = v
	}
	return picked
}
