package nlbatch

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

const genericVersion = 1

// Family finds the id of a generic netlink family: the type of its messages.
// A kernel without it says ENOENT, after trying to load a module that has
// declared it. The Conn must be one of NETLINK_GENERIC.
func (c *Conn) Family(ctx context.Context, name string) (uint16, error) {
	var b Batch
	b.Begin(unix.GENL_ID_CTRL, 0, unix.CTRL_CMD_GETFAMILY, genericVersion, 0, 0)
	b.String(unix.CTRL_ATTR_FAMILY_NAME, name)
	var id uint16
	err := c.Get(ctx, &b, func(msg []byte) error {
		d := Decode(msg[min(unix.GENL_HDRLEN, len(msg)):])
		for d.Next() {
			if d.Type() == unix.CTRL_ATTR_FAMILY_ID {
				id = d.U16()
			}
		}
		return d.Err()
	})
	if err == nil && id == 0 {
		err = errMalformed
	}
	if err != nil {
		return 0, fmt.Errorf("generic netlink family %q: %w", name, err)
	}
	return id, nil
}
