package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice.dev/sluice/internal/model"
)

// stranger says why the side has no pod whose policies could be asked.
func (q *question) stranger() string {
	a := q.Src
	if q.side == Ingress {
		a = q.Dst
	}
	if name, is := q.nodeAt(a); is {
		return fmt.Sprintf("%s is an address of node %s: policies mean no nodes, and no pods on a node's network", a, name)
	}
	if q.isVIP(a) {
		return fmt.Sprintf("%s is a virtual address: policies mean the endpoints behind it", a)
	}
	return fmt.Sprintf("%s is no pod's address", a)
}

// nodeAt is the node that has an address: of several the first by name.
func (f *Facts) nodeAt(a netip.Addr) (name string, is bool) {
	if _, local := f.local[a]; local {
		return f.node, true
	}
	if f.nodeAddrs[a] == 0 {
		return "", false
	}
	for _, n := range f.nodes {
		if slices.Contains(n.Addrs, a) && (!is || n.Name < name) {
			name, is = n.Name, true
		}
	}
	return name, is
}

// ownNode says why the packet is let in whatever policies say.
func (q *question) ownNode() string {
	if q.ofNode(q.dst, q.Src) {
		return fmt.Sprintf("%s is an address of the node of %s, and a pod's own node is always let in", q.Src, q.dst.Name)
	}
	return fmt.Sprintf("%s is a virtual address: who sends from it is a process of the node of %s, and a pod's own node is always let in", q.Src, q.dst.Name)
}

// field is a place in a policy, as the API counts.
func (q *question) field(np *model.NetworkPolicy, r *model.PolicyRule) string {
	return fmt.Sprintf("%s %s[%d]", np.Name, q.side, r.Index)
}

// list is what the API calls the peers of a rule of the side.
func (q *question) list() string {
	if q.side == Ingress {
		return "from"
	}
	return "to"
}

// grant says by what a packet is allowed.
func (q *question) grant(m match) string {
	peer, port := q.list()+" anybody", "every port"
	if m.peer != anything {
		p := &m.rule.Peers[m.peer]
		peer = fmt.Sprintf("%s[%d] %s", q.list(), p.Index, peerText(m.policy, p))
	}
	if m.port != anything {
		p := m.rule.Ports[m.port]
		port = fmt.Sprintf("ports[%d] %s", p.Index, portText(p))
	}
	return fmt.Sprintf("%s allows it: %s; %s", q.field(m.policy, m.rule), peer, port)
}

// attempt is a rule that does not allow the packet, and how near it came.
type attempt struct {
	policy     *model.NetworkPolicy
	rule       *model.PolicyRule
	peer, port int // as match; nothing: that is why not
}

// attempts are all rules that could have allowed the packet.
func (q *question) attempts() []attempt {
	var all []attempt
	for _, np := range q.subject().isolate[q.side] {
		rules := q.rules(np)
		for i := range rules {
			all = append(all, attempt{np, &rules[i], q.peer(np, &rules[i]), q.port(&rules[i])})
		}
	}
	return all
}

// missing says what the packet lacks: by the rule that is its peer's and only
// has other ports, else by the one that has its port and whose peers it is
// nearest to.
func (q *question) missing() string {
	all := q.attempts()
	for _, a := range all {
		if a.peer != nothing {
			return q.missingPort(a)
		}
	}
	var nearest *attempt
	least := 0
	for i, a := range all {
		if a.port == nothing || len(a.rule.Peers) == 0 {
			continue
		}
		if _, misses := q.nearestPeer(a); nearest == nil || misses < least {
			nearest, least = &all[i], misses
		}
	}
	if nearest != nil {
		return q.missingPeer(*nearest)
	}
	return q.missingAll(len(all))
}

func (q *question) missingPort(a attempt) string {
	whom := peersText(a.policy, a.rule)
	if a.peer != anything {
		whom = peerText(a.policy, &a.rule.Peers[a.peer])
	}
	text := fmt.Sprintf("%s has %s, but only for %s, and this is %s", q.field(a.policy, a.rule), whom, portsText(a.rule), q.target())
	if names := q.unresolved(a.rule); len(names) > 0 {
		text += ": " + strings.Join(names, ", ")
	}
	return text
}

// unresolved says of each named port of a rule why it is not the one that the
// packet is for.
func (q *question) unresolved(r *model.PolicyRule) []string {
	var texts []string
	for _, p := range r.Ports {
		if p.Name != "" {
			texts = append(texts, q.resolution(p))
		}
	}
	return texts
}

