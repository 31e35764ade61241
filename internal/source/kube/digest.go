package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kjson "sigs.k8s.io/json"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source/convert"
)

// InvalidObject is the reason of the problem that an object cannot be decoded.
const InvalidObject = "InvalidObject"

// digest is what a cache keeps of an object of which it keeps nothing else: what
// it means. Of Pods there are many, and even a trimmed one is mostly empty
// fields; of a NetworkPolicy the meaning depends on fields that its type lacks.
type digest[F any] struct {
	metav1.ObjectMeta
	fact     F
	ok       bool
	problems []model.Problem
}

// meaning is the conversion of what has been converted.
func (d *digest[F]) meaning() (fact F, ok bool, problems []model.Problem) {
	return d.fact, d.ok, d.problems
}

// digestPod has a Pod that is done be none: to a watch that selects those that
// are not it looks deleted, and whoever sees it anyhow must not tell otherwise.
func digestPod(o *corev1.Pod) *digest[model.Pod] {
	pod, ok, problems := convert.Pod(o)
	return &digest[model.Pod]{trimMeta(&o.ObjectMeta), pod, ok && !pod.Done, problems}
}

// digestPolicy reads a NetworkPolicy strictly.
func digestPolicy(o *unstructured.Unstructured) *digest[model.NetworkPolicy] {
	d := &digest[model.NetworkPolicy]{ObjectMeta: metav1.ObjectMeta{
		Name: o.GetName(), Namespace: o.GetNamespace(), UID: o.GetUID(),
		ResourceVersion: o.GetResourceVersion(), CreationTimestamp: o.GetCreationTimestamp(),
	}}
	policy, unknown, err := strictPolicy(o)
	if err != nil {
		d.problems = []model.Problem{{
			Kind: convert.NetworkPolicyKind, Object: model.Name{Namespace: d.Namespace, Name: d.Name}, UID: string(d.UID), Reason: InvalidObject,
			Message: fmt.Sprintf("spec: cannot be decoded: %v; correct it, or upgrade; until then the policy stays as it was before, and one that is new isolates no pod", err),
		}}
		return d
	}
	d.fact, d.ok, d.problems = convert.NetworkPolicy(policy, unknown)
	return d
}

// strictPolicy decodes a NetworkPolicy, and names the fields that its type does
// not have.
func strictPolicy(o *unstructured.Unstructured) (policy *networkingv1.NetworkPolicy, unknown []string, err error) {
	js, err := json.Marshal(o.Object)
	if err != nil {
		return nil, nil, err
	}
	policy = &networkingv1.NetworkPolicy{}
	strict, err := kjson.UnmarshalStrict(js, policy)
	for _, e := range strict {
		if field, ok := errors.AsType[kjson.FieldError](e); ok {
			unknown = append(unknown, field.FieldPath())
		}
	}
	return policy, unknown, err
}

// samePod reports whether two Pods mean the same: kubelets write their status far
// more often than anything that policies read.
func samePod(a, b *digest[model.Pod]) bool {
	p, q := &a.fact, &b.fact
	return p.UID == q.UID && a.ok == b.ok && p.Node == q.Node && maps.Equal(p.Labels, q.Labels) && slices.Equal(p.Addrs, q.Addrs) &&
		p.HostNetwork == q.HostNetwork && p.Done == q.Done && slices.Equal(p.Ports, q.Ports) && p.Grace == q.Grace &&
		slices.Equal(a.problems, b.problems)
}

// samePolicy is asked seldom.
func samePolicy(a, b *digest[model.NetworkPolicy]) bool {
	return a.UID == b.UID && a.ok == b.ok && reflect.DeepEqual(a.fact, b.fact) && slices.Equal(a.problems, b.problems)
}
