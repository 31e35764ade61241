package main

// The two ends of the link between companion and guest.
const (
	tapName      = "sluicetap"
	vectorDevice = "vec0"
	hostAddr     = "192.0.2.1"
	guestAddr    = "192.0.2.2"
)

// bootLine is the guest kernel's command line. The kernel hands words it does
// not know to init, NAME=value ones as its environment.
func bootLine(o options, init string, w workdir) []string {
	line := []string{
		"mem=" + o.mem,
		// The host's tree, read-only: init puts an overlay over it.
		"root=/dev/root", "rootfstype=hostfs", "hostfs=/", "ro",
		"init=" + init,
		// One console, for the boot log only.
		"con=null", "con0=null,fd:1", "ssl=null",
		// A panic is the end, not the begin of another try.
		"panic=-1", "noreboot",
		// Its management socket would go to ~/.uml otherwise, and stay.
		"uml_dir=" + w.file("uml"),
	}
	if o.companion != "" {
		// gro: buffers for the joined packets the host sends; without them
		// any transfer of more than a packet or two stalls.
		line = append(line, vectorDevice+":transport=tap,ifname="+tapName+",gro=1")
	}
	return append(line, envSpec+"="+w.spec())
}

// hostNetwork is the `ip -batch` input for the companion's namespace. Whatever
// the guest has behind it is reached through it.
func hostNetwork() string {
	return lines(
		"link set lo up",
		"tuntap add dev "+tapName+" mode tap",
		"addr add "+hostAddr+"/30 dev "+tapName,
		"link set "+tapName+" up",
		"route add default via "+guestAddr,
	)
}

// guestNetwork is the `ip -batch` input for the guest.
func guestNetwork(companion bool) string {
	if !companion {
		return lines("link set lo up")
	}
	return lines(
		"link set lo up",
		"addr add "+guestAddr+"/30 dev "+vectorDevice,
		"link set "+vectorDevice+" up",
	)
}

// nativeNetwork is the `ip -batch` input for the one namespace a native
// companion shares with the program: it has the same address there.
func nativeNetwork(companion bool) string {
	if !companion {
		return lines("link set lo up")
	}
	return lines(
		"link set lo up",
		"addr add "+hostAddr+"/32 dev lo",
	)
}

func lines(all ...string) string {
	var text []byte
	for _, line := range all {
		text = append(append(text, line...), '\n')
	}
	return string(text)
}
