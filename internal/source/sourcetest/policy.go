package sourcetest

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"sluice.dev/sluice/internal/model"
)

// policyLine is the line of a fact that NetworkPolicy reads.
func policyLine(fact any) string {
	switch f := fact.(type) {
	case model.Pod:
		return podLine(f)
	case model.NetworkPolicy:
		return networkPolicyLine(f)
	}
	return networkLine(fact)
}

func podLine(p model.Pod) string {
	w := words{fmt.Sprintf("pod %s %s: %v", p.Name, p.UID, p.Addrs)}
	w.say(p.Node != "", "on %s", p.Node)
	w.say(len(p.Labels) > 0, "labels %v", p.Labels)
	w.say(p.HostNetwork, "host network")
	for _, c := range p.Ports {
		w.say(true, "%s %d/%s", c.Name, c.Port, c.Protocol)
	}
	return strings.Join(w, ", ")
}

// networkPolicyLine says of each rule who it allows, then on which ports.
func networkPolicyLine(np model.NetworkPolicy) string {
	w := words{fmt.Sprintf("policy %s: pods %s", np.Name, selectorText(&np.Pods))}
	w.say(np.Ingress, "Ingress")
	w.say(np.Egress, "Egress")
	for _, r := range np.IngressRules {
		w.say(true, "in %s", ruleText(r))
	}
	for _, r := range np.EgressRules {
		w.say(true, "out %s", ruleText(r))
	}
	return strings.Join(w, ", ")
}

func ruleText(r model.PolicyRule) string {
	var peers, ports []string
	for _, p := range r.Peers {
		peers = append(peers, fmt.Sprintf("%d:%s", p.Index, peerText(p)))
	}
	for _, p := range r.Ports {
		ports = append(ports, fmt.Sprintf("%d:%s", p.Index, portText(p)))
	}
	return fmt.Sprintf("%d: %s at %s", r.Index, listText(r.AnyPeer, peers, "everybody", "nobody"), listText(r.AnyPort, ports, "every port", "no port"))
}

func listText(anything bool, list []string, all, none string) string {
	switch {
	case anything && len(list) > 0:
		return "contradiction"
	case anything:
		return all
	case len(list) == 0:
		return none
	}
	return strings.Join(list, " or ")
}

func peerText(p model.PolicyPeer) string {
	var w words
	w.say(p.Block.IsValid(), "%v", p.Block)
	w.say(len(p.Except) > 0, "but %v", p.Except)
	w.say(p.Pods != nil, "pods %s", selectorText(p.Pods))
	w.say(p.Namespaces != nil, "in namespaces %s", selectorText(p.Namespaces))
	return strings.Join(w, " ")
}

func portText(p model.PolicyPort) string {
	switch {
	case p.Name != "":
		return fmt.Sprintf("%s/%s", p.Name, p.Protocol)
	case p.First == 0 && p.Last == 0:
		return "any/" + p.Protocol.String()
	case p.First == p.Last:
		return fmt.Sprintf("%d/%s", p.First, p.Protocol)
	}
	return fmt.Sprintf("%d-%d/%s", p.First, p.Last, p.Protocol)
}

func selectorText(s *model.Selector) string {
	if s == nil || len(s.Requirements) == 0 {
		return "*"
	}
	var list []string
	for _, r := range s.Requirements {
		values := strings.Join(r.Values, "|")
		list = append(list, map[model.Operator]string{
			model.In: r.Key + "=" + values, model.NotIn: r.Key + "!=" + values, model.Exists: r.Key, model.DoesNotExist: "!" + r.Key,
		}[r.Op])
	}
	return strings.Join(list, "&")
}

type podChange func(*corev1.Pod)

// pod is shop/web-0 on node n1, changed.
func pod(uid, addr string, changes ...podChange) *corev1.Pod {
	p := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0", UID: types.UID(uid)},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
	if addr != "" {
		p.Status.PodIP, p.Status.PodIPs = addr, []corev1.PodIP{{IP: addr}}
	}
	for _, c := range changes {
		c(p)
	}
	return p
}

