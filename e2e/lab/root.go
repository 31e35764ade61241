package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// moduleDir is where Debian's user-mode-linux package has its modules.
const moduleDir = "/usr/lib/uml/modules"

// modules is what tests and the proxy expect to find without asking: sysctls
// and address families. Anything else (xt_*, ip_set_*, schedulers) the kernel
// asks modprobe for when it is first used.
func modules() []string {
	return []string{"ipv6", "ip_vs", "br_netfilter", "nf_conntrack"}
}

func loadModules() error {
	out, err := exec.Command("modprobe", append([]string{"-a"}, modules()...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("modprobe: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// buildRoot replaces the read-only hostfs root by an overlay over it and mounts
// what a Linux system has. On /tmp and /run the host's files are hidden but for
// those the program was told of.
func buildRoot(s spec) error {
	if err := overlayRoot(); err != nil {
		return err
	}
	mounts := []struct{ fstype, target, data string }{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"devtmpfs", "/dev", ""},
		{"devpts", "/dev/pts", "newinstance,ptmxmode=0666"},
		{"tmpfs", "/dev/shm", "mode=1777"},
	}
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
		if err := mount(m.fstype, m.fstype, m.target, 0, m.data); err != nil {
			return err
		}
	}
	if err := bind(moduleDir, "/lib/modules"); err != nil {
		return err
	}
	kept := s.mentioned()
	if err := cover("/tmp", "mode=1777", kept); err != nil {
		return err
	}
	if err := cover("/run", "mode=755", kept); err != nil {
		return err
	}
	for _, dir := range append(s.Writable, string(s.Work)) {
		if err := mountHost(dir); err != nil {
			return err
		}
	}
	return nil
}

// overlayRoot makes an overlay over the root the root of every process, the
// kernel's own helpers (modprobe) included: that takes pivot_root, not chroot.
func overlayRoot() error {
	const scratch = "/tmp" // the one directory sure to be there: we cannot make any yet
	if err := mount("tmpfs", "tmpfs", scratch, 0, ""); err != nil {
		return err
	}
	for _, dir := range []string{"upper", "work", "root", "kmod/lib"} {
		if err := os.MkdirAll(filepath.Join(scratch, dir), 0o755); err != nil {
			return fmt.Errorf("make overlay: %w", err)
		}
	}
	if err := os.Symlink(moduleDir, scratch+"/kmod/lib/modules"); err != nil {
		return fmt.Errorf("link modules: %w", err)
	}
	if out, err := exec.Command("modprobe", "-d", scratch+"/kmod", "overlay").CombinedOutput(); err != nil {
		return fmt.Errorf("modprobe overlay: %w: %s", err, bytes.TrimSpace(out))
	}
	root := scratch + "/root"
	if err := mount("overlay", "overlay", root, 0, "lowerdir=/,upperdir="+scratch+"/upper,workdir="+scratch+"/work"); err != nil {
		return err
	}
	if err := os.Chdir(root); err != nil {
		return fmt.Errorf("enter the overlay: %w", err)
	}
	// The old root ends up over the new one, from where it can be detached.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the old root: %w", err)
	}
	return os.Chdir("/")
}

// cover mounts an empty tmpfs on dir and brings back the kept paths below it.
func cover(dir, options string, kept []string) error {
	hidden := map[string]int{}
	for _, path := range kept {
		if !strings.HasPrefix(path, dir+"/") {
			continue
		}
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // an argument that looks like a path and is none
		}
		defer unix.Close(fd)
		hidden[path] = fd
	}
	if err := mount("tmpfs", "tmpfs", dir, 0, options); err != nil {
		return err
	}
	for path, fd := range hidden {
		if err := bind(fmt.Sprintf("/proc/self/fd/%d", fd), path); err != nil {
			return err
		}
	}
	return nil
}

// bind makes source, a directory or a file, appear at target as well.
func bind(source, target string) error {
	fi, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("bind %s: %w", target, err)
	}
	if fi.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(target), 0o755); err == nil {
		err = touch(target)
	}
	if err != nil {
		return fmt.Errorf("bind %s: %w", target, err)
	}
	return mount("", source, target, unix.MS_BIND, "")
}

func touch(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	return file.Close()
}

// mountHost makes writes below a host directory reach the host.
func mountHost(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	return mount("hostfs", "none", dir, 0, dir)
}
