package kube

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// resource says what of which resource is read.
type resource struct {
	name    string
	example runtime.Object
	labels  string
	fields  string
}

// feed is a resource that is read and told.
type feed struct {
	resource string
	informer cache.SharedIndexInformer
	told     cache.DoneChecker // the handler has told the initial list
}

// open makes the informer of a resource and puts the handler on it.
func (s *Source) open(r resource, lw *cache.ListWatch, logger logr.Logger, handler cache.ResourceEventHandler) (feed, error) {
	informer := cache.NewSharedIndexInformerWithOptions(
		cache.ToListWatcherWithWatchListSemantics(lw, s.opts.Client), r.example,
		cache.SharedIndexInformerOptions{ObjectDescription: r.name})
	if err := informer.SetTransform(trim(s.opts.NodeName)); err != nil {
		return feed{}, fmt.Errorf("informer of %s: %w", r.name, err)
	}
	if err := informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, _ *cache.Reflector, err error) {
		s.link.note(ctx, r.name, opRead, err)
	}); err != nil {
		return feed{}, fmt.Errorf("informer of %s: %w", r.name, err)
	}
	registration, err := informer.AddEventHandlerWithOptions(handler, cache.HandlerOptions{Logger: &logger})
	if err != nil {
		return feed{}, fmt.Errorf("informer of %s: %w", r.name, err)
	}
	return feed{resource: r.name, informer: informer, told: registration.HasSyncedChecker()}, nil
}

// listWatch asks a typed client for what a resource selects, and notes every
// answer: an informer by itself says that reading failed, but not that it works
// again.
func listWatch[L runtime.Object](
	l *link, r resource,
	list func(context.Context, metav1.ListOptions) (L, error),
	open func(context.Context, metav1.ListOptions) (watch.Interface, error),
) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			opts.LabelSelector, opts.FieldSelector = r.labels, r.fields
			objects, err := list(ctx, opts)
			l.note(ctx, r.name, opList, err)
			return objects, err
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			opts.LabelSelector, opts.FieldSelector = r.labels, r.fields
			w, err := open(ctx, opts)
			if err != nil && opts.SendInitialEvents != nil {
				return nil, asList(err)
			}
			l.note(ctx, r.name, opWatch, err)
			return w, err
		},
	}
}

// asList hides from the reflector that a connection was refused when it asked
// for a list by way of a watch. It would otherwise wait for its next attempt
// without regard to the context, half a minute in the end; so it falls back to
// a plain list, whose failure is noted and waited for properly.
func asList(err error) error {
	if utilnet.IsConnectionRefused(err) {
		return fmt.Errorf("list by watch: %v", err) //nolint:errorlint // hiding it is the point
	}
	return err
}
