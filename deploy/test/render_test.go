package test

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// objects are rendered ones, by "Kind namespace/name".
type objects map[string]map[string]any

// parse reads YAML documents. An object may stand once.
func parse(text string) (objects, error) {
	all := objects{}
	for doc := range strings.SplitSeq("\n"+text, "\n---\n") {
		var o map[string]any
		if err := yaml.UnmarshalStrict([]byte(doc), &o); err != nil {
			return nil, fmt.Errorf("%w in:\n%s", err, doc)
		}
		if len(o) == 0 {
			continue
		}
		meta, _ := o["metadata"].(map[string]any)
		namespace, _ := meta["namespace"].(string)
		key := fmt.Sprintf("%s %s/%s", o["kind"], namespace, meta["name"])
		if _, twice := all[key]; twice {
			return nil, fmt.Errorf("%s stands there twice", key)
		}
		all[key] = o
	}
	return all, nil
}

// kustomized is what `kubectl kustomize` makes of a directory: one below deploy,
// or an absolute one.
func kustomized(tb testing.TB, dir string) objects {
	tb.Helper()
	path := dir
	if !filepath.IsAbs(dir) {
		path = filepath.Join("..", dir)
	}
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), path)
	if err != nil {
		tb.Fatalf("kustomize %s: %v", dir, err)
	}
	text, err := made.AsYaml()
	if err != nil {
		tb.Fatal(err)
	}
	all, err := parse(string(text))
	if err != nil {
		tb.Fatalf("kustomize %s: %v", dir, err)
	}
	return all
}

// ourChart is the chart as Helm loads it.
func ourChart(tb testing.TB) *chart.Chart {
	tb.Helper()
	log.SetOutput(io.Discard) // a line for each file that is a link
	defer log.SetOutput(os.Stderr)
	c, err := loader.Load("../helm/sluice")
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// installed is what `helm install sluice deploy/helm/sluice --namespace
// kube-system` makes with values (YAML), and the notes it prints.
func installed(tb testing.TB, values string) (all objects, notes string, err error) {
	tb.Helper()
	c := ourChart(tb)
	given, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		tb.Fatal(err)
	}
	release := chartutil.ReleaseOptions{Name: "sluice", Namespace: "kube-system", IsInstall: true}
	merged, err := chartutil.ToRenderValues(c, given, release, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, "", err
	}
	files, err := engine.Engine{Strict: true}.Render(c, merged)
	if err != nil {
		return nil, "", err
	}
	var text strings.Builder
	for _, crd := range c.CRDObjects() {
		text.WriteString("\n---\n" + string(crd.File.Data))
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if strings.HasSuffix(name, "NOTES.txt") {
			notes = files[name]
			continue
		}
		text.WriteString("\n---\n" + files[name])
	}
	all, err = parse(text.String())
	return all, notes, err
}

// mustInstall is installed with values that are right.
func mustInstall(tb testing.TB, values string) objects {
	tb.Helper()
	all, _, err := installed(tb, values)
	if err != nil {
		tb.Fatal(err)
	}
	return all
}

// gotemplate is what kubectl's -o go-template-file makes of an object.
func gotemplate(tb testing.TB, file, object string) string {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join("..", file))
	if err != nil {
		tb.Fatal(err)
	}
	parsed, err := template.New(file).Parse(string(text))
	if err != nil {
		tb.Fatal(err)
	}
	var data any
	if err := yaml.Unmarshal([]byte(object), &data); err != nil {
		tb.Fatal(err)
	}
	var out bytes.Buffer
	if err := parsed.Execute(&out, data); err != nil {
		tb.Fatal(err)
	}
	return out.String()
}

// kubeProxyImage is what the examples' clusters run.
const kubeProxyImage = "kube-proxy:v1.34.2"

// kubeProxy is their DaemonSet, as far as it matters.
const kubeProxy = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: kube-proxy, namespace: kube-system}
spec: {template: {spec: {containers: [{name: kube-proxy, image: "` + kubeProxyImage + `"}]}}}
`

// takeover is the overlay kubeadm-takeover with the patch that is made of that
// DaemonSet. It is rendered in a copy: a file of the user's is none of ours.
func takeover(tb testing.TB) objects {
	tb.Helper()
	dir := tb.TempDir()
	if err := os.CopyFS(dir, os.DirFS("..")); err != nil {
		tb.Fatal(err)
	}
	patch := gotemplate(tb, "kubeadm-takeover/kube-proxy.gotemplate", kubeProxy)
	if err := os.WriteFile(filepath.Join(dir, "kubeadm-takeover/kube-proxy.yaml"), []byte(patch), 0o600); err != nil {
		tb.Fatal(err)
	}
	return kustomized(tb, filepath.Join(dir, "kubeadm-takeover"))
}

// cleanupPods are those that `sluice cleanup` runs in, on the nodes of two
// agents.
func cleanupPods(tb testing.TB) objects {
	tb.Helper()
	all, err := parse(gotemplate(tb, "cleanup/pods.gotemplate", `
items:
  - spec: {nodeName: n1, containers: [{name: agent, image: "sluice:v0.1.0"}]}
  - spec: {nodeName: n2.example.net, containers: [{name: agent, image: "sluice:v0.1.0"}]}
`))
	if err != nil {
		tb.Fatal(err)
	}
	return all
}
