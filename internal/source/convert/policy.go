package convert

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"sluice.dev/sluice/internal/model"
)

// unknownMax is how many unknown fields a strict decoder names before it stops
// looking (sigs.k8s.io/json).
const unknownMax = 100

// What becomes of a part that cannot be used.
const (
	remedyPeer    = "until then this peer means nobody"
	remedyNoPort  = "; until then this port means no port"
	remedyOwn     = "until then the policy stays as it was before, and one that is new isolates no pod"
	remedyUnknown = "correct its name or its indentation, or upgrade; until then "
)

// NetworkPolicy is a NetworkPolicy with the API's defaults, whether or not a
// server has set them. A part that cannot be used allows nothing: a port that
// is wrong means no port, a peer that is wrong means nobody, and a list that has
// no other does not become the empty list, which would mean everything. An
// ipBlock with a wrong exception means nobody, since without it it would mean
// more. A policy whose podSelector cannot be used is not told: nobody can say
// which pods it isolates.
//
// unknown are the paths of all fields that the object has and its type does not,
// such as "spec.ingress[0].from[1].color". A newer API may narrow with one what
// its neighbours allow, so the peer, port or rule that has one is left out; of a
// policy that has one elsewhere in its spec nothing remains but that it isolates.
func NetworkPolicy(p *networkingv1.NetworkPolicy, unknown []string) (policy model.NetworkPolicy, ok bool, problems []model.Problem) {
	r := newReport(NetworkPolicyKind, &p.ObjectMeta)
	pods := anySelector(&p.Spec.PodSelector, "spec.podSelector", remedyOwn, r)
	if pods == nil {
		return model.NetworkPolicy{}, false, r.list()
	}
	c := clauses{unread: unreadable(unknown, r), report: r}
	policy = model.NetworkPolicy{Name: nameOf(&p.ObjectMeta), Pods: *pods}
	policy.Ingress, policy.Egress = policyTypes(&p.Spec, r)
	if c.unread["spec"] {
		return policy, true, r.list()
	}
	for i, given := range p.Spec.Ingress {
		c.rule(&policy.IngressRules, clause{i, fmt.Sprintf("spec.ingress[%d]", i), "from", given.Ports, given.From})
	}
	for i, given := range p.Spec.Egress {
		c.rule(&policy.EgressRules, clause{i, fmt.Sprintf("spec.egress[%d]", i), "to", given.Ports, given.To})
	}
	return policy, true, r.list()
}

// unreadable are the parts of a policy that hold unknown fields, by their paths: a
// peer, a port, a rule, or "spec". Fields outside of the spec say nothing of
// traffic; servers of old wrote a status.
func unreadable(unknown []string, r *report) map[string]bool {
	parts := map[string]bool{}
	for _, path := range unknown {
		if !strings.HasPrefix(path, "spec.") {
			continue
		}
		part, what := partOf(path)
		parts[part] = true
		r.add(UnknownField, path, path[strings.LastIndexByte(path, '.')+1:], "is not a field that is known here", remedyUnknown+what)
	}
	if len(unknown) >= unknownMax && !parts["spec"] {
		parts["spec"] = true
		r.add(UnknownField, "spec", fmt.Sprint(len(unknown), " fields"), "are not known here, and there may be more", remedyUnknown+"the policy allows nothing")
	}
	return parts
}

// partOf is the smallest part of a policy that can be left out for a field, and
// what leaving it out means.
func partOf(path string) (part, what string) {
	steps := strings.SplitN(path, ".", 4) // spec, a rule, a peer or port, the rest
	if len(steps) < 3 || !isItem(steps[1], "ingress", "egress") {
		return "spec", "the policy allows nothing"
	}
	if len(steps) == 4 && isItem(steps[2], "ports") {
		return strings.Join(steps[:3], "."), "this port means no port"
	}
	if len(steps) == 4 && isItem(steps[2], "from", "to") {
		return strings.Join(steps[:3], "."), "this peer means nobody"
	}
	return strings.Join(steps[:2], "."), "this rule allows nothing"
}

// isItem reports whether a step of a path is an item of one of some lists.
func isItem(step string, lists ...string) bool {
	name, _, indexed := strings.Cut(step, "[")
	return indexed && slices.Contains(lists, name)
}

// policyTypes are the directions in which a policy isolates. The default is what
// the API says, which is not symmetric. A type that is neither may mean either.
func policyTypes(s *networkingv1.NetworkPolicySpec, r *report) (ingress, egress bool) {
	if len(s.PolicyTypes) == 0 {
		return true, len(s.Egress) > 0
	}
	for i, t := range s.PolicyTypes {
		switch t {
		case networkingv1.PolicyTypeIngress:
			ingress = true
		case networkingv1.PolicyTypeEgress:
			egress = true
		default:
			ingress, egress = true, true
			r.add(InvalidPolicyType, fmt.Sprintf("spec.policyTypes[%d]", i), t, "is not a type of policy",
				`use "Ingress" or "Egress"; until then the policy isolates in both directions`)
		}
	}
	return ingress, egress
}

// clauses reads the rules of one policy.
type clauses struct {
	unread map[string]bool // parts that hold unknown fields
	report *report
}

// clause is a rule as it is given, of either direction.
type clause struct {
	index int
	field string
	side  string // the field of its peers
	ports []networkingv1.NetworkPolicyPort
	peers []networkingv1.NetworkPolicyPeer
}

