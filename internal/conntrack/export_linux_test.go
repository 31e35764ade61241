package conntrack

import "sluice.dev/sluice/internal/nlbatch"

// What the external tests need of the inside.

func EncodeDelete(b *nlbatch.Batch, f Flow) { encodeDelete(b, f) }

func Decode(msg []byte) (f Flow, ours bool, err error) { return decode(msg) }

func EncodeMark(b *nlbatch.Batch, f Flow, value, mask uint32) { encodeMark(b, f, value, mask) }

func DecodeConn(msg []byte) (c Conn, ours bool, err error) { return decodeConn(msg) }
