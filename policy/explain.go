package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"sluice.dev/sluice/internal/model"
)

// Query asks whether somebody may connect to something.
type Query struct {
	From string // "namespace/pod" or an address
	// To is as From, or a virtual address of a Service, or a node's; a port may
	// follow: "namespace/pod:80", "10.0.0.1:80", "[fd00::1]:80".
	To       string
	Protocol model.Protocol // 0: TCP
	Port     uint16         // 0: the one in To
	// EnforceHairpin says that policies judge a pod that reaches itself through
	// a virtual address. It is the node's setting, not the asker's.
	EnforceHairpin bool
}

// Explanation answers a Query.
type Explanation struct {
	Query Query `json:"query"`
	// Allowed reports that every way is open. Of several, those to some
	// endpoints of a Service may be while others are not.
	Allowed bool   `json:"allowed"`
	Path    []Step `json:"path,omitempty"` // the ways the packet may go
	// Hints are what comes near to the verdict that may have been meant, one
	// line each with the remedy, the likeliest first.
	Hints []string `json:"hints,omitempty"`
	Error string   `json:"error,omitempty"` // why there is no answer, and the remedy
}

// Step is one way for the packet, and what both ends say of it.
type Step struct {
	Via  string `json:"via,omitempty"` // the Service and its address that was asked for; "": none
	Node string `json:"node,omitempty"`
	From string `json:"from"`
	To   string `json:"to"`
	// Src and Dst are invalid for a pod that has no address yet.
	Src  netip.Addr `json:"src,omitzero"`
	Dst  netip.Addr `json:"dst,omitzero"`
	Port uint16     `json:"port,omitempty"` // at Dst
	// Seen is the sender's address where the receiver's policies are asked, if
	// it is not Src: Node has masqueraded it.
	Seen netip.Addr `json:"seen,omitzero"`
	// Alike is how many other nodes would have done as Node did.
	Alike   int     `json:"alike,omitempty"`
	Egress  Finding `json:"egress"`
	Ingress Finding `json:"ingress"`
	// Refused says why the packet does not get there whatever policies say.
	Refused string `json:"refused,omitempty"`
}

// Allowed reports whether the packet gets there.
func (s Step) Allowed() bool { return s.Refused == "" && s.Egress.Allowed && s.Ingress.Allowed }

// Explain follows a packet to every endpoint that it can mean and says what the
// policies of both ends say there.
func (f *Facts) Explain(q Query) Explanation {
	f.mu.RLock()
	defer f.mu.RUnlock()
	x := explaining{Facts: f, hairpin: q.EnforceHairpin}
	e := Explanation{Query: q}
	if err := x.ask(q); err != nil {
		e.Error = err.Error()
		return e
	}
	x.follow()
	e.Path, e.Hints = x.path, x.likeliest()
	e.Allowed = true
	for _, s := range e.Path {
		e.Allowed = e.Allowed && s.Allowed()
	}
	return e
}

// explaining is one Explain on its way.
type explaining struct {
	*Facts
	hairpin  bool
	from, to end
	protocol model.Protocol
	port     uint16

	placed map[netip.Addr]*podFact // pods that have no address

	path  []Step
	hints []hint
}

// ask reads the query.
func (x *explaining) ask(q Query) (err error) {
	if x.from, err = x.end(q.From); err != nil {
		return fmt.Errorf("from: %w", err)
	}
	if x.to, err = x.end(q.To); err != nil {
		return fmt.Errorf("to: %w", err)
	}
	if x.from.port != 0 {
		return fmt.Errorf("from: %q has a port; policies ask for the receiver's only: leave it out", q.From)
	}
	if err = x.askPort(q); err != nil {
		return fmt.Errorf("to: %w", err)
	}
	x.place()
	if !x.meet() {
		return fmt.Errorf("%s has no %s address, so no packet goes to %s; ask for an address of the other family", q.From, model.FamilyOf(x.to.addrs[0]), q.To)
	}
	return nil
}

// askPort reads the protocol and the port, which may stand in two places.
func (x *explaining) askPort(q Query) error {
	x.protocol, x.port = cmp.Or(q.Protocol, model.TCP), cmp.Or(q.Port, x.to.port)
	ports := x.protocol == model.TCP || x.protocol == model.UDP || x.protocol == model.SCTP
	switch {
	case q.Port != 0 && x.to.port != 0 && q.Port != x.to.port:
		return fmt.Errorf("%q has port %d, and port %d is asked for; give one of them", q.To, x.to.port, q.Port)
	case ports && x.port == 0:
		return fmt.Errorf("%q has no port; write one behind it, as in %s", q.To, portExample(x.to))
	case !ports && x.port != 0:
		return fmt.Errorf("%s has no ports; leave %d out", Packet{Protocol: x.protocol}.target(), x.port)
	}
	return nil
}

