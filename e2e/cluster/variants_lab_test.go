//go:build lab

package cluster

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// TestVariants: the API server would take all that users may be given to apply,
// with its validation and admission, which go further than its schemas:
// Kustomize's overlays, the chart with values of several kinds, the Pods that
// clean up. `make bin/rendered` writes them.
func TestVariants(t *testing.T) {
	dir := os.Getenv("SLUICE_RENDERED")
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) < 9 {
		t.Fatalf("SLUICE_RENDERED=%q has %d files (%v): see `make e2e`", dir, len(files), err)
	}
	w, variants := shared, map[string]manifests{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		if variants[name], err = manifestFile(file); err != nil {
			t.Fatal(err)
		}
	}
	w.provide(t, slices.Collect(maps.Values(variants)))
	for name, all := range variants {
		t.Run(name, func(t *testing.T) {
			// The Prometheus Operator's kinds are not this cluster's.
			all := slices.DeleteFunc(all, func(o *unstructured.Unstructured) bool {
				return o.GroupVersionKind().Group == "monitoring.coreos.com"
			})
			if len(all) == 0 {
				t.Error("nothing to apply")
			}
			for _, o := range all {
				if err := w.apply(t.Context(), manifests{o}, metav1.DryRunAll); err != nil {
					t.Error(err)
				}
			}
		})
	}
	t.Run("refused", w.testRefused)
}

// provide makes the namespaces that objects are to be in, for the length of a
// test: of what would be in one that is not there nothing is told.
func (w *world) provide(t *testing.T, variants []manifests) {
	t.Helper()
	there := map[string]bool{"": true, metav1.NamespaceDefault: true, metav1.NamespaceSystem: true}
	var made manifests
	for _, all := range variants {
		for _, o := range all {
			name := o.GetNamespace()
			if there[name] {
				continue
			}
			there[name] = true
			n := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace"}}
			n.SetName(name)
			made = append(made, n)
		}
	}
	if err := w.apply(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.remove(context.Background(), made); err != nil {
			t.Error(err)
		}
	})
}

// testRefused: it does judge, and more than schemas can.
func (w *world) testRefused(t *testing.T) {
	all, err := installation()
	if err != nil {
		t.Fatal(err)
	}
	agent := all.find("DaemonSet", "sluice-agent")
	for _, c := range []struct {
		want  string
		spoil func(*unstructured.Unstructured) error
	}{
		{"", func(*unstructured.Unstructured) error { return nil }},
		{"`selector` does not match template `labels`", func(o *unstructured.Unstructured) error {
			return unstructured.SetNestedField(o.Object, "other", "spec", "selector", "matchLabels", "app.kubernetes.io/name")
		}},
		{"spec.template.spec.restartPolicy: Unsupported value", func(o *unstructured.Unstructured) error {
			return unstructured.SetNestedField(o.Object, "Never", "spec", "template", "spec", "restartPolicy")
		}},
	} {
		o := agent.DeepCopy()
		if err := c.spoil(o); err != nil {
			t.Fatal(err)
		}
		err := w.apply(t.Context(), manifests{o}, metav1.DryRunAll)
		if c.want == "" && err != nil || c.want != "" && !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}
