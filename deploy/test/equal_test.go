package test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestChartIsBase: the chart makes object by object what Kustomize makes, and
// nothing else.
func TestChartIsBase(t *testing.T) {
	for _, c := range []struct {
		name, values string
		want         func(testing.TB) objects
	}{
		{"default values", "", at("base")},
		{"kubeadm", "kubeadm: true", at("kubeadm")},
		{"kubeadm, from kube-proxy", "kubeadm: true\nkubeProxyCleanup: {image: " + kubeProxyImage + "}", takeover},
		{"monitoring", "monitoring: {enabled: true}", at("test/testdata/monitored")},
	} {
		t.Run(c.name, func(t *testing.T) {
			differ(t, mustInstall(t, c.values), c.want(t))
		})
	}
}

func at(dir string) func(testing.TB) objects {
	return func(tb testing.TB) objects { tb.Helper(); return kustomized(tb, dir) }
}

// differ fails for every object that is not the same in both.
func differ(t *testing.T, chart, base objects) {
	t.Helper()
	for key, want := range base {
		got, there := chart[key]
		if !there {
			t.Errorf("the chart lacks %s", key)
			continue
		}
		got, want = plain(got), plain(want)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s differs.\nof the chart only:\n%s\nof kustomize only:\n%s", key, lacking(text(got), text(want)), lacking(text(want), text(got)))
		}
	}
	for key := range chart {
		if _, there := base[key]; !there {
			t.Errorf("the chart makes %s, which the base does not have", key)
		}
	}
	if len(base) < 15 {
		t.Errorf("only %d objects were compared", len(base))
	}
}

// plain is an object without what may differ: the chart has a checksum that
// restarts agents when their configuration changes, and writes a configuration
// file without comments.
func plain(o map[string]any) map[string]any {
	var out map[string]any
	if err := yaml.Unmarshal([]byte(text(o)), &out); err != nil {
		panic(err)
	}
	if data, ok := out["data"].(map[string]any); ok {
		if config, ok := data["config.yaml"].(string); ok {
			var parsed any
			if err := yaml.Unmarshal([]byte(config), &parsed); err != nil {
				panic(err)
			}
			data["config.yaml"] = parsed
		}
	}
	spec, _ := out["spec"].(map[string]any)
	template, _ := spec["template"].(map[string]any)
	meta, _ := template["metadata"].(map[string]any)
	if annotations, ok := meta["annotations"].(map[string]any); ok {
		delete(annotations, "checksum/config")
		if len(annotations) == 0 {
			delete(meta, "annotations")
		}
	}
	return out
}

