package conntrack

import "context"

// Conn is one entry of the connection table, of TCP, UDP or SCTP.
type Conn struct {
	Flow
	Mark uint32
	// Related: another connection announced it. It was let through for that
	// one's sake, and is nothing that can be judged by itself.
	Related bool
}

// Marks are the connection table of one network namespace, as far as marks
// go. It is for one goroutine at a time.
type Marks interface {
	// Conns reads the entries of both families and gives fn each. After an
	// error the reading was not complete.
	Conns(ctx context.Context, fn func(Conn)) error
	// SetMark changes the bits in mask of the entries' marks to value's, and
	// returns one error for each: ENOENT when there is no entry any more that
	// the same Backend answers to the same Seen. One that has been made anew
	// between the same two is changed in its place: the kernel looks at no ID here.
	SetMark(ctx context.Context, conns []Conn, value, mask uint32) []error
	Close() error
}
