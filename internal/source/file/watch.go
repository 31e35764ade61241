package file

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// watcher watches a directory for changes of its files, and the directory
// above for the directory itself coming and going (or being a link that is
// swapped).
type watcher struct {
	dir string
	w   *fsnotify.Watcher
}

func watchDir(dir string) (notifier, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	if err := errors.Join(w.Add(filepath.Dir(dir)), w.Add(dir)); err != nil {
		return nil, fmt.Errorf("watch %s: %w", dir, errors.Join(err, w.Close()))
	}
	return &watcher{dir: dir, w: w}, nil
}

func (w *watcher) events() <-chan fsnotify.Event { return w.w.Events }
func (w *watcher) errors() <-chan error          { return w.w.Errors }

// renew watches what the directory's name now stands for: a watch is one of an
// inode.
func (w *watcher) renew() error {
	if err := w.w.Remove(w.dir); err != nil && !errors.Is(err, fsnotify.ErrNonExistentWatch) {
		return fmt.Errorf("watch %s: %w", w.dir, err)
	}
	if err := w.w.Add(w.dir); err != nil {
		return fmt.Errorf("watch %s: %w", w.dir, err)
	}
	return nil
}

func (w *watcher) close() { _ = w.w.Close() }
