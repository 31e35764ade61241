// Package ipam gives Services their load-balancer addresses.
//
// Allocator is the decision: facts in, one Decision per Service out. It knows
// no clock, no Kubernetes type and no I/O, and it has one owner. It works in two
// phases: until Start it only adopts, so that no address that a Service has
// already is ever given to another one; from then on it gives the lowest free
// address of the first pool that will do, in the order of the Services' age. What
// a Service has it keeps, whatever becomes of pools and labels: only what the
// Service itself asks for (another address by name, other families, the
// annotation that asks for a new one, not being ours any more) changes it.
//
// Controller carries the decisions to a cluster. At any moment there may be
// several of them that believe they lead, one of them frozen since a minute ago
// in the middle of a write. The election keeps them from getting in each other's
// way; what makes it impossible that one address is told to two Services is the
// order of writes, each under the resourceVersion that was read before:
//
//	give     read Service -> claim address for it -> write Service's status
//	take     mark claim as being given back -> write Service's status -> let go of the claim
//
// Whoever writes a status with an address has read the Service before it saw the
// claim in force. Whoever frees the address marks the claim first and changes the
// Service after that, so the former's write meets another resourceVersion and
// fails. An AddressClaim is named after its address: there is one or none.
//
// Carrier does the same for a single node that reads files: it fills in the
// addresses between the source and the engine and remembers them in a file.
package ipam
