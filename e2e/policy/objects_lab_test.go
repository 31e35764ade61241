//go:build lab

package policy

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/e2e/agent"
	"sluice.dev/sluice/e2e/suite"
	"sluice.dev/sluice/e2e/topo"
)

// caseFile is the file of a case's policies and further objects.
const caseFile = "case.yaml"

// apply writes what a case says there is and waits for the agents. What it wants
// is seen to be so for a part of all connections, unless it wants what is there
// without policies.
func (w *world) apply(t *testing.T, c policyCase) {
	t.Helper()
	suite.Must(t, w.write(c))
	if c.want == "" && c.policies != "" {
		w.settle(t)
		return
	}
	w.mark(t, soon)
	w.ready(t, soon)
	r, err := parseReach(c.want)
	suite.Must(t, err)
	sample := without(matrix(false), func(f flow) bool {
		return f.vip || f.protocol == topo.SCTP || (f.protocol == topo.TCP) == f.six || f.six == (f.port == 80)
	})
	// Whether all is as it should be is for others to judge.
	ctx, cancel := context.WithTimeout(t.Context(), lateMost)
	defer cancel()
	_ = topo.Eventually(ctx, func() error { return w.wrong(t, r, sample) })
}

// write has the files say what a case says there is, and touches no other.
func (w *world) write(c policyCase) error {
	for _, namespace := range []string{"x", "y", "z"} {
		labels := map[string]string{"ns": namespace}
		if text, ok := c.labels[namespace]; ok {
			labels = pairs(text)
		}
		if err := w.put(namespace, agent.Namespace(namespace, labels), c.pods[namespace] == gone); err != nil {
			return err
		}
	}
	for _, pod := range pods() {
		if err := w.put(string(pod), w.podObject(pod, c), c.pods[string(pod)] == gone); err != nil {
			return err
		}
	}
	text, err := c.manifest()
	if err != nil {
		return err
	}
	if text == "" {
		text = "# nothing\n"
	}
	if w.written[caseFile] == text {
		return nil
	}
	w.written[caseFile] = text
	return w.manifests.WriteText(caseFile, text)
}

// put writes an object or takes it away, if that is not so already.
func (w *world) put(who string, o agent.Object, away bool) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	want := string(text)
	if away {
		want = ""
	}
	if was, known := w.written[who]; known && was == want {
		return nil
	}
	w.written[who] = want
	if away {
		return w.manifests.Erase(o)
	}
	return w.manifests.Write(o)
}

func pairs(text string) map[string]string {
	labels := map[string]string{}
	for pair := range strings.SplitSeq(text, ",") {
		if k, v, ok := strings.Cut(pair, "="); ok {
			labels[k] = v
		}
	}
	return labels
}

// podObject is a pod's object in the state that a case wants.
func (w *world) podObject(pod actor, c policyCase) *corev1.Pod {
	namespace, name, _ := strings.Cut(string(pod), "/")
	o := agent.Pod(w.hosts[pod], namespace, name, string(placeOf(pod).host()))
	o.Labels = map[string]string{"pod": name}
	if text, ok := c.labels[string(pod)]; ok {
		o.Labels = pairs(text)
	}
	o.Spec.Containers[0].Ports = containerPorts(name)
	if name == "a" {
		o.Spec.Containers = append(o.Spec.Containers, corev1.Container{
			Name: "second", Image: "serve", Ports: []corev1.ContainerPort{{Name: "both", ContainerPort: 81, Protocol: corev1.ProtocolTCP}},
		})
	}
	switch c.pods[string(pod)] {
	case done:
		o.Status.Phase = corev1.PodSucceeded
	case failed:
		o.Status.Phase = corev1.PodFailed
	case terminating:
		o.DeletionTimestamp = &metav1.Time{Time: time.Unix(1700000000, 0)}
		o.DeletionGracePeriodSeconds = new(int64(30))
	case unready:
		o.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse}}
	case recreated:
		o.UID += "-2"
	case gone:
	}
	return o
}

// containerPorts are the named ports of a pod, see portCases.
func containerPorts(name string) []corev1.ContainerPort {
	var ports []corev1.ContainerPort
	add := func(name string, number int32, protocol corev1.Protocol) {
		ports = append(ports, corev1.ContainerPort{Name: name, ContainerPort: number, Protocol: protocol})
	}
	for _, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP} {
		for _, number := range []int32{80, 81} {
			add(fmt.Sprintf("serve-%d-%s", number, strings.ToLower(string(protocol))), number, protocol)
		}
	}
	switch name {
	case "a":
		add("web", 80, corev1.ProtocolTCP)
		add("both", 80, corev1.ProtocolTCP)
	case "b":
		add("web", 81, corev1.ProtocolTCP)
	case "c":
		add("web", 80, corev1.ProtocolUDP)
	}
	add("mixed", 80, corev1.ProtocolTCP)
	add("mixed", 81, corev1.ProtocolUDP)
	return ports
}
