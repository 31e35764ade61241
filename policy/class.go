package policy

import (
	"encoding/base32"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
)

// patience is how long a class may take to stand. After it, and when the kernel
// was written to meanwhile, the pods that are to be under it are cut off, and it
// is left out of what is written for others.
const patience = 2 * time.Second

// underway is how long a wish may take from here to who writes it, be it one of
// thousands: a write that began sooner need not have had it.
const underway = time.Second

// class is what pods are under in one direction: the rules of all policies that
// isolate them. Its name is made of just that: other rules are another class,
// with a chain of its own, and rules are never changed in place.
type class struct {
	side    Side
	hash    string
	entries []entry
	specs   map[string]*setSpec
	sets    []*peerSet // while it is wished for

	users   map[*member]struct{} // who is to be under it
	placed  map[*member]struct{} // who is wished to be
	leaving []*member            // who was, and may be in the kernel's set and in no other

	since    time.Time // when it was wished for
	stood    bool      // its chain and sets are there, without the pods in them
	ready    bool      // pods can be put under it
	late     bool      // it was not ready in time
	fading   bool      // nobody is under it
	dispatch bool      // the last wish of the owner "Policy" leads to it
}

// newClass is the class of the policies that isolate a pod.
func newClass(side Side, policies []*ruleset) *class {
	c := &class{
		side: side, specs: map[string]*setSpec{},
		users: map[*member]struct{}{}, placed: map[*member]struct{}{},
	}
	all := make([]*grants, len(policies))
	for i, np := range policies {
		all[i] = &np.rules[side]
	}
	c.entries = entries(all)
	for _, e := range c.entries {
		for _, name := range e.sets() {
			for _, g := range all {
				if s := g.sets[name]; s != nil {
					c.specs[name] = s
				}
			}
		}
	}
	c.hash = c.encode().hash()
	return c
}

// sets are those that an entry names.
func (e entry) sets() []string {
	var out []string
	if e.peer != "" {
		out = append(out, e.peer)
	}
	for _, p := range e.ports {
		if p.named != "" {
			out = append(out, p.named)
		}
	}
	return out
}

func (c *class) encode() *encoding {
	e := new(encoding).number(int(c.side)).number(len(c.entries))
	for _, entry := range c.entries {
		e.text(entry.peer).number(len(entry.ports))
		for _, p := range entry.ports {
			e.number(int(p.protocol)).number(int(p.numbers.First)).number(int(p.numbers.Last)).text(p.named)
		}
	}
	return e
}

// classOwner is the owner of a class's chain and sets.
func classOwner(hash string) Owner { return Owner{Kind: "PolicyClass", Name: model.Name{Name: hash}} }

// letter tells names of a side from the other's.
func letter(s Side) string {
	if s == Ingress {
		return "I"
	}
	return "E"
}

// name is that of the class's chain, and of the set of the pods under it.
func (c *class) name() string { return prefix + letter(c.side) + "-" + c.hash }

// keys are what a class wishes: its chain, the sets that it names, and a set
// for the pods.
func (c *class) keys(families []model.Family) map[netfilter.Key]netfilter.Spec {
	out := map[netfilter.Key]netfilter.Spec{}
	for _, f := range families {
		out[netfilter.SetKey(f, c.name())] = netfilter.SetSpec(netfilter.HashIP)
		for _, s := range c.specs {
			s.keys(f, out)
		}
		out[netfilter.ChainKey(f, netfilter.Filter, c.name())] = c.chain(f).Spec(f)
	}
	return out
}

// chain is the class's rules in a family: what is allowed goes back behind the
// jump that led to the side's dispatch, and the rest is denied.
func (c *class) chain(f model.Family) netfilter.Chain {
	var out netfilter.Chain
	for _, e := range c.entries {
		if s := c.specs[e.peer]; s == nil || !s.vain(f) {
			out = append(out, e.rules(peerOf(c.side))...)
		}
	}
	return append(out, netfilter.Rule{Do: netfilter.GoTo(chainDeny(c.side))})
}

