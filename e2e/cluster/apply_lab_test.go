//go:build lab

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

// base is where the manifests are, seen from this directory.
const base = "../../deploy/base"

// manifests are objects in the order in which they are applied.
type manifests []*unstructured.Unstructured

// installation is what `kubectl apply -k deploy/base` sends.
func installation() (manifests, error) { return kustomization(base) }

// kustomization reads the files that a kustomization names, whose objects need
// no transformation.
func kustomization(dir string) (all manifests, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "kustomization.yaml"))
	if errors.Is(err, os.ErrNotExist) {
		text, err = os.ReadFile(filepath.Join(dir, "Kustomization"))
	}
	if err != nil {
		return nil, err
	}
	var k struct {
		APIVersion string   `json:"apiVersion"`
		Kind       string   `json:"kind"`
		Resources  []string `json:"resources"`
	}
	if err := yaml.UnmarshalStrict(text, &k); err != nil {
		return nil, fmt.Errorf("%s: it does more than to name files: %w", dir, err)
	}
	for _, name := range k.Resources {
		path := filepath.Join(dir, name)
		is, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		read := manifestFile
		if is.IsDir() {
			read = kustomization
		}
		found, err := read(path)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

func manifestFile(path string) (manifests, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	all, err := parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return all, nil
}

// parse reads YAML documents.
func parse(text string) (all manifests, err error) {
	for document := range strings.SplitSeq("\n"+text, "\n---") {
		var o unstructured.Unstructured
		if err := yaml.UnmarshalStrict([]byte(document), &o.Object); err != nil {
			return nil, err
		}
		if len(o.Object) > 0 {
			all = append(all, &o)
		}
	}
	return all, nil
}

// find is the object of a kind and name.
func (all manifests) find(kind, name string) *unstructured.Unstructured {
	for _, o := range all {
		if o.GetKind() == kind && o.GetName() == name {
			return o
		}
	}
	return nil
}

// resource is where an object is at the API server.
func (w *world) resource(o *unstructured.Unstructured) dynamic.ResourceInterface {
	kind, _ := meta.UnsafeGuessKindToResource(o.GroupVersionKind())
	r := w.objects.Resource(kind)
	if o.GetNamespace() == "" {
		return r
	}
	return r.Namespace(o.GetNamespace())
}

// apply makes the API server have objects as they are written. A field that it
// does not know is an error, as is one that is there twice. With metav1.DryRunAll
// it only says whether it would.
func (w *world) apply(ctx context.Context, all manifests, dryRun ...string) error {
	for _, o := range all {
		text, err := o.MarshalJSON()
		if err != nil {
			return err
		}
		var refused error
		err = eventually(ctx, soon, func() error {
			_, refused = w.resource(o).Patch(ctx, o.GetName(), types.ApplyPatchType, text, metav1.PatchOptions{
				FieldManager: "kubectl", FieldValidation: metav1.FieldValidationStrict, DryRun: dryRun,
			})
			if apierrors.IsNotFound(refused) {
				return refused // the kind of a CustomResourceDefinition is known a moment after that
			}
			return nil
		})
		if err := errors.Join(err, refused); err != nil {
			return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

// remove deletes objects as kubectl does: one after the other, and waits until
// all are gone.
func (w *world) remove(ctx context.Context, all manifests) error {
	foreground := metav1.DeletePropagationForeground
	for _, o := range all {
		err := w.resource(o).Delete(ctx, o.GetName(), metav1.DeleteOptions{PropagationPolicy: &foreground})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	for _, o := range all {
		err := eventually(ctx, soon, func() error {
			_, err := w.resource(o).Get(ctx, o.GetName(), metav1.GetOptions{})
			switch {
			case apierrors.IsNotFound(err):
				return nil
			case err != nil:
				return err
			}
			return fmt.Errorf("%s %s is still there", o.GetKind(), o.GetName())
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// gvr is a resource by name.
func gvr(group, version, name string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: group, Version: version, Resource: name}
}
