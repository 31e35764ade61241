package main

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// process is a child that lab started; it leads its own process group, and
// when lab dies it dies too.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when the child has ended
	err  error         // what Wait said; to be read after done
}

// start runs cmd. Unless it says otherwise, cmd is killed when lab is. Callers
// stay on the main thread, see main.
func start(name string, cmd *exec.Cmd) (*process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	if cmd.SysProcAttr.Pdeathsig == 0 {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// ended tells whether the process is gone.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop ends the process and its whole group: at once, or after it was asked
// and had the grace period to end itself. Stopping twice is fine.
func (p *process) stop(grace time.Duration) {
	if grace > 0 && !p.ended() {
		p.signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(grace):
		}
	}
	// Not only when it still runs: its children may have outlived it.
	p.signal(syscall.SIGKILL)
	<-p.done
}

func (p *process) signal(s syscall.Signal) {
	// The group is gone when all of it ended by itself.
	_ = syscall.Kill(-p.cmd.Process.Pid, s)
}

// result is how the process ended, in the shell's counting.
func (p *process) result() (int, error) {
	if p.err == nil {
		return 0, nil
	}
	exit, ok := errors.AsType[*exec.ExitError](p.err)
	if !ok {
		return 0, fmt.Errorf("wait for %s: %w", p.name, p.err)
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return exit.ExitCode(), nil
}
