package policy

import (
	"net/netip"
	"slices"

	"sluice.dev/sluice/internal/model"
)

// Packet is the first packet of a connection as policy sees it: with the
// address of who sent it and of the endpoint it is for, before any masquerade
// and after every translation of the destination.
type Packet struct {
	Src, Dst netip.Addr
	Protocol model.Protocol // TCP, UDP, SCTP or another
	Port     uint16         // the destination's; 0 where the protocol has none
}

// Side is an end of a connection.
type Side uint8

// The sides.
const (
	Egress  Side = iota // of the pod that sends
	Ingress             // of the pod that it is for
)

// String is "egress" or "ingress".
func (s Side) String() string {
	if s == Ingress {
		return "ingress"
	}
	return "egress"
}

// question is a packet with the pods at its ends, as one side of it is judged.
type question struct {
	*Facts
	Packet
	src, dst *podFact // nil: an address that is no pod's
	side     Side
}

// subject is the pod whose policies are asked, other the one it talks with,
// address that one's.
func (q *question) subject() *podFact {
	if q.side == Ingress {
		return q.dst
	}
	return q.src
}

func (q *question) other() *podFact {
	if q.side == Ingress {
		return q.src
	}
	return q.dst
}

func (q *question) address() netip.Addr {
	if q.side == Ingress {
		return q.Src
	}
	return q.Dst
}

// rules are what a policy says of the side.
func (q *question) rules(np *model.NetworkPolicy) []model.PolicyRule {
	if q.side == Ingress {
		return np.IngressRules
	}
	return np.EgressRules
}

// match is where a policy allows a packet. Peer and port are places in the
// rule's lists as the model has them; anything: the rule has no such list.
type match struct {
	policy     *model.NetworkPolicy
	rule       *model.PolicyRule
	peer, port int
}

// What stands for the place of a peer or port: all match, or none does.
const (
	anything = -1
	nothing  = -2
)

// allowing is the first rule that allows the packet, of those of all policies
// that isolate the subject: "NetworkPolicies are additive", and a rule allows
// what is for one of its ports and with one of its peers.
func (q *question) allowing() (match, bool) {
	for _, np := range q.subject().isolate[q.side] {
		rules := q.rules(np)
		for i := range rules {
			peer := q.peer(np, &rules[i])
			if peer == nothing {
				continue
			}
			if port := q.port(&rules[i]); port != nothing {
				return match{np, &rules[i], peer, port}, true
			}
		}
	}
	return match{}, false
}

// peer is the first of a rule's peers that the other end is.
func (q *question) peer(np *model.NetworkPolicy, r *model.PolicyRule) int {
	if r.AnyPeer {
		return anything
	}
	for i := range r.Peers {
		if q.isPeer(np, &r.Peers[i]) {
			return i
		}
	}
	return nothing
}

// isPeer reports whether the other end is meant by a peer:
//
//	ipBlock                           its address is in cidr and in none of except, be it a pod's or not
//	podSelector                       it is a pod of the policy's namespace that has the labels
//	namespaceSelector                 it is a pod, of a namespace that has the labels
//	namespaceSelector, podSelector    it is a pod that has the labels, of a namespace that has them
//	none of these                     never
func (q *question) isPeer(np *model.NetworkPolicy, peer *model.PolicyPeer) bool {
	if peer.Block.IsValid() {
		return peer.Pods == nil && peer.Namespaces == nil && inBlock(peer, q.address())
	}
	other := q.other()
	switch {
	case other == nil, peer.Pods == nil && peer.Namespaces == nil:
		return false
	case peer.Namespaces == nil && other.Name.Namespace != np.Name.Namespace:
		return false
	case peer.Namespaces != nil && !peer.Namespaces.Matches(q.labelsOf(other.Name.Namespace)):
		return false
	}
	return peer.Pods == nil || peer.Pods.Matches(other.Labels)
}

func inBlock(peer *model.PolicyPeer, a netip.Addr) bool {
	if !peer.Block.Contains(a) {
		return false
	}
	for _, except := range peer.Except {
		if except.Contains(a) {
			return false
		}
	}
	return true
}

// port is the first of a rule's ports that the packet is for.
func (q *question) port(r *model.PolicyRule) int {
	if r.AnyPort {
		return anything
	}
	for i := range r.Ports {
		if q.isPort(&r.Ports[i]) {
			return i
		}
	}
	return nothing
}

// isPort reports whether the packet is for a port of a rule:
//
//	no port          every port of the protocol
//	numbers          those
//	a name           what the destination, a pod, calls so for this protocol: in any
//	                 of its containers, maybe several numbers. One that calls nothing
//	                 so, or for another protocol, has no such port
func (q *question) isPort(port *model.PolicyPort) bool {
	switch {
	case port.Protocol != q.Protocol:
		return false
	case port.Name != "":
		return q.dst != nil && serves(q.dst, port, q.Port)
	case port.First == 0 && port.Last == 0:
		return true
	}
	return port.First <= q.Port && q.Port <= port.Last
}

// serves reports whether a pod calls a number by a port's name.
func serves(p *podFact, port *model.PolicyPort, number uint16) bool {
	for _, c := range p.Ports {
		if c.Name == port.Name && c.Protocol == port.Protocol && c.Port == number {
			return true
		}
	}
	return false
}

// exempt reports whether the packet comes from the pod's own node, which
// policies cannot keep out: "traffic to and from the node where a Pod is running
// is always allowed". A process of the host that talks to a virtual address has
// that as its source, and it leaves no node unmasqueraded.
func (q *question) exempt() bool {
	return q.src == nil && (q.ofNode(q.dst, q.Src) || q.isVIP(q.Src))
}

// ofNode reports whether an address is that of a pod's node: on this one what
// is on its interfaces, of another what its Node says.
func (f *Facts) ofNode(p *podFact, a netip.Addr) bool {
	if f.here(p) {
		_, has := f.local[a]
		return has
	}
	return slices.Contains(f.nodes[p.Node].Addrs, a)
}

// isVIP reports whether an address is a Service's. A Service that asks for a
// node's address is not given it.
func (f *Facts) isVIP(a netip.Addr) bool {
	if f.vips[a] == 0 || f.nodeAddrs[a] > 0 {
		return false
	}
	_, local := f.local[a]
	return !local
}
