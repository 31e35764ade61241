package main

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

//go:embed xstate/xstate.c
var shimSource string

// wideRegisters tells from /proc/cpuinfo whether the processor has register
// state that kernels before 6.13 have no room for, see xstate/xstate.c.
func wideRegisters(cpuinfo string) bool {
	for line := range strings.Lines(cpuinfo) {
		if name, flags, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "flags" {
			return slices.Contains(strings.Fields(flags), "amx_tile")
		}
	}
	return false
}

// registerShim returns the environment the guest kernel needs to run on this
// processor. Building the shim on the spot takes 50 ms and needs no cache.
func registerShim(w workdir) ([]string, error) {
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil, fmt.Errorf("read processor's features: %w", err)
	}
	if !wideRegisters(string(cpuinfo)) {
		return nil, nil
	}
	path := w.file("xstate.so")
	cmd := exec.Command("cc", "-O2", "-shared", "-fPIC", "-x", "c", "-o", path, "-")
	cmd.Stdin = strings.NewReader(shimSource)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("this processor has AMX, which the guest kernel does not know; build the help for that with cc: %w: %s", err, out)
	}
	return []string{"LD_PRELOAD=" + path}, nil
}
