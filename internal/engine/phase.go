package engine

import "time"

// phase is how far the start of the engine has come.
//
//	waiting   for every source to have told all it knows, or for patience to end
//	urgent    the Services that all else depends on are programmed, by themselves
//	open      all are; what nobody wants may not go yet
//	synced    and what nobody wants goes
type phase uint8

const (
	waiting phase = iota
	urgent
	open
	synced
)

// head is how long the urgent Services may keep all others waiting: longer than
// they take on a kernel that does its work, shorter than what anybody notices
// on one where they fail.
const head = time.Second

// hurry ends a wait that has lasted too long.
func (e *Engine) hurry(patience *time.Timer) {
	switch e.phase {
	case waiting:
		e.opts.Log.Warn("not every source has told all it knows; adding what is known, deleting and refusing nothing")
		e.store.Partial(true)
		e.enter(urgent, patience)
	case urgent:
		e.enter(open, patience)
	case open, synced: // nothing is waited for
	}
}

// proceed enters the phases that need not be waited for any more.
func (e *Engine) proceed(patience *time.Timer) {
	if e.phase == waiting && e.unsynced == 0 {
		e.enter(urgent, patience)
	}
	if e.phase == urgent && e.ladder.Climbing() == 0 {
		e.enter(open, patience)
	}
	if e.phase == open && e.unsynced == 0 {
		e.store.Partial(false)
		e.enter(synced, patience)
	}
}

func (e *Engine) enter(p phase, patience *time.Timer) {
	e.phase = p
	e.resolve()
	switch p {
	case urgent:
		patience.Reset(head)
	case synced: // with every claim made, what nobody wants may go
		e.ladder.Sync()
		e.health.sync(sweeper())
		e.syncRoutes()
		e.opts.Hooks.Complete()
	case waiting, open:
	}
}
