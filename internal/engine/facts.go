package engine

// Facts are what others read of the engine at any time.
type Facts struct {
	// Leaving says why load balancers are to use this node no more; "" when
	// they may.
	Leaving string
	// Rising counts the families of Services whose last change has not come
	// true in every table yet.
	Rising int
}

// Facts are those of this moment.
func (e *Engine) Facts() Facts { return *e.facts.Load() }

func (e *Engine) publish() { e.facts.Store(&Facts{Leaving: e.store.Leaving(), Rising: len(e.rising)}) }
