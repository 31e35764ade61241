package policy

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
)

// Config is what the rules depend on besides facts.
type Config struct {
	Families []model.Family
	Node     string // this node's name
	// Frontends are sets of (address, protocol, port) that our virtual servers
	// answer at; VIPs is the set of the addresses among these that are on our
	// device; Hairpin that of (endpoint, port, the same endpoint). Another
	// subsystem's: they are there before any rule of ours.
	Frontends     []string
	VIPs, Hairpin string
	// Drop drops what is denied; else it is refused: TCP by a reset, the rest by
	// a port-unreachable.
	Drop bool
	// Accept ends the way through the filter table for what is allowed from or
	// to a pod of this node; else rules of others have their say.
	Accept bool
	// UnknownDeny denies what comes from or goes to an address in this node's
	// pod range that is no known pod's.
	UnknownDeny bool
	// EnforceHairpin has policies judge a pod that reaches itself through a
	// virtual address; else it may.
	EnforceHairpin bool
	Revoked        uint32 // the bit of connection marks that says: allowed no more
	LogGroup       uint16 // the NFLOG group that is told of what is denied
}

// Owner is who wishes something of the packet filter for policy.
type Owner struct {
	Kind string // "Policy", "PolicyRefusal", "PolicyClass", "Pod"
	Name model.Name
}

// owner is the owner of what leads to classes, and refuser that of what they
// lead to: neither can be written before what it leads to.
func owner() Owner   { return Owner{Kind: "Policy"} }
func refuser() Owner { return Owner{Kind: "PolicyRefusal"} }

// Wish is all that an owner wishes from now on; nothing: it has gone.
type Wish struct {
	Owner Owner
	Keys  map[netfilter.Key]netfilter.Spec
}

// Planner works out what the packet filter is to hold on this node, and what a
// change of facts changes of it. It has one owner.
//
//	pods, holders, policies, labels   the facts; holders: the last one has the address
//	sets                              those that rules name, with the pods in them
//	classes                           the rules that pods of this node are under
//	dirty, rewish                     what the next Take has to look at
type Planner struct {
	cfg   Config
	limit int // how many members a set may have

	pods     map[string]map[string]*member // namespace, name
	holders  map[netip.Addr][]*member
	policies map[string]map[string]*ruleset // namespace, name
	labels   map[string]map[string]string   // of namespaces that were told of
	local    []netip.Addr                   // this node's addresses
	ranges   []netip.Prefix                 // in which its pods are
	serial   uint64                         // rulesets made so far

	sets    map[string]*peerSet
	classes map[string]*class
	// unsettled classes wait for the kernel: to be judged by, or to go.
	unsettled map[*class]struct{}
	placed    int       // pods of this node that policies can mean
	refuses   bool      // what refuses is wished for
	written   time.Time // when the last write that has ended began
	enforced  int       // policies that isolate any of these

	dirty      map[*member]dirt
	rewish     map[*member]struct{} // what they wish may have changed
	changed    map[string]struct{}  // classes by hash, likewise
	redispatch bool                 // and what the owner "Policy" wishes
	standing   map[netfilter.Key]netfilter.Spec
	begun      bool // Take was called

	counts map[netfilter.Key]int // members that pods wish, by set
	over   map[netfilter.Key]struct{}
}

// dirt says what about a pod has to be worked out anew.
type dirt uint8

const (
	moved  dirt = 1 << iota // its addresses and the sets it is in
	judged                  // what isolates it
)

// NewPlanner makes a planner that knows nothing.
func NewPlanner(cfg Config) *Planner {
	return &Planner{
		cfg:        cfg,
		limit:      netfilter.MaxElem,
		pods:       map[string]map[string]*member{},
		holders:    map[netip.Addr][]*member{},
		policies:   map[string]map[string]*ruleset{},
		labels:     map[string]map[string]string{},
		sets:       map[string]*peerSet{},
		classes:    map[string]*class{},
		unsettled:  map[*class]struct{}{},
		dirty:      map[*member]dirt{},
		rewish:     map[*member]struct{}{},
		changed:    map[string]struct{}{},
		redispatch: true,
		counts:     map[netfilter.Key]int{},
		over:       map[netfilter.Key]struct{}{},
	}
}

// Written says that a write to the kernel has ended that began at some time: what
// was wished before then and does not stand has been refused, or waits for what
// was.
func (p *Planner) Written(began time.Time) { p.written = began }

