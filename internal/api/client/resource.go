package client

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// Resource is a client of one kind, objects O and lists L of them. Errors are
// the API server's, as package api/errors tells them apart.
type Resource[O, L runtime.Object] interface {
	Create(ctx context.Context, object O, opts metav1.CreateOptions) (O, error)
	Update(ctx context.Context, object O, opts metav1.UpdateOptions) (O, error)
	UpdateStatus(ctx context.Context, object O, opts metav1.UpdateOptions) (O, error)
	Patch(ctx context.Context, name string, kind types.PatchType, data []byte, opts metav1.PatchOptions, subresources ...string) (O, error)
	Delete(ctx context.Context, name string, opts metav1.DeleteOptions) error
	Get(ctx context.Context, name string, opts metav1.GetOptions) (O, error)
	List(ctx context.Context, opts metav1.ListOptions) (L, error)
	Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)
}
