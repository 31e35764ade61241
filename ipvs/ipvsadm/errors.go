package ipvsadm

import (
	"errors"
	"strings"
	"syscall"
)

// errnoTexts are ipvsadm's words for what the kernel answers.
type errnoTexts map[syscall.Errno]string

func serviceErrors() errnoTexts {
	return errnoTexts{syscall.EEXIST: "Service already exists", syscall.ENOENT: "Scheduler or persistence engine not found"}
}

func serverErrors() errnoTexts {
	return errnoTexts{syscall.ESRCH: "Service not defined", syscall.EEXIST: "Destination already exists"}
}

func listErrors() errnoTexts { return errnoTexts{syscall.ESRCH: "No such service"} }

// errorText is an error in ipvsadm's words, of which some depend on what was
// asked; one without an errno in its own.
func errorText(err error, of errnoTexts) string {
	errno, is := errors.AsType[syscall.Errno](err)
	if !is {
		return err.Error()
	}
	if text := of[errno]; text != "" {
		return text
	}
	text := errnoTexts{
		syscall.EPERM:        "Permission denied (you must be root)",
		syscall.EINVAL:       "Invalid operation.  Possibly wrong module version, address not unicast, ...",
		syscall.ENOPROTOOPT:  "Protocol not available",
		syscall.ENOMEM:       "Memory allocation problem",
		syscall.EOPNOTSUPP:   "Operation not supported with IPv6",
		syscall.EAFNOSUPPORT: "Operation not supported with specified address family",
		syscall.EMSGSIZE:     "Module is wrong version",
	}[errno]
	if text == "" {
		text = errno.Error() // the C library's, but for the capital letter
		text = strings.ToUpper(text[:1]) + text[1:]
	}
	return text
}

// cannotRead ends a listing.
func cannotRead(err error) error { return ending{exitListing, errorText(err, listErrors())} }
