// Package reconcile drives one kernel table towards what its owners want.
//
// A Loop is one goroutine that owns a delta.Tracker and a Target. Its life:
//
//	start          list, believe it, and write only differences
//	before Synced  put, never delete
//	then           delete what owners let go; what nobody ever wanted (orphans, of a
//	               former run) waits for a claim with Sweep
//	claim          apply the difference at once; what comes meanwhile is the next batch
//	a key fails    it alone backs off; before it is tried again its part is listed again,
//	               for after an error belief is in doubt
//	a delete takes its time (Deferred): the key stays believed, and is asked for again
//	audit          list in sections, between which claims are applied; what differs is
//	               drift, counted and put right by the same path
//	listing fails  never an observation; what is in the kernel stays
//
// There is no other way to write, so removing everything is the same loop with
// no claims. The package is not for order between tables: an owner's ladder in
// package engine climbs from table to table by Settlements.
package reconcile
