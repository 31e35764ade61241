package kube

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"

	"sluice.dev/sluice/internal/api/clienttest"
	"sluice.dev/sluice/internal/api/v1alpha1"
	"sluice.dev/sluice/internal/source"
	"sluice.dev/sluice/internal/source/sourcetest"
)

// cluster is a fake API server whose objects are set as a whole, and a source
// that reads it.
type cluster struct {
	t       *testing.T
	client  *fake.Clientset
	api     *clienttest.Client
	dynamic *dynamicfake.FakeDynamicClient
	down    outage
	objects map[string]runtime.Object
	version int
	told    *sourcetest.Picture
	source  *Source
	stop    func()
}

// settle is longer than an informer waits before it tries again.
const settle = 2 * time.Minute

// found makes a cluster. One that selects gives the source what it asked for, as
// an API server does: an object that leaves the selection is deleted as far as
// a watch can see. One that does not delivers everything.
func found(t *testing.T, selects bool) *cluster {
	t.Helper()
	c := &cluster{
		t: t, client: fake.NewClientset(), api: clienttest.New(t), dynamic: dynamicfake.NewSimpleDynamicClient(scheme.Scheme),
		objects: map[string]runtime.Object{}, told: sourcetest.NewPicture(t, source.Kube),
	}
	for _, server := range []server{c.client, c.api, c.dynamic} {
		c.down.install(server)
	}
	if selects {
		c.client.PrependReactor("list", "services", c.listServices)
		c.client.PrependReactor("list", "pods", c.listPods)
		c.client.PrependWatchReactor("*", c.watch)
	}
	c.source = New(c.options())
	c.run()
	return c
}

// options have everything read that a source can read.
func (c *cluster) options() Options {
	return Options{Client: c.client, API: c.api, Dynamic: c.dynamic, NodeName: "n1", Kinds: Proxy | Routing | Policing}
}

// tracker is what holds an object in the fakes.
func (c *cluster) tracker(o runtime.Object) clienttesting.ObjectTracker {
	switch o.GetObjectKind().GroupVersionKind().Group {
	case v1alpha1.Group:
		return c.api.Tracker()
	case networkingv1.GroupName:
		return c.dynamic.Tracker()
	}
	return c.client.Tracker()
}

func (c *cluster) run() {
	ctx, cancel := context.WithCancel(c.t.Context())
	done := make(chan error, 1)
	go func() { done <- c.source.Run(ctx, c.told) }()
	c.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Errorf("Run: %v", err)
		}
	})
	c.t.Cleanup(c.stop)
	synctest.Wait()
}

// set makes the cluster hold these objects and no others. An object that did not
// change is left alone; one with another UID is made anew.
func (c *cluster) set(objects []runtime.Object) {
	c.t.Helper()
	next := map[string]runtime.Object{}
	for _, o := range objects {
		m := accessor(c.t, o)
		next[o.GetObjectKind().GroupVersionKind().Kind+" "+m.GetNamespace()+"/"+m.GetName()] = o
	}
	for key, was := range c.objects {
		o, stays := next[key]
		if !stays || accessor(c.t, o).GetUID() != accessor(c.t, was).GetUID() {
			m := accessor(c.t, was)
			c.do(c.tracker(was).Delete(resourceOf(was), m.GetNamespace(), m.GetName()))
			delete(c.objects, key)
		}
	}
	for key, o := range next {
		was, known := c.objects[key]
		if known && reflect.DeepEqual(was, o) {
			continue
		}
		c.objects[key] = o
		c.version++
		given := asServed(c.t, o)
		m := accessor(c.t, given)
		m.SetResourceVersion(fmt.Sprint(c.version))
		if known {
			c.do(c.tracker(o).Update(resourceOf(o), given, m.GetNamespace()))
		} else {
			c.do(c.tracker(o).Create(resourceOf(o), given, m.GetNamespace()))
		}
	}
}

