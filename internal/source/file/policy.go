package file

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source/convert"
)

func (d decoder) pod(js []byte) ([]*object, []mistake) {
	var p corev1.Pod
	if m := strictly(js, &p, &p.ObjectMeta); m != nil {
		return nil, m
	}
	namespaced(&p.ObjectMeta)
	pod, _, problems := convert.Pod(&p)
	return []*object{{key: model.PodKey{Name: pod.Name, UID: pod.UID}, put: pod, problems: problems}}, nil
}

// policy takes a NetworkPolicy as an API server's is taken: an unknown field in
// its spec is no mistake of the file, but leaves out what it stands in. Were the
// file refused, the policy would isolate nobody if it is new.
func (d decoder) policy(js []byte) ([]*object, []mistake) {
	var p networkingv1.NetworkPolicy
	var mistakes []mistake
	var unknown []string
	for _, m := range fields(js, &p) {
		if strings.HasPrefix(m.field, "spec.") && strings.HasPrefix(m.reason, unknownField) {
			unknown = append(unknown, m.field)
		} else {
			mistakes = append(mistakes, m)
		}
	}
	if len(mistakes) == 0 {
		mistakes = unnamed(&p.ObjectMeta)
	}
	if len(mistakes) > 0 {
		return nil, mistakes
	}
	namespaced(&p.ObjectMeta)
	policy, ok, problems := convert.NetworkPolicy(&p, unknown)
	return []*object{usable(model.NetworkPolicyKey{Name: nameOf(&p.ObjectMeta)}, policy, ok, problems)}, nil
}
