//go:build lab

package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// TestRBAC: agents and controllers run with tokens bound to their Pods and the
// roles of deploy/base. They are refused nothing that they ask for; each single
// permission is one that they use; what the roles do not say is refused.
func TestRBAC(t *testing.T) {
	s := tell(t)
	s.out = io.Discard // TestStory tells it
	mark, err := s.w.audit.end()
	s.must(err)
	// An API server that cannot stream lists has them asked for.
	s.w.kubelet.setEnv("KUBE_FEATURE_WatchListClient", "false")
	defer s.w.kubelet.setEnv("KUBE_FEATURE_WatchListClient", "")
	s.install()
	s.open()
	s.balance()
	roles := s.roles()
	s.stir(mark)
	t.Run("refused", func(t *testing.T) { s.with(t).refusals() })
	t.Run("nothing to spare", func(t *testing.T) { s.with(t).nothingToSpare(roles, mark) })
	t.Run("nothing is refused", func(t *testing.T) { s.with(t).nothingRefused(mark) })
	t.Run("each rule is needed", func(t *testing.T) { s.with(t).everyRule(roles, mark) })
	t.Run("an agent without EndpointSlices", func(t *testing.T) { s.with(t).withoutSlices() })
	t.Run("a controller that may not write a status", func(t *testing.T) { s.with(t).withoutStatus() })
	t.Run("a token ends with its Pod", func(t *testing.T) { s.with(t).tokenEnds() })
	s.uninstall()
}

// with is the same tale for a part of the test.
func (s *tale) with(t *testing.T) *tale {
	t.Helper()
	part := *s
	part.t = t
	return &part
}

// role is a Role or ClusterRole of the installation, bound to one user.
type role struct {
	object *unstructured.Unstructured
	user   string
	rules  []rbacv1.PolicyRule
}

func (r role) String() string {
	return fmt.Sprintf("%s %s", r.object.GetKind(), r.object.GetName())
}

// roles are those that the installation binds to its users.
func (s *tale) roles() (list []role) {
	s.t.Helper()
	all, err := installation()
	s.must(err)
	for _, o := range all {
		if k := o.GetKind(); k != "ClusterRoleBinding" && k != "RoleBinding" {
			continue
		}
		var b rbacv1.RoleBinding // the other one has the same fields
		s.must(runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &b))
		bound := all.find(b.RoleRef.Kind, b.RoleRef.Name)
		if bound == nil || len(b.Subjects) != 1 {
			s.t.Fatalf("%s %s: want one subject, and a role of the installation", o.GetKind(), o.GetName())
		}
		var r rbacv1.Role
		s.must(runtime.DefaultUnstructuredConverter.FromUnstructured(bound.Object, &r))
		subject := b.Subjects[0]
		list = append(list, role{bound, "system:serviceaccount:" + subject.Namespace + ":" + subject.Name, r.Rules})
	}
	return list
}

// permission is one thing that a rule allows.
type permission struct {
	request
	rule int
	of   role
}

func (r role) permissions() (list []permission) {
	for i, rule := range r.rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					names := rule.ResourceNames
					if len(names) == 0 {
						names = []string{""}
					}
					for _, name := range names {
						list = append(list, permission{request{r.user, verb, group, resource, r.object.GetNamespace(), name}, i, r})
					}
				}
			}
		}
	}
	return list
}

// allows reports whether a permission is for a request.
func (p permission) allows(r request) bool {
	return p.user == r.user && p.verb == r.verb && p.group == r.group && p.resource == r.resource &&
		(p.namespace == "" || p.namespace == r.namespace) && (p.name == "" || p.name == r.name)
}

