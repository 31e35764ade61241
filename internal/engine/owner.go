package engine

import (
	"cmp"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// Owner is who claims something of a table: one family of a Service (the
// families of a Service are proxied independently, and one that fails does not
// hold up the other), the node itself, or whoever package policy names.
type Owner struct {
	Kind   string // "Service", "Node", a kind of policy.Owner
	Name   model.Name
	Family model.Family // of a Service
}

// String is "Service default/web IPv4".
func (o Owner) String() string {
	switch {
	case o.Name == (model.Name{}):
		return o.Kind
	case o.Family == 0:
		return o.Kind + " " + o.Name.String()
	}
	return o.Kind + " " + o.Name.String() + " " + o.Family.String()
}

// less is an order of owners, the same on every node and in every run.
func less(a, b Owner) bool {
	return cmp.Or(strings.Compare(a.Kind, b.Kind), a.Name.Compare(b.Name), cmp.Compare(a.Family, b.Family)) < 0
}
