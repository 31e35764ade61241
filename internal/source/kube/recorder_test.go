package kube

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"sluice.dev/sluice/internal/model"
)

func problem(name string) model.Problem {
	return model.Problem{
		Kind: "Service", Object: model.Name{Namespace: "shop", Name: name}, UID: "u",
		Reason: "UnknownScheduler", Message: "no such scheduler",
	}
}

// recording runs a recorder within a bubble.
func recording(t *testing.T, prepare func(*fake.Clientset)) (*Recorder, *fake.Clientset) {
	t.Helper()
	client := fake.NewClientset()
	if prepare != nil {
		prepare(client)
	}
	r := NewRecorder(RecorderOptions{Client: client, NodeName: "n1"})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r, client
}

func events(t *testing.T, client *fake.Clientset) []corev1.Event {
	t.Helper()
	synctest.Wait()
	list, err := client.CoreV1().Events("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// writes counts what the recorder asked of the API server.
func writes(client *fake.Clientset) (n int) {
	for _, a := range client.Actions() {
		if a.GetVerb() == "create" || a.GetVerb() == "patch" {
			n++
		}
	}
	return n
}

func TestRecorderWritesAnEventOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, client := recording(t, nil)
		for range 100 {
			r.Record(problem("a"))
			synctest.Wait()
			time.Sleep(time.Second)
		}
		r.Record(model.Problem{Kind: "File", Object: model.Name{Name: "x.yaml"}, Reason: "InvalidFile"})
		r.Record(model.Problem{Kind: "EndpointSlice", Object: model.Name{Namespace: "shop", Name: "a-x"}, Reason: "InvalidTriggerTime"})
		r.Record(model.Problem{Kind: "Node", Object: model.Name{Name: "n1"}, Reason: NodeMissing})
		got := events(t, client)
		if len(got) != 2 || writes(client) != 2 {
			t.Fatalf("%d events by %d writes: %v", len(got), writes(client), got)
		}
		e := got[0]
		if got[1].Reason == "UnknownScheduler" {
			e = got[1]
		}
		ref := e.InvolvedObject
		if e.Namespace != "shop" || e.Type != corev1.EventTypeWarning || e.Reason != "UnknownScheduler" || e.Message != "no such scheduler" ||
			e.Source != (corev1.EventSource{Component: "sluice", Host: "n1"}) ||
			ref.APIVersion != "v1" || ref.Kind != "Service" || ref.Name != "a" || ref.UID != "u" {
			t.Errorf("event %+v", e)
		}
		time.Sleep(eventAgain)
		r.Record(problem("a"))
		synctest.Wait()
		if n := writes(client); n != 3 {
			t.Errorf("%d writes after an hour, want 3", n)
		}
	})
}

func TestRecorderHoldsBackAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, client := recording(t, nil)
		for i := range 1000 {
			r.Record(problem(fmt.Sprint(i)))
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		if n := writes(client); n < 1 || n > eventBurst {
			t.Errorf("%d writes at once, want up to %d", n, eventBurst)
		}
	})
}

func TestRecorderNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idle := NewRecorder(RecorderOptions{Client: fake.NewClientset()})
		for range 10 * eventQueue {
			idle.Record(problem("a"))
		}
		down, _ := recording(t, func(c *fake.Clientset) {
			c.PrependReactor("create", "events", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, nil, errors.New("connection refused")
			})
		})
		for i := range 10 * eventQueue {
			down.Record(problem(fmt.Sprint(i)))
		}
		time.Sleep(time.Minute)
	})
}

func TestRecorderForgets(t *testing.T) {
	recent := map[model.Problem]time.Time{}
	start := time.Unix(0, 0)
	for i := range eventMemory {
		recent[problem(fmt.Sprint(i))] = start
	}
	if due(recent, problem("new"), start.Add(time.Minute)) {
		t.Error("remembers more than it may")
	}
	if !due(recent, problem("new"), start.Add(eventAgain)) || len(recent) != 0 {
		t.Errorf("still remembers %d", len(recent))
	}
}

// TestRecorderOnOurKinds: Events on objects of the cluster are in the namespace
// default.
func TestRecorderOnOurKinds(t *testing.T) {
	for kind, version := range map[string]string{
		"AddressPool": "sluice.dev/v1alpha1", "BGPPeer": "sluice.dev/v1alpha1", "BGPAdvertisement": "sluice.dev/v1alpha1",
	} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, client := recording(t, nil)
				r.Record(model.Problem{Kind: kind, Object: model.Name{Name: "x"}, UID: "u", Reason: "InvalidX", Message: "spec.x: wrong"})
				got := events(t, client)
				if len(got) != 1 {
					t.Fatalf("events %v", got)
				}
				ref := got[0].InvolvedObject
				if got[0].Namespace != "default" || ref.APIVersion != version || ref.Kind != kind || ref.Name != "x" || ref.Namespace != "" || ref.UID != "u" {
					t.Errorf("event %+v", got[0])
				}
			})
		})
	}
	if ref, ok := reference(model.Problem{Kind: "NetworkPolicy", Object: model.Name{Namespace: "shop", Name: "x"}}); !ok || ref.APIVersion != "networking.k8s.io/v1" || ref.Namespace != "shop" {
		t.Errorf("NetworkPolicy: %+v", ref)
	}
	for kind, namespace := range map[string]string{"Secret": "kube-system", "Namespace": "", "Pod": "shop"} {
		ref, ok := reference(model.Problem{Kind: kind, Object: model.Name{Namespace: namespace, Name: "x"}})
		if !ok || ref.APIVersion != "v1" || ref.Namespace != namespace {
			t.Errorf("%s: %+v", kind, ref)
		}
	}
}
