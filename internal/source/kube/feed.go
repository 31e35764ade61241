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
	client  any // the client that is asked; informers want to know if it is a fake
	// optional: an API server need not have it, or let us see it; see gate.
	optional bool
}

// feed is a resource that is read and told.
type feed struct {
	resource string
	access   access
	trim     cache.TransformFunc
	handler  cache.ResourceEventHandler
	informer cache.SharedIndexInformer
	gate     *gate             // nil: the resource is there, or Synced waits for it
	told     cache.DoneChecker // the handler has told the initial list
}

// lister reads objects of one kind, lists L of them.
type lister[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// access is how a resource is read.
type access struct {
	listWatch *cache.ListWatch
	probe     func(context.Context) error // asks whether it can be listed
}

// open makes the informer of a resource and puts the handler on it.
func (s *Source) open(r resource, a access, logger logr.Logger, handler cache.ResourceEventHandler) (feed, error) {
	informer := cache.NewSharedIndexInformerWithOptions(
		cache.ToListWatcherWithWatchListSemantics(a.listWatch, r.client), r.example,
		cache.SharedIndexInformerOptions{ObjectDescription: r.name})
	f := feed{resource: r.name, access: a, trim: trim(s.labelled), handler: handler, informer: informer}
	if err := informer.SetTransform(f.trim); err != nil {
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
	f.told = registration.HasSyncedChecker()
	if r.optional {
		f.gate = newGate(r.name, a.probe, s.link)
	}
	return f, nil
}

// labelled reports whether all labels of a Node are read: where routes are told,
// selectors may ask for any.
func (s *Source) labelled(node string) bool {
	return node == s.opts.NodeName || s.opts.Kinds&(BGPPeers|BGPAdvertisements) != 0
}

// reading asks a typed client for what a resource selects, and notes every
// answer: an informer by itself says that reading failed, but not that it works
// again.
func reading[L runtime.Object](l *link, r resource, api lister[L]) access {
	list := func(ctx context.Context, opts metav1.ListOptions) (L, error) {
		opts.LabelSelector, opts.FieldSelector = r.labels, r.fields
		return api.List(ctx, opts)
	}
	return access{
		listWatch: &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
				objects, err := list(ctx, opts)
				l.note(ctx, r.name, opList, err)
				return objects, err
			},
			WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
				opts.LabelSelector, opts.FieldSelector = r.labels, r.fields
				w, err := api.Watch(ctx, opts)
				if err != nil && opts.SendInitialEvents != nil {
					return nil, asList(err)
				}
				l.note(ctx, r.name, opWatch, err)
				return w, err
			},
		},
		probe: func(ctx context.Context) error {
			_, err := list(ctx, metav1.ListOptions{Limit: 1})
			return err
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
