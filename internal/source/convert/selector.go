package convert

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/internal/model"
)

// selectors reads label selectors. Kubernetes says that an empty one matches
// everything; in a list of which one has to match it would make the others
// meaningless, so it is taken for a mistake.
func selectors(given []metav1.LabelSelector, field string, r *report) []model.Selector {
	var list []model.Selector
	for i := range given {
		s := &given[i]
		at := fmt.Sprintf("%s[%d]", field, i)
		if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
			r.add(InvalidSelector, at, "", "is empty", "add matchLabels or matchExpressions, or remove the list if everything is meant; until then nothing is selected")
			continue
		}
		if _, err := metav1.LabelSelectorAsSelector(s); err != nil {
			r.add(InvalidSelector, at, text(s), "cannot be used: "+err.Error(), remedyAddress)
			continue
		}
		list = append(list, selector(s))
	}
	return list
}

// anySelector reads a selector that may be empty: then it selects everything. nil:
// it cannot be used. until says what is so as long as it is wrong.
func anySelector(s *metav1.LabelSelector, field, until string, r *report) *model.Selector {
	if _, err := metav1.LabelSelectorAsSelector(s); err != nil {
		r.add(InvalidSelector, field, text(s), "cannot be used: "+err.Error(), "correct it; "+until)
		return nil
	}
	read := selector(s)
	return &read
}

// selector reads a valid selector; its labels come first, in order.
func selector(s *metav1.LabelSelector) model.Selector {
	var list []model.Requirement
	for _, key := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		list = append(list, model.Requirement{Key: key, Op: model.In, Values: []string{s.MatchLabels[key]}})
	}
	for _, e := range s.MatchExpressions {
		list = append(list, model.Requirement{Key: e.Key, Op: operator(e.Operator), Values: slices.Clone(e.Values)})
	}
	return model.Selector{Requirements: list}
}

func operator(o metav1.LabelSelectorOperator) model.Operator {
	switch o {
	case metav1.LabelSelectorOpIn:
		return model.In
	case metav1.LabelSelectorOpNotIn:
		return model.NotIn
	case metav1.LabelSelectorOpExists:
		return model.Exists
	}
	return model.DoesNotExist
}

// text is a part of an object as it may have been written.
func text(part any) string {
	js, err := json.Marshal(part)
	if err != nil {
		return err.Error()
	}
	return string(js)
}

// names reads a list of names of objects, each once.
func names(given []string, field string, r *report) []string {
	var found distinct[string]
	for i, name := range given {
		if name == "" {
			r.add(InvalidName, fmt.Sprintf("%s[%d]", field, i), name, "is not a name", remedyAddress)
			continue
		}
		found.add(name)
	}
	return found.list
}
