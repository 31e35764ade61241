package main

import (
	"context"
	"errors"
	"fmt"

	"sluice.dev/sluice/internal/engine"
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/status"
	"sluice.dev/sluice/ipvs"
)

// explained is this node as it can be asked over HTTP.
func explained(e *engine.Engine, name string, families []model.Family) *status.Node {
	return &status.Node{
		Name: name, Families: families,
		Service: e.Service, Services: e.Services, Names: e.Names, Destinations: destinations,
	}
}

// destinations reads what the kernel has of frontends, through a handle of its
// own: each with a read of its virtual server alone.
func destinations(ctx context.Context, frontends []model.FrontendKey) (found map[model.FrontendKey][]status.Destination, err error) {
	handle, err := ipvs.Open(ctx)
	if err != nil {
		return nil, fmt.Errorf("open IPVS: %w", err)
	}
	defer func() { err = errors.Join(err, handle.Close()) }()
	found = make(map[model.FrontendKey][]status.Destination, len(frontends))
	for _, f := range frontends {
		vs := ipvs.VirtualServer{Addr: f.Addr, Protocol: f.Protocol}
		entries, err := handle.Destinations(ctx, vs)
		if err != nil {
			return nil, fmt.Errorf("list destinations of %s: %w", vs, err)
		}
		for _, d := range entries {
			found[f] = append(found[f], status.Destination{Address: d.RealServer, Weight: d.Spec.Weight, Active: d.Active, Inactive: d.Inactive})
		}
	}
	return found, nil
}