// stir has happen what happens seldom: a router is not there, an object has many
// faults, a Service leaves its address to another one. mark is where the audit
// log of all this begins.
func (s *tale) stir(mark int64) {
	s.t.Helper()
	all, err := parse(`
apiVersion: sluice.dev/v1alpha1
kind: BGPPeer
metadata: {name: absent}
spec: {peerAddress: 192.168.10.99, peerASN: 64513, myASN: 64512, holdTime: 3s, connectRetryTime: 1s}
---
apiVersion: v1
kind: Service
metadata: {name: sharing, namespace: shop, annotations: {sluice.dev/allow-shared-ip: key, sluice.dev/load-balancer-ips: 203.0.113.90}}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 81}]}
---
apiVersion: v1
kind: Service
metadata: {name: shared, namespace: shop, annotations: {sluice.dev/allow-shared-ip: key, sluice.dev/load-balancer-ips: 203.0.113.90}}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 82}]}
`)
	s.must(err)
	s.must(s.w.apply(s.t.Context(), all))
	s.await(func() error { return errors.Join(s.has("sharing", "203.0.113.90"), s.has("shared", "203.0.113.90")) })
	// Many Events of one reason about one object become one that is counted up:
	// of a dozen, unless who is busy takes several changes for one.
	for n := 0; n < 12 || n < 100 && !s.counted(mark); n++ {
		s.patch(shop, "services", "cluster", map[string]any{"metadata": map[string]any{"annotations": map[string]any{"sluice.dev/scheduler": fmt.Sprintf("nonsense-%d", n)}}})
		s.patch(shop, "services", "sharing", map[string]any{"metadata": map[string]any{"annotations": map[string]any{"sluice.dev/load-balancer-ips": fmt.Sprintf("192.0.2.%d", 100+n)}}})
		<-time.After(100 * time.Millisecond) // or several changes are one
	}
	s.must(s.w.remove(s.t.Context(), all[1:]))
}

// counted reports whether both have counted an Event up.
func (s *tale) counted(mark int64) bool {
	s.t.Helper()
	made, _, err := s.w.audit.since(mark)
	s.must(err)
	by := map[string]bool{}
	for r := range made {
		if r.verb == "patch" && r.resource == "events" {
			by[r.user] = true
		}
	}
	return by[agentUser] && by[controllerUser]
}

// has says whether a Service has a load-balancer address.
func (s *tale) has(name, addr string) error {
	svc, err := s.w.api.CoreV1().Services(shop).Get(s.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if in := svc.Status.LoadBalancer.Ingress; len(in) != 1 || in[0].IP != addr {
		return fmt.Errorf("Service %s has %v, want %s", name, in, addr)
	}
	return nil
}

// nothingToSpare waits until every permission has been used, and prints how
// often. The last ones are those of what is said only half a minute after a
// start.
func (s *tale) nothingToSpare(roles []role, mark int64) {
	var used []string
	err := eventually(s.t.Context(), time.Minute, func() error {
		made, _, err := s.w.audit.since(mark)
		if err != nil {
			return err
		}
		var spare []string
		used = nil
		for _, r := range roles {
			for _, p := range r.permissions() {
				n := 0
				for one, times := range made {
					if p.allows(one) {
						n += times
					}
				}
				used = append(used, fmt.Sprintf("%-46s %-52s %4d", r, p, n))
				if n == 0 {
					spare = append(spare, fmt.Sprintf("%s: %s", r, p))
				}
			}
		}
		if len(spare) > 0 {
			return fmt.Errorf("never used:\n  %s", strings.Join(spare, "\n  "))
		}
		return nil
	})
	s.t.Logf("requests by permission:\n%s", strings.Join(used, "\n"))
	if err != nil {
		s.t.Error(err)
	}
}

func (s *tale) nothingRefused(mark int64) {
	_, refused, err := s.w.audit.since(mark)
	s.must(err)
	for _, one := range refused {
		s.t.Error(one)
	}
}

// everyRule takes away one rule after the other: of the requests that were made,
// those that it is for are refused then, and no others are.
func (s *tale) everyRule(roles []role, mark int64) {
	made, _, err := s.w.audit.since(mark)
	s.must(err)
	for _, r := range roles {
		for i := range r.rules {
			var needs, others []request
			for one := range made {
				allowed := slices.ContainsFunc(r.permissions(), func(p permission) bool { return p.rule == i && p.allows(one) })
				switch {
				case allowed:
					needs = append(needs, one)
				case one.user == r.user && one.resource != "":
					others = append(others, one)
				}
			}
			restore := s.without(r, i)
			s.await(func() error { return s.allowed(needs, false) })
			if err := s.allowed(others, true); err != nil {
				s.t.Errorf("%s without rule %d: %v", r, i+1, err)
			}
			restore()
			s.await(func() error { return s.allowed(needs, true) })
			s.t.Logf("%s without rule %d: %d kinds of requests refused, %d not", r, i+1, len(needs), len(others))
		}
	}
}

// without takes a rule away until the returned function is called.
func (s *tale) without(r role, rule int) (restore func()) {
	s.t.Helper()
	o := r.object.DeepCopy()
	rules := o.Object["rules"].([]any)
	o.Object["rules"] = slices.Delete(slices.Clone(rules), rule, rule+1)
	s.must(s.w.apply(s.t.Context(), manifests{o}))
	return func() { s.must(s.w.apply(s.t.Context(), manifests{r.object})) }
}

// allowed asks the API server whether it would take requests.
func (s *tale) allowed(requests []request, want bool) error {
	for _, r := range requests {
		resource, subresource, _ := strings.Cut(r.resource, "/")
		review, err := s.w.api.AuthorizationV1().SubjectAccessReviews().Create(s.t.Context(), &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{User: r.user, ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: r.verb, Group: r.group, Resource: resource, Subresource: subresource, Namespace: r.namespace, Name: r.name,
			}},
		}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		if review.Status.Allowed != want {
			return fmt.Errorf("%s by %s: allowed is %v, want %v", r, r.user, review.Status.Allowed, want)
		}
	}
	return nil
}

