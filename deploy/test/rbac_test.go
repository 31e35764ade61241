package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// needs are what the agent and the controller ask an API server for, by role:
// "verb resource.group[/name]". Who adds a request to the program adds it here
// and to the roles. That the program gets on with this is shown with a real API
// server, in e2e/cluster.
func needs() map[string][]string {
	const ours = ".sluice.dev"
	return map[string][]string{
		"ClusterRole /sluice-agent": {
			// internal/source/kube: what Proxy, Policing and Routing read
			"list services", "watch services", "list nodes", "watch nodes",
			"list endpointslices.discovery.k8s.io", "watch endpointslices.discovery.k8s.io",
			"list namespaces", "watch namespaces", "list pods", "watch pods",
			"list networkpolicies.networking.k8s.io", "watch networkpolicies.networking.k8s.io",
			"list addresspools" + ours, "watch addresspools" + ours,
			"list bgppeers" + ours, "watch bgppeers" + ours,
			"list bgpadvertisements" + ours, "watch bgpadvertisements" + ours,
			// cmd/sluice: peerReporter
			"get bgppeers" + ours, "patch bgppeers/status" + ours,
			// internal/source/kube: Recorder
			"create events", "patch events",
		},
		"Role sluice-secrets/sluice-agent": {"list secrets", "watch secrets"},
		"ClusterRole /sluice-controller": {
			// internal/source/kube: what Allocation, Nodes and BGPPeers read
			"list services", "watch services", "list namespaces", "watch namespaces", "list nodes", "watch nodes",
			"list addresspools" + ours, "watch addresspools" + ours, "list bgppeers" + ours, "watch bgppeers" + ours,
			// internal/ipam: cluster
			"get services", "update services/status", "get addresspools" + ours, "update addresspools/status" + ours,
			"list addressclaims" + ours, "get addressclaims" + ours, "create addressclaims" + ours,
			"update addressclaims" + ours, "delete addressclaims" + ours,
			// cmd/sluice: peerConditions
			"patch bgppeers/status" + ours,
			// internal/source/kube: Recorder
			"create events", "patch events",
		},
		"Role kube-system/sluice-controller": { // internal/ipam: Elect
			"create leases.coordination.k8s.io",
			"get leases.coordination.k8s.io/sluice-controller", "update leases.coordination.k8s.io/sluice-controller",
		},
	}
}

// TestRoles: every role has what is needed and nothing to spare.
func TestRoles(t *testing.T) {
	for _, name := range []string{"base", "kubeadm", "chart"} {
		t.Run(name, func(t *testing.T) {
			all := typed(t, variants()[name](t))
			for key, o := range all {
				rules, is := rulesOf(o)
				if !is {
					continue
				}
				got, want := spelled(rules), slices.Sorted(slices.Values(needs()[key]))
				if !slices.Equal(got, want) {
					t.Errorf("%s:\ntoo much: %q\nlacking: %q", key, minus(got, want), minus(want, got))
				}
			}
			for key := range needs() {
				if _, there := all[key]; !there {
					t.Errorf("there is no %s", key)
				}
			}
		})
	}
}

func rulesOf(o runtime.Object) ([]rbacv1.PolicyRule, bool) {
	switch o := o.(type) {
	case *rbacv1.ClusterRole:
		return o.Rules, true
	case *rbacv1.Role:
		return o.Rules, true
	}
	return nil, false
}

// spelled are rules as needs has them, in order.
func spelled(rules []rbacv1.PolicyRule) (list []string) {
	for _, r := range rules {
		names := r.ResourceNames
		if len(names) == 0 {
			names = []string{""}
		}
		for _, group := range r.APIGroups {
			for _, resource := range r.Resources {
				for _, verb := range r.Verbs {
					for _, name := range names {
						list = append(list, strings.TrimRight(fmt.Sprintf("%s %s.%s/%s", verb, resource, group, name), "./"))
					}
				}
			}
		}
	}
	slices.Sort(list)
	return list
}

func minus(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

// TestBindings: every role is bound, to the one account that it is for.
func TestBindings(t *testing.T) {
	for _, name := range []string{"base", "kubeadm", "chart", "chart, agents only"} {
		t.Run(name, func(t *testing.T) {
			all := typed(t, variants()[name](t))
			bound := map[string]bool{}
			for key, o := range all {
				var ref rbacv1.RoleRef
				var subjects []rbacv1.Subject
				role := ""
				switch o := o.(type) {
				case *rbacv1.ClusterRoleBinding:
					ref, subjects, role = o.RoleRef, o.Subjects, "ClusterRole /"+o.RoleRef.Name
				case *rbacv1.RoleBinding:
					ref, subjects, role = o.RoleRef, o.Subjects, "Role "+o.Namespace+"/"+o.RoleRef.Name
				default:
					continue
				}
				bound[role] = true
				if _, there := all[role]; !there || ref.APIGroup != rbacv1.GroupName {
					t.Errorf("%s binds %+v, which is not there", key, ref)
				}
				if len(subjects) != 1 || subjects[0].Kind != "ServiceAccount" || subjects[0].Name != ref.Name {
					t.Errorf("%s: for %+v", key, subjects)
					continue
				}
				if account := "ServiceAccount " + subjects[0].Namespace + "/" + subjects[0].Name; all[account] == nil {
					t.Errorf("%s: there is no %s", key, account)
				}
			}
			for key, o := range all {
				if _, is := rulesOf(o); is && !bound[key] {
					t.Errorf("nobody has the %s", key)
				}
			}
		})
	}
}
