package ipam

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// Of a leader's death and of a freeze: an election takes up to the lease's 15 s
// and the 2 s between two attempts.
const frozen = 20 * time.Second

// witness compares every state of the Services that the API server ever had: a
// watch tells each of them, in order.
type witness struct {
	mu      sync.Mutex
	changed *sync.Cond
	has     map[types.UID][]string // addresses in status
	names   map[types.UID]string
	first   map[types.UID]string // the address that it got first
	faults  []string
	states  int
}

func newWitness() *witness {
	w := &witness{has: map[types.UID][]string{}, names: map[types.UID]string{}, first: map[types.UID]string{}}
	w.changed = sync.NewCond(&w.mu)
	return w
}

// see takes in events until the watch ends.
func (w *witness) see(events <-chan watch.Event) {
	for e := range events {
		s, ok := e.Object.(*corev1.Service)
		w.mu.Lock()
		if !ok {
			w.faults = append(w.faults, fmt.Sprintf("the watch broke off: %v", e.Object))
		} else {
			w.take(s, e.Type == watch.Deleted)
		}
		w.mu.Unlock()
		w.changed.Broadcast()
	}
}

func (w *witness) take(s *corev1.Service, gone bool) {
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return
	}
	w.states++
	w.names[s.UID] = s.Name
	if gone {
		delete(w.has, s.UID)
		return
	}
	var now []string
	for _, in := range s.Status.LoadBalancer.Ingress {
		now = append(now, in.IP)
	}
	w.has[s.UID] = now
	if first, had := w.first[s.UID]; had && (len(now) != 1 || now[0] != first) {
		w.faults = append(w.faults, fmt.Sprintf("%s had %s and has %v", s.Name, first, now))
	}
	if len(now) == 0 {
		return
	}
	w.first[s.UID] = now[0]
	for other, addrs := range w.has {
		for _, a := range addrs {
			if other != s.UID && a == now[0] {
				w.faults = append(w.faults, fmt.Sprintf("%s is in the status of %s and %s", a, w.names[other], s.Name))
			}
		}
	}
}

// served waits until n Services are there and have an address each.
func (w *witness) served(t *testing.T, n int, limit time.Duration) {
	t.Helper()
	late := time.AfterFunc(limit, w.changed.Broadcast)
	defer late.Stop()
	deadline := time.Now().Add(limit)
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		have := 0
		for _, addrs := range w.has {
			have += min(len(addrs), 1)
		}
		if have == n && len(w.has) == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d Services have an address after %v, want %d", have, len(w.has), limit, n)
		}
		w.changed.Wait()
	}
}

func service(name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, AllocateLoadBalancerNodePorts: new(bool),
			Ports: []corev1.ServicePort{{Port: 80}},
		},
	}
}

// crowd makes Services and removes some, so that addresses are used again.
type crowd struct {
	world
	made  int
	there []string
}

func (c *crowd) grow(t *testing.T, n int) {
	t.Helper()
	<-c.growing(t, n, 0)
}

// growing makes Services one after the other. What is returned is closed when
// all are there.
func (c *crowd) growing(t *testing.T, n int, pause time.Duration) <-chan struct{} {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range n {
			c.made++
			name := fmt.Sprintf("svc-%03d", c.made)
			if _, err := c.api.CoreV1().Services("default").Create(t.Context(), service(name), metav1.CreateOptions{}); err != nil {
				t.Error(err)
			}
			c.there = append(c.there, name)
			time.Sleep(pause)
		}
	}()
	return done
}

func (c *crowd) shrink(t *testing.T, random *rand.Rand, n int) {
	t.Helper()
	for range n {
		i := random.IntN(len(c.there))
		if err := c.api.CoreV1().Services("default").Delete(t.Context(), c.there[i], metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.there = append(c.there[:i], c.there[i+1:]...)
	}
}

// TestNoAddressTwice: leaders are killed, and frozen for longer than their lease
// and let go, in the middle of giving addresses to Services that come and go.
func TestNoAddressTwice(t *testing.T) {
	w := build(t)
	w.pool(t, "public", "203.0.113.0/24", "198.51.100.0-198.51.100.20")
	seen := newWitness()
	events, err := w.api.CoreV1().Services("default").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Stop()
	go seen.see(events.ResultChan())
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	a, b := w.controller(t, "a"), w.controller(t, "b")
	services := &crowd{world: w}
	services.grow(t, 60)
	seen.served(t, 60, 2*time.Minute)

	for round := range 6 {
		leads, _ := leader(t, a, b)
		services.shrink(t, random, 10)
		grown := services.growing(t, 40, 20*time.Millisecond)
		time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond) // the moment is the test
		began := time.Now()
		if round%2 == 0 {
			leads.kill(t)
			<-grown
			seen.served(t, len(services.there), 2*time.Minute)
			leads.start(t)
			t.Logf("round %d: %s killed, everybody served after %v", round, leads.name, time.Since(began).Round(100*time.Millisecond))
			continue
		}
		leads.signal(t, syscall.SIGSTOP)
		<-grown
		services.shrink(t, random, 5)
		services.grow(t, 5)
		time.Sleep(frozen)
		leads.signal(t, syscall.SIGCONT)
		seen.served(t, len(services.there), 2*time.Minute)
		t.Logf("round %d: %s frozen for %v, everybody served after %v", round, leads.name, frozen, time.Since(began).Round(100*time.Millisecond))
	}
	w.agree(t, seen, len(services.there))
}

// agree checks the end: claims and pool say what statuses say.
func (w world) agree(t *testing.T, seen *witness, n int) {
	t.Helper()
	seen.mu.Lock()
	t.Logf("%d states of %d Services compared", seen.states, len(seen.names))
	for _, f := range seen.faults {
		t.Error(f)
	}
	held := map[string]types.UID{}
	for uid, addrs := range seen.has {
		held[addrs[0]] = uid
	}
	seen.mu.Unlock()
	if len(held) != n {
		t.Errorf("%d addresses for %d Services", len(held), n)
	}
	eventually(t, time.Minute, "claims and pool agree with statuses", func() error { return w.compare(t.Context(), held) })
}

func (w world) compare(ctx context.Context, held map[string]types.UID) error {
	claims, err := w.own("addressclaims").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	found := 0
	for _, c := range claims.Items {
		holders, _, _ := unstructured.NestedSlice(c.Object, "spec", "holders")
		for _, h := range holders {
			if h.(map[string]any)["uid"] == string(held[c.GetName()]) {
				found++
			}
		}
	}
	if found != len(held) {
		return fmt.Errorf("%d of %d addresses are claimed by those who have them", found, len(held))
	}
	pool, err := w.own("addresspools").Get(ctx, "public", metav1.GetOptions{})
	if err != nil {
		return err
	}
	status, _ := pool.Object["status"].(map[string]any)
	if got, _ := status["assignedIPv4"].(int64); got < int64(len(held)) {
		return fmt.Errorf("the pool says that %d addresses are assigned, want %d", got, len(held))
	}
	return nil
}
