package policy

import (
	"sluice.dev/sluice/internal/model"
)

// Finding is what the policies of one end say of a packet.
type Finding struct {
	Side    Side
	Allowed bool
	Pod     model.Name   // whose policies were asked; zero: no pod that policies may select
	Isolate []model.Name // the policies that isolate it in this direction, in order
	Policy  model.Name   // that allows; zero: none had to, or none does
	Rule    int          // its rule, as the object counts
	// Why is one line for people: by which rule and peer it is allowed, or
	// what is missing.
	Why string
}

// Decision is what both ends say of a packet. Each node enforces that of the
// pods it has.
type Decision struct{ Egress, Ingress Finding }

// Allowed reports whether both ends allow the packet.
func (d Decision) Allowed() bool { return d.Egress.Allowed && d.Ingress.Allowed }

// Allows says what NetworkPolicy has to say of a packet, on whatever nodes its
// ends are. Replies need no permission, and are not to be asked about.
//
// An address is taken for whose it is: whether a packet may carry it as its
// source is not asked. A pod that talks to itself may, see AllowsHere.
func (f *Facts) Allows(p Packet) Decision {
	f.mu.RLock()
	defer f.mu.RUnlock()
	q := f.question(p)
	return q.decide(false)
}

// AllowsHere reports whether this node lets a packet pass: of its ends only
// those count that are pods of this node. A pod that talks to itself may,
// unless hairpin is enforced: then the packet has come back through a virtual
// address and is judged as if from another pod.
func (f *Facts) AllowsHere(p Packet, enforceHairpin bool) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	q := f.question(p)
	if q.src != nil && q.src == q.dst && !enforceHairpin {
		return true
	}
	for _, side := range [...]Side{Egress, Ingress} {
		q.side = side
		if f.here(q.subject()) && !q.allowed() {
			return false
		}
	}
	return true
}

func (f *Facts) question(p Packet) question {
	return question{Facts: f, Packet: p, src: f.at(p.Src), dst: f.at(p.Dst)}
}

// allowed is the verdict of the side's pod.
func (q *question) allowed() bool {
	if len(q.subject().isolate[q.side]) == 0 || q.exempt() {
		return true
	}
	_, ok := q.allowing()
	return ok
}

// decide is what both sides say.
func (q *question) decide(enforceHairpin bool) Decision {
	itself := q.src != nil && q.src == q.dst && !enforceHairpin
	return Decision{q.finding(Egress, itself), q.finding(Ingress, itself)}
}

// finding is what one side says, with its reason.
func (q *question) finding(side Side, itself bool) Finding {
	q.side = side
	pod := q.subject()
	if pod == nil {
		return Finding{Side: side, Allowed: true, Why: q.stranger()}
	}
	found := Finding{Side: side, Allowed: true, Pod: pod.Name}
	for _, np := range pod.isolate[side] {
		found.Isolate = append(found.Isolate, np.Name)
	}
	switch {
	case itself:
		found.Why = "a pod may always talk to itself"
	case len(found.Isolate) == 0:
		found.Why = "no policy isolates " + pod.Name.String() + " for " + side.String()
	case q.exempt():
		found.Why = q.ownNode()
	default:
		m, ok := q.allowing()
		if !ok {
			found.Allowed, found.Why = false, q.missing()
			break
		}
		found.Policy, found.Rule, found.Why = m.policy.Name, m.rule.Index, q.grant(m)
	}
	return found
}
