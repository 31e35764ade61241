package policy

import (
	"cmp"
	"fmt"
	"slices"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
)

// The reasons of problems.
const (
	reasonNotEnforced = "NotEnforced" // the rules do not stand: the pods are cut off
	reasonSetFull     = "SetFull"     // a peer means more than a set holds
)

// Problems are the policies that are not enforced as they say, in order.
func (p *Planner) Problems() []model.Problem {
	var out []model.Problem
	for c := range p.unsettled {
		if !c.late || c.idle() {
			continue
		}
		for np := range c.policies() {
			out = append(out, model.Problem{
				Kind: "NetworkPolicy", Object: np.name, Reason: reasonNotEnforced,
				Message: fmt.Sprintf("its %s rules are not in the kernel of node %s after %s: the pods it selects there are cut off in that "+
					"direction until they are; the agent's log says what the kernel refuses", c.side, p.cfg.Node, patience),
			})
		}
	}
	for key := range p.over {
		for _, c := range p.classes {
			if c.specs[key.Name] == nil {
				continue
			}
			for np := range c.policies() {
				out = append(out, model.Problem{
					Kind: "NetworkPolicy", Object: np.name, Reason: reasonSetFull,
					Message: fmt.Sprintf("one of its peers or named ports means %d %s addresses, and a set holds %d: those beyond are not "+
						"allowed; mean fewer pods, or mean them by an ipBlock", p.counts[key], key.Family, p.limit),
				})
			}
		}
	}
	slices.SortFunc(out, func(a, b model.Problem) int {
		return cmp.Or(a.Object.Compare(b.Object), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(out)
}

// policies are those that a class is of.
func (c *class) policies() map[*ruleset]struct{} {
	out := map[*ruleset]struct{}{}
	for m := range c.users {
		for _, np := range m.isolate[c.side] {
			out[np] = struct{}{}
		}
	}
	return out
}

// count keeps how many members pods wish to be in each set.
func (p *Planner) count(wish map[netfilter.Key]netfilter.Spec, by int) {
	for k := range wish {
		if k.Kind != netfilter.KindMember {
			continue
		}
		set := netfilter.SetKey(k.Family, k.Name)
		p.counts[set] += by
		switch n := p.counts[set]; {
		case n > p.limit:
			p.over[set] = struct{}{}
		case n == 0:
			delete(p.counts, set)
			fallthrough
		default:
			delete(p.over, set)
		}
	}
}
