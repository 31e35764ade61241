package engine

// Climbing counts the owners that have not arrived. It is for when the engine
// does nothing.
func (e *Engine) Climbing() int { return e.ladder.Climbing() }
