package policy

import (
	"cmp"
	"maps"
	"math"
	"net/netip"
	"slices"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
)

// ruleset is what a NetworkPolicy says, by Side, in terms of sets.
type ruleset struct {
	name     model.Name
	serial   uint64 // no two that were ever compiled have the same
	pods     model.Selector
	isolates [2]bool
	rules    [2]grants
	users    int // pods of this node that it isolates
}

// grants are what rules allow. sets are those that they name.
type grants struct {
	all  []grant
	sets map[string]*setSpec
}

// grant allows what is for a port, from or to a peer.
type grant struct {
	peer string // the set it is in; "": everybody
	port port
}

// port is a match on protocol and port. The zero value matches all.
type port struct {
	protocol model.Protocol
	numbers  netfilter.PortRange // zero: all of the protocol
	named    string              // instead: the set of those that are called so
}

// compile puts a NetworkPolicy in terms of sets. What matches nothing is left
// out, so that the policy isolates and does not allow it.
func compile(np model.NetworkPolicy, serial uint64) *ruleset {
	r := &ruleset{name: np.Name, serial: serial, pods: np.Pods}
	for side, of := range [2]struct {
		isolates bool
		rules    []model.PolicyRule
	}{Egress: {np.Egress, np.EgressRules}, Ingress: {np.Ingress, np.IngressRules}} {
		r.isolates[side] = of.isolates
		r.rules[side].sets = map[string]*setSpec{}
		for _, rule := range of.rules {
			r.rules[side].add(np.Name.Namespace, rule)
		}
	}
	return r
}

// add adds what one rule allows: each of its ports with each of its peers.
func (g *grants) add(namespace string, rule model.PolicyRule) {
	ports := g.ports(rule)
	for _, peer := range g.peers(namespace, rule) {
		for _, port := range ports {
			g.all = append(g.all, grant{peer, port})
		}
	}
}

func (g *grants) ports(rule model.PolicyRule) []port {
	if rule.AnyPort {
		return []port{{}}
	}
	var out []port
	for _, p := range rule.Ports {
		switch {
		case p.Name != "":
			out = append(out, port{protocol: p.Protocol, named: g.use(namedSet(p.Protocol, p.Name))})
		case p.First <= p.Last:
			out = append(out, port{protocol: p.Protocol, numbers: netfilter.PortRange{First: p.First, Last: p.Last}})
		}
	}
	return out
}

// peers are the sets that a rule's peers are in: its pods are in one set, and
// its blocks in one but for those with exceptions. An exception in a set
// with other blocks would take from these.
func (g *grants) peers(namespace string, rule model.PolicyRule) []string {
	if rule.AnyPeer {
		return []string{""}
	}
	var pods []podPeer
	var blocks []netip.Prefix
	var out []string
	for _, peer := range rule.Peers {
		switch {
		case peer.Pods == nil && peer.Namespaces == nil && !peer.Block.IsValid(),
			(peer.Pods != nil || peer.Namespaces != nil) && peer.Block.IsValid():
			// Nothing that we know, or what the API does not take: nobody.
		case !peer.Block.IsValid():
			pods = append(pods, newPodPeer(namespace, peer))
		case len(peer.Except) > 0:
			out = append(out, g.use(blockSet([]netip.Prefix{peer.Block}, peer.Except)))
		default:
			blocks = append(blocks, peer.Block)
		}
	}
	if len(pods) > 0 {
		out = append(out, g.use(podSet(pods)))
	}
	if len(blocks) > 0 {
		out = append(out, g.use(blockSet(blocks, nil)))
	}
	return out
}

func (g *grants) use(s *setSpec) string {
	g.sets[s.name] = s
	return s.name
}

// entry is what a class allows with one peer.
type entry struct {
	peer  string
	ports []port // merged, in order
}

// entries are what several policies allow together, in the one order and form
// that stands for it: the same whatever the policies are called and however
// their rules are divided among them.
func entries(of []*grants) []entry {
	by := map[string][]port{}
	for _, g := range of {
		for _, allows := range g.all {
			by[allows.peer] = append(by[allows.peer], allows.port)
		}
	}
	out := make([]entry, 0, len(by))
	for _, peer := range slices.Sorted(maps.Keys(by)) {
		ports := merged(by[peer])
		if peer == "" && ports[0] == (port{}) {
			return []entry{{"", ports}} // all that others allow, too
		}
		out = append(out, entry{peer, ports})
	}
	return out
}

// merged is the shortest list of ports that matches the same.
func merged(ports []port) []port {
	if slices.Contains(ports, port{}) {
		return []port{{}}
	}
	ports = slices.Clone(ports)
	slices.SortFunc(ports, func(a, b port) int {
		return cmp.Or(cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.named, b.named),
			cmp.Compare(a.numbers.First, b.numbers.First), cmp.Compare(a.numbers.Last, b.numbers.Last))
	})
	whole := map[model.Protocol]bool{} // protocols all of whose ports match
	var out []port
	for _, p := range ports {
		// The one with no numbers comes first of its protocol.
		if whole[p.protocol] {
			continue
		}
		if p == (port{protocol: p.protocol}) {
			whole[p.protocol] = true
		}
		if n := len(out) - 1; n >= 0 && out[n].protocol == p.protocol && out[n].named == p.named {
			if p.named != "" {
				continue
			}
			if last := &out[n].numbers; last.Last == math.MaxUint16 || p.numbers.First <= last.Last+1 {
				last.Last = max(last.Last, p.numbers.Last)
				continue
			}
		}
		out = append(out, p)
	}
	return out
}

// rules are the rules of an entry: matches on the port, each with the one on the
// peer. side is which end of a packet the peer is.
func (e entry) rules(side netfilter.Side) []netfilter.Rule {
	var out []netfilter.Rule
	for _, p := range e.ports {
		r := netfilter.Rule{Protocol: p.protocol, Ports: p.numbers, Do: netfilter.Do(netfilter.Return)}
		n := 0
		if p.named != "" {
			r.Sets[n] = netfilter.In(p.named, netfilter.Dst, netfilter.Dst)
			n++
		}
		if e.peer != "" {
			r.Sets[n] = netfilter.In(e.peer, side)
		}
		out = append(out, r)
	}
	return out
}
