// Package ipvs is the kernel's IPVS table: virtual servers, the destinations
// (real servers) behind them, and nothing else. Addresses, packet filters and
// the connection table belong to others.
//
// # Ownership
//
// IPVS has no label and no comment, so that nothing in the table says who put
// it there. What is ours is decided by a predicate given to the [Target]
// (TargetOptions.Ours): a virtual server is ours when our ipsets name its
// address, port and protocol, which they do from before it is made until after
// it is deleted (docs/decisions/003-ipvs-ownership.md). All of a virtual
// server's destinations are its owner's.
//
// A virtual server that is not ours never shows up in a listing, and so is
// never deleted. One that somebody else made where a Service wants one of its
// own is taken over.
//
// # Draining
//
// What leaves gets weight 0 first and stays until its connections have ended or
// its time is over: a destination whose virtual server stays, and a virtual
// server whose address still answers here (TargetOptions.Local), as it does
// when a Service loses a port, a NodePort or its last endpoint. That is the
// loop's own deletion taking its time, not a second writer; wanted again, it is
// simply put. The pure functions drain and drainServer decide from what the
// kernel reports, so that nothing has to be remembered across a restart, but
// since when it takes: weight 0 and wanted is put right as any difference,
// weight 0 and unwanted drains on, with its time begun anew.
//
// UDP has no connections to wait for and stays half a second. What is left of
// it elsewhere, in the connection table, is package conntrack's: see
// TargetOptions.Removed.
//
// # Invariants
//
//   - What we want (Spec), what is there (the same Spec, read by List) and what
//     the kernel counts (VirtualServerEntry, DestinationEntry) are different
//     types; a Spec read back equals the Spec written.
//   - One changed destination is one command on the wire: nothing is read to
//     find out whether it is there.
//   - The table is never flushed and refilled: the kernel keeps deleted
//     destinations in a list for two minutes and searches it at every add.
//
// # Torn listings
//
// The kernel dumps virtual servers in parts and finds its place again by
// counting, without telling when the table changed in between
// (NLM_F_DUMP_INTR is never set by IPVS). We list and write from one
// goroutine, so that we cannot tear our own listing; when a foreigner does, a
// server may be missed or seen twice. A missed one costs one superfluous
// create, answered by EEXIST and turned into a change; nothing is ever deleted
// because it was not seen.
package ipvs
