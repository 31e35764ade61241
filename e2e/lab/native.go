package main

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"time"
)

// nativeGrace is what a program has to end itself, for instance to print its
// goroutines, when lab is told to stop.
const nativeGrace = 3 * time.Second

// hostHasIPVS tells whether programs can use IPVS here, without a guest: that
// takes root of the initial user namespace and the module.
func hostHasIPVS() bool {
	uids, err := os.ReadFile("/proc/self/uid_map")
	if err != nil || os.Geteuid() != 0 || strings.Join(strings.Fields(string(uids)), " ") != "0 0 4294967295" {
		return false
	}
	if _, err := os.Stat("/proc/net/ip_vs"); err == nil {
		return true
	}
	return exec.Command("modprobe", "ip_vs").Run() == nil
}

// runNative runs the program in fresh namespaces of the host.
func runNative(ctx context.Context, o options, s spec) (int, error) {
	if err := enterNetwork(nativeNetwork(s.Await)); err != nil {
		return 0, err
	}
	if err := enterMounts(); err != nil {
		return 0, err
	}
	if s.Await {
		c, err := startCompanion(o.companion, os.Environ(), s.Work)
		if err != nil {
			return 0, err
		}
		defer c.stop()
		if err := c.awaitReady(ctx, nil); err != nil {
			return 0, err
		}
	}
	cmd := exec.Command(s.Args[0], s.Args[1:]...)
	cmd.Env, cmd.Dir = s.Env, s.Dir
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	p, err := start("program", cmd)
	if err != nil {
		return 0, err
	}
	defer p.stop(0)
	select {
	case <-p.done:
		return p.result()
	case <-ctx.Done():
		p.stop(nativeGrace)
		return 0, context.Cause(ctx)
	}
}