// pods: one that is made anew under its name is another, whether or not anybody
// saw the first go, and one that is done is as good as gone. A Picture does not
// show those that are done.
func pods() Life {
	const line = "pod shop/web-0 a: [10.1.0.1], on n1"
	phase := func(is corev1.PodPhase) podChange { return func(p *corev1.Pod) { p.Status.Phase = is } }
	labelled := func(p *corev1.Pod) { p.Labels = map[string]string{"app": "web"} }
	dual := func(p *corev1.Pod) { p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: "fd00::1"}) }
	serves := func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}, {ContainerPort: 9090}}
	}
	leaving := func(p *corev1.Pod) {
		p.DeletionTimestamp, p.Finalizers = new(metav1.Unix(1e9, 0)), []string{"example.org/keep"}
	}
	return Life{"Pods", []Step{
		{"without an address yet", objects(pod("a", "", phase(corev1.PodPending))), []string{"pod shop/web-0 a: [], on n1"}},
		{"running", objects(pod("a", "10.1.0.1")), []string{line}},
		{"with a label", objects(pod("a", "10.1.0.1", labelled)), []string{line + ", labels map[app:web]"}},
		{"of both families", objects(pod("a", "10.1.0.1", dual)), []string{"pod shop/web-0 a: [10.1.0.1 fd00::1], on n1"}},
		{"with a port that has a name", objects(pod("a", "10.1.0.1", serves)), []string{line + ", http 8080/TCP"}},
		{"anew", objects(pod("b", "10.1.0.2")), []string{"pod shop/web-0 b: [10.1.0.2], on n1"}},
		{"anew with the same address", objects(pod("c", "10.1.0.2")), []string{"pod shop/web-0 c: [10.1.0.2], on n1"}},
		{"leaving", objects(pod("c", "10.1.0.2", leaving)), []string{"pod shop/web-0 c: [10.1.0.2], on n1"}},
		{"done", objects(pod("c", "10.1.0.2", phase(corev1.PodSucceeded))), nil},
		{"still done", objects(pod("c", "10.1.0.2", phase(corev1.PodFailed), labelled)), nil},
		{"anew after it was done", objects(pod("d", "10.1.0.2")), []string{"pod shop/web-0 d: [10.1.0.2], on n1"}},
		{"gone", nil, nil},
	}}
}

// policies: one that cannot be enforced as it says leaves what was before.
func policies() Life {
	type spec = networkingv1.NetworkPolicySpec
	np := func(s spec) *networkingv1.NetworkPolicy {
		return &networkingv1.NetworkPolicy{
			TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}, ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u1"}, Spec: s,
		}
	}
	app := func(name string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
	}
	from := func(ports []networkingv1.NetworkPolicyPort, peers ...networkingv1.NetworkPolicyPeer) spec {
		return spec{PodSelector: *app("web"), Ingress: []networkingv1.NetworkPolicyIngressRule{{Ports: ports, From: peers}}}
	}
	port := []networkingv1.NetworkPolicyPort{{Port: new(intstr.FromString("http"))}}
	wrong := spec{PodSelector: *app("not a value")}
	const line = "policy shop/web: pods app=web, Ingress"
	return Life{"NetworkPolicies", []Step{
		{"nobody can say of which pods", objects(np(wrong)), nil},
		{"of all pods, from nobody", objects(np(spec{})), []string{"policy shop/web: pods *, Ingress"}},
		{"from some", objects(np(from(nil, networkingv1.NetworkPolicyPeer{PodSelector: app("a")}))), []string{line + ", in 0: 0:pods app=a at every port"}},
		{"at a port", objects(np(from(port))), []string{line + ", in 0: everybody at 0:http/TCP"}},
		{"from whom is wrong", objects(np(from(nil, networkingv1.NetworkPolicyPeer{}))), []string{line + ", in 0: nobody at every port"}},
		{"gone", nil, nil},
		{"to nobody", objects(np(spec{PolicyTypes: []networkingv1.PolicyType{"Egress"}})), []string{"policy shop/web: pods *, Egress"}},
	}}
}
