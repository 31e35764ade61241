package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"sluice.dev/sluice/internal/conntrack"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/nflog"
	"sluice.dev/sluice/internal/status"
	"sluice.dev/sluice/internal/sysctl"
	"sluice.dev/sluice/nodeport"
	"sluice.dev/sluice/policy"
)

// policyConfig says how NetworkPolicy is enforced.
type policyConfig struct {
	enable   bool
	deny     string
	accept   bool
	unknown  string
	hairpin  string
	bit      int
	log      bool
	logGroup uint16
}

// The words of the flags.
const (
	denyReject     = "reject"
	denyDrop       = "drop"
	unknownAllow   = "allow"
	unknownDeny    = "deny"
	hairpinAllow   = "allow"
	hairpinEnforce = "enforce"
)

func (c *policyConfig) flags(f *pflag.FlagSet) {
	f.BoolVar(&c.enable, "enable-policy", true, "enforce NetworkPolicy; false removes what was enforced before")
	f.StringVar(&c.deny, "policy-deny-action", denyReject, "what a packet meets that no policy allows: reject (TCP gets a reset, the rest a port-unreachable) or drop")
	f.BoolVar(&c.accept, "policy-accept", false, "accept what policy allows from and to pods of this node, before other rules of the filter table have their say")
	f.StringVar(&c.unknown, "policy-unknown-pods", unknownAllow, "what becomes of traffic of an address in this node's pod range that is no known pod's: allow, or deny until the pod is known")
	f.StringVar(&c.hairpin, "policy-hairpin", hairpinAllow, "a pod that reaches itself through a Service: allow, or enforce its policies")
	f.IntVar(&c.bit, "policy-connmark-bit", 15, "bit of the connection mark that says that policy does not allow the connection any more, 0 to 31")
	f.BoolVar(&c.log, "policy-log", false, "log what is denied, a line for each connection")
	f.Uint16Var(&c.logGroup, "policy-log-group", 100, "NFLOG group that is told of what is denied")
}

func (c policyConfig) check() error {
	for _, f := range []struct{ flag, value, one, other string }{
		{"policy-deny-action", c.deny, denyReject, denyDrop},
		{"policy-unknown-pods", c.unknown, unknownAllow, unknownDeny},
		{"policy-hairpin", c.hairpin, hairpinAllow, hairpinEnforce},
	} {
		if f.value != f.one && f.value != f.other {
			return wrong(f.flag, "%q: use %s or %s", f.value, f.one, f.other)
		}
	}
	if c.bit < 0 || c.bit > 31 {
		return wrong("policy-connmark-bit", "%d: a connection mark has the bits 0 to 31", c.bit)
	}
	return nil
}

// enforcer is the part of the agent that enforces NetworkPolicy, beside the
// rules: what it knows, the connections that stand, and what was denied. Nil:
// policy is off.
type enforcer struct {
	facts   *policy.Facts
	planner *policy.Planner
	denials *policy.Denials
	revoker *conntrack.Revoker
	node    string
	hairpin bool // a pod that reaches itself is judged
	// switches keeps, beside what every node needs, those that have packets
	// between the pods on a bridge judged.
	switches *sysctl.Keeper
	group    uint16
	log      *slog.Logger
}

func newEnforcer(s settings, families []model.Family, marks conntrack.Marks, switches *sysctl.Keeper) *enforcer {
	if !s.policy.enable {
		return nil
	}
	e := &enforcer{
		facts: policy.NewFacts(s.source.nodeName), node: s.source.nodeName,
		switches: switches, group: s.policy.logGroup, log: s.log,
	}
	switches.Also(sysctl.Bridges{Root: "/", Pods: e.facts.LocalAddrs}.Settings)
	e.planner = policy.NewPlanner(planning(s, families))
	var lines *slog.Logger
	if s.policy.log {
		lines = s.log
	}
	e.denials = policy.NewDenials(policy.DenialOptions{Facts: e.facts, Node: s.source.nodeName, Log: lines})
	e.hairpin = s.policy.hairpin == hairpinEnforce
	e.revoker = conntrack.NewRevoker(conntrack.RevokerOptions{
		Marks: marks, Bit: 1 << s.policy.bit, Audit: s.audit, Log: s.log,
		Allowed: func(c conntrack.Conn) bool {
			return e.facts.AllowsHere(policy.Packet{
				Src: c.Client.Addr(), Dst: c.Backend.Addr(), Protocol: c.Protocol, Port: c.Backend.Port(),
			}, e.hairpin)
		},
	})
	return e
}

