package kube

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// What was tried of a resource.
const (
	opList  = "list"
	opWatch = "watch"
	opRead  = "read" // either, told by the informer after the fact
)

// link follows whether the API server can be read, so that a change of that is
// logged once and not at every retry. An unreachable server is one line, not
// one per resource; a refusal is a line for each resource it concerns.
//
// The reflectors of all resources report to it, hence the mutex.
type link struct {
	server string
	log    *slog.Logger

	mu      sync.Mutex
	failing map[attempt]failure
}

type attempt struct{ resource, op string }

// failure is what is logged once: of an unreachable server the resource is
// left empty.
type failure struct{ resource, reason string }

func newLink(server string, log *slog.Logger) *link {
	return &link{server: server, log: log.With("server", server), failing: map[attempt]failure{}}
}

// note takes the outcome of one attempt.
func (l *link) note(ctx context.Context, resource, op string, err error) {
	if ctx.Err() != nil || routine(err) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.answered(resource, op)
		return
	}
	next := failure{resource, string(apierrors.ReasonForError(err))}
	if next.reason == "" {
		next = failure{reason: "unreachable"}
	}
	logged := false
	for _, f := range l.failing {
		logged = logged || f == next
	}
	l.failing[attempt{resource, op}] = next
	switch {
	case logged:
	case apierrors.IsForbidden(err):
		l.log.Warn("API server refuses the resource, keeping what is known; allow it to be listed and watched", "op", op, "resource", resource, "err", err)
	default:
		l.log.Warn("API server cannot be read, keeping what is known", "op", op, "resource", resource, "err", err)
	}
}

// answered forgets the failures that an answer disproves: a watch begins where
// a list ended.
func (l *link) answered(resource, op string) {
	was := len(l.failing)
	delete(l.failing, attempt{resource, opList})
	if op == opWatch {
		delete(l.failing, attempt{resource, opWatch})
		delete(l.failing, attempt{resource, opRead})
	}
	if was > 0 && len(l.failing) == 0 {
		l.log.Info("API server can be read again")
	}
}

// routine reports whether an error belongs to the life of a watch: the server
// ends it, or has forgotten where we were and is asked for a list.
func routine(err error) bool {
	return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// serverOf is the address a client talks to; "" for a fake.
func serverOf(client kubernetes.Interface) string {
	if c, ok := client.CoreV1().RESTClient().(*rest.RESTClient); ok && c != nil {
		return c.Get().URL().Host
	}
	return ""
}
