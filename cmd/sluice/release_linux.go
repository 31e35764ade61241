package main

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
)

// oldRelease is why a kernel's IPVS is worth a warning; "": it is not. What
// distributions have carried back into older kernels is not known.
func oldRelease(release string) string {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil || major > 5 || major == 5 && minor >= 9 {
		return ""
	}
	return "before Linux 5.9 IPVS drops the first packet of a connection whose source port was used a moment ago, which costs its client a second"
}

// warnOfRelease says so once, at the start.
func warnOfRelease(log *slog.Logger) {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return
	}
	release := strings.TrimSpace(string(b))
	if why := oldRelease(release); why != "" {
		log.Warn("this kernel is old for IPVS", "release", release, "why", why)
	}
}
