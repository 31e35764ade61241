package test

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// workload is what runs in a Pod.
type workload struct {
	name     string // of the object
	spec     corev1.PodSpec
	labels   map[string]string
	selector *metav1.LabelSelector // nil: a Pod by itself
}

func workloads(all map[string]runtime.Object) []workload {
	var list []workload
	for key, o := range all {
		switch o := o.(type) {
		case *appsv1.DaemonSet:
			list = append(list, workload{key, o.Spec.Template.Spec, o.Spec.Template.Labels, o.Spec.Selector})
		case *appsv1.Deployment:
			list = append(list, workload{key, o.Spec.Template.Spec, o.Spec.Template.Labels, o.Spec.Selector})
		case *corev1.Pod:
			list = append(list, workload{key, o.Spec, o.Labels, nil})
		}
	}
	return list
}

func (w workload) containers() []corev1.Container {
	return slices.Concat(w.spec.InitContainers, w.spec.Containers)
}

// allowed is what a container may have, by its name: more is a mistake, and so is
// less.
type allowed struct {
	user         int64
	capabilities []corev1.Capability
	hostPaths    []string // with "ro" where they are
	privileged   bool
}

func permissions() map[string]allowed {
	const lock = "/run/xtables.lock"
	return map[string]allowed{
		"agent":              {0, []corev1.Capability{"NET_ADMIN", "NET_RAW"}, []string{"/proc/sys/net", lock}, false},
		"modules":            {0, []corev1.Capability{"SYS_MODULE"}, []string{"/lib/modules ro"}, false},
		"cleanup":            {0, []corev1.Capability{"NET_ADMIN", "NET_RAW"}, []string{lock}, false},
		"controller":         {65534, nil, nil, false},
		"kube-proxy-cleanup": {0, nil, []string{"/lib/modules ro", lock}, true},
	}
}

// TestPermissions: no container may do more than it has to.
func TestPermissions(t *testing.T) {
	seen := map[string]bool{}
	each(t, func(t *testing.T, w workload, _ map[string]runtime.Object) {
		if w.spec.HostPID || w.spec.HostIPC {
			t.Error("it shares the host's processes")
		}
		for _, c := range w.containers() {
			want, known := permissions()[c.Name]
			if !known {
				t.Errorf("container %s: what it may do is not said", c.Name)
				continue
			}
			seen[c.Name] = true
			if got := hostPaths(w.spec, c); !slices.Equal(got, want.hostPaths) {
				t.Errorf("container %s: host paths %q, want %q", c.Name, got, want.hostPaths)
			}
			if wrong := want.judge(c.SecurityContext); len(wrong) > 0 {
				t.Errorf("container %s: %s", c.Name, strings.Join(wrong, ", "))
			}
		}
	})
	for name := range permissions() {
		if !seen[name] {
			t.Errorf("there is no container %s", name)
		}
	}
}

func (a allowed) judge(s *corev1.SecurityContext) (wrong []string) {
	bad := func(is bool, what string, args ...any) {
		if is {
			wrong = append(wrong, fmt.Sprintf(what, args...))
		}
	}
	if s == nil {
		return []string{"no securityContext"}
	}
	if a.privileged {
		bad(s.Privileged == nil || !*s.Privileged, "not privileged")
		return wrong
	}
	bad(s.Privileged != nil && *s.Privileged, "privileged")
	bad(s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation, "may gain privileges")
	bad(s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem, "may write to its root")
	bad(s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault, "no seccomp profile")
	bad(s.RunAsUser == nil || *s.RunAsUser != a.user, "is not user %d", a.user)
	bad(a.user != 0 && (s.RunAsNonRoot == nil || !*s.RunAsNonRoot), "may be root")
	if s.Capabilities == nil {
		return append(wrong, "keeps its capabilities")
	}
	bad(!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}), "drops %q", s.Capabilities.Drop)
	bad(!slices.Equal(s.Capabilities.Add, a.capabilities), "has the capabilities %q, want %q", s.Capabilities.Add, a.capabilities)
	return wrong
}

