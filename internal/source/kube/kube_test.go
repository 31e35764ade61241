package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source"
	"sluice.dev/sluice/internal/source/convert"
)

// notes keeps events as one line each.
type notes struct {
	mu    sync.Mutex
	lines []string
}

func (n *notes) Event(e model.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, line(e))
}

// take returns the lines since the last call, sorted: between objects there is
// no order. Synced is marked when it was not the last.
func (n *notes) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	got := n.lines
	n.lines = nil
	if at := slices.Index(got, "synced"); at >= 0 && at != len(got)-1 {
		got[at] = "synced too early"
	}
	slices.Sort(got)
	return got
}

func line(e model.Event) string {
	switch {
	case e.Source != source.Kube:
		return "signed " + e.Source
	case e.Synced:
		return "synced"
	case e.Problem != nil:
		return fmt.Sprintf("problem %s %s %s", e.Problem.Kind, e.Problem.Object, e.Problem.Reason)
	case e.Delete != nil:
		return fmt.Sprintf("delete %T %v", e.Delete, e.Delete)
	}
	switch f := e.Put.(type) {
	case model.Service:
		return fmt.Sprintf("put service %s %v", f.Name, f.ClusterIPs)
	case model.EndpointSlice:
		return fmt.Sprintf("put slice %s of %s", f.Name, f.Service)
	case model.Node:
		return fmt.Sprintf("put node %s", f.Name)
	}
	return fmt.Sprintf("put %T", e.Put)
}

func service(name, ip string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", Labels: map[string]string{}},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip},
			Ports: []corev1.ServicePort{{Port: 80}},
		},
	}
}

func slice(name, of string) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: name, Namespace: "shop", Labels: map[string]string{discoveryv1.LabelServiceName: of}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Port: new(int32(8080))}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}},
	}
}

func node(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// bench is a running source over a fake API server, within a synctest bubble.
type bench struct {
	t      *testing.T
	client *fake.Clientset
	told   notes
	log    bytes.Buffer
	stop   func()
}

// start runs a source. The fake's watches deliver everything, whatever was
// selected: it is the conversion that has to refuse what is not ours.
func start(t *testing.T, prepare func(*fake.Clientset), objects ...runtime.Object) *bench {
	t.Helper()
	b := &bench{t: t, client: fake.NewClientset(objects...)}
	if prepare != nil {
		prepare(b.client)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := New(Options{Client: b.client, NodeName: "n1", Logger: slog.New(slog.NewTextHandler(&b.log, nil))})
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, &b.told) }()
	b.stop = sync.OnceFunc(func() {
		began := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("Run ended %v after it was told to", took)
		}
	})
	t.Cleanup(b.stop)
	return b
}

// expect waits until nothing moves any more and compares what was told.
func (b *bench) expect(want ...string) {
	b.t.Helper()
	synctest.Wait()
	if got := b.told.take(); !slices.Equal(got, want) {
		b.t.Errorf("told\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func (b *bench) do(_ any, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) update(s *corev1.Service) {
	b.t.Helper()
	b.do(b.client.CoreV1().Services("shop").Update(b.t.Context(), s, metav1.UpdateOptions{}))
}

func TestInitialListThenSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		headless := service("headless", "None")
		foreign := service("foreign", "10.96.0.9")
		foreign.Labels[convert.ProxyNameLabel] = "other"
		b := start(t, nil, service("a", "10.96.0.1"), service("b", "10.96.0.2"), headless, foreign,
			slice("a-1", "a"), slice("b-1", "b"), node("n1"))
		b.expect(
			"put node n1",
			"put service shop/a [10.96.0.1]", "put service shop/b [10.96.0.2]",
			"put slice shop/a-1 of a", "put slice shop/b-1 of b",
			"synced",
		)
		time.Sleep(time.Hour)
		b.expect()
	})
}

func TestSyncedWaitsForTheSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(service("a", "10.96.0.1"), service("b", "10.96.0.2"), node("n1"))
		gate := make(chan struct{})
		var told notes
		slow := source.SinkFunc(func(e model.Event) {
			if _, ok := e.Put.(model.Service); ok {
				<-gate
			}
			told.Event(e)
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- New(Options{Client: client, NodeName: "n1"}).Run(ctx, slow) }()
		for open, want := range []int{1, 1, 2} { // the node; one Service; the other and Synced
			time.Sleep(time.Minute)
			synctest.Wait()
			if got := told.take(); len(got) != want || (got[len(got)-1] == "synced") != (open == 2) {
				t.Fatalf("told %q after the sink took %d Services", got, open)
			}
			if open < 2 {
				gate <- struct{}{}
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, node("n1"))
		b.expect("put node n1", "synced")
		svc := b.client.CoreV1().Services("shop")
		ctx := t.Context()

		a := service("a", "10.96.0.1")
		b.do(svc.Create(ctx, a, metav1.CreateOptions{}))
		b.expect("put service shop/a [10.96.0.1]")

		a.Labels[convert.ProxyNameLabel] = ""
		b.update(a)
		b.expect("delete model.ServiceKey {shop/a}")
		b.update(a)
		b.expect()
		delete(a.Labels, convert.ProxyNameLabel)
		b.update(a)
		b.expect("put service shop/a [10.96.0.1]")

		a.Labels[convert.HeadlessLabel] = ""
		b.update(a)
		b.expect("delete model.ServiceKey {shop/a}")
		delete(a.Labels, convert.HeadlessLabel)
		b.update(a)
		b.expect("put service shop/a [10.96.0.1]")

		a.Spec.Type = corev1.ServiceTypeExternalName
		b.update(a)
		b.expect("delete model.ServiceKey {shop/a}")
		a.Spec.Type = corev1.ServiceTypeClusterIP
		a.Spec.ExternalIPs = []string{"127.0.0.1"}
		b.update(a)
		b.expect("problem Service shop/a InvalidAddress", "put service shop/a [10.96.0.1]")
		a.Spec.Ports[0].Port = 81
		b.update(a) // the same problem is not told again
		b.expect("put service shop/a [10.96.0.1]")

		s := slice("x", "a")
		slices := b.client.DiscoveryV1().EndpointSlices("shop")
		b.do(slices.Create(ctx, s, metav1.CreateOptions{}))
		b.expect("put slice shop/x of a")
		s.Labels[discoveryv1.LabelServiceName] = "b"
		b.do(slices.Update(ctx, s, metav1.UpdateOptions{}))
		b.expect("put slice shop/x of b")
		delete(s.Labels, discoveryv1.LabelServiceName)
		b.do(slices.Update(ctx, s, metav1.UpdateOptions{}))
		b.expect("delete model.EndpointSliceKey {shop/x}")

		b.do(nil, svc.Delete(ctx, "a", metav1.DeleteOptions{}))
		b.do(nil, slices.Delete(ctx, "x", metav1.DeleteOptions{}))
		b.expect("delete model.ServiceKey {shop/a}")
		b.do(nil, b.client.CoreV1().Nodes().Delete(ctx, "n1", metav1.DeleteOptions{}))
		b.expect("delete model.NodeKey {n1}")
	})
}

func TestNodeMayBeMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil, service("a", "10.96.0.1"))
		b.expect("problem Node n1 NodeMissing", "put service shop/a [10.96.0.1]", "synced")
		if !strings.Contains(b.log.String(), "own node does not exist") {
			t.Errorf("log: %s", &b.log)
		}
		b.do(b.client.CoreV1().Nodes().Create(t.Context(), node("n1"), metav1.CreateOptions{}))
		b.expect("put node n1")
	})
}

func TestSelectors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		asked := map[string]bool{}
		b := start(t, func(c *fake.Clientset) {
			c.PrependReactor("list", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
				r := a.(clienttesting.ListAction).GetListRestrictions()
				mu.Lock()
				defer mu.Unlock()
				asked[fmt.Sprintf("%s labels=%s fields=%s", a.GetResource().Resource, r.Labels, r.Fields)] = true
				return false, nil, nil
			})
		}, node("n1"))
		b.expect("put node n1", "synced")
		for _, want := range []string{
			"services labels=!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name fields=spec.clusterIP!=None",
			"endpointslices labels=!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name fields=",
			"nodes labels= fields=",
		} {
			if !asked[want] {
				t.Errorf("not asked for %s, but for %v", want, asked)
			}
		}
	})
}

// outage makes every list and watch fail while it has an error.
type outage struct {
	mu      sync.Mutex
	err     error
	watches []*watch.RaceFreeFakeWatcher
}

func (o *outage) set(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err = err
	for _, w := range o.watches {
		w.Stop()
	}
	o.watches = nil
}

func (o *outage) get() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// server is a fake API server.
type server interface {
	PrependReactor(verb, resource string, reaction clienttesting.ReactionFunc)
	PrependWatchReactor(resource string, reaction clienttesting.WatchReactionFunc)
	Tracker() clienttesting.ObjectTracker
}

