package engine

import (
	"cmp"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// Owner is who claims something of a table: one family of a Service (the
// families of a Service are proxied independently, and one that fails does not
// hold up the other), or the node itself.
type Owner struct {
	Kind   string // "Service", "Node"
	Name   model.Name
	Family model.Family // 0 for the node
}

// String is "Service default/web IPv4".
func (o Owner) String() string {
	if o.Family == 0 {
		return o.Kind
	}
	return o.Kind + " " + o.Name.String() + " " + o.Family.String()
}

// less is an order of owners, the same on every node and in every run.
func less(a, b Owner) bool {
	return cmp.Or(strings.Compare(a.Kind, b.Kind), a.Name.Compare(b.Name), cmp.Compare(a.Family, b.Family)) < 0
}
