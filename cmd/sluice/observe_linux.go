package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"sluice.dev/sluice/internal/conntrack"
	"sluice.dev/sluice/internal/engine"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/status"
	"sluice.dev/sluice/ipvs"
)

// observer passes on what the engine and the tables tell, to those who have no
// table of their own.
type observer struct {
	meter   *status.Meter
	sweeper *conntrack.Sweeper[engine.Owner]
	limits  ipvs.Limits
	log     *slog.Logger

	// anyExternalIP: spec.externalIPs may name any address, of which the
	// first Service that does so reminds.
	anyExternalIP bool

	mu       sync.Mutex
	services map[model.FrontendKey]model.Name
	of       map[engine.Owner][]model.FrontendKey
}

func newObserver(s settings, families []model.Family, flows conntrack.Handle) *observer {
	o := &observer{
		meter: status.NewMeter(families), log: s.log, anyExternalIP: s.externalCIDRs == nil,
		services: map[model.FrontendKey]model.Name{}, of: map[engine.Owner][]model.FrontendKey{},
	}
	o.sweeper = conntrack.New[engine.Owner](conntrack.Options{Handle: flows, Audit: s.audit, Swept: o.swept, Log: s.log})
	return o
}

// hooks are the engine's. tell is told of problems, enforced when rules of policy
// have come true.
func (o *observer) hooks(tell func(model.Problem), enforced func()) engine.Hooks {
	return engine.Hooks{
		Problem:    tell,
		Enforced:   func(took time.Duration) { o.meter.Enforced(took); enforced() },
		Resolved:   o.resolved,
		Queued:     func(of engine.Owner) { o.meter.Queued(of.Name, of.Family) },
		Synced:     o.synced,
		Programmed: func(of engine.Owner, took time.Duration) { o.meter.Programmed(of.Family, took) },
		CaughtUp:   o.meter.CaughtUp,
		Complete:   o.sweeper.Synced,
		Applied:    o.meter.Applied,
		Failed:     o.meter.Failed,
	}
}

// resolved takes in what a Service means now in one family.
func (o *observer) resolved(of engine.Owner, view model.View) {
	o.meter.Resolved(of.Family, view)
	o.sweeper.Set(of, conntrack.Desired(view))
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, was := range o.of[of] {
		if o.services[was] == of.Name {
			delete(o.services, was)
		}
	}
	delete(o.of, of)
	for _, f := range view.Frontends {
		o.services[f.FrontendKey] = of.Name
		o.of[of] = append(o.of[of], f.FrontendKey)
		o.limits.Set(ipvs.VirtualServer{Addr: f.Addr, Protocol: f.Protocol}, f.Drain)
		if f.Kind == model.ExternalIP && o.anyExternalIP {
			o.anyExternalIP = false
			o.log.Warn("a Service has spec.externalIPs: whoever may make a Service takes any address that is nobody's node, "+
				"and Kubernetes is giving the field up (KEP-5707); name the ranges that may be taken with --allow-external-ips",
				"service", of.Name.String(), "address", f.Addr.Addr())
		}
	}
}

// synced passes on that the tables hold what a Service wants. A sender of UDP who
// kept on while there was no virtual server has an entry that leads nowhere.
func (o *observer) synced(of engine.Owner) {
	o.meter.Synced(of.Name, of.Family)
	o.mu.Lock()
	defer o.mu.Unlock()
	if slices.ContainsFunc(o.of[of], func(f model.FrontendKey) bool { return f.Protocol == model.UDP }) {
		o.sweeper.Kick()
	}
}

// removed passes on which virtual servers and destinations of UDP have left
// the kernel: their flows are stale from now on.
func (o *observer) removed(keys []ipvs.Key) {
	gone := make([]conntrack.Gone, len(keys))
	for i, k := range keys {
		gone[i] = conntrack.Gone{Frontend: model.FrontendKey{Addr: k.Addr, Protocol: k.Protocol}, Backend: k.RealServer}
	}
	o.sweeper.Removed(gone...)
}

func (o *observer) swept(s conntrack.Sweep) {
	o.meter.Swept(s.Took, s.Deleted)
	if s.Err != nil {
		o.meter.Failed("conntrack", s.Err)
	}
}

// connections counts the connections of every frontend, through a handle of
// its own.
func (o *observer) connections(ctx context.Context) (list []status.Connections, err error) {
	handle, err := ipvs.Open(ctx)
	if err != nil {
		return nil, fmt.Errorf("open IPVS: %w", err)
	}
	defer func() { err = errors.Join(err, handle.Close()) }()
	listing, err := ipvs.ReadListing(ctx, handle)
	if err != nil {
		return nil, fmt.Errorf("read IPVS: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, vs := range listing.Servers {
		c := status.Connections{Frontend: model.FrontendKey{Addr: vs.Addr, Protocol: vs.Protocol}}
		var ours bool
		if c.Service, ours = o.services[c.Frontend]; !ours {
			continue
		}
		for _, d := range vs.Destinations {
			c.Active += uint64(d.Active)
			c.Inactive += uint64(d.Inactive)
		}
		list = append(list, c)
	}
	return list, nil
}
