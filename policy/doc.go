// Package policy enforces NetworkPolicy where packets pass under IPVS (INPUT, OUTPUT and
// FORWARD) and explains every verdict.
//
// It is planned and empty: nothing here is implemented yet.
package policy
