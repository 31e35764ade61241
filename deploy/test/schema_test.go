package test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
)

// variants are all that users may be given to apply, and how it is rendered.
func variants() map[string]func(testing.TB) objects {
	all := map[string]func(testing.TB) objects{
		"base":              at("base"),
		"kubeadm":           at("kubeadm"),
		"kubeadm-takeover":  takeover,
		"base with metrics": at("test/testdata/monitored"),
		"cleanup":           cleanupPods,
	}
	for name, values := range map[string]string{
		"chart":            "",
		"chart on kubeadm": "kubeadm: true\nkubeProxyCleanup: {image: " + kubeProxyImage + "}",
		"chart, all switched": `
image: {repository: example/sluice, tag: v9, pullPolicy: Always}
imagePullSecrets: [{name: key}]
apiServer: {host: 192.0.2.1}
kubeProxyConfig: {mode: ipvs}
agent: {extraArgs: [--log-level=debug], maxUnavailable: 10%, nodeSelector: {}, tolerations: []}
controller: {reservedCIDRs: [10.96.0.0/12], podAnnotations: {a: b}, extraArgs: [--log-json], tolerations: []}
monitoring: {enabled: true, dashboard: true, labels: {release: p}}`,
		"chart, agents only": "controller: {enabled: false}\nsecretNamespace: {name: bgp, create: false}",
	} {
		all[name] = func(tb testing.TB) objects { tb.Helper(); return mustInstall(tb, values) }
	}
	return all
}

// decoder takes objects of the API strictly: no unknown field, none twice, no
// value of a wrong type.
func decoder(tb testing.TB) runtime.Decoder {
	tb.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, rbacv1.AddToScheme, policyv1.AddToScheme,
		apiextensionsv1.AddToScheme, monitoringv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			tb.Fatal(err)
		}
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
}

// typed are objects as their Go types, by the keys of objects.
func typed(tb testing.TB, all objects) map[string]runtime.Object {
	tb.Helper()
	decode, out := decoder(tb), map[string]runtime.Object{}
	for key, o := range all {
		object, _, err := decode.Decode([]byte(text(o)), nil, nil)
		if err != nil {
			tb.Errorf("%s: %v", key, err)
			continue
		}
		out[key] = object
	}
	return out
}

// TestSchema: every object that is rendered is one of the API.
func TestSchema(t *testing.T) {
	kinds := map[string]int{}
	for name, render := range variants() {
		t.Run(name, func(t *testing.T) {
			all := render(t)
			for _, o := range typed(t, all) {
				kinds[reflect.TypeOf(o).Elem().Name()]++
			}
			leave(t, name, all)
		})
	}
	for _, kind := range []string{
		"ClusterRole", "ConfigMap", "CustomResourceDefinition", "DaemonSet", "Deployment", "Namespace", "Pod",
		"PodDisruptionBudget", "PodMonitor", "PrometheusRule", "Role", "ServiceAccount",
	} {
		if kinds[kind] == 0 {
			t.Errorf("no %s was judged", kind)
		}
	}
}

// leave leaves rendered objects for e2e/cluster, which has an API server judge
// them, in the directory that SLUICE_RENDERED names.
func leave(t *testing.T, name string, all objects) {
	t.Helper()
	dir := os.Getenv("SLUICE_RENDERED")
	if dir == "" {
		return
	}
	var documents strings.Builder
	for _, key := range slices.Sorted(maps.Keys(all)) {
		documents.WriteString("---\n" + text(all[key]))
	}
	path := filepath.Join(dir, strings.NewReplacer(" ", "-", ",", "").Replace(name)+".yaml")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(path, []byte(documents.String()), 0o644)); err != nil {
		t.Error(err)
	}
}

// TestStrict: the decoder does refuse what is not of the API.
func TestStrict(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{"terminationGracePeriodSeconds: 30", "terminationGracePeriod: 30", "unknown field"},
		{"hostNetwork: true", "hostNetwork: \"true\"", "bool"},
		{"containerPort: 10256", "containerPort: healthz", "int32"},
		{"kind: DaemonSet", "kind: DaemonSets", "no kind"},
	} {
		good := text(kustomized(t, "base")["DaemonSet kube-system/sluice-agent"])
		bad := strings.Replace(good, c.from, c.to, 1)
		if bad == good {
			t.Fatalf("%q is not there", c.from)
		}
		if _, _, err := decoder(t).Decode([]byte(bad), nil, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want an error with %q", c.to, err, c.want)
		}
	}
}

// TestCRDs: the base and the chart bring the same kinds, all of them.
func TestCRDs(t *testing.T) {
	for _, name := range []string{"base", "chart"} {
		var kinds []string
		for key := range variants()[name](t) {
			if crd, is := strings.CutPrefix(key, "CustomResourceDefinition /"); is {
				kinds = append(kinds, crd)
			}
		}
		slices.Sort(kinds)
		want := []string{"addressclaims.sluice.dev", "addresspools.sluice.dev", "bgpadvertisements.sluice.dev", "bgppeers.sluice.dev"}
		if !slices.Equal(kinds, want) {
			t.Errorf("%s: %q, want %q", name, kinds, want)
		}
	}
}
