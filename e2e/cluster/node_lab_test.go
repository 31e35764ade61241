//go:build lab

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/e2e/topo"
)

// heartbeat is how often a kubelet says that its node lives.
const heartbeat = 5 * time.Second

// register makes the Node object that a kubelet would, with the pod ranges that
// a network plugin or kube-controller-manager gives it.
func (k *kubelet) register(ctx context.Context, number int, h *topo.Host) error {
	nodes := k.w.api.CoreV1().Nodes()
	_, err := nodes.Create(ctx, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: h.Name, Labels: map[string]string{
			corev1.LabelHostname: h.Name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64",
		}},
		Spec: corev1.NodeSpec{PodCIDRs: []string{fmt.Sprintf("10.244.%d.0/24", number), fmt.Sprintf("fd00:10:244:%x::/64", number)},
			PodCIDR: fmt.Sprintf("10.244.%d.0/24", number)},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	room := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	status := corev1.NodeStatus{
		Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeHostName, Address: h.Name},
			{Type: corev1.NodeInternalIP, Address: h.V4.String()},
			{Type: corev1.NodeInternalIP, Address: h.V6.String()},
		},
		Capacity: room, Allocatable: room,
		Conditions: []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady",
			LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
		}},
	}
	// Controllers change the Node from its first moment on.
	body, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	if _, err = nodes.PatchStatus(ctx, h.Name, body); err != nil {
		return err
	}
	return k.renew(ctx, h)
}

// renew says in a node's Lease that it lives.
func (k *kubelet) renew(ctx context.Context, h *topo.Host) error {
	leases := k.w.api.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	lease, err := leases.Get(ctx, h.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		lease, err = leases.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: h.Name},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: new(h.Name), LeaseDurationSeconds: new(int32(40))},
		}, metav1.CreateOptions{})
	}
	if err != nil {
		return err
	}
	lease.Spec.RenewTime = new(metav1.NowMicro())
	_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	return err
}

// beat keeps the nodes alive until ctx ends.
func (k *kubelet) beat(ctx context.Context) {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, h := range k.w.Nodes {
			if err := k.renew(ctx, h); err != nil && ctx.Err() == nil {
				k.log.say("%s: renew its Lease: %v", h.Name, err)
			}
		}
	}
}
