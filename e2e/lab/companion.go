package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

const (
	companionGrace = 10 * time.Second
	readyPoll      = 20 * time.Millisecond
	progressEvery  = 5 * time.Second
)

// companion is the host program beside the guest; nil when none was asked for.
type companion struct {
	process *process
	work    workdir
	log     string
}

// startCompanion runs the command in the current namespaces.
func startCompanion(command string, env []string, w workdir) (*companion, error) {
	c := &companion{work: w, log: w.companionLog()}
	if out := os.Getenv(envOut); out != "" {
		c.log = filepath.Join(out, "companion.log") // worth more than the run
	}
	log, err := os.Create(c.log)
	if err != nil {
		return nil, fmt.Errorf("create the companion's log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command("/bin/sh", "-c", "exec "+command)
	cmd.Env = append(env, envShared+"="+w.shared())
	cmd.Stdout, cmd.Stderr = log, log
	c.process, err = start("companion", cmd)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// awaitReady waits until the companion has made its file, says so while that
// takes long, and fails when it cannot come any more. Other is closed when the
// program's side has ended, which is for the caller to explain.
func (c *companion) awaitReady(ctx context.Context, other <-chan struct{}) error {
	begin := time.Now()
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	progress := time.NewTicker(progressEvery)
	defer progress.Stop()
	for {
		if isReady(c.work) {
			return nil
		}
		select {
		case <-poll.C:
		case <-progress.C:
			fmt.Fprintf(os.Stderr, "lab: waiting for the companion, %d s\n", int(time.Since(begin).Seconds()))
		case <-other:
			return nil
		case <-c.process.done:
			return fmt.Errorf("the companion ended before it was ready (%v); its log ends with:\n%s", c.process.cmd.ProcessState, tail(c.log, 30))
		case <-ctx.Done():
			return fmt.Errorf("companion not ready: %w; its log ends with:\n%s", context.Cause(ctx), tail(c.log, 30))
		}
	}
}

func isReady(w workdir) bool {
	_, err := os.Stat(w.ready())
	return err == nil
}

// stop ends the companion and tells when it had died under a program that needed it.
func (c *companion) stop() {
	if c.process.ended() && isReady(c.work) {
		fmt.Fprintf(os.Stderr, "lab: the companion ended during the run (%v); its log ends with:\n%s\n", c.process.cmd.ProcessState, tail(c.log, 30))
	}
	c.process.stop(companionGrace)
}