// resolution says what the destination calls by a port's name.
func (q *question) resolution(p model.PolicyPort) string {
	if q.dst == nil {
		return fmt.Sprintf("%q is a pod's name of a port, and %s is no pod", p.Name, q.Dst)
	}
	var numbers, others []string
	for _, c := range q.dst.Ports {
		switch {
		case c.Name != p.Name:
		case c.Protocol == p.Protocol:
			numbers = append(numbers, fmt.Sprint(c.Port))
		default:
			others = append(others, fmt.Sprint(c.Protocol, " ", c.Port))
		}
	}
	switch {
	case len(numbers) > 0:
		return fmt.Sprintf("%q is %s %s on %s", p.Name, p.Protocol, strings.Join(numbers, " and "), q.dst.Name)
	case len(others) > 0:
		return fmt.Sprintf("%q of %s is %s, not %s", p.Name, q.dst.Name, strings.Join(others, " and "), p.Protocol)
	}
	return fmt.Sprintf("%s has no container port named %q", q.dst.Name, p.Name)
}

func (q *question) missingPeer(a attempt) string {
	at, _ := q.nearestPeer(a)
	peer := &a.rule.Peers[at]
	text := fmt.Sprintf("%s has %s, but only %s %s", q.field(a.policy, a.rule), q.target(), q.list(), peersText(a.policy, a.rule))
	return text + ": " + strings.Join(q.misses(a.policy, peer), ", ")
}

// nearestPeer is the peer of a rule that the other end misses by the least. An
// ipBlock is as good as never meant for a pod, and a selector for no pod.
func (q *question) nearestPeer(a attempt) (at, misses int) {
	const stranger = 10
	for i := range a.rule.Peers {
		peer := &a.rule.Peers[i]
		m := len(q.misses(a.policy, peer))
		if peer.Block.IsValid() == (q.other() != nil) {
			m += stranger
		}
		if i == 0 || m < misses {
			at, misses = i, m
		}
	}
	return at, misses
}

// misses are the reasons for which the other end is not a peer; none: it is.
func (q *question) misses(np *model.NetworkPolicy, peer *model.PolicyPeer) []string {
	other, address := q.other(), q.address()
	switch {
	case q.isPeer(np, peer):
		return nil
	case peer.Block.IsValid():
		return missesBlock(peer, address, q.addressText())
	case other == nil:
		if node, is := q.nodeAt(address); is {
			return []string{fmt.Sprintf("%s is an address of node %s, and only pods have labels", address, node)}
		}
		return []string{fmt.Sprintf("%s is no pod, and only pods have labels", address)}
	case peer.Namespaces == nil && other.Name.Namespace != np.Name.Namespace:
		return []string{fmt.Sprintf("%s is in another namespace than the policy, which has no namespaceSelector here", other.Name)}
	}
	var texts []string
	namespace := q.labelsOf(other.Name.Namespace)
	for _, r := range unmet(peer.Namespaces, namespace) {
		texts = append(texts, lacks("namespace "+other.Name.Namespace, r, namespace))
	}
	for _, r := range unmet(peer.Pods, other.Labels) {
		texts = append(texts, lacks("pod "+other.Name.String(), r, other.Labels))
	}
	return texts
}

func missesBlock(peer *model.PolicyPeer, a netip.Addr, text string) []string {
	if !peer.Block.Contains(a) {
		return []string{fmt.Sprintf("%s is not in %s", text, peer.Block)}
	}
	for _, e := range peer.Except {
		if e.Contains(a) {
			return []string{fmt.Sprintf("%s is in %s, which this peer excepts", text, e)}
		}
	}
	return nil
}

// addressText is the other end's address. A pod that is asked about and has none
// yet stands for itself.
func (q *question) addressText() string {
	if p := q.other(); p != nil && len(p.Addrs) == 0 {
		return p.Name.String() + ", which has no address yet,"
	}
	return q.address().String()
}

// missingAll says that no rule comes near.
func (q *question) missingAll(rules int) string {
	var names []string
	for _, np := range q.subject().isolate[q.side] {
		names = append(names, np.Name.String())
	}
	isolate := few(names, ", ")
	if rules == 0 {
		return fmt.Sprintf("%s isolates %s for %s and has no rule that allows anything", isolate, q.subject().Name, q.side)
	}
	return fmt.Sprintf("no %s rule of %s has %s %s at %s", q.side, isolate, q.list(), q.name(), q.target())
}

// name is whom the packet comes from or goes to, seen from the side.
func (q *question) name() string {
	if p := q.other(); p != nil {
		return p.Name.String()
	}
	return q.address().String()
}
