package policy

import (
	"net/netip"
	"slices"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
)

// member is a pod, as what it is a member of.
type member struct {
	pod   model.Pod
	gone  bool
	fresh bool // it is another pod than was placed, or none was

	addrs   []netip.Addr // those that are its own, of the families in use
	here    bool         // policies can mean it, and it is on this node
	in      []*peerSet
	isolate [2][]*ruleset // the policies that isolate it, by Side, in order
	target  [2]*class     // what it is to be under; nil: nothing isolates it
	at      [2]place      // where it is wished to be
	wish    map[netfilter.Key]netfilter.Spec
}

// place is where a pod is in one direction: under a class, cut off, or (the
// zero value) free.
type place struct {
	class *class
	none  bool
}

func (m *member) owner() Owner { return Owner{Kind: "Pod", Name: m.pod.Name} }

// join works out a pod's addresses and the sets it is in.
func (t *taking) join(m *member) {
	m.addrs = nil
	for _, a := range claims(m.pod) {
		if t.holder(a) == m && slices.Contains(t.cfg.Families, model.FamilyOf(a)) && !slices.Contains(m.addrs, a) {
			m.addrs = append(m.addrs, a)
		}
	}
	for _, s := range m.in {
		delete(s.members, m)
	}
	m.in = m.in[:0]
	if len(m.addrs) == 0 {
		return
	}
	labels := t.labelsOf(m.pod.Name.Namespace)
	for _, s := range t.sets {
		if s.typ != netfilter.HashNet && s.holds(&m.pod, labels) {
			s.members[m] = struct{}{}
			m.in = append(m.in, s)
		}
	}
}

// judge works out what isolates a pod of this node, and what it is to be under.
func (t *taking) judge(m *member) {
	if here := len(m.addrs) > 0 && m.pod.Node == t.cfg.Node && t.cfg.Node != ""; here != m.here {
		m.here = here
		t.placed += -1
		if here {
			t.placed += 2
		}
	}
	for side := range m.target {
		t.isolate(m, Side(side))
	}
}

// isolate has a pod be told what isolates it in a direction, and what it is to
// be under.
func (t *taking) isolate(m *member, side Side) {
	was := m.isolate[side]
	m.isolate[side] = t.isolating(m, side)
	for _, np := range m.isolate[side] {
		if np.users++; np.users == 1 {
			t.enforced++
		}
	}
	for _, np := range was {
		if np.users--; np.users == 0 {
			t.enforced--
		}
	}
	old, now := m.target[side], t.classOf(side, m.isolate[side])
	if old == now {
		return
	}
	m.target[side] = now
	if now != nil {
		now.users[m] = struct{}{}
		t.revive(now)
	}
	if old != nil {
		delete(old.users, m)
		t.unsettled[old] = struct{}{}
	}
}

// isolating are the policies that isolate a pod in a direction, in order.
func (t *taking) isolating(m *member, side Side) []*ruleset {
	if !m.here {
		return nil
	}
	var out []*ruleset
	for _, np := range t.policies[m.pod.Name.Namespace] {
		if np.isolates[side] && np.pods.Matches(m.pod.Labels) {
			out = append(out, np)
		}
	}
	slices.SortFunc(out, func(a, b *ruleset) int { return a.name.Compare(b.name) })
	return out
}

// revive takes a class back into use that was about to go.
func (t *taking) revive(c *class) {
	if c.fading {
		c.fading, c.since = false, t.now
		t.redispatch = true
	}
	t.unsettled[c] = struct{}{}
}

// settle puts a pod where it belongs, as far as the kernel has come: it leaves
// one place only for another that stands.
func (t *taking) settle(m *member) {
	for side := range m.at {
		was, now := m.at[side], t.belongs(m, side)
		if was == now {
			continue
		}
		m.at[side] = now
		t.rewish[m] = struct{}{}
		if was.class != nil {
			delete(was.class.placed, m)
			was.class.leaving = append(was.class.leaving, m)
			t.unsettled[was.class] = struct{}{}
		}
		if now.class != nil {
			now.class.placed[m] = struct{}{}
		}
	}
	m.fresh = !m.here
}

// belongs is where a pod is to be in a direction for now.
//
//   - The first Take does not wait for the kernel: it may have it all.
//   - Else the pod stays where it is until what it is to be under can be met,
//     be that free: it never was isolated.
//   - But a pod that is new has to wait cut off, and so does everybody when
//     it takes too long.
func (t *taking) belongs(m *member, side int) place {
	target, was := m.target[side], m.at[side]
	switch {
	case target == nil:
		return place{}
	case target.ready || !t.begun:
		return place{class: target}
	case target.late, was.class != nil && was.class.late, m.fresh:
		return place{none: true}
	}
	return was
}

// keysOf are what a pod wishes: to be a member of sets. It wishes the sets
// themselves, too: one that went while a pod is still on its way out of it would
// be thought to hold the pod when it comes again.
func (p *Planner) keysOf(m *member) map[netfilter.Key]netfilter.Spec {
	out := map[netfilter.Key]netfilter.Spec{}
	for _, a := range m.addrs {
		f := model.FamilyOf(a)
		is := func(set string) {
			out[netfilter.SetKey(f, set)] = netfilter.SetSpec(netfilter.HashIP)
			out[netfilter.MemberKey(f, set, netfilter.Addr(a))] = netfilter.Spec{}
		}
		for _, s := range m.in {
			out[netfilter.SetKey(f, s.name)] = netfilter.SetSpec(s.typ)
			for _, e := range s.entries(&m.pod, a) {
				out[netfilter.MemberKey(f, s.name, e)] = netfilter.Spec{}
			}
		}
		for side, at := range m.at {
			switch {
			case at.none:
				is(setNone(Side(side)))
			case at.class != nil:
				is(at.class.name())
				is(nameBucket(Side(side), at.class.bucket()))
			}
		}
		if p.cfg.Accept && m.here {
			is(setPods)
		}
		if p.cfg.UnknownDeny && (m.here || p.inRange(a)) {
			is(setKnown)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// inRange reports whether an address is where this node's pods are.
func (p *Planner) inRange(a netip.Addr) bool {
	return slices.ContainsFunc(p.ranges, func(r netip.Prefix) bool { return r.Contains(a) })
}
