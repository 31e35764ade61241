package file

import (
	"fmt"
	"log/slog"
	"path/filepath"

	"sluice.dev/sluice/internal/model"
)

// Load reads a directory once, for commands: the facts of all files that can be
// used, and what is wrong with files and objects. An error says that the
// directory could not be read, or that a file changes at this moment.
func Load(dir string) (facts []model.Event, problems []model.Problem, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("directory %s: %w", dir, err)
	}
	texts, err := readDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("directory of objects: %w", err)
	}
	m := newMemory(decoder{dir: dir, log: slog.New(slog.DiscardHandler)})
	if change := m.take(texts); change.busy {
		return nil, nil, fmt.Errorf("directory %s: %w; try again", dir, errBusy)
	}
	for _, e := range m.events() {
		if e.Problem != nil {
			problems = append(problems, *e.Problem)
		} else {
			facts = append(facts, e)
		}
	}
	return facts, problems, nil
}
