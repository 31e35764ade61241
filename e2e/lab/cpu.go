package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// processor is a claim on one of the host's processors; the zero one is none.
type processor struct {
	set  *unix.CPUSet
	lock *os.File
}

// claimProcessor finds the processor the guest may have. With auto it waits
// while all are taken: two guests on one processor are both slower than two in
// a row.
func claimProcessor(ctx context.Context, choice string) (processor, error) {
	switch choice {
	case cpuAll:
		return processor{}, nil
	case cpuAuto:
		return claimFree(ctx)
	}
	n, err := strconv.Atoi(choice)
	if err != nil {
		return processor{}, fmt.Errorf("processor %q: %w", choice, err)
	}
	return processor{set: only(n)}, nil
}

func claimFree(ctx context.Context) (processor, error) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return processor{}, fmt.Errorf("list processors: %w", err)
	}
	begin, told := time.Now(), false
	for {
		// From the last: the first does most of the host's own work.
		for n := len(allowed)*64 - 1; n >= 0; n-- {
			if !allowed.IsSet(n) {
				continue
			}
			lock, err := tryLock(filepath.Join(os.TempDir(), fmt.Sprintf("sluice-lab-cpu%d.lock", n)))
			if err != nil {
				return processor{}, err
			}
			if lock != nil {
				return processor{set: only(n), lock: lock}, nil
			}
		}
		if !told && time.Since(begin) > progressEvery {
			told = true
			fmt.Fprintln(os.Stderr, "lab: waiting for a processor, other labs have them all")
		}
		select {
		case <-ctx.Done():
			return processor{}, fmt.Errorf("wait for a processor: %w", context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// tryLock returns the locked file, or nil when another process has the lock.
// The lock is the kernel's, so a lab that was killed does not keep it.
func tryLock(path string) (*os.File, error) {
	// Not O_CREATE at once: in /tmp that may fail for another user's file.
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		file, err = os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o644)
	}
	if err != nil {
		return nil, fmt.Errorf("claim a processor: %w", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return file, nil
	}
	file.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, fmt.Errorf("claim a processor: lock %s: %w", path, err)
}

// pinned calls f with the current thread, and so what f starts, on the
// processor.
func (p processor) pinned(f func() error) error {
	if p.set == nil {
		return f()
	}
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("read affinity: %w", err)
	}
	if err := unix.SchedSetaffinity(0, p.set); err != nil {
		return fmt.Errorf("pin to processor: %w", err)
	}
	if err := f(); err != nil {
		return err
	}
	if err := unix.SchedSetaffinity(0, &before); err != nil {
		return fmt.Errorf("restore affinity: %w", err)
	}
	return nil
}

// release lets another lab have the processor.
func (p processor) release() {
	if p.lock != nil {
		p.lock.Close()
	}
}

func only(n int) *unix.CPUSet {
	var set unix.CPUSet
	set.Set(n)
	return &set
}
