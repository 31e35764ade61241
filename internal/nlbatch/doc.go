// Package nlbatch writes many netlink messages per system call and reads
// netlink dumps without believing torn ones. It serves every table that is
// bulk on netlink: IPVS (generic netlink), addresses and routes (rtnetlink),
// ipset entries (nfnetlink, whose ipset messages are plain ones and need no
// batch-begin and batch-end).
//
// # What a batch is
//
// The kernel walks all messages of one datagram in order and works on each by
// itself: an error in one keeps none of the others from taking effect. It
// answers a message that failed, and one that asks for it (NLM_F_ACK).
// So only the last message of a datagram asks, and its answer says that all
// of them are done:
//
//	send:     [seq 7][seq 8][seq 9, ACK]
//	receive:  error seq 8: EEXIST   (8 failed; 7 and 9 took effect)
//	          ack   seq 9           (and nothing more will come)
//
// # Invariant
//
// Every message has one of three ends: nil (the kernel did it), an [*Error]
// (the kernel refused it; errors.Is finds the errno), or an error that is
// [ErrUnknown] (sent, but the answer was lost: look before writing again) or
// [ErrNotSent]. Silence is never taken for success, and nothing waits longer
// than the deadline.
//
// It is not for multicast groups, for many goroutines on one socket, nor for
// nf_tables, whose batches are transactions.
package nlbatch
