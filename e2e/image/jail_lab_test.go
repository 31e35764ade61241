//go:build lab

package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// jail is what a container runtime makes of a container in the host's network:
// the process sees the image's root, read-only, with a /proc whose sys is
// read-only, and has a few of root's capabilities that it cannot add to.
type jail struct {
	Root         string
	Mounts       []mount
	Capabilities []string // as manifests name them: "NET_ADMIN"
	Args         []string // of the image's entrypoint, or a command with its own
	Command      bool
}

// mount is a file or directory of the host in the container.
type mount struct {
	From, To string
	ReadOnly bool
}

// jailWord has the test's own binary become a jailed program.
const jailWord = "jailed"

// args are those of the test's binary that make it the jailed program.
func (j jail) args() ([]string, error) {
	text, err := json.Marshal(j)
	return []string{jailWord, string(text)}, err
}

// becomeJailed does not return, unless it fails: this process is the jailed
// program from then on. It is for processes that do nothing else.
func becomeJailed(text string) error {
	var j jail
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	runtime.LockOSThread() // all below is this thread's, and so the program's
	if err := j.enter(); err != nil {
		return fmt.Errorf("enter the jail: %w", err)
	}
	path, argv := "/usr/bin/sluice", append([]string{"sluice"}, j.Args...)
	if j.Command {
		path, argv = filepath.Join("/usr/sbin", j.Args[0]), j.Args
	}
	if err := j.confine(); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	return syscall.Exec(path, argv, []string{"PATH=/usr/sbin:/usr/bin"})
}

// enter makes the image's root the process's own.
func (j jail) enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	at := func(path string) string { return filepath.Join(j.Root, path) }
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{j.Root, j.Root, "", unix.MS_BIND},
		{"proc", at("proc"), "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{at("proc/sys"), at("proc/sys"), "", unix.MS_BIND},
		{"", at("proc/sys"), "", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY},
		{"/sys", at("sys"), "", unix.MS_BIND},
		{"", at("sys"), "", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY},
		{"/dev", at("dev"), "", unix.MS_BIND},
		{"tmpfs", at("run"), "tmpfs", 0}, // a runtime makes what is mounted on
	} {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	for _, m := range j.Mounts {
		if err := m.bind(at(m.To)); err != nil {
			return fmt.Errorf("mount %s: %w", m.To, err)
		}
	}
	for _, target := range []string{at("run"), j.Root} {
		if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("make %s read-only: %w", target, err)
		}
	}
	return errors.Join(unix.Chroot(j.Root), unix.Chdir("/"))
}

// bind mounts it on a place that is there, or below /run can be made.
func (m mount) bind(target string) error {
	if is, err := os.Stat(m.From); err != nil {
		return err
	} else if !is.IsDir() {
		if err := os.WriteFile(target, nil, 0o600); err != nil {
			return err
		}
	}
	if err := unix.Mount(m.From, target, "", unix.MS_BIND, ""); err != nil || !m.ReadOnly {
		return err
	}
	return unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

// confine leaves the capabilities of the jail to root, and no way to more.
func (j jail) confine() error {
	numbers := map[string]uintptr{"NET_ADMIN": unix.CAP_NET_ADMIN, "NET_RAW": unix.CAP_NET_RAW, "SYS_MODULE": unix.CAP_SYS_MODULE}
	var keep uint64
	for _, name := range j.Capabilities {
		number, known := numbers[name]
		if !known {
			return fmt.Errorf("capability %s: one of %v is expected", name, numbers)
		}
		keep |= 1 << number
	}
	for number := uintptr(0); number <= unix.CAP_LAST_CAP; number++ {
		if keep&(1<<number) != 0 {
			continue
		}
		// A kernel may know fewer.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, number, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	low, high := uint32(keep), uint32(keep>>32) //nolint:gosec // its halves
	data := [2]unix.CapUserData{{Effective: low, Permitted: low}, {Effective: high, Permitted: high}}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}

// granted reads the capabilities that a process of this host has, as bits.
func granted(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if bits, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return strings.TrimSpace(bits), nil
		}
	}
	return "", fmt.Errorf("process %d: no CapEff", pid)
}