// nobodys is the name of the objects that are asked for.
const nobodys = "not-yours"

// refusals asks as each user for what is none of its business.
func (s *tale) refusals() {
	agents, controllers := s.as(agentUser), s.as(controllerUser)
	for _, c := range []struct {
		api   dynamic.Interface
		who   string
		verbs string
		kinds string // group/version/resource, or version/resource, with a namespace behind a space
	}{
		{agents, "agent", "create update patch delete get", "v1/services default, v1/endpoints default, discovery.k8s.io/v1/endpointslices default"},
		{agents, "agent", "update patch", "v1/services/status default, v1/nodes, v1/nodes/status, v1/pods/status default, sluice.dev/v1alpha1/addresspools/status"},
		{agents, "agent", "create update patch delete get", "v1/pods default, v1/pods kube-system, v1/nodes, v1/namespaces"},
		{agents, "agent", "list get watch create update patch delete", "v1/secrets, v1/secrets kube-system, v1/secrets default, v1/configmaps kube-system, v1/serviceaccounts kube-system"},
		{agents, "agent", "get create update patch delete", "v1/secrets sluice-secrets"},
		{agents, "agent", "create update patch delete", "networking.k8s.io/v1/networkpolicies default, sluice.dev/v1alpha1/addresspools, sluice.dev/v1alpha1/bgppeers, sluice.dev/v1alpha1/bgpadvertisements"},
		{agents, "agent", "list get create update patch delete", "sluice.dev/v1alpha1/addressclaims, coordination.k8s.io/v1/leases kube-system, apps/v1/daemonsets kube-system"},
		{agents, "agent", "get list delete update", "v1/events default"},
		{agents, "agent", "create update patch delete list get", "rbac.authorization.k8s.io/v1/clusterroles, rbac.authorization.k8s.io/v1/clusterrolebindings, rbac.authorization.k8s.io/v1/rolebindings kube-system"},
		{controllers, "controller", "create update patch delete", "v1/services default, v1/nodes, v1/namespaces, sluice.dev/v1alpha1/addresspools, sluice.dev/v1alpha1/bgppeers, sluice.dev/v1alpha1/bgpadvertisements"},
		{controllers, "controller", "patch", "v1/services/status default, v1/nodes/status, sluice.dev/v1alpha1/addresspools/status"},
		{controllers, "controller", "list get watch create update patch delete", "v1/pods, v1/pods kube-system, v1/secrets, v1/secrets kube-system, v1/secrets sluice-secrets, v1/configmaps kube-system"},
		{controllers, "controller", "list get watch create update delete", "discovery.k8s.io/v1/endpointslices default, networking.k8s.io/v1/networkpolicies default, apps/v1/daemonsets kube-system"},
		{controllers, "controller", "get update delete", "coordination.k8s.io/v1/leases kube-system, coordination.k8s.io/v1/leases kube-node-lease"},
		{controllers, "controller", "create", "coordination.k8s.io/v1/leases default, coordination.k8s.io/v1/leases kube-node-lease"},
		{controllers, "controller", "create update patch delete list get", "rbac.authorization.k8s.io/v1/clusterroles, rbac.authorization.k8s.io/v1/clusterrolebindings, rbac.authorization.k8s.io/v1/rolebindings kube-system"},
	} {
		count := 0
		for kind := range strings.SplitSeq(c.kinds, ", ") {
			for verb := range strings.FieldsSeq(c.verbs) {
				count++
				if err := s.ask(c.api, verb, kind); !apierrors.IsForbidden(err) {
					s.t.Errorf("%s: %s %s: %v, want it to be forbidden", c.who, verb, kind, err)
				}
			}
		}
		s.t.Logf("%-10s %3d refused: %s %s", c.who, count, c.verbs, c.kinds)
	}
}

