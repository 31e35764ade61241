package policy

import (
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
	Kind string // "Policy", "PolicyClass", "Pod"
	Name model.Name
}

// Wish is all that an owner wishes from now on; nothing: it has gone.
type Wish struct {
	Owner Owner
	Keys  map[netfilter.Key]netfilter.Spec
}

// Planner works out what the packet filter is to hold on this node, and what a
// change of facts changes of it. It has one owner.
type Planner struct{ cfg Config }

// NewPlanner makes a planner that knows nothing.
func NewPlanner(cfg Config) *Planner { return &Planner{cfg: cfg} }

// Apply takes one event's fact in.
func (p *Planner) Apply(ev model.Event) { _ = ev }

// Take returns the wishes that have changed since the last call. stands reports
// whether what an owner wished last has come true in the kernel: a pod leaves
// the rules it was under only for rules that stand. So it has to be called
// again when that changes, and at the time it returns; zero: none.
func (p *Planner) Take(now time.Time, stands func(Owner) bool) (wishes []Wish, again time.Time) {
	_, _ = now, stands
	return nil, time.Time{}
}

// Problems are the policies that are not enforced as they say, in order.
func (p *Planner) Problems() []model.Problem { return nil }
