package kube

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/pager"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source"
)

// Load reads an API server once, for commands: the facts and problems of all
// objects, without Synced. Where Run would wait it fails, and names what could
// not be read; a server that does not know a kind of our own has none of it.
func Load(ctx context.Context, opts Options) ([]model.Event, error) {
	s := New(opts)
	var events []model.Event
	sink := source.SinkFunc(func(e model.Event) { events = append(events, e) })
	feeds, err := s.feeds(sink, logr.Discard())
	if err != nil {
		return nil, err
	}
	for _, f := range feeds {
		err := f.once(ctx)
		if f.gate != nil && apierrors.IsNotFound(err) {
			continue
		}
		if apierrors.IsForbidden(err) {
			return nil, fmt.Errorf("%s of the API server %s: %w; allow them to be listed in every namespace they are read in", f.resource, s.link.server, err)
		}
		if err != nil {
			return nil, fmt.Errorf("%s of the API server %s: %w", f.resource, s.link.server, err)
		}
	}
	return events, nil
}

// once has the handler tell what a complete list holds.
func (f feed) once(ctx context.Context) error {
	list, _, err := pager.New(pager.ListPageFunc(f.access.listWatch.ListWithContextFunc)).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	return meta.EachListItem(list, func(o runtime.Object) error {
		trimmed, err := f.trim(o)
		if err == nil {
			f.handler.OnAdd(trimmed, true)
		}
		return err
	})
}