// hostPaths are the parts of the host that a container sees, in order.
func hostPaths(spec corev1.PodSpec, c corev1.Container) []string {
	var paths []string
	for _, m := range c.VolumeMounts {
		for _, v := range spec.Volumes {
			if v.Name != m.Name || v.HostPath == nil {
				continue
			}
			path := v.HostPath.Path
			if m.ReadOnly {
				path += " ro"
			}
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}

// TestPods: what every Pod is to have.
func TestPods(t *testing.T) {
	each(t, func(t *testing.T, w workload, all map[string]runtime.Object) {
		if w.spec.PriorityClassName == "" {
			t.Error("no priority class")
		}
		if w.selector != nil {
			s, err := metav1.LabelSelectorAsSelector(w.selector)
			if err != nil || !s.Matches(labels.Set(w.labels)) {
				t.Errorf("its selector %v does not select its Pods, %v (%v)", w.selector, w.labels, err)
			}
		}
		account := w.spec.ServiceAccountName
		if _, there := all["ServiceAccount kube-system/"+account]; !there && account != "" {
			t.Errorf("there is no ServiceAccount %s", account)
		}
		if account == "" && (w.spec.AutomountServiceAccountToken == nil || *w.spec.AutomountServiceAccountToken) {
			t.Error("it has a token that it does not need")
		}
		mounted := map[string]bool{}
		for _, c := range w.containers() {
			w.judge(t, c, mounted)
		}
		for _, c := range w.spec.Containers {
			judgeProbes(t, w, c)
		}
		for _, v := range w.spec.Volumes {
			if !mounted[v.Name] {
				t.Errorf("nobody mounts the volume %s", v.Name)
			}
			if v.ConfigMap == nil || v.ConfigMap.Name == "kube-proxy" { // kubeadm's
				continue
			}
			if _, there := all["ConfigMap kube-system/"+v.ConfigMap.Name]; !there {
				t.Errorf("there is no ConfigMap %s", v.ConfigMap.Name)
			}
		}
	})
}

// judge judges what any container is to have, and notes what it mounts.
func (w workload) judge(t *testing.T, c corev1.Container, mounted map[string]bool) {
	t.Helper()
	_, tag, tagged := strings.Cut(c.Image[strings.LastIndex(c.Image, "/")+1:], ":")
	if !tagged || tag == "" || tag == "latest" {
		t.Errorf("container %s: image %q has no version", c.Name, c.Image)
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if c.Resources.Requests[name] == (corev1.ResourceList{})[name] {
			t.Errorf("container %s requests no %s", c.Name, name)
		}
	}
	for _, m := range c.VolumeMounts {
		if !slices.ContainsFunc(w.spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) {
			t.Errorf("container %s mounts %s, which is no volume", c.Name, m.Name)
		}
		mounted[m.Name] = true
	}
}

// judgeProbes: who runs for long has probes, of ports that it has and that its
// arguments name.
func judgeProbes(t *testing.T, w workload, c corev1.Container) {
	t.Helper()
	if w.selector == nil {
		return
	}
	for name, probe := range map[string]*corev1.Probe{"liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
		if probe == nil || probe.HTTPGet == nil {
			t.Errorf("container %s has no %s probe", c.Name, name)
			continue
		}
		port := probe.HTTPGet.Port.StrVal
		if !slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == port }) {
			t.Errorf("container %s: the %s probe asks port %q, which it does not have", c.Name, name, port)
		}
		if probe.TimeoutSeconds == 0 || probe.FailureThreshold == 0 {
			t.Errorf("container %s: the %s probe has no limits of its own", c.Name, name)
		}
	}
	if l, r := c.LivenessProbe, c.ReadinessProbe; l != nil && r != nil && l.PeriodSeconds*l.FailureThreshold < 60 {
		t.Errorf("container %s is restarted after %d s: a kernel that is busy is no reason", c.Name, l.PeriodSeconds*l.FailureThreshold)
	}
	for _, p := range c.Ports {
		if !slices.ContainsFunc(c.Args, func(a string) bool {
			_, value, _ := strings.Cut(a, "=")
			_, port, err := net.SplitHostPort(value)
			return err == nil && port == fmt.Sprint(p.ContainerPort)
		}) {
			t.Errorf("container %s: no argument has it listen on %d", c.Name, p.ContainerPort)
		}
	}
}

