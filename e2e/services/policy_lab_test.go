//go:build lab

package services

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sluice.dev/sluice/e2e/agent"
	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// TestNetworkPolicy: a NetworkPolicy and Pods of a real API server are enforced
// through a cluster IP, as they are made, changed and deleted.
func TestNetworkPolicy(t *testing.T) {
	w := enter(t)
	a := w.create(t, "guarded", ready(w.web[0]), nil)
	w.follows(t, a)
	w.makePod(t, w.web[0], map[string]string{"app": "web"})
	w.makePod(t, w.near, nil)
	ask := func(want bool) {
		t.Helper()
		for _, like := range []netip.Addr{w.near.V4, w.near.V6} {
			to := a.at(t, w.nodes[0], clusterIP, "tcp", like)
			suite.Await(t, 10*time.Second, func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				if _, err := w.near.Ask(ctx, topo.TCP, to); (err == nil) != want {
					return fmt.Errorf("%s -> %s: error %v, want an answer: %v", w.near.Name, to, err, want)
				}
				return nil
			})
		}
	}
	ask(true)
	policies := w.api.NetworkingV1().NetworkPolicies(namespace)
	p, err := policies.Create(t.Context(), &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "friends"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
				PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"role": "friend"}},
			}}}},
		},
	}, metav1.CreateOptions{})
	suite.Must(t, err)
	began := time.Now()
	t.Cleanup(func() { _ = policies.Delete(context.Background(), p.Name, metav1.DeleteOptions{}) })
	ask(false)
	t.Logf("refused in both families %v after the policy was made", time.Since(began).Round(time.Millisecond))
	_, err = w.api.CoreV1().Pods(namespace).Patch(t.Context(), w.near.Name, types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"role":"friend"}}}`), metav1.PatchOptions{})
	suite.Must(t, err)
	began = time.Now()
	ask(true)
	t.Logf("answered in both families %v after the label", time.Since(began).Round(time.Millisecond))
	_, err = w.api.CoreV1().Pods(namespace).Patch(t.Context(), w.near.Name, types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"role":null}}}`), metav1.PatchOptions{})
	suite.Must(t, err)
	ask(false)
	suite.Must(t, policies.Delete(t.Context(), p.Name, metav1.DeleteOptions{}))
	ask(true)
}

// makePod makes the Pod of a host, which runs.
func (w *world) makePod(t *testing.T, h *topo.Host, labels map[string]string) {
	t.Helper()
	accounts := w.api.CoreV1().ServiceAccounts(namespace)
	// Nobody makes it here, and no pod may do without.
	_, _ = accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	pods := w.api.CoreV1().Pods(namespace)
	pod := agent.Pod(h, namespace, h.Name, w.NodeOf(h).Name)
	pod.UID, pod.Labels = "", labels
	status := pod.Status
	made, err := pods.Create(t.Context(), pod, metav1.CreateOptions{})
	suite.Must(t, err)
	now := int64(0)
	t.Cleanup(func() {
		_ = pods.Delete(context.Background(), h.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	})
	made.Status = status
	_, err = pods.UpdateStatus(t.Context(), made, metav1.UpdateOptions{})
	suite.Must(t, err)
}
