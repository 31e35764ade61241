package policy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// Warning is something in a NetworkPolicy that most likely is not meant.
type Warning struct {
	Object  model.Name
	Rule    string // the place in it, such as "spec.ingress[0].from[1]"; "": all of it
	Code    string // what kind of mistake, for whoever filters
	Message string
	Remedy  string
}

// String is the warning on one line.
func (w Warning) String() string {
	at := w.Object.String()
	if w.Rule != "" {
		at += " " + w.Rule
	}
	if w.Remedy == "" {
		return fmt.Sprintf("%s: %s [%s]", at, w.Message, w.Code)
	}
	return fmt.Sprintf("%s: %s; %s [%s]", at, w.Message, w.Remedy, w.Code)
}

// warningJSON is a Warning as it is written.
type warningJSON struct {
	Object  string `json:"object"`
	Rule    string `json:"rule,omitempty"`
	Code    string `json:"code"`
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`
}

// MarshalJSON writes the object as "namespace/name".
func (w Warning) MarshalJSON() ([]byte, error) {
	return json.Marshal(warningJSON{w.Object.String(), w.Rule, w.Code, w.Message, w.Remedy})
}

// The codes of warnings. Those of what a source could not read are its reasons.
const (
	UnknownField      = "UnknownField"         // a field that is dropped, or stands in the wrong place
	TwoPeers          = "TwoPeers"             // a dash makes an OR of an AND
	NoDNS             = "NoDNS"                // egress is isolated, and names cannot be resolved
	NamedPort         = "NamedPort"            // a name that pods do not serve
	ServicePort       = "ServicePort"          // a Service's port where the pod's counts
	SelectsNothing    = "SelectsNothing"       // of a policy
	PeerMeansNobody   = "PeerMeansNobody"      // of a peer's selectors
	BlockOfVIPs       = "BlockOfVIPs"          // an ipBlock that never matches there
	BlockOfPods       = "BlockOfPods"          // an ipBlock that means pods
	BlockBehindNodes  = "BlockBehindNodes"     // an ipBlock of clients that nodes hide
	RulesWithoutType  = "RulesWithoutType"     // rules of a direction that is not isolated
	IngressDeniedToo  = "IngressDeniedToo"     // by a policy that is of egress only
	SelectsHostPods   = "SelectsHostNetwork"   // pods that policies cannot mean
	PeerMeansHostPods = "PeerMeansHostNetwork" // the same of a peer
	ExceptWithoutUse  = "ExceptWithoutUse"     // what is excepted is allowed all the same
)

// Lint looks for the classic mistakes in all policies. problems are what the
// sources could not read: those of NetworkPolicies are told too, with a remedy
// where it is known what was meant. The order is by policy, then by place.
//
// What depends on pods, namespaces or Services that nobody told of is not
// looked at: of a policy alone it cannot be said that it selects nothing.
func Lint(f *Facts, problems []model.Problem) []Warning {
	f.mu.RLock()
	defer f.mu.RUnlock()
	l := linter{Facts: f, pods: f.sortedPods(), seen: map[model.Name]struct{}{}}
	for _, p := range problems {
		if p.Kind == "NetworkPolicy" {
			l.found = append(l.found, ofProblem(p))
		}
	}
	for _, np := range f.sortedPolicies() {
		l.policy(np)
	}
	slices.SortStableFunc(l.found, func(a, b Warning) int {
		return cmp.Or(a.Object.Compare(b.Object), strings.Compare(a.Rule, b.Rule), strings.Compare(a.Code, b.Code), strings.Compare(a.Message, b.Message))
	})
	return slices.Compact(l.found)
}

// linter is one Lint on its way.
type linter struct {
	*Facts
	pods  []*podFact
	seen  map[model.Name]struct{} // policies warned of for lack of DNS
	found []Warning
	leads map[*podFact][]leading // see behind
}

// spot is where in a policy something is found.
type spot struct {
	policy *model.NetworkPolicy
	side   Side
	path   string // of the rule, or of something in it
}

func (l *linter) warn(at spot, code, remedy, format string, args ...any) {
	l.found = append(l.found, Warning{at.policy.Name, at.path, code, fmt.Sprintf(format, args...), remedy})
}

// policy looks at one policy and each of its rules.
func (l *linter) policy(np *model.NetworkPolicy) {
	l.types(np)
	l.selection(np)
	l.dns(np)
	for _, r := range np.IngressRules {
		if np.Ingress {
			l.rule(spot{np, Ingress, fmt.Sprintf("spec.ingress[%d]", r.Index)}, &r)
		}
	}
	for _, r := range np.EgressRules {
		if np.Egress {
			l.rule(spot{np, Egress, fmt.Sprintf("spec.egress[%d]", r.Index)}, &r)
		}
	}
	l.excepts(np)
}

// types looks at policyTypes.
func (l *linter) types(np *model.NetworkPolicy) {
	const path = "spec.policyTypes"
	switch {
	case len(np.EgressRules) > 0 && !np.Egress:
		l.warn(spot{np, Egress, path}, RulesWithoutType, "add Egress to policyTypes, or remove the rules", "there are egress rules, which do not count without the type Egress")
	case len(np.IngressRules) > 0 && !np.Ingress:
		l.warn(spot{np, Ingress, path}, RulesWithoutType, "add Ingress to policyTypes, or remove the rules", "there are ingress rules, which do not count without the type Ingress")
	case np.Ingress && np.Egress && len(np.IngressRules) == 0 && len(np.EgressRules) > 0:
		l.warn(spot{np, Ingress, path}, IngressDeniedToo, "write policyTypes: [Egress] if only egress is meant", "all rules are of egress, but ingress is isolated too and nothing is allowed in")
	}
}

// selection looks at whom a policy selects.
func (l *linter) selection(np *model.NetworkPolicy) {
	if len(l.pods) == 0 {
		return
	}
	at := spot{np, Ingress, "spec.podSelector"}
	pods, host := l.selected(np)
	if len(host) > 0 {
		l.warn(at, SelectsHostPods, "police their nodes by other means", "%s %s on the network of a node, where no policy applies", podNames(host), areOrIs(host))
	}
	if len(pods) > 0 || len(host) > 0 {
		return
	}
	near := ""
	if p, r, is := l.nearest(np); is {
		near = ", and " + lacks("pod "+p.Name.String(), r, p.Labels)
	}
	l.warn(at, SelectsNothing, "correct the selector or the labels of the pods, or remove the policy", "it selects no pod: there are no %s in namespace %s%s", podsText(&np.Pods), np.Name.Namespace, near)
}

func podNames(pods []*podFact) string {
	var names []string
	for _, p := range pods {
		names = append(names, p.Name.String())
	}
	return few(names, ", ")
}

func areOrIs(pods []*podFact) string {
	if len(pods) == 1 {
		return "is"
	}
	return "are"
}
