package nflog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/nlbatch"
)

// ErrHeld says that another program, or another part of this one, listens to
// the group: it has room for one.
var ErrHeld = errors.New("held by another program")

// What the kernel's header has of a group's settings (nfnetlink_log.h).
const (
	subsystem = 4 // NFNL_SUBSYS_ULOG
	msgPacket = subsystem << 8
	msgConfig = subsystem<<8 | 1

	cfgCommand   = 1
	cfgMode      = 2
	cfgTimeout   = 4 // in hundredths of a second
	cfgThreshold = 5
	cfgFlags     = 6

	commandBind = 1
	copyPacket  = 2
	flagSeq     = 1
)

const (
	// copyBytes holds the addresses and ports behind any headers but odd ones.
	copyBytes = 128
	// maxWait is how long a record waits in the kernel for others, in hundredths
	// of a second, and maxWaiting how many do.
	maxWait, maxWaiting = 5, 20
	// receiveSize holds any datagram of records: the kernel makes them of 8 KiB.
	receiveSize = 64 << 10
	// pollFor is how long Run does not look at its context.
	pollFor = 100 * time.Millisecond
)

// Listener is a group's listener.
type Listener struct {
	group uint16
	sock  nlbatch.Socket
	names names
	seq   uint32 // of the next record; the kernel counts from 0
	lost  atomic.Uint64
}

// Listen binds a group of the calling thread's network namespace. It needs
// CAP_NET_ADMIN. ErrHeld: somebody has the group.
//
// The protocol families' default logger stays what it is: rules that name a
// group do not need it, and it is others' (as nf_conntrack_log_invalid).
func Listen(group uint16) (*Listener, error) {
	sock, port, err := nlbatch.Open(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("NFLOG group %d: %w", group, err)
	}
	if err := bind(nlbatch.New(sock, nlbatch.Options{Port: port}), group); err != nil {
		return nil, errors.Join(err, sock.Close())
	}
	links, err := nlbatch.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("NFLOG group %d: names of interfaces: %w", group, err), sock.Close())
	}
	return &Listener{group: group, sock: sock, names: names{conn: links, known: map[uint32]known{}}}, nil
}

// bind asks for the group's records. Those that come before it has the last
// answer are lost, and counted.
func bind(conn *nlbatch.Conn, group uint16) error {
	var b nlbatch.Batch
	begin := func() {
		b.Begin(msgConfig, 0, unix.AF_UNSPEC, unix.NFNETLINK_V0, byte(group>>8), byte(group))
	}
	begin()
	b.Bytes(cfgCommand, []byte{commandBind})
	begin()
	b.Bytes(cfgMode, append(binary.BigEndian.AppendUint32(nil, copyBytes), copyPacket, 0))
	b.BE32(cfgTimeout, maxWait)
	b.BE32(cfgThreshold, maxWaiting)
	b.BE16(cfgFlags, flagSeq)
	errs := conn.Do(context.Background(), &b) // bounded by the Conn's own time
	switch err := errs[0]; {
	case errors.Is(err, unix.EPERM) && holder(group) != "":
		return fmt.Errorf("NFLOG group %d is %w (netlink port %s, often its process id): end it, or log to another group", group, ErrHeld, holder(group))
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("NFLOG group %d: %w (CAP_NET_ADMIN is needed)", group, err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("NFLOG group %d: %w (is the module nfnetlink_log loaded?)", group, err)
	case err != nil:
		return fmt.Errorf("NFLOG group %d: %w", group, err)
	}
	if err := errs[1]; err != nil {
		return fmt.Errorf("NFLOG group %d: settings: %w", group, err)
	}
	return nil
}

// holder is the netlink port of who listens to a group; "": nobody, or nobody can
// tell.
func holder(group uint16) string {
	text, err := os.ReadFile("/proc/thread-self/net/netfilter/nfnetlink_log")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == fmt.Sprint(group) {
			return f[1]
		}
	}
	return ""
}

// Close gives the group back. Run has to be over.
func (l *Listener) Close() error { return errors.Join(l.sock.Close(), l.names.conn.Close()) }

// Lost is how many records nobody got: not taken from the kernel in time, or
// without a packet that can be read. The next record that comes tells of those
// before it. Any goroutine may ask.
func (l *Listener) Lost() uint64 { return l.lost.Load() }

// Run gives fn every record until ctx ends, and then returns nil. While fn works,
// records wait in the kernel.
func (l *Listener) Run(ctx context.Context, fn func(Record)) error {
	buf := make([]byte, receiveSize)
	for ctx.Err() == nil {
		n, from, err := l.sock.Receive(buf, pollFor)
		switch {
		case errors.Is(err, nlbatch.ErrTimeout), errors.Is(err, unix.ENOBUFS): // what was lost lacks in seq
		case err != nil:
			return fmt.Errorf("NFLOG group %d: %w", l.group, err)
		case from == 0 && n <= len(buf): // the kernel's word
			l.datagram(ctx, buf[:n], fn)
		}
	}
	return nil
}

// datagram gives fn the records of a datagram.
func (l *Listener) datagram(ctx context.Context, b []byte, fn func(Record)) {
	now := time.Now()
	each(b, func(payload []byte) {
		m, err := decode(payload)
		if m.counted {
			l.lost.Add(uint64(m.seq - l.seq)) // wraps around as the kernel's does
			l.seq = m.seq + 1
		}
		switch {
		case err != nil && m.counted:
			l.lost.Add(1)
			return
		case err != nil: // it lacks in the count of the next
			return
		}
		fn(Record{
			At: now, Prefix: m.prefix, Src: m.packet.Src, Dst: m.packet.Dst, Protocol: m.packet.Protocol,
			In: l.names.of(ctx, m.in, now), Out: l.names.of(ctx, m.out, now),
		})
	})
}

// each gives fn the payload of each packet's message in a datagram.
func each(b []byte, fn func(payload []byte)) {
	for len(b) >= unix.NLMSG_HDRLEN {
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.NLMSG_HDRLEN || length > len(b) {
			return
		}
		if binary.NativeEndian.Uint16(b[4:]) == msgPacket {
			fn(b[unix.NLMSG_HDRLEN:length])
		}
		b = after(b, (length+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1))
	}
}
