package sysctl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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

	errs := Apply(root, []Setting{
		{Path: "a/right", Value: "1"},
		{Path: "a/wrong", Value: "1"},
		{Path: "a/others", Value: "1", VerifyOnly: true, Why: "nothing works"},
		{Path: "a/missing", Value: "1"},
	})

	var got []string
	for _, e := range errs {
		got = append(got, e.Error())
	}
	want := []string{
		"sysctl a.others=1: it is 0 (nothing works)",
		"sysctl a.missing=1: this kernel does not have it; is the module loaded? ()",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("errors\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
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
