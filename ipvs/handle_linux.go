package ipvs

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/nlbatch"
)

// KernelHandle is the Handle on the kernel.
type KernelHandle struct {
	conn     *nlbatch.Conn
	family   uint16
	batch    nlbatch.Batch
	timeouts timeoutSocket
}

var _ Handle = (*KernelHandle)(nil)

// keptCommands bounds the memory a Handle keeps for its next batch; the first
// fill of a large table is not to be paid for ever.
const keptCommands = 4096

// Open opens the table of the calling thread's network namespace. It needs
// CAP_NET_ADMIN in the initial user namespace. A kernel without IPVS is
// ENOENT, as far as it knows no module of that family to load.
func Open(ctx context.Context) (*KernelHandle, error) {
	conn, err := nlbatch.Dial(unix.NETLINK_GENERIC)
	if err != nil {
		return nil, fmt.Errorf("open IPVS: %w", err)
	}
	family, err := conn.Family(ctx, familyName)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open IPVS (is the module ip_vs loaded?): %w", err), conn.Close())
	}
	return &KernelHandle{conn: conn, family: family}, nil
}

// Close closes the sockets.
func (h *KernelHandle) Close() error {
	h.timeouts.close()
	return h.conn.Close()
}

// Sent counts what went over the wire so far. Timeouts are not in it.
func (h *KernelHandle) Sent() nlbatch.Counters { return h.conn.Sent() }

// Table implements Handle.
func (h *KernelHandle) Table(ctx context.Context) (Table, error) {
	var t Table
	err := h.conn.Get(ctx, h.request(cmdGetInfo, nil), func(msg []byte) (err error) {
		t, err = decodeTable(msg)
		return err
	})
	if err != nil {
		return Table{}, fmt.Errorf("read IPVS version: %w", err)
	}
	return t, nil
}

// VirtualServers implements Handle.
func (h *KernelHandle) VirtualServers(ctx context.Context) ([]VirtualServerEntry, error) {
	return untorn(func() (entries []VirtualServerEntry, err error) {
		err = h.conn.Dump(ctx, h.request(cmdGetService, nil), func(msg []byte) error {
			e, err := decodeVirtualServer(msg)
			entries = append(entries, e)
			return err
		})
		return entries, err
	})
}

// VirtualServer implements Handle.
func (h *KernelHandle) VirtualServer(ctx context.Context, vs VirtualServer) (VirtualServerEntry, error) {
	if err := vs.ValidateRead(); err != nil {
		return VirtualServerEntry{}, err
	}
	var e VirtualServerEntry
	err := h.conn.Get(ctx, h.request(cmdGetService, &vs), func(msg []byte) (err error) {
		e, err = decodeVirtualServer(msg)
		return err
	})
	if err != nil {
		return VirtualServerEntry{}, err
	}
	return e, nil
}

// Destinations implements Handle.
func (h *KernelHandle) Destinations(ctx context.Context, vs VirtualServer) ([]DestinationEntry, error) {
	if err := vs.ValidateRead(); err != nil {
		return nil, err
	}
	var entries []DestinationEntry
	err := h.conn.Dump(ctx, h.request(cmdGetDest, &vs), func(msg []byte) error {
		e, err := decodeDestination(msg, vs.IPFamily())
		entries = append(entries, e)
		return err
	})
	if err != nil {
		return nil, err
	}
	return entries, nil
}

// Daemons reads the sync daemons that run, at most one of each state.
func (h *KernelHandle) Daemons(ctx context.Context) ([]Daemon, error) {
	var daemons []Daemon
	err := h.conn.Dump(ctx, h.request(cmdGetDaemon, nil), func(msg []byte) error {
		d, err := decodeDaemon(msg)
		daemons = append(daemons, d)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read sync daemons: %w", err)
	}
	return daemons, nil
}

// Write implements Handle.
func (h *KernelHandle) Write(ctx context.Context, commands []Command) []error {
	h.batch.Reset()
	for _, c := range commands {
		encodeCommand(&h.batch, h.family, c)
	}
	errs := h.conn.Do(ctx, &h.batch)
	if len(commands) > keptCommands {
		h.batch = nlbatch.Batch{}
	}
	return errs
}

// request makes a message of one verb, about one virtual server or none.
func (h *KernelHandle) request(verb uint8, vs *VirtualServer) *nlbatch.Batch {
	h.batch.Reset()
	h.batch.Begin(h.family, 0, verb, familyVersion, 0, 0)
	if vs != nil {
		h.batch.Nest(attrService)
		encodeServerKey(&h.batch, *vs)
		h.batch.End()
	}
	return &h.batch
}