// lacking are the lines that another text does not have.
func lacking(lines, other string) string {
	has := strings.Split(other, "\n")
	var out []string
	for line := range strings.SplitSeq(lines, "\n") {
		if !slices.Contains(has, line) {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

func text(o any) string {
	b, err := yaml.Marshal(o)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// TestValues: what values lead to.
func TestValues(t *testing.T) {
	const daemonSet, deployment, config = "DaemonSet kube-system/sluice-agent", "Deployment kube-system/sluice-controller", "ConfigMap kube-system/sluice"
	for _, c := range []struct {
		name, values, object string
		want                 []string // of its text
		not                  []string
	}{
		{"an API server", "apiServer: {host: 192.0.2.1}", config, []string{"KUBERNETES_SERVICE_HOST: 192.0.2.1", `KUBERNETES_SERVICE_PORT: "6443"`}, nil},
		{"none", "", config, nil, []string{"KUBERNETES_SERVICE"}},
		{"settings of ours", "config: {detectLocalMode: ClusterCIDR, clusterCIDR: [10.244.0.0/16]}", config,
			[]string{"kind: AgentConfiguration", "detectLocalMode: ClusterCIDR", "- 10.244.0.0/16"}, []string{"NodeCIDR", "KubeProxyConfiguration"}},
		{"settings of kube-proxy", "kubeProxyConfig: {ipvs: {scheduler: lc}}", config,
			[]string{"kind: AgentConfiguration", "---", "kind: KubeProxyConfiguration", "scheduler: lc"}, nil},
		{"an image", "image: {repository: registry.example/sluice, tag: v9, pullPolicy: Always}\nimagePullSecrets: [{name: key}]", daemonSet,
			[]string{"image: registry.example/sluice:v9", "imagePullPolicy: Always", "- name: key"}, []string{"image: sluice"}},
		{"arguments", "agent: {extraArgs: [--log-level=debug], podAnnotations: {a: b}, maxUnavailable: 10%}", daemonSet,
			[]string{"--log-level=debug", "a: b", "checksum/config", "maxUnavailable: 10%"}, nil},
		{"a controller's", "controller: {reservedCIDRs: [10.244.0.0/16, 10.96.0.0/12], replicas: 3}", deployment,
			[]string{"--reserved-cidrs=10.244.0.0/16,10.96.0.0/12", "replicas: 3"}, nil},
		{"other Secrets", "secretNamespace: {name: bgp, create: false}", daemonSet, []string{"--secret-namespace=bgp"}, nil},
		{"other Secrets' role", "secretNamespace: {name: bgp, create: false}", "Role bgp/sluice-agent", []string{"secrets"}, nil},
		{"a dashboard", "monitoring: {enabled: true, dashboard: true, labels: {release: prometheus}}", "ConfigMap kube-system/sluice-dashboard", []string{"grafana_dashboard"}, nil},
		{"labels for Prometheus", "monitoring: {enabled: true, labels: {release: prometheus}}", "PodMonitor kube-system/sluice", []string{"release: prometheus"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := mustInstall(t, c.values)
			o, there := all[c.object]
			if !there {
				t.Fatalf("there is no %s", c.object)
			}
			got := text(o)
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("lacks %q:\n%s", want, got)
				}
			}
			for _, not := range c.not {
				if strings.Contains(got, not) {
					t.Errorf("has %q:\n%s", not, got)
				}
			}
		})
	}
}

// TestNoObjects: values that leave objects out.
func TestNoObjects(t *testing.T) {
	for _, c := range []struct{ values, gone string }{
		{"controller: {enabled: false}", "sluice-controller"},
		{"secretNamespace: {name: bgp, create: false}", "Namespace"},
		{"kubeadm: true", "ConfigMap"},
		{"", "PodMonitor"},
	} {
		for key := range mustInstall(t, c.values) {
			if strings.Contains(key, c.gone) {
				t.Errorf("%q leaves %s", c.values, key)
			}
		}
	}
}

// TestChecksum: agents are replaced when what they read at their start changes.
func TestChecksum(t *testing.T) {
	sums := map[string]string{}
	for _, values := range []string{"", "config: {logJSON: true}", "apiServer: {host: 192.0.2.1}", "kubeProxyConfig: {mode: ipvs}"} {
		spec := text(mustInstall(t, values)["DaemonSet kube-system/sluice-agent"])
		i := strings.Index(spec, "checksum/config: ")
		if i < 0 {
			t.Fatalf("%q: no checksum", values)
		}
		sum, _, _ := strings.Cut(spec[i:], "\n")
		if other, twice := sums[sum]; twice {
			t.Errorf("%q and %q have the same checksum", values, other)
		}
		sums[sum] = values
	}
}

// TestRefusedValues: mistakes are told before anything is installed.
func TestRefusedValues(t *testing.T) {
	for values, why := range map[string]string{
		"imgae: {tag: v1}":                                     "imgae",
		"image: {tag: latest}":                                 "tag",
		"image: {pullPolicy: Sometimes}":                       "pullPolicy",
		"apiServer: {host: https://192.0.2.1}":                 "host",
		"apiServer: {port: \"6443\"}":                          "port",
		"agent: {extraArgs: [log-level=debug]}":                "extraArgs",
		"agent: {maxUnavailable: 0}":                           "maxUnavailable",
		"controller: {reservedCIDRs: [10.244.0.0]}":            "reservedCIDRs",
		"controller: {replicas: 0}":                            "replicas",
		"agent: {tolerations: [{operator: Exist}]}":            "operator",
		"secretNamespace: {name: Kube_System}":                 "name",
		"monitoring: {enabled: yes please}":                    "enabled",
		"agent: {resources: {request: {cpu: 1}}}":              "request",
		"controller: {nodeSelector: {zone: 1}}":                "zone",
		"kubeProxyCleanup: {image: sluice, force: true}":       "force",
		"imagePullSecrets: [key]":                              "imagePullSecrets",
		"kubeadm: \"true\"":                                    "kubeadm",
		"agent: {podAnnotations: {a: 1}}":                      "podAnnotations",
		"controller: {resources: {limits: {}, claims: [gpu]}}": "claims",
	} {
		if _, _, err := installed(t, values); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, want an error that names %s", values, err, why)
		}
	}
}

// TestNotes: what an installation is told.
func TestNotes(t *testing.T) {
	const noServer, cleaning, unreserved = "apiServer.host is not set", "kubeProxyCleanup.image is set", "reservedCIDRs is empty"
	for values, want := range map[string][]string{
		"": {noServer, unreserved},
		"apiServer: {host: 192.0.2.1}\ncontroller: {reservedCIDRs: [10.244.0.0/16]}":             nil,
		"kubeadm: true\nkubeProxyCleanup: {image: kube-proxy:v1}\ncontroller: {enabled: false}":  {cleaning},
		"kubeProxyConfig: {clientConnection: {kubeconfig: /k}}\ncontroller: {enabled: false}":    nil,
		"kubeProxyConfig: {clientConnection: {qps: 5}}\ncontroller: {reservedCIDRs: [fd00::/8]}": {noServer},
	} {
		_, notes, err := installed(t, values)
		if err != nil {
			t.Fatal(err)
		}
		for _, warning := range []string{noServer, cleaning, unreserved} {
			if told := strings.Contains(notes, warning); told != slices.Contains(want, warning) {
				t.Errorf("%q: told of %q: %v\n%s", values, warning, told, notes)
			}
		}
	}
}
