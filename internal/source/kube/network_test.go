package kube

import (
	"bytes"
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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"sluice.dev/sluice/internal/api/clienttest"
	"sluice.dev/sluice/internal/api/v1alpha1"
)

func pool(addresses ...v1alpha1.AddressRange) *v1alpha1.AddressPool {
	return &v1alpha1.AddressPool{ObjectMeta: metav1.ObjectMeta{Name: "blue"}, Spec: v1alpha1.AddressPoolSpec{Addresses: addresses}}
}

func peer() *v1alpha1.BGPPeer {
	return &v1alpha1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor"}, Spec: v1alpha1.BGPPeerSpec{PeerAddress: "192.0.2.1", PeerASN: 64513, MyASN: 64512}}
}

func secret(namespace string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "tor"}, Type: corev1.SecretTypeBasicAuth,
		Data: map[string][]byte{"password": []byte("pass")},
	}
}

// refusal makes lists of some resources fail while it has an error for them.
type refusal struct {
	mu    sync.Mutex
	of    map[string]error
	asked map[string]int
}

func newRefusal(c server, of map[string]error) *refusal {
	r := &refusal{of: of, asked: map[string]int{}}
	c.PrependReactor("list", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.asked[a.GetResource().Resource]++
		err := r.of[a.GetResource().Resource]
		return err != nil, nil, err
	})
	return r
}

func (r *refusal) set(resource string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of[resource] = err
}

func (r *refusal) count(resource string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[resource]
}

func unknown(resource string) error {
	return apierrors.NewGenericServerResponse(404, "get", schema.GroupResource{Group: v1alpha1.Group, Resource: resource}, "", "404 page not found", 0, true)
}

func forbidden(resource string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", errors.New("no"))
}

// networkBench is a source that reads everything, over two fakes.
type networkBench struct {
	*bench
	api *clienttest.Client
}

func startNetwork(t *testing.T, kinds Kinds, prepare func(core, own server), objects ...runtime.Object) *networkBench {
	t.Helper()
	var core, own []runtime.Object
	for _, o := range objects {
		switch o.(type) {
		case *v1alpha1.AddressPool, *v1alpha1.BGPPeer, *v1alpha1.BGPAdvertisement:
			own = append(own, o)
		default:
			core = append(core, o)
		}
	}
	b := &networkBench{bench: &bench{t: t, client: fake.NewClientset(core...)}, api: clienttest.New(t, own...)}
	if prepare != nil {
		prepare(b.client, b.api)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := New(Options{Client: b.client, API: b.api, Kinds: kinds, NodeName: "n1", Logger: slog.New(slog.NewTextHandler(&b.log, nil))})
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, &b.told) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(b.stop)
	return b
}

// said counts the lines of the log that hold all of some texts.
func said(log *bytes.Buffer, texts ...string) (n int) {
	for line := range strings.Lines(log.String()) {
		if !slices.ContainsFunc(texts, func(s string) bool { return !strings.Contains(line, s) }) {
			n++
		}
	}
	return n
}

func TestKindsChosen(t *testing.T) {
	everything := func() []runtime.Object {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
		return []runtime.Object{service("a", "10.96.0.1"), slice("a-1", "a"), node("n1"), pool("192.0.2.0/24"), peer(), secret("kube-system"), secret("elsewhere"), ns}
	}
	for name, row := range map[string]struct {
		kinds Kinds
		want  []string
	}{
		"proxy":      {0, []string{"put node n1", "put service shop/a [10.96.0.1]", "put slice shop/a-1 of a", "synced"}},
		"allocator":  {Allocation, []string{"put model.AddressPool", "put model.Namespace", "put service shop/a [10.96.0.1]", "synced"}},
		"everything": {Proxy | Routing, []string{"put model.AddressPool", "put model.Peer", "put model.Secret", "put node n1", "put service shop/a [10.96.0.1]", "put slice shop/a-1 of a", "synced"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				startNetwork(t, row.kinds, nil, everything()...).expect(row.want...)
			})
		})
	}
}

