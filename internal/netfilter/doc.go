// Package netfilter is the reconcile target for packet-filter rules and the
// sets they look into: iptables chains and ipsets today.
//
// # What it holds
//
// One table of five kinds of object, so that one loop orders them all:
//
//	set      {family, name}                    type, size
//	member   {family, set, entry}              nothing
//	chain    {family, table, name}             its rules, rendered
//	mapping  {family, nat, chain, entry}       a new destination
//	jump     {family, table, builtin, chain}   its order among our jumps there
//
// Rules are static: objects of the cluster move set members. Only what no set
// can say, a destination that is rewritten, is a rule for each, in a chain that
// is used as a map: it has no rules of its own, and its mappings come and go one
// by one, in no order. (In nftables it would be a map.) Members go to the kernel in batches over nfnetlink, so that no
// process is ever started for an entry; chains, mappings and jumps of all tables go
// through one iptables-restore per family, and are read by one iptables-save
// per family. A table that nobody ever used takes one more: see Target.read.
//
// Subsystems state rules as [Rule] values and never as text. [Chain.Spec]
// renders them, so that a backend for nftables can come beside this one
// without a change to any subsystem.
//
// # What is ours
//
// Chains and sets whose name begins with "SLUICE-" ([Prefix]), and rules in
// builtin chains that lead to such a chain. Nothing else is ever changed. An
// IPv6 set is called "SLUICE-6-…" in the kernel, because set names are not per
// family there; a [Key] has the same name for both families.
//
// # How a chain is known to be unchanged
//
// iptables-save does not print what iptables-restore was given. So List parses
// every rule of our chains back into a [Rule] and renders it again: the same
// meaning gives the same text, however iptables chose to print it, and a rule
// added, removed, moved or edited by hand gives another text. A rule that
// cannot be parsed stays in the text as it was printed and so differs too.
// Beside that, the first rule's comment carries a hash of the text it was
// written with; a chain whose text no longer fits its hash differs as well.
// Unlike the hash alone this needs no memory of what was written: List yields
// the text after a restart. A mapping is told by a comment of its own.
//
// What a program prints otherwise than it was given, for good, cannot be said by
// a Rule: a Limit above [MaxLimit], or a prefix longer than [MaxPrefix], of
// which one of the two backends keeps only the beginning.
//
// # A set of the wrong type
//
// A set's type cannot be changed in place, swapping demands equal types, and a
// set that rules refer to can neither be destroyed nor renamed. So a release
// that changes a set's type must give it another name (the subsystems' tests
// pin name and type together). Where the kernel nevertheless holds our name
// with another type or size, the rules that mention the set are taken out, the
// set is made anew and filled, and the rules are put back: they could not
// have matched anyway.
//
// # Tables
//
// The tables are nat, filter and mangle. [Usable] wants all three of a family:
// half a set of rules would serve a Service without its guard. A kernel that
// lacks one of them gives an error that names its module.
//
// It is not for flushing, policies of builtin chains, or rules of others.
package netfilter
