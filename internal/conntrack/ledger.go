package conntrack

import (
	"maps"
	"net/netip"
	"slices"

	"sluice.dev/sluice/internal/model"
)

// ledger is who has named which frontends, and the Facts that follow.
//
//	owners:  owner -> frontends     what each said last
//	holders: frontend -> owners     nearly always one; two while a frontend
//	                                goes from one Service to another
//	facts:   frontend -> the union of what its holders say
type ledger[O comparable] struct {
	owners  map[O]map[model.FrontendKey][]netip.AddrPort
	holders map[model.FrontendKey][]O
	facts   Facts
}

func newLedger[O comparable]() ledger[O] {
	return ledger[O]{
		owners:  map[O]map[model.FrontendKey][]netip.AddrPort{},
		holders: map[model.FrontendKey][]O{},
		facts:   Facts{Backends: map[model.FrontendKey]Backends{}, Removed: map[model.FrontendKey]uint64{}},
	}
}

// set replaces what an owner said. sweeps is how many have begun.
func (l *ledger[O]) set(owner O, frontends map[model.FrontendKey][]netip.AddrPort, sweeps uint64) {
	was := l.owners[owner]
	now := make(map[model.FrontendKey][]netip.AddrPort)
	for key, backends := range frontends {
		if key.Protocol == model.UDP {
			now[key] = slices.Clone(backends)
		}
	}
	l.owners[owner] = now
	if len(now) == 0 {
		delete(l.owners, owner)
	}
	for key := range was {
		if _, still := now[key]; !still {
			l.release(owner, key, sweeps)
		}
	}
	for key := range now {
		if !slices.Contains(l.holders[key], owner) {
			l.holders[key] = append(l.holders[key], owner)
		}
		l.unite(key)
	}
}

// release takes an owner off a frontend, which goes with its last.
func (l *ledger[O]) release(owner O, key model.FrontendKey, sweeps uint64) {
	l.holders[key] = slices.DeleteFunc(l.holders[key], func(o O) bool { return o == owner })
	if len(l.holders[key]) > 0 {
		l.unite(key)
		return
	}
	delete(l.holders, key)
	delete(l.facts.Backends, key)
	l.facts.Removed[key] = sweeps
}

// unite works out a frontend's backends.
func (l *ledger[O]) unite(key model.FrontendKey) {
	all := make(Backends)
	for _, o := range l.holders[key] {
		for _, b := range l.owners[o][key] {
			all[b] = struct{}{}
		}
	}
	l.facts.Backends[key] = all
}

// removed remembers frontends, be it that somebody wants them again.
func (l *ledger[O]) removed(frontends []model.FrontendKey, sweeps uint64) {
	for _, key := range frontends {
		if key.Protocol == model.UDP {
			l.facts.Removed[key] = sweeps
		}
	}
}

// forget drops the removed frontends that a sweep has looked for: those from
// before it began.
func (l *ledger[O]) forget(sweep uint64) {
	maps.DeleteFunc(l.facts.Removed, func(_ model.FrontendKey, at uint64) bool { return at < sweep })
}
