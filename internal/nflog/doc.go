// Package nflog listens to what NFLOG rules tell of: one record for each packet
// that met one, with the rule's prefix, the interfaces and the packet's two ends.
//
// A group has one listener in a network namespace. What nobody listens to is
// thrown away by the kernel and costs next to nothing. Records wait in the
// kernel for some others, 50 ms at most, and those that nobody takes in time are
// lost and counted, never an error: a flood of packets must not become one of
// memory or of errors.
//
// Only the first bytes of a packet are copied. They are what a stranger sent, and
// are read with that in mind: what cannot be read has no ports, or is no record.
//
// It is not for whole packets, for what conntrack or a bridge knows of them, nor
// for who is behind an address: see package policy.
package nflog
