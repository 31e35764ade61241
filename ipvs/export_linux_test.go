package ipvs

import (
	"context"

	moby "github.com/moby/ipvs"

	"sluice.dev/sluice/internal/model"
	"sluice.dev/sluice/internal/nlbatch"
)

// What the external tests need of the inside. They are external because
// ipvstest imports this package.

const (
	TestCmdNewService = cmdNewService
	TestCmdDelService = cmdDelService
	TestCmdGetService = cmdGetService
	TestCmdNewDest    = cmdNewDest
	TestCmdDelDest    = cmdDelDest
	TestCmdGetDest    = cmdGetDest
	TestCmdGetInfo    = cmdGetInfo
	TestAttrService   = attrService
	TestAttrDest      = attrDest
	TestSvcStats      = svcStats
	TestSvcStats64    = svcStats64
	TestDestActive    = destActive
)

// OpenOn makes a handle on any wire.
func OpenOn(ctx context.Context, sock nlbatch.Socket) (*KernelHandle, error) {
	conn := nlbatch.New(sock, nlbatch.Options{})
	family, err := conn.Family(ctx, familyName)
	return &KernelHandle{conn: conn, family: family}, err
}

func EncodeCommand(b *nlbatch.Batch, family uint16, c Command) { encodeCommand(b, family, c) }

func EncodeServer(b *nlbatch.Batch, e VirtualServerEntry) {
	encodeServerKey(b, e.VirtualServer)
	encodeServerSpec(b, e.IPFamily(), e.Spec)
}

func EncodeDestination(b *nlbatch.Batch, e DestinationEntry) {
	encodeDestinationKey(b, e.RealServer)
	encodeDestinationSpec(b, e.Spec)
}

func DecodeVirtualServer(msg []byte) (VirtualServerEntry, error) { return decodeVirtualServer(msg) }

func DecodeDestination(msg []byte, of model.Family) (DestinationEntry, error) {
	return decodeDestination(msg, of)
}

func DecodeDaemon(msg []byte) (Daemon, error) { return decodeDaemon(msg) }

// RunOnLibrary runs an operation as Timeouts and SetTimeouts do.
func (h *KernelHandle) RunOnLibrary(ctx context.Context, op func(*moby.Handle) error) error {
	return h.timeouts.do(ctx, op)
}
