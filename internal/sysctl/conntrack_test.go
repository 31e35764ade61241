package sysctl

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestConntrackMax follows kube-proxy's: so many for each processor, a floor
// that does not count without them, and a ceiling.
func TestConntrackMax(t *testing.T) {
	for _, c := range []struct{ perCore, least, cores, want int }{
		{32768, 131072, 1, 131072},
		{32768, 131072, 4, 131072},
		{32768, 131072, 5, 163840},
		{32768, 131072, 32, 1048576},
		{32768, 131072, 33, 1048576},
		{0, 131072, 8, 0},
		{1000, 0, 3, 3000},
		{1, 2000000, 1, 2000000},
	} {
		if got := (Conntrack{MaxPerCore: c.perCore, Min: c.least}).Max(c.cores); got != c.want {
			t.Errorf("%d per core, at least %d, %d cores: %d, want %d", c.perCore, c.least, c.cores, got, c.want)
		}
	}
}

func TestConntrackSettings(t *testing.T) {
	text := func(c Conntrack) string {
		var lines []string
		for _, s := range c.Settings(2) {
			line := strings.TrimPrefix(s.Path, "net/netfilter/nf_conntrack_") + "=" + s.Value
			if s.AtLeast {
				line += " at least"
			}
			if s.Why == "" || s.VerifyOnly {
				t.Errorf("%+v", s)
			}
			lines = append(lines, line)
		}
		return strings.Join(lines, ", ")
	}
	for _, c := range []struct {
		is   Conntrack
		want string
	}{
		{Conntrack{}, ""},
		{Conntrack{Min: 5}, ""},
		{Conntrack{MaxPerCore: 100000}, "buckets=50000 at least, max=200000"},
		{Conntrack{TCPEstablished: 24 * time.Hour, TCPCloseWait: time.Hour}, "tcp_timeout_established=86400, tcp_timeout_close_wait=3600"},
		{Conntrack{UDP: 30 * time.Second, UDPStream: 300 * time.Second, TCPBeLiberal: true}, "udp_timeout=30, udp_timeout_stream=300, tcp_be_liberal=1"},
	} {
		if got := text(c.is); got != c.want {
			t.Errorf("%+v: %s, want %s", c.is, got, c.want)
		}
	}
}

func TestCores(t *testing.T) {
	for text, want := range map[string]int{
		"0": 1, "0-3": 4, "0-1,4,6-7": 5, "": runtime.NumCPU(), "a-b": runtime.NumCPU(), "3-1": runtime.NumCPU(), "0-": runtime.NumCPU(),
	} {
		root := t.TempDir()
		path := filepath.Join(root, "sys/devices/system/cpu/online")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := Cores(root); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	if got := Cores(t.TempDir()); got != runtime.NumCPU() {
		t.Errorf("without the file: %d", got)
	}
}

// TestAtLeast: more is not made less, and a number is not compared as a text.
func TestAtLeast(t *testing.T) {
	for _, c := range []struct {
		is      string
		setting Setting
		want    string
		wrote   bool
	}{
		{"100", Setting{Value: "99", AtLeast: true}, "100", false},
		{"100", Setting{Value: "100", AtLeast: true}, "100", false},
		{"100", Setting{Value: "101", AtLeast: true}, "101", true},
		{"9", Setting{Value: "10", AtLeast: true}, "10", true},
		{"none", Setting{Value: "10", AtLeast: true}, "10", true},
		{"100", Setting{Value: "99"}, "99", true},
	} {
		root := t.TempDir()
		if err := os.WriteFile(filepath.Join(root, "on"), []byte(c.is+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		c.setting.Path = "on"
		o := Apply(root, []Setting{c.setting})[0]
		if got, _ := read(filepath.Join(root, "on")); got != c.want || o.Wrote != c.wrote || o.Err != nil {
			t.Errorf("%s, %+v: %s, %+v; want %s", c.is, c.setting, got, o, c.want)
		}
	}
}

func TestRemedy(t *testing.T) {
	for _, err := range []error{&fs.PathError{Op: "open", Path: "x", Err: syscall.EROFS}, &fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}, syscall.EPERM} {
		if !strings.Contains(remedy(err), "/host/proc/sys, or run `sluice run --init-only`") {
			t.Errorf("%v: %q", err, remedy(err))
		}
	}
	if got := remedy(syscall.EINVAL); got != "" {
		t.Errorf("a value that is refused: %q", got)
	}
}
