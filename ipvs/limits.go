package ipvs

import (
	"sync"
	"time"
)

// Limits are the drain limits of virtual servers that have one of their own,
// for TargetOptions.Limit. The zero value is ready, and any goroutine may call.
//
// A limit is asked for when its virtual server is not wanted any more: it is to
// be set with the wish, and forgotten only when what it is for has left the
// table (or never, until its Service is gone for good).
type Limits struct {
	mu sync.RWMutex
	of map[VirtualServer]time.Duration
}

// Set gives a virtual server and its destinations a limit; 0 takes it back,
// below 0 they are not drained.
func (l *Limits) Set(vs VirtualServer, d time.Duration) {
	if d == 0 {
		l.Forget(vs)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = make(map[VirtualServer]time.Duration)
	}
	l.of[vs] = d
}

// Forget takes a limit back.
func (l *Limits) Forget(vs VirtualServer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.of, vs)
}

// For is a virtual server's own limit; 0: it has none.
func (l *Limits) For(vs VirtualServer) time.Duration {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.of[vs]
}