// TestEveryNode: an agent runs on every Linux node, whatever befalls it, in the
// network of the node.
func TestEveryNode(t *testing.T) {
	d := typed(t, kustomized(t, "base"))["DaemonSet kube-system/sluice-agent"].(*appsv1.DaemonSet)
	spec := d.Spec.Template.Spec
	if !spec.HostNetwork || spec.DNSPolicy != corev1.DNSDefault || spec.PriorityClassName != "system-node-critical" {
		t.Errorf("network %v, DNS %s, priority %s", spec.HostNetwork, spec.DNSPolicy, spec.PriorityClassName)
	}
	if want := []corev1.Toleration{{Operator: corev1.TolerationOpExists}}; !slices.Equal(spec.Tolerations, want) {
		t.Errorf("tolerations %v, want all", spec.Tolerations)
	}
	if u := d.Spec.UpdateStrategy.RollingUpdate; u == nil || u.MaxUnavailable.IntVal != 1 {
		t.Errorf("update %+v, want one node after the other", d.Spec.UpdateStrategy)
	}
}

// TestControllers: two, apart, of which one may be away.
func TestControllers(t *testing.T) {
	all := typed(t, kustomized(t, "base"))
	d := all["Deployment kube-system/sluice-controller"].(*appsv1.Deployment)
	budget := all["PodDisruptionBudget kube-system/sluice-controller"].(*policyv1.PodDisruptionBudget)
	if *d.Spec.Replicas != 2 || budget.Spec.MaxUnavailable.IntVal != 1 {
		t.Errorf("%d controllers, of which %d may be away", *d.Spec.Replicas, budget.Spec.MaxUnavailable.IntVal)
	}
	apart := d.Spec.Template.Spec.Affinity.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution[0].PodAffinityTerm
	for what, s := range map[string]*metav1.LabelSelector{"budget": budget.Spec.Selector, "affinity": apart.LabelSelector} {
		if !maps.Equal(s.MatchLabels, d.Spec.Template.Labels) {
			t.Errorf("the %s is of %v, the Pods are %v", what, s.MatchLabels, d.Spec.Template.Labels)
		}
	}
	if apart.TopologyKey != corev1.LabelHostname {
		t.Errorf("apart by %s", apart.TopologyKey)
	}
}

// TestArguments: the program has every flag that it is started with.
func TestArguments(t *testing.T) {
	bin := os.Getenv("SLUICE_BIN")
	if bin == "" {
		t.Skip("SLUICE_BIN does not say where sluice is; see make deploy-lint")
	}
	parse := func(args ...string) ([]byte, error) {
		return exec.Command(bin, append(args, "--help")...).CombinedOutput()
	}
	if out, err := parse("run", "--no-such-flag"); err == nil {
		t.Fatalf("an unknown flag is taken: %s", out)
	}
	each(t, func(t *testing.T, w workload, _ map[string]runtime.Object) {
		for _, c := range w.spec.Containers {
			if out, err := parse(c.Args...); err != nil || len(c.Args) == 0 {
				t.Errorf("sluice %s: %v: %s", strings.Join(c.Args, " "), err, out)
			}
		}
	})
}

// each judges the workloads of every variant.
func each(t *testing.T, judge func(*testing.T, workload, map[string]runtime.Object)) {
	t.Helper()
	for name, render := range variants() {
		objects := typed(t, render(t))
		list := workloads(objects)
		if len(list) == 0 {
			t.Errorf("%s: nothing runs", name)
		}
		for _, w := range list {
			t.Run(name+"/"+w.name, func(t *testing.T) { judge(t, w, objects) })
		}
	}
}
