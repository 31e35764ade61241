package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"sluice.dev/sluice/internal/model"
)

// answerFor is how long one question of those that a long answer is made of may
// hold up the engine.
const answerFor = 2 * time.Millisecond

// Ask has f look at the facts, on the engine's goroutine and after what facts so
// far mean was worked out. It returns when f has; with an error, as of ctx or of an
// engine that has ended, f was not called and never will be. From any goroutine.
//
// Everything else waits for f: it has to be short, and must not write.
func (e *Engine) Ask(ctx context.Context, f func(*model.Store)) error {
	if err := e.asked.Ask(ctx, func() { f(e.store) }); err != nil {
		return fmt.Errorf("ask the engine: %w", err)
	}
	return nil
}

// each has see look at many Services, in as many questions as it takes: an answer
// of which the parts are true one after the other, not all at one moment.
func (e *Engine) each(ctx context.Context, names []model.Name, see func(*model.Store, model.Name)) error {
	for len(names) > 0 {
		err := e.Ask(ctx, func(s *model.Store) {
			for until := time.Now().Add(answerFor); ; {
				see(s, names[0])
				if names = names[1:]; len(names) == 0 || !time.Now().Before(until) {
					return
				}
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// names are the Services that are chosen, in order.
func (e *Engine) names(ctx context.Context, choose func(model.Name) bool) (names []model.Name, err error) {
	err = e.Ask(ctx, func(s *model.Store) { names = model.ServiceNames(s) })
	return slices.DeleteFunc(names, func(n model.Name) bool { return !choose(n) }), err
}

// ServiceSummary is a Service in a list.
type ServiceSummary struct {
	model.Summary
	// Waiting: for sources to tell all they know, or for the Services that all
	// else depends on.
	Waiting bool
	// Rising are the families in which the last change has not come true in
	// every table yet.
	Rising []model.Family
}

// Services are the Services that are chosen, by name. One that comes or goes
// while the list is made may be in it or not.
func (e *Engine) Services(ctx context.Context, choose func(model.Name) bool) (list []ServiceSummary, err error) {
	names, err := e.names(ctx, choose)
	if err != nil {
		return nil, err
	}
	err = e.each(ctx, names, func(s *model.Store, name model.Name) {
		if sum, ok := model.Summarize(s, name); ok {
			list = append(list, ServiceSummary{Summary: sum, Waiting: e.waits(sum.Service), Rising: e.risingFamilies(name)})
		}
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// waits reports whether a Service has its turn later.
func (e *Engine) waits(svc model.Service) bool {
	return e.phase == waiting || e.phase == urgent && !svc.Urgent
}

func (e *Engine) risingFamilies(name model.Name) (list []model.Family) {
	for _, f := range e.opts.Families {
		if !e.ladder.Up(Owner{Kind: "Service", Name: name, Family: f}) {
			list = append(list, f)
		}
	}
	return list
}

// ServiceNames are what people call the addresses of one Service.
type ServiceNames struct {
	Service model.Name
	model.Names
}

// Names are what people call the addresses of all Services, by Service.
func (e *Engine) Names(ctx context.Context) (list []ServiceNames, err error) {
	names, err := e.names(ctx, func(model.Name) bool { return true })
	if err != nil {
		return nil, err
	}
	err = e.each(ctx, names, func(s *model.Store, name model.Name) {
		list = append(list, ServiceNames{name, model.NamesOf(s, name)})
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}
