package convert

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"sluice.dev/sluice/internal/model"
)

// LeavingTaint is how the cluster autoscaler marks a node that it is about to
// delete, whatever the taint's effect.
const LeavingTaint = "ToBeDeletedByClusterAutoscaler"

// DrainNodeAnnotation asks for no route to lead to a node, with any value but
// "" and "false". What is left of traffic may still come.
const DrainNodeAnnotation = "sluice.dev/drain"

// ExcludeLabel keeps a node out of load balancers, whatever its value.
const ExcludeLabel = corev1.LabelNodeExcludeBalancers

// Node is a Node as the proxy reads it. ok is always true; it is there so that
// all conversions look alike.
func Node(n *corev1.Node) (node model.Node, ok bool, problems []model.Problem) {
	r := newReport(NodeKind, &n.ObjectMeta)
	return model.Node{
		Name:     n.Name,
		Labels:   maps.Clone(n.Labels),
		Addrs:    nodeAddrs(n, r),
		PodCIDRs: podCIDRs(n, r),
		Leaving:  leaving(n),
		Drained:  drained(n),
		NotReady: notReady(n),
	}, true, r.list()
}

// nodeAddrs are the internal addresses, then the external ones: in this order
// Kubernetes looks for the address of a node.
func nodeAddrs(n *corev1.Node, r *report) []netip.Addr {
	var found distinct[netip.Addr]
	for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP} {
		for i, given := range n.Status.Addresses {
			if given.Type != kind {
				continue
			}
			a, err := parseVIP(given.Address)
			if err != nil {
				r.add(InvalidAddress, fmt.Sprintf("status.addresses[%d].address", i), given.Address, err.Error(), remedyAddress)
				continue
			}
			found.add(a)
		}
	}
	return found.list
}

func podCIDRs(n *corev1.Node, r *report) []netip.Prefix {
	given := n.Spec.PodCIDRs
	if len(given) == 0 && n.Spec.PodCIDR != "" {
		given = []string{n.Spec.PodCIDR}
	}
	return prefixes(given, "spec.podCIDRs", InvalidPodCIDR, r)
}

// leaving is what KEP-3836 calls an ineligible node: its Pods still run, but new
// connections from outside had better go elsewhere.
func leaving(n *corev1.Node) string {
	if !n.DeletionTimestamp.IsZero() {
		return "it is being deleted"
	}
	if slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == LeavingTaint }) {
		return "it has the taint " + LeavingTaint
	}
	return ""
}

// drained says why no route may lead to a node.
func drained(n *corev1.Node) string {
	if v := n.Annotations[DrainNodeAnnotation]; v != "" && v != "false" {
		return "it has the annotation " + DrainNodeAnnotation
	}
	if _, excluded := n.Labels[ExcludeLabel]; excluded {
		return "it has the label " + ExcludeLabel
	}
	return ""
}

// notReady is since when a node is not ready: since long ago if nothing says it.
// A Node in a file seldom has conditions, and is there because somebody wants it
// to be: without one it is ready.
func notReady(n *corev1.Node) time.Time {
	i := slices.IndexFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == corev1.NodeReady })
	if i < 0 || n.Status.Conditions[i].Status == corev1.ConditionTrue {
		return time.Time{}
	}
	for _, t := range []time.Time{n.Status.Conditions[i].LastTransitionTime.Time, n.CreationTimestamp.Time} {
		if !t.IsZero() {
			return t
		}
	}
	return time.Unix(1, 0)
}