// as is a client with a token of a ServiceAccount.
func (s *tale) as(user string) dynamic.Interface {
	s.t.Helper()
	name := user[strings.LastIndex(user, ":")+1:]
	made, err := s.w.api.CoreV1().ServiceAccounts(system).CreateToken(s.t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	s.must(err)
	return s.bearing(made.Status.Token)
}

func (s *tale) bearing(token string) dynamic.Interface {
	s.t.Helper()
	config := rest.AnonymousClientConfig(s.w.config)
	config.BearerToken, config.QPS, config.UserAgent = token, -1, tester
	api, err := dynamic.NewForConfig(config)
	s.must(err)
	return api
}

// ask makes a request that changes nothing if it is not refused.
func (s *tale) ask(api dynamic.Interface, verb, kind string) error {
	path, namespace, _ := strings.Cut(kind, " ")
	parts := strings.Split(path, "/")
	group := ""
	if parts[0] != "v1" {
		group, parts = parts[0], parts[1:]
	}
	var r dynamic.ResourceInterface = api.Resource(gvr(group, parts[0], parts[1]))
	if namespace != "" {
		r = api.Resource(gvr(group, parts[0], parts[1])).Namespace(namespace)
	}
	sub, dry, ctx := parts[2:], []string{metav1.DryRunAll}, s.t.Context()
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": strings.TrimPrefix(group+"/"+parts[0], "/"), "kind": "Any",
		"metadata": map[string]any{"name": nobodys, "namespace": namespace},
	}}
	var err error
	switch verb {
	case "create":
		_, err = r.Create(ctx, o, metav1.CreateOptions{DryRun: dry}, sub...)
	case "update":
		_, err = r.Update(ctx, o, metav1.UpdateOptions{DryRun: dry}, sub...)
	case "patch":
		_, err = r.Patch(ctx, nobodys, "application/merge-patch+json", []byte("{}"), metav1.PatchOptions{DryRun: dry}, sub...)
	case "delete":
		err = r.Delete(ctx, nobodys, metav1.DeleteOptions{DryRun: dry}, sub...)
	case "get":
		_, err = r.Get(ctx, nobodys, metav1.GetOptions{}, sub...)
	case "list":
		_, err = r.List(ctx, metav1.ListOptions{})
	case "watch":
		watch, failed := r.Watch(ctx, metav1.ListOptions{})
		if err = failed; err == nil {
			watch.Stop()
		}
	}
	return err
}

