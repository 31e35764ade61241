// Package netfiltertest has a packet filter in memory for tests: ipsets and
// iptables with the kernel's strictness, and a tracer that follows an imaginary
// packet through the rules.
//
// The fake refuses what the kernel refuses, with the same errors, and is
// atomic where the kernel is: a restore changes a table as a whole or not at
// all. The conformance suite of package netfilter is the proof, which the real
// kernel passes in the lab too. The fake parses what it is given and prints it
// its own way, as iptables-save does.
//
// It is not for timing, concurrency, or rules that netfilter.Rule cannot say:
// those are kept as text, and a packet that meets one stops the trace.
package netfiltertest
