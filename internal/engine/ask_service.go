package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"sluice.dev/sluice/healthcheck"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/netfilter"
	"sluice.dev/sluice/internal/reconcile"
	"sluice.dev/sluice/internal/vip"
	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/nodeport"
)

// ErrNoService is why there is no state of a Service.
var ErrNoService = errors.New("there is no such Service, or it is not proxied: headless, of type ExternalName, or another proxy's")

// lookLimit is how long a table's loop may take to say how keys stand: one that
// waits for its kernel is said to.
const lookLimit = 2 * time.Second

// lookers are the loops whose keys can be looked at.
type lookers struct {
	rules     looker[netfilter.Key]
	servers   looker[ipvs.Key]
	addresses looker[vip.Key]
	health    looker[healthcheck.Key] // nil: nothing is answered
}

type looker[K comparable] interface {
	Look(ctx context.Context, keys []K) (map[K]reconcile.Standing, error)
}

// Progress is how far something that is wanted has come.
type Progress string

// The stages, from the best to the worst.
const (
	Programmed Progress = "programmed" // every table holds it
	Pending    Progress = "pending"    // some table does not yet
	Waiting    Progress = "waiting"    // it has its turn later
	Withheld   Progress = "withheld"   // it is not to be
	Unserved   Progress = "unserved"   // this kernel does not serve the family
	Unknown    Progress = "unknown"    // a loop does not say
	Failing    Progress = "failing"    // a table has refused it
)

// ServiceState is what is known of one Service here.
type ServiceState struct {
	Explained model.Explanation
	Frontends []FrontendState // of those of Explained, in the same order
	Health    []Stage         // of those of Explained, in the same order
}

// Stage is a Progress and, unless it is Programmed, why it is no better.
type Stage struct {
	Progress Progress
	Why      string
}

// FrontendState is how far a frontend has come.
type FrontendState struct {
	Stage
	// Leaving are destinations that are not wanted any more and still there:
	// those that drain until their connections have ended.
	Leaving []netip.AddrPort
}

// Service is what is known of one Service here: what facts mean for it, and what
// the tables hold of that. ErrNoService: nothing.
func (e *Engine) Service(ctx context.Context, name model.Name) (ServiceState, error) {
	var state ServiceState
	var known, waits bool
	err := e.Ask(ctx, func(s *model.Store) {
		if state.Explained, known = model.Explain(s, name); known {
			waits = e.waits(state.Explained.Service)
		}
	})
	switch {
	case err != nil:
		return ServiceState{}, err
	case !known:
		return ServiceState{}, fmt.Errorf("Service %s: %w", name, ErrNoService)
	}
	e.stages(ctx, &state, waits)
	return state, nil
}

// stages fills in how far everything has come.
func (e *Engine) stages(ctx context.Context, state *ServiceState, waits bool) {
	var all keys
	each := make([]keys, len(state.Explained.Frontends))
	for i, f := range state.Explained.Frontends {
		if f.Withheld == (model.Reason{}) {
			each[i] = keysOf(f.Frontend, e.opts.IPVS)
			all.add(each[i])
		}
	}
	for _, h := range state.Explained.Health {
		all.health = append(all.health, healthcheck.Key{Addr: h.Addr})
	}
	seen := e.lookAt(ctx, all)
	for i, f := range state.Explained.Frontends {
		stage, settled := e.stage(f.Addr, f.Withheld, waits)
		s := FrontendState{Stage: stage}
		if !settled {
			s.Stage = seen.stage(each[i])
		}
		s.Leaving = seen.leaving(each[i])
		state.Frontends = append(state.Frontends, s)
	}
	for _, h := range state.Explained.Health {
		stage, settled := e.stage(h.Addr, h.Withheld, waits)
		if !settled {
			stage = worst(stageOf("healthcheck", []healthcheck.Key{{Addr: h.Addr}}, seen.health))
		}
		state.Health = append(state.Health, stage)
	}
}

// stage is that of what no table has to be asked for.
func (e *Engine) stage(at netip.AddrPort, withheld model.Reason, waits bool) (s Stage, settled bool) {
	family := model.FamilyOf(at.Addr())
	switch {
	case withheld != (model.Reason{}):
		return Stage{Withheld, withheld.Text}, true
	case !slices.Contains(e.opts.Families, family):
		return Stage{Unserved, fmt.Sprintf("this node's kernel does not serve %s", family)}, true
	case waits:
		return Stage{Waiting, "sources are to tell all they know first, and what all Services depend on is programmed"}, true
	}
	return Stage{}, false
}

