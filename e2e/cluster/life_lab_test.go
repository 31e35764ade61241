//go:build lab

package cluster

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/e2e/topo"
)

// drain does what `kubectl drain` does, with the routes gone before.
func (s *tale) drain() {
	s.t.Helper()
	node, load := s.w.Nodes[1], s.load()
	others := []*topo.Host{s.w.Nodes[0], s.w.Nodes[2]}
	mark, begin := s.w.routes.Mark(), time.Now()
	s.patch("", "nodes", node.Name, map[string]any{"metadata": map[string]any{"annotations": map[string]any{"sluice.dev/drain": "true"}}})
	gone := s.leads(mark, others...)
	s.say("kubectl annotate node %s sluice.dev/drain=true: the router leads nobody there any more after %.1f s", node.Name, gone.Sub(begin).Seconds())
	begin = time.Now()
	s.patch("", "nodes", node.Name, map[string]any{"spec": map[string]any{"unschedulable": true}})
	waited := s.evict(node)
	s.await(func() error { return s.empty(node) })
	s.await(func() error {
		return errors.Join(s.deployed(shop, "web", replicas), s.deployed(system, "sluice-controller", 2))
	})
	s.say("kubectl drain %s: its Pods have moved after %s; tries that a PodDisruptionBudget held up: %d", node.Name, since(begin), waited)
	mark, begin = s.w.routes.Mark(), time.Now()
	s.patch("", "nodes", node.Name, map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{"sluice.dev/drain": nil}}, "spec": map[string]any{"unschedulable": nil},
	})
	back := s.leads(mark, s.w.Nodes...)
	s.say("kubectl uncordon %s, and the annotation is removed: the router has all nodes again after %.1f s", node.Name, back.Sub(begin).Seconds())
	<-time.After(time.Second)
	load.end("node drained")
}

// toMove are the Pods of a node that a drain moves.
func (s *tale) toMove(node *topo.Host) ([]corev1.Pod, error) {
	list, err := s.w.api.CoreV1().Pods(metav1.NamespaceAll).List(s.t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=" + node.Name})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool {
		by := metav1.GetControllerOf(&p)
		return by == nil || by.Kind == "DaemonSet" // Pod shell is nobody's, and stays
	}), nil
}

// evict asks for all Pods of a node to go, until their disruption budgets let
// them; it returns how often they did not.
func (s *tale) evict(node *topo.Host) (waited int) {
	s.t.Helper()
	pods, err := s.toMove(node)
	s.must(err)
	for _, p := range pods {
		s.await(func() error {
			err := s.w.api.PolicyV1().Evictions(p.Namespace).Evict(s.t.Context(), &policyv1.Eviction{
				ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name},
			})
			if apierrors.IsTooManyRequests(err) {
				waited++
				<-time.After(200 * time.Millisecond)
			}
			return err
		})
	}
	return waited
}

func (s *tale) empty(node *topo.Host) error {
	pods, err := s.toMove(node)
	if err == nil && len(pods) > 0 {
		err = fmt.Errorf("%s has %d Pods to move", node.Name, len(pods))
	}
	return err
}

// upgrade changes the agents' image, and kills one.
func (s *tale) upgrade() {
	s.t.Helper()
	old := s.w.kubelet.running(component, "agent")
	// Of what left in the chapters before, connections that have ended keep
	// destinations for two minutes.
	drain := map[*topo.Host]float64{}
	for _, n := range s.w.Nodes {
		drain[n] = s.draining(n)
	}
	load, mark, begin := s.load(), s.w.routes.Mark(), time.Now()
	s.patch(system, "daemonsets", "sluice-agent", map[string]any{"spec": map[string]any{"template": map[string]any{"metadata": map[string]any{
		"labels": map[string]any{"version": "next"},
	}}}})
	s.agentsReady()
	s.say("the DaemonSet's template has changed: 3 of 3 agents replaced one after the other after %s", since(begin))
	for _, n := range s.w.Nodes {
		now := s.w.kubelet.running(component, "agent")[n.Name]
		if now.spec.UID == old[n.Name].spec.UID {
			s.t.Errorf("the agent on %s has not been replaced", n.Name)
		}
		s.say("%s: the new agent adopted what it found and wrote: %s", n.Name, s.writes(n, drain[n]))
	}
	agent := s.w.kubelet.running(component, "agent")[s.w.Nodes[0].Name]
	begin = time.Now()
	s.must(agent.kill())
	s.await(func() error { return s.restarted(agent.spec.Name) })
	s.say("the agent on node1 is killed (kill -9); its container is ready again after %s and wrote: %s", since(begin), s.writes(s.w.Nodes[0], drain[s.w.Nodes[0]]))
	<-time.After(time.Second)
	load.end("agents upgraded, one killed")
	changes, err := s.w.routes.Since(mark)
	s.must(err)
	for _, c := range changes {
		s.t.Errorf("the router changed a route: %v", c)
	}
	s.say("the router kept every route: %d changes", len(changes))
}

