package sysctl

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestEachFailureIsNamed(t *testing.T) {
	root := t.TempDir()
	write := func(path, value string) string {
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(value+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return full
	}
	right := write("a/right", "1")
	wrong := write("a/wrong", "0")
	write("a/others", "0")
	before, err := os.Stat(right)
	if err != nil {
		t.Fatal(err)
	}

	outcomes := Apply(root, []Setting{
		{Path: "a/right", Value: "1"},
		{Path: "a/wrong", Value: "1"},
		{Path: "a/others", Value: "1", VerifyOnly: true, Why: "nothing works"},
		{Path: "a/missing", Value: "1"},
		{Path: "a/module", Value: "1", Module: "br_netfilter", Why: "nothing works"},
	})

	written := 0
	var got []string
	for _, o := range outcomes {
		if o.Wrote {
			written++
		}
		if o.Err != nil {
			got = append(got, o.Err.Error())
		}
	}
	want := []string{
		"sysctl a.others=1: it is 0 (nothing works)",
		"sysctl a.missing=1: this kernel does not have it; is the module loaded? ()",
		"sysctl a.module=1: this kernel does not have it; load its module: modprobe br_netfilter (nothing works)",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("errors\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if written != 1 {
		t.Errorf("%d settings written, want the one that was wrong", written)
	}
	if v, _ := read(wrong); v != "1" {
		t.Errorf("a/wrong is %q, want it set", v)
	}
	if after, err := os.Stat(right); err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("a/right was written although it had its value")
	}
}

func TestWantedNamesAReasonForEach(t *testing.T) {
	for _, s := range Wanted(true) {
		if s.Why == "" || s.Value == "" || strings.Contains(s.Path, ".") {
			t.Errorf("%+v is incomplete", s)
		}
	}
	if len(Wanted(false)) >= len(Wanted(true)) {
		t.Error("a node without IPv6 has no IPv6 setting to verify")
	}
}

func TestKeeperPutsRightWhatOthersChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := t.TempDir()
		path := filepath.Join(root, "on")
		set := func(value string) {
			if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		set("0")
		var log strings.Builder
		k := NewKeeper(root, []Setting{{Path: "on", Value: "1"}, {Path: "gone", Value: "1"}},
			time.Minute, slog.New(slog.NewTextHandler(&log, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go k.Run(ctx)
		expect := func(when string, drift uint64) {
			t.Helper()
			synctest.Wait()
			if v, _ := read(path); v != "1" || k.Drift() != drift {
				t.Errorf("%s: it is %q with drift %d, want 1 and %d", when, v, k.Drift(), drift)
			}
		}
		expect("at the start, which is no drift", 0)
		time.Sleep(time.Minute)
		expect("after a round without a change", 0)
		set("0")
		time.Sleep(time.Minute)
		expect("after a round with one", 1)
		if n := strings.Count(log.String(), "kernel setting is not as needed"); n != 1 {
			t.Errorf("what stays wrong was said %d times, want once:\n%s", n, &log)
		}
	})
}

// TestVitalSettings: what Services cannot be served without is a problem of the
// node until it is as needed; the rest is said in the log only.
func TestVitalSettings(t *testing.T) {
	root := t.TempDir()
	k := NewKeeper(root, Wanted(true), 0, slog.New(slog.DiscardHandler))
	k.Apply() // /proc/sys has none of them
	got := strings.Join(k.Problems(Services), "\n")
	if len(k.Problems(Services)) != 2 || !strings.Contains(got, "net.ipv4.vs.conntrack=1") || !strings.Contains(got, "net.ipv4.ip_forward=1") {
		t.Errorf("%q", got)
	}
	if others := append(k.Problems(Policies), k.Problems(None)...); len(others) != 0 {
		t.Errorf("%q are vital to nobody", others)
	}
	for _, s := range Wanted(true) {
		path := filepath.Join(root, s.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("0\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	k.Apply()
	if got := k.Problems(Services); len(got) != 0 {
		t.Errorf("%q, when they can be set", got)
	}
}
