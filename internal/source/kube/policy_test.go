package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source"
	"sluice.dev/sluice/internal/source/sourcetest"
)

func networkPolicies() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"}
}

// policy is shop/web as a server has it, with any fields in its spec.
func policy(t *testing.T, spec string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	text := "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {namespace: shop, name: web, uid: u1}\nspec: " + spec
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatal(err)
	}
	return o
}

func podNamed(name, uid, addr string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(uid), Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{
			NodeName:   "n1",
			Containers: []corev1.Container{{Name: "c", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: addr, PodIPs: []corev1.PodIP{{IP: addr}}},
	}
}

// told is a sink that keeps events in order, and what is known of them.
type told struct {
	picture *sourcetest.Picture
	mu      sync.Mutex
	lines   []string
}

func (s *told) Event(e model.Event) {
	s.picture.Event(e)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case e.Problem != nil:
		s.lines = append(s.lines, fmt.Sprintf("problem %s %s (%s) %s: %s", e.Problem.Kind, e.Problem.Object, e.Problem.UID, e.Problem.Reason, e.Problem.Message))
	case e.Put != nil:
		switch f := e.Put.(type) {
		case model.Pod:
			s.lines = append(s.lines, fmt.Sprintf("put %s %s %v", f.Name, f.UID, f.Addrs))
		case model.NetworkPolicy:
			s.lines = append(s.lines, fmt.Sprintf("put %s", f.Name))
		default:
			s.lines = append(s.lines, fmt.Sprintf("put %T", f))
		}
	case e.Delete != nil:
		s.lines = append(s.lines, fmt.Sprintf("delete %v", e.Delete))
	default:
		s.lines = append(s.lines, "synced")
	}
}

// policing is a running source of what policies are made of, within a bubble.
type policing struct {
	*bench
	dynamic *dynamicfake.FakeDynamicClient
	down    outage
	told    told
}

func police(t *testing.T, kinds Kinds, objects ...runtime.Object) *policing {
	t.Helper()
	return refusedPolicing(t, kinds, nil, objects...)
}

// refusedPolicing is one for which a server refuses some resources.
func refusedPolicing(t *testing.T, kinds Kinds, prepare func(core, untyped server), objects ...runtime.Object) *policing {
	t.Helper()
	var core, untyped []runtime.Object
	for _, o := range objects {
		if _, ok := o.(*unstructured.Unstructured); ok {
			untyped = append(untyped, o)
		} else {
			core = append(core, o)
		}
	}
	p := &policing{
		bench:   &bench{t: t, client: fake.NewClientset(core...)},
		dynamic: dynamicfake.NewSimpleDynamicClient(scheme.Scheme, untyped...),
		told:    told{picture: sourcetest.NewPicture(t, source.Kube)},
	}
	p.down.install(p.client)
	p.down.install(p.dynamic)
	if prepare != nil {
		prepare(p.client, p.dynamic)
	}
	s := New(Options{Client: p.client, Dynamic: p.dynamic, Kinds: kinds, Logger: slog.New(slog.NewTextHandler(&p.log, nil))})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, &p.told) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(p.stop)
	return p
}

// expect compares what was told since with beginnings of lines, in order.
func (p *policing) expect(want ...string) {
	p.t.Helper()
	synctest.Wait()
	p.told.mu.Lock()
	got := p.told.lines
	p.told.lines = nil
	p.told.mu.Unlock()
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		p.t.Errorf("told\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// known compares what is known with lines as sourcetest writes them.
func (p *policing) known(when string, want ...string) {
	p.t.Helper()
	p.told.picture.Expect(p.t, when, want)
}

func (p *policing) put(o *unstructured.Unstructured) {
	p.t.Helper()
	p.do(p.dynamic.Resource(networkPolicies()).Namespace("shop").Update(p.t.Context(), o, metav1.UpdateOptions{}))
}

// TestPolicyFieldsNotKnown: what a newer server has is seen, narrows and is
// complained of once.
func TestPolicyFieldsNotKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := police(t, NetworkPolicies, policy(t, "{ingress: [{from: [{podSelector: {}, zone: a}]}]}"))
		p.expect(`problem NetworkPolicy shop/web (u1) UnknownField: spec.ingress[0].from[0].zone: "zone" is not a field that is known here`, "put shop/web", "synced")
		p.known("a peer", "policy shop/web: pods *, Ingress, in 0: nobody at every port")
		p.put(policy(t, "{ingress: [{from: [{podSelector: {}, zone: a}], ports: [{port: 80}]}]}"))
		p.expect("put shop/web")
		p.put(policy(t, "{ingress: [{}], action: Deny}"))
		p.expect(`problem NetworkPolicy shop/web (u1) UnknownField: spec.action: `, "put shop/web")
		p.known("elsewhere", "policy shop/web: pods *, Ingress")
		p.put(policy(t, "{ingress: [{}]}"))
		p.expect("put shop/web")
		p.known("corrected", "policy shop/web: pods *, Ingress, in 0: everybody at every port")
	})
}

