package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source"
	"sluice.dev/sluice/internal/source/convert"
)

// server is a strict API server in memory: it enforces resourceVersions, keeps
// spec and status apart, gives UIDs, writes nothing that changes nothing, and
// takes as long over each request as the test wants.
type server struct {
	mu       sync.Mutex
	version  int
	services map[model.Name]*corev1.Service
	claims   map[string]*v1alpha1.AddressClaim
	pools    map[string]*v1alpha1.AddressPool
	log      []model.Event // what a source tells, in this order
	changed  chan struct{} // closed when log has grown

	delay  func()                // before and after every request
	fail   func(string) error    // of a request, by its verb
	onCall func(verb string)     // with the lock held
	check  func(*corev1.Service) // every status that is written
}

func newServer() *server {
	return &server{
		services: map[model.Name]*corev1.Service{}, claims: map[string]*v1alpha1.AddressClaim{}, pools: map[string]*v1alpha1.AddressPool{},
		changed: make(chan struct{}), delay: func() {}, fail: func(string) error { return nil },
		onCall: func(string) {}, check: func(*corev1.Service) {},
	}
}

// call is one request: it takes its time on the way there and on the way back.
func (s *server) call(ctx context.Context, verb string, f func() error) error {
	s.delay()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.mu.Lock()
	err := s.fail(verb)
	if err == nil {
		s.onCall(verb)
		err = f()
	}
	s.mu.Unlock()
	s.delay()
	return err
}

func (s *server) next() string {
	s.version++
	return strconv.Itoa(s.version)
}

func (s *server) tell(e model.Event) {
	e.Source = source.Kube
	s.log = append(s.log, e)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *server) tellService(o *corev1.Service) {
	if fact, ok, _ := convert.Service(o.DeepCopy(), nil); ok {
		s.tell(model.Event{Put: fact})
	} else {
		s.tell(model.Event{Delete: model.ServiceKey{Name: nameOfService(o)}})
	}
}

func resource(r string) schema.GroupResource { return schema.GroupResource{Resource: r} }

func notFound(r, name string) error { return apierrors.NewNotFound(resource(r), name) }

func conflict(r, name string) error {
	return apierrors.NewConflict(resource(r), name, errors.New("the object has been modified"))
}

// put creates a Service, or changes its spec and metadata as a user does.
func (s *server) put(name string, edit func(*corev1.Service)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := model.Name{Namespace: "shop", Name: name}
	o := s.services[key]
	if o == nil {
		o = &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-" + s.next()), CreationTimestamp: metav1.NewTime(time.Now().Truncate(time.Second))},
			Spec: corev1.ServiceSpec{
				Type: corev1.ServiceTypeLoadBalancer, ClusterIP: "10.96.0.1", ClusterIPs: []string{"10.96.0.1"},
				IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}},
			},
		}
	}
	o = o.DeepCopy()
	edit(o)
	o.ResourceVersion = s.next()
	s.services[key] = o
	s.tellService(o)
}

func (s *server) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := model.Name{Namespace: "shop", Name: name}
	if s.services[key] == nil {
		return
	}
	delete(s.services, key)
	s.tell(model.Event{Delete: model.ServiceKey{Name: key}})
}

func (s *server) putPool(p model.AddressPool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pools[p.Name] = &v1alpha1.AddressPool{ObjectMeta: metav1.ObjectMeta{Name: p.Name, UID: types.UID(p.UID), ResourceVersion: s.next()}}
	s.tell(model.Event{Put: p})
}

func (s *server) service(name string) *corev1.Service {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.services[model.Name{Namespace: "shop", Name: name}]
}

func (s *server) Services(ctx context.Context) (all []corev1.Service, err error) {
	err = s.call(ctx, "list services", func() error {
		for _, name := range slices.SortedFunc(maps.Keys(s.services), model.Name.Compare) {
			all = append(all, *s.services[name].DeepCopy())
		}
		return nil
	})
	return all, err
}

func (s *server) Service(ctx context.Context, name model.Name) (o *corev1.Service, err error) {
	err = s.call(ctx, "get service", func() error {
		if s.services[name] == nil {
			return notFound("services", name.Name)
		}
		o = s.services[name].DeepCopy()
		return nil
	})
	return o, err
}

func (s *server) UpdateServiceStatus(ctx context.Context, o *corev1.Service) (now *corev1.Service, err error) {
	err = s.call(ctx, "update service status", func() error {
		is := s.services[nameOfService(o)]
		switch {
		case is == nil:
			return notFound("services", o.Name)
		case o.ResourceVersion == "" || is.ResourceVersion != o.ResourceVersion || is.UID != o.UID:
			return conflict("services", o.Name)
		}
		now = is.DeepCopy()
		if equality.Semantic.DeepEqual(is.Status, o.Status) {
			return nil
		}
		now.Status = *o.Status.DeepCopy()
		now.ResourceVersion = s.next()
		s.services[nameOfService(o)] = now
		s.check(now)
		s.tellService(now)
		now = now.DeepCopy()
		return nil
	})
	return now, err
}