// rule reads one rule. nil and empty lists mean the same: everything. Of what
// holds an unknown field nothing else is complained of.
func (c clauses) rule(rules *[]model.PolicyRule, given clause) {
	if c.unread[given.field] {
		return
	}
	rule := model.PolicyRule{Index: given.index, AnyPort: len(given.ports) == 0, AnyPeer: len(given.peers) == 0}
	for i := range given.ports {
		field := fmt.Sprintf("%s.ports[%d]", given.field, i)
		if c.unread[field] {
			continue
		}
		if p, ok := policyPort(&given.ports[i], field, c.report); ok {
			p.Index = i
			rule.Ports = append(rule.Ports, p)
		}
	}
	for i := range given.peers {
		field := fmt.Sprintf("%s.%s[%d]", given.field, given.side, i)
		if c.unread[field] {
			continue
		}
		if p, ok := policyPeer(&given.peers[i], field, c.report); ok {
			p.Index = i
			rule.Peers = append(rule.Peers, p)
		}
	}
	*rules = append(*rules, rule)
}

// policyPort reads a port.
func policyPort(given *networkingv1.NetworkPolicyPort, field string, r *report) (p model.PolicyPort, ok bool) {
	p, ok = portNumbers(given, field, r)
	p.Protocol = model.TCP
	if given.Protocol == nil {
		return p, ok
	}
	proto, known := protocol(*given.Protocol)
	if !known || *given.Protocol == "" {
		r.add(InvalidProtocol, field+".protocol", *given.Protocol, "is not a protocol of ports", remedyProtocol+remedyNoPort)
		return p, false
	}
	p.Protocol = proto
	return p, ok
}

// portNumbers reads which ports of a protocol are meant; neither a number nor a
// name is all of them.
func portNumbers(given *networkingv1.NetworkPolicyPort, field string, r *report) (p model.PolicyPort, ok bool) {
	named := given.Port != nil && given.Port.Type == intstr.String
	switch {
	case given.EndPort != nil && (given.Port == nil || named):
		r.add(InvalidPort, field+".endPort", *given.EndPort, "needs a number to begin at", "write a number as port, or remove endPort"+remedyNoPort)
		return p, false
	case given.Port == nil:
		return p, true
	case named:
		// The empty name among others, which to the model would be no name.
		if wrong := validation.IsValidPortName(given.Port.StrVal); len(wrong) > 0 {
			r.add(InvalidPort, field+".port", given.Port.StrVal, "is not the name of a port",
				"write a number without quotes, or the name of a container's port"+remedyNoPort)
			return p, false
		}
		p.Name = given.Port.StrVal
		return p, true
	}
	if p.First, ok = port(given.Port.IntVal); !ok {
		r.add(InvalidPort, field+".port", given.Port.IntVal, "is not a port number", remedyPort+remedyNoPort)
		return p, false
	}
	p.Last = p.First
	if given.EndPort == nil {
		return p, true
	}
	if p.Last, ok = port(*given.EndPort); !ok || p.Last < p.First {
		r.add(InvalidPort, field+".endPort", *given.EndPort, "is not a port number from port upwards",
			fmt.Sprintf("use a number from %d to 65535", p.First)+remedyNoPort)
		return p, false
	}
	return p, true
}

// policyPeer reads a peer. One without a field says nothing: it does not mean
// everybody.
func policyPeer(given *networkingv1.NetworkPolicyPeer, field string, r *report) (p model.PolicyPeer, ok bool) {
	selects := given.PodSelector != nil || given.NamespaceSelector != nil
	switch {
	case given.IPBlock != nil && selects:
		r.add(InvalidPeer, field, text(given), "has both an ipBlock and selectors", "make two peers of it; "+remedyPeer)
		return p, false
	case given.IPBlock != nil:
		p.Block, p.Except, ok = block(given.IPBlock, field+".ipBlock", r)
		return p, ok
	case !selects:
		r.add(InvalidPeer, field, text(given), "has no field", "add a podSelector, a namespaceSelector or an ipBlock; "+remedyPeer)
		return p, false
	}
	ok = true
	if given.PodSelector != nil {
		p.Pods = anySelector(given.PodSelector, field+".podSelector", remedyPeer, r)
		ok = p.Pods != nil
	}
	if given.NamespaceSelector != nil {
		p.Namespaces = anySelector(given.NamespaceSelector, field+".namespaceSelector", remedyPeer, r)
		ok = ok && p.Namespaces != nil
	}
	return p, ok
}

// block reads an ipBlock, without host bits.
func block(given *networkingv1.IPBlock, field string, r *report) (cidr netip.Prefix, except []netip.Prefix, ok bool) {
	cidr, err := parseBlock(given.CIDR)
	if err != nil {
		r.add(InvalidIPBlock, field+".cidr", given.CIDR, err.Error(), remedyPrefix+"; "+remedyPeer)
		return netip.Prefix{}, nil, false
	}
	ok = true
	var found distinct[netip.Prefix]
	for i, text := range given.Except {
		e, err := parseBlock(text)
		switch at := fmt.Sprintf("%s.except[%d]", field, i); {
		case err != nil:
			r.add(InvalidIPBlock, at, text, err.Error(), remedyPrefix+"; "+remedyPeer)
			ok = false
		case !cidr.Contains(e.Addr()) || e.Bits() <= cidr.Bits():
			r.add(InvalidIPBlock, at, text, "is not strictly inside "+cidr.String(), "use a range inside of it, or remove it; "+remedyPeer)
			ok = false
		default:
			found.add(e)
		}
	}
	return cidr, found.list, ok
}

// parseBlock reads a CIDR as the API server does in NetworkPolicies.
func parseBlock(text string) (netip.Prefix, error) {
	if strings.TrimSpace(text) != text {
		return netip.Prefix{}, errNotPrefix
	}
	return parsePrefix(text)
}
