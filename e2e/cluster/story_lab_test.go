//go:build lab

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"sluice.dev/sluice/e2e/topo"
)

// The names and addresses of the story.
const (
	shop      = "shop"
	system    = metav1.NamespaceSystem
	nodePort  = 30080
	component = "app.kubernetes.io/component"
	balancer  = "203.0.113.80" // the first address of the pool
	replicas  = 6              // of Deployment web
)

// TestStory is a cluster's life with sluice. Whatever happens, no request is
// lost, and the API server refuses nothing.
func TestStory(t *testing.T) {
	s := tell(t)
	mark, err := s.w.audit.end()
	s.must(err)
	s.chapter("A cluster without a proxy")
	s.introduce()
	s.chapter("Install")
	s.install()
	s.chapter("A Deployment, and Services of every type")
	s.open()
	s.chapter("A load-balancer IP from a pool, and the router that learns the way")
	s.balance()
	s.chapter("Rollout of the Deployment under load")
	s.rollout()
	s.chapter("NetworkPolicy")
	s.police()
	s.chapter("node2 is drained under load, and comes back")
	s.drain()
	s.chapter("The agents are upgraded under load, and one is killed")
	s.upgrade()
	s.chapter("What sluice asked of the API server")
	s.account(mark)
	s.chapter("Uninstall")
	s.uninstall()
	s.summary()
}

func (s *tale) introduce() {
	s.t.Helper()
	version, err := s.w.api.Discovery().ServerVersion()
	s.must(err)
	s.say("etcd, kube-apiserver and kube-controller-manager %s at 192.0.2.1, with RBAC", version.GitVersion)
	list, err := s.w.api.CoreV1().Nodes().List(s.t.Context(), metav1.ListOptions{})
	s.must(err)
	for _, n := range list.Items {
		s.say("Node %s has %s, its pods %s", n.Name, n.Status.Addresses[1].Address, strings.Join(n.Spec.PodCIDRs, " "))
	}
	s.say("FRR at %s, AS %d; a client behind it at %s", s.w.Router.V4, routerASN, s.w.Client.V4)
}

// install applies deploy/base, with the one thing that a cluster has to say. The
// controllers come last: they reach the API server by its cluster IP, and a
// connection that is begun before there is a proxy hangs until its own timeout.
func (s *tale) install() {
	s.t.Helper()
	all, err := installation()
	s.must(err)
	data := all.find("ConfigMap", "sluice").Object["data"].(map[string]any)
	data["KUBERNETES_SERVICE_HOST"], data["KUBERNETES_SERVICE_PORT"] = "192.0.2.1", "6443"
	controllers := slices.IndexFunc(all, func(o *unstructured.Unstructured) bool { return o.GetKind() == "Deployment" })
	begin := time.Now()
	s.must(s.w.apply(s.t.Context(), all[:controllers]))
	s.say("ConfigMap sluice says where the API server is: 192.0.2.1:6443")
	s.say("kubectl apply -k deploy/base: %d objects, validated strictly; the Deployment waits for the agents", len(all))
	s.agentsReady()
	s.say("DaemonSet sluice-agent: 3 of 3 Pods ready after %s, made by the DaemonSet controller", since(begin))
	first := s.w.kubelet.running(component, "agent")[s.w.Nodes[0].Name]
	c := first.spec.Spec.Containers[0]
	s.say("on %s: sluice %s", first.node.Name, strings.ReplaceAll(strings.Join(c.Args, " "), "$(NODE_NAME)", first.node.Name))
	if has := c.SecurityContext.Capabilities; has != nil {
		s.say("its capabilities are %v; its token is bound to Pod %s", has.Add, first.spec.Name)
	}
	begin = time.Now()
	s.must(s.w.apply(s.t.Context(), all[controllers:]))
	s.await(func() error { return errors.Join(s.deployed(system, "sluice-controller", 2), s.led()) })
	s.say("Deployment sluice-controller: 2 of 2 Pods ready and one leads after %s; they reach the API server by its cluster IP, through the agents", since(begin))
}

// led says whether one of the controllers leads.
func (s *tale) led() error {
	lease, err := s.w.api.CoordinationV1().Leases(system).Get(s.t.Context(), "sluice-controller", metav1.GetOptions{})
	if err == nil && (lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "") {
		err = errors.New("no controller leads")
	}
	return err
}

