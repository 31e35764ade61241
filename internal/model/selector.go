package model

import "slices"

// Selector is a label selector (metav1.LabelSelector): labels match when they
// meet every requirement. The zero Selector matches everything; that nothing was
// selected at all is said by there being no Selector.
type Selector struct{ Requirements []Requirement }

// Operator is how a requirement compares.
type Operator uint8

// The operators of label selectors.
const (
	In Operator = iota
	NotIn
	Exists
	DoesNotExist
)

// Requirement is one condition on one label. An entry of matchLabels is an In
// with one value.
type Requirement struct {
	Key    string
	Op     Operator
	Values []string // of In and NotIn
}

// Matches reports whether labels meet every requirement. As in Kubernetes, an
// absent label meets NotIn.
func (s Selector) Matches(labels map[string]string) bool {
	return !slices.ContainsFunc(s.Requirements, func(r Requirement) bool { return !r.met(labels) })
}

func (r Requirement) met(labels map[string]string) bool {
	value, there := labels[r.Key]
	switch r.Op {
	case In:
		return there && slices.Contains(r.Values, value)
	case NotIn:
		return !there || !slices.Contains(r.Values, value)
	case Exists:
		return there
	case DoesNotExist:
		return !there
	}
	return false
}

// Selected reports whether any of several selectors matches. No selectors:
// everything is selected.
func Selected(selectors []Selector, labels map[string]string) bool {
	return len(selectors) == 0 || slices.ContainsFunc(selectors, func(s Selector) bool { return s.Matches(labels) })
}
