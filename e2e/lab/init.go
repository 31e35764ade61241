package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// toolDir is first in the program's PATH.
const toolDir = "/run/lab/bin"

// guestInit is lab as the guest's pid 1. What it prints is in the boot log; the
// host knows that the boot failed when there is no status file.
func guestInit(specPath string) {
	if err := runInit(specPath); err != nil {
		fmt.Fprintln(os.Stderr, "lab init:", err)
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintln(os.Stderr, "lab init: power off:", err)
	}
}

func runInit(specPath string) error {
	// Pid 1 has no environment to speak of; modprobe and ip are found here.
	if err := os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"); err != nil {
		return err
	}
	var s spec
	if err := load(specPath, &s); err != nil {
		return err
	}
	if err := buildRoot(s); err != nil {
		return err
	}
	st, err := prepareAndRun(s)
	if err != nil {
		st.Error = err.Error()
	}
	return save(s.Work.status(), st)
}

// prepareAndRun does what can fail once there is a way to tell the host.
func prepareAndRun(s spec) (status, error) {
	if err := loadModules(); err != nil {
		return status{}, err
	}
	if err := ipBatch(guestNetwork(s.Await)); err != nil {
		return status{}, err
	}
	if err := linkTools(); err != nil {
		return status{}, err
	}
	// The kernel's own default is 1024 and 4096, a system's much more.
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 1 << 16, Max: 1 << 20}); err != nil {
		return status{}, fmt.Errorf("raise the limit of open files: %w", err)
	}
	for s.Await && !isReady(s.Work) {
		time.Sleep(readyPoll)
	}
	return runAsInit(s)
}

// linkTools makes the iptables names mean the legacy ones: this kernel has no
// nf_tables for ip and ip6.
func linkTools() error {
	if err := os.MkdirAll(toolDir, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", toolDir, err)
	}
	multi, err := exec.LookPath("xtables-legacy-multi")
	if err != nil {
		return nil // a host without iptables has programs without iptables
	}
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, verb := range []string{"", "-save", "-restore"} {
			if err := os.Symlink(multi, filepath.Join(toolDir, family+verb)); err != nil {
				return fmt.Errorf("link %s%s: %w", family, verb, err)
			}
		}
	}
	return nil
}

// runAsInit runs the program and, as pid 1 must, reaps what others orphaned.
func runAsInit(s spec) (status, error) {
	files, err := openStreams(s)
	if err != nil {
		return status{}, err
	}
	if err := os.WriteFile(s.Work.started(), nil, 0o600); err != nil {
		return status{}, fmt.Errorf("tell the host of the start: %w", err)
	}
	program, err := os.StartProcess(s.Args[0], s.Args, &os.ProcAttr{
		Dir: s.Dir, Env: withTools(s.Env), Files: files, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return status{}, fmt.Errorf("start the program: %w", err)
	}
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return status{}, fmt.Errorf("wait for the program: %w", err)
		case pid == program.Pid && ws.Signaled():
			return status{Signal: int(ws.Signal())}, nil
		case pid == program.Pid:
			return status{Exit: ws.ExitStatus()}, nil
		}
	}
}

func openStreams(s spec) ([]*os.File, error) {
	stdin, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("open stdin: %w", err)
	}
	stdout, err := os.OpenFile(s.Work.stdout(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, fmt.Errorf("open stdout: %w", err)
	}
	if s.Merged {
		return []*os.File{stdin, stdout, stdout}, nil
	}
	stderr, err := os.OpenFile(s.Work.stderr(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, fmt.Errorf("open stderr: %w", err)
	}
	return []*os.File{stdin, stdout, stderr}, nil
}

func withTools(env []string) []string {
	env = slices.Clone(env)
	for i, kv := range env {
		if path, ok := strings.CutPrefix(kv, "PATH="); ok {
			env[i] = "PATH=" + toolDir + ":" + path
			return env
		}
	}
	return append(env, "PATH="+toolDir+":"+os.Getenv("PATH"))
}
