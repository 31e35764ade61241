package kube

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source"
	"sluice.dev/sluice/internal/source/convert"
)

// ours selects Services and EndpointSlices that no other proxy claims, whatever
// the labels' values.
const ours = "!" + convert.ProxyNameLabel + ",!" + convert.HeadlessLabel

// NodeMissing is the reason of the problem that the own Node does not exist.
const NodeMissing = "NodeMissing"

// Options are what a Source needs.
type Options struct {
	Client kubernetes.Interface
	// NodeName is the name of this node's Node object; "": it is not missed.
	NodeName string
	// KnownScheduler says which schedulers this node has; nil: all.
	KnownScheduler func(name string) bool
	Logger         *slog.Logger // nil: silence
}

// Source tells what an API server knows.
type Source struct {
	opts Options
	log  *slog.Logger
	link *link
	once sync.Once // Synced is said
}

// New makes a source; nothing is read before Run.
func New(opts Options) *Source {
	log := opts.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	log = log.With("source", source.Kube)
	return &Source{opts: opts, log: log, link: newLink(serverOf(opts.Client), log)}
}

// Run implements source.Source.
func (s *Source) Run(ctx context.Context, sink source.Sink) error {
	logger := logr.FromSlogHandler(s.log.Handler())
	feeds, err := s.feeds(sink, logger)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(klog.NewContext(ctx, logger))
	checkers := make([]cache.DoneChecker, 0, len(feeds))
	for _, f := range feeds {
		group.Go(func() error {
			f.informer.RunWithContext(ctx)
			return nil
		})
		checkers = append(checkers, f.told)
	}
	group.Go(func() error {
		if cache.WaitFor(ctx, "", checkers...) {
			s.synced(sink, feeds)
		}
		return nil
	})
	return group.Wait()
}

func (s *Source) synced(sink source.Sink, feeds []feed) {
	for _, f := range feeds {
		if f.resource != "nodes" || s.opts.NodeName == "" {
			continue
		}
		if _, known, err := f.informer.GetStore().GetByKey(s.opts.NodeName); err == nil && !known {
			s.missNode(sink)
		}
	}
	s.once.Do(func() { sink.Event(model.Event{Source: source.Kube, Synced: true}) })
}

func (s *Source) missNode(sink source.Sink) {
	p := model.Problem{
		Kind: convert.NodeKind, Object: model.Name{Name: s.opts.NodeName}, Reason: NodeMissing,
		Message: fmt.Sprintf("metadata.name: no Node is named %q; Services are served without it, but without topology hints and the Node's addresses; "+
			"set the node's name as the kubelet does, or wait for the kubelet to register it", s.opts.NodeName),
	}
	s.log.Warn("own node does not exist", "node", s.opts.NodeName)
	sink.Event(model.Event{Source: source.Kube, Problem: &p})
}

// feeds makes the informers, each with the handler that tells what it knows.
func (s *Source) feeds(sink source.Sink, logger logr.Logger) ([]feed, error) {
	makers := []func() (feed, error){
		func() (feed, error) { return s.services(sink, logger) },
		func() (feed, error) { return s.endpointSlices(sink, logger) },
		func() (feed, error) { return s.nodes(sink, logger) },
	}
	var feeds []feed
	for _, make := range makers {
		f, err := make()
		if err != nil {
			return nil, err
		}
		feeds = append(feeds, f)
	}
	return feeds, nil
}

func (s *Source) services(sink source.Sink, logger logr.Logger) (feed, error) {
	api := s.opts.Client.CoreV1().Services(metav1.NamespaceAll)
	r := resource{
		name:    "services",
		example: &corev1.Service{},
		labels:  ours,
		fields:  fields.OneTermNotEqualSelector("spec.clusterIP", corev1.ClusterIPNone).String(),
	}
	return s.open(r, listWatch(s.link, r, api.List, api.Watch), logger, &teller[*corev1.Service, model.Service]{
		sink: sink,
		key:  func(n model.Name) any { return model.ServiceKey{Name: n} },
		convert: func(o *corev1.Service) (model.Service, bool, []model.Problem) {
			return convert.Service(o, s.opts.KnownScheduler)
		},
	})
}

func (s *Source) endpointSlices(sink source.Sink, logger logr.Logger) (feed, error) {
	api := s.opts.Client.DiscoveryV1().EndpointSlices(metav1.NamespaceAll)
	r := resource{name: "endpointslices", example: &discoveryv1.EndpointSlice{}, labels: ours}
	return s.open(r, listWatch(s.link, r, api.List, api.Watch), logger, &teller[*discoveryv1.EndpointSlice, model.EndpointSlice]{
		sink:    sink,
		key:     func(n model.Name) any { return model.EndpointSliceKey{Name: n} },
		convert: convert.EndpointSlice,
	})
}

// nodes tells every Node, not only our own: an external or load-balancer IP
// that is another node's address must not be bound here, or we would lose that
// node (kubernetes #127410).
func (s *Source) nodes(sink source.Sink, logger logr.Logger) (feed, error) {
	api := s.opts.Client.CoreV1().Nodes()
	r := resource{name: "nodes", example: &corev1.Node{}}
	return s.open(r, listWatch(s.link, r, api.List, api.Watch), logger, &teller[*corev1.Node, model.Node]{
		sink:    sink,
		key:     func(n model.Name) any { return model.NodeKey{Name: n.Name} },
		convert: convert.Node,
		same:    sameNode,
	})
}
