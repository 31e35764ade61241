package kube

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"sluice.dev/sluice/internal/source/convert"
)

// trim makes a transformation that drops from an object what package convert
// does not read, before it enters a cache. The object is the informer's own and
// changed in place; trimming it twice is the same as once. own is the name of
// this node's Node: of the other ones only the labels that say where they stand
// are kept.
func trim(own string) cache.TransformFunc {
	return func(obj any) (any, error) {
		switch o := obj.(type) {
		case *corev1.Service:
			trimService(o)
		case *discoveryv1.EndpointSlice:
			trimSlice(o)
		case *corev1.Node:
			trimNode(o, own)
		}
		return obj, nil
	}
}

func trimService(o *corev1.Service) {
	labels := o.Labels
	o.ObjectMeta = trimMeta(&o.ObjectMeta, convert.SchedulerAnnotation, convert.SchedulerAnnotationAlias, convert.DrainAnnotation)
	o.Labels = pick(labels, convert.ProxyNameLabel, convert.HeadlessLabel, convert.AppLabel, convert.AddonLabel)
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
	labels := o.Labels
	o.ObjectMeta = trimMeta(&o.ObjectMeta, convert.TriggerAnnotation)
	o.Labels = pick(labels, discoveryv1.LabelServiceName, convert.ProxyNameLabel, convert.HeadlessLabel)
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

func trimNode(o *corev1.Node, own string) {
	labels, deleted := o.Labels, o.DeletionTimestamp
	o.ObjectMeta = trimMeta(&o.ObjectMeta)
	o.Labels, o.DeletionTimestamp = labels, deleted
	if o.Name != own {
		o.Labels = pick(labels, corev1.LabelTopologyZone, corev1.LabelTopologyRegion)
	}
	taints := slices.DeleteFunc(o.Spec.Taints, func(t corev1.Taint) bool { return t.Key != convert.LeavingTaint })
	o.Spec = corev1.NodeSpec{PodCIDR: o.Spec.PodCIDR, PodCIDRs: o.Spec.PodCIDRs}
	if len(taints) > 0 {
		o.Spec.Taints = slices.Clone(taints)
	}
	o.Status = corev1.NodeStatus{Addresses: o.Status.Addresses}
}

// sameNode reports whether two trimmed Nodes tell the same: every kubelet writes
// its Node every few minutes, nearly always without any news for us.
func sameNode(a, b *corev1.Node) bool {
	return a.UID == b.UID && maps.Equal(a.Labels, b.Labels) && slices.Equal(a.Status.Addresses, b.Status.Addresses) &&
		a.Spec.PodCIDR == b.Spec.PodCIDR && slices.Equal(a.Spec.PodCIDRs, b.Spec.PodCIDRs) &&
		a.DeletionTimestamp.IsZero() == b.DeletionTimestamp.IsZero() && len(a.Spec.Taints) == len(b.Spec.Taints)
}

// trimMeta keeps an object's identity and some annotations, and no label.
func trimMeta(m *metav1.ObjectMeta, annotations ...string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name:              m.Name,
		Namespace:         m.Namespace,
		UID:               m.UID,
		ResourceVersion:   m.ResourceVersion,
		CreationTimestamp: m.CreationTimestamp,
		Annotations:       pick(m.Annotations, annotations...),
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