// restarted says whether a Pod's container was started again and is ready.
func (s *tale) restarted(name string) error {
	pod, err := s.w.api.CoreV1().Pods(system).Get(s.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, c := range pod.Status.ContainerStatuses {
		if c.RestartCount == 1 && c.Ready {
			return nil
		}
	}
	return fmt.Errorf("Pod %s: %+v", name, pod.Status.ContainerStatuses)
}

// writes is what an agent has written to the kernel's tables since it started.
// It may only delete what drains, and so many keys did before it started.
func (s *tale) writes(n *topo.Host, drained float64) string {
	s.t.Helper()
	var parts []string
	for _, table := range tables {
		put := s.metric(n, fmt.Sprintf(`sluice_table_writes_total{op="put",table=%q}`, table))
		deleted := s.metric(n, fmt.Sprintf(`sluice_table_writes_total{op="delete",table=%q}`, table))
		if put > 0 || deleted > drained {
			s.t.Errorf("%s: the new agent put %v keys in table %s, and deleted %v, of which %v were to go", n.Name, put, table, deleted, drained)
		}
		part := fmt.Sprintf("%s %v", table, put)
		if deleted > 0 {
			part += fmt.Sprintf(" (%v keys that had drained went)", deleted)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

// tables are the kernel's that agents write.
var tables = []string{"netfilter", "ipvs", "vip"}

// draining is how many keys an agent has that are not wanted any more and still
// used. When such a destination goes, a member of a set may go with it.
func (s *tale) draining(n *topo.Host) (keys float64) {
	s.t.Helper()
	for _, table := range tables {
		keys += s.metric(n, fmt.Sprintf("sluice_table_deferred_keys{table=%q}", table))
	}
	return keys
}

// metric is the value of one series of an agent.
func (s *tale) metric(n *topo.Host, series string) float64 {
	s.t.Helper()
	text, err := s.page(n, "http://127.0.0.1:10249/metrics")
	s.must(err)
	for line := range strings.Lines(text) {
		if value, is := strings.CutPrefix(strings.TrimSpace(line), series+" "); is {
			v, err := strconv.ParseFloat(value, 64)
			s.must(err)
			return v
		}
	}
	s.must(fmt.Errorf("%s shows no %s", n.Name, series))
	return 0
}

func (s *tale) page(n *topo.Host, url string) (string, error) {
	resp, err := n.HTTPClient().Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var b strings.Builder
	_, err = io.Copy(&b, resp.Body)
	return b.String(), err
}

// uninstall removes sluice while the shop is open, and then the shop.
func (s *tale) uninstall() {
	s.t.Helper()
	mark := s.w.routes.Mark()
	all, err := installation()
	s.must(err)
	routing, err := manifestFile("testdata/routing.yaml")
	s.must(err)
	// First what is told, while there are sessions to withdraw it: a router keeps
	// for its time what it has of a session that is just gone.
	s.must(s.w.remove(s.t.Context(), manifests{routing.find("BGPAdvertisement", "public")}))
	s.leads(mark)
	s.say("kubectl delete bgpadvertisement public: the router has no route to the shop")
	s.must(s.w.remove(s.t.Context(), routing))
	cleaners := s.cleaners()
	s.must(s.w.remove(s.t.Context(), manifests{all.find("DaemonSet", "sluice-agent")}))
	s.say("kubectl -n kube-system delete daemonset sluice-agent --cascade=foreground: the agents have ended")
	s.must(s.w.apply(s.t.Context(), cleaners))
	for _, o := range cleaners {
		s.await(func() error { return s.succeeded(o.GetName()) })
	}
	s.say("kubectl apply -f cleanup.yaml, made by deploy/cleanup/pods.gotemplate of the agents' Pods: sluice cleanup has run on every node")
	s.must(s.w.remove(s.t.Context(), cleaners))
	s.must(s.w.remove(s.t.Context(), all))
	s.must(s.w.api.CoordinationV1().Leases(system).Delete(s.t.Context(), "sluice-controller", metav1.DeleteOptions{}))
	s.say("kubectl delete -f cleanup.yaml, kubectl delete -k deploy/base: all %d objects are gone; the controllers' Lease is deleted too", len(all))
	s.closeShop()
	for _, n := range s.w.Nodes {
		s.await(func() error { return s.w.before[n].Same(n) })
		s.say("%s: virtual servers, rules, sets, addresses and local routes are what they were before sluice came", n.Name)
	}
	s.w.kubelet.mu.Lock()
	for _, one := range s.w.kubelet.troubles {
		s.t.Error(one)
	}
	s.w.kubelet.mu.Unlock()
	left, err := s.residue()
	s.must(err)
	for _, one := range left {
		s.t.Errorf("left at the API server: %s", one)
	}
	s.say("objects of sluice at the API server: %d", len(left))
}

func (s *tale) closeShop() {
	s.t.Helper()
	s.must(s.w.api.CoreV1().Namespaces().Delete(s.t.Context(), shop, metav1.DeleteOptions{}))
	s.await(func() error {
		_, err := s.w.api.CoreV1().Namespaces().Get(s.t.Context(), shop, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, errors.New("namespace shop is still there"))
	})
}

// cleaners are the Pods that remove from each node what its agent made, as
// kubectl makes them of the agents' Pods.
func (s *tale) cleaners() manifests {
	s.t.Helper()
	agents, err := s.w.objects.Resource(gvr("", "v1", "pods")).Namespace(system).List(s.t.Context(), metav1.ListOptions{
		LabelSelector: component + "=agent",
	})
	s.must(err)
	made, err := template.ParseFiles("../../deploy/cleanup/pods.gotemplate")
	s.must(err)
	var text strings.Builder
	s.must(made.Execute(&text, agents.UnstructuredContent()))
	pods, err := parse(text.String())
	s.must(err)
	if len(pods) != len(s.w.Nodes) {
		s.t.Fatalf("%d Pods clean up, want one on each node:\n%s", len(pods), text.String())
	}
	return pods
}

func (s *tale) succeeded(name string) error {
	pod, err := s.w.api.CoreV1().Pods(system).Get(s.t.Context(), name, metav1.GetOptions{})
	if err == nil && pod.Status.Phase != corev1.PodSucceeded {
		err = fmt.Errorf("Pod %s is %s", name, pod.Status.Phase)
	}
	return err
}

// residue are the objects of all kinds that have sluice in their name.
func (s *tale) residue() (left []string, err error) {
	kinds, err := s.w.api.Discovery().ServerPreferredResources()
	if err != nil {
		return nil, err
	}
	for _, group := range kinds {
		name, version, both := strings.Cut(group.GroupVersion, "/")
		if !both {
			name, version = "", name
		}
		for _, kind := range group.APIResources {
			if !slices.Contains(kind.Verbs, "list") || kind.Kind == "Event" {
				continue
			}
			list, err := s.w.objects.Resource(gvr(name, version, kind.Name)).List(s.t.Context(), metav1.ListOptions{})
			if err != nil {
				return nil, err
			}
			for _, o := range list.Items {
				if strings.Contains(o.GetName(), "sluice") {
					left = append(left, fmt.Sprintf("%s %s/%s", kind.Kind, o.GetNamespace(), o.GetName()))
				}
			}
		}
	}
	return left, nil
}

// restarts counts how often containers had to be started again.
func (s *tale) restarts() (n int32, err error) {
	list, err := s.w.api.CoreV1().Pods(metav1.NamespaceAll).List(s.t.Context(), metav1.ListOptions{})
	if err != nil {
		return 0, err
	}
	for _, p := range list.Items {
		for _, c := range p.Status.ContainerStatuses {
			n += c.RestartCount
		}
	}
	return n, nil
}

// account says what the users of sluice asked for since a place in the API
// server's audit log. Nothing may have been refused.
func (s *tale) account(mark int64) {
	s.t.Helper()
	made, refused, err := s.w.audit.since(mark)
	s.must(err)
	for _, user := range []string{agentUser, controllerUser} {
		all, kinds := 0, 0
		for r, n := range made {
			if r.user == user {
				all += n
				kinds++
			}
		}
		s.say("%s: %d requests of %d kinds", user, all, kinds)
		if all == 0 {
			s.t.Errorf("%s has asked for nothing: is the API server's audit log on?", user)
		}
	}
	for _, one := range refused {
		s.t.Errorf("the API server refused %s", one)
	}
	s.say("refused: %d", len(refused))
	restarts, err := s.restarts()
	s.must(err)
	s.say("containers that were started again: %d, the agent that was killed", restarts)
	if restarts != 1 {
		s.t.Errorf("%d containers were started again, want 1", restarts)
	}
}