// rule is the one of a ClusterRole that names a resource.
func (s *tale) rule(name, resource string) (role, int) {
	s.t.Helper()
	for _, r := range s.roles() {
		for i, rule := range r.rules {
			if r.object.GetKind() == "ClusterRole" && r.object.GetName() == name && slices.Contains(rule.Resources, resource) {
				return r, i
			}
		}
	}
	s.t.Fatalf("ClusterRole %s has no rule for %s", name, resource)
	return role{}, 0
}

// withoutSlices: an agent that may not read EndpointSlices is not ready, says
// why, and is once it may.
func (s *tale) withoutSlices() {
	node := s.w.Nodes[2]
	was := s.w.kubelet.running(component, "agent")[node.Name]
	r, i := s.rule("sluice-agent", "endpointslices")
	restore := s.without(r, i)
	s.must(was.kill())
	refused := func() error {
		text, err := s.log(was)
		for line := range strings.Lines(text) {
			if strings.Contains(line, "endpointslices") && strings.Contains(line, "forbidden") {
				s.t.Logf("the agent says: %s", strings.TrimSpace(line))
				return nil
			}
		}
		return cmp.Or(err, errors.New("the agent does not say that EndpointSlices are forbidden"))
	}
	s.await(refused)
	if err := s.restarted(was.spec.Name); err == nil {
		s.t.Error("the agent is ready, and knows no EndpointSlice")
	}
	restore()
	s.await(func() error { return s.restarted(was.spec.Name) })
}

// withoutStatus: a controller that may not write Services' status gives no
// address, and does once it may.
func (s *tale) withoutStatus() {
	r, i := s.rule("sluice-controller", "services/status")
	restore := s.without(r, i)
	review := request{controllerUser, "update", "", "services/status", shop, "late"}
	s.await(func() error { return s.allowed([]request{review}, false) })
	mark, err := s.w.audit.end()
	s.must(err)
	late, err := parse(`
apiVersion: v1
kind: Service
metadata: {name: late, namespace: shop}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]}
`)
	s.must(err)
	s.must(s.w.apply(s.t.Context(), late))
	s.await(func() error {
		_, refused, err := s.w.audit.since(mark)
		if !slices.ContainsFunc(refused, func(line string) bool { return strings.Contains(line, "update services/status in shop late") }) {
			return cmp.Or(err, fmt.Errorf("the controller's write was not refused; refused: %q", refused))
		}
		return nil
	})
	if s.has("late", "203.0.113.81") == nil {
		s.t.Error("Service late has an address")
	}
	restore()
	s.await(func() error { return s.has("late", "203.0.113.81") })
	s.must(s.w.remove(s.t.Context(), late))
}

// log is what a Pod's containers have said.
func (s *tale) log(p *pod) (string, error) { return readAll(p.log.Name()) }

// tokenEnds: the token of an agent's Pod is worth nothing when the Pod is gone.
func (s *tale) tokenEnds() {
	was := s.w.kubelet.running(component, "agent")[s.w.Nodes[2].Name]
	token, err := s.w.kubelet.tokenOf(was)
	s.must(err)
	services := s.bearing(token).Resource(gvr("", "v1", "services"))
	list := func() error {
		_, err := services.List(context.WithoutCancel(s.t.Context()), metav1.ListOptions{Limit: 1})
		return err
	}
	if err := list(); err != nil {
		s.t.Errorf("the Pod's token: %v", err)
	}
	s.must(s.w.api.CoreV1().Pods(system).Delete(s.t.Context(), was.spec.Name, metav1.DeleteOptions{}))
	s.await(func() error {
		if err := list(); !apierrors.IsUnauthorized(err) {
			return errors.Join(errors.New("the token of a Pod that is gone is taken"), err)
		}
		return nil
	})
	s.agentsReady()
}