// agentsReady waits until a DaemonSet's rollout has ended.
func (s *tale) agentsReady() {
	s.t.Helper()
	s.await(func() error {
		d, err := s.w.api.AppsV1().DaemonSets(system).Get(s.t.Context(), "sluice-agent", metav1.GetOptions{})
		if err != nil {
			return err
		}
		is := d.Status
		if is.ObservedGeneration != d.Generation || is.UpdatedNumberScheduled != 3 || is.NumberReady != 3 {
			return fmt.Errorf("DaemonSet sluice-agent: %d Pods are up to date and %d ready, want 3", is.UpdatedNumberScheduled, is.NumberReady)
		}
		return nil
	})
}

// deployed says what a Deployment lacks.
func (s *tale) deployed(namespace, name string, replicas int32) error {
	d, err := s.w.api.AppsV1().Deployments(namespace).Get(s.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	is := d.Status
	if is.ObservedGeneration != d.Generation || is.UpdatedReplicas != replicas || is.AvailableReplicas != replicas || is.Replicas != replicas {
		return fmt.Errorf("Deployment %s: %d of %d Pods are up to date, %d available, want %d", name, is.UpdatedReplicas, is.Replicas, is.AvailableReplicas, replicas)
	}
	return nil
}

// open applies the shop.
func (s *tale) open() {
	s.t.Helper()
	all, err := manifestFile("testdata/shop.yaml")
	s.must(err)
	begin := time.Now()
	s.must(s.w.apply(s.t.Context(), all))
	s.await(func() error { return s.deployed(shop, "web", replicas) })
	s.say("Deployment web: %d of %[1]d Pods ready after %s", replicas, since(begin))
	s.await(func() error { return s.sliced("cluster", "node", "balanced", "headless") })
	slices, err := s.w.api.DiscoveryV1().EndpointSlices(shop).List(s.t.Context(), metav1.ListOptions{})
	s.must(err)
	for _, one := range slices.Items {
		s.say("EndpointSlice %s %s with %d endpoints, by %s", one.Name, one.AddressType, len(one.Endpoints), one.Labels["endpointslice.kubernetes.io/managed-by"])
	}
	s.await(func() error { _, err := s.shell(); return err })
	pod, err := s.shell()
	s.must(err)
	cluster, node1 := s.clusterIP("cluster"), s.w.Nodes[0]
	for _, one := range []struct {
		what string
		from *topo.Host
		to   netip.AddrPort
	}{
		{"Pod shell -> ClusterIP", pod, netip.AddrPortFrom(cluster, 80)},
		{"node2 -> ClusterIP", s.w.Nodes[1], netip.AddrPortFrom(cluster, 80)},
		{"client -> NodePort", s.w.Client, netip.AddrPortFrom(node1.V4, nodePort)},
	} {
		s.await(func() error { return s.everyPod(one.from, one.to, replicas) })
		s.say("%-26s %-22s answered by %d Pods", one.what, one.to, replicas)
	}
	s.unproxied()
	s.show(node1, "sluice", "services", "-n", shop)
	s.show(node1, "sluice", "services", "shop/cluster")
	s.show(node1, "sluice", "ipvs", "-Ln", "-t", netip.AddrPortFrom(cluster, 80).String())
}

// sliced waits until Services have all their endpoints, ready, in slices.
func (s *tale) sliced(services ...string) error {
	for _, name := range services {
		list, err := s.w.api.DiscoveryV1().EndpointSlices(shop).List(s.t.Context(), metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + name})
		if err != nil {
			return err
		}
		ready := 0
		for _, slice := range list.Items {
			for _, e := range slice.Endpoints {
				if *e.Conditions.Ready {
					ready++
				}
			}
		}
		if ready < replicas {
			return fmt.Errorf("Service %s has %d ready endpoints, want %d", name, ready, replicas)
		}
	}
	return nil
}

