package policy

import (
	"fmt"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// ofProblem is what a source could not read, as a warning. Its message begins
// with the field's path and ends with a remedy.
func ofProblem(p model.Problem) Warning {
	path, rest, is := strings.Cut(p.Message, ": ")
	if !is || strings.ContainsAny(path, " \t") {
		path, rest = "", p.Message
	}
	message, remedy, _ := strings.Cut(rest, "; ")
	w := Warning{Object: p.Object, Rule: path, Code: p.Reason, Message: message, Remedy: remedy}
	if p.Reason == UnknownField {
		if meant := misplaced(path); meant != "" {
			w.Remedy = meant
		}
	}
	return w
}

// misplaced says where a field belongs that stands where the API has none. A
// server drops it when it is not asked to be strict, and what is left may mean
// far more: a rule without "to" allows everybody.
func misplaced(path string) string {
	steps := strings.Split(path, ".")
	field := steps[len(steps)-1]
	if len(steps) < 2 || steps[0] != "spec" {
		return ""
	}
	switch {
	case len(steps) == 2:
		return misplacedInSpec(field)
	case len(steps) == 3 && (under(steps[1], "ingress") || under(steps[1], "egress")):
		return misplacedInRule(steps[1], field)
	case len(steps) == 4 && under(steps[2], "ports"):
		return misplacedInPort(steps[1], field)
	case len(steps) == 4:
		return misplacedInPeer(steps[1], steps[2], field)
	}
	return ""
}

// under reports whether a step of a path is an item of a list.
func under(step, list string) bool { return strings.HasPrefix(step, list+"[") }

// peerList is what the peers of a rule are called.
func peerList(rule string) string {
	if under(rule, "egress") {
		return "to"
	}
	return "from"
}

func misplacedInSpec(field string) string {
	switch strings.ToLower(field) {
	case "from":
		return "it belongs into a rule: write ingress: [{from: …}]"
	case "to":
		return "it belongs into a rule: write egress: [{to: …}]"
	case "ports", "ipblock", "namespaceselector":
		return fmt.Sprintf("%s belongs into a rule of ingress or egress", field)
	case "policytype", "types":
		return "the field is policyTypes, a list"
	}
	return alike(field, "podSelector", "policyTypes", "ingress", "egress")
}

func misplacedInRule(rule, field string) string {
	list := peerList(rule)
	switch strings.ToLower(field) {
	case "namespaceselector", "podselector", "ipblock":
		return fmt.Sprintf("%s belongs into the list %q: write `- %s: [{%s: …}]`. Where it is dropped in silence the rule has no %q, and then it means everybody", field, list, list, field, list)
	case "from", "to":
		return fmt.Sprintf("a rule of %s has %q, not %q; where it is dropped in silence the rule means everybody", strings.Split(rule, "[")[0], list, field)
	case "port", "protocol", "endport":
		return fmt.Sprintf("%s belongs into the list \"ports\": write `ports: [{%s: …}]`. Where it is dropped in silence the rule means every port", field, field)
	}
	return alike(field, list, "ports")
}

func misplacedInPort(rule, field string) string {
	switch strings.ToLower(field) {
	case "name", "number", "targetport", "containerport":
		return "the field is port, with a number or the name of a container's port"
	case "from", "to", "namespaceselector", "podselector", "ipblock":
		return fmt.Sprintf("%s belongs beside \"ports\", into the list %q", field, peerList(rule))
	}
	return alike(field, "port", "protocol", "endPort")
}

func misplacedInPeer(rule, peer, field string) string {
	switch strings.ToLower(field) {
	case "ports", "port", "protocol":
		return fmt.Sprintf("it belongs into the list \"ports\" beside %q", strings.Split(peer, "[")[0])
	case "cidr", "except":
		return fmt.Sprintf("it belongs into an ipBlock: write `- ipBlock: {%s: …}`", field)
	case "matchlabels", "matchexpressions":
		return "it belongs into a podSelector or a namespaceSelector"
	case "from", "to":
		return fmt.Sprintf("%q stands in itself; remove one of them", peerList(rule))
	}
	return alike(field, "podSelector", "namespaceSelector", "ipBlock")
}

// alike is a field that differs in upper and lower case only, or in an "s".
func alike(field string, fields ...string) string {
	for _, f := range fields {
		if strings.EqualFold(strings.TrimSuffix(field, "s"), strings.TrimSuffix(f, "s")) {
			return "the field is " + f
		}
	}
	return ""
}
