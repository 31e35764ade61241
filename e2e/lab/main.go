package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	exitTimeout = 124
	exitFailed  = 125
)

// errTimeout and signalError are the reasons lab gives up on a program.
var errTimeout = errors.New("timeout")

type signalError struct{ signal syscall.Signal }

func (e signalError) Error() string { return "got " + e.signal.String() }

func main() {
	// Namespaces and the parent-death signal belong to a thread: everything
	// lab starts, it starts from this one, which lives as long as lab.
	runtime.LockOSThread()
	if path := os.Getenv(envSpec); path != "" && os.Getpid() == 1 {
		guestInit(path)
		return
	}
	code, err := run(os.Args[1:])
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "lab:", err)
	}
	os.Exit(code)
}

func run(args []string) (int, error) {
	o, err := parseOptions(args, os.Stderr)
	if err != nil {
		return exitFailed, err
	}
	ctx, cancel := interruptible(o)
	defer cancel()

	code, err := runProgram(ctx, o)
	if err == nil {
		return code, nil
	}
	cause := context.Cause(ctx)
	if sig, ok := errors.AsType[signalError](cause); ok {
		return 128 + int(sig.signal), err
	}
	if errors.Is(cause, errTimeout) {
		return exitTimeout, err
	}
	return exitFailed, err
}

// interruptible returns a context that a signal or the timeout cancels, with
// the reason as its cause.
func interruptible(o options) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	// SIGPIPE: when nobody reads the output any more the guest must end too.
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGPIPE)
	go func() {
		if s, ok := (<-signals).(syscall.Signal); ok {
			cancel(signalError{s})
		}
	}()
	if o.timeout == 0 {
		return ctx, func() { cancel(nil) }
	}
	return context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("%w: the program ran longer than %v", errTimeout, o.timeout))
}

// runProgram prepares the run's directory, chooses where to run and runs.
func runProgram(ctx context.Context, o options) (code int, err error) {
	work, err := newWorkdir()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(string(work))) }()

	mode := o.mode
	if mode == modeAuto {
		mode = modeGuest
		if hostHasIPVS() {
			mode = modeNative
		}
	}
	s, err := newSpec(o, mode, work)
	if err != nil {
		return 0, err
	}
	if mode == modeNative {
		return runNative(ctx, o, s)
	}
	return runGuest(ctx, o, s)
}

func newWorkdir() (workdir, error) {
	dir, err := os.MkdirTemp("", "sluice-lab-")
	if err != nil {
		return "", fmt.Errorf("make a directory for the run: %w", err)
	}
	// The guest sees the same path: no link may hide what it really is.
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", fmt.Errorf("resolve the run's directory: %w", err)
	}
	w := workdir(dir)
	if err := os.Mkdir(w.shared(), 0o755); err != nil {
		return "", fmt.Errorf("make the shared directory: %w", err)
	}
	return w, nil
}

func newSpec(o options, mode string, work workdir) (spec, error) {
	path, err := exec.LookPath(o.program[0])
	if err != nil {
		return spec{}, fmt.Errorf("find the program: %w", err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return spec{}, fmt.Errorf("find the program: %w", err)
	}
	dir, err := os.Getwd()
	if err != nil {
		return spec{}, fmt.Errorf("find the working directory: %w", err)
	}
	env := programEnv(os.Environ(), mode, work)
	return spec{
		Args:     append([]string{path}, o.program[1:]...),
		Env:      env,
		Dir:      dir,
		Work:     work,
		Writable: writable(o.program[1:], env),
		Await:    o.companion != "",
		Merged:   sameFile(os.Stdout, os.Stderr),
	}, nil
}

// sameFile tells whether the caller sent two streams to one place, as 2>&1 and
// go test do.
func sameFile(a, b *os.File) bool {
	var sa, sb unix.Stat_t
	if unix.Fstat(int(a.Fd()), &sa) != nil || unix.Fstat(int(b.Fd()), &sb) != nil {
		return false
	}
	return sa.Dev == sb.Dev && sa.Ino == sb.Ino
}
