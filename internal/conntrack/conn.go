package conntrack

import "context"

// Conn is one entry of the connection table, of TCP, UDP or SCTP.
type Conn struct {
	Flow
	Mark uint32
	// Related: another connection announced it, whose fate it shares.
	Related bool
}

// Marks are the connection table of one network namespace, as far as marks
// go. It is for one goroutine at a time.
type Marks interface {
	// Conns reads the entries of both families and gives fn each. After an
	// error the reading was not complete.
	Conns(ctx context.Context, fn func(Conn)) error
	// SetMark changes the bits in mask of the entries' marks to value's, and
	// returns one error for each: ENOENT when the entry is not there any more.
	SetMark(ctx context.Context, conns []Conn, value, mask uint32) []error
	Close() error
}