func (o *outage) install(c server) {
	c.PrependReactor("list", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		err := o.get()
		return err != nil, nil, err
	})
	c.PrependWatchReactor("*", func(a clienttesting.Action) (bool, watch.Interface, error) {
		w, err := o.watch(c, a)
		return true, w, err
	})
}

// watch opens a watch that ends with the next change for the worse or better.
func (o *outage) watch(c server, a clienttesting.Action) (watch.Interface, error) {
	if err := o.get(); err != nil {
		return nil, err
	}
	w, err := c.Tracker().Watch(a.GetResource(), a.GetNamespace(), a.(clienttesting.WatchActionImpl).ListOptions)
	if f, ok := w.(*watch.RaceFreeFakeWatcher); ok {
		o.mu.Lock()
		o.watches = append(o.watches, f)
		o.mu.Unlock()
	}
	return w, err
}

func refused() error {
	return fmt.Errorf("Get %q: %w", "https://192.0.2.1:6443/api", syscall.ECONNREFUSED)
}

func TestUnreachableAtStart(t *testing.T) {
	for name, failure := range map[string]error{
		"refused": refused(),
		"timeout": errors.New("i/o timeout"),
		"busy":    apierrors.NewTooManyRequests("later", 1),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var down outage
				down.set(failure)
				b := start(t, func(c *fake.Clientset) { down.install(c) }, service("a", "10.96.0.1"), node("n1"))
				time.Sleep(time.Hour)
				b.expect()
				down.set(nil)
				time.Sleep(2 * time.Minute)
				b.expect("put node n1", "put service shop/a [10.96.0.1]", "synced")
				b.stop()
				if n := strings.Count(b.log.String(), "cannot be read"); n != 1 && name != "busy" || n > 3 {
					t.Errorf("%d lines of the outage:\n%s", n, &b.log)
				}
				if n := strings.Count(b.log.String(), "can be read again"); n != 1 {
					t.Errorf("%d lines of its end:\n%s", n, &b.log)
				}
			})
		})
	}
}

func TestStopWhileUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down outage
		down.set(refused())
		b := start(t, func(c *fake.Clientset) { down.install(c) })
		time.Sleep(time.Hour)
		b.expect()
		b.stop() // at once, not after the backoff
	})
}

func TestOutageDeletesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down outage
		stays, n1 := service("b", "10.96.0.2"), node("n1")
		stays.ResourceVersion, n1.ResourceVersion = "1", "2" // the fake gives none
		b := start(t, func(c *fake.Clientset) { down.install(c) }, service("a", "10.96.0.1"), stays, n1)
		b.expect("put node n1", "put service shop/a [10.96.0.1]", "put service shop/b [10.96.0.2]", "synced")
		time.Sleep(time.Minute)
		down.set(errors.New("connection lost"))
		b.do(nil, b.client.CoreV1().Services("shop").Delete(t.Context(), "a", metav1.DeleteOptions{}))
		b.do(b.client.CoreV1().Services("shop").Create(t.Context(), service("c", "10.96.0.3"), metav1.CreateOptions{}))
		time.Sleep(time.Hour)
		b.expect()
		down.set(nil)
		time.Sleep(2 * time.Minute)
		b.expect("delete model.ServiceKey {shop/a}", "put service shop/c [10.96.0.3]")
		b.stop()
		if n := strings.Count(b.log.String(), "\n"); n != 2 {
			t.Errorf("%d lines, want one of the outage and one of its end:\n%s", n, &b.log)
		}
	})
}

func TestForbiddenIsLoggedOnceForEachResource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(c *fake.Clientset) {
			for _, r := range []string{"nodes", "services"} {
				c.PrependReactor("list", r, func(clienttesting.Action) (bool, runtime.Object, error) {
					return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: r}, "", errors.New("no"))
				})
			}
		}, slice("x", "a"))
		time.Sleep(time.Hour)
		b.expect("put slice shop/x of a") // and not synced
		b.stop()
		for _, r := range []string{"nodes", "services"} {
			if n := strings.Count(b.log.String(), "resource="+r); n != 1 {
				t.Errorf("%d lines of %s:\n%s", n, r, &b.log)
			}
		}
	})
}

