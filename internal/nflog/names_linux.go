package nflog

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/nlbatch"
)

// names are those of a network namespace's interfaces, by index. They are asked
// for one by one and kept for a while: an interface may get another name, but
// its index is nobody else's for long.
type names struct {
	conn  *nlbatch.Conn
	known map[uint32]known
}

// known is a name, until then.
type known struct {
	name  string
	until time.Time
}

const (
	keepName = 10 * time.Second
	maxNames = 4096 // then they are forgotten all at once
)

// of is the name of an interface; "" for index 0.
func (n *names) of(ctx context.Context, index uint32, now time.Time) string {
	if index == 0 {
		return ""
	}
	if k, ok := n.known[index]; ok && now.Before(k.until) {
		return k.name
	}
	if len(n.known) >= maxNames {
		clear(n.known)
	}
	name := n.ask(ctx, index)
	n.known[index] = known{name, now.Add(keepName)}
	return name
}

func (n *names) ask(ctx context.Context, index uint32) string {
	var header [unix.SizeofIfInfomsg]byte
	binary.NativeEndian.PutUint32(header[4:], index)
	var b nlbatch.Batch
	b.Begin(unix.RTM_GETLINK, 0, header[:]...)
	name := ""
	err := n.conn.Get(ctx, &b, func(msg []byte) error {
		d := nlbatch.Decode(msg[min(unix.SizeofIfInfomsg, len(msg)):])
		for d.Next() {
			if d.Type() == unix.IFLA_IFNAME {
				name = d.String()
			}
		}
		return d.Err()
	})
	if err != nil || name == "" {
		return fmt.Sprintf("#%d", index)
	}
	return name
}
