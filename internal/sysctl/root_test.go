package sysctl

import (
	"os"
	"testing"
)

// TestRoot: what a container was given goes before its own.
func TestRoot(t *testing.T) {
	dir := t.TempDir()
	if got, want := rootBelow(dir), dir+"/proc/sys"; got != want {
		t.Errorf("without the host's: %s, want %s", got, want)
	}
	if err := os.MkdirAll(dir+"/host/proc/sys/net", 0o755); err != nil {
		t.Fatal(err)
	}
	if got, want := rootBelow(dir), dir+"/host/proc/sys"; got != want {
		t.Errorf("with the host's: %s, want %s", got, want)
	}
}