// TestPolicyThatCannotBeUsed stays as it was, until it can or is deleted.
func TestPolicyThatCannotBeUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := police(t, NetworkPolicies, policy(t, "{}"))
		p.expect("put shop/web", "synced")
		p.put(policy(t, "{podSelector: {matchLabels: {a: 'no value'}}}"))
		p.expect(`problem NetworkPolicy shop/web (u1) InvalidSelector: spec.podSelector: `)
		p.put(policy(t, "{podSelector: all}"))
		p.expect(`problem NetworkPolicy shop/web (u1) InvalidObject: spec: cannot be decoded: `)
		p.known("unusable", "policy shop/web: pods *, Ingress")
		p.put(policy(t, "{policyTypes: [Egress]}"))
		p.expect("put shop/web")
		p.do(nil, p.dynamic.Resource(networkPolicies()).Namespace("shop").Delete(t.Context(), "web", metav1.DeleteOptions{}))
		p.expect("delete {shop/web}")
	})
}

// TestPolicyWrittenWithoutNews: labels and annotations say nothing of traffic.
func TestPolicyWrittenWithoutNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := police(t, NetworkPolicies, policy(t, "{}"))
		p.expect("put shop/web", "synced")
		o := policy(t, "{podSelector: {}, policyTypes: [Ingress]}") // as the server defaults it
		o.SetResourceVersion("7")
		o.SetLabels(map[string]string{"a": "b"})
		o.SetAnnotations(map[string]string{"a": "b"})
		p.put(o)
		p.expect()
	})
}

// TestPodNews: kubelets write a pod's status again and again, mostly to say
// nothing that policies read.
func TestPodNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := podNamed("web-0", "a", "10.1.0.1")
		p := police(t, Pods, now.DeepCopy())
		p.expect("put shop/web-0 a [10.1.0.1]", "synced")
		version := 0
		write := func(change func(*corev1.Pod)) {
			t.Helper()
			version++
			now.ResourceVersion = fmt.Sprint(version)
			change(now)
			p.do(p.client.CoreV1().Pods("shop").Update(t.Context(), now.DeepCopy(), metav1.UpdateOptions{}))
		}
		for i := range 10 {
			write(func(o *corev1.Pod) {
				o.Annotations = map[string]string{"at": fmt.Sprint(i)}
				o.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, LastProbeTime: metav1.Unix(int64(i), 0)}}
				o.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: int32(i)}}
				o.Status.Phase = []corev1.PodPhase{corev1.PodPending, corev1.PodRunning}[i%2]
			})
		}
		write(func(o *corev1.Pod) { o.DeletionTimestamp = new(metav1.Unix(1, 0)) })
		write(func(o *corev1.Pod) { o.Spec.Containers[0].Image = "web:2" })
		p.expect()
		rows := []struct {
			name   string
			change func(*corev1.Pod)
			want   []string
		}{
			{"labels", func(o *corev1.Pod) { o.Labels = map[string]string{"app": "shop"} }, []string{"put shop/web-0 a"}},
			{"addresses", func(o *corev1.Pod) { o.Status.PodIPs = append(o.Status.PodIPs, corev1.PodIP{IP: "fd00::1"}) }, []string{"put shop/web-0 a [10.1.0.1 fd00::1]"}},
			{"node", func(o *corev1.Pod) { o.Spec.NodeName = "n2" }, []string{"put shop/web-0 a"}},
			{"host network", func(o *corev1.Pod) { o.Spec.HostNetwork = true }, []string{"put shop/web-0 a"}},
			{"ports", func(o *corev1.Pod) { o.Spec.Containers[0].Ports[0].ContainerPort = 8081 }, []string{"put shop/web-0 a"}},
			{"grace", func(o *corev1.Pod) { o.Spec.TerminationGracePeriodSeconds = new(int64(1)) }, []string{"put shop/web-0 a"}},
			{"a bad address", func(o *corev1.Pod) { o.Status.PodIPs = append(o.Status.PodIPs, corev1.PodIP{IP: "x"}) }, []string{"problem Pod shop/web-0 (a) InvalidAddress: ", "put shop/web-0 a"}},
			{"another object", func(o *corev1.Pod) { o.UID = "b" }, []string{"problem Pod shop/web-0 (b)", "delete {shop/web-0 a}", "put shop/web-0 b"}},
			{"done", func(o *corev1.Pod) { o.Status.Phase = corev1.PodSucceeded }, []string{"delete {shop/web-0 b}"}},
		}
		for _, row := range rows {
			t.Log(row.name)
			write(row.change)
			p.expect(row.want...)
		}
	})
}

