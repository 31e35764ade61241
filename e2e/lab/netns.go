package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// enterNetwork moves the current thread, and so what it starts, into a fresh
// network namespace. The namespace and all in it end with its last process:
// nothing is left to clean up.
func enterNetwork(setup string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace (are you root?): %w", err)
	}
	return ipBatch(setup)
}

func ipBatch(input string) error {
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip -batch: %w: %s", err, out)
	}
	return nil
}

// enterMounts moves the current thread into a mount namespace of its own with
// an empty /run/netns, so that named network namespaces are private too. The
// thread is in its network namespace already: that decides what sysfs shows.
func enterMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return fmt.Errorf("make /run/netns: %w", err)
	}
	return errors.Join(
		mount("tmpfs", "tmpfs", "/run/netns", 0, "mode=755"),
		mount("sysfs", "sysfs", "/sys", 0, ""),
	)
}

func mount(fstype, source, target string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", fstype, target, err)
	}
	return nil
}
