package ipvs_test

import (
	"context"
	"encoding/binary"
	"errors"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/nlbatch"
	"sluice.dev/sluice/ipvs"
	"sluice.dev/sluice/ipvs/ipvstest"
)

const (
	testFamily  = 35
	nlHeader    = unix.NLMSG_HDRLEN
	getFamilyID = unix.GENL_ID_CTRL
)

// wire is a netlink socket with an ipvstest.Kernel behind it, so that what
// goes over the wire is under test without a kernel.
type wire struct {
	kernel *ipvstest.Kernel
	queue  [][]byte
}

// openWire gives a handle on a fresh table behind a wire.
func openWire(t *testing.T) (*ipvs.KernelHandle, *ipvstest.Kernel) {
	t.Helper()
	w := &wire{kernel: ipvstest.New()}
	h, err := ipvs.OpenOn(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	return h, w.kernel
}

func (w *wire) Close() error { return nil }

func (w *wire) Receive(buf []byte, _ time.Duration) (int, uint32, error) {
	if len(w.queue) == 0 {
		return 0, 0, unix.EIO // the kernel never leaves us without an answer
	}
	n := copy(buf, w.queue[0])
	w.queue = w.queue[1:]
	return n, 0, nil
}

func (w *wire) Send(d []byte) error {
	for len(d) > 0 {
		n := binary.NativeEndian.Uint32(d)
		w.message(d[:n])
		d = d[n:]
	}
	return nil
}

// message does one message and answers as netlink does.
func (w *wire) message(m []byte) {
	flags, seq := binary.NativeEndian.Uint16(m[6:]), binary.NativeEndian.Uint32(m[8:])
	dump := flags&unix.NLM_F_DUMP == unix.NLM_F_DUMP
	err := w.do(m, seq, dump)
	var errno syscall.Errno
	if err != nil && !errors.As(err, &errno) {
		panic(err)
	}
	typ := uint16(unix.NLMSG_ERROR)
	switch {
	case dump:
		typ = unix.NLMSG_DONE
	case errno == 0 && flags&unix.NLM_F_ACK == 0:
		return
	}
	var b nlbatch.Batch
	end := binary.NativeEndian.AppendUint32(nil, uint32(-int32(errno)))
	b.Begin(typ, 0, append(end, m[:nlHeader]...)...)
	w.answer(&b, seq)
}

func (w *wire) answer(b *nlbatch.Batch, seq uint32) {
	for i := range b.Len() {
		m := append([]byte(nil), b.Message(i)...)
		binary.NativeEndian.PutUint32(m[8:], seq)
		w.queue = append(w.queue, m)
	}
}

func (w *wire) do(m []byte, seq uint32, dump bool) error {
	var out nlbatch.Batch
	defer func() { w.answer(&out, seq) }()
	if binary.NativeEndian.Uint16(m[4:]) == getFamilyID {
		out.Begin(getFamilyID, 0, 1, 1, 0, 0)
		out.U16(unix.CTRL_ATTR_FAMILY_ID, testFamily)
		return nil
	}
	ctx, msg := context.Background(), m[nlHeader:]
	switch verb := msg[0]; verb {
	case ipvs.TestCmdGetInfo:
		out.Begin(testFamily, 0, 1, 1, 0, 0)
		out.U32(1, 0x010203)
		out.U32(2, 4096)
		return nil
	case ipvs.TestCmdGetService:
		return w.servers(ctx, msg, &out, dump)
	case ipvs.TestCmdGetDest:
		return w.destinations(ctx, msg, &out)
	default:
		return w.command(ctx, verb, msg)
	}
}

func (w *wire) servers(ctx context.Context, msg []byte, out *nlbatch.Batch, dump bool) error {
	entries, err := w.kernel.VirtualServers(ctx)
	if !dump {
		var asked, e ipvs.VirtualServerEntry
		if asked, err = ipvs.DecodeVirtualServer(msg); err != nil {
			panic(err)
		}
		e, err = w.kernel.VirtualServer(ctx, asked.VirtualServer)
		entries = []ipvs.VirtualServerEntry{e}
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		out.Begin(testFamily, unix.NLM_F_MULTI, ipvs.TestCmdNewService, 1, 0, 0)
		out.Nest(ipvs.TestAttrService)
		ipvs.EncodeServer(out, e)
	}
	return nil
}

func (w *wire) destinations(ctx context.Context, msg []byte, out *nlbatch.Batch) error {
	asked, err := ipvs.DecodeVirtualServer(msg)
	if err != nil {
		panic(err)
	}
	entries, err := w.kernel.Destinations(ctx, asked.VirtualServer)
	for _, e := range entries {
		out.Begin(testFamily, unix.NLM_F_MULTI, ipvs.TestCmdNewDest, 1, 0, 0)
		out.Nest(ipvs.TestAttrDest)
		ipvs.EncodeDestination(out, e)
	}
	return err
}

func (w *wire) command(ctx context.Context, verb uint8, msg []byte) error {
	server, err := ipvs.DecodeVirtualServer(msg)
	if err != nil {
		panic(err)
	}
	c := ipvs.Command{Op: ipvs.Op(verb - ipvs.TestCmdNewService), Key: ipvs.Key{VirtualServer: server.VirtualServer}}
	c.Spec.VirtualServer = server.Spec
	if verb >= ipvs.TestCmdNewDest {
		dest, err := ipvs.DecodeDestination(msg, server.IPFamily())
		if err != nil {
			panic(err)
		}
		c.Op, c.Key.RealServer = ipvs.Op(verb-ipvs.TestCmdNewDest), dest.RealServer
		c.Spec = ipvs.Spec{Destination: dest.Spec}
	}
	return w.kernel.Write(ctx, []ipvs.Command{c})[0]
}

// overWire is a KernelHandle whose timeouts, which go through a library with a
// socket of its own, are the table's.
type overWire struct {
	*ipvs.KernelHandle
	kernel *ipvstest.Kernel
}

func (o overWire) Timeouts(ctx context.Context) (ipvs.Timeouts, error) { return o.kernel.Timeouts(ctx) }

func (o overWire) SetTimeouts(ctx context.Context, t ipvs.Timeouts) error {
	return o.kernel.SetTimeouts(ctx, t)
}

func TestHandleConformsOverWire(t *testing.T) {
	ipvstest.Conformance(t, func(t *testing.T) ipvs.Handle {
		t.Helper()
		h, kernel := openWire(t)
		return overWire{h, kernel}
	})
}

func TestOneEndpointIsOneCommand(t *testing.T) {
	h, kernel := openWire(t)
	apply(t, h, change{Puts: []put{{Key: web(), Spec: serverSpec("rr")}}})
	for _, c := range []change{
		{Puts: []put{{Key: destKey(web(), "10.1.1.1:80"), Spec: dest(1)}}},
		{Puts: []put{{Key: destKey(web(), "10.1.1.1:80"), Spec: dest(0), Present: true}}},
		{Dels: []ipvs.Key{destKey(web(), "10.1.1.1:80")}},
	} {
		before, commands := h.Sent(), kernel.Commands()
		apply(t, h, c)
		if sent := h.Sent().Messages - before.Messages; sent != 1 || kernel.Commands()-commands != 1 {
			t.Errorf("%+v: %d messages, %d commands", c, sent, kernel.Commands()-commands)
		}
	}
	before := h.Sent()
	apply(t, h, change{})
	if h.Sent() != before {
		t.Error("an empty change sends something")
	}
}
