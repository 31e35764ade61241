package kube

import (
	"context"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"

	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source/convert"
)

const (
	// eventAgain is when a problem that is still told becomes an Event once
	// more: as long as an API server keeps Events by default.
	eventAgain = time.Hour
	// eventQPS and eventBurst keep a cluster full of mistakes from becoming
	// a flood of Events from every node.
	eventQPS   = 1
	eventBurst = 50
	// eventQueue is how many problems wait to be looked at. More are dropped.
	eventQueue = 256
	// eventMemory bounds how many problems are remembered.
	eventMemory = 10000
)

// RecorderOptions are what a Recorder needs.
type RecorderOptions struct {
	Client   kubernetes.Interface
	NodeName string       // the Events' source host
	Logger   *slog.Logger // nil: silence
}

// Recorder makes Warning Events of problems, on the objects that have them.
// A problem told again and again is one Event an hour; what comes too fast is
// dropped, since whoever tells problems has also logged them. A wrong trigger
// time is only logged: it harms a measurement, and whoever writes it writes a
// new one with every change.
type Recorder struct {
	opts  RecorderOptions
	log   *slog.Logger
	queue chan model.Problem
}

// NewRecorder makes a recorder; nothing is written before Run.
func NewRecorder(opts RecorderOptions) *Recorder {
	log := opts.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Recorder{opts: opts, log: log, queue: make(chan model.Problem, eventQueue)}
}

// Record hands a problem over. It never blocks, may be called from any
// goroutine, and may lose the problem.
func (r *Recorder) Record(p model.Problem) {
	select {
	case r.queue <- p:
	default:
		r.log.Debug("too many problems, no Event", "object", p.Object.String(), "reason", p.Reason)
	}
}

// Run writes Events until ctx is done.
func (r *Recorder) Run(ctx context.Context) error {
	ctx = klog.NewContext(ctx, logr.FromSlogHandler(r.log.Handler()))
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: r.opts.Client.CoreV1().Events("")})
	out := broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "sluice", Host: r.opts.NodeName})
	limit := flowcontrol.NewTokenBucketPassiveRateLimiter(eventQPS, eventBurst)
	recent := map[model.Problem]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-r.queue:
			object, ok := reference(p)
			if !ok || !due(recent, p, time.Now()) || !limit.TryAccept() {
				continue
			}
			recent[p] = time.Now()
			out.Event(object, corev1.EventTypeWarning, p.Reason, p.Message)
		}
	}
}

// due reports whether a problem is to become an Event, and forgets old ones
// when there are many.
func due(recent map[model.Problem]time.Time, p model.Problem, now time.Time) bool {
	if at, known := recent[p]; known {
		return now.Sub(at) >= eventAgain
	}
	if len(recent) < eventMemory {
		return true
	}
	for old, at := range recent {
		if now.Sub(at) >= eventAgain {
			delete(recent, old)
		}
	}
	return len(recent) < eventMemory
}

// reference names the object on which a problem is to be an Event; only objects
// that an API server has can bear one. The Events of a cluster's objects are put
// into the namespace default.
func reference(p model.Problem) (*corev1.ObjectReference, bool) {
	if p.Reason == convert.InvalidTriggerTime {
		return nil, false
	}
	version := ""
	switch p.Kind {
	case convert.ServiceKind, convert.NodeKind, convert.NamespaceKind, convert.SecretKind, convert.PodKind:
		version = corev1.SchemeGroupVersion.String()
	case convert.EndpointSliceKind:
		version = discoveryv1.SchemeGroupVersion.String()
	case convert.NetworkPolicyKind:
		version = networkingv1.SchemeGroupVersion.String()
	case convert.AddressPoolKind, convert.BGPPeerKind, convert.BGPAdvertisementKind:
		version = v1alpha1.APIVersion
	default:
		return nil, false
	}
	return &corev1.ObjectReference{
		APIVersion: version,
		Kind:       p.Kind,
		Namespace:  p.Object.Namespace,
		Name:       p.Object.Name,
		UID:        types.UID(p.UID),
	}, true
}