func TestSecretsSelected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []string
		b := startNetwork(t, Secrets, func(core, _ server) {
			core.PrependReactor("list", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
				r := a.(clienttesting.ListAction).GetListRestrictions()
				asked = append(asked, fmt.Sprintf("%s in %s fields=%s", a.GetResource().Resource, a.GetNamespace(), r.Fields))
				return false, nil, nil
			})
		})
		b.expect("synced")
		b.stop()
		for _, a := range asked {
			if a != "secrets in kube-system fields=type=kubernetes.io/basic-auth" {
				t.Errorf("asked for %s", a)
			}
		}
	})
}

// TestKindUnknown: a cluster without our CRDs is served like any other, and they
// are found when they are installed.
func TestKindUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r *refusal
		b := startNetwork(t, Proxy|Routing, func(_, own server) {
			r = newRefusal(own, map[string]error{"addresspools": unknown("addresspools"), "bgppeers": unknown("bgppeers"), "bgpadvertisements": unknown("bgpadvertisements")})
		}, node("n1"), peer())
		b.expect("put node n1", "synced")
		time.Sleep(time.Hour)
		b.expect()
		if n := r.count("bgppeers"); n < 80 || n > 121 {
			t.Errorf("asked %d times in an hour", n)
		}
		r.set("bgppeers", nil)
		time.Sleep(absentAgain * 3 / 2)
		b.expect("put model.Peer")
		b.do(nil, b.api.BGPPeers().Delete(t.Context(), "tor", metav1.DeleteOptions{}))
		b.expect("delete model.PeerKey {tor}")
		b.stop()
		for _, resource := range []string{"addresspools", "bgppeers", "bgpadvertisements"} {
			if n := said(&b.log, "does not know", "resource="+resource); n != 1 {
				t.Errorf("%d lines of %s:\n%s", n, resource, &b.log)
			}
		}
		if said(&b.log, "has the resource now", "resource=bgppeers") != 1 || said(&b.log, "level=WARN") != 3 {
			t.Errorf("log:\n%s", &b.log)
		}
	})
}

// TestRefused: permissions that are missing hold nothing up but for the while
// in which a server may not have read them.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r *refusal
		b := startNetwork(t, Proxy|Routing, func(core, _ server) {
			r = newRefusal(core, map[string]error{"secrets": forbidden("secrets")})
		}, node("n1"), secret("kube-system"))
		time.Sleep(refusalTime / 2)
		b.expect("put node n1")
		time.Sleep(2 * refusalTime)
		b.expect("synced")
		time.Sleep(time.Hour)
		r.set("secrets", nil)
		time.Sleep(absentAgain * 3 / 2)
		b.expect("put model.Secret")
		b.stop()
		if said(&b.log, "refuses", "resource=secrets") != 1 || said(&b.log, "level=WARN") != 1 {
			t.Errorf("log:\n%s", &b.log)
		}
	})
}

func TestRefusedForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r *refusal
		b := startNetwork(t, Proxy|Routing, func(core, _ server) {
			r = newRefusal(core, map[string]error{"secrets": forbidden("secrets")})
		}, node("n1"), secret("kube-system"))
		time.Sleep(refusalTime / 2)
		r.set("secrets", nil)
		time.Sleep(refusalTime)
		b.expect("put model.Secret", "put node n1", "synced")
		b.stop()
		if b.log.Len() > 0 {
			t.Errorf("log:\n%s", &b.log)
		}
	})
}

// TestKindFails: a failure that says nothing about whether there are objects
// holds Synced back, however long.
func TestKindFails(t *testing.T) {
	for name, failure := range map[string]error{
		"refused connection": refused(),
		"starting":           apierrors.NewServiceUnavailable("starting"),
		"timeout":            apierrors.NewTimeoutError("slow", 1),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r *refusal
				b := startNetwork(t, Proxy|Routing, func(_, own server) {
					r = newRefusal(own, map[string]error{"bgppeers": failure})
				}, node("n1"), peer())
				time.Sleep(time.Hour)
				b.expect("put node n1")
				r.set("bgppeers", nil)
				time.Sleep(2 * failureMost)
				b.expect("put model.Peer", "synced")
				b.stop()
				if said(&b.log, "cannot be read") != 1 || said(&b.log, "can be read again") != 1 {
					t.Errorf("log:\n%s", &b.log)
				}
			})
		})
	}
}

