package kube

import (
	"bytes"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/source/convert"
)

// sameNode reports whether two trimmed Nodes tell the same: every kubelet writes
// its Node every few minutes, nearly always without any news for us.
func sameNode(a, b *corev1.Node) bool {
	return a.UID == b.UID && maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations) &&
		slices.Equal(a.Status.Addresses, b.Status.Addresses) && sameReadiness(a.Status.Conditions, b.Status.Conditions) &&
		a.Spec.PodCIDR == b.Spec.PodCIDR && slices.Equal(a.Spec.PodCIDRs, b.Spec.PodCIDRs) &&
		a.DeletionTimestamp.IsZero() == b.DeletionTimestamp.IsZero() && len(a.Spec.Taints) == len(b.Spec.Taints)
}

// sameReadiness does not tell False from Unknown: both mean that the node is not
// ready.
func sameReadiness(a, b []corev1.NodeCondition) bool {
	return slices.EqualFunc(a, b, func(a, b corev1.NodeCondition) bool {
		return a.LastTransitionTime.Equal(&b.LastTransitionTime)
	})
}

// The kinds below have a status that is written far more often than what is
// read of them, or are written without any change.

func samePool(a, b *v1alpha1.AddressPool) bool {
	return a.UID == b.UID && maps.Equal(a.Labels, b.Labels) && equality.Semantic.DeepEqual(a.Spec, b.Spec)
}

func samePeer(a, b *v1alpha1.BGPPeer) bool {
	return a.UID == b.UID && equality.Semantic.DeepEqual(a.Spec, b.Spec)
}

func sameAdvertisement(a, b *v1alpha1.BGPAdvertisement) bool {
	return a.UID == b.UID && equality.Semantic.DeepEqual(a.Spec, b.Spec)
}

func sameSecret(a, b *corev1.Secret) bool {
	was, had := a.Data[convert.PasswordKey]
	is, has := b.Data[convert.PasswordKey]
	return had == has && bytes.Equal(was, is) && a.Type == b.Type && a.UID == b.UID
}

func sameNamespace(a, b *corev1.Namespace) bool { return maps.Equal(a.Labels, b.Labels) }
