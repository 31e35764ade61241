package bgp

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/osrg/gobgp/v3/pkg/log"
	packet "github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// logger is where GoBGP logs to. It passes that on, and takes out of it why a
// session is not up: GoBGP says it nowhere else. It is called with GoBGP's locks
// held, so it must not call it back.
type logger struct{ to atomic.Pointer[listener] }

// listener is whom a server's log concerns at present.
type listener struct {
	slog   *slog.Logger
	spec   Session
	status *status
}

var _ log.Logger = (*logger)(nil)

func newLogger() *logger {
	l := &logger{}
	l.forget()
	return l
}

// attend has what is logged from now on concern a session.
func (l *logger) attend(to *slog.Logger, spec Session, s *status) {
	l.to.Store(&listener{slog: to, spec: spec, status: s})
}

// forget has it concern nobody.
func (l *logger) forget() {
	l.to.Store(&listener{slog: slog.New(slog.DiscardHandler), status: newStatus("")})
}

// Panic logs what GoBGP takes for impossible, some of which a router can bring
// about by what it sends. GoBGP would end the process; the session ends without
// that, when its hold time is over.
func (l *logger) Panic(msg string, fields log.Fields) { l.write(slog.LevelError, msg, fields) }

// Fatal is as Panic.
func (l *logger) Fatal(msg string, fields log.Fields) { l.write(slog.LevelError, msg, fields) }

// Error passes an error on.
func (l *logger) Error(msg string, fields log.Fields) { l.write(slog.LevelError, msg, fields) }

// Warn is for what is not as it should be with the router or the way to it,
// which the session's state tells, but for what the router sent amiss.
func (l *logger) Warn(msg string, fields log.Fields) {
	level := slog.LevelDebug
	if malformed(msg) {
		level = slog.LevelWarn
	}
	l.note(msg, fields)
	l.write(level, msg, fields)
}

// Info is of no interest to who does not debug.
func (l *logger) Info(msg string, fields log.Fields) { l.Debug(msg, fields) }

// Debug is of no interest to who does not debug.
func (l *logger) Debug(msg string, fields log.Fields) {
	l.note(msg, fields)
	l.write(slog.LevelDebug, msg, fields)
}

// SetLevel does nothing: the level is slog's.
func (l *logger) SetLevel(log.LogLevel) {}

// GetLevel has GoBGP log a dial that failed, while there is no session, and
// spare itself the log of every update while there is one.
func (l *logger) GetLevel() log.LogLevel {
	to := l.to.Load()
	if to.status.established() && !to.slog.Enabled(context.Background(), slog.LevelDebug) {
		return log.InfoLevel
	}
	return log.DebugLevel
}

func (l *logger) write(level slog.Level, msg string, fields log.Fields) {
	ctx, to := context.Background(), l.to.Load()
	if !to.slog.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, len(fields))
	for name, v := range fields {
		if name != "Topic" && name != "Key" { // the peer's name says as much
			attrs = append(attrs, slog.Any(name, v))
		}
	}
	to.slog.LogAttrs(ctx, level, "gobgp: "+msg, attrs...)
}

// note takes the reason out of a line, if it has one.
func (l *logger) note(msg string, fields log.Fields) {
	to := l.to.Load()
	switch msg {
	case "failed to connect":
		if err, ok := fields["Error"].(error); ok {
			to.status.fail(to.spec.dialFailed(err))
		}
	case "hold timer expired":
		to.status.fail(to.spec.silent())
	case "received notification":
		code, _ := fields["Code"].(uint8)
		sub, _ := fields["Subcode"].(uint8)
		said, _ := fields["Communicated-Reason"].(string)
		to.status.fail(to.spec.notified(code, sub, said))
	case "sent notification":
		e, ok := fields["Data"].(*packet.MessageError)
		switch {
		case !ok:
		case e.TypeCode == packet.BGP_ERROR_HOLD_TIMER_EXPIRED:
			to.status.guess(to.spec.silent())
		default:
			to.status.fail(to.spec.refused(e))
		}
	case "cannot set TTL for peer":
		if err, ok := fields["Error"].(error); ok {
			to.status.guess("cannot set the TTL: " + err.Error())
		}
	default:
		if err, ok := fields["Error"].(error); ok && malformed(msg) {
			to.status.fail("the router sent what GoBGP does not understand: " + err.Error())
		}
	}
}

// malformed reports whether GoBGP says that the router sent nonsense.
func malformed(msg string) bool {
	switch msg {
	case "Session will be reset due to malformed BGP Header", "Session will be reset due to malformed BGP message",
		"Session will be reset due to malformed BGP update message", "Some attributes were discarded",
		"the received Update message was treated as withdraw":
		return true
	}
	return false
}
