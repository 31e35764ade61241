package convert

import (
	"math"
	"reflect"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/internal/model"
)

func plainPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0", UID: "u1", Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{
			NodeName:                      "n1",
			TerminationGracePeriodSeconds: new(int64(5)),
			Containers:                    []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}}}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.1.0.1", PodIPs: []corev1.PodIP{{IP: "10.1.0.1"}, {IP: "fd00::1"}}},
	}
}

func plainPodFact() model.Pod {
	return model.Pod{
		Name: model.Name{Namespace: "shop", Name: "web-0"}, UID: "u1", Node: "n1", Labels: map[string]string{"app": "web"},
		Addrs: addrs("10.1.0.1", "fd00::1"), Ports: []model.ContainerPort{{Name: "http", Protocol: model.TCP, Port: 8080}}, Grace: 5 * time.Second,
	}
}

// TestPod is section 1.4, and of 1.2 which ports a pod's names stand for.
func TestPod(t *testing.T) {
	ports := func(p *corev1.Pod, list ...corev1.ContainerPort) { p.Spec.Containers[0].Ports = list }
	rows := []struct {
		name   string
		change func(*corev1.Pod)
		want   func(*model.Pod)
		says   []string
	}{
		{name: "as it is"},
		{name: "not scheduled", change: func(p *corev1.Pod) { p.Spec.NodeName = "" }, want: func(w *model.Pod) { w.Node = "" }},
		{name: "no labels", change: func(p *corev1.Pod) { p.Labels = nil }, want: func(w *model.Pod) { w.Labels = nil }},
		{name: "on the host's network", change: func(p *corev1.Pod) { p.Spec.HostNetwork = true }, want: func(w *model.Pod) { w.HostNetwork = true }},

		{name: "no address yet", change: func(p *corev1.Pod) { p.Status.PodIP, p.Status.PodIPs = "", nil }, want: func(w *model.Pod) { w.Addrs = nil }},
		{name: "podIP alone", change: func(p *corev1.Pod) { p.Status.PodIPs = nil }, want: func(w *model.Pod) { w.Addrs = addrs("10.1.0.1") }},
		{name: "podIPs count more than podIP", change: func(p *corev1.Pod) { p.Status.PodIP = "10.1.0.9" }},
		{name: "the same twice", change: func(p *corev1.Pod) { p.Status.PodIPs[1].IP = "::ffff:10.1.0.1" }, want: func(w *model.Pod) { w.Addrs = addrs("10.1.0.1") }},
		{
			name: "one bad address leaves the other", change: func(p *corev1.Pod) { p.Status.PodIPs[0].IP = "10.1.0" },
			want: func(w *model.Pod) { w.Addrs = addrs("fd00::1") },
			says: []string{`InvalidAddress: status.podIPs[0]: "10.1.0" is not an IP address; correct or remove it`},
		},
		{
			name: "addresses that no pod has", change: func(p *corev1.Pod) {
				p.Status.PodIPs = []corev1.PodIP{{IP: "127.0.0.1"}, {IP: "::"}, {IP: "fe80::1%eth0"}, {IP: "224.0.0.1"}}
			},
			want: func(w *model.Pod) { w.Addrs = nil },
			says: []string{
				`InvalidAddress: status.podIPs[0]: "127.0.0.1" is a loopback address`, `InvalidAddress: status.podIPs[1]: "::" is not a unicast address`,
				`InvalidAddress: status.podIPs[2]: "fe80::1%eth0" has a zone`, `InvalidAddress: status.podIPs[3]: "224.0.0.1" is not a unicast address`,
			},
		},

		{name: "pending", change: func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }},
		{name: "not ready", change: func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse}}
		}},
		{name: "terminating", change: func(p *corev1.Pod) { p.DeletionTimestamp = new(metav1.Unix(1, 0)) }},
		{name: "unknown phase", change: func(p *corev1.Pod) { p.Status.Phase = corev1.PodUnknown }},
		{name: "succeeded", change: func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, want: func(w *model.Pod) { w.Done = true }},
		{name: "failed", change: func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, want: func(w *model.Pod) { w.Done = true }},

		{name: "ports without a name are nobody's", change: func(p *corev1.Pod) { ports(p, corev1.ContainerPort{ContainerPort: 80}) }, want: func(w *model.Pod) { w.Ports = nil }},
		{name: "TCP if not said", change: func(p *corev1.Pod) { ports(p, corev1.ContainerPort{Name: "http", ContainerPort: 8080}) }},
		{
			name: "one name on several protocols and numbers, of containers, init containers and sidecars",
			change: func(p *corev1.Pod) {
				ports(p, corev1.ContainerPort{Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP}, corev1.ContainerPort{Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolTCP})
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Ports: []corev1.ContainerPort{{Name: "dns", ContainerPort: 5353, Protocol: corev1.ProtocolSCTP}}})
				p.Spec.InitContainers = []corev1.Container{
					{Ports: []corev1.ContainerPort{{Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolTCP}}},
					{RestartPolicy: new(corev1.ContainerRestartPolicyAlways), Ports: []corev1.ContainerPort{{Name: "dns", ContainerPort: 54, Protocol: corev1.ProtocolUDP}}},
				}
			},
			want: func(w *model.Pod) {
				w.Ports = []model.ContainerPort{
					{Name: "dns", Protocol: model.TCP, Port: 53}, {Name: "dns", Protocol: model.UDP, Port: 54},
					{Name: "dns", Protocol: model.UDP, Port: 53}, {Name: "dns", Protocol: model.SCTP, Port: 5353},
				}
			},
		},
		{
			name: "ports that are none", change: func(p *corev1.Pod) {
				ports(p, corev1.ContainerPort{Name: "a", ContainerPort: 80, Protocol: "tcp"}, corev1.ContainerPort{Name: "b"}, corev1.ContainerPort{Name: "http", ContainerPort: 8080})
			},
			says: []string{
				`InvalidProtocol: spec.containers[0].ports[0].protocol: "tcp" is not a protocol of ports; use TCP, UDP or SCTP`,
				`InvalidPort: spec.containers[0].ports[1].containerPort: "0" is not a port number; use a number from 1 to 65535`,
			},
		},

		{name: "the API's grace period", change: func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = nil }, want: func(w *model.Pod) { w.Grace = 30 * time.Second }},
		{name: "none", change: func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = new(int64(0)) }, want: func(w *model.Pod) { w.Grace = 0 }},
		{name: "negative", change: func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = new(int64(-1)) }, want: func(w *model.Pod) { w.Grace = 0 }},
		{name: "endless", change: func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = new(int64(math.MaxInt64)) },
			want: func(w *model.Pod) { w.Grace = math.MaxInt64 / time.Second * time.Second }},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			given, want := plainPod(), plainPodFact()
			if row.change != nil {
				row.change(given)
			}
			if row.want != nil {
				row.want(&want)
			}
			got, ok, problems := Pod(given)
			if !ok || !reflect.DeepEqual(got, want) {
				t.Errorf("ok %v\ngot  %+v\nwant %+v", ok, got, want)
			}
			checkProblems(t, problems, row.says, model.Problem{Kind: "Pod", Object: want.Name, UID: "u1"})
		})
	}
}

// TestNamespace: every namespace has the label with its name, and no other name.
func TestNamespace(t *testing.T) {
	for name, given := range map[string]map[string]string{
		"without labels": nil, "as the API server has it": {corev1.LabelMetadataName: "shop"}, "with another's name": {corev1.LabelMetadataName: "other"},
	} {
		ns, ok, problems := Namespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: given}})
		if want := map[string]string{corev1.LabelMetadataName: "shop"}; !ok || problems != nil || !reflect.DeepEqual(ns.Labels, want) {
			t.Errorf("%s: labels %v, want %v", name, ns.Labels, want)
		}
	}
}
