package main

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The environment between lab, its init and the program.
const (
	envSpec   = "SLUICE_LAB_SPEC"   // on the kernel's command line: path of the spec
	envMode   = "SLUICE_LAB"        // for the program: guest or native
	envShared = "SLUICE_LAB_SHARED" // for program and companion: their common directory
	envOut    = "SLUICE_LAB_OUT"    // from the caller: directory the program may leave files in
)

// spec is what lab tells the guest's init about the program.
type spec struct {
	Args     []string // Args[0] is an absolute path
	Env      []string
	Dir      string
	Work     workdir
	Writable []string // host directories that writes reach
	Await    bool     // a companion must be ready before the program starts
	Merged   bool     // stdout and stderr are one file, their order is to be kept
}

// status is what the guest's init tells lab when the program has ended.
type status struct {
	Exit   int    // the program's exit code, if no signal killed it
	Signal int    // the signal that killed the program, or 0
	Error  string // why the program could not be run, or ""
}

// workdir is lab's directory for one run; it has the same path on both sides.
type workdir string

func (w workdir) file(name string) string { return filepath.Join(string(w), name) }
func (w workdir) spec() string            { return w.file("spec") }
func (w workdir) status() string          { return w.file("status") }
func (w workdir) stdout() string          { return w.file("stdout") }
func (w workdir) stderr() string          { return w.file("stderr") }
func (w workdir) started() string         { return w.file("started") }
func (w workdir) bootLog() string         { return w.file("boot.log") }
func (w workdir) companionLog() string    { return w.file("companion.log") }
func (w workdir) shared() string          { return w.file("shared") }
func (w workdir) ready() string           { return filepath.Join(w.shared(), "ready") }

// programEnv selects what the program may see of the caller's environment and
// adds lab's own variables.
func programEnv(caller []string, mode string, w workdir) []string {
	var env []string
	for _, kv := range caller {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case name == envSpec, name == envMode, name == envShared:
		case strings.HasPrefix(name, "SLUICE_"), strings.HasPrefix(name, "GO"),
			slices.Contains([]string{"PATH", "HOME", "CI", "TERM"}, name):
			env = append(env, kv)
		}
	}
	return append(env, envMode+"="+mode, envShared+"="+w.shared())
}

// writable lists the host directories the program's writes must reach: the one
// the caller names, and those the test binary's flags leave profiles in.
func writable(args, env []string) []string {
	var dirs []string
	add := func(dir string) {
		if filepath.IsAbs(dir) && !slices.Contains(dirs, dir) {
			dirs = append(dirs, filepath.Clean(dir))
		}
	}
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if name == envOut || name == "GOCOVERDIR" {
			add(value)
		}
	}
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		switch strings.TrimPrefix(name, "-test.") {
		case "outputdir", "gocoverdir":
			add(value)
		case "coverprofile", "cpuprofile", "memprofile", "blockprofile", "mutexprofile", "trace":
			add(filepath.Dir(value))
		}
	}
	return dirs
}

// mentioned lists the absolute paths the program is told of, in its arguments,
// its SLUICE_ variables or as its working directory.
func (s spec) mentioned() []string {
	var paths []string
	add := func(path string) {
		if filepath.IsAbs(path) && path != string(s.Work) && !strings.HasPrefix(path, string(s.Work)+"/") {
			paths = append(paths, filepath.Clean(path))
		}
	}
	add(s.Dir)
	for _, arg := range s.Args {
		add(arg)
		if _, value, ok := strings.Cut(arg, "="); ok {
			add(value)
		}
	}
	for _, kv := range s.Env {
		if name, value, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "SLUICE_") {
			add(value)
		}
	}
	return paths
}

// save and load keep strings byte by byte, as arguments are; JSON would not.
func save(path string, v any) error {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(v); err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return os.WriteFile(path, b.Bytes(), 0o600)
}

func load(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(v); err != nil {
		return fmt.Errorf("decode %s: %w", path, err)
	}
	return nil
}
