package ipvs

import "slices"

// DefaultScheduler is what kube-proxy takes when none is asked for.
const DefaultScheduler = "rr"

// Schedulers lists the schedulers that kernels may have. Which of them this
// kernel has shows only when one is used: it then loads the module
// ip_vs_<name>, or says ENOENT.
func Schedulers() []string {
	return []string{
		"rr",    // round robin
		"wrr",   // weighted round robin
		"lc",    // least connections
		"wlc",   // weighted least connections
		"lblc",  // locality-based least connections
		"lblcr", // the same with replication
		"dh",    // destination hashing
		"sh",    // source hashing
		"sed",   // shortest expected delay
		"nq",    // never queue
		"fo",    // weighted failover
		"ovf",   // weighted overflow
		"mh",    // Maglev hashing
		"twos",  // power of two random choices
	}
}

// KnownScheduler reports whether a kernel may have a scheduler of that name.
func KnownScheduler(name string) bool { return slices.Contains(Schedulers(), name) }