func (c *cluster) do(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func accessor(t *testing.T, o runtime.Object) metav1.Object {
	t.Helper()
	m, err := meta.Accessor(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func resourceOf(o runtime.Object) schema.GroupVersionResource {
	r, _ := meta.UnsafeGuessKindToResource(o.GetObjectKind().GroupVersionKind())
	return r
}

// asServed is a copy of an object in the type in which its client gives it.
func asServed(t *testing.T, o runtime.Object) runtime.Object {
	t.Helper()
	if _, untyped := o.(*networkingv1.NetworkPolicy); !untyped {
		return o.DeepCopyObject()
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		t.Fatal(err)
	}
	return &unstructured.Unstructured{Object: fields}
}

// selected are the field selectors of Services and Pods, which the fake does not
// know.
func selected(o runtime.Object) bool {
	switch o := o.(type) {
	case *corev1.Service:
		return o.Spec.ClusterIP != corev1.ClusterIPNone
	case *corev1.Pod:
		return o.Status.Phase != corev1.PodSucceeded && o.Status.Phase != corev1.PodFailed
	}
	return true
}

func (c *cluster) listServices(clienttesting.Action) (bool, runtime.Object, error) {
	if err := c.down.get(); err != nil {
		return true, nil, err
	}
	gvk := corev1.SchemeGroupVersion.WithKind("Service")
	all, err := c.client.Tracker().List(corev1.SchemeGroupVersion.WithResource("services"), gvk, "")
	if list, ok := all.(*corev1.ServiceList); ok {
		list.Items = slices.DeleteFunc(list.Items, func(s corev1.Service) bool { return !selected(&s) })
	}
	return true, all, err // labels are selected by the client
}

func (c *cluster) listPods(clienttesting.Action) (bool, runtime.Object, error) {
	if err := c.down.get(); err != nil {
		return true, nil, err
	}
	all, err := c.client.Tracker().List(corev1.SchemeGroupVersion.WithResource("pods"), corev1.SchemeGroupVersion.WithKind("Pod"), "")
	if list, ok := all.(*corev1.PodList); ok {
		list.Items = slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return !selected(&p) })
	}
	return true, all, err
}

// watch gives a watch of what is selected.
func (c *cluster) watch(a clienttesting.Action) (bool, watch.Interface, error) {
	all, err := c.down.watch(c.client, a)
	if err != nil {
		return true, nil, err
	}
	selector := a.(clienttesting.WatchAction).GetWatchRestrictions().Labels
	matches := func(o runtime.Object) bool {
		return selector.Matches(labels.Set(accessor(c.t, o).GetLabels())) && selected(o)
	}
	inside := map[string]bool{}
	for _, o := range c.objects {
		if resourceOf(o).Resource == a.GetResource().Resource {
			inside[accessor(c.t, o).GetNamespace()+"/"+accessor(c.t, o).GetName()] = matches(o)
		}
	}
	return true, watch.Filter(all, func(e watch.Event) (watch.Event, bool) {
		name := accessor(c.t, e.Object).GetNamespace() + "/" + accessor(c.t, e.Object).GetName()
		was, is := inside[name], e.Type != watch.Deleted && matches(e.Object)
		inside[name] = is
		switch {
		case is && !was:
			e.Type = watch.Added
		case is:
			e.Type = watch.Modified
		default:
			e.Type = watch.Deleted
		}
		return e, was || is
	}), nil
}

// TestLives has the source follow each life in all the ways in which an API
// server may tell it.
func TestLives(t *testing.T) {
	ways := map[string]struct{ selects, breaks bool }{
		"everything is delivered":                    {},
		"what is selected is delivered":              {selects: true},
		"what is selected, and every step is missed": {selects: true, breaks: true},
	}
	for name, way := range ways {
		for _, life := range sourcetest.Lives() {
			t.Run(name+"/"+life.Name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := found(t, way.selects)
					var known []string
					for _, step := range life.Steps {
						if way.breaks {
							c.down.set(errors.New("connection lost"))
						}
						c.set(step.Objects)
						if way.breaks {
							time.Sleep(settle)
							synctest.Wait()
							c.told.Expect(t, step.Name+", unseen", known)
							c.down.set(nil)
							time.Sleep(settle)
						}
						synctest.Wait()
						c.told.Expect(t, step.Name, step.Want)
						known = step.Want
					}
				})
			})
		}
	}
}

// TestStartInTheMiddle: a source that starts at any step knows the same as one
// that saw what was before.
func TestStartInTheMiddle(t *testing.T) {
	for _, life := range sourcetest.Lives() {
		t.Run(life.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := found(t, true)
				for _, step := range life.Steps {
					c.stop()
					c.set(step.Objects)
					c.source, c.told = New(c.options()), sourcetest.NewPicture(t, source.Kube)
					c.run()
					c.told.Expect(t, step.Name, step.Want)
					if !c.told.Synced() {
						t.Errorf("%s: not synced", step.Name)
					}
				}
			})
		})
	}
}

// TestSyncedOnce: however often the API server goes and comes back, and even
// when the source is run a second time.
func TestSyncedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := found(t, true)
		c.set(sourcetest.Lives()[0].Steps[0].Objects)
		for range 3 {
			c.down.set(errors.New("connection lost"))
			time.Sleep(settle)
			c.down.set(nil)
			time.Sleep(settle)
		}
		c.stop()
		c.run()
		if !c.told.Synced() {
			t.Error("never synced")
		}
	})
}
