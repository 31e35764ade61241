// Package delta keeps, for one kernel table, who wants what and what is
// believed to be there, and maintains the difference.
//
// Three maps interact:
//
//	claims   owner -> put, keep       who wants what
//	wanted   key -> claims            the same, turned round
//	present  key -> spec              what the table is believed to hold
//
//	pending = { k : wanted(k) says put, and present(k) is not that spec }   a put
//	        ∪ { k : nobody wants k, and k is present }                      a delete
//
// pending is maintained by every mutation, never computed by a scan: a change
// costs the size of its owner's old and new wishes, whatever the size of the
// table. Beliefs change in two ways only: an operation succeeded (DidPut,
// DidDel) or a listing was observed (Observe). Wanting is never remembered as
// having. An operation that failed changes no belief but casts Doubt on it: the
// key is pending until it was observed, whatever becomes of the wish.
//
// An owner either puts a key (it shall be in the table with this spec) or
// keeps it (if it is there it stays as it is, if not it is not added). Keeping
// is how one table waits for another: addresses are kept, not put, until their
// virtual servers are in place, and virtual servers are kept, not deleted,
// until their addresses are gone.
//
// The package knows no kernel, no clock and no goroutine; a Tracker has one
// owner. It is not for settling which of two Services gets a contested
// frontend: that is package model's; the order of owners here is only the
// deterministic fallback for keys that are merely shared.
package delta
