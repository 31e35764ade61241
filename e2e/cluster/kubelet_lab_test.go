//go:build lab

package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"sluice.dev/sluice/e2e/topo"
)

// kubelet is the kubelets of all nodes, and the scheduler: what a cluster has
// beside its control plane.
type kubelet struct {
	w    *world
	log  *journal
	self string // a name of this program under which it becomes a container

	stop context.CancelFunc
	wait sync.WaitGroup

	mu   sync.Mutex
	pods map[types.UID]*pod // guarded by mu, as are the topology and env
	env  map[string]string  // of all containers that are started

	troubles []string // guarded by mu
}

// startKubelet registers the nodes and runs their Pods.
func startKubelet(w *world) (*kubelet, error) {
	file, err := os.Create(filepath.Join(w.logDir(), "kubelet.log"))
	if err != nil {
		return nil, err
	}
	k := &kubelet{
		w: w, log: &journal{file: file}, self: filepath.Join(w.dir, containerName), pods: map[types.UID]*pod{}, env: map[string]string{},
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := os.Symlink(program, k.self); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	k.stop = stop
	for i, h := range w.Nodes {
		if err := k.register(ctx, i+1, h); err != nil {
			return k, fmt.Errorf("register %s: %w", h.Name, err)
		}
	}
	k.wait.Go(func() { k.beat(ctx) })
	lists := cache.NewListWatchFromClient(w.api.CoreV1().RESTClient(), "pods", metav1.NamespaceAll, fields.Everything())
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: lists, ObjectType: &corev1.Pod{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { k.sync(ctx, o.(*corev1.Pod)) },
			UpdateFunc: func(_, o any) { k.sync(ctx, o.(*corev1.Pod)) },
		},
	})
	k.wait.Go(func() { informer.RunWithContext(ctx) })
	return k, nil
}

// close lets go of all Pods; their processes end with the topology.
func (k *kubelet) close() error {
	k.stop()
	k.wait.Wait()
	return k.log.file.Close()
}

// sync takes in what a Pod is now.
func (k *kubelet) sync(ctx context.Context, o *corev1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.pods[o.UID]
	if o.Spec.NodeName == "" {
		if p == nil && o.DeletionTimestamp == nil {
			k.schedule(ctx, o)
		}
		return
	}
	if p == nil {
		node := k.host(o.Spec.NodeName)
		if o.DeletionTimestamp != nil || o.Status.Phase != corev1.PodPending || node == nil {
			return // its end has been told
		}
		p = newPod(k, o, node) // bound by whoever made it
		k.pods[o.UID] = p
	}
	if !p.started {
		p.started, p.spec = true, o
		k.wait.Go(func() { p.run(ctx) })
	}
	if o.DeletionTimestamp != nil {
		p.once.Do(func() { close(p.leave) })
	}
}

// trouble notes that a Pod's life did not go as it should.
func (k *kubelet) trouble(format string, args ...any) {
	k.log.say(format, args...)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.troubles = append(k.troubles, fmt.Sprintf(format, args...))
}

// setEnv gives all containers that are started from now on a variable; "" takes
// it away.
func (k *kubelet) setEnv(name, value string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.env[name] = value; value == "" {
		delete(k.env, name)
	}
}

// gone forgets a Pod.
func (k *kubelet) gone(p *pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.pods, p.spec.UID)
}

// running are the Pods with a label, by node; of those that are being replaced
// the newer ones.
func (k *kubelet) running(label, value string) map[string]*pod {
	k.mu.Lock()
	defer k.mu.Unlock()
	found := map[string]*pod{}
	for _, p := range k.pods {
		if p.spec.Labels[label] != value {
			continue
		}
		if other := found[p.node.Name]; other == nil || other.spec.CreationTimestamp.Before(&p.spec.CreationTimestamp) {
			found[p.node.Name] = p
		}
	}
	return found
}

// schedule binds a Pod to the node that it is made for, as those of DaemonSets
// are, or to the node with the fewest of its kind that takes some. Its caller
// holds mu.
func (k *kubelet) schedule(ctx context.Context, o *corev1.Pod) {
	node, err := k.place(ctx, o)
	if err != nil {
		k.log.say("%s: %v", o.Name, err)
		return
	}
	k.log.say("%s goes to %s", o.Name, node.Name)
	k.pods[o.UID] = newPod(k, o, node)
	err = k.w.api.CoreV1().Pods(o.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, UID: o.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: node.Name},
	}, metav1.CreateOptions{})
	if err != nil {
		k.log.say("%s: %v", o.Name, err)
		delete(k.pods, o.UID)
	}
}

func (k *kubelet) place(ctx context.Context, o *corev1.Pod) (*topo.Host, error) {
	name := madeFor(o)
	if name == "" {
		list, err := k.w.api.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		nodes := slices.DeleteFunc(list.Items, func(n corev1.Node) bool { return n.Spec.Unschedulable })
		if len(nodes) == 0 {
			return nil, errors.New("no node takes Pods")
		}
		name = slices.MinFunc(nodes, func(a, b corev1.Node) int {
			return cmp.Or(cmp.Compare(k.alike(o, a.Name), k.alike(o, b.Name)), cmp.Compare(a.Name, b.Name))
		}).Name
	}
	if h := k.host(name); h != nil {
		return h, nil
	}
	return nil, fmt.Errorf("there is no node %q", name)
}

// host is a node by name; nil: there is none.
func (k *kubelet) host(name string) *topo.Host {
	for _, h := range k.w.Nodes {
		if h.Name == name {
			return h
		}
	}
	return nil
}

// madeFor is the node that a DaemonSet's Pod is for; "": it may be any.
func madeFor(o *corev1.Pod) string {
	if a := o.Spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			for _, f := range term.MatchFields {
				if f.Key == metav1.ObjectNameField && len(f.Values) == 1 {
					return f.Values[0]
				}
			}
		}
	}
	return ""
}

// alike counts the Pods of a node that have the same owner and do not leave.
func (k *kubelet) alike(o *corev1.Pod, node string) (n int) {
	for _, p := range k.pods {
		if p.node.Name == node && !p.leaving() && owner(p.spec) == owner(o) {
			n++
		}
	}
	return n
}

func owner(o *corev1.Pod) types.UID {
	if ref := metav1.GetControllerOf(o); ref != nil {
		return ref.UID
	}
	return o.UID
}
