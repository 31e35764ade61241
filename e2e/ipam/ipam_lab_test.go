//go:build lab

package ipam

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	listen = "127.0.0.1:16443"
	lease  = 15 * time.Second // of the leader; see internal/ipam
	pace   = 200 * time.Millisecond
)

func ours(resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "sluice.dev", Version: "v1alpha1", Resource: resource}
}

// cluster is an API server with our kinds.
type cluster struct {
	core       kubernetes.Interface
	any        dynamic.Interface
	kubeconfig string
	dir        string
}

// process starts a program that ends with the test, and whose output goes to a
// file that a failed test prints.
func process(t *testing.T, log string, args ...string) *exec.Cmd {
	t.Helper()
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if text, err := os.ReadFile(log); err == nil && t.Failed() {
			t.Logf("%s:\n%s", filepath.Base(log), text[max(0, len(text)-4000):])
		}
	})
	return cmd
}

func await(t *testing.T, what string, limit time.Duration, done func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, limit)
		}
	}
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{dir: t.TempDir()}
	c.kubeconfig = filepath.Join(c.dir, "kubeconfig")
	process(t, filepath.Join(c.dir, "controlplane.log"), env(t, "CONTROLPLANE_BIN"), "-dir", c.dir, "-listen", listen)
	await(t, "API server", 2*time.Minute, func() bool {
		_, err := os.Stat(filepath.Join(c.dir, "ready"))
		return err == nil
	})
	config, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	c.core, c.any = kubernetes.NewForConfigOrDie(config), dynamic.NewForConfigOrDie(config)
	c.install(t)
	return c
}

func env(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s does not say where the program is; see `make e2e`", name)
	}
	return value
}

// install applies the CRDs, and waits until they are served.
func (c *cluster) install(t *testing.T) {
	t.Helper()
	crds := c.any.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	files, err := filepath.Glob("../../deploy/crds/*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("CRDs: %v %v", files, err)
	}
	for _, f := range files {
		body, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(body, &object.Object); err != nil {
			t.Fatal(err)
		}
		if _, err := crds.Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, resource := range []string{"addresspools", "addressclaims", "bgppeers", "bgpadvertisements"} {
		await(t, resource, time.Minute, func() bool {
			_, err := c.any.Resource(ours(resource)).List(t.Context(), metav1.ListOptions{})
			return err == nil
		})
	}
}

func (c *cluster) create(t *testing.T, resource, kind, name string, spec map[string]any) {
	t.Helper()
	_, err := c.any.Resource(ours(resource)).Create(t.Context(), &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "sluice.dev/v1alpha1", "kind": kind, "metadata": map[string]any{"name": name}, "spec": spec,
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// ledger follows every Service's status and knows who has which address at each
// moment, in the API server's own order.
type ledger struct {
	mu      sync.Mutex
	of      map[string]string // Service -> address
	by      map[string]string // address -> Service
	changes int
	wrong   []string
}

func (l *ledger) take(e watch.Event) {
	svc, ok := e.Object.(*corev1.Service)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	is := ""
	if in := svc.Status.LoadBalancer.Ingress; len(in) > 0 && e.Type != watch.Deleted {
		is = in[0].IP
	}
	was := l.of[svc.Name]
	if was == is {
		return
	}
	l.changes++
	if was != "" {
		delete(l.by, was)
		if e.Type != watch.Deleted {
			l.wrong = append(l.wrong, fmt.Sprintf("%s changed from %s to %q", svc.Name, was, is))
		}
	}
	delete(l.of, svc.Name)
	if is == "" {
		return
	}
	if other := l.by[is]; other != "" {
		l.wrong = append(l.wrong, fmt.Sprintf("%s is %s's and %s's", is, other, svc.Name))
	}
	l.of[svc.Name], l.by[is] = is, svc.Name
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.of)
}

// TestTwoControllers: leaders are killed, frozen for longer than their lease and
// stopped while Services come and go. No address is ever in the status of two
// Services, none changes, and everybody gets one.
func TestTwoControllers(t *testing.T) {
	c := newCluster(t)
	c.create(t, "addresspools", "AddressPool", "all", map[string]any{"addresses": []any{"198.18.0.0/24", "198.18.1.1-198.18.1.100"}})
	l := &ledger{of: map[string]string{}, by: map[string]string{}}
	w, err := c.core.CoreV1().Services("default").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		for e := range w.ResultChan() {
			l.take(e)
		}
	}()

	start := func(n int) *exec.Cmd {
		return process(t, filepath.Join(c.dir, fmt.Sprintf("controller%d.log", n)), env(t, "SLUICE_BIN"), "controller",
			"--kubeconfig", c.kubeconfig, "--metrics-bind-address", fmt.Sprintf("127.0.0.1:%d", 18250+n))
	}
	one := start(1)
	c.awaitLeader(t, "")
	two := start(2)
	ctx, enough := context.WithCancel(t.Context())
	var made sync.WaitGroup
	kept := map[string]bool{}
	made.Go(func() { c.comeAndGo(t, ctx, kept) })

	pause := func(d time.Duration) { time.Sleep(d) } // of the scenario: Services come meanwhile
	pause(2 * time.Second)
	first := c.awaitLeader(t, "")
	t.Log("the leader is frozen for longer than its lease, and then goes on where it was")
	_ = one.Process.Signal(syscall.SIGSTOP)
	second := c.awaitLeader(t, first)
	pause(2 * time.Second)
	_ = one.Process.Signal(syscall.SIGCONT)
	pause(3 * time.Second)
	t.Log("the other one is killed")
	_ = two.Process.Kill()
	third := c.awaitLeader(t, second)
	two = start(3)
	pause(3 * time.Second)
	t.Log("the leader is stopped, and lets go of the Lease")
	began := time.Now()
	_ = one.Process.Signal(syscall.SIGTERM)
	c.awaitLeader(t, third)
	if took := time.Since(began); took > lease {
		t.Errorf("a leader that was stopped kept the Lease for %v", took)
	}
	enough()
	made.Wait()
	await(t, "an address for each of all Services", time.Minute, func() bool { return l.count() == len(kept) })
	c.verify(t, l, kept)
	w.Stop()
	<-followed
	for _, wrong := range l.wrong {
		t.Error(wrong)
	}
	t.Logf("%d Services have an address each; %d changes were seen", len(kept), l.changes)
	_ = two
}

// comeAndGo makes Services, and takes every fourth away again, until ctx ends.
func (c *cluster) comeAndGo(t *testing.T, ctx context.Context, kept map[string]bool) {
	api := c.core.CoreV1().Services("default")
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		name := fmt.Sprintf("s%04d", n)
		_, err := api.Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}},
		}}, metav1.CreateOptions{})
		if err != nil {
			t.Errorf("create %s: %v", name, err)
			return
		}
		kept[name] = true
		if old := fmt.Sprintf("s%04d", n-7); n%4 == 3 && kept[old] {
			if err := api.Delete(t.Context(), old, metav1.DeleteOptions{}); err != nil {
				t.Errorf("delete %s: %v", old, err)
			}
			delete(kept, old)
		}
	}
}

