package conntrack

import (
	"context"
	"net/netip"

	"sluice.dev/sluice/internal/model"
)

// Flow is one entry of the connection table.
type Flow struct {
	Protocol model.Protocol

	// Client and Frontend are those of the first datagram, before anybody
	// translated it.
	Client, Frontend netip.AddrPort
	// Backend is who is expected to answer: the endpoint that IPVS chose, or
	// the frontend itself when nobody translated the flow. It answers to Seen:
	// the client, or the node when the flow is masqueraded.
	Backend, Seen netip.AddrPort

	// ID is the entry's own, but the next one in the same place of the
	// kernel's memory from the same client to the same frontend has it too.
	ID uint32
}

// Handle is the connection table of one network namespace. It is for one
// goroutine at a time.
type Handle interface {
	// Flows reads the UDP entries of both families and gives fn each. After an
	// error the reading was not complete.
	Flows(ctx context.Context, fn func(Flow)) error
	// Delete deletes entries and returns one error for each: ENOENT when that
	// entry is not there any more, though the same client may have one that
	// leads to another backend.
	Delete(ctx context.Context, flows []Flow) []error
	Close() error
}