// TestKindVanishes: what was known of a kind stays when a server does not know it
// any more.
func TestKindVanishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down outage
		p := peer()
		p.ResourceVersion = "1"
		b := startNetwork(t, BGPPeers, func(_, own server) { down.install(own) }, p)
		b.expect("put model.Peer", "synced")
		down.set(unknown("bgppeers"))
		time.Sleep(time.Hour)
		down.set(nil)
		time.Sleep(2 * time.Minute)
		b.expect()
	})
}

func TestStopWhileUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startNetwork(t, Proxy|Routing, func(_, own server) { newRefusal(own, map[string]error{"bgppeers": unknown("bgppeers")}) }, node("n1"))
		time.Sleep(time.Hour)
		began := time.Now()
		b.stop()
		if took := time.Since(began); took > time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// TestUnusableKeepsWhatWas: an edit that cannot be used is told as a problem and
// never as a deletion. A Secret that lost its password has none.
func TestUnusableKeepsWhatWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startNetwork(t, Routing, nil, pool("192.0.2.0/24"), peer(), secret("kube-system"))
		b.expect("put model.AddressPool", "put model.Peer", "put model.Secret", "synced")
		ctx := t.Context()
		bad := peer()
		bad.Spec.PasswordSecret = "a/b"
		b.do(b.api.BGPPeers().Update(ctx, bad, metav1.UpdateOptions{}))
		b.do(b.api.AddressPools().Update(ctx, pool("x"), metav1.UpdateOptions{}))
		b.expect("problem AddressPool blue InvalidRange", "problem BGPPeer tor InvalidPassword")
		empty := secret("kube-system")
		empty.Data = nil
		b.do(b.client.CoreV1().Secrets("kube-system").Update(ctx, empty, metav1.UpdateOptions{}))
		b.expect("delete model.SecretKey {tor}", "problem Secret kube-system/tor InvalidPassword")
		b.do(nil, b.api.BGPPeers().Delete(ctx, "tor", metav1.DeleteOptions{}))
		b.do(b.api.AddressPools().Update(ctx, pool("192.0.2.0/25"), metav1.UpdateOptions{}))
		b.expect("delete model.PeerKey {tor}", "put model.AddressPool")
	})
}

// TestStatusIsNoNews: nodes write a peer's status, the allocator a pool's.
func TestStatusIsNoNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startNetwork(t, Routing|Namespaces, nil, pool("192.0.2.0/24"), peer(), secret("kube-system"))
		b.expect("put model.AddressPool", "put model.Peer", "put model.Secret", "synced")
		for i := range 10 {
			version := fmt.Sprint(i)
			p, q, s := peer(), pool("192.0.2.0/24"), secret("kube-system")
			p.ResourceVersion, q.ResourceVersion, s.ResourceVersion = version, version, version
			p.Status.Failing = []v1alpha1.FailingNode{{Node: version}}
			q.Status.AssignedIPv4 = int64(i)
			s.Annotations = map[string]string{"x": version}
			b.do(b.api.BGPPeers().UpdateStatus(t.Context(), p, metav1.UpdateOptions{}))
			b.do(b.api.AddressPools().UpdateStatus(t.Context(), q, metav1.UpdateOptions{}))
			b.do(b.client.CoreV1().Secrets("kube-system").Update(t.Context(), s, metav1.UpdateOptions{}))
		}
		b.expect()
		q := pool("192.0.2.0/24")
		q.Labels = map[string]string{"tier": "one"}
		b.do(b.api.AddressPools().Update(t.Context(), q, metav1.UpdateOptions{}))
		b.expect("put model.AddressPool")
	})
}

// TestLabelsOfNodes: where routes are told, selectors may ask for any label of
// any node.
func TestLabelsOfNodes(t *testing.T) {
	for kinds, want := range map[Kinds]int{Proxy: 0, Proxy | Routing: 1} {
		s := New(Options{Client: fake.NewClientset(), Kinds: kinds, NodeName: "n1"})
		n := node("n2")
		n.Labels = map[string]string{"rack": "1"}
		if _, err := trim(s.labelled)(n); err != nil || len(n.Labels) != want {
			t.Errorf("kinds %b: labels %v, want %d (%v)", kinds, n.Labels, want, err)
		}
	}
}
