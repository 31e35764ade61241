package policy

import (
	"fmt"
	"slices"
	"strings"
)

// policyCase is a line of the table of cases: what there is, and what reach is
// left. Text may name addresses, see fill.
type policyCase struct {
	name  string
	quick bool // one of the selection that every run makes
	// outside: nodes and the client outside take part.
	outside bool
	// policies are NetworkPolicies, each "namespace: spec" or "namespace/name:
	// spec", in YAML. Lines that are indented belong to the one before.
	policies string
	objects  string // further objects, documents of YAML
	// labels are other ones for pods ("x/a") and namespaces ("y"): "k=v,k=v".
	labels map[string]string
	pods   map[string]podState // pods whose objects are not as usual
	want   string              // see reach
	then   []policyCase        // what comes after it; each tells all that there is then
}

// podState is what has happened to a pod's object.
type podState string

const (
	done        podState = "done"        // Succeeded
	failed      podState = "failed"      // Failed
	gone        podState = "gone"        // deleted
	terminating podState = "terminating" // told to end, and still running
	unready     podState = "unready"
	recreated   podState = "recreated" // of another UID
)

// cases are all of them.
func cases() []policyCase {
	return slices.Concat(upstreamCases(), fieldCases(), portCases(), blockCases(), lifeCases(), outsideCases(), combinedCases())
}

// steps are a case and what comes after it.
func (c policyCase) steps() []policyCase { return append([]policyCase{c}, c.then...) }

// manifest is the text of a case's own objects.
func (c policyCase) manifest() (string, error) {
	var docs []string
	var current strings.Builder
	end := func() error {
		text := current.String()
		current.Reset()
		if strings.TrimSpace(text) == "" {
			return nil
		}
		head, spec, ok := strings.Cut(text, ": ")
		if !ok {
			return fmt.Errorf("%s: not a policy: %q", c.name, text)
		}
		namespace, name, _ := strings.Cut(strings.TrimSpace(head), "/")
		if name == "" {
			name = fmt.Sprintf("policy-%d", len(docs)+1)
		}
		docs = append(docs, fmt.Sprintf("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {namespace: %q, name: %q}\nspec: %s\n",
			namespace, name, strings.TrimSpace(spec)))
		return nil
	}
	for line := range strings.Lines(c.policies) {
		if !strings.HasPrefix(line, "  ") {
			if err := end(); err != nil {
				return "", err
			}
		}
		current.WriteString(line)
	}
	if err := end(); err != nil {
		return "", err
	}
	if c.objects != "" {
		docs = append(docs, c.objects)
	}
	return fill(strings.Join(docs, "---\n")), nil
}
