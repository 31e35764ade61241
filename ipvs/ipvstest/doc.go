// Package ipvstest has an IPVS table in memory, as strict as the kernel's, and
// the tests that the kernel and it have to pass alike.
//
// It is for tests of whoever writes the table. It forwards no packets: all
// counters are zero.
package ipvstest