// awaitLeader waits for a leader other than the given one, and returns it.
func (c *cluster) awaitLeader(t *testing.T, not string) (who string) {
	t.Helper()
	await(t, "a leader", 3*lease, func() bool {
		l, err := c.core.CoordinationV1().Leases("kube-system").Get(t.Context(), "sluice-controller", metav1.GetOptions{})
		if err != nil || l.Spec.HolderIdentity == nil {
			return false
		}
		who = *l.Spec.HolderIdentity
		return who != "" && who != not
	})
	return who
}

// verify compares Services' statuses with the claims and the pool's counts, and
// the last list with what was followed.
func (c *cluster) verify(t *testing.T, l *ledger, kept map[string]bool) {
	t.Helper()
	services, err := c.core.CoreV1().Services("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var has []string
	for _, s := range services.Items {
		if !kept[s.Name] {
			continue
		}
		in := s.Status.LoadBalancer.Ingress
		if len(in) != 1 || in[0].IPMode == nil || *in[0].IPMode != corev1.LoadBalancerIPModeVIP {
			t.Errorf("%s: status %+v", s.Name, in)
			continue
		}
		has = append(has, in[0].IP)
	}
	slices.Sort(has)
	if len(slices.Compact(slices.Clone(has))) != len(kept) {
		t.Errorf("%d Services, addresses %v", len(kept), has)
	}
	if got := slices.Sorted(maps.Values(l.of)); !slices.Equal(got, has) {
		t.Errorf("followed %v, listed %v", got, has)
	}
	claims := func() (names []string) {
		list, err := c.any.Resource(ours("addressclaims")).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, claim := range list.Items {
			names = append(names, claim.GetName())
		}
		slices.Sort(names)
		return names
	}
	await(t, "claims of these addresses and no others", time.Minute, func() bool { return slices.Equal(claims(), has) })
	await(t, "the pool's count", time.Minute, func() bool {
		pool, err := c.any.Resource(ours("addresspools")).Get(t.Context(), "all", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		n, _, _ := unstructured.NestedInt64(pool.Object, "status", "assignedIPv4")
		return n == int64(len(kept))
	})
}
