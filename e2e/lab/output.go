package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"time"
)

// followInterval is how late output may arrive. Reading a file that has not
// grown costs a microsecond.
const followInterval = 10 * time.Millisecond

// follower copies a growing file to a writer, byte by byte as it is.
//
// The guest writes its program's output to files on hostfs because that is the
// one channel that is both live and exact: hostfs hands every write(2) to the
// host at once, while the consoles are terminals, which change line ends.
type follower struct {
	stop chan struct{}
	done chan error
}

// follow starts copying the file at path, which is created.
func follow(path string, w io.Writer) (*follower, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create output file: %w", err)
	}
	f := &follower{stop: make(chan struct{}), done: make(chan error, 1)}
	go func() {
		defer file.Close()
		f.done <- f.copy(file, w)
	}()
	return f, nil
}

func (f *follower) copy(file *os.File, w io.Writer) error {
	tick := time.NewTicker(followInterval)
	defer tick.Stop()
	for {
		if _, err := io.Copy(w, file); err != nil {
			return fmt.Errorf("copy output: %w", err)
		}
		select {
		case <-tick.C:
		case <-f.stop:
			_, err := io.Copy(w, file)
			return err
		}
	}
}

// finish copies what is left and ends the copying. The writer of the file must
// have ended.
func (f *follower) finish() error {
	close(f.stop)
	return <-f.done
}

// tail returns the last lines of a file, indented, for an error's text.
func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "\t(no log: " + err.Error() + ")"
	}
	all := bytes.Split(bytes.TrimRight(b, "\n"), []byte("\n"))
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return "\t" + string(bytes.Join(all, []byte("\n\t")))
}
