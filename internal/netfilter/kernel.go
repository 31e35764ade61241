package netfilter

import (
	"context"
	"errors"
	"fmt"

	"sluice.dev/sluice/internal/model"
)

// Runner runs a program of the iptables family.
type Runner interface {
	// Run starts a program, gives it stdin and returns what it printed. An
	// *ExitError says that it ran and refused, ErrLocked that others held
	// the xtables lock for too long.
	Run(ctx context.Context, stdin []byte, program string, args ...string) ([]byte, error)
}

// Sets are the kernel's ipsets. The writing verbs work through all they are
// given, whatever fails on the way, and return one error for each item, or no
// slice when nothing failed.
type Sets interface {
	// Headers are all sets of the network namespace, also those of others.
	Headers(ctx context.Context) ([]Set, error)
	// Members are the entries of one set. ENOENT: there is no such set.
	Members(ctx context.Context, set string) ([]Member, error)
	// Create makes sets. EEXIST: there is one of that name.
	Create(ctx context.Context, sets []Set) []error
	// Destroy removes sets with their entries. ENOENT: there is none. EBUSY:
	// rules refer to it.
	Destroy(ctx context.Context, names []string) []error
	// Add puts entries in; one that is there already succeeds and takes the
	// new NoMatch. ENOENT: no such set. ENOSPC: the set is full.
	Add(ctx context.Context, members []Member) []error
	// Delete takes entries out; one that is absent succeeds. ENOENT: no such
	// set.
	Delete(ctx context.Context, members []Member) []error
}

// Set is an ipset by its kernel name, without its entries.
type Set struct {
	Name    string
	Family  model.Family // zero: a type without one
	Type    SetType
	MaxElem uint32
}

// Member is an entry of the ipset of a kernel name.
type Member struct {
	Set     string
	Entry   Entry
	NoMatch bool
}

// Count is what a handle did so far, for operation budgets.
type Count struct {
	Execs    uint64 // programs started, also those that only list
	Commands uint64 // ipset commands that write; one may carry many entries
}

// ErrLocked says that the xtables lock was held by others for too long.
var ErrLocked = errors.New("xtables lock held by another program")

// ExitError is the refusal of a program that ran.
type ExitError struct {
	Program string
	Code    int
	Stderr  string
}

// Error has the program, its exit status and what it said.
func (e *ExitError) Error() string {
	return fmt.Sprintf("%s: exit status %d: %s", e.Program, e.Code, e.Stderr)
}

// refused reports whether a program ran and did not like its input: a part of
// the input may then still be accepted.
func refused(err error) bool {
	var exit *ExitError
	return errors.As(err, &exit) && !errors.Is(err, ErrLocked)
}