func (s *server) Claims(ctx context.Context) (all []v1alpha1.AddressClaim, err error) {
	err = s.call(ctx, "list claims", func() error {
		for _, name := range slices.Sorted(maps.Keys(s.claims)) {
			all = append(all, *s.claims[name].DeepCopy())
		}
		return nil
	})
	return all, err
}

func (s *server) Claim(ctx context.Context, name string) (o *v1alpha1.AddressClaim, err error) {
	err = s.call(ctx, "get claim", func() error {
		if s.claims[name] == nil {
			return notFound("addressclaims", name)
		}
		o = s.claims[name].DeepCopy()
		return nil
	})
	return o, err
}

func (s *server) CreateClaim(ctx context.Context, o *v1alpha1.AddressClaim) error {
	return s.call(ctx, "create claim", func() error {
		if s.claims[o.Name] != nil {
			return apierrors.NewAlreadyExists(resource("addressclaims"), o.Name)
		}
		if o.ResourceVersion != "" {
			return apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
		}
		o = o.DeepCopy()
		o.ResourceVersion, o.UID = s.next(), types.UID("claim-"+s.next())
		s.claims[o.Name] = o
		return nil
	})
}

func (s *server) UpdateClaim(ctx context.Context, o *v1alpha1.AddressClaim) error {
	return s.call(ctx, "update claim", func() error {
		is := s.claims[o.Name]
		switch {
		case is == nil:
			return notFound("addressclaims", o.Name)
		case o.ResourceVersion == "" || is.ResourceVersion != o.ResourceVersion:
			return conflict("addressclaims", o.Name)
		}
		seen := map[string]bool{}
		for _, h := range o.Spec.Holders { // as the CRD's list map keys have it
			if key := h.Namespace + "/" + h.Name; seen[key] {
				return apierrors.NewBadRequest("duplicate holder " + key)
			} else {
				seen[key] = true
			}
		}
		o = o.DeepCopy()
		o.ResourceVersion = s.next()
		s.claims[o.Name] = o
		return nil
	})
}

func (s *server) DeleteClaim(ctx context.Context, o *v1alpha1.AddressClaim) error {
	return s.call(ctx, "delete claim", func() error {
		is := s.claims[o.Name]
		switch {
		case is == nil:
			return notFound("addressclaims", o.Name)
		case is.ResourceVersion != o.ResourceVersion || is.UID != o.UID:
			return conflict("addressclaims", o.Name)
		}
		delete(s.claims, o.Name)
		return nil
	})
}

func (s *server) Pool(ctx context.Context, name string) (o *v1alpha1.AddressPool, err error) {
	err = s.call(ctx, "get pool", func() error {
		if s.pools[name] == nil {
			return notFound("addresspools", name)
		}
		o = s.pools[name].DeepCopy()
		return nil
	})
	return o, err
}

func (s *server) UpdatePoolStatus(ctx context.Context, o *v1alpha1.AddressPool) error {
	return s.call(ctx, "update pool status", func() error {
		is := s.pools[o.Name]
		if is == nil || is.ResourceVersion != o.ResourceVersion {
			return conflict("addresspools", o.Name)
		}
		o = o.DeepCopy()
		o.ResourceVersion = s.next()
		s.pools[o.Name] = o
		return nil
	})
}

// Watch makes a source of what happens, later by lag each time.
func (s *server) watch(lag func()) source.Source { return watcher{s, lag} }

type watcher struct {
	*server
	lag func()
}

func (w watcher) Run(ctx context.Context, sink source.Sink) error {
	w.mu.Lock()
	first := len(w.log)
	w.mu.Unlock()
	for at := 0; ctx.Err() == nil; {
		w.mu.Lock()
		events, changed := w.log[at:], w.changed
		w.mu.Unlock()
		for _, e := range events {
			if at >= first {
				w.lag()
			}
			sink.Event(e)
			at++
		}
		if at == first {
			sink.Event(model.Event{Source: source.Kube, Synced: true})
			first = -1
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
	return nil
}

// table is who has what by statuses and claims.
func (s *server) table() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := ""
	for _, name := range slices.SortedFunc(maps.Keys(s.services), model.Name.Compare) {
		st := readStanding(s.services[name])
		text += fmt.Sprintf("%s %v %v %s\n", name.Name, st.ours, st.verdict.OK, st.verdict.Reason)
	}
	for _, name := range slices.Sorted(maps.Keys(s.claims)) {
		c := readClaim(s.claims[name])
		text += fmt.Sprintf("claim %s %v %v\n", name, c.holders, c.returning)
	}
	return text
}
