package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sluice.dev/sluice/e2e/topo"
)

// Namespace is a Namespace object as the API server keeps it.
func Namespace(name string, labels map[string]string) *corev1.Namespace {
	o := &corev1.Namespace{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelMetadataName: name}},
	}
	maps.Copy(o.Labels, labels)
	return o
}

// Pod is the Pod object of a host that runs on a node, as its kubelet reports
// it: running, with the host's addresses, and an empty container.
func Pod(h *topo.Host, namespace, name, node string) *corev1.Pod {
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-" + namespace + "-" + name)},
		Spec: corev1.PodSpec{
			NodeName: node, Containers: []corev1.Container{{Name: "serve", Image: "serve"}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: h.V4.String(),
			PodIPs: []corev1.PodIP{{IP: h.V4.String()}, {IP: h.V6.String()}},
		},
	}
}

// Question asks whether a connection would be allowed. From is a pod
// ("namespace/name") or an address; To is one of these with a port, or a virtual
// address with its.
type Question struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Protocol string `json:"protocol"` // TCP, UDP or SCTP
	Port     uint16 `json:"port"`
}

// Verdict is what the agent says to a Question.
type Verdict struct {
	Allowed bool   `json:"allowed"`
	Error   string `json:"error"`
}

// explainMost is how many questions the agent takes at once.
const explainMost = 1000

// Explain asks the agent what it thinks that policies allow: a verdict for
// every question, in order.
func (a *Agent) Explain(ctx context.Context, questions []Question) ([]Verdict, error) {
	var verdicts []Verdict
	for part := range slices.Chunk(questions, explainMost) {
		got, err := a.explain(ctx, part)
		if err != nil {
			return nil, err
		}
		verdicts = append(verdicts, got...)
	}
	return verdicts, nil
}

func (a *Agent) explain(ctx context.Context, questions []Question) ([]Verdict, error) {
	const page = metrics + "/policy/explain"
	body, err := json.Marshal(questions)
	if err != nil {
		return nil, err
	}
	// Thousands of questions take their time.
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, page, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	client := a.Host.HTTPClient()
	client.Timeout = 0
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("agent: %s on %s: %s: %s", page, a.Host.Name, resp.Status, strings.TrimSpace(string(answer)))
	}
	var verdicts []Verdict
	if err := json.Unmarshal(answer, &verdicts); err != nil {
		return nil, fmt.Errorf("agent: %s on %s: %w", page, a.Host.Name, err)
	}
	if len(verdicts) != len(questions) {
		return nil, fmt.Errorf("agent: %s on %s: %d answers to %d questions", page, a.Host.Name, len(verdicts), len(questions))
	}
	return verdicts, nil
}
