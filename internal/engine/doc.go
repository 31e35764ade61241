// Package engine is where everything meets: one goroutine keeps the facts,
// resolves each Service that a fact touched, asks the subsystems' pure
// functions what it wants of each table, and hands these wishes to the tables'
// loops.
//
// Order between tables is the ladder's: what a Service adds goes up it
// (netfilter, then IPVS, then addresses), what it drops comes down, and a rung
// is climbed when the loop below reports that the claim has come true.
// So rules stand before the virtual server they guard, a virtual server before
// its address is bound, and the reverse when they go. What needs no order, a
// destination of a virtual server that is there, never waits.
//
// The engine does no I/O and knows no kernel; it is not for decisions about
// one table, which belong to the subsystem's Desired and Target.
package engine
