package topo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// stopGrace is what a process has to end itself when it is stopped.
const stopGrace = 10 * time.Second

// Command is a command to be run in the host's namespace, with a /sys that
// shows it. For nodes that is all a container would have, but for one thing:
// hosts share a file system, so each has its own iptables lock here, or nodes
// would wait for each other.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	if h.Name == "" {
		return exec.CommandContext(ctx, name, args...)
	}
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", h.Name, name}, args...)...)
	cmd.Env = append(os.Environ(), "XTABLES_LOCKFILE=/run/xtables."+h.Name+".lock")
	return cmd
}

// Run runs a command in the namespace and returns what it printed to stdout.
func (h *Host) Run(ctx context.Context, name string, args ...string) (string, error) {
	out, err := h.Command(ctx, name, args...).Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return string(out), fmt.Errorf("topo: run %s in %q: %w", name, h.Name, err)
	}
	return string(out), nil
}

// Process is a program running in the background on a host.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // to be read after done
}

// Start runs a program in the background until it ends, is stopped, or the
// topology closes. Its output goes to log.
func (h *Host) Start(log io.Writer, name string, args ...string) (*Process, error) {
	cmd := h.Command(context.Background(), name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	// What it leaves behind must not keep us waiting for the end of its output.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("topo: start %s in %q: %w", name, h.Name, err)
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	h.onClose(p.Stop)
	return p, nil
}

// Pid is the program's process id: `ip netns exec` becomes the program.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is how the program ended; it blocks until then.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// Stop asks the program to end and, when it does not, kills it. It returns an
// error if that was needed. Stopping again, or what has ended, is fine.
func (p *Process) Stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); errors.Is(err, os.ErrProcessDone) {
		<-p.done
		return nil
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(stopGrace):
	}
	err := p.Kill()
	return errors.Join(fmt.Errorf("topo: %v did not stop within %v", p.cmd.Args, stopGrace), err)
}

// Freeze stops the program where it is, as a machine that hangs would: its
// connections stay and nobody speaks. Thaw lets it go on.
func (p *Process) Freeze() error { return p.signal(syscall.SIGSTOP) }

// Thaw ends a Freeze.
func (p *Process) Thaw() error { return p.signal(syscall.SIGCONT) }

func (p *Process) signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("topo: %v to %v: %w", s, p.cmd.Args, err)
	}
	return nil
}

// Kill ends the program without warning, as a crash would.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("topo: kill %v: %w", p.cmd.Args, err)
	}
	<-p.done
	return nil
}
