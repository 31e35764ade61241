package sysctl

import "os"

// Where a process finds the kernel's switches. A container's own are read-only
// unless it is privileged; of the host's network it can be given them beside,
// and with CAP_NET_ADMIN they can be written there.
const (
	ownRoot  = "/proc/sys"
	hostRoot = "/host/proc/sys"
)

// Root is the directory of the switches that this process is to write: those
// that its container was given, else its own.
func Root() string { return rootBelow("") }

func rootBelow(dir string) string {
	if _, err := os.Stat(dir + hostRoot + "/net"); err == nil {
		return dir + hostRoot
	}
	return dir + ownRoot
}
