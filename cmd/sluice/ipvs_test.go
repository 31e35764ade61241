package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice.dev/sluice/ipvs/ipvsadm"
)

// `sluice ipvs` has a command line of its own, and only --help is ours.
func TestIPVSHelp(t *testing.T) {
	var out bytes.Buffer
	cmd := root()
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"ipvs", "--help"})
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"ipvsadm 1.31", "--names", "--limit NUMBER", "sluice ipvs -L --rate --watch", "Exit codes"} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("no %q in\n%s", text, out.String())
		}
	}
}

// What ipvsadm exits with becomes our exit code, and it has said all there is.
func TestIPVSExitCode(t *testing.T) {
	silent(t)
	for line, code := range map[string]int{"-C": 2, "-q": 255, "-h": 0, "-L foo": 2} {
		cmd := root()
		cmd.SetArgs(append([]string{"ipvs"}, strings.Fields(line)...))
		got := 0
		if err := cmd.Execute(); err != nil {
			end, is := errors.AsType[exitError](err)
			if !is || end.err != nil {
				t.Errorf("%s: %v", line, err)
			}
			got = end.code
		}
		if got != code {
			t.Errorf("%s: exit %d, want %d", line, got, code)
		}
	}
}

// silent sends what programs say elsewhere.
func silent(t *testing.T) {
	t.Helper()
	nowhere, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	out, complaint := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = nowhere, nowhere
	t.Cleanup(func() {
		os.Stdout, os.Stderr = out, complaint
		nowhere.Close()
	})
}

// Every example of the help is a command line that is taken.
func TestIPVSExamples(t *testing.T) {
	for line := range strings.Lines(ipvsCommand().Example) {
		line, _, _ = strings.Cut(line, ">")
		args := strings.Fields(line)[2:]
		if err := ipvsadm.Check(args); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	if ipvsadm.Check([]string{"-L", "-q"}) == nil || ipvsadm.Check([]string{"-C"}) == nil || ipvsadm.Check(nil) != nil {
		t.Error("what is taken, and what not, is mixed up")
	}
}

func TestCalledAsIPVSADM(t *testing.T) {
	args := os.Args
	t.Cleanup(func() { os.Args = args })
	for name, want := range map[string]bool{"ipvsadm": true, filepath.Join("/usr/sbin", "ipvsadm"): true, "sluice": false, "ipvsadm-save": false} {
		os.Args = []string{name}
		if got := calledAsIPVSADM(); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