// Take returns the wishes that have changed since the last call, in an order in
// which each can be written when those before it have been. stands reports
// whether all that an owner wished last is there, what it no longer wishes
// notwithstanding: a pod leaves the rules it was under only for rules that
// stand. So it has to be called again when that changes, and at the time it
// returns; zero: none.
//
// The first call wishes for all pods at once, as the kernel may have it from a
// former run already. It has to wait until all sources have told what they know.
func (p *Planner) Take(now time.Time, stands func(Owner) bool) (wishes []Wish, again time.Time) {
	if len(p.unsettled)+len(p.dirty)+len(p.rewish) == 0 && !p.redispatch {
		p.begun = true
		return nil, time.Time{}
	}
	t := &taking{Planner: p, now: now, stands: stands, memo: map[string]*class{}, place: map[*member]struct{}{}}
	t.progress()
	t.refresh()
	t.placeAll()
	t.endSets()
	p.begun = true
	return t.wishes(), t.again()
}

// taking is one Take on its way.
type taking struct {
	*Planner
	now    time.Time
	stands func(Owner) bool
	memo   map[string]*class    // by the policies it is of
	place  map[*member]struct{} // pods that may have to change their place
	ended  []*peerSet           // sets that lost a class
}

// progress looks at the classes that wait for the kernel.
func (t *taking) progress() {
	for c := range t.unsettled {
		if c.idle() {
			t.fade(c)
		} else {
			t.rise(c)
		}
	}
}

// refresh works out anew what changed facts bear on.
func (t *taking) refresh() {
	for m, what := range t.dirty {
		if what&moved != 0 {
			t.join(m)
		}
	}
	for m := range t.dirty { // when all have the addresses they have now
		t.judge(m)
		t.place[m] = struct{}{}
		t.rewish[m] = struct{}{}
	}
	t.dirty = emptied(t.dirty)
}

// placeAll puts pods where they are to be judged.
func (t *taking) placeAll() {
	for m := range t.place {
		t.settle(m)
	}
	for c := range t.unsettled {
		switch {
		case len(c.leaving) > 0:
		case c.idle():
			t.fade(c)
		case c.ready: // nothing has to be awaited any more
			delete(t.unsettled, c)
		}
	}
}

// wishes collects what has changed: rules before pods go into their sets, and
// rules that nobody needs last.
func (t *taking) wishes() []Wish {
	var out, gone []Wish
	if !t.refuses {
		t.refuses = true
		out = append(out, Wish{refuser(), t.refusals()})
	}
	for _, hash := range slices.Sorted(maps.Keys(t.changed)) {
		w := Wish{Owner: classOwner(hash)}
		if c := t.classes[hash]; c != nil {
			w.Keys = c.keys(t.cfg.Families)
			out = append(out, w)
			continue
		}
		gone = append(gone, w)
	}
	if t.redispatch {
		t.redispatch = false
		if keys := t.static(); !maps.Equal(keys, t.standing) {
			t.standing = keys
			out = append(out, Wish{owner(), keys})
		}
	}
	byName := func(a, b *member) int { return a.pod.Name.Compare(b.pod.Name) }
	for _, m := range slices.SortedFunc(maps.Keys(t.rewish), byName) {
		if keys := t.keysOf(m); !maps.Equal(keys, m.wish) {
			t.count(m.wish, -1)
			t.count(keys, 1)
			m.wish = keys
			out = append(out, Wish{m.owner(), keys})
		}
		t.forget(m)
	}
	t.rewish, t.changed = emptied(t.rewish), emptied(t.changed)
	return append(out, gone...)
}

// emptied is an empty map in place of another: ranging over one costs the size
// that it once had.
func emptied[K comparable, V any](m map[K]V) map[K]V {
	if len(m) == 0 {
		return m
	}
	return map[K]V{}
}

// again is when a class will have waited for long enough. One that is about to
// go has no time to meet, but nothing else may happen for it to go by.
func (t *taking) again() (at time.Time) {
	for c := range t.unsettled {
		due := c.since.Add(patience)
		if c.idle() {
			due = t.now.Add(patience)
		}
		if !due.After(t.now) && !c.ready && !c.late {
			due = t.now.Add(underway) // nothing has been written yet
		}
		if due.After(t.now) && (at.IsZero() || due.Before(at)) {
			at = due
		}
	}
	return at
}

// Status are sizes, for metrics.
type Status struct {
	Policies        int // that isolate a pod of this node
	LocalPods       int // pods of this node that policies can mean
	IsolatedIngress int // of these
	IsolatedEgress  int
	Classes         int // different rules that they are under
	Sets            int // that the rules look into
}

// Status is what is wished for now.
func (p *Planner) Status() Status {
	s := Status{Policies: p.enforced, LocalPods: p.placed, Classes: len(p.classes), Sets: len(p.sets)}
	for _, c := range p.classes {
		if c.side == Ingress {
			s.IsolatedIngress += len(c.users)
		} else {
			s.IsolatedEgress += len(c.users)
		}
	}
	return s
}
