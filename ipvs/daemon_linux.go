package ipvs

import (
	"fmt"

	"sluice.dev/sluice/internal/nlbatch"
)

// The attributes of a sync daemon.
const (
	daemonState     = 1
	daemonInterface = 2
	daemonSyncID    = 3
	daemonMaxLength = 4
	daemonGroup4    = 5
	daemonGroup6    = 6
	daemonPort      = 7
	daemonTTL       = 8
)

// decodeDaemon reads a sync daemon from a reply.
func decodeDaemon(msg []byte) (Daemon, error) {
	d, err := nested(msg, attrDaemon)
	if err != nil {
		return Daemon{}, err
	}
	var daemon Daemon
	for d.Next() {
		daemon.attribute(&d)
	}
	if err := d.Err(); err != nil {
		return Daemon{}, fmt.Errorf("sync daemon: %w", err)
	}
	return daemon, nil
}

// attribute reads one attribute. Kernels before 4.3 tell only the first three.
func (d *Daemon) attribute(in *nlbatch.Decoder) {
	switch in.Type() {
	case daemonState:
		d.State = DaemonState(in.U32())
	case daemonInterface:
		d.Interface = in.String()
	case daemonSyncID:
		d.SyncID = in.U32()
	case daemonMaxLength:
		d.MaxLength = in.U16()
	case daemonGroup4, daemonGroup6:
		d.Group = in.Addr()
	case daemonPort:
		d.Port = in.U16() // unlike all other ports here, in the machine's own order
	case daemonTTL:
		d.TTL = in.U8()
	}
}