func TestTombstones(t *testing.T) {
	var told notes
	h := &teller[*corev1.Service, model.Service]{
		sink: &told,
		key:  func(f model.Service) any { return model.ServiceKey{Name: f.Name} },
		convert: func(s *corev1.Service) (model.Service, bool, []model.Problem) {
			return convert.Service(s, nil)
		},
	}
	a, c := service("a", "10.96.0.1"), service("c", "10.96.0.3")
	h.OnAdd(a, true)
	h.OnAdd(c, true)
	h.OnUpdate(a, a) // no resource version: told
	a.ResourceVersion = "7"
	h.OnUpdate(a, a) // what an informer says after a lost watch
	h.OnDelete(cache.DeletedFinalStateUnknown{Key: "shop/a", Obj: a})
	h.OnDelete(cache.DeletedFinalStateUnknown{Key: "shop/a"})
	h.OnDelete(cache.DeletedFinalStateUnknown{Key: "shop/c"})
	h.OnDelete("nonsense")
	h.OnDelete(service("never", "10.96.0.4"))
	want := []string{
		"delete model.ServiceKey {shop/a}", "delete model.ServiceKey {shop/c}",
		"put service shop/a [10.96.0.1]", "put service shop/a [10.96.0.1]", "put service shop/c [10.96.0.3]",
	}
	if got := told.take(); !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestTrimKeepsWhatIsRead(t *testing.T) {
	s := service("a", "10.96.0.1")
	s.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	s.Annotations = map[string]string{convert.SchedulerAnnotation: "rr", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
	s.Labels["app"] = "a"
	s.UID, s.ResourceVersion, s.CreationTimestamp = "u", "7", metav1.Unix(1, 0)
	s.Spec.Selector = map[string]string{"app": "a"}
	s.Spec.Ports[0].AppProtocol = new("h2c")
	s.Spec.LoadBalancerSourceRanges = []string{"10.0.0.0/8"}
	s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.1", Ports: []corev1.PortStatus{{Port: 80}}}}
	wantService, _, _ := convert.Service(s, nil)
	trimTwice(t, s)
	if got, _, _ := convert.Service(s, nil); !reflect.DeepEqual(got, wantService) {
		t.Errorf("got  %v\nwant %v", got, wantService)
	}
	if s.ManagedFields != nil || len(s.Annotations) != 1 || s.Spec.Selector != nil || s.ResourceVersion != "7" {
		t.Errorf("not trimmed: %+v", s)
	}

	e := slice("x", "a")
	e.Endpoints = []discoveryv1.Endpoint{{
		Addresses: []string{"10.0.0.1", "10.0.0.2"}, NodeName: new("n1"), Zone: new("z"), Hostname: new("h"),
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: e.Namespace, Name: "pod", UID: "u", ResourceVersion: "7"}, Hints: &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "z"}}},
	}, {
		Addresses: []string{"10.0.0.3"}, TargetRef: &corev1.ObjectReference{Kind: "Machine", Name: "m"},
	}}
	wantSlice, _, _ := convert.EndpointSlice(e)
	trimTwice(t, e)
	if got, _, _ := convert.EndpointSlice(e); !reflect.DeepEqual(got, wantSlice) {
		t.Errorf("got  %v\nwant %v", got, wantSlice)
	}
	if got := e.Endpoints[0].TargetRef; *got != (corev1.ObjectReference{Kind: "Pod", Name: "pod"}) || e.Endpoints[1].TargetRef != nil || len(e.Endpoints[0].Addresses) != 1 {
		t.Errorf("not trimmed: %+v", e)
	}

	n := node("n1")
	n.Labels = map[string]string{"any": "label"}
	n.Spec = corev1.NodeSpec{PodCIDR: "10.1.0.0/24", PodCIDRs: []string{"10.1.0.0/24"}, ProviderID: "x"}
	n.Status = corev1.NodeStatus{
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}},
		Images:    []corev1.ContainerImage{{Names: []string{"i"}}},
	}
	wantNode, _, _ := convert.Node(n)
	trimTwice(t, n)
	if got, _, _ := convert.Node(n); !reflect.DeepEqual(got, wantNode) {
		t.Errorf("got  %v\nwant %v", got, wantNode)
	}
	if n.Status.Images != nil || n.Spec.ProviderID != "" {
		t.Errorf("not trimmed: %+v", n)
	}
}

// isOwn names the Node whose labels are all kept.
func isOwn(node string) bool { return node == "n1" }

func trimTwice(t *testing.T, obj runtime.Object) {
	t.Helper()
	for range 2 {
		if _, err := trim(isOwn)(obj); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAsList(t *testing.T) {
	if err := asList(refused()); errors.Is(err, syscall.ECONNREFUSED) {
		t.Error("the reflector still sees the refusal")
	}
	gone := apierrors.NewResourceExpired("old")
	if err := asList(gone); !apierrors.IsResourceExpired(err) {
		t.Error("the reflector has to see that what it asked for is too old")
	}
}
