package file

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// errBusy says that a file changed while it was read.
var errBusy = errors.New("file is being written")

// text is what was found in a file: its bytes, or why there are none.
type text struct {
	path string
	data []byte
	err  error
}

// readDir reads the wanted files of a directory, in the order of their names.
func readDir(dir string) ([]text, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var texts []text
	for _, e := range entries {
		if !wanted(e.Name()) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		data, directory, err := readFile(path)
		if !directory {
			texts = append(texts, text{path, data, err})
		}
	}
	return texts, nil
}

// wanted reports whether a file of this name is read: editors' copies and the
// kubelet's directories begin with a dot.
func wanted(name string) bool {
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return !strings.HasPrefix(name, ".")
	}
	return false
}

// readFile reads a file as it was at one moment. Links are followed.
func readFile(path string) (data []byte, directory bool, err error) {
	// Looked at before it is opened: opening a pipe would wait.
	before, err := os.Stat(path)
	if err != nil {
		return nil, false, err
	}
	if before.IsDir() {
		return nil, true, nil
	}
	if !before.Mode().IsRegular() {
		return nil, false, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = f.Close() }() // it was only read
	data = make([]byte, 0, before.Size()+1)
	data, err = appendAll(data, f)
	if err != nil {
		return nil, false, err
	}
	after, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	if after.Size() != int64(len(data)) || !after.ModTime().Equal(before.ModTime()) {
		return nil, false, errBusy
	}
	return data, false, nil
}

// appendAll is io.ReadAll into a buffer of the size that is expected.
func appendAll(data []byte, r io.Reader) ([]byte, error) {
	for {
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
		n, err := r.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		if errors.Is(err, io.EOF) {
			return data, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
