package convert

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	kjson "sigs.k8s.io/json"

	"sluice.dev/sluice/internal/model"
)

// FuzzNetworkPolicy: whatever a NetworkPolicy says, it never allows more. Each
// part of it is used or complained of, and a list of which nothing can be used
// does not become the list that means everything.
func FuzzNetworkPolicy(f *testing.F) {
	for _, s := range []string{
		`{}`, `null`, `{"podSelector":{"matchLabels":{"a":" "}}}`,
		`{"ingress":[{"from":[{}],"ports":[{"port":""}]},null,{}],"egress":[{"to":[{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.0.0.0/8"]}}]}]}`,
		`{"policyTypes":["Egress","x"],"egress":[{"namespaceSelector":{}},{"to":[{"podSelector":{},"x":1},{"podSelector":{}}],"ports":[{"port":80,"endPort":79},{"endPort":1},{"protocol":"SCTP"},{"port":"http","protocol":"UDP"}]}]}`,
		`{"ingress":[{"from":[{"ipBlock":{"cidr":"::ffff:10.0.0.0/104","except":["10.1.0.0/16"]}},{"ipBlock":{"cidr":"::/0"},"podSelector":{}},{"podSelector":{"matchExpressions":[{"key":"a","operator":"NotIn","values":["x"]}]}}]}],"action":"Deny"}`,
		`{"podSelector":{"x":1},"ingress":[{"x":1,"ports":[{"x":1},{"port":0}]}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if !json.Valid(data) {
			return
		}
		p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u1"}}
		strict, err := kjson.UnmarshalStrict([]byte(`{"spec":`+string(data)+`}`), p)
		if err != nil {
			return
		}
		var unknown []string
		for _, err := range strict {
			if strings.HasPrefix(err.Error(), "unknown field") {
				unknown = append(unknown, err.(kjson.FieldError).FieldPath()) //nolint:errorlint // never wrapped
			}
		}
		checkPolicy(t, p, unknown)
	})
}

// policyClaims checks that a policy allows nothing that its object does not.
type policyClaims struct {
	claims
	unknown []string
	all     bool // every problem was told
}

func checkPolicy(t *testing.T, p *networkingv1.NetworkPolicy, unknown []string) {
	t.Helper()
	before := p.DeepCopy()
	np, ok, problems := NetworkPolicy(p, unknown)
	if !reflect.DeepEqual(p, before) {
		t.Error("the object was changed")
	}
	all := bounded(t, problems, model.Problem{Kind: "NetworkPolicy", Object: model.Name{Namespace: "shop", Name: "web"}, UID: "u1"})
	c := policyClaims{claims{t, problems}, unknown, all}
	_, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
	if ok != (err == nil) {
		t.Fatalf("told: %v, of pods: %v", ok, err)
	}
	if !ok {
		if len(problems) == 0 {
			t.Error("refused without a word")
		}
		return
	}
	c.directions(p, &np)
	var in, out []given
	for _, r := range p.Spec.Ingress {
		in = append(in, given{"from", r.Ports, r.From})
	}
	for _, r := range p.Spec.Egress {
		out = append(out, given{"to", r.Ports, r.To})
	}
	c.rules("spec.ingress", in, np.IngressRules)
	c.rules("spec.egress", out, np.EgressRules)
}

// within reports whether an unknown field stands under a path.
func (c policyClaims) within(path string) bool {
	return slices.ContainsFunc(c.unknown, func(u string) bool { return strings.HasPrefix(u, path+".") })
}

// directions: it isolates in every direction that is said, and in no other unless
// something is complained of.
func (c policyClaims) directions(p *networkingv1.NetworkPolicy, np *model.NetworkPolicy) {
	types := p.Spec.PolicyTypes
	ingress, egress := slices.Contains(types, "Ingress"), slices.Contains(types, "Egress")
	if len(types) == 0 {
		ingress, egress = true, len(p.Spec.Egress) > 0
	}
	if ingress && !np.Ingress || egress && !np.Egress || !np.Ingress && !np.Egress {
		c.t.Errorf("policyTypes %q: isolates ingress %v, egress %v", types, np.Ingress, np.Egress)
	}
	if len(c.problems) == 0 && (ingress != np.Ingress || egress != np.Egress) {
		c.t.Errorf("policyTypes %q: isolates ingress %v, egress %v without a word", types, np.Ingress, np.Egress)
	}
}

type given struct {
	side  string
	ports []networkingv1.NetworkPolicyPort
	peers []networkingv1.NetworkPolicyPeer
}

func (c policyClaims) rules(field string, given []given, rules []model.PolicyRule) {
	last := -1
	for _, r := range rules {
		if r.Index <= last || r.Index >= len(given) {
			c.t.Fatalf("%s: rule %d after %d of %d", field, r.Index, last, len(given))
		}
		last = r.Index
		at, g := fmt.Sprintf("%s[%d]", field, r.Index), given[r.Index]
		if r.AnyPeer != (len(g.peers) == 0) || r.AnyPort != (len(g.ports) == 0) || r.AnyPeer && len(r.Peers) > 0 || r.AnyPort && len(r.Ports) > 0 {
			c.t.Errorf("%s: every port %v, everybody %v, given %+v", at, r.AnyPort, r.AnyPeer, g)
		}
		for _, p := range r.Peers {
			c.peer(fmt.Sprintf("%s.%s[%d]", at, g.side, p.Index), &g.peers[p.Index], p)
		}
		for _, p := range r.Ports {
			c.port(fmt.Sprintf("%s.ports[%d]", at, p.Index), &g.ports[p.Index], p)
		}
		c.counted(at, g, r)
	}
	if len(rules) < len(given) && len(c.problems) == 0 {
		c.t.Errorf("%s: %d of %d rules, without a word", field, len(rules), len(given))
	}
}

// counted: whatever was left out is complained of.
func (c policyClaims) counted(at string, g given, r model.PolicyRule) {
	if !c.all {
		return
	}
	said := func(path string) bool {
		return slices.ContainsFunc(c.problems, func(p model.Problem) bool {
			return strings.HasPrefix(p.Message, path+": ") || strings.HasPrefix(p.Message, path+".")
		})
	}
	for i := range g.peers {
		path := fmt.Sprintf("%s.%s[%d]", at, g.side, i)
		if used := slices.ContainsFunc(r.Peers, func(p model.PolicyPeer) bool { return p.Index == i }); used == said(path) {
			c.t.Errorf("%s: used %v, complained of %v: %v", path, used, !used, c.problems)
		}
	}
	for i := range g.ports {
		path := fmt.Sprintf("%s.ports[%d]", at, i)
		if used := slices.ContainsFunc(r.Ports, func(p model.PolicyPort) bool { return p.Index == i }); used == said(path) {
			c.t.Errorf("%s: used %v, complained of %v: %v", path, used, !used, c.problems)
		}
	}
}

// peer: one that is used says all that was given, and nothing that was not.
func (c policyClaims) peer(at string, g *networkingv1.NetworkPolicyPeer, p model.PolicyPeer) {
	if (p.Pods != nil) != (g.PodSelector != nil) || (p.Namespaces != nil) != (g.NamespaceSelector != nil) || p.Block.IsValid() != (g.IPBlock != nil) {
		c.t.Errorf("%s: %+v of %+v", at, p, g)
	}
	if p.Pods == nil && p.Namespaces == nil && !p.Block.IsValid() || c.within(at) {
		c.t.Errorf("%s: means everybody, or has what is unknown: %+v", at, g)
	}
	c.selects(at, g.PodSelector, p.Pods)
	c.selects(at, g.NamespaceSelector, p.Namespaces)
	if g.IPBlock == nil {
		return
	}
	if p.Block != p.Block.Masked() || p.Block.Addr().Is4In6() {
		c.t.Errorf("%s: block %v", at, p.Block)
	}
	for _, text := range g.IPBlock.Except {
		e, err := parsePrefix(text)
		if err != nil || !slices.Contains(p.Except, e) || !overlapsStrictly(p.Block, e) {
			c.t.Errorf("%s: except %q of %v is not in %v", at, text, p.Block, p.Except)
		}
	}
}

func overlapsStrictly(block, e netip.Prefix) bool {
	return block.Overlaps(e) && e.Bits() > block.Bits()
}

// selects: labels are selected as Kubernetes' own code does it.
func (c policyClaims) selects(at string, g *metav1.LabelSelector, s *model.Selector) {
	if g == nil || s == nil {
		return
	}
	theirs, err := metav1.LabelSelectorAsSelector(g)
	if err != nil {
		c.t.Errorf("%s: %v is used: %v", at, g, err)
		return
	}
	tries := []labelSet{{}}
	for key, value := range g.MatchLabels {
		tries = append(tries, labelSet{key: value}, labelSet{key: value + "x"})
	}
	for _, e := range g.MatchExpressions {
		for _, value := range append([]string{"", "x"}, e.Values...) {
			tries = append(tries, labelSet{e.Key: value})
		}
	}
	for _, try := range tries {
		if s.Matches(try) != theirs.Matches(try) {
			c.t.Errorf("%s: %v selects %v: %v", at, g, try, s.Matches(try))
		}
	}
}

func (c policyClaims) port(at string, g *networkingv1.NetworkPolicyPort, p model.PolicyPort) {
	if c.within(at) {
		c.t.Errorf("%s has what is unknown", at)
	}
	want := "TCP"
	if g.Protocol != nil {
		want = string(*g.Protocol)
	}
	if p.Protocol.String() != want {
		c.t.Errorf("%s: protocol %v, want %s", at, p.Protocol, want)
	}
	switch {
	case g.Port == nil:
		if p.First != 0 || p.Last != 0 || p.Name != "" || g.EndPort != nil {
			c.t.Errorf("%s: %+v", at, p)
		}
	case g.Port.Type == intstr.String:
		if p.Name == "" || p.Name != g.Port.StrVal || p.First != 0 || p.Last != 0 || g.EndPort != nil {
			c.t.Errorf("%s: %+v of %v", at, p, g.Port)
		}
	default:
		last := g.Port.IntVal
		if g.EndPort != nil {
			last = *g.EndPort
		}
		if int32(p.First) != g.Port.IntVal || int32(p.Last) != last || p.First == 0 || p.Last < p.First || p.Name != "" {
			c.t.Errorf("%s: %+v of %v", at, p, g.Port)
		}
	}
}

// labelSet is a set of labels to try selectors on.
type labelSet map[string]string

// Has implements labels.Labels.
func (l labelSet) Has(key string) bool { _, ok := l[key]; return ok }

// Get implements labels.Labels.
func (l labelSet) Get(key string) string { return l[key] }

// Lookup implements labels.Labels.
func (l labelSet) Lookup(key string) (string, bool) { v, ok := l[key]; return v, ok }
