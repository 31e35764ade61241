package engine

import (
	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/policy"
)

// Facts are what others read of the engine at any time.
type Facts struct {
	// Leaving says why load balancers are to use this node no more; "" when
	// they may.
	Leaving string
	// Away says why nobody is to be led to this node, for that reason or
	// another; "": they may be.
	Away string
	// Rising counts the families of Services, and the parts of policies, whose
	// last change has not come true in every table yet.
	Rising int
	// Problems are what is wrong with what routers are to be told.
	Problems []model.Problem
	// Policy is what is enforced, in numbers.
	Policy policy.Status
}

// Facts are those of this moment.
func (e *Engine) Facts() Facts { return *e.facts.Load() }

func (e *Engine) publish() {
	e.facts.Store(&Facts{
		Leaving: e.store.Leaving(), Away: e.store.Away(), Rising: len(e.rising) + e.police.rising(), Problems: e.routes.problems(),
		Policy: e.police.status(),
	})
}
