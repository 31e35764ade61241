package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"sluice.dev/sluice/internal/model"
)

// excepts looks for exceptions that change nothing: another peer of the policy
// allows what they leave out, or another exception leaves it out as well.
func (l *linter) excepts(np *model.NetworkPolicy) {
	for _, side := range []Side{Ingress, Egress} {
		q := question{side: side}
		rules := q.rules(np)
		for i := range rules {
			for j := range rules[i].Peers {
				l.exceptsOf(np, side, [2]int{i, j})
			}
		}
	}
}

func (l *linter) exceptsOf(np *model.NetworkPolicy, side Side, of [2]int) {
	q := question{side: side}
	rules := q.rules(np)
	r := &rules[of[0]]
	peer := &r.Peers[of[1]]
	for n, e := range peer.Except {
		at := spot{np, side, fmt.Sprintf("spec.%s[%d].%s[%d].ipBlock", side, r.Index, list(side), peer.Index)}
		if i := slices.IndexFunc(peer.Except, func(o netip.Prefix) bool { return o != e && covers(o, e) }); i >= 0 {
			l.warn(at, ExceptWithoutUse, "remove it", "except %s is inside except %s", e, peer.Except[i])
			continue
		}
		if slices.Index(peer.Except, e) < n {
			continue
		}
		if by := allowedBy(rules, of, e); by != "" {
			l.warn(at, ExceptWithoutUse, "an exception is no denial: take the range out of what allows it", "except %s has no effect, as %s[%s allows it all the same", e, side, by)
		}
	}
}

// allowedBy is the place of another peer that means all of a range, for at
// least the ports of the rule; "": there is none.
func allowedBy(rules []model.PolicyRule, of [2]int, e netip.Prefix) string {
	ports := &rules[of[0]]
	for i := range rules {
		r := &rules[i]
		if i != of[0] && !r.AnyPort && (ports.AnyPort || !slices.Equal(r.Ports, ports.Ports)) {
			continue
		}
		if r.AnyPeer {
			return fmt.Sprintf("%d]", r.Index)
		}
		for j := range r.Peers {
			p := &r.Peers[j]
			if [2]int{i, j} != of && p.Block.IsValid() && covers(p.Block, e) && !slices.ContainsFunc(p.Except, e.Overlaps) {
				return fmt.Sprintf("%d], ipBlock %s,", r.Index, p.Block)
			}
		}
	}
	return ""
}

// covers reports whether a range holds all of another.
func covers(a, b netip.Prefix) bool { return a.Bits() <= b.Bits() && a.Contains(b.Addr()) }