// planning is what the rules are to be.
func planning(s settings, families []model.Family) policy.Config {
	frontends, vips, hairpin := nodeport.Sets()
	return policy.Config{
		Families: families, Node: s.source.nodeName,
		Frontends: frontends, VIPs: vips, Hairpin: hairpin,
		Drop: s.policy.deny == denyDrop, Accept: s.policy.accept,
		UnknownDeny: s.policy.unknown == unknownDeny, EnforceHairpin: s.policy.hairpin == hairpinEnforce,
		Revoked: 1 << s.policy.bit, LogGroup: s.policy.logGroup,
	}
}

// event takes a fact in, before the engine does: connections are judged by what
// is known when the rules stand. With a pod of this node a bridge may have come.
func (e *enforcer) event(ev model.Event) {
	if e == nil {
		return
	}
	e.facts.Apply(ev)
	if pod, ok := ev.Put.(model.Pod); ok && pod.Node == e.node {
		e.switches.Kick()
	}
}

// rules makes the rules that the engine follows; nil: none.
func (e *enforcer) rules() *policy.Planner {
	if e == nil {
		return nil
	}
	return e.planner
}

// enforced: rules have changed, and connections have to be judged again.
func (e *enforcer) enforced() {
	if e != nil {
		e.revoker.Kick()
	}
}

// shown is what of it can be asked for over HTTP.
func (e *enforcer) shown(counts func() policy.Status) *status.Policy {
	if e == nil {
		return nil
	}
	return &status.Policy{
		Explain: func(q policy.Query) policy.Explanation {
			q.EnforceHairpin = e.hairpin
			return e.facts.Explain(q)
		},
		Denials: e.denials, Status: counts,
		Revoked: func() uint64 { return e.revoker.Stats().Revoked },
	}
}

// run judges connections and hears of what is denied, until ctx ends.
func (e *enforcer) run(ctx context.Context, group *errgroup.Group) {
	if e == nil {
		return
	}
	group.Go(func() error { e.revoker.Run(ctx); return nil })
	group.Go(func() error { e.listen(ctx); return nil })
}

// deafPause is the time between two attempts to hear of what is denied.
const deafPause = 10 * time.Second

// listen hears of what is denied. Who cannot hear enforces all the same.
func (e *enforcer) listen(ctx context.Context) {
	said := ""
	for ctx.Err() == nil {
		err := e.hear(ctx)
		if err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			e.log.Warn("what policy denies cannot be shown", "err", err)
		}
		wait(ctx, deafPause)
	}
}

func (e *enforcer) hear(ctx context.Context) (err error) {
	listener, err := nflog.Listen(e.group)
	if err != nil {
		return err
	}
	// Left open it would hold the group against the next attempt.
	defer func() { err = errors.Join(err, listener.Close()) }()
	return listener.Run(ctx, func(r nflog.Record) {
		e.denials.Tell(policy.Refused{
			At: r.At, Prefix: r.Prefix, Src: r.Src, Dst: r.Dst, Protocol: r.Protocol, In: r.In,
		})
	})
}

// problems are why the node does not do what it is there for, whatever its tables
// hold. Packets that pass by the rules are one where there are rules.
func problems(switches *sysctl.Keeper, e *enforcer, enforced policy.Status) []string {
	list := switches.Problems(sysctl.Services)
	if e != nil && enforced.IsolatedIngress+enforced.IsolatedEgress > 0 {
		list = slices.Concat(list, switches.Problems(sysctl.Policies))
	}
	return list
}
