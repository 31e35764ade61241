package kube

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"sluice.dev/sluice/internal/api/client"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source"
	"sluice.dev/sluice/internal/source/convert"
)

const nodesName = "nodes"

// NodeMissing is the reason of the problem that the own Node does not exist.
const NodeMissing = "NodeMissing"

// Options are what a Source needs.
type Options struct {
	Client kubernetes.Interface
	// API is the client of our own kinds; nil if Kinds has none of them.
	API client.Interface
	// Dynamic reads NetworkPolicies; nil if Kinds does not have them.
	Dynamic dynamic.Interface
	// Kinds are what is read; 0: Proxy.
	Kinds Kinds
	// SecretNamespace is where Secrets are read; "": kube-system.
	SecretNamespace string
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
	if opts.Kinds == 0 {
		opts.Kinds = Proxy
	}
	if opts.SecretNamespace == "" {
		opts.SecretNamespace = metav1.NamespaceSystem
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
			f.run(ctx)
			return nil
		})
		checkers = append(checkers, f.settled(ctx, group))
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
		if f.resource != nodesName || s.opts.NodeName == "" {
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