// shell is the network of the Pod that only asks.
func (s *tale) shell() (*topo.Host, error) {
	pod, err := s.w.api.CoreV1().Pods(shop).Get(s.t.Context(), "shell", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	s.w.kubelet.mu.Lock()
	defer s.w.kubelet.mu.Unlock()
	if p := s.w.kubelet.pods[pod.UID]; p != nil && pod.Status.Phase == corev1.PodRunning {
		return p.network, nil
	}
	return nil, errors.New("Pod shell does not run")
}

func (s *tale) clusterIP(name string) netip.Addr {
	s.t.Helper()
	svc, err := s.w.api.CoreV1().Services(shop).Get(s.t.Context(), name, metav1.GetOptions{})
	s.must(err)
	return netip.MustParseAddr(svc.Spec.ClusterIP)
}

// everyPod asks until so many Pods have answered.
func (s *tale) everyPod(from *topo.Host, to netip.AddrPort, want int) error {
	seen := map[string]bool{}
	for range 3 * want {
		got, err := from.Ask(s.t.Context(), topo.HTTP, to)
		if err != nil {
			return err
		}
		if seen[got.Pod] = true; len(seen) == want {
			return nil
		}
	}
	return fmt.Errorf("%v is answered by %d Pods, want %d", to, len(seen), want)
}

// unproxied checks that nothing is programmed for Services without an address of
// their own.
func (s *tale) unproxied() {
	s.t.Helper()
	for _, n := range s.w.Nodes {
		tables, err := n.Tables()
		s.must(err)
		virtual := 0
		for _, line := range tables["ipvsadm"] {
			if strings.HasPrefix(line, "-A ") {
				virtual++
			}
		}
		was := 0
		for _, line := range s.w.before[n]["ipvsadm"] {
			if strings.HasPrefix(line, "-A ") {
				was++
			}
		}
		// kubernetes; cluster in two families; node and balanced with a cluster IP and a node port each.
		if want := 1 + 2 + 2*2; virtual-was < want {
			s.t.Errorf("%s has %d virtual servers, want at least %d", n.Name, virtual-was, want)
		}
	}
	s.say("headless and elsewhere: EndpointSlices or a name for DNS, and no virtual server")
}

// balance has the router told of an address from a pool.
func (s *tale) balance() {
	s.t.Helper()
	all, err := manifestFile("testdata/routing.yaml")
	s.must(err)
	mark, begin := s.w.routes.Mark(), time.Now()
	s.must(s.w.apply(s.t.Context(), all))
	s.await(func() error { return s.has("balanced", balancer) })
	s.say("sluice-controller gave Service balanced %s after %s", balancer, since(begin))
	at := s.leads(mark, s.w.Nodes...)
	s.say("the router has it by way of all nodes after %.1f s; the sessions have a password, from a Secret", at.Sub(begin).Seconds())
	s.show(s.w.Router, "ip", "route", "show", "proto", "bgp")
	s.show(s.w.Nodes[0], "sluice", "bgp", "peers")
	s.await(func() error { return s.everyPod(s.w.Client, s.balanced(), replicas) })
	s.say("client -> %v answered by %d Pods", s.balanced(), replicas)
}

func (s *tale) balanced() netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(balancer), 80)
}

// leads waits until the router's ways to the load-balancer IP have become these
// nodes, after a mark, and returns when they did.
func (s *tale) leads(mark int, nodes ...*topo.Host) time.Time {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), soon)
	defer cancel()
	var want []netip.Addr
	for _, n := range nodes {
		want = append(want, n.V4)
	}
	c, err := s.w.routes.Await(ctx, mark, netip.PrefixFrom(netip.MustParseAddr(balancer), 32), func(hops []netip.Addr) bool {
		return slices.Equal(hops, want)
	})
	if err != nil {
		states, more := s.w.frr.Sessions()
		told, again := s.w.frr.Routes(false)
		s.show(s.w.Router, "ip", "route", "show", "proto", "bgp")
		for _, n := range nodes {
			s.show(n, "sluice", "bgp", "routes")
		}
		s.must(errors.Join(fmt.Errorf("%w; at the router the sessions are %v, the routes %v", err, states, told), more, again))
	}
	return c.At
}

