package kube

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"

	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/source/convert"
)

// trim makes a transformation that drops from an object what package convert
// does not read, before it enters a cache. The object is the informer's own and
// changed in place; trimming it twice is the same as once. labelled says of
// which Nodes, by name, all labels are kept: of the other ones only those that
// say where they stand. Of Pods and NetworkPolicies only what they mean is left.
func trim(labelled func(node string) bool) cache.TransformFunc {
	return func(obj any) (any, error) {
		switch o := obj.(type) {
		case *corev1.Service:
			trimService(o)
		case *discoveryv1.EndpointSlice:
			trimSlice(o)
		case *corev1.Node:
			trimNode(o, labelled(o.Name))
		case *corev1.Secret:
			trimSecret(o)
		case *corev1.Namespace:
			*o = corev1.Namespace{ObjectMeta: trimLabelled(&o.ObjectMeta)}
		case *v1alpha1.AddressPool:
			o.ObjectMeta, o.Status = trimLabelled(&o.ObjectMeta), v1alpha1.AddressPoolStatus{}
		case *v1alpha1.BGPPeer:
			o.ObjectMeta, o.Status = trimMeta(&o.ObjectMeta), v1alpha1.BGPPeerStatus{}
		case *v1alpha1.BGPAdvertisement:
			o.ObjectMeta = trimMeta(&o.ObjectMeta)
		case *corev1.Pod:
			return digestPod(o), nil
		case *unstructured.Unstructured: // nothing but NetworkPolicies is read so
			return digestPolicy(o), nil
		}
		return obj, nil
	}
}

func trimService(o *corev1.Service) {
	labels := o.Labels
	o.ObjectMeta = trimMeta(&o.ObjectMeta, convert.SchedulerAnnotation, convert.SchedulerAnnotationAlias, convert.DrainAnnotation,
		convert.AddressesAnnotation, convert.AddressesAnnotationAlias, convert.PoolAnnotation, convert.PoolAnnotationAlias,
		convert.SharingAnnotation, convert.SharingAnnotationAlias, convert.ReallocateAnnotation)
	o.Labels = labels
	o.Spec.Selector = nil
	if o.Spec.Type != corev1.ServiceTypeLoadBalancer {
		o.Spec.IPFamilies = nil
		o.Spec.IPFamilyPolicy = nil
		o.Spec.LoadBalancerClass = nil
	}
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
		pod := convert.PodOf(o, e)
		e.Hostname, e.TargetRef, e.DeprecatedTopology = nil, nil, nil
		if pod != "" {
			e.TargetRef = &corev1.ObjectReference{Kind: convert.PodKind, Name: pod}
		}
	}
}

func trimNode(o *corev1.Node, labelled bool) {
	labels, deleted := o.Labels, o.DeletionTimestamp
	o.ObjectMeta = trimMeta(&o.ObjectMeta, convert.DrainNodeAnnotation)
	o.Labels, o.DeletionTimestamp = labels, deleted
	if !labelled {
		o.Labels = pick(labels, corev1.LabelTopologyZone, corev1.LabelTopologyRegion, convert.ExcludeLabel)
	}
	taints := slices.DeleteFunc(o.Spec.Taints, func(t corev1.Taint) bool { return t.Key != convert.LeavingTaint })
	o.Spec = corev1.NodeSpec{PodCIDR: o.Spec.PodCIDR, PodCIDRs: o.Spec.PodCIDRs}
	if len(taints) > 0 {
		o.Spec.Taints = slices.Clone(taints)
	}
	o.Status = corev1.NodeStatus{Addresses: o.Status.Addresses, Conditions: unready(o.Status.Conditions)}
}

// unready is that a node is not ready, and since when. How often that is said
// again is no news.
func unready(conditions []corev1.NodeCondition) []corev1.NodeCondition {
	for _, c := range conditions {
		if c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue {
			return []corev1.NodeCondition{{Type: c.Type, Status: c.Status, LastTransitionTime: c.LastTransitionTime}}
		}
		if c.Type == corev1.NodeReady {
			return nil
		}
	}
	return nil
}

func trimSecret(o *corev1.Secret) {
	*o = corev1.Secret{ObjectMeta: trimMeta(&o.ObjectMeta), Type: o.Type, Data: pick(o.Data, convert.PasswordKey)}
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

// trimLabelled keeps an object's identity and its labels.
func trimLabelled(m *metav1.ObjectMeta) metav1.ObjectMeta {
	labels := m.Labels
	trimmed := trimMeta(m)
	trimmed.Labels = labels
	return trimmed
}

func pick[V any](m map[string]V, keys ...string) map[string]V {
	var picked map[string]V
	for _, k := range keys {
		v, ok := m[k]
		if !ok {
			continue
		}
		if picked == nil {
			picked = make(map[string]V, 1)
		}
		picked[k] = v
	}
	return picked
}