// TestPodMadeAnewUnseen: another pod under a name is the deletion of the first,
// then the second, whatever a watch has missed; and pods that went meanwhile
// are deleted by their own UIDs.
func TestPodMadeAnewUnseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, stays, goes := podNamed("web-0", "a", "10.1.0.1"), podNamed("web-1", "b", "10.1.0.2"), podNamed("web-2", "c", "10.1.0.3")
		stays.ResourceVersion, goes.ResourceVersion = "1", "3" // the fake gives none
		p := police(t, Pods, first, stays)
		p.do(p.client.CoreV1().Pods("shop").Create(t.Context(), goes, metav1.CreateOptions{}))
		synctest.Wait()
		p.told.lines = nil
		pods := p.client.CoreV1().Pods("shop")
		unseen := func(change func()) {
			p.down.set(errors.New("connection lost"))
			change()
			time.Sleep(time.Hour)
			p.expect()
			p.down.set(nil)
			time.Sleep(2 * time.Minute)
		}
		unseen(func() {
			p.do(nil, pods.Delete(t.Context(), "web-0", metav1.DeleteOptions{}))
			second := podNamed("web-0", "d", "10.1.0.1")
			second.ResourceVersion = "2"
			p.do(pods.Create(t.Context(), second, metav1.CreateOptions{}))
		})
		p.expect("delete {shop/web-0 a}", "put shop/web-0 d [10.1.0.1]")
		unseen(func() { p.do(nil, pods.Delete(t.Context(), "web-2", metav1.DeleteOptions{})) })
		p.expect("delete {shop/web-2 c}")
	})
}

func TestPodsSelected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := map[string]bool{}
		client := fake.NewClientset()
		client.PrependReactor("list", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
			asked[fmt.Sprintf("%s in %q fields=%s", a.GetResource().Resource, a.GetNamespace(), a.(clienttesting.ListAction).GetListRestrictions().Fields)] = true
			return false, nil, nil
		})
		if _, err := Load(t.Context(), Options{Client: client, Kinds: Pods}); err != nil {
			t.Fatal(err)
		}
		if want := `pods in "" fields=status.phase!=Failed,status.phase!=Succeeded`; len(asked) != 1 || !asked[want] {
			t.Errorf("asked for %v, want %s", asked, want)
		}
	})
}

// TestPolicingRefused: a cluster whose policies or pods we may not see is none
// without: nothing is deleted, and each resource is named once, with the remedy.
func TestPolicingRefused(t *testing.T) {
	for _, resource := range []string{"pods", "networkpolicies", "namespaces"} {
		t.Run(resource, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var core, untyped *refusal
				p := refusedPolicing(t, Policing, func(c, u server) {
					core = newRefusal(c, map[string]error{resource: forbidden(resource)})
					untyped = newRefusal(u, map[string]error{resource: forbidden(resource)})
				})
				time.Sleep(time.Hour)
				p.expect()
				core.set(resource, nil)
				untyped.set(resource, nil)
				time.Sleep(2 * time.Minute)
				p.expect("synced")
				p.stop()
				if n := said(&p.log, "refuses the resource", "allow it to be listed and watched", "resource="+resource); n != 1 || said(&p.log, "level=WARN") != 1 {
					t.Errorf("%d lines:\n%s", n, &p.log)
				}
			})
		})
	}
}

// TestDigestTwice: what has been digested stays as it is.
func TestDigestTwice(t *testing.T) {
	for _, o := range []runtime.Object{podNamed("web-0", "a", "10.1.0.1"), policy(t, "{}")} {
		once, err := trim(isOwn)(o)
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := trim(isOwn)(once); err != nil || twice != once {
			t.Errorf("%T: %v, %v", o, twice, err)
		}
	}
}
