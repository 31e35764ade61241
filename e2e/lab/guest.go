package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// runGuest boots a guest, has it run the program and returns the exit code.
func runGuest(ctx context.Context, o options, s spec) (code int, err error) {
	if err := save(s.Work.spec(), s); err != nil {
		return 0, fmt.Errorf("write the spec: %w", err)
	}
	for _, dir := range s.Writable {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return 0, fmt.Errorf("make a directory for the program: %w", err)
		}
	}
	cpu, err := claimProcessor(ctx, o.cpu)
	if err != nil {
		return 0, err
	}
	defer cpu.release()

	var beside *companion
	if s.Await {
		if err := enterNetwork(hostNetwork()); err != nil {
			return 0, err
		}
		if beside, err = startCompanion(o.companion, os.Environ(), s.Work); err != nil {
			return 0, err
		}
		defer beside.stop()
	}

	output, err := followOutput(o, s)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	guest, err := startGuest(o, s, cpu)
	if err != nil {
		return 0, errors.Join(err, output.finish())
	}
	err = awaitGuest(ctx, guest, beside, s.Work)
	guest.stop(0)
	if err := errors.Join(err, output.finish()); err != nil {
		return 0, err
	}
	if o.verbose {
		reportTimes(s.Work, begin)
	}
	return guestResult(s.Work, guest)
}

func startGuest(o options, s spec, cpu processor) (*process, error) {
	init, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find lab's own binary: %w", err)
	}
	if init, err = filepath.EvalSymlinks(init); err != nil {
		return nil, fmt.Errorf("find lab's own binary: %w", err)
	}
	log, err := os.Create(s.Work.bootLog())
	if err != nil {
		return nil, fmt.Errorf("create the boot log: %w", err)
	}
	defer log.Close()
	if err := os.Mkdir(s.Work.file("uml"), 0o700); err != nil {
		return nil, fmt.Errorf("make uml_dir: %w", err)
	}
	kernel, err := exec.LookPath(o.kernel)
	if err != nil {
		return nil, fmt.Errorf("find the guest kernel (Debian has it in package user-mode-linux): %w", err)
	}
	shim, err := registerShim(s.Work)
	if err != nil {
		return nil, err
	}
	cmd := kernelCommand(kernel, bootLine(o, init, s.Work))
	cmd.Env = append(shim, "PATH="+os.Getenv("PATH"), "HOME="+string(s.Work), "TMPDIR="+memoryDir())
	cmd.Dir = string(s.Work)
	cmd.Stdout, cmd.Stderr = log, log
	var guest *process
	err = cpu.pinned(func() (err error) {
		guest, err = start("guest kernel", cmd)
		return err
	})
	return guest, err
}

// kernelCommand is the command that starts the kernel so that nothing of it
// survives lab. The kernel traces the processes of the guest; ones that lost
// their tracer would go on as ordinary processes of the host.
func kernelCommand(kernel string, args []string) *exec.Cmd {
	if os.Geteuid() != 0 {
		// The kernel ends its processes itself when it is asked to.
		cmd := exec.Command(kernel, args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
		return cmd
	}
	// A process namespace ends with its first process. That cannot be the
	// kernel: it ends a panic with SIGABRT, which first processes ignore.
	cmd := exec.Command("/bin/sh", append([]string{"-c", `"$0" "$@"; exit $?`, kernel}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	return cmd
}

// memoryDir is where the kernel puts the file that is the guest's memory: in
// memory itself, unless the container gave /dev/shm little room or no exec.
func memoryDir() string {
	const shm, room = "/dev/shm", 1 << 30
	var st unix.Statfs_t
	if unix.Statfs(shm, &st) != nil || st.Type != unix.TMPFS_MAGIC ||
		st.Flags&unix.ST_NOEXEC != 0 || st.Bavail*uint64(st.Bsize) < room {
		return os.TempDir()
	}
	return shm
}

// awaitGuest returns when the guest has ended, or why it has to be ended.
func awaitGuest(ctx context.Context, guest *process, beside *companion, w workdir) error {
	if beside != nil {
		if err := beside.awaitReady(ctx, guest.done); err != nil {
			return err
		}
	}
	select {
	case <-guest.done:
		return nil
	case <-ctx.Done():
	}
	if _, err := os.Stat(w.started()); err != nil {
		return fmt.Errorf("%w; the program had not started, the guest's boot log ends with:\n%s", context.Cause(ctx), tail(w.bootLog(), 30))
	}
	return context.Cause(ctx)
}

// guestResult turns the guest's report into the program's exit code.
func guestResult(w workdir, guest *process) (int, error) {
	var st status
	err := load(w.status(), &st)
	switch {
	case err != nil:
		return 0, fmt.Errorf("the guest ended without a result (%v); its log ends with:\n%s", guest.cmd.ProcessState, tail(w.bootLog(), 40))
	case st.Error != "":
		return 0, fmt.Errorf("guest: %s", st.Error)
	case st.Signal != 0:
		fmt.Fprintf(os.Stderr, "lab: the program was ended by signal %d (%v)\n", st.Signal, syscall.Signal(st.Signal))
		return 128 + st.Signal, nil
	}
	return st.Exit, nil
}

func reportTimes(w workdir, begin time.Time) {
	if fi, err := os.Stat(w.started()); err == nil {
		fmt.Fprintf(os.Stderr, "lab: program started %.2f s after the kernel, guest ended after %.2f s\n",
			fi.ModTime().Sub(begin).Seconds(), time.Since(begin).Seconds())
	}
}

// outputs is every stream of the guest that lab passes on.
type outputs []*follower

func followOutput(o options, s spec) (outputs, error) {
	streams := []struct {
		path string
		to   *os.File
		on   bool
	}{
		{s.Work.stdout(), os.Stdout, true},
		{s.Work.stderr(), os.Stderr, !s.Merged},
		{s.Work.bootLog(), os.Stderr, o.verbose},
	}
	var out outputs
	for _, stream := range streams {
		if !stream.on {
			continue
		}
		f, err := follow(stream.path, stream.to)
		if err != nil {
			return nil, errors.Join(err, out.finish())
		}
		out = append(out, f)
	}
	return out, nil
}

func (out outputs) finish() error {
	var errs []error
	for _, f := range out {
		errs = append(errs, f.finish())
	}
	return errors.Join(errs...)
}
