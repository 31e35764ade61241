package nlbatch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

var (
	// ErrUnknown is in the error of a message that was sent and whose fate is
	// not known, because the answer was lost or late. It may have taken effect.
	ErrUnknown = errors.New("fate unknown: sent, but the kernel's answer was lost")

	// ErrNotSent is in the error of a message that never left: it took no effect.
	ErrNotSent = errors.New("not sent")

	// ErrInterrupted says that a table changed while it was dumped, or that
	// part of the dump was lost. What was read may lack entries.
	ErrInterrupted = errors.New("dump interrupted")

	// ErrTimeout says that the kernel did not answer in time.
	ErrTimeout = errors.New("no answer from the kernel in time")

	errTruncated = errors.New("netlink datagram longer than the receive buffer")
	errMalformed = errors.New("malformed netlink message from the kernel")
)

// Error is the kernel's refusal of one message. It unwraps to the errno.
type Error struct {
	Errno syscall.Errno
	Text  string // the kernel's own explanation (extended ACK), often empty
}

// Error is the errno's text, with the kernel's explanation.
func (e *Error) Error() string {
	if e.Text == "" {
		return e.Errno.Error()
	}
	return fmt.Sprintf("%s (kernel: %s)", e.Errno.Error(), e.Text)
}

// Unwrap is the errno, for errors.Is(err, unix.EEXIST).
func (e *Error) Unwrap() error { return e.Errno }

// answer reads an NLMSG_ERROR: nil for an acknowledgement.
func answer(flags uint16, payload []byte) error {
	if len(payload) < 4 {
		return errMalformed
	}
	code := int32(binary.NativeEndian.Uint32(payload)) // it is an int on the wire
	if code == 0 {
		return nil
	}
	return &Error{Errno: syscall.Errno(-code), Text: extendedText(flags, payload[4:])}
}

// done reads an NLMSG_DONE's code.
func done(flags uint16, payload []byte) error {
	if len(payload) < 4 {
		return nil // allowed: old families end a dump with an empty message
	}
	code := int32(binary.NativeEndian.Uint32(payload)) // it is an int on the wire
	if code >= 0 {
		return nil
	}
	e := &Error{Errno: syscall.Errno(-code)}
	if flags&unix.NLM_F_ACK_TLVS != 0 {
		e.Text = messageText(payload[4:])
	}
	return e
}

// extendedText finds the text behind the header of the refused message, which
// is followed by the message's body unless the kernel capped it.
func extendedText(flags uint16, b []byte) string {
	if flags&unix.NLM_F_ACK_TLVS == 0 || len(b) < unix.NLMSG_HDRLEN {
		return ""
	}
	skip := unix.NLMSG_HDRLEN
	if flags&unix.NLM_F_CAPPED == 0 {
		skip = max(skip, align(int(binary.NativeEndian.Uint32(b))))
	}
	if skip > len(b) {
		return ""
	}
	return messageText(b[skip:])
}

func messageText(b []byte) string {
	text := ""
	d := Decode(b)
	for d.Next() {
		if d.Type() == unix.NLMSGERR_ATTR_MSG {
			text = d.String()
		}
	}
	return text
}
