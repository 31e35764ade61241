package conntrack

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"sluice.dev/sluice/internal/model"
)

// ledger is who has named which frontends, and the Facts that follow.
//
//	owners:  owner -> frontends     what each said last
//	holders: frontend -> owners     nearly always one; two while a frontend
//	                                goes from one Service to another
//	facts:   frontend -> the union of what its holders say
//	leaving: frontend -> endpoint that nobody names any more -> since when
type ledger[O comparable] struct {
	owners  map[O]map[model.FrontendKey][]netip.AddrPort
	holders map[model.FrontendKey][]O
	facts   Facts
	leaving map[model.FrontendKey]map[netip.AddrPort]time.Time
}

// grace is how long an endpoint that is named no more may answer what it was
// asked, unless it leaves the kernel before: longer than a leaving destination
// of UDP stays there (package ipvs).
const grace = 2 * time.Second

func newLedger[O comparable]() ledger[O] {
	return ledger[O]{
		owners:  map[O]map[model.FrontendKey][]netip.AddrPort{},
		holders: map[model.FrontendKey][]O{},
		facts:   Facts{Backends: map[model.FrontendKey]Backends{}, Removed: map[model.FrontendKey]uint64{}},
		leaving: map[model.FrontendKey]map[netip.AddrPort]time.Time{},
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
	delete(l.leaving, key)
	l.facts.Removed[key] = sweeps
}

// unite works out a frontend's backends: those that are named, and those that
// were a moment ago.
func (l *ledger[O]) unite(key model.FrontendKey) {
	all := make(Backends)
	for _, o := range l.holders[key] {
		for _, b := range l.owners[o][key] {
			all[b] = struct{}{}
		}
	}
	leaving := l.leaving[key]
	for b := range all {
		delete(leaving, b)
	}
	if leaving == nil {
		leaving = map[netip.AddrPort]time.Time{}
	}
	for b := range l.facts.Backends[key] {
		_, named := all[b]
		if _, known := leaving[b]; !named && !known {
			leaving[b] = time.Now()
		}
	}
	for b := range leaving {
		all[b] = struct{}{}
	}
	l.facts.Backends[key] = all
	l.leaving[key] = leaving
	if len(leaving) == 0 {
		delete(l.leaving, key)
	}
}

// left has an endpoint answer for a frontend no more, if it was leaving.
func (l *ledger[O]) left(key model.FrontendKey, backend netip.AddrPort) {
	if _, leaving := l.leaving[key][backend]; !leaving {
		return
	}
	delete(l.leaving[key], backend)
	delete(l.facts.Backends[key], backend)
	if len(l.leaving[key]) == 0 {
		delete(l.leaving, key)
	}
}

// removed takes in what has left the kernel: its frontends are remembered, be it
// that somebody wants them again. An endpoint that has left one virtual server
// answers for no frontend any more that it is leaving: some reach it by way of
// another's virtual server.
func (l *ledger[O]) removed(gone []Gone, sweeps uint64) {
	for _, g := range gone {
		if g.Frontend.Protocol != model.UDP {
			continue
		}
		l.facts.Removed[g.Frontend] = sweeps
		for key, leaving := range l.leaving {
			if g.Backend.IsValid() {
				l.left(key, g.Backend)
				continue
			}
			for b := range leaving {
				if key == g.Frontend {
					l.left(key, b)
				}
			}
		}
	}
}

// expire ends the time of those who have been leaving for too long.
func (l *ledger[O]) expire(now time.Time) {
	for key, leaving := range l.leaving {
		for b, since := range leaving {
			if now.Sub(since) >= grace {
				l.left(key, b)
			}
		}
	}
}

// forget drops the removed frontends that a sweep has looked for: those from
// before it began.
func (l *ledger[O]) forget(sweep uint64) {
	maps.DeleteFunc(l.facts.Removed, func(_ model.FrontendKey, at uint64) bool { return at < sweep })
}
