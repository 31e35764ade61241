package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseOptions(t *testing.T) {
	tests := []struct {
		name    string
		args    []string
		want    options
		wantErr string
	}{
		{name: "defaults", args: []string{"prog"},
			want: options{mem: "4G", cpu: "auto", timeout: 30 * time.Minute, mode: "auto", kernel: "linux.uml", program: []string{"prog"}}},
		{name: "the program keeps its flags", args: []string{"-mem", "2G", "-cpu=1", "prog", "-v", "-mem", "x"},
			want: options{mem: "2G", cpu: "1", timeout: 30 * time.Minute, mode: "auto", kernel: "linux.uml", program: []string{"prog", "-v", "-mem", "x"}}},
		{name: "all", args: []string{"-v", "-timeout", "0", "-mode", "guest", "-kernel", "/k", "-cpu", "all", "-companion", "a b", "--", "-prog"},
			want: options{mem: "4G", cpu: "all", verbose: true, mode: "guest", kernel: "/k", companion: "a b", program: []string{"-prog"}}},
		{name: "no program", args: []string{"-v"}, wantErr: "no program"},
		{name: "bad memory", args: []string{"-mem", "4", "prog"}, wantErr: "-mem"},
		{name: "bad processor", args: []string{"-cpu", "-1", "prog"}, wantErr: "-cpu"},
		{name: "bad mode", args: []string{"-mode", "vm", "prog"}, wantErr: "-mode"},
		{name: "bad flag", args: []string{"-x"}, wantErr: "not defined"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseOptions(tt.args, io.Discard)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("error %v, want one about %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			program := got.program
			if !slices.Equal(program, tt.want.program) {
				t.Errorf("program %q, want %q", program, tt.want.program)
			}
			got.program, tt.want.program = nil, nil
			if !optionsEqual(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func optionsEqual(a, b options) bool {
	return a.mem == b.mem && a.cpu == b.cpu && a.timeout == b.timeout && a.verbose == b.verbose &&
		a.companion == b.companion && a.mode == b.mode && a.kernel == b.kernel
}

func TestBootLine(t *testing.T) {
	line := bootLine(options{mem: "2G"}, "/bin/lab", "/tmp/w")
	for _, want := range []string{"mem=2G", "rootfstype=hostfs", "ro", "init=/bin/lab", "SLUICE_LAB_SPEC=/tmp/w/spec"} {
		if !slices.Contains(line, want) {
			t.Errorf("boot line %q lacks %q", line, want)
		}
	}
	tap := "vec0:transport=tap,ifname=sluicetap,gro=1"
	if slices.Contains(line, tap) {
		t.Errorf("boot line %q has a network device nobody asked for", line)
	}
	if line := bootLine(options{mem: "2G", companion: "x"}, "/bin/lab", "/tmp/w"); !slices.Contains(line, tap) {
		t.Errorf("boot line %q lacks %q", line, tap)
	}
}

func TestProgramEnv(t *testing.T) {
	caller := []string{
		"PATH=/bin", "HOME=/root", "CI=true", "TERM=xterm", "GOCOVERDIR=/c", "SLUICE_BIN=/b", "SLUICE_LAB_OUT=/o",
		"SLUICE_LAB_SPEC=/s", "SLUICE_LAB=guest", "SLUICE_LAB_SHARED=/old", "USER=root", "PATHS=1",
	}
	want := []string{
		"PATH=/bin", "HOME=/root", "CI=true", "TERM=xterm", "GOCOVERDIR=/c", "SLUICE_BIN=/b", "SLUICE_LAB_OUT=/o",
		"SLUICE_LAB=native", "SLUICE_LAB_SHARED=/w/shared",
	}
	if got := programEnv(caller, modeNative, "/w"); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestWritable(t *testing.T) {
	args := []string{
		"-test.v", "-test.coverprofile=/tmp/go-build1/b001/_cover_.out", "-test.outputdir=/src/pkg",
		"-test.gocoverdir=/tmp/go-build1/b001/gocoverdir", "-test.cpuprofile=cpu.out", "-test.run=/abs",
	}
	env := []string{"SLUICE_LAB_OUT=/out/", "GOCOVERDIR=/out", "GOPATH=/go"}
	want := []string{"/out", "/tmp/go-build1/b001", "/src/pkg", "/tmp/go-build1/b001/gocoverdir"}
	if got := writable(args, env); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestMentioned(t *testing.T) {
	s := spec{
		Args: []string{"/tmp/go-build1/x.test", "-f=/tmp/a", "/run/b/", "rel/c", "-v"},
		Env:  []string{"HOME=/tmp/home", "SLUICE_BIN=/tmp/sluice", "SLUICE_LAB_SHARED=/tmp/w/shared"},
		Dir:  "/tmp/src",
		Work: "/tmp/w",
	}
	want := []string{"/tmp/src", "/tmp/go-build1/x.test", "/tmp/a", "/run/b", "/tmp/sluice"}
	if got := s.mentioned(); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestSpecRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spec.json")
	want := spec{Args: []string{"/p", "a b", "\xff"}, Env: []string{"A=b\nc"}, Dir: "/d", Work: "/w", Await: true, Merged: true}
	if err := save(path, want); err != nil {
		t.Fatal(err)
	}
	var got spec
	if err := load(path, &got); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Args, want.Args) || !slices.Equal(got.Env, want.Env) || got.Dir != want.Dir || got.Work != want.Work || !got.Await || !got.Merged {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	var got bytes.Buffer
	f, err := follow(path, &got)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	want := []byte("a\r\n\x00b")
	for _, b := range want {
		if _, err := file.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.finish(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got %q, want %q", got.Bytes(), want)
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("1\n2\n3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := tail(path, 2); got != "\t2\n\t3" {
		t.Errorf("got %q", got)
	}
}

func TestClaimIsExclusive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := tryLock(path)
	if err != nil || first == nil {
		t.Fatalf("first lock: %v, %v", first, err)
	}
	if second, err := tryLock(path); err != nil || second != nil {
		t.Fatalf("second lock: %v, %v, want none", second, err)
	}
	first.Close()
	if third, err := tryLock(path); err != nil || third == nil {
		t.Fatalf("lock after release: %v, %v", third, err)
	}
}

func TestWideRegisters(t *testing.T) {
	for cpuinfo, want := range map[string]bool{
		"processor\t: 0\nflags\t\t: fpu avx512f amx_tile amx_int8\nbugs\t\t:\n": true,
		"flags\t\t: fpu amx_tile\n":           true,
		"flags\t\t: fpu avx512f\nbugs\t\t:\n": false,
		"":                                    false,
	} {
		if got := wideRegisters(cpuinfo); got != want {
			t.Errorf("%q: got %v", cpuinfo, got)
		}
	}
}
