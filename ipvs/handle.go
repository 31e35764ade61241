package ipvs

import (
	"context"
	"errors"
	"fmt"
	"syscall"
)

// Handle is the kernel's table in one network namespace, in the kernel's own
// verbs and errnos (see ipvstest.Conformance, which every Handle passes). It
// is for one goroutine at a time, and sees everything that is in the table,
// also what is not ours.
type Handle interface {
	// Table tells the version and size of IPVS.
	Table(ctx context.Context) (Table, error)
	// VirtualServers reads all virtual servers, in no particular order.
	VirtualServers(ctx context.Context) ([]VirtualServerEntry, error)
	// VirtualServer reads one; ESRCH when it is not there.
	VirtualServer(ctx context.Context, vs VirtualServer) (VirtualServerEntry, error)
	// Destinations reads those of one virtual server, in no particular order.
	// The kernel does not tell a virtual server that is not there from one
	// without destinations: both have none.
	Destinations(ctx context.Context, vs VirtualServer) ([]DestinationEntry, error)
	// Write gives the kernel commands in order and returns one error for
	// each. A failed command keeps none of the others from taking effect.
	Write(ctx context.Context, commands []Command) []error
	// Timeouts reads the connection timeouts.
	Timeouts(ctx context.Context) (Timeouts, error)
	// SetTimeouts writes them; 0 leaves one as it is.
	SetTimeouts(ctx context.Context, t Timeouts) error
	Close() error
}

// Command is one write.
type Command struct {
	Op   Op
	Key  Key
	Spec Spec // not used by Delete
}

// Op is what a command does.
type Op uint8

// The operations. They are as strict as the kernel: Create refuses what is
// there (EEXIST), Change and Delete what is not (ESRCH for a virtual server,
// also for that of a destination; ENOENT for a destination).
const (
	Create Op = iota
	Change
	Delete
)

// String is "create", "change" or "delete".
func (o Op) String() string {
	switch o {
	case Create:
		return "create"
	case Change:
		return "change"
	}
	return "delete"
}

// Validate refuses, with EINVAL, a command for which the wire has no form. A
// command that passes is for the kernel to judge.
func (c Command) Validate() error {
	if c.Op > Delete {
		return fmt.Errorf("operation %d: %w", c.Op, syscall.EINVAL)
	}
	return c.Key.validate()
}

func exists(err error) bool { return errors.Is(err, syscall.EEXIST) }

// absent tells that what a command was to change or delete is not there. With
// a virtual server ENOENT means something else: see noSuchModule.
func absent(c Command, err error) bool {
	if c.Key.IsDestination() {
		return errors.Is(err, syscall.ENOENT)
	}
	return errors.Is(err, syscall.ESRCH)
}

// noVirtualServer tells that a destination's virtual server is not there.
func noVirtualServer(c Command, err error) bool {
	return c.Key.IsDestination() && errors.Is(err, syscall.ESRCH)
}

// noSuchModule tells that the kernel has no such scheduler or persistence
// engine, not even as a module to load.
func noSuchModule(c Command, err error) bool {
	return !c.Key.IsDestination() && c.Op != Delete && errors.Is(err, syscall.ENOENT)
}