// load has everybody ask for the shop.
func (s *tale) load() *traffic {
	s.t.Helper()
	pod, err := s.shell()
	s.must(err)
	cluster, node3 := netip.AddrPortFrom(s.clusterIP("cluster"), 80), s.w.Nodes[2]
	return &traffic{s, []named{
		{fmt.Sprintf("Pod shell -> ClusterIP %v", cluster), pod.StartLoad(topo.HTTP, every, cluster)},
		{fmt.Sprintf("node3 -> ClusterIP %v", cluster), node3.StartLoad(topo.HTTP, every, cluster)},
		{fmt.Sprintf("client -> NodePort %v:%d", node3.V4, nodePort), s.w.Client.StartLoad(topo.HTTP, every, netip.AddrPortFrom(node3.V4, nodePort))},
		{fmt.Sprintf("client -> LoadBalancer %v", s.balanced()), s.w.Client.StartLoad(topo.HTTP, every, s.balanced())},
	}}
}

// rollout changes the Deployment's template.
func (s *tale) rollout() {
	s.t.Helper()
	load := s.load()
	begin := time.Now()
	s.patch(shop, "deployments", "web", map[string]any{"spec": map[string]any{"template": map[string]any{
		"metadata": map[string]any{"labels": map[string]any{"version": "v2"}},
		"spec":     map[string]any{"containers": []any{map[string]any{"name": "web", "image": "web:v2"}}},
	}}})
	s.say("kubectl set image deployment/web web=web:v2, with the label version=v2")
	s.await(func() error { return s.deployed(shop, "web", replicas) })
	s.say("%d of %[1]d Pods replaced one by one after %s, by the Deployment and ReplicaSet controllers", replicas, since(begin))
	s.await(s.onlyNew)
	load.end("rollout of a Deployment")
}

// onlyNew waits until the Pods that leave are gone.
func (s *tale) onlyNew() error {
	list, err := s.w.api.CoreV1().Pods(shop).List(s.t.Context(), metav1.ListOptions{LabelSelector: "version=v1"})
	if err == nil && len(list.Items) > 0 {
		err = fmt.Errorf("%d Pods of version v1 are there", len(list.Items))
	}
	return err
}

func (s *tale) patch(namespace, resource, name string, change any) {
	s.t.Helper()
	body, err := json.Marshal(change)
	s.must(err)
	group, version := "", "v1"
	if resource == "deployments" || resource == "daemonsets" {
		group = appsv1.GroupName
	}
	api := s.w.objects.Resource(gvr(group, version, resource))
	kind := types.StrategicMergePatchType
	if namespace == "" {
		_, err = api.Patch(s.t.Context(), name, kind, body, metav1.PatchOptions{})
	} else {
		_, err = api.Namespace(namespace).Patch(s.t.Context(), name, kind, body, metav1.PatchOptions{})
	}
	s.must(err)
}

// police lets only friends ask, and makes shell one.
func (s *tale) police() {
	s.t.Helper()
	all, err := manifestFile("testdata/policy.yaml")
	s.must(err)
	pod, err := s.shell()
	s.must(err)
	to := netip.AddrPortFrom(s.clusterIP("cluster"), 80)
	asks := func(want bool) {
		s.t.Helper()
		s.await(func() error {
			ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
			defer cancel()
			if _, err := pod.Ask(ctx, topo.HTTP, to); (err == nil) != want {
				return fmt.Errorf("shell -> %v: %w, want an answer: %v", to, err, want)
			}
			return nil
		})
	}
	begin := time.Now()
	s.must(s.w.apply(s.t.Context(), all))
	asks(false)
	s.say("only Pods with the label role=friend may ask web, and what comes from 192.168.0.0/16: shell is refused after %s", since(begin))
	s.show(s.w.Nodes[0], "sluice", "policy", "explain", "--from", "shop/shell", "--to", to.String())
	others := &traffic{s, []named{{"client -> LoadBalancer " + s.balanced().String(), s.w.Client.StartLoad(topo.HTTP, every, s.balanced())}}}
	begin = time.Now()
	s.patch(shop, "pods", "shell", map[string]any{"metadata": map[string]any{"labels": map[string]any{"role": "friend"}}})
	asks(true)
	s.say("kubectl label pod shell role=friend: it is answered after %s", since(begin))
	<-time.After(time.Second)
	others.end("NetworkPolicy comes into force")
}
