//go:build lab

package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// containerName is this program's name when it is to become a container.
const containerName = "container"

// container is what a container runtime is told, as far as it matters here.
type container struct {
	Image        string // a directory: what its root is made of
	Work         string // a directory of its own
	Mounts       []bind
	Args, Env    []string
	UID, GID     int
	Capabilities []uintptr // what root in it may have; nil: everything
	Privileged   bool
	ReadOnlyRoot bool
	NoNewPrivs   bool
}

// bind is a file or directory of the machine's that a container sees.
type bind struct {
	From, To string
	ReadOnly bool
}

// becomeContainer has this process, which is in the container's network
// namespace and a mount namespace of its own, become the container's program.
// It does not return but with an error.
func becomeContainer(path string) error {
	// Capabilities are a thread's.
	runtime.LockOSThread()
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var c container
	if err := json.Unmarshal(text, &c); err != nil {
		return err
	}
	if err := c.enterRoot(); err != nil {
		return err
	}
	if err := c.dropPrivileges(); err != nil {
		return err
	}
	program, err := lookUp(c.Args[0])
	if err != nil {
		return err
	}
	return syscall.Exec(program, c.Args, c.Env)
}

// lookUp finds a program in the image.
func lookUp(name string) (string, error) {
	if err := os.Setenv("PATH", imagePath); err != nil {
		return "", err
	}
	return exec.LookPath(name)
}

// enterRoot makes the container's root of the image and of what is mounted into
// it.
func (c container) enterRoot() error {
	root, upper, work := filepath.Join(c.Work, "root"), filepath.Join(c.Work, "upper"), filepath.Join(c.Work, "work")
	for _, dir := range []string{root, upper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := mount("overlay", "overlay", root, 0, "lowerdir="+c.Image+",upperdir="+upper+",workdir="+work); err != nil {
		return err
	}
	if err := errors.Join(
		mount("proc", "proc", root+"/proc", 0, ""),
		mount("/sys", "", root+"/sys", unix.MS_BIND|unix.MS_REC, ""),
		mount("/dev", "", root+"/dev", unix.MS_BIND|unix.MS_REC, ""),
		mount("tmpfs", "tmpfs", root+"/run", 0, "mode=755"),
		mount("tmpfs", "tmpfs", root+"/tmp", 0, "mode=1777"),
	); err != nil {
		return err
	}
	// What is mounted is looked up before, and where it goes after the change of
	// the root: links in the image lead to places in it.
	opened, err := c.sources()
	if err != nil {
		return err
	}
	if err := unix.Chroot(root); err != nil {
		return fmt.Errorf("enter %s: %w", root, err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if !c.Privileged {
		if err := bindTo("/proc/sys", "/proc/sys", true); err != nil {
			return err
		}
	}
	for i, b := range c.Mounts {
		if err := makeTarget(opened[i], b.To); err != nil {
			return fmt.Errorf("mount %s: %w", b.To, err)
		}
		if err := bindTo(fmt.Sprintf("/proc/self/fd/%d", opened[i]), b.To, b.ReadOnly); err != nil {
			return err
		}
	}
	if c.ReadOnlyRoot {
		for _, at := range []string{"/", "/run", "/tmp"} {
			if err := mount("", "", at, unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// sources opens what is mounted. The program does not inherit it.
func (c container) sources() (opened []int, err error) {
	for _, b := range c.Mounts {
		fd, err := unix.Open(b.From, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", b.From, err)
		}
		opened = append(opened, fd)
	}
	return opened, nil
}

// makeTarget makes a directory or a file, as the source is one.
func makeTarget(source int, path string) error {
	var is unix.Stat_t
	if err := unix.Fstat(source, &is); err != nil {
		return err
	}
	if is.Mode&unix.S_IFMT == unix.S_IFDIR {
		return os.MkdirAll(path, 0o755)
	}
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), touch(path))
}

func bindTo(from, to string, readOnly bool) error {
	if err := mount(from, "", to, unix.MS_BIND, ""); err != nil || !readOnly {
		return err
	}
	return mount("", "", to, unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

func touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

func mount(source, fstype, target string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s%s on %s: %w", fstype, source, target, err)
	}
	return nil
}

// dropPrivileges leaves the program what its security context lets it have.
func (c container) dropPrivileges() error {
	if !c.Privileged && c.Capabilities != nil {
		keep := map[uintptr]bool{}
		for _, one := range c.Capabilities {
			keep[one] = true
		}
		for one := uintptr(0); one <= unix.CAP_LAST_CAP; one++ {
			if keep[one] {
				continue
			}
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, one, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
				return fmt.Errorf("drop capability %d: %w", one, err)
			}
		}
	}
	if c.UID != 0 {
		if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(c.GID), syscall.Setuid(c.UID)); err != nil {
			return fmt.Errorf("become user %d: %w", c.UID, err)
		}
	}
	if c.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("set no_new_privs: %w", err)
		}
	}
	return nil
}

// capabilities are those of a container's security context, by the names that
// Kubernetes gives them.
func capabilities() map[string]uintptr {
	return map[string]uintptr{
		"NET_ADMIN": unix.CAP_NET_ADMIN, "NET_RAW": unix.CAP_NET_RAW, "NET_BIND_SERVICE": unix.CAP_NET_BIND_SERVICE,
		"SYS_MODULE": unix.CAP_SYS_MODULE,
	}
}