// subjectOf is the end of a packet that a side's pod is, peerOf the other.
func subjectOf(s Side) netfilter.Side {
	if s == Ingress {
		return netfilter.Dst
	}
	return netfilter.Src
}

func peerOf(s Side) netfilter.Side {
	if s == Ingress {
		return netfilter.Src
	}
	return netfilter.Dst
}

// buckets is how many parts a side's dispatch has.
const buckets = 16

// bucket is the part of the dispatch that leads to the class.
func (c *class) bucket() int {
	sum, _ := base32.StdEncoding.DecodeString(c.hash)
	return int(sum[0]) % buckets
}

func (c *class) idle() bool { return len(c.users)+len(c.placed) == 0 }

// dispatched reports whether the side's dispatch is to lead to the class. It
// does not to one that never came to stand: the kernel takes no chain that
// leads to one that it lacks.
func (c *class) dispatched() bool { return !c.fading && (c.stood || !c.late) }

// rise takes in how far a class has come that pods are to be under.
func (t *taking) rise(c *class) {
	t.drain(c)
	c.stood = c.stood || t.stands(classOwner(c.hash))
	overdue := !t.now.Before(c.since.Add(patience))
	filled := !slices.ContainsFunc(c.sets, func(s *peerSet) bool { return !s.filled(t.stands) })
	switch {
	case c.ready:
	case c.stood && c.dispatch && t.stands(owner()) && (filled || overdue):
		c.ready, c.late = true, false
		t.move(c)
	case overdue && !c.late && t.tried(c):
		c.late, t.redispatch = true, true
		t.move(c)
	case c.stood && !c.dispatch:
		t.redispatch = true
	}
}

// tried reports whether the kernel has been written to since a class was wished
// for: one that does not stand then was refused. Before, the kernel is slow, or
// others keep it locked, and those who were under other rules stay there.
func (t *taking) tried(c *class) bool { return t.written.After(c.since.Add(underway)) }

// move has everybody whom a class concerns be placed anew.
func (t *taking) move(c *class) {
	maps.Copy(t.place, c.users)
	maps.Copy(t.place, c.placed)
}

// fade takes a class back that nobody is under, when those who left it are where
// they belong: first nothing leads to it any more, then it goes.
func (t *taking) fade(c *class) {
	switch t.drain(c); {
	case len(c.leaving) > 0:
	case !c.fading:
		c.fading, c.ready = true, false
		t.redispatch = true
	case !c.dispatch && t.stands(owner()):
		t.end(c)
	}
}

// drain forgets those who left a class for a place that they have by now.
func (t *taking) drain(c *class) {
	for n := len(c.leaving); n > 0 && t.stands(c.leaving[n-1].owner()); n-- {
		c.leaving = c.leaving[:n-1]
	}
}

func (t *taking) end(c *class) {
	delete(t.classes, c.hash)
	delete(t.unsettled, c)
	t.changed[c.hash] = struct{}{}
	for _, s := range c.sets {
		s.classes--
		t.ended = append(t.ended, s)
	}
}

// classOf is the class of policies, in order of their names; nil: of none. It
// is wished for from now on.
func (t *taking) classOf(side Side, policies []*ruleset) *class {
	if len(policies) == 0 {
		return nil
	}
	id := binary.AppendUvarint(nil, uint64(side))
	for _, np := range policies {
		id = binary.AppendUvarint(id, np.serial)
	}
	if c := t.memo[string(id)]; c != nil {
		return c
	}
	c := newClass(side, policies)
	if is := t.classes[c.hash]; is != nil {
		c = is
	} else {
		t.begin(c)
	}
	t.memo[string(id)] = c
	return c
}

func (t *taking) begin(c *class) {
	c.since = t.now
	for _, name := range slices.Sorted(maps.Keys(c.specs)) {
		c.sets = append(c.sets, t.acquire(c.specs[name]))
	}
	t.classes[c.hash] = c
	t.unsettled[c] = struct{}{}
	t.changed[c.hash] = struct{}{}
	t.redispatch = true
}
