package sysctl

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"
)

// settle is how long a Kick waits for more of them.
const settle = time.Second

// Keeper keeps settings as they are wanted.
type Keeper struct {
	root     string
	settings []Setting
	more     []func() ([]Setting, error)
	period   time.Duration
	log      *slog.Logger
	kick     chan struct{}
	drift    atomic.Uint64
	vital    atomic.Pointer[map[Purpose][]string] // what is wrong with vital settings
	said     map[string]bool                      // the errors of the last round
	kept     map[string]bool                      // paths of the settings that were right after the last round
}

// NewKeeper makes a keeper that looks at the settings below root ("/proc/sys")
// once each period; 0: at the start only, and when it is kicked.
func NewKeeper(root string, settings []Setting, period time.Duration, log *slog.Logger) *Keeper {
	return &Keeper{root: root, settings: settings, period: period, log: log, kick: make(chan struct{}, 1)}
}

// Also has the keeper keep settings that depend on what there is on the host:
// more is asked each time that it looks. For before Apply and Run.
func (k *Keeper) Also(more func() ([]Setting, error)) { k.more = append(k.more, more) }

// Drift counts the settings that others changed and that were put right.
func (k *Keeper) Drift() uint64 { return k.drift.Load() }

// Problems are the settings vital to a purpose that are not as needed, as of the
// last look. It may be called from any goroutine.
func (k *Keeper) Problems(to Purpose) []string {
	if vital := k.vital.Load(); vital != nil {
		return (*vital)[to]
	}
	return nil
}

// Kick has the keeper look soon, since something on the host may have changed.
// It may be called from any goroutine, and never blocks.
func (k *Keeper) Kick() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// Run keeps the settings until ctx ends. They stay as they are then.
func (k *Keeper) Run(ctx context.Context) {
	k.Apply()
	var tick <-chan time.Time
	if k.period > 0 {
		t := time.NewTicker(k.period)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
		case <-k.kick:
			select {
			case <-ctx.Done():
				return
			case <-time.After(settle):
			}
		}
		k.Apply()
	}
}

// Apply brings the settings about. What stays wrong is said once. It is for
// before Run, when what follows needs them.
func (k *Keeper) Apply() { k.drift.Add(k.look()) }

// look brings the settings about. It returns how many had been right and were
// not any more.
func (k *Keeper) look() (drifted uint64) {
	said, kept, vital := map[string]bool{}, map[string]bool{}, map[Purpose][]string{}
	say := func(err error) {
		said[err.Error()] = true
		if !k.said[err.Error()] {
			k.log.Error("kernel setting is not as needed", "err", err)
		}
	}
	settings := k.settings
	for _, more := range k.more {
		found, err := more()
		if err != nil {
			say(err)
		}
		settings = append(slices.Clip(settings), found...)
	}
	for i, o := range Apply(k.root, settings) {
		path := settings[i].Path
		if o.Wrote && k.kept[path] {
			drifted++
		}
		if o.Err == nil {
			kept[path] = true
			continue
		}
		say(o.Err)
		if to := settings[i].VitalTo; to != None {
			vital[to] = append(vital[to], o.Err.Error())
		}
	}
	k.said, k.kept = said, kept
	k.vital.Store(&vital)
	return drifted
}
