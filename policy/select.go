package policy

import (
	"fmt"
	"slices"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// selectorText is a selector as kubectl writes it; "" matches everything.
func selectorText(s model.Selector) string {
	texts := make([]string, len(s.Requirements))
	for i, r := range s.Requirements {
		texts[i] = requirementText(r)
	}
	return strings.Join(texts, ",")
}

func requirementText(r model.Requirement) string {
	switch {
	case r.Op == model.Exists:
		return r.Key
	case r.Op == model.DoesNotExist:
		return "!" + r.Key
	case r.Op == model.In && len(r.Values) == 1:
		return r.Key + "=" + r.Values[0]
	case r.Op == model.NotIn && len(r.Values) == 1:
		return r.Key + "!=" + r.Values[0]
	case r.Op == model.NotIn:
		return r.Key + " notin (" + strings.Join(r.Values, ",") + ")"
	}
	return r.Key + " in (" + strings.Join(r.Values, ",") + ")"
}

// podsText names the pods that a selector means; nil: all.
func podsText(s *model.Selector) string {
	if s == nil || len(s.Requirements) == 0 {
		return "all pods"
	}
	return "pods " + selectorText(*s)
}

// peerText names whom a peer means.
func peerText(np *model.NetworkPolicy, peer *model.PolicyPeer) string {
	if peer.Block.IsValid() {
		return blockText(peer)
	}
	switch {
	case peer.Pods == nil && peer.Namespaces == nil:
		return "nobody"
	case peer.Namespaces == nil:
		return podsText(peer.Pods) + " of namespace " + np.Name.Namespace
	case len(peer.Namespaces.Requirements) == 0:
		return podsText(peer.Pods) + " of every namespace"
	}
	return podsText(peer.Pods) + " of namespaces " + selectorText(*peer.Namespaces)
}

func blockText(peer *model.PolicyPeer) string {
	if len(peer.Except) == 0 {
		return peer.Block.String()
	}
	texts := make([]string, len(peer.Except))
	for i, e := range peer.Except {
		texts[i] = e.String()
	}
	return peer.Block.String() + " except " + few(texts, ", ")
}

// peersText names whom a rule means.
func peersText(np *model.NetworkPolicy, r *model.PolicyRule) string {
	switch {
	case r.AnyPeer:
		return "anybody"
	case len(r.Peers) == 0:
		return "nobody"
	}
	texts := make([]string, len(r.Peers))
	for i := range r.Peers {
		texts[i] = peerText(np, &r.Peers[i])
	}
	return few(texts, " or ")
}

// portText names a port of a rule.
func portText(p model.PolicyPort) string {
	switch {
	case p.Name != "":
		return fmt.Sprintf("%s %q", p.Protocol, p.Name)
	case p.First == 0 && p.Last == 0:
		return "every " + p.Protocol.String() + " port"
	case p.First == p.Last:
		return fmt.Sprint(p.Protocol, " ", p.First)
	}
	return fmt.Sprint(p.Protocol, " ", p.First, "-", p.Last)
}

// portsText names the ports of a rule.
func portsText(r *model.PolicyRule) string {
	switch {
	case r.AnyPort:
		return "every port"
	case len(r.Ports) == 0:
		return "no port"
	}
	texts := make([]string, len(r.Ports))
	for i, p := range r.Ports {
		texts[i] = portText(p)
	}
	return few(texts, ", ")
}

// few joins texts, but not more than a line can take.
func few(texts []string, separator string) string {
	const most = 4
	if len(texts) <= most {
		return strings.Join(texts, separator)
	}
	return fmt.Sprintf("%s%sand %d more", strings.Join(texts[:most], separator), separator, len(texts)-most)
}

// target names the port that a packet is for.
func (p Packet) target() string {
	switch {
	case p.Port != 0:
		return fmt.Sprint(p.Protocol, " ", p.Port)
	case p.Protocol == icmp:
		return "ICMP"
	case p.Protocol == icmpv6:
		return "ICMPv6"
	}
	return p.Protocol.String()
}

// The protocols without ports that people ask about.
const (
	icmp   model.Protocol = 1
	icmpv6 model.Protocol = 58
)

// unmet are the requirements of a selector that labels do not meet; nil: none.
func unmet(s *model.Selector, labels map[string]string) []model.Requirement {
	if s == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(s.Requirements), func(r model.Requirement) bool {
		return model.Selector{Requirements: []model.Requirement{r}}.Matches(labels)
	})
}

// lacks says how the labels of an object fail a requirement.
func lacks(object string, r model.Requirement, labels map[string]string) string {
	value, there := labels[r.Key]
	switch {
	case r.Op == model.DoesNotExist:
		return fmt.Sprintf("%s has label %s=%s, and is to have none %s", object, r.Key, value, r.Key)
	case r.Op == model.NotIn:
		return fmt.Sprintf("%s has label %s=%s, which is ruled out", object, r.Key, value)
	case there:
		return fmt.Sprintf("%s has label %s=%s, not %s", object, r.Key, value, requirementText(r))
	}
	return fmt.Sprintf("%s lacks label %s", object, requirementText(r))
}