// follow goes every way that the packet can.
func (x *explaining) follow() {
	for _, src := range x.from.addrs {
		for _, dst := range x.to.addrs {
			if model.FamilyOf(src) == model.FamilyOf(dst) {
				x.followTo(src, netip.AddrPortFrom(dst, x.port))
			}
		}
	}
	x.hintEnds()
}

// place gives a pod without an address one that nobody has, in the other end's
// families: what selectors and ports say of it can be answered all the same.
func (x *explaining) place() {
	x.placed = map[netip.Addr]*podFact{}
	for i, e := range []*end{&x.from, &x.to} {
		other := []*end{&x.to, &x.from}[i]
		if e.pod == nil || len(e.addrs) > 0 {
			continue
		}
		for _, family := range []model.Family{model.IPv4, model.IPv6} {
			if family == model.IPv6 && len(other.addrs) == 0 || len(other.addrs) > 0 && !slices.ContainsFunc(other.addrs, func(a netip.Addr) bool { return model.FamilyOf(a) == family }) {
				continue
			}
			a := nowhere(family, byte(i))
			e.addrs = append(slices.Clone(e.addrs), a)
			x.placed[a] = e.pod
		}
	}
}

// meet reports whether the ends have a family in common.
func (x *explaining) meet() bool {
	for _, a := range x.from.addrs {
		if slices.ContainsFunc(x.to.addrs, func(b netip.Addr) bool { return model.FamilyOf(a) == model.FamilyOf(b) }) {
			return true
		}
	}
	return false
}

// nowhere is an address that no host can have.
func nowhere(family model.Family, n byte) netip.Addr {
	if family == model.IPv4 {
		return netip.AddrFrom4([4]byte{0, 0, 0, 1 + n})
	}
	return netip.AddrFrom16([16]byte{0: 1, 15: 1 + n})
}

// known is an address as people may see it: none of those that place gave.
func (x *explaining) known(a netip.Addr) netip.Addr {
	if x.placed[a] != nil {
		return netip.Addr{}
	}
	return a
}

// podAt is whose address it is.
func (x *explaining) podAt(a netip.Addr) *podFact {
	if p := x.placed[a]; p != nil {
		return p
	}
	return x.at(a)
}

// judge is what both ends say of a packet.
func (x *explaining) judge(p Packet, enforceHairpin bool) Decision {
	q := x.question(p)
	return q.decide(enforceHairpin)
}

func (x *explaining) question(p Packet) *question {
	return &question{Facts: x.Facts, Packet: p, src: x.podAt(p.Src), dst: x.podAt(p.Dst)}
}

func (x *explaining) followTo(src netip.Addr, dst netip.AddrPort) {
	if fe, is := x.frontendAt(dst, x.protocol); is {
		x.through(fe, src)
		return
	}
	step := x.step(src, dst)
	p := Packet{src, dst.Addr(), x.protocol, dst.Port()}
	d := x.judge(p, false)
	step.Egress, step.Ingress = d.Egress, d.Ingress
	if x.isVIP(dst.Addr()) && dst.Port() != 0 { // an echo is answered
		step.Refused = x.unserved(dst)
	}
	x.add(way{step: step, out: p, in: p})
}

// way is a step with the packets that its ends judge.
type way struct {
	step    Step
	out, in Packet
	fe      *frontend // nil: none on the way
}

func (x *explaining) add(w way) {
	x.path = append(x.path, w.step)
	x.hint(w)
}

// step is one from an address to another, with names.
func (x *explaining) step(src netip.Addr, dst netip.AddrPort) Step {
	return Step{From: x.nameOf(src), To: x.nameOf(dst.Addr()), Src: x.known(src), Dst: x.known(dst.Addr()), Port: dst.Port()}
}

// nameOf is whose address it is, for people.
func (x *explaining) nameOf(a netip.Addr) string {
	for _, e := range []end{x.from, x.to} {
		if e.pod != nil && e.has(a) {
			return e.pod.Name.String()
		}
	}
	if p := x.podAt(a); p != nil {
		return p.Name.String()
	}
	if name, is := x.nodeAt(a); is {
		return "node " + name
	}
	return a.String()
}
