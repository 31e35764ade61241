package sysctl

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// Keeper keeps settings as they are wanted.
type Keeper struct {
	root     string
	settings []Setting
	period   time.Duration
	log      *slog.Logger
	drift    atomic.Uint64
	said     map[string]bool // the errors of the last round
}

// NewKeeper makes a keeper that looks at the settings below root ("/proc/sys")
// once each period; 0: at the start only.
func NewKeeper(root string, settings []Setting, period time.Duration, log *slog.Logger) *Keeper {
	return &Keeper{root: root, settings: settings, period: period, log: log}
}

// Drift counts the settings that others changed and that were put right.
func (k *Keeper) Drift() uint64 { return k.drift.Load() }

// Run keeps the settings until ctx ends. They stay as they are then.
func (k *Keeper) Run(ctx context.Context) {
	k.Apply()
	if k.period == 0 {
		return
	}
	tick := time.NewTicker(k.period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			k.drift.Add(uint64(k.Apply()))
		}
	}
}

// Apply brings the settings about, and returns how many it had to write. What
// stays wrong is said once. It is for before Run, when what follows needs them.
func (k *Keeper) Apply() (written int) {
	written, errs := Apply(k.root, k.settings)
	said := make(map[string]bool, len(errs))
	for _, err := range errs {
		said[err.Error()] = true
		if !k.said[err.Error()] {
			k.log.Error("kernel setting is not as needed", "err", err)
		}
	}
	k.said = said
	return written
}
