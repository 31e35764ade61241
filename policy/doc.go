// Package policy enforces NetworkPolicy where packets pass under IPVS (INPUT,
// OUTPUT and FORWARD) and explains every verdict.
//
// Two parts are told the same facts and share no code but the selectors. [Facts]
// judge a packet by the API's prose, for whoever asks. The [Planner] works out
// what the packet filter is to hold, for the one loop that writes it. That both
// say the same is what the tests are about.
//
// # Rules and sets
//
// Rules follow what the policies of this node's pods say; pods are members of
// sets. In both families, alike but for addresses (<x>: E or I, the direction;
// <hash>: of what it means):
//
//	SLUICE-NP<x>-<hash>       hash:ip        the pods of this node under a class
//	SLUICE-NP-EGRESS-<0..F>   hash:ip        those whose class is in a part of the
//	SLUICE-NP-INGRESS-<0..F>                 dispatch
//	SLUICE-NP<x>-NONE         hash:ip        those that are cut off
//	SLUICE-NPP-<hash>         hash:ip        pods that peers of a rule mean
//	SLUICE-NPB-<hash>         hash:net       blocks that they mean
//	SLUICE-NPN-<hash>         hash:ip,port   what pods call by the name of a port
//	SLUICE-NP-NODE            hash:ip        this node's addresses
//	SLUICE-NP-PODS            hash:ip        this node's pods: only with Accept
//	SLUICE-NP-KNOWN, -RANGE   hash:ip, net   who is known, and where this node's
//	                                         pods are: only with UnknownDeny
//
//	filter FORWARD ─► SLUICE-NP-FORWARD
//	    connection revoked                          go to SLUICE-NP-REVOKED
//	    of a known connection                       return
//	    IPv6: ICMP of no connection                 return
//	                                                SLUICE-NP-EGRESS
//	                                                SLUICE-NP-INGRESS
//	    from, to RANGE, and not KNOWN               go to SLUICE-NP-UNKNOWN
//	filter OUTPUT ─► SLUICE-NP-OUTPUT
//	    the first three as above
//	    from NODE, from the proxy's VIPS            return
//	    an endpoint to itself (the proxy's HAIRPIN) return: not with EnforceHairpin
//	    the rest as above
//	filter INPUT ─► SLUICE-NP-INPUT
//	    the first three as above
//	    not by lo, from NODE or VIPS, to a frontend drop
//	    to a frontend (the proxy's sets)            return
//	                                                SLUICE-NP-EGRESS
//	    from RANGE, and not KNOWN                   go to SLUICE-NP-UNKNOWN
//	SLUICE-NP-EGRESS
//	    from SLUICE-NP-EGRESS-7                     SLUICE-NP-EGRESS-7
//	    …
//	    from SLUICE-NPE-NONE                        go to SLUICE-NP-DENY-E
//	SLUICE-NP-EGRESS-7
//	    from SLUICE-NPE-<hash>                      go to SLUICE-NPE-<hash>
//	    …
//	SLUICE-NPE-<hash>
//	    each port with each peer, such as
//	    TCP 80, to SLUICE-NPP-<hash>                return
//	    …
//	                                                go to SLUICE-NP-DENY-E
//	SLUICE-NP-DENY-E
//	    no more than 10 a second of a flow          tell the NFLOG group
//	    of no connection                            drop
//	                                                reject (TCP: reset)
//
// INGRESS is the same for the destination. With Drop all that is denied is
// dropped; with Accept what is allowed goes to SLUICE-NP-PASS, which accepts it
// if an end is one of PODS.
//
// All names begin as every name of ours does; that tells ours from others', see
// package netfilter. The jumps stand before the proxy's.
//
// # The path of a packet
//
// What goes from pod to pod, or in from the world, passes FORWARD. What goes to
// a Service passes INPUT with the Service's address, then IPVS chooses an
// endpoint, and it passes OUTPUT with the endpoint's address and still the
// client's: there it is judged, once, as what policies speak of. So INPUT lets
// by what a virtual server will take, and just that, by address, protocol and
// port: on every other port a Service's address is this node itself. Nothing is
// judged after POSTROUTING, where a masqueraded client would look like the node.
//
// What the node's own processes send to its pods is always allowed. It is known
// by its source, in OUTPUT alone. Somebody else's packet would get there with
// this node's address only through IPVS; such a packet is dropped in INPUT.
//
// # Classes
//
// A class is what all policies that isolate a pod in a direction say together,
// in one normal form: pods of whom the same is said share it, whatever the
// policies are called. Its name is a hash of that form (each text with its
// length, each list with its number), and a set's is one of what the set means.
// So rules are never changed in place, and rules and sets cannot disagree: what
// a policy says anew is another class, and a pod goes from one to the other.
//
// Exceptions of an ipBlock are an exception from this block and no denial.
// A block that has any is a set by itself, for in a set with others they would
// take from these.
//
// A rule "goes to" a class (goto): what the class lets return does not come back
// to look at more classes. It comes back behind the jump to the part of the
// dispatch. The parts are jumped to, because a pod that changes its class is a
// member of two for a moment: the class that it leaves may be out of its part
// already, and then the other part has to be looked at, or nobody would judge
// it. Allowed is "return" and not "accept", so that the rules of others have
// their say. See docs/decisions.
//
// # How a pod moves
//
// The owners of what is wished are one "PolicyRefusal" (the chains that all
// others end in), one "PolicyClass" for each class (its chain and sets), one
// "Policy" (the dispatch, and what leads to it) and one "Pod" for each pod (its
// memberships). They are wished in this order, in which each chain finds those
// that it leads to, but each may come to stand before or after any other. So a pod goes under a class when its chain, its sets with the pods in
// them and the dispatch stand, and stays where it was until then; one that is
// new waits cut off. A class that nobody is under any more goes when the pods
// that were are known to be elsewhere: first from the dispatch, then by itself.
//
// When a class does not come to stand within two seconds, though the kernel was
// written to meanwhile, its pods are cut off,
// the dispatch does without it so that others' can be written, and a Problem
// says which policies are not enforced as they say. Whenever it stands it
// counts.
//
// The first Take waits for nothing: after a restart all is there.
//
// # Connections that are known
//
// A connection is judged by its first packet. When policies change, somebody
// who knows Facts looks at the connections there are, and sets a bit of the
// mark of those that are not allowed any more ([Config].Revoked): the first rule
// of all then refuses both directions. Nothing is deleted from the connection
// table: the next packet of the other end would make it anew, turned round.
//
// # What it costs
//
// A pod that comes, goes or changes is one wish, by looking it up in each set in
// use: 20 µs with 500 policies on the node, whatever the number of pods. No
// program is started for it. A policy that changes costs a look at each pod of
// its namespace here, the pods that its new sets mean, and two rounds of the
// loop: rules, then members. A first packet meets the dispatch (16 sets at most,
// and the classes of one part) and the rules of its classes; all others meet
// three rules.
package policy
