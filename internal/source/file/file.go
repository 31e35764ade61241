package file

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/source"
)

const (
	settleDefault = 100 * time.Millisecond
	pollDefault   = time.Minute
	// settleMost bounds, in settle times, how long changes that keep coming
	// put off reading.
	settleMost = 20
)

// Options are what a Source needs.
type Options struct {
	// Dir is the directory. Files in it whose names end in .yaml, .yml or
	// .json and do not begin with a dot are read; directories in it are not.
	Dir string
	// KnownScheduler says which schedulers this node has; nil: all.
	KnownScheduler func(name string) bool
	Logger         *slog.Logger  // nil: silence
	Settle         time.Duration // quiet time after a change; 0: 100 ms
	Poll           time.Duration // between readings without a change; 0: a minute
}

// Source tells what the files of a directory say.
type Source struct {
	opts   Options
	log    *slog.Logger
	notify func(dir string) (notifier, error)
	memory *memory
	synced bool
	waits  []string // files that were not good yet, when last said
	lost   bool     // the directory could not be read the last time
}

// New makes a source; nothing is read before Run.
func New(opts Options) *Source {
	log := opts.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if opts.Settle == 0 {
		opts.Settle = settleDefault
	}
	if opts.Poll == 0 {
		opts.Poll = pollDefault
	}
	log = log.With("source", source.File)
	return &Source{opts: opts, log: log, notify: watchDir, memory: newMemory(decoder{known: opts.KnownScheduler, log: log})}
}

// Run implements source.Source. A directory that is not there at the start is
// an error.
func (s *Source) Run(ctx context.Context, sink source.Sink) error {
	dir, err := filepath.Abs(s.opts.Dir)
	if err != nil {
		return fmt.Errorf("directory %s: %w", s.opts.Dir, err)
	}
	if _, err := os.ReadDir(dir); err != nil {
		return fmt.Errorf("directory of objects: %w", err)
	}
	s.memory.decoder.dir = dir
	changes, err := s.notify(dir)
	if err != nil {
		s.log.Warn("files are not watched, only read again now and then", "dir", dir, "every", s.opts.Poll, "err", err)
		changes = silence{}
	}
	defer changes.close()
	s.loop(ctx, dir, changes, sink)
	return nil
}

func (s *Source) loop(ctx context.Context, dir string, changes notifier, sink source.Sink) {
	settle := newSettling(s.opts.Settle)
	defer settle.timer.Stop()
	poll := time.NewTicker(s.opts.Poll)
	defer poll.Stop()
	s.read(dir, settle, sink)
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-changes.events():
			if e.Name == dir {
				s.renew(dir, changes)
			}
			if concerns(dir, e.Name) || s.memory.depends(e.Name) {
				settle.later()
			}
		case err := <-changes.errors():
			s.log.Warn("changes may have been missed, reading all files", "dir", dir, "err", err)
			settle.later()
		case <-settle.timer.C:
			s.read(dir, settle, sink)
		case <-poll.C:
			s.renew(dir, changes)
			s.read(dir, settle, sink)
		}
	}
}

// renew watches what is now found under the directory's name.
func (s *Source) renew(dir string, changes notifier) {
	if err := changes.renew(); err != nil {
		s.log.Debug("directory cannot be watched", "dir", dir, "err", err)
	}
}

// read brings memory and sink up to date with the directory.
func (s *Source) read(dir string, settle *settling, sink source.Sink) {
	began := time.Now()
	settle.done()
	texts, err := readDir(dir)
	s.follow(dir, err, sink)
	if err != nil {
		return
	}
	change := s.memory.take(texts)
	if change.busy {
		settle.later()
	}
	if change.changed == 0 {
		s.sync(sink)
		return
	}
	events := s.memory.events()
	for _, e := range events {
		sink.Event(e)
	}
	s.report(change)
	s.log.Info("files read", "files", len(texts), "changed", change.changed, "decoded", change.decoded,
		"objects", len(s.memory.told), "events", len(events), "seconds", time.Since(began).Seconds())
	s.sync(sink)
}

// follow says once that the directory went, and once that it is back.
func (s *Source) follow(dir string, err error, sink source.Sink) {
	lost := err != nil
	if lost == s.lost {
		return
	}
	s.lost = lost
	if !lost {
		s.log.Info("directory can be read again", "dir", dir)
		return
	}
	s.log.Error("directory cannot be read, keeping what is known", "dir", dir, "err", err)
	p := problem(dir, reasonDirectory, fmt.Sprintf("%v; what was read before stays; restore the directory", err))
	sink.Event(model.Event{Source: source.File, Problem: &p})
}

// report logs what became bad or good.
func (s *Source) report(c change) {
	for _, f := range c.bad {
		s.log.Error("file not used, its last good state stays", "file", f.path, "problems", len(f.faults), "err", f.faults[0].String(f.path))
	}
	for _, path := range c.mended {
		s.log.Info("file is good again", "file", path)
	}
}

// sync tells Synced once every file has been good.
func (s *Source) sync(sink source.Sink) {
	if s.synced {
		return
	}
	if waits := s.memory.neverGood(); len(waits) > 0 {
		if !slices.Equal(waits, s.waits) {
			s.log.Error("nothing is deleted before these files can be read", "files", waits)
		}
		s.waits = waits
		return
	}
	s.synced = true
	sink.Event(model.Event{Source: source.File, Synced: true})
}

// settling is the time between a change and reading: until nothing more comes,
// but not for ever.
type settling struct {
	quiet time.Duration
	timer *time.Timer
	since time.Time // of the first change not read yet; zero: none
}

func newSettling(quiet time.Duration) *settling {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &settling{quiet: quiet, timer: t}
}

func (s *settling) later() {
	now := time.Now()
	if s.since.IsZero() {
		s.since = now
	}
	s.timer.Reset(min(s.quiet, s.since.Add(settleMost*s.quiet).Sub(now)))
}

func (s *settling) done() {
	s.timer.Stop()
	s.since = time.Time{}
}

// concerns reports whether a change of a path can change what is read: of the
// directory, a file in it, or the link that the kubelet swaps.
func concerns(dir, path string) bool {
	if path == dir {
		return true
	}
	name := filepath.Base(path)
	return filepath.Dir(path) == dir && (wanted(name) || name == "..data")
}

// notifier tells that something in a directory may have changed.
type notifier interface {
	events() <-chan fsnotify.Event
	errors() <-chan error
	renew() error
	close()
}

// silence is a notifier for want of a better one.
type silence struct{}

func (silence) events() <-chan fsnotify.Event { return nil }
func (silence) errors() <-chan error          { return nil }
func (silence) renew() error                  { return nil }
func (silence) close()                        {}
