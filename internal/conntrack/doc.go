// Package conntrack rids the connection table of UDP entries that lead to
// endpoints which are no more, and of none else; and it marks connections that
// policy does not allow any more.
//
// UDP has no end of a connection. A sender that keeps its port keeps its entry
// alive, and the entry says to whom its datagrams are translated and how the
// answers come back. When the endpoint is gone, IPVS forgets its own
// connection soon after (net.ipv4.vs.expire_nodest_conn), but an entry that
// has outlived it sends every datagram and every answer astray. So after each
// removal the table is read, and what [Stale] says is deleted, entry by entry.
// It is never flushed: flows to endpoints that live are not touched, after a
// restart neither, and flows of others never (spec 1.7, 3.4).
//
// # What the engine has to call, and when
//
//   - [Sweeper.Set] with an owner's frontends whenever they change, before the
//     change goes to the tables: a flow can only reach an endpoint after Set
//     has named it, and so never looks stale while it lives. An owner that
//     wants nothing any more is set to nil.
//   - The backends given for a frontend are all that its flows may rightly
//     have: those of its virtual server, and where traffic from within the
//     cluster is sent to another virtual server before IPVS sees it
//     (externalTrafficPolicy Local), those of that one too. Such a flow keeps
//     the external address as its destination and is answered by an endpoint of
//     the other list. So: the union of Frontend.Cluster and Frontend.Local.
//   - [Sweeper.Removed] when virtual servers or destinations of UDP have left
//     the kernel (ipvs.TargetOptions.Removed). Not earlier: as long as IPVS has them, the
//     next datagram makes the entry anew.
//   - [Sweeper.Synced] once every source has told all it knows and Set has been
//     called for every owner. Before that nothing is read and nothing deleted:
//     half of the endpoints would make flows to the other half look stale.
//   - [Sweeper.Run] in a goroutine of its own.
//
// # What is lost
//
// A datagram that meets its old entry after the endpoint was removed is
// dropped by IPVS, which then lets both entries go within a tick of the
// kernel's clock; one whose old entry has gone before it is sent to another
// endpoint and not lost. (The kernel goes through its connections by itself a
// tick after a removal, since Linux 5.9.) Nobody can remove an endpoint and
// its entries in one step. So a sender loses what it sends between the removal
// and the end of the sweep or the kernel's own, whichever is first: 1 ms in the
// lab, a tick of 1 to 10 ms at most. It loses nothing when its datagrams are
// further apart. One that sends every millisecond loses 1 or 2, the answer
// under way included, and 6 when nobody sweeps.
//
// An endpoint that is named no more stays in IPVS at weight 0 for half a second,
// so that it can answer what it was asked. Until it is Removed, but two seconds
// at most, its entries are not stale: a sweep in that time would lose the
// answers under way.
//
// # What it is not for
//
// TCP entries are never deleted: a connection ends by itself, or IPVS ends it.
// Nor are those of SCTP: an association notices that its peer is dead and
// starts anew, and the INIT is scheduled as a first packet is.
//
// # Connections that policy does not allow any more
//
// A [Revoker] does something else with the same table: it judges the entries of
// TCP, UDP and SCTP whenever it is kicked, and gives those that are not allowed
// any more a bit of their mark, which a rule looks for. It deletes nothing. What
// another connection announced (FTP's data) is not judged: it goes on when the one
// that announced it is stopped.
package conntrack