// keys are what a frontend wants of the tables. The virtual server is among them
// also when it is not wanted: its destinations may be on their way out.
type keys struct {
	server    ipvs.Key
	rules     []netfilter.Key
	servers   []ipvs.Key
	addresses []vip.Key
	health    []healthcheck.Key
}

func keysOf(f model.Frontend, opts ipvs.Options) keys {
	view := model.View{Frontends: []model.Frontend{f}}
	return keys{
		server:    ipvs.Key{VirtualServer: ipvs.VirtualServer{Addr: f.Addr, Protocol: f.Protocol}},
		rules:     slices.Collect(maps.Keys(nodeport.Desired(view))),
		servers:   slices.Collect(maps.Keys(ipvs.Desired(view, opts))),
		addresses: slices.Collect(maps.Keys(vip.Desired(view))),
	}
}

func (k *keys) add(o keys) {
	k.rules = append(k.rules, o.rules...)
	k.servers = append(append(k.servers, o.server), o.servers...)
	k.addresses = append(k.addresses, o.addresses...)
}

// seen is how keys stand in the tables.
type seen struct {
	rules     standings[netfilter.Key]
	servers   standings[ipvs.Key]
	addresses standings[vip.Key]
	health    standings[healthcheck.Key]
}

type standings[K comparable] struct {
	of  map[K]reconcile.Standing
	err error
}

// lookAt asks all loops at once: they wait for their kernels independently.
func (e *Engine) lookAt(ctx context.Context, k keys) (s seen) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	var loops sync.WaitGroup
	loops.Go(func() { s.rules.of, s.rules.err = e.look.rules.Look(ctx, k.rules) })
	loops.Go(func() { s.servers.of, s.servers.err = e.look.servers.Look(ctx, k.servers) })
	loops.Go(func() { s.addresses.of, s.addresses.err = e.look.addresses.Look(ctx, k.addresses) })
	if e.look.health != nil {
		loops.Go(func() { s.health.of, s.health.err = e.look.health.Look(ctx, k.health) })
	}
	loops.Wait()
	return s
}

// stage is the worst of the tables'.
func (s seen) stage(k keys) Stage {
	return worst(
		stageOf("netfilter", k.rules, s.rules),
		stageOf("ipvs", k.servers, s.servers),
		stageOf("vip", k.addresses, s.addresses),
	)
}

// leaving are the destinations that are not wanted any more.
func (s seen) leaving(k keys) (list []netip.AddrPort) {
	for at, standing := range s.servers.of {
		if at.VirtualServer == k.server.VirtualServer && at.IsDestination() && !standing.Wanted && standing.Present {
			list = append(list, at.RealServer)
		}
	}
	slices.SortFunc(list, netip.AddrPort.Compare)
	return list
}

// worst is the first of the worst stages.
func worst(stages ...Stage) Stage {
	order := []Progress{Programmed, Pending, Unknown, Failing}
	return slices.MaxFunc(stages, func(a, b Stage) int {
		return cmp.Compare(slices.Index(order, a.Progress), slices.Index(order, b.Progress))
	})
}

// stageOf is how far keys of one table have come.
func stageOf[K interface {
	comparable
	fmt.Stringer
}](table string, keys []K, found standings[K]) Stage {
	if found.err != nil && len(keys) > 0 {
		return Stage{Unknown, found.err.Error()}
	}
	var missing, failing []string
	for _, k := range keys {
		s := found.of[k]
		switch {
		case s.Wanted && s.Present && !s.Pending:
		case s.Failure.Error != "":
			f := s.Failure
			failing = append(failing, fmt.Sprintf("%s: %s (%d tries, since %s)", k, f.Error, f.Tries, f.Since.UTC().Format(time.RFC3339)))
		default:
			missing = append(missing, k.String())
		}
	}
	switch {
	case len(failing) > 0:
		return Stage{Failing, fmt.Sprintf("%s: %d of %d fail, such as %s", table, len(failing), len(keys), slices.Min(failing))}
	case len(missing) > 0:
		return Stage{Pending, fmt.Sprintf("%s: %d of %d are still to be written, such as %s", table, len(missing), len(keys), slices.Min(missing))}
	}
	return Stage{Progress: Programmed}
}
