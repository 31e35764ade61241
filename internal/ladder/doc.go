// Package ladder takes what an owner wants through several tables in order.
//
//	                 rules      servers     addresses
//	adding     up     put   ->    put    ->    put
//	dropping  down    drop  <-    drop   <-    drop
//
// What is added climbs: it is claimed on a table when the loop of the table
// below has reported that its part has come true. What is dropped comes down in
// the reverse order; until its turn a table keeps it. So a rule stands before
// the virtual server it guards, a virtual server before its address is bound,
// and the reverse when they go, although no loop knows another.
//
// Only gates are put in order. A gate is the key that gives others their
// meaning: a virtual server for its destinations. What changes under a gate
// that stands, be it from a former run, is claimed at once, whatever the state
// of the other tables.
//
// What takes its time to go (a virtual server whose connections have not ended)
// holds up what comes down behind it, and nothing that climbs. And what only
// stands in the way of what stays (a refusal of connections that an endpoint
// takes again) waits for nothing but its successor: it goes as soon as
// everything added stands.
//
// What no owner ever wished, because a former run left it behind, goes from the
// top down by itself: see Ladder.Sync.
//
// A new wish starts again from the bottom with what was there before still
// kept; a rung that it does not concern is passed without a claim. A claim that
// never comes true holds up its own owner only.
//
// The package does nothing by itself: its one user, the engine, calls it from
// one goroutine. It is not for order within a table, which is its Target's.
package ladder
