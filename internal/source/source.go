// Package source is the contract between whatever knows facts (an API server,
// a directory of files, the host's network interfaces) and the engine that
// keeps them.
//
// A source tells facts and nothing else: it never decides what they mean for a
// table, and never guesses. What it could not read it does not tell; above all
// a failed or partial reading is never told as a deletion. Its Synced event
// opens the door to deletions in the kernel, so a source that cannot vouch for
// having told everything holds it back, for ever if need be.
package source

import (
	"context"

	"sluice.dev/sluice/internal/model"
)

// Sink receives what sources tell. Event may be called from any goroutine and
// does not block for long. What is in an event is not changed afterwards by
// either side.
//
// Of one object the events come in order. Between objects there is none: an
// EndpointSlice may be told before its Service.
type Sink interface {
	Event(e model.Event)
}

// SinkFunc is a function as a Sink.
type SinkFunc func(model.Event)

// Event calls the function.
func (f SinkFunc) Event(e model.Event) { f(e) }

// Source tells facts to a sink.
type Source interface {
	// Run tells what is there, then Synced, then every change, until ctx is
	// done; then it returns nil, having ended every goroutine it started. An
	// error means that the source could not begin: what can be mended while
	// it runs (an API server that does not answer, a bad file) is retried
	// and logged instead.
	//
	// A source is run once, and says Synced once whatever happens.
	Run(ctx context.Context, sink Sink) error
}

// The names by which sources sign their events.
const (
	Kube = "kube"
	File = "file"
	Node = "node"
)
